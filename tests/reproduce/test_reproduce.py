"""The MobileTL paper's figures: which come out, which do not, and that a wrong number would be noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from minitl.accounting import paper_flops
from minitl.ops import Split
from minitl.records import Record
from minitl.reproduce import figure1, finetuning, results, table1
from minitl.reproduce.result import CANDIDATE, KINDS, PUBLISHED, Result

MODULES = {"table1": table1, "figure1": figure1, "finetuning": finetuning, "results": results}
ROWS = [row for module in MODULES.values() for row in module.results()]

# Retyped from the paper; a tolerance where the figure is a plot and the number was read off its pixels.
PAPER = {
    "table1": {
        "parameters, Conv": "230592", "FLOPs, Conv": "541.67", "kept, Conv": "0.306",
        "parameters, MBV2": "21408", "FLOPs, MBV2": "51.56", "kept, MBV2": "0.913",
        "parameters, MBV3": "26136", "FLOPs, MBV3": "52.91", "kept, MBV3": "1.362",
    },
    "figure1": {
        "kept, V2 ft-blocks": "4.03+-0.01", "kept, V2 mobiletl": "2.16+-0.01",
        "kept, V3 ft-blocks": "6.67+-0.01", "kept, V3 mobiletl": "3.11+-0.01",
        "saving, V2, in the text": "46.3", "saving, V3, in the text": "53.3",
        "saving, V2, in the figure": "46", "saving, V3, in the figure": "53",
        "kept, an inner norm, V3": "0.91", "kept, an inner convolution, V3": "0.90",
        "kept, an inner Hard-Swish, V3": "0.90", "kept, squeeze-and-excite, V3": "0.95",
    },
    "finetuning": {
        "forward, 1 blocks": "968.8", "forward, 3 blocks": "972.1",
        "forward, 5 blocks": "975.0", "forward, all blocks": "1000.6",
        "backward, 1 blocks": "284.3", "backward, 3 blocks": "655.4",
        "backward, 5 blocks": "902.7", "backward, all blocks": "1934.9",
        "kept, 1 blocks": "8.70+-0.03", "kept, 3 blocks": "23.1",
        "kept, 5 blocks": "35.9", "kept, all blocks": "129.7",
        "parameters, 1 blocks": "4.76+-0.03", "parameters, 3 blocks": "5.89+-0.03",
        "parameters, 5 blocks": "6.04+-0.03", "parameters, all blocks": "6.49+-0.03",
        "FLOPs saved, 5 blocks against all": "36", "memory saved, 5 blocks against all": "69",
    },
    "results": {
        "training memory, ft-blocks 1": "32.22+-0.06", "training memory, ft-blocks 2": "35.47+-0.06",
        "training memory, ft-blocks 3": "40.56+-0.06", "training memory, ft-blocks 4": "50.17+-0.06",
        "training memory, mobiletl 1": "32.22+-0.06", "training memory, mobiletl 2": "32.95+-0.06",
        "training memory, mobiletl 3": "33.70+-0.06", "training memory, mobiletl 4": "38.91+-0.06",
    },
}  # fmt: skip
DIFFER = {
    "FLOPs, MBV2", "FLOPs, MBV3", "training memory, ft-blocks 2", "training memory, ft-blocks 3",
    "training memory, ft-blocks 4", "training memory, mobiletl 4",
}  # fmt: skip
TRUNCATED = {"kept, MBV2", "kept, MBV3", "saving, V3, in the text"}  # the paper cut these digits off

# By hand. Table 1: 96 -> 96 channels, 5x5, M = 8 x 7 x 7 positions; P of a block are the weights of its convolutions.
M, P = 8 * 7 * 7, 2 * 96 * 96 + 96 * 25
TO_THE_UNIT = {
    "parameters, Conv": 25 * 96 * 96 + 2 * 96,
    "parameters, MBV2": P + 6 * 96,
    "parameters, MBV3": P + 6 * 96 + 2 * 96 * 24 + 96 + 24,
    "FLOPs, Conv": (3 * 2 * M - 1) * 25 * 96 * 96,  # forward 2m, gx 2m, gW 2m - W
    "kept, Conv": 2 * M * 96 * 4 + 96 * 4 + M * 96 // 8,
    "kept, MBV2": 3 * (2 * M + 1) * 96 * 4 + 2 * M * 96 // 8,
    "kept, V2 ft-blocks": 4_031_616, "kept, V2 mobiletl": 2_164_224,
    "kept, V3 ft-blocks": 6_670_416, "kept, V3 mobiletl": 3_109_584,
    "kept, an inner norm, V3": (M + 1) * 576 * 4, "kept, an inner convolution, V3": M * 576 * 4,
    "kept, 1 blocks": 8_713_552, "kept, 3 blocks": 23_084_680, "kept, 5 blocks": 35_851_416,
    "kept, all blocks": 129_749_864,
}  # fmt: skip


def verdicts(rows: list[Result], kind: str = PUBLISHED) -> dict[str, str]:
    return {row.quantity: row.verdict for row in rows if row.kind == kind}


@pytest.mark.parametrize("item", MODULES)
def test_the_published_figures_are_the_papers(item: str) -> None:
    for kind in (PUBLISHED, CANDIDATE):
        told = {row.quantity: row.published for row in ROWS if row.item == item and row.kind == kind}
        assert told.items() <= PAPER[item].items()
        assert kind == CANDIDATE or told.keys() == PAPER[item].keys()
    assert {row.kind for row in ROWS} <= set(KINDS)


def test_which_figures_come_out_and_how() -> None:
    known = {
        name: "differs" if name in DIFFER
        else "within reading" if "+-" in text
        else "truncated" if name in TRUNCATED
        else "rounded"
        for figures in PAPER.values() for name, text in figures.items()
    }  # fmt: skip
    assert verdicts(ROWS) == known


def test_every_figure_that_differs_has_a_candidate_that_comes_out() -> None:
    candidates = verdicts(ROWS, CANDIDATE)
    assert candidates.keys() >= DIFFER
    assert set(candidates.values()) == {"rounded", "within reading"}
    conventions = {row.kind: {r.convention for r in ROWS if r.kind == row.kind} for row in ROWS}
    assert not conventions[PUBLISHED] & conventions[CANDIDATE], "a guess must be named differently"


@pytest.mark.parametrize("quantity", TO_THE_UNIT)
def test_computed_figures_to_the_unit(quantity: str) -> None:
    (row,) = (row for row in ROWS if row.quantity == quantity and row.kind == PUBLISHED)
    assert row.computed == TO_THE_UNIT[quantity] / (1e6 if row.unit else 1)


def test_the_candidate_of_table_1_leaves_the_weights_in() -> None:
    for name in ("MBV2", "MBV3"):
        fit, candidate = (row.computed for row in ROWS if row.quantity == f"FLOPs, {name}")
        assert round(1e6 * (candidate - fit)) == P


def test_the_constant_of_the_results_figure_is_the_same_where_the_kept_tensors_bind() -> None:
    """Inputs of the residual blocks, and input and output of the final convolution: 12.945 MB, read within 0.06."""
    for row in ROWS:
        if row.item == "results" and row.quantity in DIFFER:
            missing = {PUBLISHED: -row.difference, CANDIDATE: 0.0}[row.kind]
            assert row.kind == CANDIDATE or missing <= 12.945 + 0.06
    (largest,) = (r for r in ROWS if r.quantity == "training memory, ft-blocks 4" and r.kind == CANDIDATE)
    (bare,) = (r for r in ROWS if r.quantity == "training memory, ft-blocks 4" and r.kind == PUBLISHED)
    assert round(largest.computed - bare.computed, 3) == 12.945


# Verdicts


@pytest.mark.parametrize(
    ("published", "computed", "verdict"),
    [
        ("51.56", 51.56, "rounded"), ("51.56", 51.5551, "rounded"), ("51.56", 51.5649, "rounded"),
        ("51.56", 51.565001, "truncated"), ("51.56", 51.5699, "truncated"), ("51.56", 51.57, "differs"),
        ("51.56", 51.5549, "differs"), ("51.56", 515.6, "differs"), ("51.56", 0.0, "differs"),
        ("0.90", 0.903168, "rounded"), ("0.90", 0.909, "truncated"), ("0.9", 0.94, "rounded"),
        ("0.905", 0.9055, "truncated"), ("0.906", 0.9055, "rounded"),  # a tie goes to the even digit
        ("230592", 230592, "rounded"), ("230592", 230593, "differs"), ("230592", 230591, "differs"),
        ("46", 46.49, "rounded"), ("46", 46.51, "truncated"), ("46", 45.49, "differs"), ("46", 47.0, "differs"),
        ("32.22+-0.06", 32.27, "within reading"), ("32.22+-0.06", 32.17, "within reading"),
        ("32.22+-0.06", 32.29, "differs"), ("32.22+-0.06", 32.15, "differs"), ("32.22+-0.06", -32.22, "differs"),
        ("0.91", 1e-12, "differs"), ("0.91", 9.1e11, "differs"),
    ],
)  # fmt: skip
def test_verdicts(published: str, computed: float, verdict: str) -> None:
    row = Result("item", "quantity", "MB", published, computed, "convention")
    assert row.verdict == verdict
    assert row.to_json() == {
        "item": "item", "quantity": "quantity", "unit": "MB", "published": row.printed, "computed": computed,
        "difference": computed - row.printed, "convention": "convention", "verdict": verdict, "kind": PUBLISHED,
        "note": "",
    }  # fmt: skip


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_wrong_number_in_any_row_is_told(sign: int) -> None:
    """Two units of the last printed digit off, or two reading errors: no rounding or reading explains that."""
    for row in ROWS:
        text, _, reading = row.published.partition("+-")
        unit = float(reading) if reading else 10.0 ** -len(text.partition(".")[2])
        if row.verdict != "differs":
            assert replace(row, computed=row.computed + sign * 2 * unit).verdict == "differs", row


# Planted mistakes in the convention


def _counting(name: str, change: Callable[[Record, Split], Split]) -> Callable[[Record], Split]:
    count = paper_flops.COUNTS[name]
    return lambda record: change(record, count(record))


MISTAKES: dict[str, tuple[str, Callable[[Record, Split], Split]]] = {
    "norms free forward": ("batch_norm", lambda r, work: replace(work, forward=0)),
    "norms free backward": ("batch_norm", lambda r, work: replace(work, grad_input=0)),
    "frozen norms free": ("frozen_norm", lambda r, work: replace(work, forward=0)),
    "multiply-adds count once": ("pointwise_conv", lambda r, work: replace(work, forward=work.forward // 2)),
    "no gradient of 1x1 weights": ("pointwise_conv", lambda r, work: replace(work, grad_weight=0)),
    "no gradient of linear inputs": ("linear", lambda r, work: replace(work, grad_input=0)),
    "depthwise gx twice": ("depthwise_conv", lambda r, work: work + replace(work, forward=0, grad_weight=0)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_convention_changes_a_figure(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, change = MISTAKES[mistake]
    monkeypatch.setitem(paper_flops.COUNTS, name, _counting(name, change))
    assert "differs" in verdicts(finetuning.results()).values()


@pytest.mark.parametrize("op", ["hard_swish", "hard_sigmoid", "relu", "scale"])
def test_elementwise_work_left_out_changes_a_figure(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(paper_flops.ELEMENTWISE, op, (0, 0))
    assert "differs" in verdicts(finetuning.results()).values()
