"""A step's memory moment by moment: every array with what it is for, when it comes and when it goes.

The step runs on a shadow tape (see `shadow`) that writes down when each stand-in is made and let go
of. A *moment* is that of one array's coming: the arrays alive at moment k are those made by then
and not yet let go of. Between two moments memory only falls, so the largest of them is the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from minitl.accounting.arena import Arena, Buffer, place
from minitl.accounting.predict import FEW, LetGo, check_model, shadow_step
from minitl.arrays import Array, Shape
from minitl.checks import expect_count
from minitl.fused.program import Program, Run, Stage
from minitl.fused.work import Work
from minitl.gradients import Sink
from minitl.networks.network import Model
from minitl.ops.op import Attrs, Gradients, Op
from minitl.parameters import Parameter
from minitl.records import OpRecord, Take, Var
from minitl.saved import Saved
from minitl.shadow import Meter, Phantom, ShadowTape
from minitl.tape import K, Tape

FORWARD, BACKWARD = "forward", "backward"
ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
KINDS = (
    "parameters", "statistics", "optimizer state", "images", "kept", "activations", "activation gradients",
    "parameter gradients", "packed weights", "scratch",
)  # fmt: skip
RESIDENT = ("parameters", "statistics", "optimizer state")
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


@dataclass(frozen=True)
class StepBuffer(Buffer):
    """An array of a step: its kind (one of KINDS), why it is there, and where it is let go of."""

    why: str = ""
    shape: Shape = ()
    dtype: str = ""
    until: str = ""

    @property
    def always(self) -> bool:
        """Whether it is held between steps, too."""
        return self.kind in RESIDENT


class Moment(NamedTuple):
    """The bytes alive when an array had just been made, in the forward or backward pass of a layer."""

    at: int
    bytes: int
    layer: str
    going: str

    @property
    def where(self) -> str:
        """`backward of features.9`."""
        return f"{self.going} of {self.layer}"


@dataclass(frozen=True)
class Timeline:
    """All arrays of a step, and the bytes alive at each moment."""

    buffers: tuple[StepBuffer, ...]
    moments: tuple[Moment, ...]

    @property
    def peak(self) -> Moment:
        """The first moment at which the most bytes are alive."""
        return max(self.moments, key=lambda moment: moment.bytes)

    @property
    def turn(self) -> Moment:
        """Where backward begins: all that it needs is kept by then."""
        return next(moment for moment in self.moments if moment.going == BACKWARD)

    def alive(self, at: int) -> list[StepBuffer]:
        """What is alive at a moment, the largest first."""
        return sorted((b for b in self.buffers if b.first <= at <= b.last), key=lambda b: -b.bytes)

    def by_kind(self) -> dict[str, list[int]]:
        """The bytes alive at each moment, by the kinds that there are."""
        change = {kind: [0] * (len(self.moments) + 1) for kind in KINDS if any(b.kind == kind for b in self.buffers)}
        for b in self.buffers:
            change[b.kind][b.first] += b.bytes
            change[b.kind][b.last + 1] -= b.bytes
        return {kind: _running(steps[:-1]) for kind, steps in change.items()}

    def extremes(self) -> list[Moment]:
        """Of each visit to a layer, the moments with the fewest and the most bytes alive; and where backward begins."""
        found = {self.turn}
        for visit in _visits(self.moments):
            found |= {min(visit, key=lambda m: m.bytes), max(visit, key=lambda m: m.bytes)}
        return sorted(found)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        peak = self.peak
        return {
            "peak_bytes": peak.bytes,
            "peak_at": peak.at,
            "peak_layer": peak.layer,
            "peak_pass": peak.going,
            "alive_at_peak": [asdict(b) for b in self.alive(peak.at)],
            "moments": [{"at": m.at, "bytes": m.bytes, "layer": m.layer, "pass": m.going} for m in self.moments],
        }


def timeline(
    model: Model,
    *,
    batch: int,
    resolution: int,
    optimizer_slots: int = 0,
    apply: bool = False,
    pixels: bool = False,
) -> Timeline:
    """A step of the model on `batch` images, moment by moment, from shapes alone; options as for `predict`.

    Its peak is `predict(...).totals.peak_bytes`.
    """
    check_model(model)
    slots = expect_count("optimizer_slots", optimizer_slots, least=0, layer=model.name)
    trace = _Trace()
    tape = _TracingTape(trace)
    shadow_step(model, tape, batch, resolution, _Applied(trace) if apply else None, pixels=pixels)
    trace.spans[1].label = _Label("images", "labels", "", "in the caller's hand")
    resident = list(_resident(tape.parameters, slots, len(trace.moments) - 1))
    always = sum(b.bytes for b in resident)
    moments = tuple(m._replace(bytes=m.bytes + always) for m in trace.moments)
    return Timeline((*resident, *trace.buffers(moments)), moments)


def arena(
    model: Model,
    *,
    batch: int,
    resolution: int,
    optimizer_slots: int = 0,
    apply: bool = False,
    pixels: bool = False,
    alignment: int = ALIGNMENT,
) -> Arena:
    """Every array of a step at a fixed offset in one block of memory; options as for `predict`.

    Parameters, statistics, optimizer state, images, kept buffers, maps, gradients and scratch, and a
    room for the small vectors that calls use in passing. The block's lower bound is the step's peak.
    """
    step: dict[str, Any] = {"optimizer_slots": optimizer_slots, "apply": apply, "pixels": pixels}
    line = timeline(model, batch=batch, resolution=resolution, **step)
    plain = [Buffer(b.name, b.layer, b.bytes, b.first, b.last, b.kind) for b in line.buffers]
    return place(plain, alignment=alignment)


def _resident(parameters: Iterable[Parameter], slots: int, end: int) -> Iterator[StepBuffer]:
    """What is held between steps, and the room for small vectors."""
    for p in parameters:
        kind = "statistics" if p.statistic else "parameters"
        layer = p.name.rpartition(".")[0]
        held = "trained" if p.trained else "frozen"
        why = "running statistic" if p.statistic else "a rule's, from step to step" if p.state else held
        made = StepBuffer(p.name, layer, p.nbytes, 0, end, kind, why, p.value.shape, p.dtype, "the end")
        yield made
        for slot in range(slots if p.trained else 0):
            yield replace(made, name=f"{p.name}.optimizer{slot}", kind="optimizer state", why="kept between steps")
    why = "vectors of a number per channel, and addresses handed to kernels"
    yield StepBuffer("vectors", "", FEW, 0, end, "scratch", why, (FEW,), "uint8", "the end")


class _Label(NamedTuple):
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
    label: _Label


class _Trace(Meter):
    """Counts, and writes down every array's coming and going; `say` is what the next ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[_Span] = []
        self.moments: list[Moment] = []
        self.layer, self.going = "images", FORWARD
        self.label = _Label("images", "images", "", "in the caller's hand")
        self._numbers: dict[int, int] = {}  # of the stand-ins alive, by their identity

    def visit(self, layer: str, going: str) -> None:
        """What follows is for that layer."""
        self.layer, self.going = layer, going

    def say(self, kind: str, name: str, why: str) -> None:
        """The arrays that come now are these."""
        self.label = _Label(kind, name, self.layer, why)

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

    def relabel(self, array: Array, label: _Label) -> None:
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
        self.relabel(array, _Label("parameter gradients", f"{name}.gradient", layer, "for the optimizer"))


