"""Checks of tutorial 8, adapt to new digits."""

from __future__ import annotations

from functools import cache
from typing import Any

import minitl
import numpy as np

from course.attempt import Attempt
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
    got = train_step(theirs, images, labels, lr)
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
    if got == right:
        return
    for sentence, names in usual.items():
        case.need(set(got) != set(names) or set(got) == set(right), sentence)
    case.need(
        sorted(got) != sorted(right),
        "The right names, in another order: the smallest memory first.",
    )
    lost = [name for name in right if name not in got]
    case.need(
        not lost, f"{', '.join(map(str, lost))} should stay: nobody beats it. Points: {points}"
    )
    extra = [name for name in got if name not in right]
    case.need(False, f"{', '.join(map(str, extra))} should go: it is beaten. Points: {points}")


def scaled(rows: Any, old: int, new: int, mistake: str = "") -> Any:
    """Bytes at another batch, with one usual mistake."""
    total: Any = 0
    for row in rows:
        if mistake == "all" or (mistake == "packed" and row.bits < 8):
            total += row.bytes * new / old if mistake == "packed" else row.bytes * new // old
        elif row.tensor == "inv_std":
            total += row.bytes
        elif row.bits < 8 and row.bytes:
            bits = int(np.prod(row.shape[:-1])) // old * new * row.bits
            total += (bits // 8 if mistake == "down" else -(-bits // 8)) * row.shape[-1]
        elif mistake == "shared":
            total += int(np.prod(row.shape)) // old * new * row.bits // 8
        else:
            total += row.bytes // old * new
    return total


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
    """Against minitl's prediction at the other batch."""
    old, new = (int(batch) for batch in case.rng.permutation([3, 5, 7, 9])[:2])
    for method in WAYS:
        rows, right = foreseen(method, old).rows, foreseen(method, new).kept_bytes
        got = kept_at(rows, old, new)
        case.need(
            isinstance(got, int | float | np.number),
            f"It should return a number, and is {type(got).__name__}.",
        )
        usual = {
            "all": "inv_std is one number per channel, whatever the batch: you let everything grow.",
            "packed": "packed bits do not grow in proportion: 9 positions take 2 bytes per channel, not 1.125.",
            "down": "packed bits are rounded up: 9 positions take 2 bytes per channel, not 1.",
            "shared": "a row of 0 bytes shares the memory of another: do not count it again.",
        }
        for mistake, sentence in usual.items():
            wrong = scaled(rows, old, new, mistake)
            case.need(got == right or got != wrong, f"{method}: {sentence}")
        case.need(got == right, f"{method}, batch {old} to {new}: {got} bytes, expected {right:,}.")
