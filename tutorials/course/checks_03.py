"""Checks of tutorial 3, convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np

from course.attempt import Attempt
from course.case import Case
from course.exercise import exercise
from course.pieces import depthwise, depthwise_backward, pad, pointwise_backward, rows

Array = Any


@exercise(
    "3a",
    hints=(
        "gx (M, I) from gy (M, O) and W (O, I): which product has these shapes? And gw (O, I) from gy (M, O) and x "
        "(M, I)?",
        "gx = gy @ w[:, :, 0, 0]; gw = rows(gy).T @ rows(x), reshaped to w's shape.",
    ),
)
def pointwise_gradients(case: Case, pointwise_backward: Attempt) -> None:
    """As many outputs as inputs in one case, so that a wrong transpose has the right shape."""
    shape = case.map_shape()
    for outputs in (shape[-1], shape[-1] + 2):
        need_products(case, shape, outputs, pointwise_backward)


def need_products(case: Case, shape: tuple[int, ...], o: int, pointwise_backward: Attempt) -> None:
    """With that many outputs."""
    n, height, width, i = shape
    x, w, gy = (
        case.normal(n, height, width, i),
        case.normal(o, i, 1, 1),
        case.normal(n, height, width, o),
    )
    kept = {"x": x}
    gx, gw = case.results(("gx", "gw"), pointwise_backward(kept, gy, w))
    right = products(x, w, gy)
    matrix = w[:, :, 0, 0]
    case.same(
        "gx",
        gx,
        right[0],
        {
            "W is used transposed: (M, I) = (M, O) (O, I).": lambda: (
                gy @ matrix.T if o == i else right[0][..., :1]
            )
        },
    )
    case.same(
        "gw",
        gw,
        right[1],
        {
            "gw has shape (I, O) turned into a weight; weights are (O, I): gy comes first.": (
                lambda: (rows(x).T @ rows(gy)).reshape(right[1].shape)
            ),
            "weights have the shape (O, I, 1, 1).": lambda: right[1][:, :, 0, 0],
            "a weight serves all M positions: sum, do not average.": lambda: (
                right[1] / len(rows(x))
            ),
            "a weight serves all images: sum, do not average.": lambda: right[1] / n,
            "these are the first image's positions only.": lambda: products(x[:1], w, gy[:1])[1],
        },
    )
    extra = [name for name in kept if name != "x"]
    case.need(
        not extra,
        f"Backward writes {', '.join(extra)} to `kept`: what backward makes is of no use afterwards.",
    )


def products(x: Array, w: Array, gy: Array) -> tuple[Array, Array]:
    """gx and gw of the pointwise convolution."""
    grads: dict[str, Array] = {}
    gx = pointwise_backward({".x": x}, gy, {".weight": w}, "", grads)
    return gx, grads[".weight"]


def gradients(x: Array, w: Array, gy: Array, stride: int = 1) -> tuple[Array, Array]:
    """gx and gw of the depthwise convolution."""
    grads: dict[str, Array] = {}
    gx = depthwise_backward({".x": x}, gy, {".weight": w}, "", grads, stride)
    return gx, grads[".weight"]


def output(x: Array, w: Array, stride: int = 1) -> Array:
    """y of the depthwise convolution."""
    return depthwise(x, {".weight": w}, "", {}, stride)


@exercise(
    "3b",
    hints=(
        "The loop of the forward pass, and in it two lines instead of one. Where forward reads `padded[:, u : ..., "
        "v : ...]`, gx is written, into an array of the padded size.",
        "gx[:, u : u + height, v : v + width] += w[:, 0, u, v] * gy; gw[:, 0, u, v] = (padded[the same] * gy).sum over "
        "axes 0, 1, 2; at the end cut the frame off gx.",
    ),
)
def depthwise_gradients(case: Case, depthwise_backward: Attempt) -> None:
    """Stride 1, filters of 3x3 and 5x5."""
    for k in (3, 5):
        need_depthwise(case, k, depthwise_backward)


def need_depthwise(case: Case, k: int, depthwise_backward: Attempt) -> None:
    """With filters of k x k."""
    shape = case.map_shape()
    x, w, gy = case.normal(*shape), case.normal(shape[-1], 1, k, k), case.normal(*shape)
    gx, gw = case.results(("gx", "gw"), depthwise_backward(x, w, gy))
    right = gradients(x, w, gy)
    turned = "Its values are those of the filter turned round, or x and gy exchanged."
    case.same(
        "gx",
        gx,
        right[0],
        {
            "the filter is not turned round. The pixel that forward read at tap (u, v) gets w[u, v] gy back: gx goes "
            "where x came from, gy stays where y is.": lambda: output(gy, w),
            "it still has the frame of zeros: cut k // 2 off each side.": lambda: framed(w, gy),
            "the frame is k // 2 wide, not 1: cut that much off each side.": lambda: framed(w, gy)[
                :, 1:-1, 1:-1
            ],
            f"the frame is k // 2 wide, not 1: for k = {k} x begins at {k // 2}.": lambda: framed(
                w, gy
            )[:, 1 : 1 + shape[1], 1 : 1 + shape[2]],
            "rows and columns of the filter are exchanged.": lambda: gradients(
                x, w.transpose(0, 1, 3, 2), gy
            )[0],
        },
    )
    case.same(
        "gw",
        gw,
        right[1],
        likely_weight_gradients(x, w, gy, right[1])
        | {
            turned: lambda: right[1][..., ::-1, ::-1],
            "u and v are exchanged.": lambda: right[1].swapaxes(2, 3),
        },
    )


def framed(w: Array, gy: Array) -> Array:
    """gx with the frame."""
    k = w.shape[2]
    return gradients(pad(gy, k), w, pad(gy, k))[0]


def likely_weight_gradients(x: Array, w: Array, gy: Array, right: Array, stride: int = 1) -> Any:
    """What usual mistakes give for gw."""
    n, positions = len(gy), len(rows(gy))
    return {
        "this is the first image's; a filter serves all images: sum over them.": (
            lambda: gradients(x[:1], w, gy[:1], stride)[1]
        ),
        "a filter's gradient is the sum over images; the mean, if any, is in the loss.": lambda: (
            right / n
        ),
        "a filter's gradient is the sum over positions; the mean, if any, is in the loss.": lambda: (
            right / positions
        ),
        "weights have the shape (C, 1, k, k).": lambda: right[:, 0],
    }


@exercise(
    "3c",
    hints=(
        "For tap (u, v) the outputs read rows u, u + 2, u + 4, ... of the padded map, as many as y has. Forward and "
        "backward use the same slice.",
        "high = (height + 1) // 2; slice(u, u + 2 * high - 1, 2) for the rows, the same with v for the columns; pad by "
        "k // 2.",
    ),
)
def stride_two(case: Case, strided: Attempt, strided_backward: Attempt) -> None:
    """Odd and even heights, filters of 3x3 and 5x5."""
    n, height, width, c = case.map_shape()
    height += int(case.rng.integers(2))
    for k in (3, 5):
        x, w = case.normal(n, height, width, c), case.normal(c, 1, k, k)
        y = output(x, w, 2)
        case.same("y", strided(x, w), y, likely_outputs(x, w, y))
        gy = case.normal(*y.shape)
        gx, gw = case.results(("gx", "gw"), strided_backward(x, w, gy))
        right = gradients(x, w, gy, 2)
        case.same("gx", gx, right[0], likely_spreads(x, w, gy))
        case.same("gw", gw, right[1], likely_weight_gradients(x, w, gy, right[1], 2))


def likely_outputs(x: Array, w: Array, y: Array) -> Any:
    """What usual mistakes give for y with stride 2."""
    k, (_, height, width, _) = w.shape[2], x.shape
    padded = pad(x, 3)
    wide = np.pad(padded, ((0, 0), (0, k), (0, k), (0, 0)))
    return {
        "there are ceil(H / 2) rows of outputs, and columns alike: an odd last row has one as well.": (
            lambda: y[:, : height // 2, : width // 2]
        ),
        f"padding is (k - 1) / 2 = {k // 2}, not 1.": lambda: sum(
            w[:, 0, u, v] * wide[:, u : u + 2 * y.shape[1] - 1 : 2, v : v + 2 * y.shape[2] - 1 : 2]
            for u in range(k)
            for v in range(k)
        ),
        "this is stride 1: outputs are two positions apart.": lambda: output(x, w),
        "output i looks at the input from row 2 i - p on; yours begins one row and column later.": (
            lambda: output(x, w)[:, 1::2, 1::2]
        ),
    }


def likely_spreads(x: Array, w: Array, gy: Array) -> Any:
    """What usual mistakes give for gx with stride 2."""
    _, height, width, _ = x.shape

    def repeated() -> Array:
        return gradients(x, w, gy.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width])[0]

    def unturned() -> Array:
        spread = np.zeros_like(x)
        spread[:, ::2, ::2] = gy
        return output(spread, w)

    return {
        "gy is repeated; between two outputs of a stride-2 convolution there is nothing: leave zeros.": repeated,
        "the filter is not turned round: gx goes where forward read.": unturned,
    }


@exercise(
    "3d",
    hints=(
        "A convolution keeps its input if its weight trains. What does it keep if only a gradient passes?",
        "4 bytes times the product of the input's shape if name in trained, else 0.",
    ),
)
def bytes_of_convolutions(case: Case, kept_by: Attempt) -> None:
    """All eight choices of a block's three convolutions, of random sizes."""
    n, height, width, c = case.map_shape()
    low, e = (height + 1) // 2, 4 * c
    layers = {
        "expand": (n, height, width, c),
        "depthwise": (n, height, width, e),
        "project": (n, low, (width + 1) // 2, e),
    }
    for chosen in (0b010, 0b001, 0b101, 0b011, 0b111, 0b110, 0b100, 0b000):
        trained = {name for bit, name in enumerate(layers) if chosen >> bit & 1}
        need_bytes(case, layers, trained, kept_by)


def need_bytes(case: Case, layers: dict[str, Any], trained: set[str], kept_by: Attempt) -> None:
    """For one choice."""
    names = list(layers)
    got = kept_by(dict(layers), set(trained))
    case.need(
        isinstance(got, dict) and set(got) == set(names),
        f"Expected a dictionary with the keys {', '.join(names)}.",
    )
    sizes = {name: int(np.prod(shape)) for name, shape in layers.items()}
    first = min((names.index(name) for name in trained), default=3)
    following = [*names[1:], names[-1]]
    case.same(
        f"with {' and '.join(n for n in names if n in trained) or 'nothing'} trained, the number of bytes",
        np.array([got[name] for name in names]),
        np.array([4 * sizes[name] * (name in trained) for name in names]),
        {
            "a frozen convolution through which a gradient passes keeps nothing: gx needs w alone.": (
                lambda: np.array([4 * sizes[name] * (i >= first) for i, name in enumerate(names)])
            ),
            "these are numbers of elements; a float32 takes 4 bytes.": (
                lambda: np.array([sizes[name] * (name in trained) for name in names])
            ),
            "it keeps its input, and this is the next one's.": (
                lambda: np.array(
                    [
                        4 * sizes[after] * (name in trained)
                        for name, after in zip(names, following, strict=True)
                    ]
                )
            ),
            "this is one image's; the batch counts as well.": (
                lambda: np.array(
                    [4 * sizes[name] // layers[name][0] * (name in trained) for name in names]
                )
            ),
            "frozen ones keep nothing: ask whether the name is in `trained`.": (
                lambda: np.array([4 * sizes[name] for name in names])
            ),
        },
        at={"layer": np.array(names)},
    )
