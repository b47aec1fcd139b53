"""Inputs and parameters of a case, drawn."""

from __future__ import annotations

import re

import numpy as np

from minitl.arrays import Array, Shape
from minitl.oracle import mechanisms
from minitl.oracle.bounds.activations import kinks
from minitl.oracle.data import Source
from minitl.oracle.recipes import ACTIVATIONS, BLOCKS, Recipe, is_statistic, shapes
from minitl.oracle.running import model

SPREADS = {"depthwise": 0.4, "project": 0.5, "se.fc2": 2.0, "fc2": 2.0}  # of weights, times 1 / sqrt(terms)
WIDE = ("expand_norm", "depthwise_norm", "stem_norm", "head_norm")  # whose outputs are to reach an activation's kinks


def draw(r: Recipe, source: Source) -> dict[str, Array]:
    """Input and parameters as float64 arrays (N, H, W, C) under the case's names."""
    values = {"input.x": _draw_input(r, source)}
    if r.op in ("cross_entropy", "network"):
        classes = r.attrs["classes" if r.op == "network" else "channels"]
        values["input.labels"] = source.integers((r.batch,), classes)
    for other in r.operands[1:]:
        n, *area, c = r.input_shape
        shape = (n, 1, 1, c) if r.op in ("scale", "add_channels") else (n, *area, c)
        values[f"input.{other}"] = source.normal(shape)
    if r.op in BLOCKS:
        of_parameters = {p.name: p.value.shape for p in model(r, "float64").parameters()}
    else:
        of_parameters = shapes(r.op, r.attrs, r.height, r.width)
    for name, shape in of_parameters.items():
        values[f"{'buffer' if is_statistic(name) else 'param'}.{name}"] = _draw_parameter(name, shape, source)
    if r.op in mechanisms.ATTRS:
        values |= mechanisms.noise(r.op, r.attrs, r.input_shape, source)
    return values


def _draw_input(r: Recipe, source: Source) -> Array:
    shape = r.input_shape
    if r.op not in ACTIVATIONS:
        return source.normal(shape, 2.0 if r.op == "cross_entropy" else 1.0)
    x = source.steps(shape, 72, 0.125)
    flat, exact = x.reshape(-1), [k for k in kinks(r.op, r.rule) if k * 8 == round(k * 8)]
    for i, kink in enumerate([*exact, 0.0, *exact]):
        if 3 * i < flat.size:
            flat[3 * i] = kink
    return x


def _draw_parameter(name: str, shape: Shape, source: Source) -> Array:
    *layers, kind = re.sub(r"^block\d+\.", "", name).split(".")
    layer, fan = ".".join(layers), int(np.prod(shape[1:]))
    if kind.startswith("basis_"):
        return mechanisms.basis(shape, source)
    if kind == "running_mean":
        return source.normal(shape, 0.3)
    if kind == "running_var":
        return source.uniform(shape, 0.6, 1.8)
    if kind == "weight" and len(shape) == 1:
        sizes = source.uniform(shape, 1.5, 3.5) if layer in WIDE else source.uniform(shape, 0.5, 1.5)
        signs = 1 - 2 * ((np.arange(len(sizes)) + source.integers((1,), 2)) % 2)  # both, so that none may be lost
        return np.asarray(sizes * signs)
    if kind == "weight":
        return source.normal(shape, SPREADS.get(layer, 1.0) / fan**0.5)
    return source.normal(shape, 3.0 if layer.endswith("fc2") else 1.0, 1.0 if layer.endswith("_norm") else 0.0)
