"""Parameters: the named arrays of a network, and how a frozen one is held in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minitl.arrays import Array


@dataclass(eq=False)
class Parameter:
    """A named array of the network: a weight, or a running statistic (`statistic=True`, never trained).

    A frozen weight may be held quantised: `value` is then int8, and output channel o of it
    stands for `scale[o] * value[o]`.
    """

    name: str
    value: Array
    trained: bool = False
    statistic: bool = False
    scale: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays held."""
        return int(self.value.nbytes + (0 if self.scale is None else self.scale.nbytes))

    @property
    def dtype(self) -> str:
        """Dtype of the numbers it stands for."""
        return str((self.value if self.scale is None else self.scale).dtype.name)

    def array(self) -> Array:
        """The numbers it stands for: the array itself, or a dequantised one made for the occasion."""
        if self.scale is None:
            return self.value
        return np.multiply(self.value, _along_first(self.scale, self.value), dtype=self.scale.dtype)

    def quantise(self) -> None:
        """Hold the weight in 8 bits: scale[o] = max |w[o]| / 127, value = round(w / scale), error at most scale / 2.

        A scale is a normal number, also for a channel of zeros or of all but zeros.
        """
        if self.scale is None:
            most = np.abs(self.value).max(axis=tuple(range(1, self.value.ndim)))
            scale = np.maximum(most / 127, np.finfo(most.dtype).tiny).astype(self.value.dtype)
            self.value, self.scale = np.rint(self.value / _along_first(scale, self.value)).astype(np.int8), scale

    def restore(self) -> None:
        """Hold it as floating point again; what quantising rounded off does not come back."""
        self.value, self.scale = self.array(), None

    def assign(self, value: Array) -> None:
        """Copy new numbers in, quantised again if it is held so."""
        if self.scale is None:
            self.value[...] = value
        else:
            self.value, self.scale = np.array(value, self.dtype), None
            self.quantise()


def _along_first(scale: Array, weight: Array) -> Array:
    return scale.reshape(-1, *(1,) * (weight.ndim - 1))
