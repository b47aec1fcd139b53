"""Saved: the named buffers one op keeps between its forward and its backward.

An op's backward sees nothing of its forward but this. So what stands here is what training
must hold in memory, and a ledger that adds it up cannot leave anything out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minitl.arrays import Array, Shape, dtype_name, owner

OUTPUT = -1


@dataclass(frozen=True)
class Kept:
    """What there is to say of a kept buffer, be it foreseen from shapes, held by an op or listed by a tape.

    `shape` is that of the values it stands for and `bits` what each of them takes; packed codes are
    uint8 and fewer. `nbytes` is the memory held alive, which for a view is more than the view itself.
    `needed_for` names the gradients that use it. `source`, of one that is foreseen, is the index of the
    input that it simply is, OUTPUT for the output, or None for a buffer of its own.
    """

    tensor: str
    shape: Shape
    dtype: str
    bits: int
    nbytes: int
    needed_for: tuple[str, ...]
    source: int | None = None


class Buffer(NamedTuple):
    """A kept array, what there is to say of it, and what owns its memory, at which it is counted once."""

    array: Array
    kept: Kept
    owner: Any


class Saved:
    """The buffers of one op, by tensor name; the shape of its first input and its rule (which take no memory)."""

    __slots__ = ("buffers", "input_shape", "output", "rule")

    def __init__(self, input_shape: Shape = (), rule: str = "") -> None:
        self.buffers: dict[str, Buffer] = {}
        self.input_shape, self.rule = input_shape, rule
        self.output: tuple[Shape, str] | None = None  # shape and dtype of the output, where an op made it by itself

    def keep(
        self, name: str, array: Array, needed_for: tuple[str, ...], *, codes: tuple[Shape, int] | None = None
    ) -> None:
        """Keep `array` as `name`; `codes=(shape, bits)` says it is packed codes of a map of that shape."""
        shape, bits = codes or (array.shape, 8 * array.dtype.itemsize)
        self.hold(array, Kept(name, shape, dtype_name(array.dtype), bits, array.nbytes, needed_for))

    def hold(self, array: Array, kept: Kept) -> None:
        """Keep `array`, of which `kept` says all but whether it keeps more memory alive than its own."""
        whole = owner(array)
        alive = int(whole.nbytes)
        self.buffers[kept.tensor] = Buffer(array, kept if alive == kept.nbytes else replace(kept, nbytes=alive), whole)

    def __getitem__(self, name: str) -> Array:
        return self.buffers[name].array

    def __contains__(self, name: str) -> bool:
        return name in self.buffers

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, each memory block once."""
        return sum({id(b.owner): b.kept.nbytes for b in self.buffers.values()}.values())
