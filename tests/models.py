"""Random inverted residual blocks and small networks, with numbers in them that hide nothing."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import minitl
from minitl.arrays import Array
from minitl.kernels.compile import interpreted
from minitl.kernels.tasks import Recorder, Table
from minitl.layers import Linear, Norm
from minitl.networks import Model

ACTIVATIONS = ("relu", "relu6", "hard_swish")
EXTENTS = (2, 3, 5, 6, 9)

needs_the_compiler = pytest.mark.skipif(interpreted(), reason="about kernels, their workspace or a fused run")


@st.composite
def block_attrs(draw: st.DrawFn, activations: tuple[str, ...] = ACTIVATIONS) -> dict[str, Any]:
    """Attributes of `networks.irb`: with and without expansion, residual and squeeze-and-excite."""
    channels, expand = draw(st.integers(1, 6)), draw(st.booleans())
    return {
        "in_channels": channels,
        "expanded_channels": draw(st.integers(1, 9)) if expand else channels,
        "out_channels": draw(st.sampled_from([channels, channels + 1])),
        "kernel": draw(st.sampled_from([3, 5, 7])),
        "stride": draw(st.sampled_from([1, 2])),
        "activation": draw(st.sampled_from(activations)),
        "se_channels": draw(st.sampled_from([0, 1, 3])),
        "expand": expand,
    }


@st.composite
def block_inputs(draw: st.DrawFn) -> tuple[int, int, int]:
    """Batch, height and width: at least two values a channel are left after a stride of 2."""
    n, h, w = draw(st.integers(1, 3)), draw(st.sampled_from(EXTENTS)), draw(st.sampled_from(EXTENTS))
    return n, h + 1 if n == 1 and max(h, w) == 2 else h, w


STEMS = [{"channels": 8 * i, "activation": a} for i, a in enumerate(ACTIVATIONS, 1)]
DEPTHWISE = [{"activation": a, "kernel": k} for a, k in zip((*ACTIVATIONS, "silu"), (3, 3, 5, 3), strict=True)]


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A network of two to four blocks, with channels that 8 divides, as group norms want them; and its dtype.

    Kernels take long to compile, so what they are made for is paired off, not multiplied out: a stem's activation and
    channels, a depthwise convolution's activation and size. In float64 every other pair.
    """
    dtype, step = draw(st.sampled_from([("float32", 1), ("float64", 2)]))
    stage = st.fixed_dictionaries({
        "channels": st.sampled_from([8, 16, 24]), "stride": st.sampled_from([1, 2]),
        "expansion": st.sampled_from([1.0, 2.0, 3.0]), "repeats": st.integers(1, 2), "squeeze_excite": st.booleans(),
        "kind": st.sampled_from(["irb", "auto"]), "residual": st.booleans(),
    })  # fmt: skip
    table = {
        "num_classes": draw(st.integers(2, 5)),
        "stem": draw(st.sampled_from(STEMS[::step])),
        "stages": [draw(stage) | draw(st.sampled_from(DEPTHWISE[::step])) for _ in range(2)],
        **draw(st.sampled_from([{}, {"head": {"channels": 32}}])),
        **draw(st.sampled_from([{}, {"classifier": {"hidden": 16}}])),
    }
    return table, dtype


def trained(model: Any, method: str, blocks: int | None = None, **options: Any) -> Any:
    """The model under a method."""
    return minitl.methods.get(method, blocks=blocks, **options).apply(model)


def block(method: str, attrs: dict[str, Any], *, dtype: str = "float64", seed: int = 0) -> Any:
    """A block under a method, no parameter or statistic of it at its initial 0 or 1."""
    return stir(trained(minitl.networks.irb(**attrs, dtype=dtype), method), seed)


def stir(model: Model, seed: int = 0) -> Any:
    """Move biases, scales and statistics away from 0 and 1, and logits away from all being equal."""
    rng = np.random.default_rng(seed)
    for layer in model.layers():
        for name, p in layer.parameters.items():
            if name == "running_var":
                p.value[...] = rng.uniform(0.5, 2, p.value.shape)
            elif name in ("bias", "running_mean"):
                p.value[...] = rng.uniform(-0.5, 0.5, p.value.shape)
            elif isinstance(layer, Norm):
                p.value[...] = rng.uniform(0.5, 1.5, p.value.shape) * rng.choice([-1, 1], p.value.shape)
            elif isinstance(layer, Linear):
                p.value[...] = rng.standard_normal(p.value.shape) / np.sqrt(p.value.shape[1])
    return model


def settle(model: Model, images: Array) -> Any:
    """Set all running statistics near those of these images, so that frozen norms normalise."""
    norms = [layer for layer in model.layers() if isinstance(layer, Norm)]
    plans = [(layer, layer.plan) for layer in model.layers()]
    momenta = [norm.momentum for norm in norms]
    trained(model, "ft-all")
    for norm in norms:
        norm.momentum = 0.9
    model(minitl.Tape(), images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum, norm.batches = momentum, 0
    for layer, plan in plans:
        layer.apply(plan)
    return model


def noise(shape: tuple[int, ...], seed: int = 0, dtype: str = "float64") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def as_pixels(images: Array) -> Array:
    """Numbers around 0 as pixels, most values of which occur."""
    return np.clip(128 + 60 * images, 0, 255).astype(np.uint8)


def batch(model: Model, n: int = 3, resolution: int = 32, classes: int = 10) -> tuple[Array, Array]:
    """Images and labels."""
    images = noise((n, resolution, resolution, model.input_channels), 1, model.dtype)
    return images, np.arange(n) % classes


def shuffle_tasks(patch: pytest.MonkeyPatch, seed: int) -> None:
    """Let the tasks between two barriers be taken in another order, of every table that is made from now on."""
    rng, original = np.random.default_rng(seed), Recorder.table

    def table(self: Recorder, most: int = 0) -> Table:
        stops = [first for first, _ in self._starts[1:]] + [len(self._rows)]
        rows, starts = list[Any](), list[tuple[int, int]]()
        for before, some in groupby(zip(self._starts, stops, strict=True), key=lambda task: task[0][1]):
            tasks = list(some)
            for (first, _), stop in (tasks[i] for i in rng.permutation(len(tasks))):
                starts.append((len(rows), before))
                rows += self._rows[first:stop]
        self._rows, self._starts = rows, starts
        return original(self, most)

    patch.setattr(Recorder, "table", table)
