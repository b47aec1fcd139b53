"""What an op is: four plain functions, and the checks common to all of them.

An op's module reads top to bottom: the formula and its derivative, `output_shape`, `forward`,
`backward`, `cost`, and one `Op` of these `Functions`. No function has a `self` or a closure:
backward can use only what its arguments bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import add
from typing import Any

import numpy as np

from minitl.arrays import FLOATS, Array, Shape, dtype_name, itemsize, nbytes, size
from minitl.bits import packed_shape
from minitl.errors import DtypeError, RuleError, ShapeError, UnknownNameError, ValueRangeError, brief, unknown
from minitl.kernels import threads
from minitl.kernels.rules import Rule
from minitl.pixels import PIXELS
from minitl.saved import Kept, Saved

Shapes = Sequence[Shape]
Attrs = Mapping[str, Any]
Needs = Sequence[bool]
Gradients = tuple[Array | None, ...]

EXACT = "exact"
NORMALISATION = "normalisation"  # an attribute: x is images in pixels, and how they become numbers


@dataclass(frozen=True)
class Split:
    """Work of one op, by the pass that does it (bias and scale gradients count as weight)."""

    forward: int = 0
    grad_input: int = 0
    grad_weight: int = 0
    recompute: int = 0  # forward work done once more during backward

    @property
    def _passes(self) -> tuple[int, ...]:
        return self.forward, self.grad_input, self.grad_weight, self.recompute

    def __add__(self, other: Split) -> Split:
        return Split(*map(add, self._passes, other._passes))

    def __rmul__(self, times: int) -> Split:
        return Split(*(times * work for work in self._passes))

    @property
    def total(self) -> int:
        """Forward and backward together."""
        return sum(self._passes)


def keeps_array(tensor: str, shape: Shape, dtype: str, needed_for: tuple[str, ...]) -> Kept:
    """A dense array made by forward."""
    return Kept(tensor, shape, dtype, 8 * itemsize(dtype), nbytes(shape, dtype), needed_for)


def keeps_input(tensor: str, source: int, shape: Shape, dtype: str, needed_for: tuple[str, ...]) -> Kept:
    """Input number `source`, or the output where that is OUTPUT, kept as it is."""
    return replace(keeps_array(tensor, shape, dtype, needed_for), source=source)


def keeps_codes(tensor: str, shape: Shape, bits: int) -> Kept:
    """Packed codes of a map of that shape, from which backward reads the slope."""
    return Kept(tensor, shape, "uint8", bits, size(packed_shape(shape, bits)), ("grad_input",))


@dataclass(frozen=True)
class Cost:
    """What one call of forward and of backward will take, from shapes alone.

    `macs` counts multiply-adds of convolutions and linear layers. `flops` follows the standard
    convention: 2 for a multiply-add, 1 for each add, subtract, multiply, divide, minimum,
    maximum, exponential and logarithm; comparisons, packing and copies count nothing. Only what
    the wanted gradients really compute is counted.
    `moved` counts bytes, every array that enters or leaves a pass once (see `moved_bytes`).
    `*_workspace` is memory in bytes that a call holds at its highest moment beyond what it
    leaves behind (output and kept buffers, or gradients). It counts maps, weights and the vectors
    of norms, gates, biases and losses; others of one number per channel, such as group norm's, it leaves out.
    """

    output: Shape
    kept: tuple[Kept, ...] = ()
    macs: Split = Split()
    flops: Split = Split()
    moved: Split = Split()
    forward_workspace: int = 0
    backward_workspace: int = 0
    passes_gradient: bool = False  # the gradients are `gy` itself, not new arrays


_named: dict[str, Op] = {}


def _op_named(name: str) -> Op:
    return _named[name]


@dataclass(frozen=True)
class Functions:
    """What an op's module defines.

    output_shape(shapes, attrs) -> the output's shape, or what does not fit is raised
    forward(*arrays, attrs=, needs=, rule=) -> y, Saved
    backward(saved, gy, *, attrs=, needs=, params=) -> gradients in the inputs' order; not called where none is wanted
    cost(shapes, dtype, *, attrs=, needs=, rule=) -> Cost
    """

    output_shape: Callable[[Shapes, Attrs], Shape]
    forward: Callable[..., tuple[Array, Saved]]
    backward: Callable[..., Gradients]
    cost: Callable[..., Cost]


@dataclass(frozen=True, eq=False)
class Op:
    """One differentiable operation: its `functions`, and around each the checks common to all ops.

    `inputs` names the arrays in order: first `activations` of them that flow through the
    network, then parameters and statistics. The last `optional` may be left out. `rules` are
    the backward rules it has, the first being the default; those in `approximate` are not the
    derivative of the forward.
    """

    name: str
    inputs: tuple[str, ...]
    functions: Functions
    attrs: tuple[str, ...] = ()
    rules: tuple[str, ...] = (EXACT,)
    approximate: tuple[str, ...] = ()
    activations: int = 1
    optional: int = 0
    never: tuple[str, ...] = ()  # inputs it gives no gradient for
    updates: tuple[str, ...] = ()  # inputs that forward writes
    elementwise: Mapping[str, Rule] | None = None  # of an activation: its rules

    def __post_init__(self) -> None:
        _named.setdefault(self.name, self)

    def __deepcopy__(self, _: object) -> Op:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """An op that comes back from a pickle is that op, where it is the one of its name."""
        return (_op_named, (self.name,)) if _named[self.name] is self else super().__reduce_ex__(protocol)

    def own(self, attrs: Attrs) -> Attrs:
        """Those of the attributes that are this op's: the others are of an op made from it."""
        return {name: value for name, value in attrs.items() if name in self.attrs}

    def output_shape(self, shapes: Shapes, attrs: Attrs) -> Shape:
        """Shape of the output; raises ShapeError where the inputs' shapes do not fit."""
        return self.functions.output_shape(shapes, attrs)

    def forward(self, *arrays: Array, attrs: Attrs | None = None, needs: Needs, rule: str = "") -> tuple[Array, Saved]:
        """Compute `y` and keep what the gradients asked for in `needs` (one flag an input) will use.

        Inputs may have any strides and are never written (those in `updates` excepted: the running
        statistics of a batch norm); `y` is C-contiguous and of the inputs' dtype, float32 or
        float64. Raises ShapeError, DtypeError, ValueRangeError, RuleError or UnknownNameError.
        """
        attrs = self._plain(attrs)
        for name, array in zip(self.inputs, arrays, strict=False):
            self._expect_array(name, array)
        self._check([a.shape for a in arrays], attrs, needs, rule)
        self._check_dtypes(arrays, attrs)
        dense = [
            a if name in self.updates else np.asarray(a, order="C")
            for a, name in zip(arrays, self.inputs, strict=False)
        ]
        y, saved = self.functions.forward(*dense, attrs=attrs, needs=tuple(needs), rule=rule or self.rules[0])
        saved.input_shape, saved.rule = arrays[0].shape, rule or self.rules[0]
        saved.output = y.shape, dtype_name(y.dtype)
        return y, saved

    def backward(
        self, saved: Saved, gy: Array, *, attrs: Attrs | None = None, needs: Needs, params: Sequence[Array] = ()
    ) -> Gradients:
        """Gradients of the inputs in their order, None where `needs` is false.

        `gy` has the output's shape and dtype, any strides; ShapeError or DtypeError if not. `params` are the
        inputs after the activations, as handed to forward.
        """
        if not any(needs):
            return (None,) * len(needs)
        self._expect_array("gy", gy)
        if saved.output and saved.output != (gy.shape, dtype_name(gy.dtype)):
            shape, dtype = saved.output
            wrong = ShapeError if gy.shape != shape else DtypeError
            raise wrong(op=self.name, expected=f"gy {shape}, {dtype}", got=f"{gy.shape}, {dtype_name(gy.dtype)}")
        dense, *parameters = (np.asarray(a, order="C") for a in (gy, *params))
        return self.functions.backward(
            saved, dense, attrs=self._plain(attrs), needs=tuple(needs), params=tuple(parameters)
        )

    def cost(self, shapes: Shapes, dtype: str, *, attrs: Attrs | None = None, needs: Needs, rule: str = "") -> Cost:
        """What forward and backward of such a call take, computed without any array."""
        given = tuple(self._plain(attrs).items())
        return _cost(self, tuple(shapes), dtype, given, tuple(needs), rule, threads.count())

    def _plain(self, attrs: Attrs | None) -> Attrs:
        """The attributes in Python's own numbers and tuples of them; what is no value is refused."""
        return {name: self._value(name, value) for name, value in attrs.items()} if attrs else {}

    def _value(self, name: str, value: Any) -> Any:
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        value = tuple(self._value(name, part) for part in value) if isinstance(value, list | tuple) else value
        try:
            hash(value)
        except TypeError:
            expected = f"{name} to be a number, a text or several in a row"
            raise ValueRangeError(op=self.name, expected=expected, got=brief(value)) from None
        return value

    def _expect_array(self, name: str, value: object) -> None:
        if not isinstance(value, np.ndarray | np.generic):
            raise DtypeError(op=self.name, expected=f"an array as {name}", got=brief(type(value).__name__))

    def _check(self, shapes: Shapes, attrs: Attrs, needs: Needs, rule: str) -> None:
        least = len(self.inputs) - self.optional
        if not least <= len(shapes) <= len(self.inputs) or len(needs) != len(shapes):
            raise UnknownNameError(
                op=self.name,
                expected=f"{least} to {len(self.inputs)} inputs ({', '.join(self.inputs)}) and as many needs",
                got=f"{len(shapes)} inputs and {len(needs)} flags",
            )
        if strange := set(attrs) - set(self.attrs):
            raise unknown("attribute", sorted(strange)[0], self.attrs or ("(none)",), op=self.name)
        if rule and rule not in self.rules:
            raise unknown("backward rule", rule, self.rules, op=self.name)
        for name, needed in zip(self.inputs, needs, strict=False):
            if needed and name in self.never:
                raise RuleError(f"has no gradient for {name}", op=self.name, remedy="do not train it")
        self.output_shape(shapes, attrs)

    def _check_dtypes(self, arrays: Sequence[Array], attrs: Attrs) -> None:
        kinds = {name: dtype_name(a.dtype) for a, name in zip(arrays, self.inputs, strict=False) if name != "labels"}
        dtype = dtype_of(arrays)
        if dtype not in FLOATS or any(kind != input_dtype(name, dtype, attrs) for name, kind in kinds.items()):
            but = f", but x {PIXELS}" * (NORMALISATION in attrs)
            got = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
            raise DtypeError(
                op=self.name, expected=f"float32 or float64 throughout{but}", got=got, remedy="convert with .astype"
            )


