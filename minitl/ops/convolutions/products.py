"""What convolutions and linear layers share: y, gx and gW are sums of as many products each, and a bias is added to y.

x is kept exactly when the weight is trained. The gradient of the bias is the sum of gy over all positions.
"""

from __future__ import annotations

from minitl.arrays import Array, Shape, nbytes, size
from minitl.kernels import channels
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import Cost, Needs, Shapes, Split, beyond, keeps_input
from minitl.saved import Saved


def saved_input(shape: Shape, x: Array | None) -> Saved:
    """What backward reads of an input of that shape: x, where the weight is trained."""
    saved = Saved()
    saved.input_shape = shape
    if x is not None:
        saved.keep("x", x, GRAD_WEIGHT)
    return saved


def grad_bias(gy: Array, needs: Needs) -> Array | None:
    """gb, where there is a bias and it is trained."""
    return channels.sums(gy).astype(gy.dtype) if any(needs[2:]) else None


def products_cost(
    shapes: Shapes, y: Shape, macs: int, dtype: str, needs: Needs, *,
    forward: int, grad_input: int, grad_weight: int, kept: str = "",
) -> Cost:  # fmt: skip
    """The cost of a layer of x, weight and perhaps bias that takes `macs` multiply-adds for each of y, gx and gW.

    A bias takes an addition per value of y, and so does its gradient. `forward`, `grad_input` and `grad_weight` are
    bytes that each product holds in passing; `kept` is the dtype of x, where that is another than `dtype`.
    """
    x, weight, *bias = shapes
    of_bias = any(needs[2:])
    gx, gw, gb = needs[0] * nbytes(x, dtype), needs[1] * nbytes(weight, dtype), of_bias * nbytes(y[-1:], dtype)
    products = Split(macs, needs[0] * macs, needs[1] * macs)
    return Cost(
        output=y,
        kept=(keeps_input("x", 0, x, kept or dtype, GRAD_WEIGHT),) * needs[1],
        macs=products,
        flops=2 * products + Split(len(bias) * size(y), grad_weight=of_bias * size(y)),
        forward_workspace=forward,
        backward_workspace=beyond(
            gx + gw + gb,
            needs[0] * (gx + grad_input),
            needs[1] * (gx + gw + grad_weight),
            of_bias * (gx + gw + channels.sums_workspace(y)),
        ),
    )
