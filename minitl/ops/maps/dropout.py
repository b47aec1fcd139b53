"""Dropout:  y = x / (1 - p) where a coin with P(heads) = 1 - p lands heads, else 0;  gx the same of gy.

The mask is one packed bit per element. The coins are drawn from `seed` alone, so a step can be
repeated to the bit. (Srivastava et al. 2014, JMLR 15.)
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, is_count, nbytes, size
from minitl.bits import pack, unpack
from minitl.checks import as_number
from minitl.errors import UnknownNameError, ValueRangeError, brief
from minitl.ops.expect import expect_values
from minitl.ops.kept import GRAD_INPUT
from minitl.ops.op import Attrs, Cost, Functions, Gradients, Needs, Op, Shapes, Split, keeps_codes
from minitl.saved import Saved


def output_shape(shapes: Shapes, attrs: Attrs) -> Shape:
    """That of x (..., C); raises ValueRangeError unless 0 <= p < 1."""
    if missing := {"p", "seed"} - set(attrs):
        got = f"no {' and no '.join(sorted(missing))}"
        raise UnknownNameError(op="dropout", expected="attributes p and seed", got=got)
    p, seed = as_number(attrs["p"]), attrs["seed"]
    if p is None or not 0 <= p < 1:
        raise ValueRangeError(op="dropout", expected="0 <= p < 1", got=f"p = {brief(attrs['p'])}")
    if not all(is_count(number, 0) for number in (seed if isinstance(seed, tuple) else (seed,))):
        raise ValueRangeError(op="dropout", expected="a seed of whole numbers of at least 0", got=brief(seed))
    return expect_values("dropout", shapes[0])


def forward(x: Array, *, attrs: Attrs, needs: Needs, rule: str) -> tuple[Array, Saved]:
    """Zero a random share p of x and scale up the rest; keeps the mask where gx is wanted."""
    heads = np.random.Generator(np.random.Philox(attrs["seed"])).random(x.shape, np.float32) >= attrs["p"]
    mask = pack(heads.view(np.uint8), 1)
    del heads
    saved = Saved()
    if needs[0]:
        saved.keep("mask", mask, GRAD_INPUT, codes=(x.shape, 1))
    return _let_through(x, mask, attrs["p"]), saved


def backward(saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...]) -> Gradients:
    """gx = gy / (1 - p) where x was let through, else 0."""
    return (_let_through(gy, saved["mask"], attrs["p"]),)


def cost(shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, rule: str) -> Cost:
    """1 operation per value each way; drawing takes a float32 and a byte per value meanwhile."""
    x, n, mask = shapes[0], size(shapes[0]), keeps_codes("mask", shapes[0], 1)
    drawing, unpacked = 5 * n, 8 * mask.nbytes + max(2 * mask.nbytes, n)  # by whole bytes, then compared with 0
    return Cost(
        output=x,
        kept=(mask,) if needs[0] else (),
        flops=Split(n, needs[0] * n),
        forward_workspace=max(drawing - nbytes(x, dtype), unpacked) + (not needs[0]) * mask.nbytes,
        backward_workspace=unpacked,
    )


def _let_through(x: Array, mask: Array, p: float) -> Array:
    y: Array = x * x.dtype.type(1 / (1 - p))
    np.copyto(y, 0, where=unpack(mask, 1, x.shape) == 0)
    return y


dropout = Op("dropout", ("x",), Functions(output_shape, forward, backward, cost), attrs=("p", "seed"))
