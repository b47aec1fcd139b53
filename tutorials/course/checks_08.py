"""Checks of tutorial 8, adapt to new digits."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import minitl
import numpy as np

from course.attempt import Attempt, NotYet, Stopped
from course.case import Array, Case
from course.exercise import exercise

CLASSES = 3


def small_network(case: Case, seed: int) -> Any:
    """A narrow network whose top block trains as usual; the same seed gives the same one."""
    net = minitl.networks.digits_irb(num_classes=CLASSES, width=0.25, dtype=case.dtype, seed=seed)
    return minitl.methods.get("ft-blocks", blocks=1).apply(net)


def forward(net: Any, images: Array, labels: Array) -> tuple[Any, Any]:
    """A tape and the loss on it."""
    tape = minitl.Tape()
    return tape, minitl.cross_entropy(tape, net(tape, images), labels)


@exercise(
    "8a",
    hints=(
        "Six lines: a new tape, the logits, the loss, backward, and a loop over net.trained_parameters(), whose "
        "arrays are the network's own: change them in place.",
        "for name, parameter in net.trained_parameters().items(): parameter -= lr * gradients[name]; at the end "
        "return float(loss.value).",
    ),
)
def step_by_hand(case: Case, train_step: Attempt) -> None:
    """Every parameter after one step, against the formula."""
    seed = int(case.rng.integers(1000))
    images, labels, lr = case.normal(3, 8, 8, 3), case.rng.integers(0, CLASSES, 3), 0.125
    mine, theirs = small_network(case, seed), small_network(case, seed)
    before = {name: value.copy() for name, value in mine.state_dict().items()}
    tape, loss = forward(mine, images, labels)
    gradients = tape.backward(loss)
    right = mine.state_dict()
    for name, gradient in gradients.items():
        right[name] = before[name] - lr * gradient
    first = float(loss.value)
    try:
        got = train_step(theirs, images, labels, lr)
    except Stopped as stop:
        about = ". The loss is a Var; loss.value holds the number." if "'Var'" in stop.error else ""
        raise Stopped(stop.where, stop.error + about) from None
    after = theirs.state_dict()
    case.need(
        any((after[name] != before[name]).any() for name in gradients),
        "no parameter has changed. `p = p - lr * g` makes a new array and leaves the network's alone: use `p -= ...`.",
    )
    for name, gradient in gradients.items():
        case.same(
            f"{name} after the step",
            after[name],
            right[name],
            {
                "you went uphill: the gradient points to a greater loss, so subtract it.": (
                    lambda n=name, g=gradient: before[n] + lr * g
                ),
                "the learning rate is missing.": lambda n=name, g=gradient: before[n] - g,
                "the loss is the mean over the batch already: do not divide by its size again.": (
                    lambda n=name, g=gradient: before[n] - lr * g / 3
                ),
            },
        )
    frozen = [
        name
        for name in before
        if name not in gradients and "running" not in name and "tracked" not in name
    ]
    case.need(
        all((after[name] == before[name]).all() for name in frozen),
        "A parameter that is not trained has changed: go through net.trained_parameters() only.",
    )
    _, second = forward(mine_after(case, seed, right), images, labels)
    case.need(
        isinstance(got, float),
        f"The loss should be a float, and is {type(got).__name__}: float(loss.value).",
    )
    case.same(
        "the loss",
        np.array(got),
        np.array(first),
        {
            "this is the loss after the step; asked for is the one before.": lambda: np.array(
                float(second.value)
            )
        },
        tolerance=1e-5,
    )
    case.need(
        all((after[name] == right[name]).all() for name in before if "running" in name),
        "The running statistics moved other than by one batch: run the network once, on one training tape.",
    )


def mine_after(case: Case, seed: int, state: dict[str, Array]) -> Any:
    """The small network after the step."""
    net = small_network(case, seed)
    net.load_state_dict(state)
    return net


@exercise(
    "8b",
    hints=(
        "For each point ask whether any other beats it: `<=` in bytes, `>=` in accuracy, and not the same in both.",
        "beaten = any(b <= bytes_ and a >= accuracy and (b, a) != (bytes_, accuracy) for _, b, a in points); at the "
        "end sort by bytes.",
    ),
)
def unbeaten(case: Case, pareto: Attempt) -> None:
    """Points on a coarse grid, so that ties occur in one coordinate."""
    places = case.rng.permutation(25)[:12]
    points = [
        (f"way {i}", int(1000 * (1 + p // 5)), float(80 + p % 5)) for i, p in enumerate(places)
    ]
    points += [
        ("cheap", 900, 75.0),
        ("as cheap", 900, 75.0),
        ("worse", 900, 70.0),
        ("top", 6000, 99.0),
        ("dear", 7000, 99.0),
    ]
    points = [points[i] for i in case.rng.permutation(len(points))]

    def front(beats: Any, key: Any = lambda point: point[1]) -> list[str]:
        return [
            p[0]
            for p in sorted(points, key=key)
            if not any(beats(q, p) for q in points if q is not p)
        ]

    def better(q: Any, p: Any) -> bool:
        return q[1] <= p[1] and q[2] >= p[2] and q[1:] != p[1:]

    right = front(better)
    got = pareto(list(points))
    case.need(isinstance(got, list | tuple), "It should return a list of names.")
    got = list(got)
    twins = {"cheap", "as cheap"}
    case.need(
        len(twins - set(got)) != 1 and set(got) != set(right) - twins,
        "cheap and as cheap are the same in bytes and accuracy; neither beats the other, so both stay.",
    )
    usual = {
        "Of two with the same bytes the less accurate is beaten, and of two as accurate the larger: equal in one is "
        "enough where the other is better.": front(lambda q, p: q[1] < p[1] and q[2] > p[2]),
        "Less memory is better: yours keeps the large ones.": front(
            lambda q, p: q[1] >= p[1] and q[2] >= p[2] and q[1:] != p[1:]
        ),
        "You compare memory alone; a larger one may be more accurate, and stay.": front(
            lambda q, p: q[1] < p[1]
        ),
        "You compare accuracy alone; a less accurate one may be smaller, and stay.": front(
            lambda q, p: q[2] > p[2]
        ),
    }
    for sentence, names in usual.items():
        case.need(set(got) != set(names) or set(got) == set(right), sentence)
    sizes = {name: size for name, size, _ in points}
    if sorted(got) == sorted(right):
        case.need(
            got == sorted(got, key=lambda name: sizes[name]),
            "The right names, in another order: the smallest memory first.",
        )
        return
    lost = [name for name in right if name not in got]
    case.need(
        not lost, f"{', '.join(map(str, lost))} should stay: nobody beats it. Points: {points}"
    )
    extra = [name for name in got if name not in right]
    case.need(False, f"{', '.join(map(str, extra))} should go: it is beaten. Points: {points}")


USUAL = {  # rows that are often counted wrongly, and what to say of the first of them
    "growing": "inv_std is one number per channel, whatever the batch: you let it grow.",
    "labels": "labels, one number per image and of shape (N,), grow. Only inv_std, of shape (C,), does not.",
    "shared": "a row of 0 bytes shares the memory of another: do not count it again.",
    "ratio": "packed bits do not grow in proportion: 9 positions take 2 bytes per channel, not 1.125.",
    "eighths": "packed bits fill whole bytes: 9 positions take 2 bytes per channel, not 9 / 8.",
    "down": "packed bits are rounded up: 9 positions take 2 bytes per channel, not 1.",
    "added": "packed bits are rounded up, which is not to add a byte: 8 positions take 1 byte per channel, not 2.",
}
Sizes = dict[str, float]


def sizes_by_kind(rows: Any, old: int, new: int, grow: Any) -> dict[str, Sizes]:
    """Bytes at another batch, by kind of row: counted right (""), and with each usual mistake.

    `grow` scales bytes that are in proportion to the batch.
    """
    sizes: dict[str, Sizes] = {
        "inv_std": {"": 0, "growing": 0},
        "labels": {"": 0, "labels": 0},
        "shared": {"": 0, "shared": 0},
        "packed": {"": 0, "ratio": 0, "eighths": 0, "down": 0, "added": 0},
        "all else": {"": 0},
    }
    for row in rows:
        bits = int(np.prod(row.shape[:-1])) * row.bits * new // old
        same, grown, channels = row.bytes, grow(row.bytes), row.shape[-1]
        per_channel = (-(-bits // 8), grown / channels, bits / 8, bits // 8, bits // 8 + 1)
        if row.tensor in ("inv_std", "labels"):
            kind, counts = row.tensor, (same, grown) if row.tensor == "inv_std" else (grown, same)
        elif not same:
            kind, counts = "shared", (0, bits * channels // 8)
        elif row.bits < 8:
            kind, counts = "packed", tuple(size * channels for size in per_channel)
        else:
            kind, counts = "all else", (grown,)
        for mistake, count in zip(sizes[kind], counts, strict=True):
            sizes[kind][mistake] += count
    return sizes


def usual_sums(rows: Any, old: int, new: int) -> Any:
    """(mistakes, sum of bytes) for all combinations of usual mistakes, the fewest mistakes first."""
    ways = (lambda b: b * new / old, lambda b: b * new // old, lambda b: b // old * new)
    for sizes in (sizes_by_kind(rows, old, new, grow) for grow in ways):
        for choice in itertools.product(*(kind.items() for kind in sizes.values())):
            yield [mistake for mistake, _ in choice if mistake], sum(size for _, size in choice)


WAYS = {name: minitl.methods.get(name, 7) for name in ("mobiletl", "mobiletl-exact")}
WAYS["mobiletl with 2 bits"] = minitl.methods.get("mobiletl", 7, rules={"hard_swish": "few2"})
WAYS["ft-all"] = minitl.methods.get("ft-all")


@cache
def foreseen(way: str, batch: int) -> Any:
    """The ledger of a step, from shapes alone."""
    net = WAYS[way].apply(minitl.networks.digits_irb(num_classes=CLASSES, width=0.25))
    return minitl.accounting.predict(net, batch=batch, resolution=25)


@exercise(
    "8c",
    hints=(
        "Three kinds of rows: inv_std, whose shape has no batch in it; packed bits, whose bytes per channel are "
        "rounded up; and all others, which grow in proportion.",
        "For packed bits: positions = prod(shape[:-1]) // old_batch * new_batch, and the bytes are "
        "-(-positions * bits // 8) * shape[-1]. Leave out rows of 0 bytes.",
    ),
)
def another_batch(case: Case, kept_at: Attempt) -> None:
    """Against minitl's prediction at two other batches, one of which fills all bytes of packed bits."""
    old, other = (int(batch) for batch in case.rng.permutation([3, 5, 7, 9])[:2])
    for method in WAYS:
        for new in (other, 8):
            rows, right = foreseen(method, old).rows, foreseen(method, new).kept_bytes
            got = kept_at(rows, old, new)
            case.need(
                isinstance(got, int | float | np.number),
                f"It should return a number, and is {type(got).__name__}.",
            )
            if got != right:
                _which_rows(rows, old, new, float(got), f"{method}, batch {old} to {new}")


def _which_rows(rows: Any, old: int, new: int, got: float, where: str) -> None:
    """Say which rows are counted wrongly, or what each kind of rows should take."""
    found = [mistakes for mistakes, count in usual_sums(rows, old, new) if abs(count - got) < 0.5]
    if any(found):
        raise NotYet(f"{where}: {USUAL[min(filter(None, found), key=len)[0]]}")
    sizes = sizes_by_kind(rows, old, new, lambda b: b * new // old)
    right = {kind: sizes[kind][""] for kind in ("inv_std", "packed", "labels", "all else")}
    said = ", ".join(f"{kind} {count:,}" for kind, count in right.items())
    raise NotYet(f"{where}: {got:,.0f} bytes, expected {sum(right.values()):,}: {said}.")
