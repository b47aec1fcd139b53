"""What a table cannot express, and why: the words under which it is asked for in papers, timm and Keras."""

_FUSED = "a fused block expands with a dense k x k convolution; minitl's blocks expand 1x1 and filter depthwise"
_ATTENTION = "minitl has no attention op"
_MIXED = "minitl has one square kernel per convolution; write the block with one of the kernels"
_CURVE = "minitl has no such op; silu, relu, relu6 and hard_swish are there"

REASONS = {
    **dict.fromkeys(("edge", "er", "fused", "fused_irb", "fused_mbconv"), _FUSED),
    **dict.fromkeys(("mha", "mqa", "attention"), _ATTENTION),
    **dict.fromkeys(("mixed", "mixconv", "kernels"), _MIXED),
    **dict.fromkeys(("gelu", "mish", "elu", "selu", "leaky_relu", "prelu", "tanh", "softplus"), _CURVE),
    "swish": "its name is silu",
    "hswish": "its name is hard_swish",
    "cond_conv": "weights that depend on the image (CondConv) are no parameters of an op of minitl",
    "uir": "a universal inverted block has a second depthwise convolution before the expansion",
    "conv": "a plain convolution among the blocks; minitl has one below them (stem) and one above (head)",
    "bottleneck": "a residual block with a dense 3x3 convolution; minitl's blocks filter depthwise",
    "dilation": "minitl's convolutions have dilation 1",
    "groups": "minitl's convolutions are dense, pointwise or depthwise, not grouped",
    "group_size": "minitl's convolutions are dense, pointwise or depthwise, not grouped",
    "drop_path": "stochastic depth drops whole blocks; minitl has dropout before the last linear layer",
    "bias": "minitl's convolutions, squeeze-and-excite's apart, have no bias: the norm behind them has a shift",
    "norm": "every convolution is followed by a batch norm",
    "pool": "the maps are averaged over all positions (global average pool)",
    "valid": "padding is (k - 1) / 2 on all sides (symmetric), or TensorFlow's (same)",
    "expand": "squeeze-and-excite stands behind the depthwise part, as in all MobileNets",
    "project": "squeeze-and-excite stands behind the depthwise part, as in all MobileNets",
    "before_depthwise": "squeeze-and-excite stands behind the depthwise part, as in all MobileNets",
    "downsample": "minitl halves maps with a stride of 2 in the depthwise convolution",
}
