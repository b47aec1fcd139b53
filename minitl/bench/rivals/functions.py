"""MobileTL's approximate gradients as autograd functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "relu6": lambda x: functional.relu6(x, inplace=True),
    "hard_swish": lambda x: functional.hardswish(x, inplace=True),
}


class SignOfMask(Function):
    """An activation, in place, whose gradient passes where its input is not negative; keeps a bool an element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        """The activation of that name."""
        ctx.save_for_backward(x >= 0)
        ctx.mark_dirty(x)
        return IN_PLACE[name](x)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        """The gradient where the mask is set."""
        (mask,) = ctx.saved_tensors
        return gy * mask, None


class SignOfOutput(Function):
    """The same from its own output, which has its input's sign; keeps nothing that the next layer does not keep.

    Only at an input of exactly 0 do the two differ: here the gradient stops.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        """The activation of that name."""
        y = IN_PLACE[name](x)
        ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        """The gradient where the output is positive."""
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gy, y, 0), None
