"""additive-attention, multiplicative-attention: an adaptor beside a frozen backbone, after the idea of DA3.

DA3's recipe (Yang, Rakin & Fan, arXiv:2012.01362) is not public; layers and places are minitl's own (`sides.attention`,
`side_places.attention`). The twins differ in one op: a product keeps both its factors for their gradients,
4 P C bytes each at a map of P positions and C channels, where a sum keeps nothing.
"""

from functools import partial

from minitl.methods import side_places
from minitl.methods.method import Method
from minitl.methods.tinytl import lite

additive_attention = Method(
    "additive-attention",
    "attention added to blocks, the final linear (after the idea of DA3)",
    lite,
    sides=partial(side_places.attention, multiplies=False),
    keeps="maps of the adaptors, slopes",
    published="idea: Yang et al. 2020, arXiv:2012.01362; layers: here",
)
multiplicative_attention = Method(
    "multiplicative-attention",
    "attention times blocks, the final linear (additive-attention's costly twin)",
    lite,
    sides=partial(side_places.attention, multiplies=True),
    keeps="the same and both factors of each product",
    published="its twin: here",
)
