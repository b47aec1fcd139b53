"""The FLOPs convention of the MobileTL paper, as far as its figures pin it down.

The paper does not say how it counts. With N output elements (the batch included), m
multiply-adds, W weights, B samples and C channels:

    convolution, linear   forward 2m;  gx 2m;  gW 2m - W;  gb N - C (sums of B values a channel)
    norm, trained         forward 7N + 3C;  backward 14N + 12C
    norm, frozen          forward 4N

Convolutions, the 3N between trained and frozen norms, and the absence of gx for the lowest
trained convolution are pinned by the fine-tuning figure. The rest is a fit: the other
coefficients of norms, the elementwise ones below, and the 1 taken off each element of a
depthwise gx. Several sets of them give the same printed digits.

With it, the blocks of Table 1 come out 0.02 MFLOPs low. A search over small integer coefficients
for every kind of op found no set that keeps -W for 1x1 convolutions, as the fine-tuning figure
demands, and gives Table 1 as well: its blocks miss about half an operation an element, which is
what W is for their 1x1 and depthwise convolutions. So the two tables seem to differ in that -W;
`table1` prints the blocks with and, as a candidate, without it.
"""

from __future__ import annotations

from collections.abc import Callable

from minitl.arrays import size
from minitl.errors import unknown
from minitl.ops import Split
from minitl.records import Record

PAPER_FIT = "paper's FLOPs (a fit)"

# forward and backward operations an element of the output
ELEMENTWISE = {
    "relu": (0, 3),
    "relu6": (0, 3),
    "hard_swish": (5, 12),
    "hard_sigmoid": (4, 5),
    "scale": (0, 2),
    "add": (0, 0),
    "global_avg_pool": (0, 0),
    "dropout": (0, 0),
    "cross_entropy": (0, 0),
}


def paper_flops(record: Record) -> Split:
    """The work of one recorded op, by the paper's convention; raises for an op it has no count for."""
    name = record.name
    if name in ELEMENTWISE:
        forward, backward = ELEMENTWISE[name]
        n = size(record.cost.output)
        return Split(forward * n, backward * n * any(record.needs))
    if name not in COUNTS:
        raise unknown("op to count FLOPs of", name, (*ELEMENTWISE, *COUNTS), layer=record.layer)
    return COUNTS[name](record)


def _product(record: Record) -> Split:
    (x, w, *_), needs = record.shapes, record.needs
    m, n = record.cost.macs.forward, size(record.cost.output)
    gx = 2 * m - (size(x) if record.name == "depthwise_conv" else 0)
    bias = n - w[0] if len(needs) > 2 and needs[2] else 0
    return Split(2 * m, needs[0] * gx, needs[1] * (2 * m - size(w)) + bias)


def _batch_norm(record: Record) -> Split:
    n, c = size(record.shapes[0]), record.shapes[0][3]
    return Split(7 * n + 3 * c, (14 * n + 12 * c) * any(record.needs))


def _frozen_norm(record: Record) -> Split:
    n = size(record.shapes[0])
    return Split(4 * n, record.needs[0] * n, record.needs[2] * n)


COUNTS: dict[str, Callable[[Record], Split]] = {
    "conv": _product,
    "pointwise_conv": _product,
    "depthwise_conv": _product,
    "linear": _product,
    "batch_norm": _batch_norm,
    "frozen_norm": _frozen_norm,
}
