"""What a forward pass writes into a network, and how that is undone: running statistics, and what rules carry.

A forward pass that is refused, at whatever layer, must leave the network as it was; and statistics
that are not finite must never become the network's own. So their old values are put aside while it
runs. That is one copy of the statistics that will move, some 0.1 MB in a MobileNet, for as long as
the forward pass takes. What rules carry from step to step (see `carried`) is forgotten again where this pass made it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minitl.arrays import Array
from minitl.errors import NotFiniteError
from minitl.layers import Layer, Norm
from minitl.parameters import expect_writable
from minitl.shadow import ShadowTape
from minitl.tape import Tape


class Statistics:
    """Those of the layers that move on a tape, as they were before it ran."""

    def __init__(self, layers: Iterable[Layer], tape: Tape) -> None:
        self.computes, layers = tape.computes, list(layers)
        self.without = [layer for layer in layers if tape.computes and not layer.carried()]
        self.norms = [layer for layer in layers if isinstance(layer, Norm) and layer.moves(tape)]
        moving = [p for norm in self.norms for p in norm.parameters.values() if p.statistic]
        for p in moving:
            expect_writable(p.name, p.value)
        self.arrays = [p.value for p in moving]
        self.before = [_copy(array, tape) for array in self.arrays]
        self.batches = [norm.batches for norm in self.norms]

    def restore(self) -> None:
        """Put the old ones back, to the bit; a tape that computes nothing has moved none."""
        if not self.computes:
            return
        for array, before in zip(self.arrays, self.before, strict=True):
            array[...] = before
        for norm, batches in zip(self.norms, self.batches, strict=True):
            norm.batches = batches
        for layer in self.without:
            if layer.carried():
                layer.apply(layer.plan)  # and carry nothing

    def expect_finite(self) -> None:
        """Raise NotFiniteError naming the first norm whose input had no finite variance.

        A mean that is not finite leaves no finite variance either; the largest value tells, as none
        is negative.
        """
        for norm in self.norms if self.computes else ():
            if not np.isfinite(norm.parameters["running_var"].value.max()):
                raise NotFiniteError(
                    layer=norm.path,
                    op="batch_norm",
                    expected="finite statistics of the batch",
                    got="nan or inf",
                    remedy="lower the learning rate, or normalise the images",
                )


def _copy(array: Array, tape: Tape) -> Array:
    return tape.phantom(array.shape, array.dtype.name) if isinstance(tape, ShadowTape) else array.copy()
