"""The operations of a MobileNet: each file one op, with its formula, forward, backward and cost."""

from minitl.ops.add import add
from minitl.ops.add_channels import add_channels
from minitl.ops.approximate import with_rules
from minitl.ops.avg_pool import avg_pool
from minitl.ops.batch_norm import batch_norm
from minitl.ops.bilinear_up import bilinear_up
from minitl.ops.conv import conv as exact_conv
from minitl.ops.conv_int import conv_int
from minitl.ops.cross_entropy import cross_entropy
from minitl.ops.depthwise_conv import depthwise_conv as exact_depthwise_conv
from minitl.ops.dropout import dropout
from minitl.ops.frozen_norm import frozen_norm
from minitl.ops.gated_conv import gated_conv
from minitl.ops.global_avg_pool import global_avg_pool
from minitl.ops.group_norm import group_norm
from minitl.ops.grouped_conv import grouped_conv
from minitl.ops.hard_sigmoid import hard_sigmoid
from minitl.ops.hard_swish import hard_swish
from minitl.ops.linear import linear as exact_linear
from minitl.ops.linear import pointwise_conv as exact_pointwise_conv
from minitl.ops.multiply import multiply
from minitl.ops.op import Cost, Kept, Op, Split
from minitl.ops.relu import relu
from minitl.ops.relu6 import relu6
from minitl.ops.scale import scale
from minitl.ops.sigmoid import sigmoid
from minitl.ops.silu import silu
from minitl.ops.standardised_conv import standardised_conv

conv = with_rules(exact_conv)
depthwise_conv = with_rules(exact_depthwise_conv)
pointwise_conv = with_rules(exact_pointwise_conv)
linear = with_rules(exact_linear)

__all__ = [
    "Cost", "Kept", "Op", "Split", "add", "add_channels", "avg_pool", "batch_norm", "bilinear_up", "conv", "conv_int",
    "cross_entropy", "depthwise_conv", "dropout", "frozen_norm", "gated_conv", "global_avg_pool", "group_norm",
    "grouped_conv", "hard_sigmoid", "hard_swish", "linear", "multiply", "pointwise_conv", "relu", "relu6", "scale",
    "sigmoid", "silu", "standardised_conv",
]  # fmt: skip
