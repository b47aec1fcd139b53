"""The three products of a depthwise convolution, x (N, H, W, C) and taps (k, k, C):

    y   a chain over (u, v) for each output
    gx  a chain over the output positions (i, j) that a pixel reached, ascending
    gW  a chain over the positions of each group for each tap, groups in float64 (see `groups`)

Taps in the padding contribute nothing. The plain loops below define the products; the kernels
give the same bits, from register tiles of neighbouring columns (y, gx) or of taps (gW).
"""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array, Shape, nbytes
from minitl.kernels.compile import Lazily, interpreted
from minitl.kernels.groups import Groups, group_size
from minitl.kernels.loops import fma
from minitl.kernels.pointwise import NO_END, End
from minitl.kernels.sums import chain_shape, join_chains
from minitl.kernels.target import lanes, masked, target
from minitl.kernels.tasks import Place, Places, Recorder, Span, sample, spans, table_of
from minitl.kernels.window import Window

compiled = Lazily("minitl.kernels.compiled.depthwise")


def loop_forward(x: Array, taps: Array, at: Window, y: Array) -> None:
    """y = x convolved with taps (k, k, C)."""
    y[:] = 0
    for u, v, out, pixels in at.taps():
        y[out] = fma(x[pixels], taps[u, v], y[out])


def loop_grad_input(gy: Array, taps: Array, at: Window, gx: Array) -> None:
    """gx: what each pixel gave, times its slope; later taps reach a pixel from earlier outputs."""
    gx[:] = 0
    for u, v, out, pixels in reversed(at.taps()):
        gx[pixels] = fma(gy[out], taps[u, v], gx[pixels])


def loop_grad_weight(x: Array, gy: Array, at: Window, gtaps: Array) -> None:
    """gtaps (k, k, C): a chain for each group of samples."""
    size = group_size(gy.shape)
    chains = np.array([_chain(x[n : n + size], gy[n : n + size], at) for n in range(0, len(gy), size)])
    join_chains(chains, np.empty(gtaps.size), gtaps, turned=False)


def _chain(x: Array, gy: Array, at: Window) -> Array:
    chain = np.zeros((at.k, at.k, x.shape[3]), x.dtype)
    for n, i, j in np.ndindex(gy.shape[:3]):
        top, left = i * at.s - at.top, j * at.s - at.before
        u, v = slice(max(0, -top), at.height - top), slice(max(0, -left), at.width - left)
        here = chain[u, v]
        pixels = x[n, max(0, top) : top + at.k, max(0, left) : left + at.k]
        here[:] = fma(pixels[: len(here), : here.shape[1]], gy[n, i, j], here)
    return chain


def forward(x: Array, taps: Array, at: Window, y: Array) -> None:
    """y = x convolved with taps (k, k, C)."""
    if interpreted():
        loop_forward(x, taps, at, y)
    else:
        forward_table(x.shape, at, x.dtype.name).run(x, taps, y)


def grad_input(gy: Array, taps: Array, at: Window, gx: Array) -> None:
    """gx of that convolution."""
    if interpreted():
        loop_grad_input(gy, taps, at, gx)
    else:
        grad_input_table(gx.shape, at, gy.dtype.name).run(gy, taps, gx)


def grad_weight(x: Array, gy: Array, at: Window, gw: Array) -> None:
    """gw (C, 1, k, k) of that convolution."""
    if interpreted():
        gtaps = np.empty((at.k, at.k, x.shape[3]), x.dtype)
        loop_grad_weight(x, gy, at, gtaps)
        gw[:, 0] = gtaps.transpose(2, 0, 1)
    else:
        chains = np.empty((len(Groups(gy.shape)), *chain_shape(gw.shape)), x.dtype)
        grad_weight_table(x.shape, at, gy.dtype.name).run(x, gy, chains)
        join_chains(chains, np.empty(gw.size), gw)


def forward_calls(
    record: Recorder, at: Window, channels: int, dtype: str, rows: Span, places: Places, end: End = NO_END
) -> None:
    """Record output rows `rows` of one sample, and what they `end` with; places are of its x, the taps and its y."""
    kernel = compiled.convolve(dtype, at.k, at.s, masked(channels, dtype), end.name)
    record.call(kernel, *places, channels, *at[2:], *rows, end.scale, end.shift)


def grad_input_calls(record: Recorder, at: Window, channels: int, dtype: str, rows: Span, places: Places) -> None:
    """Record input rows `rows` of one sample's gx; places are of its gy, the taps and its gx."""
    kernel = compiled.convolve_back(dtype, at.k, at.s, at.before, masked(channels, dtype))
    record.call(kernel, *places, channels, *at[2:], *rows)


@table_of
def forward_table(record: Recorder, x: Shape, at: Window, dtype: str) -> None:
    """x, taps, y."""
    for n, rows in _bands(x[0], at.out_height):
        record.task()
        places = sample(Place(2), n, x, dtype), Place(3), sample(Place(4), n, _output(x, at), dtype)
        forward_calls(record, at, x[3], dtype, rows, places)


@table_of
def grad_input_table(record: Recorder, x: Shape, at: Window, dtype: str) -> None:
    """gy, taps, gx."""
    for n, rows in _bands(x[0], at.height):
        record.task()
        places = sample(Place(2), n, _output(x, at), dtype), Place(3), sample(Place(4), n, x, dtype)
        grad_input_calls(record, at, x[3], dtype, rows, places)


def _output(x: Shape, at: Window) -> Shape:
    return x[0], at.out_height, at.out_width, x[3]


def _bands(samples: int, height: int) -> list[tuple[int, Span]]:
    """A sample and some of its rows for each task."""
    return [(n, rows) for n in range(samples) for rows in spans(height, 4)]


@table_of
def grad_weight_table(record: Recorder, x: Shape, at: Window, dtype: str) -> None:
    """x, gy and the chains (groups, k, k, 1, C): a task for some channels of each group."""
    y = _output(x, at)
    size = group_size(y)
    for first in range(0, x[0], size):
        chain = Place(4, first // size * nbytes((at.k, at.k, x[3]), dtype))
        for some in spans(x[3], lanes(dtype)):
            record.task()
            for n in range(first, min(first + size, x[0])):
                places = sample(Place(2), n, x, dtype), sample(Place(3), n, y, dtype), chain
                grad_weight_calls(record, at, x[3], dtype, (0, at.out_height), places, n == first, some)


def grad_weight_calls(
    record: Recorder, at: Window, channels: int, dtype: str, rows: Span, places: Places, begins: bool,
    some: Span | None = None,
) -> None:  # fmt: skip
    """Record the part of output rows `rows` of one sample, of all or `some` channels.

    Places are of its x, its gy and its group's chain.
    """
    for u0, u1 in _tap_rows(at.k):
        kernel, (x, gy, chain) = compiled.add_up(dtype, at.k, at.s, u0, u1, masked(channels, dtype)), places
        record.call(kernel, x, gy, channels, *at[2:], *rows, *(some or (0, channels)), chain, begins)


def _tap_rows(k: int) -> list[tuple[int, int]]:
    """Rows of taps whose sums fit the registers together."""
    most = max(1, (15 if target().vector_bytes == 64 else 12) // k)
    return [(u, min(u + most, k)) for u in range(0, k, most)]
