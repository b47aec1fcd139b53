"""Score the causes that the oracle names: every wrong implementation x every case in which it shows.

    python tests/oracle/score.py                       # all
    python tests/oracle/score.py --part 1/4            # a quarter of the cases
    python tests/oracle/score.py --cases 'network*' --mistakes '*eps*'
    python tests/oracle/score.py --c                   # mistakes made in C, read from what the program prints
    python tests/oracle/score.py --pairs 20            # two at once, drawn at random

Right: every cause that is named is one that `named.py` allows (of two mistakes, for either). None: no cause at all.
Wrong: some other one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import in_c as c
import more_mutants
from mutants import MUTANTS
from named import NAMED

import minitl.oracle.compare
from minitl import oracle
from minitl.kernels import threads
from minitl.oracle import mechanisms, updates

assert more_mutants.__doc__
VERDICTS = ("right", "none", "wrong")


class Scored(NamedTuple):
    """A mistake in a case, and what was said of it."""

    mistake: str
    case: str
    verdict: str
    causes: str


def scored(mistake: str, case: oracle.Case, answer: dict[str, Any], *also: str) -> Scored | None:
    """The verdict on the causes named for an answer; None where the mistake does not show, or no number is judged."""
    judged = minitl.oracle.compare.judge(case, answer)
    if all(line.ok or "is not served here" in line.problem for line in judged):
        return None
    causes = {line.cause for line in case.compare(answer).lines if line.cause}
    made = (mistake, *also)
    wrong = [cause for cause in causes if not any(re.search(NAMED[m], cause) for m in made)]
    verdict = "wrong" if wrong else "right" if causes else "none"
    return Scored(" + ".join(made), case.name, verdict, "; ".join(sorted(wrong or causes)))


def of_case(case: oracle.Case, mistakes: str) -> Iterator[Scored]:
    """Every mistake in one case."""
    for mistake in NAMED:
        if fnmatchcase(mistake, mistakes):
            with np.errstate(all="ignore"):
                if one := scored(mistake, case, MUTANTS[mistake](case).answer()):
                    yield one


def in_pairs(entries: Sequence[oracle.Entry], mistakes: str, count: int) -> Iterator[Iterator[Scored]]:
    """Two mistakes at once, drawn from those that show in a case by themselves."""
    for entry in entries:
        case, chosen = entry.case(), np.random.default_rng(crc32(entry.name.encode()))
        shown = [one.mistake for one in of_case(case, mistakes)]
        drawn = (chosen.choice(shown, 2, replace=False) for _ in range(count if len(shown) > 1 else 0))
        yield (one for first, second in drawn if (one := of_pair(case, str(first), str(second))))


def of_pair(case: oracle.Case, first: str, second: str) -> Scored | None:
    """Both mistakes in one implementation."""
    both = type("Both", (MUTANTS[first], MUTANTS[second]), {})
    with np.errstate(all="ignore"):
        return scored(first, case, both(case).answer(), second)


def in_python(entries: Sequence[oracle.Entry], mistakes: str) -> Iterator[Iterator[Scored]]:
    """Case by case, every mistake in it."""
    for entry in entries:
        yield of_case(entry.case(), mistakes)


def in_c(entries: Sequence[oracle.Entry], mistakes: str) -> Iterator[Iterator[Scored]]:
    """The same from a C program's log."""
    cases = c.covered(entries)
    with TemporaryDirectory() as folder:
        program = c.compiled(cases, Path(folder))
        made = [m for m in c.mistakes(program) if fnmatchcase(m, mistakes)]
        given = {mistake: [answer for _, answer in c.answers(program, cases, mistake)] for mistake in made}
    for number, case in enumerate(cases):
        yield (one for m in made if (one := scored(m, case, given[m][number])))


def selected(pattern: str, part: str) -> list[oracle.Entry]:
    """Cases by name, and by part K/N, which takes every Nth from the Kth on."""
    number, _, count = part.partition("/")
    others = (*updates.ATTRS, *mechanisms.ATTRS)  # which the mutants cannot compute
    entries = [entry for entry in oracle.entries(pattern) if entry.op not in others]
    return entries[int(number) - 1 :: int(count)]


def summary(score: Counter[str]) -> str:
    """Counts and the share of right ones."""
    share = score["right"] / max(score.total(), 1)
    return f"{', '.join(f'{score[v]} {v}' for v in VERDICTS)}: {share:.1%} named rightly"


def tell(one: Scored) -> None:
    """A line for whatever was named wrongly or not at all."""
    if one.verdict != "right":
        print(f"{one.verdict:5}  {one.mistake}  |  {one.case}  |  {one.causes}", flush=True)


def main() -> None:
    """Print what was named wrongly or not at all, how far it is, and the score, of what was done where interrupted."""
    threads.set_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="*")
    parser.add_argument("--mistakes", default="*")
    parser.add_argument("--part", default="1/1", metavar="K/N")
    parser.add_argument("--c", action="store_true", help="mistakes made in C")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="N pairs of mistakes at once, in each case")
    args = parser.parse_args()
    score: Counter[str] = Counter()
    begin, entries = perf_counter(), selected(args.cases, args.part)
    if args.pairs:
        every = in_pairs(entries, args.mistakes, args.pairs)
    else:
        every = (in_c if args.c else in_python)(entries, args.mistakes)
    try:
        for number, of_one in enumerate(every, start=1):
            for one in of_one:
                score[one.verdict] += 1
                tell(one)
            if number % 10 == 0:
                print(f"{number} cases: {summary(score)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    print(f"{summary(score)} in {perf_counter() - begin:.0f} s ({process_time():.0f} s of CPU)")
    sys.exit(bool(score["wrong"]) or score["right"] < 0.9 * score.total())


if __name__ == "__main__":
    main()
