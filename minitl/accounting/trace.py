"""A shadow tape that writes down when each stand-in is made and let go of, and what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minitl.accounting.moment import BACKWARD, FORWARD, Moment, StepBuffer
from minitl.accounting.predict import LetGo
from minitl.arrays import Array, Shape
from minitl.fused.plan import Arrays, Work
from minitl.fused.program import Program, Stage
from minitl.gradients import Sink
from minitl.kernels.tasks import Table
from minitl.ops.op import Attrs, Gradients, Op
from minitl.parameters import Parameter
from minitl.records import OpRecord, Record, Take, Var
from minitl.saved import Saved
from minitl.shadow import Meter, Phantom, ShadowTape
from minitl.tape import K, Tape

NEEDS = {
    "grad_input": "the input's gradient",
    "grad_weight": "the weight's gradient",
    "grad_bias": "the bias's gradient",
    "grad_scale": "the scale's gradient",
    "recompute": "computing its block again",
}
TENSORS = {
    "x": "input",
    "y": "output",
    "x_hat": "normalised input",
    "inv_std": "1 / standard deviation",
    "mask": "slopes as bits",
    "codes": "slopes as codes",
}


class Label(NamedTuple):
    """What an array is."""

    kind: str
    name: str
    layer: str
    why: str


@dataclass
class _Span:
    """An array's life."""

    bytes: int
    shape: Shape
    dtype: str
    first: int
    last: int
    label: Label


class Trace(Meter):
    """Counts, and writes down every array's coming and going; `say` is what the next ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[_Span] = []
        self.moments: list[Moment] = []
        self.layer, self.going = "images", FORWARD
        self.label = Label("images", "images", "", "in the caller's hand")
        self._numbers: dict[int, int] = {}  # of the stand-ins alive, by their identity

    def visit(self, layer: str, going: str) -> None:
        """What follows is for that layer."""
        self.layer, self.going = layer, going

    def say(self, kind: str, name: str, why: str) -> None:
        """The arrays that come now are these."""
        self.label = Label(kind, name, self.layer, why)

    def born(self, phantom: Phantom) -> None:
        """Write down a stand-in's coming."""
        super().born(phantom)
        self._open(phantom.nbytes, phantom.shape, phantom.dtype.name, self.live)
        self._numbers[id(phantom)] = len(self.spans) - 1

    def died(self, phantom: Phantom) -> None:
        """Write down its going."""
        super().died(phantom)
        self.spans[self._numbers[id(phantom)]].last = len(self.moments) - 1

    def touch(self, workspace: int) -> None:
        """Write down memory that an op had for itself."""
        super().touch(workspace)
        if workspace:
            self.say("scratch", "workspace", "temporary arrays of the op")
            self._open(workspace, (workspace,), "uint8", self.live + workspace)
            self.spans[-1].last = len(self.moments) - 1

    def relabel(self, array: Array, label: Label) -> None:
        """What an array turned out to be."""
        self.spans[self._numbers[id(array)]].label = label

    def buffers(self, moments: Sequence[Moment]) -> Iterator[StepBuffer]:
        """All arrays, now that the step is over."""
        end = len(moments) - 1
        for s in self.spans:
            last = end if s.last < 0 else s.last
            until = "the end" if last == end else moments[last].where
            if s.bytes:
                kind, name, layer, why = s.label
                yield StepBuffer(name, layer, s.bytes, s.first, last, kind, why, s.shape, s.dtype, until)

    def _open(self, count: int, shape: Shape, dtype: str, live: int) -> None:
        at = len(self.moments)
        self.moments.append(Moment(at, live, self.layer, self.going))
        self.spans.append(_Span(count, tuple(shape), dtype, at, -1, self.label))

    def gradient_of(self, name: str, array: Array) -> None:
        """The array is the gradient of that parameter."""
        layer = name.rpartition(".")[0]
        self.relabel(array, Label("parameter gradients", f"{name}.gradient", layer, "for the optimizer"))


