"""ft-all: fine-tune everything, with batch statistics. The upper end of memory and, usually, of accuracy."""

from minitl.layers import Layer, LayerPlan
from minitl.methods.method import Method, trained_as_usual


def policy(layer: Layer, blocks: int) -> LayerPlan:
    """Every layer is trained as usual."""
    return trained_as_usual(layer)


ft_all = Method(
    "ft-all",
    "everything, batch statistics",
    policy,
    keeps="inputs of all layers",
    published="usual practice",
)
