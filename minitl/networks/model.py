"""What can be trained: layers, the blocks among them, their parameters and state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import dropwhile
from os import PathLike
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.blocks import InvertedResidual
from minitl.errors import MinitlError, NotFiniteError, UnknownNameError, UsageError, ValueRangeError, brief
from minitl.layers import Adaptor, Layer, Norm, Product
from minitl.networks.describe import describe, summary
from minitl.networks.mirror import mirrored_kernel
from minitl.networks.state import checked, checked_count
from minitl.parameters import Parameter
from minitl.pixels import Normalisation
from minitl.records import Var
from minitl.sides.side import Side
from minitl.statistics import Statistics
from minitl.tape import Tape

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
        before = tape.position()
        try:
            x = tape.images(images, self.input_channels, self.dtype, self.normalisation)
        except MinitlError as error:
            raise error.at(self.name) from None
        statistics = Statistics(self.layers(), tape)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused below
                y = self.run(tape, x)
            if tape.computes:
                statistics.expect_finite()
                self._expect_finite(y.value)
        except BaseException:
            statistics.restore()
            tape.rewind(*before)
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
        if not self.checkpoint:
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
        values = {name: self._turned(checked(parameter, state[name], self.dtype)) for name, parameter in own.items()}
        counts = {name: checked_count(name, state[name]) for name in counters if name in state}
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
