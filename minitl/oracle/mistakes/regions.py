"""Where the wrong elements of a result lie, and what they are: for those that no mistake explains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minitl.arrays import Array
from minitl.oracle.case import Case
from minitl.oracle.forms import form_of

MAP, WEIGHT = ("sample", "row", "column", "channel"), ("filter", "input channel", "tap row", "tap column")
FLOWS = {4: MAP, 2: ("sample", "channel")}
PARAMETERS = {4: WEIGHT, 2: WEIGHT[:2], 1: ("channel",)}
AXES: dict[str, dict[int, tuple[str, ...]]] = {  # what they are called, by the kind of a tensor and its rank
    "output": FLOWS, "grad_input": FLOWS, "kept": {4: MAP},
    "grad_param": PARAMETERS, "param_after": PARAMETERS, "buffer_after": {1: ("channel",)},
}  # fmt: skip
WIDEST = 3  # rows and columns of a border
CHANCE = 0.01  # a region is told if as many elements that lie anywhere are all in it more rarely than that


def told(case: Case, name: str, got: Array, wrong: Array) -> str:
    """As `all 96 wrong elements are 0 and lie in channels 2 to 3`; nothing of one, or where nothing is alike."""
    count, values = int(wrong.sum()), np.unique(got[wrong])
    what = f"are {values[0] + 0.0:g}" if len(values) == 1 else ""
    where = f"lie in {region}" if (region := _region(case, name, wrong)) else ""
    if count < 2 or not (what or where):
        return ""
    return f"all {count} wrong elements {' and '.join(filter(None, (what, where)))}"


def _region(case: Case, name: str, wrong: Array) -> str:
    """The smallest region around all wrong elements of which that can be said."""
    laid = form_of(case).taken(name, wrong)
    axes = AXES.get(name.split(".")[0], {}).get(laid.ndim)
    if not axes:
        return ""
    share, text = min([_box(axes, laid), *(_borders(laid) if axes == MAP else ())])
    return text if share ** int(wrong.sum()) <= CHANCE else ""


def _box(axes: tuple[str, ...], wrong: Array) -> tuple[float, str]:
    """Its share of the array, and what it is called."""
    share, spans = 1.0, list[str]()
    for i, axis in enumerate(axes):
        places = np.flatnonzero(wrong.any(axis=tuple(j for j in range(wrong.ndim) if j != i)))
        first, last, size = int(places[0]), int(places[-1]), wrong.shape[i]
        if last - first + 1 < size:
            share *= (last - first + 1) / size
            spans.append(f"{axis} {first}" if first == last else f"{axis}s {first} to {last}")
    return share, ", ".join(spans)


def _borders(wrong: Array) -> Iterator[tuple[float, str]]:
    """Borders of a map that hold all wrong elements."""
    for width in range(1, WIDEST + 1):
        for axes in ((1,), (2,), (1, 2)):
            inner = wrong[tuple(slice(width, -width) if i in axes else slice(None) for i in range(4))]
            if inner.size and not inner.any():
                lines = " or ".join(f"{MAP[i]}s" if width > 1 else MAP[i] for i in axes)
                number = f"{width} " if width > 1 else ""
                yield 1 - inner.size / wrong.size, f"the first or last {number}{lines}"