class Applied(LetGo):
    """Lets gradients go, having said whose they are."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def apply(self, parameter: Parameter, gradient: Array) -> None:
        """See `LetGo`."""
        self.trace.gradient_of(parameter.name, gradient)


class TracingWork(Work):
    """Says what the arrays of a fused run are, as far as their shapes tell."""

    trace: Trace

    def enter(self, stage: Stage) -> None:
        """What follows is for that stage."""
        self.trace.visit(stage.conv.layer, self.trace.going)

    def new(self, shape: Shape, dtype: str) -> Array:
        """See `Work`."""
        back = self.trace.going == BACKWARD
        if len(shape) == 4 and back:
            self.trace.say("activation gradients", "gradient", "of an output, or of an input, on its way down")
        elif len(shape) == 4:
            self.trace.say("activations", "output", "until its last reader is through")
        elif len(shape) == 1 and dtype != "float64":
            self.trace.say("packed weights", "packed", "weights as the kernel reads them")
        else:
            self.trace.say("scratch", "sums", "sums, codes, factors of a norm, the numbers that pixels stand for")
        return super().new(shape, dtype)

    def run(self, table: Callable[[], Table], size: Callable[[], tuple[int, int]], arrays: Arrays) -> None:
        """See `Work`."""
        self.trace.say("scratch", "scratch", "of each thread, while the tasks run")
        super().run(table, size, arrays)


class TracingTape(ShadowTape):
    """Says for each array what it is, and in whose forward or backward it is made."""

    def __init__(self, trace: Trace, *, fused: bool = True) -> None:
        super().__init__(trace, fused=fused)
        self.trace = trace

    def _fresh(self) -> Tape:
        return TracingTape(self.trace, fused=self.fused)

    def labels(self, labels: Any) -> Var:
        """See `Tape`."""
        self.trace.visit("loss", FORWARD)
        self.trace.say("images", "labels", "copied as int64")
        return super().labels(labels)

    def run(
        self, op: Op, *inputs: Var | Parameter, layer: str, role: str, rule: str = "", attrs: Attrs | None = None
    ) -> Var:
        """See `Tape`."""
        self.trace.visit(layer, FORWARD)
        return super().run(op, *inputs, layer=layer, role=role, rule=rule, attrs=attrs)

    def run_fused(self, program: Program, x: Var) -> Var:
        """See `Tape`."""
        self.trace.visit(program.records[0].layer, FORWARD)
        return super().run_fused(program, x)

    def run_frozen(self, programs: Sequence[Program], x: Var) -> Var:
        """See `Tape`."""
        self.trace.visit(f"{programs[0].records[0].layer} ... {programs[-1].records[-1].layer}", FORWARD)
        return super().run_frozen(programs, x)

    def _walk_back(self, last: int, given: list[Array], sink: Sink, *, own: bool) -> dict[str, Array]:
        self._name_what_is_kept()
        return super()._walk_back(last, given, sink, own=own)

    def _name_what_is_kept(self) -> None:
        """A buffer is named by the first that keeps it. (No local variable of the walk back may hold one.)"""
        named = set[int]()
        for record in self.records:
            for tensor, buffer in record.saved.buffers.items():
                if id(buffer.array) not in named:
                    what = f"{record.role.replace('_', ' ')} {TENSORS.get(tensor, tensor)}"
                    needs = " and ".join(NEEDS[need] for need in buffer.kept.needed_for)
                    self.trace.relabel(buffer.array, Label("kept", tensor, record.layer, f"{what}, kept for {needs}"))
                named.add(id(buffer.array))

    def _read(self, parameter: Parameter) -> Array:
        if parameter.scale is not None:
            self.trace.say("packed weights", "dequantised", "a weight held in 8 bits, as numbers")
        return super()._read(parameter)

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        self.trace.say("activations", "output", "until its last reader is through")
        return super()._forward(op, arrays, attrs, needs, rule)

    def _backward(self, record: OpRecord, gy: Array) -> Gradients:
        self.trace.visit(record.layer, BACKWARD)
        self.trace.say("activation gradients", "gradient", "of an input, on its way down")
        return super()._backward(record, gy)

    def _through_run(
        self, given: list[Array], take: Take, own: bool, program: Program, records: dict[Record, OpRecord]
    ) -> tuple[Gradients, None]:
        self.trace.visit(program.stages[-1].conv.layer, BACKWARD)
        return super()._through_run(given, take, own, program, records)

    def _work(self, take: Take | None = None) -> Work:
        work = TracingWork(self.phantom, take, dry=True)
        work.trace = self.trace
        return work

    def _ones_like(self, loss: Array) -> Array:
        self.trace.visit("loss", BACKWARD)
        self.trace.say("activation gradients", "gradient", "of the loss")
        return super()._ones_like(loss)

    def _accumulate(self, pending: dict[K, Array], source: K, gradient: Array, gy: Array | None = None) -> None:
        if isinstance(source, str):
            self.trace.gradient_of(source, gradient)
        super()._accumulate(pending, source, gradient, gy)
