"""The plan under a budget: never worse for more, never over, and what it says is what a step then holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import batch, trained

import minitl
from minitl import methods
from minitl.accounting import measure
from minitl.accounting.plan import QUANTITIES, Entry, Plan, entries, pareto, plan
from minitl.errors import ValueRangeError
from minitl.networks import Model
from minitl.step import loss_and_gradients

NETWORKS: dict[str, tuple[int, int]] = {"digits_irb": (4, 24), "short": (4, 32)}  # batch, resolution
SHORT = {  # a MobileNetV3 of three blocks
    "base": "mobilenet_v3_small",
    "stages": [
        {"channels": 16, "expansion": 2, "stride": 2, "activation": "relu", "squeeze_excite": True},
        {"channels": 24, "expansion": 3, "stride": 2, "repeats": 2, "activation": "hard_swish"},
    ],
    "head": {"channels": 64},
    "num_classes": 10,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "int8": {"quantised": True},
    "checkpoint": {"checkpoint": True},
    "sign": {"rules": {"hard_swish": "sign"}},
    "few1": {"rules": {"hard_swish": "few1"}},
}
OF = pytest.mark.parametrize("of", QUANTITIES)


def model(network: str) -> Model:
    return minitl.networks.from_table(SHORT) if network == "short" else minitl.networks.get(network)


def method(option: str) -> Callable[[str, int | None], methods.Method]:
    return lambda name, blocks: methods.get(name, blocks, **OPTIONS[option])


@cache
def ways(network: str, option: str = "plain") -> tuple[Entry, ...]:
    n, resolution = NETWORKS[network]
    return entries(model(network), batch=n, resolution=resolution, optimizer_slots=1, method=method(option))


def worth(way: Entry) -> tuple[int, int, int]:
    """What makes a way better: most trained parameters, then exact gradients, then fewer FLOPs."""
    return way.trained_parameters, int(way.exact), -way.flops


def need(way: Entry, of: str) -> int:
    table = {"kept": way.kept_bytes, "total": way.total_bytes, "peak": way.peak_bytes, "flops": way.flops}
    return table[of]


def made_up(numbers: tuple[int, ...]) -> Entry:
    kept, total, peak, flops, parameters, exact = numbers
    return Entry(f"method-{numbers}", None, kept, total, peak, flops, parameters, bool(exact))


# Few different numbers, so that there are ties of every kind; and the real ones
FEW = st.tuples(*(st.integers(low, high) for low, high in [(1, 4)] * 3 + [(1, 2)] * 2 + [(0, 1)])).map(made_up)
MADE_UP = st.lists(FEW, min_size=1, max_size=9)
WAYS = MADE_UP | st.sampled_from([*NETWORKS]).map(ways)


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[Entry], str, int]:
    """Ways, a quantity, and a budget that is enough for at least one: at a need, just beside one, or anywhere."""
    found, of = list(draw(WAYS)), draw(st.sampled_from([*QUANTITIES]))
    needs = sorted({need(way, of) for way in found})
    near = st.tuples(st.sampled_from(needs), st.integers(-1, 1)).map(sum)
    anywhere = st.integers(needs[0], needs[-1] + needs[-1] // 4)
    return found, of, max(needs[0], draw(near | anywhere))


@given(case=asked())
def test_the_best_is_affordable_and_nothing_affordable_is_better_or_as_good_and_cheaper(case: Any) -> None:
    found, of, budget = case
    best = plan(found, budget=budget, of=of).best
    assert need(best, of) <= budget
    for way in found:
        if need(way, of) <= budget:
            assert worth(way) <= worth(best)
            assert worth(way) < worth(best) or need(way, of) >= need(best, of)


@OF
def test_of_two_equally_good_the_cheaper_is_best(of: str) -> None:
    dear, cheap = (Entry(str(kept), 1, kept, kept, kept, 7, 100, True) for kept in (5, 4))
    for both in ([dear, cheap], [cheap, dear]):
        got = plan(both, budget=9, of=of)
        assert (got.best.kept_bytes == 4 and got.pareto == (cheap,)) or of == "flops"
        assert got.next is None


@given(case=asked(), more=st.integers(0, 10**7))
def test_more_budget_is_never_worse(case: Any, more: int) -> None:
    found, of, budget = case
    less, richer = (plan(found, budget=b, of=of).best for b in (budget, budget + more))
    assert worth(richer) >= worth(less)


@given(case=asked())
def test_next_is_the_cheapest_better_one(case: Any) -> None:
    found, of, budget = case
    got = plan(found, budget=budget, of=of)
    better = [way for way in found if worth(way) > worth(got.best)]
    assert (got.next is None) == (not better)
    if got.next:
        assert got.next in better
        assert budget < need(got.next, of) == min(need(way, of) for way in better)
        assert plan(found, budget=need(got.next, of), of=of).best == got.next
        assert worth(plan(found, budget=need(got.next, of) - 1, of=of).best) == worth(got.best)


@given(case=asked())
def test_the_pareto_set_is_what_it_says(case: Any) -> None:
    """Every way that beats all that take no more; by value, as two ways may take and be worth the same."""
    found, of, budget = case
    front = pareto(found, of)
    values = [(need(way, of), worth(way)) for way in front]
    everything = [(need(way, of), worth(way)) for way in found]
    assert values == sorted({v for v in everything if all(o[1] < v[1] or o == v for o in everything if o[0] <= v[0])})
    got = plan(found, budget=budget, of=of)
    assert got.pareto == front
    assert (need(got.best, of), worth(got.best)) == [v for v in values if v[0] <= budget][-1]


@given(case=asked())
def test_an_impossible_budget_is_told_the_smallest_possible(case: Any) -> None:
    found, of, _ = case
    least = min(need(way, of) for way in found)
    names = {way.name for way in found if need(way, of) == least}
    with pytest.raises(ValueRangeError) as caught:
        plan(found, budget=least - 1, of=of)
    unit = "FLOPs" if of == "flops" else f"bytes of {of}"
    told = str(caught.value).rpartition("; ")
    assert told[0] in {
        f"no method fits {least - 1:,} {unit}; the smallest that would takes {least:,} ({name})" for name in names
    }
    assert ("int8" in told[2]) == (of != "flops")
    assert need(plan(found, budget=least, of=of).best, of) == least


@pytest.mark.parametrize("network", NETWORKS)
def test_every_method_with_every_number_of_blocks(network: str) -> None:
    count = len(model(network).blocks)
    named = [(way.method, way.blocks) for way in ways(network)]
    alone = [(name, None) for name, method in methods.METHODS.items() if not method.takes_blocks]
    by_block = [name for name, method in methods.METHODS.items() if method.takes_blocks]
    assert sorted(named, key=str) == sorted(
        [*alone, *((name, k) for name in by_block for k in range(1, count + 1))], key=str
    )
    approximate = {"mobiletl", "back-razor", "sparse-update", "repnet-int8", "slope"}
    approximate |= {"quantised", "gradient-filter", "subspace", "subspace-fixed"}
    assert {way.method for way in ways(network) if not way.exact} == approximate
    assert {way.name for way in ways(network)} == {m if k is None else f"{m} {k}" for m, k in named}


def test_a_single_block_has_no_way_that_trains_nothing() -> None:
    found = entries(minitl.networks.irb(), batch=2, resolution=7, optimizer_slots=0)
    beside = {name for name, method in methods.METHODS.items() if method.sides}
    assert {way.method for way in found} == set(methods.METHODS) - {"ft-last"} - beside
    assert all(way.trained_parameters > 0 for way in found)


# What is said is what is held


def chosen(network: str, option: str, of: str, share: float) -> Plan:
    needs = [need(way, of) for way in ways(network, option)]
    return plan(ways(network, option), budget=round(min(needs) + share * (max(needs) - min(needs))), of=of)


@pytest.mark.parametrize(
    ("network", "option"),
    [*((network, "plain") for network in NETWORKS), ("short", "int8"), ("short", "checkpoint")],
)
@settings(max_examples=2)
@given(of=st.sampled_from(["kept", "total", "peak"]), share=st.floats(0, 1))
@example(of="peak", share=0.0)  # with checkpoints a method that trains some channels is the best
def test_what_is_predicted_for_the_best_is_what_a_real_step_holds(
    network: str, option: str, of: str, share: float
) -> None:
    best, (n, resolution) = chosen(network, option, of, share).best, NETWORKS[network]
    net = trained(model(network), best.method, best.blocks, **OPTIONS[option])
    got = measure(net, batch=n, resolution=resolution, optimizer_slots=1)
    assert got.held_bytes == got.traced_bytes == best.kept_bytes
    assert got.predicted_peak_bytes == best.peak_bytes
    _, _, gradients = loss_and_gradients(net, *batch(net, n, resolution))
    assert best.trained_parameters == net.trained_count
    numbers, some = sum(g.size for g in gradients.values()), any(layer.plan.channels for layer in net.layers())
    assert net.trained_count < numbers if some else net.trained_count == numbers  # the other channels' are zeros
    arrays = [a for p in net.parameters() for a in (p.value, p.scale) if a is not None]
    optimizer = [np.zeros_like(gradient) for gradient in gradients.values()]
    resident = sum(array.nbytes for array in (*arrays, *gradients.values(), *optimizer))
    assert best.total_bytes == got.traced_bytes + resident


# Options


def pairs(option: str) -> list[tuple[Entry, Entry]]:
    both = list(zip(ways("short"), ways("short", option), strict=True))
    assert all((one.name, one.trained_parameters) == (other.name, other.trained_parameters) for one, other in both)
    return both


def test_checkpoints_keep_less_and_compute_more() -> None:
    for plain, other in pairs("checkpoint"):
        reaches_a_block = plain.method != "ft-last"
        assert (other.kept_bytes < plain.kept_bytes) == reaches_a_block, plain.name
        assert (other.flops > plain.flops) == reaches_a_block, plain.name
        assert plain.kept_bytes - other.kept_bytes == plain.total_bytes - other.total_bytes
        assert other.exact == plain.exact


def test_int8_takes_three_bytes_a_frozen_weight_off_and_adds_a_scale_a_channel() -> None:
    net = model("short")
    for plain, other in pairs("int8"):
        trained(net, plain.method, plain.blocks)
        frozen = [p.value for p in net.parameters() if p.value.ndim > 1 and not p.trained]
        assert plain.total_bytes - other.total_bytes == sum(3 * w.size - 4 * len(w) for w in frozen), plain.name
        assert (other.kept_bytes, other.flops, other.exact) == (plain.kept_bytes, plain.flops, plain.exact)


def test_the_sign_rule_of_hard_swish_makes_all_but_the_last_layer_approximate() -> None:
    for plain, other in pairs("sign"):
        assert other.exact == (plain.method == "ft-last"), plain.name
        assert other.kept_bytes <= plain.kept_bytes
        if plain.method in ("ft-last", "mobiletl"):  # the latter has that rule already
            assert other == plain
        if plain.method in ("ft-all", "ft-bias", "ft-norm", "ft-blocks"):
            assert other.kept_bytes < plain.kept_bytes


def test_the_one_bit_rule_takes_what_the_sign_rule_takes() -> None:
    assert ways("short", "few1") == ways("short", "sign")


@OF
def test_what_is_budgeted_decides(of: str) -> None:
    """A budget that only just lets the best of all in, by that quantity alone."""
    found = ways("digits_irb")
    everything = max(found, key=worth)
    got = plan(found, budget=need(everything, of), of=of)
    assert (got.best, got.next, got.of) == (everything, None, of)
    assert worth(plan(found, budget=need(everything, of) - 1, of=of).best) < worth(everything)
