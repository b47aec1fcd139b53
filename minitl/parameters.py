"""Parameters: the named arrays of a network, and how a frozen one is held in 8 bits."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from minitl.arrays import Array, dtype_name
from minitl.errors import DtypeError, UsageError, ValueRangeError


@dataclass(eq=False)
class Parameter:
    """A named array of the network: a weight, or one that is never trained.

    Those are a running statistic (`statistic=True`), and what a backward rule carries from step to step (`state=True`).

    A frozen weight may be held quantised: `value` is then int8, and output channel o of it
    stands for `scale[o] * value[o]`. The array it had before is let go of, but not forgotten: if
    somebody else still holds it (as a parameter to be trained), it is read-only meanwhile, and is
    the parameter's own again when the weight is restored. Views made of it beforehand stay
    writable; what is written through them is lost.
    """

    revision: ClassVar[int] = 0  # how often any of them was made, or was given another array or flag

    name: str
    value: Array
    trained: bool = False
    statistic: bool = False
    state: bool = False
    scale: Array | None = None
    _before: weakref.ref[Array] | None = field(default=None, init=False, repr=False)  # the array before quantising

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "value" and not isinstance(value, np.ndarray):
            raise DtypeError(layer=self.name, expected="an array as its value", got=type(value).__name__)
        object.__setattr__(self, name, value)
        Parameter.revision += 1

    def __getstate__(self) -> dict[str, Any]:
        """A copy has arrays of its own, so it forgets the one before quantising."""
        return {**self.__dict__, "_before": None}

    def __repr__(self) -> str:
        never = "statistic" if self.statistic else "state" if self.state else ""
        kind = never or ("trained" if self.trained else "frozen")
        held = f", held as int8 with {len(self.scale)} scales" if self.scale is not None else ""
        return f"<Parameter {self.name} {self.value.shape} {self.dtype}, {kind}{held}, {self.nbytes:,} bytes>"

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        return int(self.value.nbytes + (0 if self.scale is None else self.scale.nbytes))

    @property
    def dtype(self) -> str:
        """Dtype of the numbers it stands for."""
        return dtype_name((self.value if self.scale is None else self.scale).dtype)

    @property
    def whole(self) -> bool:
        """Whether its numbers lie in memory as kernels read them: in C order, without gaps."""
        return self.scale is not None or self.value.flags.c_contiguous

    def array(self) -> Array:
        """The numbers it stands for: the array itself, or a dequantised one made for the occasion."""
        if self.scale is None:
            return self.value
        return np.multiply(self.value, _along_first(self.scale, self.value), dtype=self.scale.dtype)

    def quantise(self) -> None:
        """Hold the weight in 8 bits: scale[o] = max |w[o]| / 127, value = round(w / scale), error at most scale / 2.

        A scale is a normal number, also for a channel of zeros or of all but zeros. Raises, with
        nothing changed, what `expect_quantisable` does.
        """
        if self.scale is None:
            self.expect_quantisable()
            before = self.value
            self.value, self.scale = _encode(before)
            if before.flags.writeable:
                before.flags.writeable = False
                self._before = weakref.ref(before)

    def expect_quantisable(self) -> None:
        """Raise ValueRangeError if a weight is not finite: 8 bits cannot say so."""
        if not np.isfinite(self.value).all():
            raise ValueRangeError(layer=self.name, expected="finite weights to quantise", got="NaN or infinity")

    def restore(self) -> None:
        """Hold it as floating point again; what quantising rounded off does not come back."""
        if self.scale is None:
            return
        before = self._before() if self._before else None
        numbers = self.array()
        if before is not None:
            before.flags.writeable = True
            before[...] = numbers
        self.value, self.scale, self._before = numbers if before is None else before, None, None

    def assign(self, value: Array) -> None:
        """Copy new numbers in, quantised again if it is held so."""
        if self.scale is None:
            self.value[...] = value
        else:
            self.value, self.scale = _encode(np.asarray(value, self.dtype))


def expect_writable(name: str, array: Array) -> None:
    """Raise UsageError for a read-only array, which nothing can be written to in place."""
    if not array.flags.writeable:
        raise UsageError("the array is read-only", layer=name, remedy="give the parameter a writable copy as its value")


def _encode(weight: Array) -> tuple[Array, Array]:
    """Codes (int8) and scales, one per output channel."""
    most = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    scale = np.maximum(most / 127, np.finfo(most.dtype).tiny).astype(weight.dtype)
    return np.rint(weight / _along_first(scale, weight)).astype(np.int8), scale


def _along_first(scale: Array, weight: Array) -> Array:
    return scale.reshape(-1, *(1,) * (weight.ndim - 1))
