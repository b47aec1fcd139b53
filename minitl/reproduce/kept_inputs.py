"""What encoded inputs save: ActNN's groups, and Back Razor's own threshold after a ReLU.

ActNN (Chen et al., ICML 2021, arXiv:2104.14129): 256 values of 4 bytes become 256 b / 8 bytes of codes and two bfloat16
numbers. Back Razor (Jiang et al., NeurIPS 2022) keeps a bit per value and those at least as large as the k-th largest
magnitude; its profiler counts half of them, but after a ReLU with more zeros than it prunes that magnitude is 0, and it
keeps all. (The method `back-razor` breaks ties by index instead, and keeps half.) The papers' tables could not be read:
these figures are re-derived.
"""

from __future__ import annotations

import numpy as np

from minitl.ops.rules import quantised
from minitl.reproduce.result import REDERIVED, Result

FACTORS = {2: "15.06", 4: "7.76", 8: "3.94"}
SHAPE, ZEROS = (1, 14, 14, 32), 0.6  # of a map after a ReLU
OWN_THRESHOLD, DENSE = "25872", "25088"


def results() -> list[Result]:
    """Compression of a group of values; bytes of a map after a ReLU by Back Razor's own threshold, and dense."""
    rows = []
    for bits, text in FACTORS.items():
        encoded = sum(kept.nbytes for kept in quantised.kept((1, quantised.GROUP), "float32", bits))
        quantity, factor = f"a group of {quantised.GROUP} at {bits} bits", 4 * quantised.GROUP / encoded
        rows.append(Result("kept-inputs", quantity, "x smaller", text, factor, "ActNN", REDERIVED))
    values = int(np.prod(SHAPE))
    x = np.zeros(values)
    x[round(ZEROS * values) :] = 1 + np.arange(values - round(ZEROS * values))
    own = -(-values // 8) + 4 * at_least_half(x)
    for name, text, size in (("its own threshold", OWN_THRESHOLD, own), ("dense", DENSE, 4 * values)):
        quantity = f"kept of 14x14x32 after a ReLU with 60 % zeros, {name}"
        rows.append(Result("kept-inputs", quantity, "bytes", text, size, "Back Razor", REDERIVED))
    return rows


def at_least_half(x: np.ndarray) -> int:
    """How many values are kept that are at least as large as the magnitude below which half should be pruned."""
    return int(np.count_nonzero(np.abs(x) >= np.sort(np.abs(x))[x.size // 2]))
