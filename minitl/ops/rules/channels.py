"""Some input channels of a convolution train (after MCUNetV3: Lin et al., NeurIPS 2022, arXiv:2206.15472).

Of x only the channels C' are kept, and gW is that of the op on these alone: exact, and 0 for all others. gx and gb are
the op's own. (Of a depthwise convolution a channel has its own filter, and of gy, too, only C' are read.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.errors import ShapeError
from minitl.ops.convolutions.products import saved_input
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import Attrs, Cost, Gradients, Needs, Op, Shapes, Split, beyond, keeps_array
from minitl.saved import Saved


def expect_channels(op: Op, x: Shape, attrs: Attrs) -> list[int]:
    """The channels to keep; raises ShapeError unless there are some, in order, each once, all of x."""
    chosen = list(attrs.get("channels", ()))
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < x[-1]:
        expected = f"channels in rising order, from 0 to {x[-1] - 1}"
        raise ShapeError(op=op.name, expected=expected, got=f"{tuple(chosen)}")
    return chosen


def keep(saved: Saved, x: Array, channels: Sequence[int]) -> None:
    """Keep those channels of x."""
    saved.keep("x", _part(x, channels), GRAD_WEIGHT)


def gradients(
    op: Op, saved: Saved, gy: Array, *, attrs: Attrs, needs: Needs, params: tuple[Array, ...], channels: Sequence[int]
) -> Gradients:
    """gx and gb of the op, and gW of the op on what was kept."""
    gx, _, *gb = op.backward(saved, gy, attrs=attrs, needs=_without_weight(needs), params=params)
    weight, part = params[0], saved_input(saved["x"].shape, saved["x"])
    gw = np.zeros(weight.shape, gy.dtype)
    chosen, few = _of_weight(weight.shape, saved.input_shape, channels)
    of_them = gy if few[0] == gy.shape[-1] else _part(gy, channels)
    weight = np.broadcast_to(weight[:1, :1], few)  # its gradient asks for its shape alone
    gw[chosen] = op.functions.backward(part, of_them, attrs=attrs, needs=(False, True), params=(weight,))[1]
    return (gx, gw, *gb)


def cost(op: Op, shapes: Shapes, dtype: str, *, attrs: Attrs, needs: Needs, channels: Sequence[int]) -> Cost:
    """The op's own without its weight's gradient, and that of the op on those channels."""
    x, weight = shapes[:2]
    rest = op.cost(shapes, dtype, attrs=attrs, needs=_without_weight(needs))
    kept = keeps_array("x", (*x[:-1], len(channels)), dtype, GRAD_WEIGHT)
    few = _of_weight(weight, x, channels)[1]
    part = op.cost((kept.shape, few), dtype, attrs=attrs, needs=(False, True))
    gw, of_them = nbytes(weight, dtype), nbytes(few, dtype)
    if part.output != rest.output:
        of_them += nbytes(part.output, dtype)  # of gy
    return replace(
        rest,
        kept=(kept,),
        macs=replace(rest.macs, grad_weight=part.macs.grad_weight),
        flops=rest.flops + Split(grad_weight=part.flops.grad_weight),
        forward_workspace=beyond(kept.nbytes, rest.forward_workspace),
        backward_workspace=max(rest.backward_workspace - gw, of_them + part.backward_workspace),
    )


def _without_weight(needs: Needs) -> Needs:
    return (needs[0], False, *needs[2:])


def _of_weight(weight: Shape, x: Shape, channels: Sequence[int]) -> tuple[tuple[slice | list[int], ...], Shape]:
    """Where the weights of these channels are, and their shape."""
    if weight[1] == x[-1]:
        return (slice(None), list(channels)), (weight[0], len(channels), *weight[2:])
    return (list(channels),), (len(channels), *weight[1:])


def _part(x: Array, channels: Sequence[int]) -> Array:
    """Those channels of x."""
    part = np.empty((*x.shape[:-1], len(channels)), x.dtype)
    return np.take(x, channels, axis=-1, out=part, mode="clip")  # NumPy buffers `out` in its other modes
