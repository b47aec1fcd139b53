"""Placement in one block: nothing overlaps, offsets are aligned, and the block is hardly larger than it must be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import trained

import minitl
from minitl.accounting.arena import Arena, Buffer, Placed, lower_bound, place
from minitl.arrays import nbytes
from minitl.errors import ValueRangeError
from minitl.networks import Network
from minitl.shadow import ShadowTape


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    found = []
    for number in range(draw(st.integers(0, 25))):
        first, life = draw(st.integers(0, 12)), draw(st.integers(0, 12))
        found.append(Buffer(f"b{number}", "layer", draw(st.integers(0, 300)), first, first + life))
    return found


def together(a: Buffer, b: Buffer) -> bool:
    """Whether some moment has both."""
    return any(b.first <= moment <= b.last for moment in range(a.first, a.last + 1))


def check(arena: Arena, given_buffers: Sequence[Buffer], alignment: int = 1) -> None:
    """By definition, pair by pair and moment by moment."""
    assert [(b.name, b.bytes, b.first, b.last) for b in arena.buffers] == [
        (b.name, b.bytes, b.first, b.last) for b in given_buffers
    ]
    assert all(b.offset >= 0 and b.offset % alignment == 0 for b in arena.buffers)
    assert arena.size_bytes == max((b.offset + b.bytes for b in arena.buffers), default=0)
    moments = range(max((b.last for b in given_buffers), default=0) + 1)
    alive = [sum(b.bytes for b in given_buffers if b.first <= m <= b.last) for m in moments]
    assert arena.lower_bound_bytes == max(alive) <= arena.size_bytes
    for i, a in enumerate(arena.buffers):
        for b in arena.buffers[:i]:
            apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
            assert apart or not together(a, b) or 0 in (a.bytes, b.bytes), f"{a} overlaps {b}"


@given(found=buffers(), alignment=st.sampled_from([1, 64]), seed=st.integers(0, 3))
def test_no_two_that_live_together_overlap(found: list[Buffer], alignment: int, seed: int) -> None:
    arena = place(found, alignment=alignment, tries=20, seed=seed)
    check(arena, found, alignment)
    assert arena == place(found, alignment=alignment, tries=20, seed=seed)


@given(found=buffers(), seed=st.integers(0, 3))
def test_more_tries_never_make_it_larger(found: list[Buffer], seed: int) -> None:
    sizes = [place(found, tries=tries, seed=seed).size_bytes for tries in (1, 2, 5, 14, 40)]
    assert sizes == sorted(sizes, reverse=True)


def test_the_checker_sees_an_overlap() -> None:
    found = [Buffer(name, "", 8, *span) for name, span in (("a", (0, 3)), ("b", (3, 5)), ("c", (3, 5)))]
    good = Arena(24, 24, tuple(Placed(**vars(b), offset=8 * i) for i, b in enumerate(found)))
    check(good, found)
    a, b, c = good.buffers
    with pytest.raises(AssertionError, match="overlaps"):
        check(replace(good, buffers=(a, replace(b, offset=7), c)), found)


def test_moments_are_inclusive() -> None:
    """What ends at 3 and what begins at 3 are both alive then; what begins at 4 takes its place."""
    a, b, c = Buffer("a", "", 10, 0, 3), Buffer("b", "", 10, 3, 6), Buffer("c", "", 10, 4, 6)
    assert lower_bound([a, b]) == place([a, b]).size_bytes == 20
    assert lower_bound([a, c]) == place([a, c]).size_bytes == 10


@given(sizes=st.lists(st.integers(1, 99), min_size=1, max_size=30))
def test_nested_lives_need_no_more_than_the_bound(sizes: list[int]) -> None:
    """As buffers kept for backward: the first kept is the last let go of."""
    nested = [Buffer(str(i), "", size, i, 100 - i) for i, size in enumerate(sizes)]
    assert place(nested).size_bytes == sum(sizes)


@given(sizes=st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=30))
def test_gradients_that_pile_up_while_what_was_kept_goes_need_no_more_either(sizes: list[tuple[int, int]]) -> None:
    """One stack grows from the bottom and shrinks again, another one meanwhile comes down from the bound."""
    kept = [Buffer(f"kept {i}", "", size, i, 100 - i) for i, (size, _) in enumerate(sizes)]
    gradients = [Buffer(f"gradient {i}", "", size, 100 - i, 101) for i, (_, size) in enumerate(sizes)]
    found = [*kept, *gradients]
    assert place(found, tries=45).size_bytes == lower_bound(found)


@given(sizes=st.lists(st.integers(1, 99), min_size=1, max_size=30), alignment=st.sampled_from([1, 64]))
def test_what_lives_throughout_lies_at_the_bottom_side_by_side(sizes: list[int], alignment: int) -> None:
    arena = place([Buffer(str(i), "", size, 0, 9) for i, size in enumerate(sizes)], alignment=alignment)
    padded = [-(-size // alignment) * alignment for size in sizes]
    assert [b.offset for b in arena.buffers] == np.cumsum([0, *padded[:-1]]).tolist()


def test_orders_are_tried_until_one_fits() -> None:
    """Five buffers of which no single greedy order below finds the best place by itself."""
    rows = [(3, 0, 1), (3, 2, 5), (2, 1, 2), (4, 4, 6), (2, 0, 6), (5, 6, 8), (1, 3, 7)]
    found = [Buffer(str(i), "", *row) for i, row in enumerate(rows)]
    assert place(found).size_bytes == lower_bound(found)
    assert place(found, tries=1).size_bytes >= lower_bound(found)


def test_as_json() -> None:
    data = json.loads(json.dumps(place([Buffer("w", "conv", np.int64(8), 0, 1)]).to_json()))
    assert data == {
        "size_bytes": 8,
        "lower_bound_bytes": 8,
        "buffers": [{"name": "w", "layer": "conv", "bytes": 8, "first": 0, "last": 1, "kind": "", "offset": 0}],
    }


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Buffer("x", "conv", -1, 0, 1), "conv: expected bytes of x of at least 0, got -1"),
        (lambda: Buffer("x", "conv", 1.5, 0, 1), "bytes of x"),
        (lambda: Buffer("x", "conv", 1, 2, 1), "conv: expected x to end after it begins, got 2 to 1"),
        (lambda: place([], alignment=0), "arena: expected alignment of at least 1, got 0"),
        (lambda: place([], tries=0), "arena: expected tries of at least 1, got 0"),
        (lambda: place([], seed=-1), "arena: expected seed of at least 0, got -1"),
    ],
)
def test_bad_arguments(call: Any, words: str) -> None:
    with pytest.raises(ValueRangeError, match=words):
        call()


# Real steps


def step_buffers(net: Network, batch: int, resolution: int) -> list[Buffer]:
    """Parameters, maps, kept buffers, gradients of maps and of parameters, and workspace, of a step op by op."""
    tape = ShadowTape(fused=False)
    net(tape, tape.phantom((batch, resolution, resolution, 3), net.dtype))
    return list(_buffers(net, tape))


def _buffers(net: Network, tape: ShadowTape) -> Iterator[Buffer]:
    records = tape.records
    end = 2 * len(records) + 1
    last = {i: max((k for k, r in enumerate(records) if i in r.sources), default=i) for i in range(len(records))}
    for i, r in enumerate(records):
        for kept in r.cost.kept:
            if kept.source is None:
                yield Buffer(kept.tensor, r.layer, kept.nbytes, i, end - i)
            else:
                owner = i if kept.source < 0 else r.sources[kept.source]
                last[owner] = max(last.get(owner, 0), end - i)
    for i, r in enumerate(records):
        yield Buffer("output", r.layer, nbytes(r.cost.output, r.dtype), i, last[i])
        yield Buffer("forward workspace", r.layer, r.cost.forward_workspace, i, i)
        if any(r.needs):
            yield Buffer("gradient", r.layer, nbytes(r.cost.output, r.dtype), end - last_reader(tape, i), end - i)
            yield Buffer("backward workspace", r.layer, r.cost.backward_workspace, end - i, end - i)
        for p, needed in zip(r.parameters, r.needs[len(r.sources) :], strict=True):
            if needed:
                yield Buffer(f"gradient of {p.name}", r.layer, p.nbytes, end - i, end)
    for p in net.parameters():
        yield Buffer(p.name, p.name, p.nbytes, 0, end)


def last_reader(tape: ShadowTape, number: int) -> int:
    return max((k for k, r in enumerate(tape.records) if number in r.sources), default=number)


CASES = [
    ("mobilenet_v2", "ft-all", None),
    ("mobilenet_v2", "mobiletl-exact", 5),
    ("mobilenet_v3_small", "ft-norm", None),
    ("mobilenet_v3_small", "mobiletl", 11),
    ("mobilenet_v3_large", "ft-blocks", 5),
    ("digits_irb", "mobiletl-exact", 7),
]


@pytest.mark.parametrize(("name", "method", "blocks"), CASES)
def test_the_steps_of_networks_fit_within_a_twentieth_of_the_bound(name: str, method: str, blocks: int | None) -> None:
    net = trained(minitl.networks.get(name, num_classes=10), method, blocks)
    found = step_buffers(net, 8, 24 if name == "digits_irb" else 96)
    assert len(found) > 300
    for alignment in (1, 64):
        arena = place(found, alignment=alignment, tries=20)
        assert arena.ratio <= 1.05, f"{arena.size_bytes:,} of {arena.lower_bound_bytes:,}"
        _check_in_bulk(arena, alignment)


def _check_in_bulk(arena: Arena, alignment: int) -> None:
    """As `check`, without Python's loops over pairs."""
    offset, size, first, last = (
        np.array([getattr(b, field) for b in arena.buffers]) for field in ("offset", "bytes", "first", "last")
    )
    assert not (offset % alignment).any()
    in_time = (first[:, None] <= last) & (last[:, None] >= first)
    in_space = (
        (offset[:, None] < offset + size) & (offset < (offset + size)[:, None]) & (np.minimum.outer(size, size) > 0)
    )
    assert np.count_nonzero(in_time & in_space) == np.count_nonzero(size)  # each with itself alone
