"""What a wrong shape suggests."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from minitl.arrays import Array, Shape
from minitl.oracle.case import Case, shape_in
from minitl.oracle.forms import form_of
from minitl.oracle.mistakes.results import short
from minitl.oracle.mistakes.sums import PADDINGS, right_padding
from minitl.oracle.recipes import SYMMETRIC, padding


def cause(case: Case, name: str, got: Array) -> str:
    """A likely cause, or nothing."""
    expected = case.tensors[name]
    if other := _exchanged(case, name, got):
        return other
    if name == "output" and expected.ndim == 4 and (geometry := _geometry(case, got.shape)):
        return geometry
    if got.shape == expected.shape[1:]:
        return "the batch's axis is missing"
    if got.size != expected.size:
        windows = got.ndim == expected.ndim == 4 and name == "output" and case.attrs.get("kernel", 1) > 1
        return f"padding: {right_padding(case.attrs.get('padding', SYMMETRIC))}" if windows else ""
    if name.startswith("grad_param.") and expected.ndim > 1:
        return _turned_weights(case, got, expected)
    if sorted(got.shape) == sorted(expected.shape) and got.ndim == 4:
        return f"layout: the axes are in another order; this case is {case.layout}"
    return "as many elements in another shape"


def _exchanged(case: Case, name: str, got: Array) -> str:
    for other, tensor in case.expected.items():
        if other.startswith(("output", "grad_")) and tensor.shape == got.shape != case.tensors[name].shape:
            bound = case.tensors[f"tol.f32.{other}"]
            if got.dtype.kind == "f" and (np.abs(got - tensor) <= bound).all():
                return f"{' and '.join(map(short, sorted((name, other))))} exchanged: this is {other}"
    return ""


def _geometry(case: Case, got: Shape) -> str:
    """A stride or padding that gives this shape."""
    attrs, channels = case.attrs, case.tensors["output"].shape[1 if case.layout == "nchw" else 3]
    kernel, stride, right = attrs.get("kernel", 1), attrs.get("stride", 1), attrs.get("padding", SYMMETRIC)
    sizes = attrs["height"], attrs["width"]

    def of(stride: int, text: str) -> Shape:
        top, bottom, left, after = padding({"kernel": kernel, "stride": stride, "padding": text}, sizes)
        padded = sizes[0] + top + bottom, sizes[1] + left + after
        return shape_in((attrs["batch"], *((n - kernel) // stride + 1 for n in padded), channels), case.layout)

    if stride > 1 and got == of(1, right):
        return "stride ignored"
    came = [name for text, name in PADDINGS.items() if text != right and kernel > 1 and got == of(stride, text)]
    return f"{' or '.join(came)}: {right_padding(right)}" if came else ""


def _turned_weights(case: Case, got: Array, expected: Array) -> str:
    here = form_of(case).weight_axes(expected.ndim)
    right = f"weights are ({', '.join(here)})"
    for axes in permutations(range(expected.ndim)):
        turned = expected.transpose(axes)
        near = np.abs(got.reshape(-1) - turned.reshape(-1)).max() <= 1e-4 * np.abs(expected).max()
        if turned.shape == got.shape and near and axes != tuple(range(expected.ndim)):
            return f"weights transposed: these are ({', '.join(here[i] for i in axes)}); {right}"
    return f"as many elements in another shape; {right}"
