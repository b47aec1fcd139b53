"""TensorFlow's SAME padding, exactly, with symmetric padding: on mirrored images, with mirrored kernels.

A k x k convolution of stride 2 on an even side n needs k - 2 positions of padding. SAME puts
(k - 3) / 2 before and (k - 1) / 2 behind; symmetric padding of (k - 1) / 2, whose last position
behind is never reached, has it the other way round. Mirroring images and kernels in H and W turns
one into the other, layer by layer; on odd sides and at stride 1 the two agree, mirrored or not. So
a network with SAME padding is held with mirrored kernels, and mirrors every image that comes in.
What is averaged over all positions at its end does not know the difference.
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, dtype_name
from minitl.records import Var
from minitl.shadow import ShadowTape
from minitl.tape import Tape


def mirrored_images(tape: Tape, x: Var) -> Var:
    """Images (N, H, W, C), mirrored in H and W: a copy, which the stem keeps if it is trained."""
    if isinstance(tape, ShadowTape):
        return Var(tape.phantom(x.shape, dtype_name(x.value.dtype)))
    return Var(np.ascontiguousarray(x.value[:, ::-1, ::-1]))


def mirrored_kernel(weight: Array) -> Array:
    """A convolution's weight (O, I, k, k), mirrored; any other array as it is."""
    return np.ascontiguousarray(weight[:, :, ::-1, ::-1]) if weight.ndim == 4 else weight
