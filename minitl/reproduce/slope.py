"""SLoPe's arithmetic: what the second pruning of an N:M weight loses, and bits per weight.

Mozaffari et al., "SLoPe", ICLR 2025, arXiv:2405.16325 (and M. Mozaffari's thesis, chapter 4).
Of M consecutive inputs N are kept; for the input gradient, of M consecutive outputs N again. With
random positions a column group holds j of them with probability C(M, j) s^j (1 - s)^(M - j), s = N / M, and
j - N of these are lost:

    lost = sum over j > N of C(M, j) s^j (1 - s)^(M - j) (j - N) / M

(which gives 5.84 % at 2:8, where 3.39 % is printed). Bits of a group of M = 4 weights: values of 16
bits, gradient of 16, two Adam moments of 32 each; the sparse one is stored twice (for forward and for
the input gradient) with 3 index bits, and has a mask of 8 bits per weight.
"""

from __future__ import annotations

from math import ceil, comb, log2

from minitl.reproduce.result import REDERIVED, Result

ADAPTED = {1 / 64: "57.0", 1 / 16: "64.1"}
NOT_THE_FORMULA = "the printed figure does not follow from the printed formula; pruning random weights gives 5.84 % too"
LOST = {(1, 2): "12.5", (2, 4): "9.375", (2, 8): "3.39"}


def lost(kept: int, group: int) -> float:
    """Share of the weights that the second pruning takes away."""
    share = kept / group
    return sum(
        comb(group, j) * share**j * (1 - share) ** (group - j) * (j - kept) / group for j in range(kept + 1, group + 1)
    )


def index_bits(kept: int, group: int) -> int:
    """Bits that say which of a group are kept."""
    return ceil(log2(comb(group, kept)))


def inference_bits(kept: int, group: int) -> tuple[int, int]:
    """Bits of one group, sparse and dense, with values of 16 bits."""
    return 16 * kept + index_bits(kept, group), 16 * group


def training_bits(kept: int, group: int) -> tuple[int, int]:
    """Bits of one group with gradient and optimizer state, sparse and dense."""
    sparse = 2 * (16 * kept + index_bits(kept, group)) + 8 * group + (16 + 64) * kept
    return sparse, (16 + 16 + 64) * group


def adapted(rank: float) -> float:
    """Share of a block's bits at 2:4 with adapters of rank `rank` d beside four d x d and two d x 4 d matrices."""
    sparse, dense = inference_bits(2, 4)
    return sparse / dense + rank * (4 * 2 + 2 * 5) / 12


def results() -> list[Result]:
    """Densities lost, and the two ratios of bits."""
    rows = [
        Result("slope", f"lost to the second pruning, {n}:{m}", "%", text, 100 * lost(n, m), "the paper's own formula",
               note=NOT_THE_FORMULA if (n, m) == (2, 8) else "")
        for (n, m), text in LOST.items()
    ]  # fmt: skip
    for name, text, (sparse, dense) in (
        ("training", "68", training_bits(2, 4)),
        ("inference", "54", inference_bits(2, 4)),
    ):
        convention = f"{sparse} of {dense} bits per group of 4"
        rows.append(Result("slope", f"{name} memory, 2:4", "%", text, 100 * sparse / dense, convention))
    for rank, text in ADAPTED.items():
        quantity, percent = f"inference memory, 2:4, adapters of rank {100 * rank:.2f} % of d", 100 * adapted(rank)
        rows.append(Result("slope", quantity, "%", text, percent, "an OPT block: 12 d^2 weights", REDERIVED))
    return rows