def dtype_of(arrays: Sequence[Any]) -> str:
    """The dtype that an op computes in: its arrays', apart from images in pixels."""
    first = dtype_name(arrays[0].dtype)
    return dtype_name(arrays[1].dtype) if first == PIXELS and len(arrays) > 1 else first


def input_dtype(name: str, dtype: str, attrs: Attrs) -> str:
    """The dtype of an input of that name, in an op that computes in `dtype`."""
    if name == "labels":
        return "int64"
    return PIXELS if name == "x" and NORMALISATION in attrs else dtype


@lru_cache(maxsize=4096)  # a planner asks for the same layers over and over
def _cost(
    op: Op, shapes: tuple[Shape, ...], dtype: str, attrs: Any, needs: tuple[bool, ...], rule: str, _threads: int
) -> Cost:
    """The op's own account, which is for the threads in force: each has scratch memory."""
    op._check(shapes, dict(attrs), needs, rule)
    cost = op.functions.cost(shapes, dtype, attrs=dict(attrs), needs=needs, rule=rule or op.rules[0])
    inputs = [nbytes(s, input_dtype(name, dtype, dict(attrs))) for name, s in zip(op.inputs, shapes, strict=False)]
    moved = moved_bytes(op, inputs, dtype, needs, cost)
    return replace(cost, moved=moved, backward_workspace=any(needs) * cost.backward_workspace)


