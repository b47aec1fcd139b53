"""Checks of tutorial 9, the peak."""

from __future__ import annotations

from typing import Any

import numpy as np

from course.attempt import Attempt, NotYet
from course.case import Array, Case
from course.exercise import exercise

Event = tuple[Any, ...]


def draw_events(case: Case) -> list[Event]:
    """Things made and freed; some are never freed, and the last moments are low."""
    events: list[Event] = []
    alive: list[str] = []
    for i in range(12):
        events.append(("make", f"map {i}", int(case.rng.integers(10, 100)) if i else 6))
        alive.append(f"map {i}")
        while len(alive) > 1 and case.rng.random() < 0.45:
            events.append(("free", alive.pop(int(case.rng.integers(1, len(alive))))))
    events += [("free", name) for name in alive[1:]]
    again = alive[1] if len(alive) > 1 else "another"
    return [*events, ("make", again, 5), ("free", again)]


def heights(events: list[Event], frees: bool = True) -> list[tuple[str, int]]:
    """After each event: what it was, and the bytes alive."""
    alive: dict[str, int] = {}
    found = []
    for event in events:
        if event[0] == "make":
            alive[event[1]] = event[2]
        elif frees:
            alive.pop(event[1])
        found.append((event[0], sum(alive.values())))
    return found


@exercise(
    "9a",
    hints=(
        "Keep what is alive in a dictionary, name to bytes. After which kind of event can a new highest moment stand?",
        "alive[name] = bytes on make, alive.pop(name) on free, and highest = max(highest, sum(alive.values())) after "
        "each event.",
    ),
)
def highest_moment(case: Case, peak_of: Attempt) -> None:
    """Many lists, and the empty one."""
    for _ in range(4):
        events = draw_events(case)
        moments = heights(events)
        right = max(height for _, height in moments)
        got = peak_of([tuple(event) for event in events])
        case.need(
            isinstance(got, int | np.integer),
            f"It should return a number of bytes, and gives {got!r}.",
        )
        usual = {
            "These are all bytes ever made; some were freed before others were made.": sum(
                event[2] for event in events if event[0] == "make"
            ),
            "These are the bytes alive at the end; the highest moment was before.": moments[-1][1],
            "This is the largest single array; at the peak several are alive.": max(
                event[2] for event in events if event[0] == "make"
            ),
            "You look only after something was freed: the output exists while the input still does.": max(
                height for kind, height in moments if kind == "free"
            ),
            "This is how much is alive on the average; a device needs the most.": round(
                sum(height for _, height in moments) / len(moments)
            ),
        }
        for sentence, wrong in usual.items():
            case.need(got == right or got != wrong, sentence)
        case.need(got == right, f"{got}, expected {right}, for {events}.")
    case.need(peak_of([]) == 0, "Where nothing is ever made, the peak is 0.")


class Block:
    """A block with running statistics, that counts its runs: y = tanh(x w) + its mean."""

    def __init__(self) -> None:
        self.runs: list[bool] = []

    def forward(self, x: Array, p: dict[str, Array], rerun: bool) -> tuple[Array, dict[str, Array]]:
        """The y of a layer, and what its backward needs; moves p["running"] unless `rerun`."""
        self.runs.append(bool(rerun))
        h = np.tanh(x @ p["w"])
        if not rerun:
            p["running"] = 0.9 * p["running"] + 0.1 * h.mean(axis=0)
        return h, {"x": x, "h": h}

    @staticmethod
    def backward(kept: dict[str, Array], gy: Array, p: dict[str, Array]) -> dict[str, Array]:
        """Gradients by name."""
        g = gy * (1 - kept["h"] ** 2)
        return {"x": g @ p["w"].T, "w": kept["x"].T @ g}


