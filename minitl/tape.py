"""The tape: a list of what was computed, in order, which backward walks from its end.

A Wengert list (Wengert 1964, DOI 10.1145/355586.364791). The only arrays a tape holds are those in
its records' `Saved`: what is not kept there is freed as soon as the caller lets go of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from minitl.arrays import Array, owner, to_numpy
from minitl.checks import expect_count, expect_flag
from minitl.errors import DtypeError, MinitlError, ShapeError, UsageError, ValueRangeError, unknown
from minitl.fused.backward import backward
from minitl.fused.forward import forward
from minitl.fused.frozen import frozen_forward
from minitl.fused.plan import Arrays, Work
from minitl.fused.program import Program
from minitl.gradients import Apply, Sink, Witness, reads_again
from minitl.kernels.compile import interpreted
from minitl.ops.op import EXACT, Attrs, Gradients, Op, dtype_of
from minitl.parameters import Parameter
from minitl.pixels import PIXELS, Normalisation
from minitl.records import INPUT, ROLES, Checkpoint, Holding, OpRecord, Record, Step, Take, Var
from minitl.saved import Saved

K = TypeVar("K", int, str)  # a record's number, or a parameter's name


class Tape:
    """Records a forward pass; gives the gradients of the trained parameters.

    `training=False` evaluates: norms use their running statistics, dropout lets everything
    through, nothing is recorded or kept. `seed` decides what dropout drops. `fused=False` runs
    every op by itself, in the order one reads; the fused path gives the same bits. (Without the compiler,
    NUMBA_DISABLE_JIT=1, every op runs by itself.)
    """

    computes = True  # a shadow does not

    def __init__(self, *, training: bool = True, seed: int = 0, fused: bool = True) -> None:
        self.training = self.recording = expect_flag("training", training, op="tape")
        self.seed = expect_count("seed", seed, least=0, op="tape")
        self.fused = expect_flag("fused", fused, op="tape") and not interpreted()
        self._steps: dict[int, Step] = {}  # that are not of one op, by the number of their last record
        self.records: list[OpRecord | Checkpoint] = []
        self._mark = object()  # not the tape itself: a value in somebody's hand must not keep it alive
        self.input_gradients: dict[int, Array] = {}  # of `variable`s, by their source, after backward
        self._variables = 0
        self.idle: list[Parameter] = []  # that the network holds, and this step does not use
        self.keeps, self.rerun = True, False  # see `checkpoint`
        self._held_before_backward: list[Holding] | None = None
        self._witness = Witness()

    def __repr__(self) -> str:
        held = sum({holding.block: holding.kept.nbytes for holding in self.holdings()}.values())
        when = "for backward" if self._held_before_backward is None else "until it was walked back"
        return f"<Tape of {len(self.records)} records, {held:,} bytes held {when}>"

    def __str__(self) -> str:
        """All records, one per line."""
        return "\n".join([repr(self)[1:-1], *(f"{n:4} {record.line()}" for n, record in enumerate(self.records))])

    def images(self, images: Any, channels: int, dtype: str, by: Normalisation | None = None) -> Var:
        """Take in a batch of images (N, H, W, channels), of the network's dtype and finite, or in pixels.

        Those are uint8, and taken where it is known `by` what they are normalised. An array that does not own its
        memory is copied: kept for backward, a slice would keep the whole data set alive.
        """
        got = images.dtype.name if isinstance(images, np.ndarray) else type(images).__name__
        if got == dtype and not images.dtype.isnative:
            got += " of swapped byte order"
        if got != dtype and not (got == PIXELS and by):
            remedy = f"use .astype({dtype!r})"
            if got == PIXELS:
                remedy = (
                    "set the network's normalisation to 'imagenet' or (mean, std), "
                    f"or normalise by these: ((images / 255 - mean) / std).astype({dtype!r})"
                )
            raise DtypeError(op="images", expected=f"a {dtype} array", got=got, remedy=remedy)
        if images.ndim != 4 or images.shape[3] != channels or 0 in images.shape:
            expected, remedy = f"(N, H, W, {channels}), none of them 0", "arrays are channels last (NHWC)"
            raise ShapeError(op="images", expected=expected, got=f"shape {images.shape}", remedy=remedy)
        if got != PIXELS and not np.isfinite(images).all():
            where = np.argwhere(~np.isfinite(images))[0].tolist()
            raise ValueRangeError(op="images", expected="finite values", got=f"{images[tuple(where)]} at {where}")
        if images.base is not None or not images.flags.c_contiguous:
            return Var(images.copy(order="C"))
        self._witness.array("the images", images)
        return Var(images)

    def variable(self, x: Var, needs_grad: bool = True) -> Var:
        """The same value as an input that wants a gradient, as if layers below it were trained."""
        self._variables += 1
        return Var(x.value, INPUT - self._variables, self.training and needs_grad, self._mark)

    def labels(self, labels: Any) -> Var:
        """Take in integer class labels (N,), copied as int64 (the op refuses any other kind)."""
        array = to_numpy(labels, op="cross_entropy", layer="loss")
        return Var(np.array(array, np.int64) if array.dtype.kind in "iu" else array)

    def run(
        self, op: Op, *inputs: Var | Parameter, layer: str, role: str, rule: str = "", attrs: Attrs | None = None
    ) -> Var:
        """Compute `op` and record it; an error it raises is given the layer's path.

        `role` is one of `layers.ROLES`, or "" for an op outside any network; others raise UnknownNameError.
        """
        attrs = attrs or {}
        if role != "" and role not in ROLES:
            raise unknown("role", role, ROLES, op=op.name, layer=layer)
        for wrong in (i for i in inputs if not isinstance(i, Var | Parameter)):
            got, remedy = type(wrong).__name__, "an array becomes one by minitl.Var(array)"
            raise UsageError(op=op.name, layer=layer, expected="a Var or a Parameter", got=got, remedy=remedy)
        flows = [i for i in inputs if isinstance(i, Var)]
        self._check_own(flows, op.name, layer)
        wanted = (i.needs_grad if isinstance(i, Var) else i.trained for i in inputs)
        needs = tuple(self.training and flag for flag in wanted)
        rule = rule or op.rules[0]
        try:
            arrays = tuple(i.value if isinstance(i, Var) else self._read(i) for i in inputs)
            y, saved = self._forward(op, arrays, attrs, needs if self.keeps else (False,) * len(needs), rule)
        except MinitlError as error:
            raise error.at(layer) from None
        if not self.recording:
            return Var(y)
        record = OpRecord(
            op=op,
            layer=layer,
            role=role,
            rule=rule,
            attrs=attrs,
            sources=tuple(flow.source for flow in flows),
            parameters=tuple(i for i in inputs if isinstance(i, Parameter)),
            shapes=tuple(i.value.shape for i in inputs),
            dtype=dtype_of(arrays),
            needs=needs,
            saved=saved,
        )
        self.records.append(record)
        if self.computes:
            self._witness.parameters(reads_again(record))
        return Var(y, len(self.records) - 1, any(needs), self._mark)

    def _check_own(self, flows: Sequence[Var], op: str, layer: str) -> None:
        if any(flow.tape not in (None, self._mark) for flow in flows):
            raise UsageError("a value of another tape", op=op, layer=layer, remedy="use one Tape for a whole step")

    def not_fused(self, layers: Sequence[str], why: str) -> None:
        """Take note that these layers run op by op, or parts of them do (see `accounting.op_by_op`)."""

    def position(self) -> tuple[int, int, int]:
        """How much it has taken down, for `rewind`."""
        return len(self.records), *self._witness.position()

    def rewind(self, records: int, arrays: int, parameters: int) -> None:
        """Forget all that came after that position: a forward pass that was refused."""
        del self.records[records:]
        self._steps = {last: step for last, step in self._steps.items() if last < records}
        self._witness.rewind(arrays, parameters)

    def run_fused(self, program: Program, x: Var) -> Var:
        """Compute what `program` stands for in one go, and record it op by op.

        The records are those the ops would make one by one, and hold the same; only in backward
        they are taken together.
        """
        if not program.trains:
            return self.run_frozen([program], x)
        self._check_own([x], program.records[0].name, program.records[0].layer)
        plan = forward(program, keeps=self.keeps)
        y, *kept = plan.play(self._work(), [self._dense(x.value), *map(self._read, plan.values)])
        return self._recorded(program, x, y, kept) if self.recording else Var(y)

    def run_frozen(self, programs: Sequence[Program], x: Var) -> Var:
        """The same for several programs, one after another, in none of which anything is trained: depth first."""
        self._check_own([x], programs[0].records[0].name, programs[0].records[0].layer)
        plan = frozen_forward(programs)
        (y,) = plan.play(self._work(), [self._dense(x.value), *map(self._read, plan.values)])
        if not self.recording:
            return Var(y)
        for program in programs:
            x = self._recorded(program, x, y, [])
        return x

    def _recorded(self, program: Program, x: Var, y: Array, kept: Arrays) -> Var:
        placed = program.records_at(len(self.records), x.source)
        last = len(self.records) + len(placed) - 1
        if not program.trains:
            self.records += placed
            return Var(y, last, False, self._mark)
        copies: dict[Record, OpRecord] = {
            record: there.again() for record, there in zip(program.records, placed, strict=True)
        }
        for h, array in zip(program.holdings if self.keeps else (), kept, strict=True):
            says = h.kept
            if (array.dtype, array.nbytes) != (says.dtype, says.nbytes):  # the ops say what is kept, always
                raise AssertionError(f"{h.record.layer}: kept {says.tensor} of {array.nbytes} bytes, not {says.nbytes}")
            copies[h.record].saved.hold(array, says)
        self.records += copies.values()
        if self.computes:
            read = program.planned("read again", lambda: [named for r in program.records for named in reads_again(r)])
            self._witness.parameters(read)
        through = partial(type(self)._through_run, program=program, records=copies)
        self._steps[last] = Step(tuple(copies.values()), (x.source,), program.parameters, through)
        return Var(y, last, True, self._mark)

    def checkpoint(self, segment: Callable[[Tape, Var], Var], x: Var, *, layer: str, role: str) -> Var:
        """Run `segment` on x, keep x alone for its backward, and there run it again.

        Both runs make the same calls, so gradients are those without a checkpoint, to the bit; the
        second (`rerun`) leaves running statistics alone. Where the segment has nothing to train
        and no gradient to pass on, it simply runs.
        """
        if not self.training:
            return segment(self, x)
        inner = self._fresh()
        inner.keeps = False
        y = segment(inner, inner.variable(x, x.needs_grad))
        self.idle += inner.idle
        if not y.needs_grad:
            first, own = len(self.records), [record.again() for record in inner.records]
            for record in own:
                record.move(first, x.source)
            self.records += own
            return Var(y.value, first + y.source, False, self._mark) if own else x
        parameters = tuple(dict.fromkeys(p for record in inner.records for p in record.parameters))
        record = Checkpoint(
            layer=layer,
            role=role,
            rule=EXACT,
            sources=(x.source,),
            parameters=parameters,
            shapes=(x.shape,),
            dtype=x.value.dtype.name,
            needs=(x.needs_grad, *(p.trained for p in parameters)),
            saved=Saved(),
            segment=segment,
            inner=tuple(inner.records),
        )
        if self.keeps:
            record.saved.keep("x", x.value, ("recompute",))
        self._steps[len(self.records)] = Step(
            (record,), record.sources, parameters, partial(type(self)._run_again, record=record)
        )
        self.records.append(record)
        return Var(y.value, len(self.records) - 1, True, self._mark)

    def _run_again(self, given: list[Array], take: Take, own: bool, record: Checkpoint) -> tuple[Gradients, None]:
        inner = self._fresh()
        inner.rerun = True
        x = inner.variable(Var(record.saved["x"]), record.needs[0])
        last = record.segment(inner, x).source  # its value is not needed
        gradients = inner._walk_back(last, given, Sink(None, inner.records), own=False)
        return (inner.input_gradients.get(x.source), *(gradients.get(p.name) for p in record.parameters)), None

    def _fresh(self) -> Tape:
        tape = Tape(training=self.training, seed=self.seed, fused=self.fused)
        tape._witness = self._witness  # its backward reads them again, too
        return tape

    def backward(self, loss: Var, gy: Array | None = None, *, apply: Apply | None = None) -> dict[str, Array]:
        """Gradients of `loss` for every trained parameter it depends on, by name.

        For a `loss` that is no scalar but, say, the output of a block, `gy` of its shape says with
        what weights its elements are summed (by default ones).

        Each record's buffers are freed as soon as its gradients are computed; in a fused run a
        gradient may be written over them. So a tape can be walked back once. The ledger still
        tells afterwards what was held before.

        With `apply`, an optimizer, each gradient is applied as soon as it is complete and nothing will read
        the parameter's old value any more, and then let go of (LOMO, Lv et al. 2023, arXiv:2306.09782); the
        result is empty. The parameters end with the bytes that a separate step would give them.

        Raises UsageError where parameters or images are not what they were in the forward pass (see
        `stamps` for what is seen), and where two trained parameters share a name.
        """
        if not isinstance(loss, Var):
            raise UsageError(op="backward", expected="a Var that this tape gave", got=type(loss).__name__)
        if not loss.needs_grad:
            raise UsageError(
                "backward: the loss depends on no trained parameter", remedy="apply a method that trains a part of it"
            )
        if loss.tape is not self._mark:
            raise UsageError("backward: the loss was computed on another tape", remedy="use one Tape for a whole step")
        if self._held_before_backward is not None:
            raise UsageError("backward: this tape was already walked back", remedy="run the forward pass on a new Tape")
        if self.computes and not isinstance(gy, np.ndarray | None):
            raise DtypeError(op="backward", expected="an array gy", got=type(gy).__name__)
        if gy is not None and (gy.shape, gy.dtype) != (loss.value.shape, loss.value.dtype):
            expected = f"gy of shape {loss.shape}, {loss.value.dtype}"
            raise ShapeError(op="backward", expected=expected, got=f"{gy.shape}, {gy.dtype}")
        self._witness.expect_own_names()
        self._witness.expect_unchanged()
        sink = Sink(apply, self.records[: loss.source + 1])
        seed = [self._ones_like(loss.value) if gy is None else gy]
        return self._walk_back(loss.source, seed, sink, own=gy is None)

    def _walk_back(self, last: int, given: list[Array], sink: Sink, *, own: bool) -> dict[str, Array]:
        """Walk the records back from number `last`, whose value's gradient is in `given`, which is emptied.

        `own` says whether that gradient may be written over. A gradient goes from hand to hand, so that none
        outlives its last reader: no frame that waits holds one.
        """
        self._held_before_backward = self.holdings()
        pending: dict[int, Array] = {last: given.pop()}
        self._lent = set() if own else {last}
        for number in reversed(range(last + 1)):
            if number not in pending:
                continue
            step = self._steps.pop(number, None) or self._step_of(self.records[number])
            self._walk(step, [pending.pop(number)], pending, sink, own=number not in self._lent)
        self.input_gradients = pending
        return dict(reversed(sink.gradients.items()))

    def _walk(self, step: Step, given: list[Array], pending: dict[int, Array], sink: Sink, *, own: bool) -> None:
        results, gy = step.gradients(self, given, sink.take, own)
        for record in step.records:
            record.saved.buffers.clear()
        flows = len(step.sources)
        for source, gradient in zip(step.sources, results[:flows], strict=True):
            if gradient is not None:
                if gy is not None and owner(gradient) is owner(gy) and source not in pending:
                    self._lent.add(source)
                self._accumulate(pending, source, gradient, gy)
        for parameter, gradient in zip(reversed(step.parameters), reversed(results[flows:]), strict=True):
            if gradient is not None:
                self._accumulate(sink.gradients, parameter.name, gradient, gy)
        gradient = gy = None
        results = ()  # what is applied now is let go of one by one
        for record in step.records:
            sink.walked(record)

    def _step_of(self, record: Record) -> Step:
        assert isinstance(record, OpRecord)  # all others came with a step of their own
        return Step((record,), record.sources, record.parameters, partial(type(self)._through_op, record=record))

    def _through_op(self, given: list[Array], take: Take, own: bool, record: OpRecord) -> tuple[Gradients, Array]:
        gy = given.pop()
        return self._backward(record, gy), gy

    def _through_run(
        self, given: list[Array], take: Take, own: bool, program: Program, records: dict[Record, OpRecord]
    ) -> tuple[Gradients, None]:
        plan = backward(program, own=own)
        given[0] = self._dense(given[0])
        given += [records[h.record].saved[h.kept.tensor] for h in program.holdings]
        for record in records.values():
            record.saved.buffers.clear()  # what is still to be read, the plan lets go of
        given += map(self._read, plan.values)
        return tuple(plan.play(self._work(take), given)), None

    @property
    def parameters(self) -> list[Parameter]:
        """All parameters, statistics and state that the network holds for the records' layers, each once."""
        used = (p for record in self.records for p in record.parameters)
        return list({p.name: p for p in (*self.idle, *used)}.values())

    def holdings(self) -> list[Holding]:
        """What the records hold for backward; after backward, what they held before it."""
        return list(self._holdings()) if self._held_before_backward is None else self._held_before_backward

    def _holdings(self) -> Iterator[Holding]:
        blocks: dict[int, int] = {}
        for record in self.records:
            for b in record.saved.buffers.values():
                block = blocks.setdefault(id(b.owner), len(blocks))
                yield Holding(record, b.kept, block)

    # The places where arrays are touched; `shadow.ShadowTape` replaces them by sizes.

    def _dense(self, array: Array) -> Array:
        return np.asarray(array, order="C")  # kernels read it by its address

    def _read(self, parameter: Parameter) -> Array:
        return parameter.array()

    def _forward(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, needs: Sequence[bool], rule: str
    ) -> tuple[Array, Saved]:
        return op.forward(*arrays, attrs=attrs, needs=needs, rule=rule)

    def _backward(self, record: OpRecord, gy: Array) -> Gradients:
        params = [self._read(p) for p in record.parameters]
        return record.op.backward(record.saved, gy, attrs=record.attrs, needs=record.needs, params=params)

    def _work(self, take: Take | None = None) -> Work:
        return Work(np.empty, take, dry=False)

    def _ones_like(self, loss: Array) -> Array:
        return np.ones_like(loss)

    def _accumulate(self, pending: dict[K, Array], source: K, gradient: Array, gy: Array | None = None) -> None:
        """Add to what `source` has been sent so far; an op that passes on `gy` itself still owns nothing new."""
        before = pending.get(source)
        if before is None:
            pending[source] = gradient
        else:
            fresh = owner(gradient) is not owner(gy)
            pending[source] = np.add(before, gradient, out=gradient if fresh else None)
