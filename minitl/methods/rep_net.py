"""rep-net: six small modules beside a frozen backbone (Yang, Rakin & Fan, CVPR 2022).

Design as released (ASU-ESIC-FAN-Lab/RepNet): TinyTL's lite residual module at six places, the first one reading the
image (`side_places.rep_net`); modules and final linear layer train. A gradient still crosses the frozen blocks
above the lowest module, so their activations' slopes are kept: on MobileNetV3-Large ten times the modules' own bytes.
"""

from minitl.methods import side_places
from minitl.methods.method import Method
from minitl.methods.tinytl import lite

rep_net = Method(
    "rep-net",
    "six modules beside the blocks, the final linear",
    lite,
    sides=side_places.rep_net,
    keeps="maps of the modules, slopes",
    published="Yang et al., CVPR 2022",
)
