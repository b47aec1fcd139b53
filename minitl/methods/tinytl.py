"""tinytl-b, tinytl-l, tinytl-lb: biases, lite residual modules, or both (Cai et al. 2020, arXiv:2007.11622).

A module beside every block but the first refines its output on a map of half the side
(`sides.lite_residual`). The backbone's weights, scales and statistics stay frozen: its convolutions
and norms keep nothing, and what is kept besides the modules' own maps are the activations' slopes.

As in the source, `tinytl-lb` freezes a module's last shift: the block's own last shift is added to
the same map. Unlike it, the backbone keeps its batch norms where TinyTL puts group norms.
"""

from dataclasses import replace

from minitl.layers import FROZEN, Layer, LayerPlan
from minitl.methods import side_places
from minitl.methods.ft_bias import ft_bias
from minitl.methods.method import Method, is_final_linear, trained_as_usual


def lite(layer: Layer, blocks: int) -> LayerPlan:
    """The modules and the final linear layer."""
    return trained_as_usual(layer) if is_side(layer.role) or is_final_linear(layer) else FROZEN


def lite_and_biases(layer: Layer, blocks: int) -> LayerPlan:
    """Both; a module's last shift is frozen."""
    if layer.role == "side_project_norm":
        return LayerPlan(train=frozenset({"weight"}))
    return trained_as_usual(layer) if is_side(layer.role) else ft_bias.policy(layer, blocks)


def is_side(role: str) -> bool:
    """Whether a layer of that role belongs to a side module."""
    return role.startswith("side_")


tinytl_b = replace(ft_bias, name="tinytl-b", summary="biases: TinyTL's name for ft-bias, frozen batch norms")
tinytl_l = Method(
    "tinytl-l",
    "lite residual modules, the final linear",
    lite,
    sides=side_places.tinytl,
    keeps="maps of the modules, slopes",
    published="Cai et al. 2020, arXiv:2007.11622",
)
tinytl_lb = replace(
    tinytl_l,
    name="tinytl-lb",
    summary="lite residual modules and all biases, the final linear",
    policy=lite_and_biases,
)
