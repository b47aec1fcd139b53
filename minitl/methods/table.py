"""The methods as a table of their own fields: what trains, what is kept, exact or not, where it is published."""

from __future__ import annotations

from collections.abc import Iterator

from minitl.methods import METHODS
from minitl.networks import mobilenet_v2

HEADER = ("name", "trains", "keeps", "gradients", "published")


def rows() -> Iterator[tuple[str, ...]]:
    """A row per method; exactness is that of MobileNetV2 under it."""
    network = mobilenet_v2(width=0.25)
    for name, method in METHODS.items():
        gradients = "exact" if method.apply(network).exact else "approximate"
        yield f"`{name}`", method.summary, method.keeps, gradients, method.published


def markdown() -> str:
    """The table of tutorials/methods.md."""
    lines = [HEADER, ("---",) * len(HEADER), *rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
