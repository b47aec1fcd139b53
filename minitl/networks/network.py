"""A network: a stem, inverted residual blocks, a head. What all MobileNets share."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from minitl import ops
from minitl.arrays import FLOATS, Array, to_numpy
from minitl.blocks import Build, ConvNorm, InvertedResidual
from minitl.checks import as_number, expect_count
from minitl.errors import DtypeError, MinitlError, RuleError, ValueRangeError, brief
from minitl.layers import Activation, Dropout, Layer, Linear, Pool, cross_entropy
from minitl.networks.mirror import mirrored_images
from minitl.networks.model import Model
from minitl.networks.names import Outline
from minitl.networks.weights.load import load
from minitl.networks.weights.report import LoadReport
from minitl.ops.losses.cross_entropy import expect_labels
from minitl.pixels import PIXELS, Normalisation, as_normalisation
from minitl.records import Var
from minitl.segment import Segment, Top, run_frozen
from minitl.tape import Tape

Classifier = Linear | Activation | Dropout


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