def moved_bytes(op: Op, sizes: Sequence[int], dtype: str, needs: Needs, cost: Cost) -> Split:
    """The least that must cross between an op and memory: a smaller cache moves more, a fused run of several ops less.

    `sizes` are the inputs', in bytes.

    forward       inputs and parameters read; the output and each kept buffer of its own written
    grad_input    the output's gradient, parameters and the buffers kept for it read; input gradients written
    grad_weight   the output's gradient and the buffers kept for it read; parameter gradients written
    """
    flows, y = op.activations, nbytes(cost.output, dtype)
    wanted = [size * need for size, need in zip(sizes, needs, strict=True)]
    of_input, of_weight = (
        sum(k.nbytes for k in cost.kept if set(k.needed_for) & set(what))
        for what in (("grad_input",), ("grad_weight", "grad_bias", "grad_scale"))
    )
    return Split(
        forward=sum(sizes) + y + sum(k.nbytes for k in cost.kept if k.source is None),
        grad_input=any(needs[:flows]) * (y + of_input + sum(sizes[flows:]) + sum(wanted[:flows])),
        grad_weight=any(needs[flows:]) * (y + of_weight + sum(wanted[flows:])),
    )


def beyond(left: int, *moments: int) -> int:
    """Workspace of a call that leaves `left` bytes behind and holds each of `moments` on its way there."""
    return max(0, max(moments, default=0) - left)
