"""Putting the weights of a file into a network: all of it, or nothing."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from minitl.checks import as_number
from minitl.errors import ShapeError, UnknownNameError, ValueRangeError, brief, unknown
from minitl.networks.weights.report import LoadReport
from minitl.networks.weights.sources import SOURCES, Incoming

if TYPE_CHECKING:
    from minitl.networks.network import Network

CLASSIFIERS = ("load", "replace", "auto")


def load(
    network: Network, file: str | PathLike[str], source: str, classifier: str, *, strict: bool, momentum: float | None
) -> LoadReport:
    """See `Network.load`."""
    if source not in SOURCES:
        raise unknown("source", source, [name for name in SOURCES if name], layer=network.name)
    if classifier not in CLASSIFIERS:
        raise unknown("classifier", classifier, CLASSIFIERS, layer=network.name)
    chosen = None if momentum is None else as_number(momentum)
    if momentum is not None and (chosen is None or not 0 < chosen <= 1):
        raise ValueRangeError(layer=network.name, expected="momentum above 0, at most 1", got=brief(momentum))
    path = Path(file)
    incoming = SOURCES[source](network, path)
    replaced = _replaced(network, incoming, classifier)
    for name in replaced:
        incoming.arrays.pop(name, None)
    own = {p.name for p in network.parameters()}
    missing = sorted(own - set(incoming.arrays) - set(replaced))
    if strict and (missing or incoming.unexpected):
        raise _misfit(network, path, missing, incoming)
    eps, theirs, padding, whose = incoming.conventions
    used, whose = (theirs, whose) if chosen is None else (chosen, f"{whose}; momentum as asked for, not {theirs:g}")
    network.take_over(incoming.arrays, eps=eps, momentum=used, padding=padding)
    loaded = tuple(name for name in incoming.arrays if name in own)
    names = (loaded, tuple(replaced), tuple(missing), tuple(incoming.unexpected))
    return LoadReport(str(path), source or "own names", *names, eps, used, padding, whose)


def _replaced(network: Network, incoming: Incoming, classifier: str) -> list[str]:
    """The names of the last linear layer, if it is not to come from the file."""
    last = network.classifier[-1]
    shapes = {p.name: p.value.shape for p in last.parameters.values()}
    found = {name: incoming.arrays[name].shape for name in shapes if name in incoming.arrays}
    if classifier == "replace" or (classifier == "auto" and found != shapes):
        return list(shapes)
    weight = f"{last.path}.weight"
    if weight in found and found[weight] != shapes[weight]:
        raise ShapeError(
            layer=last.path,
            expected=f"{shapes[weight][0]} classes",
            got=f"{found[weight][0]} in the file" if len(found[weight]) == 2 else f"shape {found[weight]}",
            remedy="use classifier='replace' to learn a classifier of your own",
        )
    return []


def _misfit(network: Network, path: Path, missing: list[str], incoming: Incoming) -> UnknownNameError:
    strange = incoming.unexpected
    return UnknownNameError(
        f"{path} does not fit {network.name}: {len(missing)} arrays missing {missing[:3]}, "
        f"{len(strange)} unexpected {strange[:3]}",
        remedy="check network, width and source, or load what fits (strict=False, --no-strict)",
    )