@exercise(
    "9b",
    hints=(
        "The new forward calls the old one and throws its `kept` away. The new backward calls the old forward again, "
        "for its `kept`, and then the old backward.",
        "def again(kept, gy, p): _, inner = forward(kept['x'], p, True); return backward(inner, gy, p). And in the "
        "forward pass hand `rerun` on.",
    ),
)
def around_a_block(case: Case, checkpoint: Attempt) -> None:
    """Results, what is kept, and the running statistics, once moved."""
    n, i, o = 3, int(case.rng.integers(3, 6)), int(case.rng.integers(3, 6))
    x, gy, w = case.normal(n, i), case.normal(n, o), case.normal(i, o)
    block, plain = Block(), Block()
    p, q = ({"w": w, "running": np.zeros(o, case.dtype)} for _ in range(2))
    right, held = plain.forward(x, q, False)
    expected = plain.backward(held, gy, q)
    run, back = case.results(("forward", "backward"), checkpoint(block.forward, block.backward))
    case.need(callable(run) and callable(back), "It should return two functions.")
    y, kept = case.results(("y", "kept"), Attempt(run)(x, {**p}, True))
    case.need(
        block.runs == [True], "Your forward should run the block once, and hand `rerun` on to it."
    )
    block.runs.clear()
    y, kept = case.results(("y", "kept"), run(x, p, False))
    case.need(
        block.runs == [False],
        "In forward hand `rerun` on: yours runs the block with rerun=True, so its running statistics do not move.",
    )
    case.same("y", y, right)
    case.need(isinstance(kept, dict), "`kept` should be a dictionary.")
    names = sorted(kept)
    case.need(
        names != sorted(held),
        'It keeps what the block kept, h included: then nothing is saved. Keep {"x": x} alone.',
    )
    case.need(
        names == ["x"] and kept["x"] is x,
        f'It keeps {", ".join(names) or "nothing"}; keep {{"x": x}}, no copy.',
    )
    moved = p["running"].copy()
    case.same("the running mean after forward", moved, q["running"])
    gradients = back(kept, gy, p)
    case.need(
        isinstance(gradients, dict),
        "backward should give the gradients that the block's backward gives.",
    )
    case.need(
        (p["running"] == moved).all(),
        "The running statistics moved twice: in backward run the block with rerun=True.",
    )
    case.need(
        len(block.runs) > 1,
        "The block did not run again in backward: it used something stored outside `kept`.",
    )
    case.need(
        len(block.runs) == 2,
        f"The block ran {len(block.runs)} times; forward once and backward once is enough.",
    )
    for name, gradient in expected.items():
        case.same(f"the gradient of {name}", gradients.get(name), gradient)


def held(n: int, x: int, inside: int, k: int, mistake: str = "") -> float:
    """The most bytes held with k segments, with one usual mistake."""
    blocks: float = -(-n // k)
    blocks = {"floor": n // k, "mean": n / k, "no rerun": 0, "all": n}.get(mistake, blocks)
    return (0 if mistake == "inputs" else k * x) + blocks * inside


@exercise(
    "9c",
    hints=(
        "Try all k. The largest segment has ceil(n / k) blocks.",
        "min(range(1, n + 1), key=lambda k: k * x + -(-n // k) * inside): min takes the first of several.",
    ),
)
def number_of_segments(case: Case, best_segments: Attempt) -> None:
    """Over many n, so that each mistake shows."""
    sizes = [
        (
            int(case.rng.integers(5, 64)),
            int(case.rng.integers(1, 30)),
            int(case.rng.integers(20, 60)),
        )
        for _ in range(60)
    ]
    sizes += [(17, 10, 10), (30, 7, 21), (26, 5, 40), (12, 10, 5), (7, 10, 1)]
    got = [best_segments(*size) for size in sizes]
    case.need(
        all(isinstance(k, int | np.integer) for k in got),
        "It should return a whole number of segments.",
    )

    def best(mistake: str = "", last: bool = False) -> list[int]:
        return [
            min(
                range(1, size[0] + 1),
                key=lambda k, s=size: (held(*s, k, mistake), -k if last else k),
            )
            for size in sizes
        ]

    right = best()
    usual = {
        "The segment that is run again is forgotten: it keeps `inside` for each of its blocks.": best(
            "no rerun"
        ),
        "The inputs are forgotten: each segment keeps its own.": best("inputs"),
        "17 blocks in 4 segments: the largest has 5, not 4. Round up.": best("floor"),
        "17 blocks in 4 segments: the largest has 5, not 4.25. Round up.": best("mean"),
        "Of several k that are equally good, take the smallest.": best(last=True),
        "The square root of n is the answer only where x and inside are alike.": [
            max(1, round(size[0] ** 0.5)) for size in sizes
        ],
    }
    for sentence, wrong in usual.items():
        case.need(got == right or got != wrong, sentence)
    for k, expected, (n, x, inside) in zip(got, right, sizes, strict=True):
        if k != expected:
            raise NotYet(f"n = {n}, x = {x}, inside = {inside}: {k} segments, expected {expected}.")