class _Applied(LetGo):
    """Lets gradients go, having said whose they are."""

    def __init__(self, trace: _Trace) -> None:
        self.trace = trace

    def apply(self, parameter: Parameter, gradient: Array) -> None:
        """See `LetGo`."""
        self.trace.gradient_of(parameter.name, gradient)


class _TracingWork(Work):
    """Says what the arrays of a fused run are, as far as their shapes tell."""

    trace: _Trace

    def enter(self, stage: Stage) -> None:
        """What follows is for that stage."""
        self.trace.visit(stage.conv.layer, self.trace.going)

    def new(self, shape: Shape, dtype: str = "") -> Array:
        """See `Work`."""
        back = self.trace.going == BACKWARD
        if len(shape) == 4 and back:
            self.trace.say("activation gradients", "gradient", "of an output, or of an input, on its way down")
        elif len(shape) == 4:
            self.trace.say("activations", "output", "until its last reader is through")
        elif len(shape) == 1 and not dtype:
            self.trace.say("packed weights", "packed", "weights as the kernel reads them")
        else:
            self.trace.say("scratch", "sums", "partial sums and factors of a norm")
        return super().new(shape, dtype)

    def table(self, stage: Stage) -> Array:
        """See `Work`."""
        self.trace.say("scratch", "table", "the numbers that pixels stand for")
        return super().table(stage)

    def numbers(self, count: int, passing: int, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
        """See `Work`."""
        self.trace.say("scratch", "factors", "factors of a norm while they are made")
        return super().numbers(count, passing, make)

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """See `Work`."""
        self.trace.say("scratch", "sums", "sums of a band or a group")
        return super().zeros(shape, dtype)

    def recorded(self, *arguments: Any) -> None:
        """See `Work`."""
        self.trace.say("scratch", "scratch", "of each thread, while the tasks run")
        super().recorded(*arguments)


class _TracingTape(ShadowTape):
    """Says for each array what it is, and in whose forward or backward it is made."""

    def __init__(self, trace: _Trace, *, fused: bool = True) -> None:
        super().__init__(trace, fused=fused)
        self.trace = trace

    def _fresh(self) -> Tape:
        return _TracingTape(self.trace, fused=self.fused)

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
                    self.trace.relabel(buffer.array, _Label("kept", tensor, record.layer, f"{what}, kept for {needs}"))
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

    def _through_run(self, given: list[Array], take: Take, own: bool, run: Run) -> tuple[Gradients, None]:
        self.trace.visit(run.program.stages[-1].conv.layer, BACKWARD)
        return super()._through_run(given, take, own, run)

    def _work(self, program: Program, x: Array) -> Work:
        work = _TracingWork(program, x.shape[0], program.dtype, self.phantom, dry=True)
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


def _running(changes: Sequence[int]) -> list[int]:
    total, found = 0, []
    for change in changes:
        total += change
        found.append(total)
    return found


def _visits(moments: Sequence[Moment]) -> Iterator[list[Moment]]:
    """The moments, parted where another layer or pass begins."""
    for _, visit in groupby(moments, key=lambda moment: moment.where):
        yield list(visit)
