"""What an op keeps of its arrays, said once: forward keeps it, and cost foretells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from minitl.arrays import Array
from minitl.ops.op import Shapes, keeps_array
from minitl.saved import Kept, Saved

Uses = Mapping[str, tuple[str, ...]]  # of arrays by name: the gradients made of them, () where none is wanted

GRAD_INPUT, GRAD_WEIGHT = ("grad_input",), ("grad_weight",)


def save(uses: Uses, *arrays: Array) -> Saved:
    """What backward will read: of these arrays, in the order of `uses`, those that a gradient is made of."""
    saved = Saved()
    for (tensor, needed_for), array in zip(uses.items(), arrays, strict=True):
        if needed_for:
            saved.keep(tensor, array, needed_for)
    return saved


def keeps(uses: Uses, shapes: Shapes, dtype: str, *, inputs: bool) -> tuple[Kept, ...]:
    """That foreseen, of arrays of these shapes: the first inputs, or made by forward."""
    return tuple(
        replace(keeps_array(tensor, shape, dtype, needed_for), source=number if inputs else None)
        for number, ((tensor, needed_for), shape) in enumerate(zip(uses.items(), shapes, strict=False))
        if needed_for
    )
