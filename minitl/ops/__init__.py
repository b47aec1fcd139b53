"""The operations of a MobileNet: each file one op, with its formula, forward, backward and cost."""

from minitl.ops.activations.hard_sigmoid import hard_sigmoid
from minitl.ops.activations.hard_swish import hard_swish
from minitl.ops.activations.relu import relu
from minitl.ops.activations.relu6 import relu6
from minitl.ops.activations.sigmoid import sigmoid
from minitl.ops.activations.silu import silu
from minitl.ops.convolutions.conv import conv as exact_conv
from minitl.ops.convolutions.conv_int import conv_int
from minitl.ops.convolutions.depthwise_conv import depthwise_conv as exact_depthwise_conv
from minitl.ops.convolutions.gated_conv import gated_conv
from minitl.ops.convolutions.grouped_conv import grouped_conv
from minitl.ops.convolutions.linear import linear as exact_linear
from minitl.ops.convolutions.linear import pointwise_conv as exact_pointwise_conv
from minitl.ops.convolutions.standardised_conv import standardised_conv
from minitl.ops.losses.cross_entropy import cross_entropy
from minitl.ops.maps.add import add
from minitl.ops.maps.add_channels import add_channels
from minitl.ops.maps.avg_pool import avg_pool
from minitl.ops.maps.bilinear_up import bilinear_up
from minitl.ops.maps.dropout import dropout
from minitl.ops.maps.global_avg_pool import global_avg_pool
from minitl.ops.maps.multiply import multiply
from minitl.ops.maps.scale import scale
from minitl.ops.norms.batch_norm import batch_norm
from minitl.ops.norms.frozen_norm import frozen_norm
from minitl.ops.norms.group_norm import group_norm
from minitl.ops.op import Cost, Functions, Op, Split
from minitl.ops.rules.approximate import with_rules
from minitl.saved import Kept

conv = with_rules(exact_conv)
depthwise_conv = with_rules(exact_depthwise_conv)
pointwise_conv = with_rules(exact_pointwise_conv)
linear = with_rules(exact_linear)

__all__ = [
    "Cost", "Functions", "Kept", "Op", "Split", "add", "add_channels", "avg_pool", "batch_norm", "bilinear_up",
    "conv", "conv_int", "cross_entropy", "depthwise_conv", "dropout", "frozen_norm", "gated_conv",
    "global_avg_pool", "group_norm", "grouped_conv", "hard_sigmoid", "hard_swish", "linear", "multiply",
    "pointwise_conv", "relu", "relu6", "scale", "sigmoid", "silu", "standardised_conv",
]  # fmt: skip
