"""PyTorch's steps compute what minitl's do: the same gradients of everything trained, and of a block's input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minitl.arrays import Array
from minitl.bench import rivals
from minitl.bench.cases import BLOCKS, NETWORKS, OTHERS, Case, Tuning

pytest.importorskip("torch")

# PyTorch's hard-swish and hard-sigmoid multiply by 1/6 in float32 even where x is float64: an error of up to 3e-8 in
# each of the few a gradient passes in a block. In float32, sums of a few hundred to a few thousand terms: their
# rounding errors add up like a random walk's steps, to less than 100 eps.
BLOCK = {"float64": 2e-7, "float32": 1e-5}
# A network has a few dozen of them. It is compared in float64 only: in float32, of so many activations some fall on
# the other side of a kink, and a norm of a few values a channel magnifies that.
NETWORK = 2e-6


def small(case: Case) -> Case:
    return replace(case, batch=2, resolution=7 if case.network == "irb" else 64)


def distance(got: dict[str, Array], expected: dict[str, Array]) -> float:
    """The largest relative error of a gradient in the Euclidean norm.

    Some gradients are rounding errors and nothing else, as that of a shift that the next batch norm takes away
    again: an error counts by the middle one of all the gradients' norms where that is larger.
    """
    norms = {name: float(np.linalg.norm(gradient)) for name, gradient in expected.items()}
    usual = float(np.median(list(norms.values())))
    return max(float(np.linalg.norm(got[name] - expected[name])) / max(norms[name], usual) for name in expected)


def pairs(cases: list[Case]) -> list[tuple[Case, Tuning, str]]:
    return [(case, tuning, variant) for case in cases for tuning in case.tunings for variant in rivals.variants(tuning)]


def check(case: Case, tuning: Tuning, variant: str, dtype: str, tolerance: float) -> None:
    expected = case.problem(tuning, dtype).step()
    step = rivals.build(case, tuning, variant, 1, dtype)  # one thread: two that spin would starve beside other tests
    step()
    got = step.gradients()
    assert got.keys() == expected.keys()
    assert distance(got, expected) < tolerance
    step()
    assert all(np.array_equal(again, got[name]) for name, again in step.gradients().items())


@pytest.mark.parametrize(("case", "tuning", "variant"), pairs(BLOCKS))
def test_blocks_agree(case: Case, tuning: Tuning, variant: str) -> None:
    """Every form of every block, in one layout in float64 and in the other in float32."""
    dtype = "float64" if variant.endswith("nchw") else "float32"
    check(small(case), tuning, variant, dtype, BLOCK[dtype])


@pytest.mark.parametrize(
    ("case", "tuning", "variant"), [pair for pair in pairs(NETWORKS) if pair[2].endswith("channels_last")]
)
def test_networks_agree(case: Case, tuning: Tuning, variant: str) -> None:
    check(small(case), tuning, variant, "float64", NETWORK)


def test_the_forward_pass_alone_agrees() -> None:
    case = OTHERS[1]
    assert not case.backward
    check(small(case), case.tunings[0], "modules channels_last", "float64", NETWORK)


def test_another_method_is_another_step() -> None:
    """The tolerances tell MobileTL's gradients from the usual ones."""
    case = small(BLOCKS[0])
    ours = case.problem(Tuning("mobiletl")).step()
    step = rivals.build(case, Tuning("ft-blocks"), "modules nchw", 1)
    step()
    theirs = step.gradients()
    assert distance({name: theirs[name] for name in ours}, ours) > 100 * BLOCK["float32"]
