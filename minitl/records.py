"""What a tape writes down: values on their way, and records of what ran.

A record knows what ran, the numbers of the records that made its inputs, and their shapes, but
no arrays; those that backward needs are in its `Saved`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

from minitl.arrays import Array, Shape
from minitl.errors import DtypeError
from minitl.ops.op import EXACT, Attrs, Cost, Op, Split, keeps_input
from minitl.parameters import Parameter
from minitl.saved import Kept, Saved

INPUT = -1  # the record number of a value that no record made
ROLES = (  # what a layer is in its network, and so its records; an op that is run by itself has the role ""
    "stem", "stem_norm", "stem_act",
    "expand", "expand_norm", "expand_act", "depthwise", "depthwise_norm", "depthwise_act",
    "se_fc1", "se_act", "se_fc2", "se_gate", "se_scale", "project", "project_norm", "add",
    "head_conv", "head_norm", "head_act", "pool", "classifier", "classifier_act", "dropout", "loss",
    "side_pool", "side_conv", "side_norm", "side_act", "side_project", "side_project_norm", "side_up", "side_add",
    "side_fc1", "side_fc_act", "side_fc2", "side_sum", "side_join",
    "low_rank_down", "low_rank_up", "low_rank_add",
)  # fmt: skip


@dataclass(eq=False, slots=True)
class Var:
    """A value on its way through the network: the array, the record that made it, and whether it wants a gradient.

    `tape` is the mark of the tape that holds that record; an input has none and may go to any.
    """

    value: Array
    source: int = INPUT
    needs_grad: bool = False
    tape: object = None

    def __post_init__(self) -> None:
        if not hasattr(self.value, "dtype"):
            raise DtypeError(op="Var", expected="an array", got=type(self.value).__name__)

    def __repr__(self) -> str:
        made = "an input" if self.source <= INPUT else f"made by record {self.source}"
        wants = "wants a gradient" if self.needs_grad else "no gradient"
        return f"<Var {self.shape} {self.value.dtype}, {made}, {wants}>"

    @property
    def shape(self) -> Shape:
        """Shape of the value."""
        return self.value.shape


@dataclass(eq=False, kw_only=True, repr=False)
class Record:
    """Something that ran: everything backward and the accounting need to know, except arrays.

    `sources` are the numbers of the records that made its inputs; `needs` says for these and
    then for the parameters which gradients are wanted.
    """

    layer: str
    role: str
    rule: str
    sources: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    shapes: tuple[Shape, ...]
    dtype: str
    needs: tuple[bool, ...]
    saved: Saved

    def __repr__(self) -> str:
        return f"<{self.line()}>"

    def again(self) -> Self:
        """A record of the same, which holds nothing yet."""
        fresh = object.__new__(type(self))  # a fifth of the time that dataclasses.replace takes
        fresh.__dict__.update(self.__dict__)
        fresh.__dict__.pop("cost", None)  # whose scratch memory is for the threads that were in force then
        fresh.saved = Saved(self.shapes[0], self.rule)
        return fresh

    def move(self, first: int, source: int) -> None:
        """Count the records from `first` on, and let `source` be the one that made the input."""
        self.sources = tuple(source if own < 0 else first + own for own in self.sources)

    def line(self) -> str:
        """What ran where, the shapes in and out, and what is kept of it for backward."""
        rule = "" if self.rule == EXACT else f":{self.rule}"
        kept = [f"{tensor} {buffer.array.nbytes:,}" for tensor, buffer in self.saved.buffers.items()]
        keeps = f"keeps {', '.join(kept)} bytes" if kept else "keeps nothing"
        return f"{self.layer} {self.name}{rule}: {self.shapes[0]} -> {self.cost.output}, {keeps}"

    @property
    @abstractmethod
    def name(self) -> str:
        """What ran."""

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """What it takes, foreseen from the shapes alone."""


@dataclass(eq=False, kw_only=True, repr=False)
class OpRecord(Record):
    """One op that ran."""

    op: Op
    attrs: Attrs

    @property
    def name(self) -> str:
        """The op's name."""
        return self.op.name

    @cached_property
    def cost(self) -> Cost:
        """The op's own account."""
        return self.op.cost(self.shapes, self.dtype, attrs=self.attrs, needs=self.needs, rule=self.rule)


@dataclass(eq=False, kw_only=True, repr=False)
class Checkpoint(Record):
    """A segment of the network of which only the input is kept, and which backward runs once more.

    Chen et al. 2016, arXiv:1604.06174. `inner` are the records of its first run, which hold nothing.
    """

    segment: Callable[[Any, Var], Var]  # of a tape and the input
    inner: tuple[OpRecord | Checkpoint, ...]
    name = "checkpoint"

    @cached_property
    def cost(self) -> Cost:
        """The segment's work, and its forward work once more."""
        costs = [record.cost for record in self.inner]
        macs, flops, moved = (
            sum((getattr(cost, kind) for cost in costs), Split()) for kind in ("macs", "flops", "moved")
        )
        return Cost(
            output=costs[-1].output,
            kept=(keeps_input("x", 0, self.shapes[0], self.dtype, ("recompute",)),),
            macs=macs + Split(recompute=macs.forward),
            flops=flops + Split(recompute=flops.forward),
            moved=moved + Split(recompute=moved.forward),
        )


Take = Callable[[Parameter, Array], bool]


@dataclass(frozen=True)
class Step:
    """A step of the walk back: an op's record, or several that are taken together.

    `gradients(tape, given, take, own)` gives those of the sources and of the parameters, and the gradient it started
    from where one of them may be that very array. That one is alone in `given`, which is emptied, so that it is
    let go of when it was read for the last time; `own` says that it may be written over. `take(parameter, gradient)`
    may be offered a gradient once nothing will read the parameter any more; what it takes is not returned.
    (A function of the tape: a method of it would keep the tape alive, and all that it holds.)
    """

    records: Sequence[Record]
    sources: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    gradients: Callable[..., tuple[tuple[Array | None, ...], Array | None]]


class Holding(NamedTuple):
    """One buffer that a record holds. Holdings of one `block` are the same memory."""

    record: Record
    kept: Kept
    block: int
