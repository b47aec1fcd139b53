"""A network: a stem, inverted residual blocks, a head. What all MobileNets share."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import dropwhile
from os import PathLike
from typing import Any

import numpy as np

from minitl import ops
from minitl.arrays import FLOATS, Array, to_numpy
from minitl.blocks import Build, ConvNorm, InvertedResidual
from minitl.checks import as_number, expect_count
from minitl.errors import (
    DtypeError,
    MinitlError,
    NotFiniteError,
    RuleError,
    ShapeError,
    UnknownNameError,
    UsageError,
    ValueRangeError,
    brief,
)
from minitl.layers import Activation, Adaptor, Dropout, Layer, Linear, Norm, Pool, Product, cross_entropy
from minitl.networks.describe import describe, summary
from minitl.networks.mirror import mirrored_images, mirrored_kernel
from minitl.networks.names import Outline
from minitl.networks.weights.load import load
from minitl.networks.weights.report import LoadReport
from minitl.ops.losses.cross_entropy import expect_labels
from minitl.parameters import Parameter, expect_writable
from minitl.pixels import PIXELS, Normalisation, as_normalisation
from minitl.records import Var
from minitl.segment import Segment, Top, run_frozen
from minitl.sides.side import Side
from minitl.statistics import Statistics
from minitl.tape import Tape

Classifier = Linear | Activation | Dropout

LATE = 100  # a method's last phase is this part of a run


class Model:
    """Something with layers that can be trained: a whole network, or a single block.

    As built, nothing is trained; a method (`minitl.methods`) decides what is. `blocks` are its
    inverted residual blocks, from the bottom.
    """

    num_classes: int | None = None
    mirrored = False  # see mirror.py
    normalisation: Normalisation | None = None  # of images in pixels, which only a network takes

    def __init__(self, name: str, blocks: Sequence[InvertedResidual], *, input_channels: int, dtype: str) -> None:
        self.name, self.blocks, self.input_channels, self.dtype = name, tuple(blocks), input_channels, dtype
        self.method = "none"  # this and the next three are set by Method.apply
        self.tuned_blocks: int | None = None
        self.checkpoint = False
        self.late: Callable[[Any], object] | None = None  # applies the method's last phase
        self.sides: dict[int, Side] = {}  # beside the blocks with these numbers
        for height, block in enumerate(reversed(self.blocks), start=1):
            for layer in block.layers():
                layer.height = height

    def __repr__(self) -> str:
        return f"<{summary(self)}>"

    def __str__(self) -> str:
        return describe(self)

    def __call__(self, tape: Tape, images: Any) -> Var:
        """Run images (N, H, W, C), which must be of the model's dtype and finite, through its layers.

        A network with a `normalisation` takes images in pixels, uint8, as well.

        Raises, with running statistics and tape as they were: whatever the layers do, and
        NotFiniteError where statistics or output would not be finite.
        """
        if not isinstance(tape, Tape):
            raise UsageError(op=self.name, expected="a Tape to run on", got=brief(repr(tape)))
        try:
            x = tape.images(images, self.input_channels, self.dtype, self.normalisation)
        except MinitlError as error:
            raise error.at(self.name) from None
        statistics, count = Statistics(self.layers(), tape), len(tape.records)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused below
                y = self.run(tape, x)
            if tape.computes:
                statistics.expect_finite()
                self._expect_finite(y.value)
        except BaseException:
            statistics.restore()
            tape.rewind(count)
            raise
        return y

    def _expect_finite(self, y: Array) -> None:
        """The largest and the smallest value tell, without a temporary."""
        if not (np.isfinite(y.max()) and np.isfinite(y.min())):
            raise NotFiniteError(
                layer=self.name,
                expected="a finite output",
                got="nan or inf",
                remedy="lower the learning rate, normalise the images, or load finite weights",
            )

    @property
    def padding(self) -> str:
        """The padding of its convolutions, "symmetric" or TensorFlow's "same"."""
        return "same" if self.mirrored else "symmetric"

    def run_block(self, tape: Tape, block: InvertedResidual, x: Var) -> Var:
        """Run one block; with `checkpoint`, keep only its input and run it again in backward."""
        if not (self.checkpoint and tape.training):
            return block(tape, x)
        first = next(block.layers())
        return tape.checkpoint(block, x, layer=first.path, role=first.role)

    @abstractmethod
    def run(self, tape: Tape, x: Var) -> Var:
        """Run x through the layers."""

    @abstractmethod
    def loss(self, tape: Tape, output: Var, labels: Any) -> Var:
        """What a training step differentiates, from the model's output."""

    @abstractmethod
    def layers(self) -> Iterator[Layer]:
        """All layers in the order they run."""

    @property
    def exact(self) -> bool:
        """Whether all gradients are the forward's: no approximate backward rule above the lowest trained layer."""
        above = dropwhile(lambda layer: not layer.plan.train, self.layers())
        return all(layer.exact for layer in above)

    def attach(self, sides: Mapping[int, Side]) -> None:
        """Put side modules beside the blocks with these numbers (from 0, at the bottom), in place of any others."""
        for number, side in sides.items():
            if number not in range(len(self.blocks)):
                known = f"a block from 0 to {len(self.blocks) - 1}"
                raise ValueRangeError(layer=side.spec.path, expected=known, got=str(number))
            for layer in side.layers():
                layer.height = len(self.blocks) - number
        self.sides = dict(sides)

    @property
    def adaptors(self) -> dict[str, Adaptor]:
        """What stands beside convolutions and linear layers, by their paths."""
        return {layer.path: layer.adaptor for layer in self.layers() if isinstance(layer, Product) and layer.adaptor}

    def adapt(self, adaptors: Mapping[str, Adaptor]) -> None:
        """Put adaptors beside the layers with these paths, in place of any others."""
        for layer in self.layers():
            if isinstance(layer, Product):
                layer.adaptor = adaptors.get(layer.path)

    def begin_step(self, step: int, steps: int) -> None:
        """Take note that step `step` (from 0) of `steps` begins: in the last hundredth a method may do otherwise.

        Once that has begun it stays, until a method is applied again.
        """
        if self.late and step >= steps - max(1, steps // LATE):
            self.late(self)

    def expect_labels(self, labels: Any, count: int) -> None:
        """Raise unless `labels` are what `loss` takes for `count` images; a single block takes any."""

    def parameters(self) -> Iterator[Parameter]:
        """All parameters and running statistics, in the order of their layers."""
        for layer in self.layers():
            yield from layer.parameters.values()

    @property
    def trained_count(self) -> int:
        """How many numbers the current method trains: of a weight that trains in part only that part."""
        return sum(layer.trained_count for layer in self.layers())

    def trained_parameters(self) -> dict[str, Array]:
        """The arrays the current method trains, by name; an optimizer updates them in place."""
        return {p.name: p.value for p in self.parameters() if p.trained}

    def counters(self) -> dict[str, Norm]:
        """The norms by the names under which a state dict has how many batches they have seen."""
        return {f"{layer.path}.num_batches_tracked": layer for layer in self.layers() if isinstance(layer, Norm)}

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and statistics under the names of the network's table, kernels as in its source."""
        state = {}
        for layer in self.layers():
            state.update({p.name: self._turned(p.array()).copy() for p in layer.parameters.values()})
            if isinstance(layer, Norm):
                state[f"{layer.path}.num_batches_tracked"] = np.array(layer.batches)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy in every parameter and statistic, converted to the network's dtype.

        Names and shapes must be exactly those of `state_dict` (`num_batches_tracked` may be
        missing) and values finite; otherwise an error is raised and nothing is changed.
        """
        if not isinstance(state, Mapping):
            raise UsageError(
                op="load_state_dict",
                expected="arrays by parameter name",
                got=brief(repr(state)),
                remedy="to read a file, use load" if isinstance(state, str | PathLike) else "",
            )
        own = {p.name: p for p in self.parameters()}
        counters = self.counters()
        self._check_names(set(own), set(state) - set(counters))
        values = {name: self._turned(_checked(parameter, state[name], self.dtype)) for name, parameter in own.items()}
        counts = {name: _checked_count(name, state[name]) for name in counters if name in state}
        for name, value in values.items():
            own[name].assign(value)
        for name, count in counts.items():
            counters[name].batches = count

    def _turned(self, array: Array) -> Array:
        """Between the state dict's kernels and those held."""
        return mirrored_kernel(array) if self.mirrored else array

    def _check_names(self, expected: set[str], got: set[str]) -> None:
        if expected != got:
            missing, strange = sorted(expected - got), sorted(got - expected, key=str)
            raise UnknownNameError(
                f"state dict does not fit {self.name}: {len(missing)} names missing {missing[:3]}, "
                f"{len(strange)} unexpected {strange[:3]}",
                remedy="check network, width and classifier; `net.load` translates other libraries' names",
            )


class Network(Model):
    """stem -> blocks -> head (a 1x1 convolution, if there is one) -> pool -> linear layers.

    Called with a tape and images (N, H, W, 3) it gives the logits (N, K). `table` describes it
    whole: `networks.from_table(net.table)` builds another one like it.
    """

    def __init__(
        self,
        table: Mapping[str, Any],
        outline: Outline,
        stem: ConvNorm,
        blocks: Sequence[InvertedResidual],
        head: ConvNorm | None,
        pool: Pool,
        classifier: Sequence[Classifier],
        *,
        dtype: str,
    ) -> None:
        super().__init__(table["name"], blocks, input_channels=3, dtype=dtype)
        self.top = Top(head, pool) if head else None
        self._table, self.outline = dict(table), outline
        self.stem, self.head, self.pool, self.classifier = stem, head, pool, tuple(classifier)
        self.mirrored = table["padding"] == "same"
        self.num_classes = classifier[-1].parameters["weight"].value.shape[0]
        for layer in stem.layers():
            layer.height = len(self.blocks) + 1

    @property
    def normalisation(self) -> Normalisation | None:
        """By what images in pixels, uint8 (N, H, W, 3), are normalised; None where they are refused.

        To be set to (mean, std) of pixels from 0 to 1, three numbers each, or to the name of a preset: `imagenet`,
        `half` or `none`. Then images may be given as a camera gives them: they become numbers sample by sample, the
        same as `pixels.normalise` gives, and a trained stem keeps their bytes, a quarter of the numbers'.
        """
        return self.stem.conv.normalisation

    @normalisation.setter
    def normalisation(self, given: str | tuple[Sequence[float], Sequence[float]] | None) -> None:
        known = None if given is None else as_normalisation(given, self.input_channels, layer=self.name)
        self.stem.conv.normalisation = known

    @property
    def table(self) -> dict[str, Any]:
        """The keys of `networks.schema` that describe the network as it is now: plain numbers, texts, lists, dicts."""
        norm = self.stem.norm
        now = {"eps": norm.eps, "momentum": norm.momentum, "padding": self.padding}
        return {**copy.deepcopy(self._table), **now}

    def load(
        self,
        file: str | PathLike[str],
        *,
        source: str = "",
        classifier: str = "load",
        strict: bool = True,
        momentum: float | None = None,
    ) -> LoadReport:
        """Take weights and running statistics from a file, and the conventions they were trained with.

        The file is safetensors, PyTorch's `.pth` (a state dict, read by torch without executing
        anything) or Keras' `.h5` or `.keras` (read by h5py). `source` is whose names and
        conventions it has: "torchvision", "timm", "keras", or "" for the network's own. eps,
        momentum and padding of the network become the source's. `classifier` is "load", "replace"
        (the last linear layer stays as it is) or "auto" (it stays where the file's is of another
        shape). With `strict`, names that are missing or unexpected are refused; without it, what
        fits is loaded. `momentum` replaces the source's: Keras' 0.001 leaves running statistics
        almost where they were in a short fine-tuning, whose norms have long left them. The report
        returned tells all of it. Raises DataError where the file
        cannot be read, UnknownNameError, ShapeError or ValueRangeError where it does not fit; then
        nothing is changed.
        """
        return load(self, file, source, classifier, strict=strict, momentum=momentum)

    def take_over(self, arrays: Mapping[str, Array], *, eps: float, momentum: float, padding: str) -> None:
        """Copy in arrays by the names of `state_dict`, some or all, and follow the conventions given."""
        state, before = {**self.state_dict(), **arrays}, self.mirrored
        self.mirrored = padding == "same"
        try:
            self.load_state_dict(state)
        except BaseException:
            self.mirrored = before
            raise
        for norm in self.counters().values():
            norm.eps, norm.momentum = eps, momentum

    def run(self, tape: Tape, x: Var) -> Var:
        """Logits (N, K)."""
        x = mirrored_images(tape, x) if self.mirrored else x
        images = x if any(side.spec.reads_image for side in self.sides.values()) else None
        if images and images.value.dtype == PIXELS:
            remedy = "normalise the images: give them as numbers"
            raise RuleError("a side module that reads the image cannot read pixels", layer=self.name, remedy=remedy)
        x, done = run_frozen(tape, self._without_sides(), x)
        if not done:
            x, done = self.stem(tape, x), 1
        for number, block in enumerate(self.blocks[done - 1 :], start=done - 1):
            y = self.run_block(tape, block, x)
            if side := self.sides.get(number):
                y = side(tape, images if images and side.spec.reads_image else x, y)
            x = y
        if not (self.top and done == len(self.blocks) + 2):
            x = self.pool(tape, self.head(tape, x) if self.head else x)
        for layer in self.classifier:
            x = layer(tape, x)
        return x

    def _without_sides(self) -> list[Segment]:
        """Stem, blocks and head with its pool, up to the first block that has something beside it."""
        beside = min(self.sides, default=None)
        tops = [self.top] if self.top and beside is None else []
        return [self.stem, *self.blocks[:beside], *tops]

    def loss(self, tape: Tape, output: Var, labels: Any) -> Var:
        """Softmax cross-entropy of the logits, the mean over the batch."""
        return cross_entropy(tape, output, labels)

    def expect_labels(self, labels: Any, count: int) -> None:
        """Raise what the loss would unless there are `count` labels (N,) of the network's classes."""
        array = to_numpy(labels, layer="loss", op="cross_entropy")
        try:
            ops.cross_entropy.output_shape(((count, self.num_classes or 0), array.shape), {})
            expect_labels(array, self.num_classes or 0)
        except MinitlError as error:
            raise error.at("loss") from None

    def predict(self, images: Array, batch_size: int = 64) -> Array:
        """Logits (N, K) in evaluation mode, `batch_size` images at a time; raises what a call does."""
        batch_size = expect_count("batch_size", batch_size, layer=self.name)
        if not (isinstance(images, np.ndarray) and images.ndim == 4 and len(images)):
            self(Tape(training=False), images)  # raises
        starts = range(0, len(images), batch_size)
        return np.concatenate([self(Tape(training=False), images[i : i + batch_size]).value for i in starts])

    def layers(self) -> Iterator[Layer]:
        """All layers in the order they run."""
        yield from self.stem.layers()
        for number, block in enumerate(self.blocks):
            yield from block.layers()
            if number in self.sides:
                yield from self.sides[number].layers()
        if self.head:
            yield from self.head.layers()
        yield self.pool
        for layer in self.classifier:
            yield from layer.parts()


def build(seed: int, dtype: str, *, eps: float, momentum: float) -> Build:
    """What the layers of a network are built with.

    Raises DtypeError unless dtype is float32 or float64, ValueRangeError for a seed that is no count,
    an eps that is not above 0, or a momentum not in [0, 1].
    """
    name = dtype.name if isinstance(dtype, np.dtype) else dtype
    if not isinstance(name, str) or name not in FLOATS:
        raise DtypeError(op="network", expected=" or ".join(FLOATS), got=brief(dtype))
    seed = expect_count("seed", seed, least=0, op="network")
    small, share = as_number(eps), as_number(momentum)
    if small is None or small <= 0:
        raise ValueRangeError(op="network", expected="eps to be a finite number above 0", got=brief(eps))
    if share is None or not 0 <= share <= 1:
        raise ValueRangeError(op="network", expected="momentum to be a number from 0 to 1", got=brief(momentum))
    return Build(np.random.default_rng(seed), name, small, share)


def _checked(parameter: Parameter, value: Any, dtype: str) -> Array:
    name, array, shape = parameter.name, to_numpy(value, layer=parameter.name), parameter.value.shape
    expect_writable(name, parameter.value)
    if array.shape != shape:
        raise ShapeError(layer=name, expected=f"shape {shape}", got=f"{array.shape}")
    if array.dtype.kind != "f":
        raise DtypeError(layer=name, expected="floating point", got=array.dtype.name)
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ValueRangeError(layer=name, expected=f"finite {dtype} values", got="NaN, infinity or an overflow")
    if name.endswith(".running_var") and array.min() < 0:
        raise ValueRangeError(layer=name, expected="no negative variance", got=f"{array.min()}")
    return array


def _checked_count(name: str, value: Any) -> int:
    """A counter of shape () or (1,): an integer, or a float that is whole."""
    array = to_numpy(value, layer=name)
    if array.shape not in ((), (1,)) or array.dtype.kind not in "iuf" or array.min() < 0 or array.min() % 1 != 0:
        raise ValueRangeError(layer=name, expected="a count, 0 or more", got=brief(value))
    return int(array.min())
