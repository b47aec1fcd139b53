"""Methods that keep an encoded input of each convolution in the tuned blocks and the head; all else as cheap as exact.

    quantised        codes of 2 bits (ActNN: Chen et al., ICML 2021, arXiv:2104.14129, its level L2; `rules.quantised`)
    gradient-filter  sums over patches of 2 x 2 (Yang, Li & Marculescu, CVPR 2023, arXiv:2301.00330)
    subspace         a core in bases that follow the input (after ASI, ICML 2025, arXiv:2505.05086; `rules.subspace`)
    subspace-fixed   in bases that stay as the first batch, or a calibration pass, makes them (after LANCE, ECCV 2026,
                     arXiv:2509.21617; `methods.calibration`)

Norms train their shift only, as in `mobiletl`: a batch norm's normalised input would be kept in full, and be most of
what is kept. (ActNN encodes it, too; the others do not count it.) Activations have their usual rules.
`--rule expand=quantised8` and the like choose another code for a role.
"""

from functools import partial

from minitl.layers import FROZEN, Conv, Layer, LayerPlan, Norm
from minitl.methods.method import Method, trained_as_usual

ROLES = ("expand", "depthwise", "project", "head_conv")


def policy(layer: Layer, blocks: int, rule: str) -> LayerPlan:
    """Convolutions by `rule`, norms their shift, all else as usual; below the tuned blocks frozen."""
    if layer.height > blocks:
        return FROZEN
    if isinstance(layer, Norm):
        return LayerPlan(train=frozenset({"bias"}))
    if isinstance(layer, Conv) and layer.role in ROLES:
        return LayerPlan(train=frozenset({"weight"}), rule=rule)
    return trained_as_usual(layer)


def encoded(name: str, rule: str, keeps: str, published: str) -> Method:
    """The method of that rule."""
    summary = "the top blocks; norms: shift only"
    return Method(name, summary, partial(policy, rule=rule), takes_blocks=True, keeps=keeps, published=published)


quantised = encoded(
    "quantised", "quantised2", "2 bits per value of inputs, slopes", "Chen et al. 2021, arXiv:2104.14129"
)
gradient_filter = encoded(
    "gradient-filter", "filter2", "sums of inputs over 2 x 2, slopes", "Yang et al. 2023, arXiv:2301.00330"
)
subspace = encoded(
    "subspace", "subspace", "cores of inputs, slopes; bases between steps", "after Nguyen et al. 2025, arXiv:2505.05086"
)
subspace_fixed = encoded(
    "subspace-fixed", "subspace_fixed", "the same, bases calibrated once", "after LANCE, arXiv:2509.21617"
)
