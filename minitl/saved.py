"""Saved: the named buffers one op keeps between its forward and its backward.

An op's backward sees nothing of its forward but this. So what stands here is what training
must hold in memory, and a ledger that adds it up cannot leave anything out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minitl.arrays import Array, Shape, owner


@dataclass(frozen=True)
class Buffer:
    """One kept buffer: the array, and what a reader of the ledger wants to know about it.

    `shape` is that of the values it stands for and `bits` what each of them takes; for packed
    codes the array itself is uint8 and smaller. `needed_for` names the gradients that use it.
    """

    array: Array
    shape: Shape
    bits: int
    needed_for: tuple[str, ...]

    @property
    def owner(self) -> Any:
        """The array that owns the memory; a buffer is counted once, at its owner."""
        return owner(self.array)

    @property
    def nbytes(self) -> int:
        """Bytes of the memory held alive, which for a view is more than the view itself."""
        return int(self.owner.nbytes)


class Saved:
    """The buffers of one op, by tensor name; the shape of its first input and its rule (which take no memory)."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self.input_shape: Shape = ()
        self.rule = ""

    def keep(
        self, name: str, array: Array, needed_for: tuple[str, ...], *, codes: tuple[Shape, int] | None = None
    ) -> None:
        """Keep `array` as `name`; `codes=(shape, bits)` says it is packed codes of a map of that shape."""
        shape, bits = codes or (array.shape, 8 * array.dtype.itemsize)
        self.buffers[name] = Buffer(array, shape, bits, needed_for)

    def __getitem__(self, name: str) -> Array:
        return self.buffers[name].array

    def __contains__(self, name: str) -> bool:
        return name in self.buffers

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, each memory block once."""
        return sum({id(b.owner): b.nbytes for b in self.buffers.values()}.values())
