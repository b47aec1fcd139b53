"""What is timed: five blocks as they stand in MobileNets, two whole networks, and two that differ.

Those are a network with a single image, and the forward pass alone of layers that are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import Any, NamedTuple

import numpy as np

from minitl import methods, networks
from minitl.arrays import Array
from minitl.errors import unknown
from minitl.layers import Norm
from minitl.networks import Model
from minitl.step import forward_backward
from minitl.tape import Tape

CLASSES = 100


class Tuning(NamedTuple):
    """A method and its number of tuned blocks."""

    method: str
    blocks: int | None = None

    def apply(self, model: Model) -> Model:
        """The model under this method."""
        return methods.get(self.method, self.blocks).apply(model)

    @property
    def vanilla(self) -> Tuning:
        """The same layers tuned without MobileTL, which is what PyTorch's own modules do."""
        return self._replace(method="ft-blocks") if self.method == "mobiletl" else self


@dataclass(frozen=True)
class Case:
    """A block (`network` is irb) or a network, the size of its batch, and the methods it is timed with."""

    name: str
    network: str
    resolution: int
    tunings: tuple[Tuning, ...]
    batch: int = 8
    backward: bool = True
    attrs: dict[str, Any] = field(default_factory=dict, hash=False)

    def model(self, tuning: Tuning, dtype: str = "float32") -> Model:
        """The model under one of its methods; a block passes a gradient to its input, as in the midst of a network."""
        if self.network == "irb":
            built: Model = networks.irb(dtype=dtype, input_grad=True, **self.attrs)
        else:
            built = networks.get(self.network, num_classes=CLASSES, dropout=0.0, dtype=dtype)
        return tuning.apply(_settled(built))

    def label(self, tuning: Tuning) -> str:
        """What tables call the method: of a block, all of which is tuned, `ft` or `mobiletl`."""
        if self.network == "irb":
            return tuning.method.removesuffix("-blocks")
        return " ".join(str(part) for part in tuning if part is not None) if self.backward else "forward"

    def problem(self, tuning: Tuning, dtype: str = "float32") -> Problem:
        """A step on random numbers."""
        model, rng = self.model(tuning, dtype), np.random.default_rng(0)
        images = _noise(rng, (self.batch, self.resolution, self.resolution, model.input_channels), dtype)
        if not self.backward:
            return Problem(model, images)
        if model.num_classes is not None:
            return Problem(model, images, labels=np.arange(self.batch) % model.num_classes)
        output = model(Tape(training=False), images)
        return Problem(model, images, gy=_noise(rng, output.shape, dtype))


@dataclass(frozen=True)
class Problem:
    """A model, its input, and what backward starts from: the loss against `labels`, or `gy` at a block's output.

    With neither, the forward pass is all.
    """

    model: Model
    images: Array
    labels: Array | None = None
    gy: Array | None = None

    def step(self) -> dict[str, Array]:
        """Forward and backward in minitl: gradients by parameter, and of a block's input as `input`.

        Without backward, the output as `output`.
        """
        if self.labels is None and self.gy is None:
            return {"output": self.model(Tape(training=False), self.images).value}
        tape = Tape()
        if self.labels is not None:
            return forward_backward(self.model, tape, self.images, self.labels)[2]
        gradients = tape.backward(self.model(tape, self.images), self.gy)
        (gx,) = tape.input_gradients.values()
        return {**gradients, "input": gx}


def select(pattern: str) -> list[Case]:
    """The cases called `irb`, `networks` or `all`, or whose name matches the pattern."""
    groups = {"irb": BLOCKS, "networks": NETWORKS, "all": BLOCKS + NETWORKS + OTHERS}
    found = groups.get(pattern) or [case for case in groups["all"] if fnmatch(case.name, pattern)]
    if not found:
        raise unknown("case", pattern, (*groups, *(case.name for case in groups["all"])))
    return found


def _block(channels: int, expanded: int, resolution: int, kernel: int, activation: str, se_channels: int = 0) -> Case:
    attrs = {
        "in_channels": channels,
        "expanded_channels": expanded,
        "out_channels": channels,
        "kernel": kernel,
        "activation": activation,
        "se_channels": se_channels,
    }
    squeeze = f" SE {se_channels}" * bool(se_channels)
    name = f"irb {channels}-{expanded}-{channels} {resolution}x{resolution} k{kernel} {activation}{squeeze}"
    return Case(name, "irb", resolution, (Tuning("ft-blocks"), Tuning("mobiletl")), attrs=attrs)


def _network(name: str) -> Case:
    return Case(name, name, 224, (Tuning("ft-all"), Tuning("ft-blocks", 5), Tuning("mobiletl", 5)))


def _noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def _settled(model: Model) -> Model:
    """Running statistics as after training: with those it is built with, activations fade out from block to block."""
    norms = [layer for layer in model.layers() if isinstance(layer, Norm)]
    momenta = [norm.momentum for norm in norms]
    methods.get("ft-all").apply(model)
    for norm in norms:
        norm.momentum = 1.0
    model(Tape(), _noise(np.random.default_rng(1), (2, 64, 64, model.input_channels), model.dtype))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


BLOCKS = [
    _block(24, 144, 56, 3, "relu6"),
    _block(40, 240, 28, 5, "hard_swish", 64),
    _block(96, 576, 14, 5, "hard_swish", 144),
    _block(96, 576, 7, 5, "hard_swish", 144),
    _block(160, 960, 7, 3, "relu6"),
]
NETWORKS = [_network("mobilenet_v3_small"), _network("mobilenet_v2")]

# One image at a time, and frozen layers alone, which PyTorch runs with their norms folded into the convolutions.
OTHERS = [
    replace(NETWORKS[0], name=f"{NETWORKS[0].name}, batch 1", batch=1),
    Case(f"{NETWORKS[1].name}, frozen", NETWORKS[1].network, 224, (Tuning("ft-last"),), backward=False),
]
