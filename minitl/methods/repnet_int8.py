"""repnet-int8: Rep-Net with its modules' convolutions in 8-bit integers, forward and backward.

After INT8 Rep-Net in memory (Zhang et al., IEEE TCAD 2024, DOI 10.1109/TCAD.2024.3371268), whose quantiser is not
public: scales, rounding and what stays in floating point (norms, the update, the frozen backbone) are
minitl's own (`ops.conv_int`). The modules' inputs are kept as codes of 1 byte per value.
"""

from functools import partial

from minitl.methods import side_places
from minitl.methods.method import Method
from minitl.methods.tinytl import lite

repnet_int8 = Method(
    "repnet-int8",
    "rep-net's modules with convolutions in 8-bit integers (minitl's own scheme), the final linear",
    lite,
    sides=partial(side_places.rep_net, integers=True),
    keeps="codes of the modules' maps, slopes",
    published="idea: Zhang et al., TCAD 2024; scheme: here",
)
