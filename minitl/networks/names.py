"""How the layers of a network are named: torchvision's two styles, and timm's.

A name is the path of a layer in the other library's model, and so the beginning of its state dict
names. What has no module there (pool, residual) is named as if it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from minitl.blocks import BlockSpec

Triple = tuple[str, str, str]  # a convolution, its norm, its activation


class Paths(NamedTuple):
    """The path of every layer: of stem and head, of each block's parts, of what comes after them.

    `classifier` is the hidden linear layer and its activation ("" where there is none), dropout
    and the last linear layer.
    """

    stem: Triple
    blocks: tuple[dict[str, str], ...]
    head: Triple
    pool: str
    classifier: tuple[str, str, str, str]

    def all(self) -> Iterator[str]:
        """All paths, in an order that is the same in all styles."""
        yield from chain(self.stem, *(dict(sorted(block.items())).values() for block in self.blocks))
        yield from chain(self.head, (self.pool,), self.classifier)


class Outline(NamedTuple):
    """What names depend on: the blocks by stage, and whether a hidden linear layer follows the pool."""

    stages: Sequence[Sequence[BlockSpec]]
    hidden: bool


def torchvision_v2(outline: Outline) -> Paths:
    """MobileNetV2's: `features.4.conv.0.0`; the projection is not wrapped, its norm is `features.4.conv.3`."""
    return _torchvision(outline, "conv", "pool", flat_project=True)


def torchvision_v3(outline: Outline) -> Paths:
    """MobileNetV3's: `features.4.block.0.0`."""
    return _torchvision(outline, "block", "avgpool", flat_project=False)


def timm(outline: Outline) -> Paths:
    """timm's: `blocks.2.0.conv_pw`. MobileNetV3's head is a stage there, and the hidden linear layer `conv_head`."""
    blocks = [
        _timm_block(f"blocks.{stage}.{place}", spec)
        for stage, specs in enumerate(outline.stages)
        for place, spec in enumerate(specs)
    ]
    last = f"blocks.{len(outline.stages)}.0"
    head = (f"{last}.conv", f"{last}.bn1", f"{last}.bn1.act") if outline.hidden else ("conv_head", "bn2", "bn2.act")
    hidden = ("conv_head", "act2") if outline.hidden else ("", "")
    stem = ("conv_stem", "bn1", "bn1.act")
    return Paths(stem, tuple(blocks), head, "global_pool", (*hidden, "drop", "classifier"))


STYLES: dict[str, Callable[[Outline], Paths]] = {
    "torchvision_v2": torchvision_v2,
    "torchvision_v3": torchvision_v3,
    "timm": timm,
}


def _torchvision(outline: Outline, module: str, pool: str, *, flat_project: bool) -> Paths:
    specs = list(chain.from_iterable(outline.stages))
    blocks = [
        _torchvision_block(f"features.{number}.{module}", spec, flat_project=flat_project)
        for number, spec in enumerate(specs, start=1)
    ]
    places = ("classifier.0", "classifier.1", "classifier.2", "classifier.3")
    classifier = places if outline.hidden else ("", "", *places[:2])
    return Paths(_triple("features.0"), tuple(blocks), _triple(f"features.{len(specs) + 1}"), pool, classifier)


def _torchvision_block(prefix: str, spec: BlockSpec, *, flat_project: bool) -> dict[str, str]:
    """Its parts are numbered in order; each is a (conv, norm, act) triple, unless the projection lies flat."""
    paths, place = {"add": f"{prefix.rsplit('.', 1)[0]}.add"}, 0
    for part in ("expand", "depthwise", "se", "project"):
        here = f"{prefix}.{place}"
        if part == "se":
            squeeze = {"pool": "avgpool", "fc1": "fc1", "act": "activation", "fc2": "fc2", "gate": "scale_activation"}
            paths |= {f"se.{layer}": f"{here}.{name}" for layer, name in (squeeze | {"scale": "scale"}).items()}
            place += spec.se_channels > 0
        elif part != "expand" or spec.expand:
            flat = flat_project and part == "project"
            own = (here, f"{prefix}.{place + 1}", "") if flat else _triple(here)
            paths |= dict(zip((part, f"{part}_norm", f"{part}_act"), own, strict=True))
            place += 1
    return paths


def _timm_block(prefix: str, spec: BlockSpec) -> dict[str, str]:
    convs = ("conv_pw", "conv_dw", "conv_pwl") if spec.expand else ("conv_dw", "conv_pw")
    parts = ("expand", "depthwise", "project") if spec.expand else ("depthwise", "project")
    paths = {"add": f"{prefix}.add"}
    for number, (part, conv) in enumerate(zip(parts, convs, strict=True), start=1):
        norm = f"{prefix}.bn{number}"
        paths |= {part: f"{prefix}.{conv}", f"{part}_norm": norm, f"{part}_act": f"{norm}.act"}
    squeeze = {"pool": "pool", "fc1": "conv_reduce", "act": "act1", "fc2": "conv_expand", "gate": "gate"}
    return paths | {f"se.{layer}": f"{prefix}.se.{name}" for layer, name in (squeeze | {"scale": "scale"}).items()}


def _triple(prefix: str) -> Triple:
    return f"{prefix}.0", f"{prefix}.1", f"{prefix}.2"
