"""Score the causes that the oracle names: every wrong implementation x every case in which it shows.

    python tests/oracle/score.py                       # all: some ten minutes
    python tests/oracle/score.py --cases 'network*' --mistakes '*eps*'

Right: every cause that is named is one that `named.py` allows. None: no cause at all. Wrong: some other one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import more_mutants
from mutants import MUTANTS
from named import NAMED
from test_oracle_mutants import differs

from minitl import oracle
from minitl.kernels import threads
from minitl.oracle import mechanisms, updates

assert more_mutants.__doc__


def verdicts(cases: str, mistakes: str) -> Iterator[tuple[str, str, str, str]]:
    """Mistake, case, verdict, and the causes that were named."""
    for entry in oracle.entries(cases):
        if entry.op in (*updates.ATTRS, *mechanisms.ATTRS):
            continue
        case = entry.case()
        for mistake, allowed in NAMED.items():
            if not fnmatchcase(mistake, mistakes):
                continue
            with np.errstate(all="ignore"):
                answer = MUTANTS[mistake](case).answer()
                if not differs(case, answer):
                    continue
                causes = {line.cause for line in case.compare(answer).lines if line.cause}
            wrong = [cause for cause in causes if not re.search(allowed, cause)]
            verdict = "wrong" if wrong else "right" if causes else "none"
            yield mistake, entry.name, verdict, "; ".join(sorted(wrong or causes))


def main() -> None:
    """Print the score, and what was named wrongly or not at all."""
    threads.set_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="*")
    parser.add_argument("--mistakes", default="*")
    args = parser.parse_args()
    score: Counter[str] = Counter()
    begin = perf_counter()
    for mistake, case, verdict, causes in verdicts(args.cases, args.mistakes):
        score[verdict] += 1
        if verdict != "right":
            print(f"{verdict:5}  {mistake}  |  {case}  |  {causes}", flush=True)
    print(", ".join(f"{score[v]} {v}" for v in ("right", "none", "wrong")), f"in {perf_counter() - begin:.0f} s")
    share = score["right"] / max(score.total(), 1)
    print(f"{share:.1%} named rightly")
    sys.exit(bool(score["wrong"]) or share < 0.9)


if __name__ == "__main__":
    main()
