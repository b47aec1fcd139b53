"""The operations of a MobileNet: each file one op, with its formula, forward, backward and cost."""

from minitl.ops.add import add
from minitl.ops.batch_norm import batch_norm
from minitl.ops.conv import conv
from minitl.ops.cross_entropy import cross_entropy
from minitl.ops.depthwise_conv import depthwise_conv
from minitl.ops.dropout import dropout
from minitl.ops.folded_conv import folded_conv
from minitl.ops.frozen_norm import frozen_norm
from minitl.ops.gated_conv import gated_conv
from minitl.ops.global_avg_pool import global_avg_pool
from minitl.ops.hard_sigmoid import hard_sigmoid
from minitl.ops.hard_swish import hard_swish
from minitl.ops.linear import linear, pointwise_conv
from minitl.ops.op import Cost, Kept, Op, Split
from minitl.ops.relu import relu
from minitl.ops.relu6 import relu6
from minitl.ops.scale import scale

__all__ = [
    "Cost", "Kept", "Op", "Split",
    "add", "batch_norm", "conv", "cross_entropy", "depthwise_conv", "dropout", "folded_conv", "frozen_norm",
    "gated_conv",
    "global_avg_pool", "hard_sigmoid", "hard_swish", "linear", "pointwise_conv", "relu", "relu6", "scale",
]  # fmt: skip
