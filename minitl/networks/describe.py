"""What `print(net)` says: the parts of a network with their shapes, their parameters, and how many of them train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from minitl.blocks import BlockSpec
from minitl.layers import Activation, Dropout, Layer, Linear

if TYPE_CHECKING:
    from minitl.networks.model import Model


class Part(NamedTuple):
    """A line of the description."""

    name: str
    what: str
    parameters: int
    trained: int


def summary(model: Model) -> str:
    """One line: name, size, method, and how much of it trains."""
    parts = list(_parts(model))
    total, trained = sum(part.parameters for part in parts), sum(part.trained for part in parts)
    classes = f", {model.num_classes} classes" if model.num_classes else ""
    head = f"{model.name}: {len(model.blocks)} block{'s' * (len(model.blocks) > 1)}{classes}, {model.dtype}"
    if model.method == "none":
        return f"{head}; nothing of {total:,} parameters trains (no method applied)"
    tuned = f" {model.tuned_blocks}" if model.tuned_blocks else ""
    return f"{head}; {model.method}{tuned} trains {trained:,} of {total:,} parameters"


def describe(model: Model) -> str:
    """The summary, and a line for each part: stem, blocks from the bottom and what stands beside them, the rest."""
    parts = list(_parts(model))
    wide = max(len(part.what) for part in parts)
    lines = [f"{p.name:10} {p.what:{wide}}  {p.parameters:>10,}  {p.trained:>9,}" for p in parts]
    return "\n".join([summary(model), f"{'part':10} {'what':{wide}}  {'parameters':>10}  {'trained':>9}", *lines])


def _parts(model: Model) -> Iterator[Part]:
    rest = [layer for layer in model.layers() if not 0 < layer.height <= len(model.blocks)]
    stem = [layer for layer in rest if layer.height]
    head = [layer for layer in rest if layer.role.startswith("head")]
    classifier = [layer for layer in rest if layer not in stem and layer not in head]
    sides = getattr(model, "sides", {})  # a single block has none
    yield from _several("stem", stem)
    for number, block in enumerate(model.blocks):
        yield _part(f"block {number + 1}", _block(block.spec, residual=block.add is not None), block.layers())
        if number in sides:
            yield from _several("  beside", list(sides[number].layers()))
    yield from _several("head", head)
    yield from _several("classifier", classifier)


def _several(name: str, layers: Sequence[Layer]) -> Iterator[Part]:
    """A part of these layers, if there are any."""
    if layers:
        yield _part(name, ", ".join(filter(None, map(_layer, layers))), layers)


def _part(name: str, what: str, layers: Iterable[Layer]) -> Part:
    layers = tuple(layers)
    own = [p for layer in layers for p in layer.parameters.values() if not p.statistic]
    return Part(name, what, sum(p.value.size for p in own), sum(layer.trained_count for layer in layers))


def _block(spec: BlockSpec, *, residual: bool) -> str:
    wide = f" -> {spec.expanded_channels}" if spec.expand else ""
    stride = f" stride {spec.stride}" if spec.stride > 1 else ""
    se = f", SE {spec.se_channels}" if spec.se_channels else ""
    line = (
        f"{spec.in_channels}{wide} -> {spec.out_channels}, {spec.kernel}x{spec.kernel}{stride}, {spec.activation}{se}"
    )
    return line + ", residual" * residual


def _layer(layer: Layer) -> str:
    """A convolution, linear layer, activation or dropout; norms and pools go without saying."""
    weight = layer.parameters.get("weight")
    shape = weight.value.shape if weight else ()
    if len(shape) == 4:
        attrs = getattr(layer, "attrs", {})
        stride, groups = attrs.get("stride", 1), attrs.get("groups", 1)
        more = f" stride {stride}" * (stride > 1) + f" in {groups} groups" * (groups > 1)
        return f"conv {shape[2]}x{shape[3]}{more} {groups * shape[1]} -> {shape[0]}"
    if isinstance(layer, Linear):
        return f"linear {shape[1]} -> {shape[0]}"
    if isinstance(layer, Dropout):
        return f"dropout {layer.p:g}" if layer.p else ""
    return layer.op.name if isinstance(layer, Activation) else ""
