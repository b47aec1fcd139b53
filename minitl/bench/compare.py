"""Each case's steps, timed against PyTorch's in one run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from minitl.bench import rivals
from minitl.bench.busy import others
from minitl.bench.cases import Case, Tuning
from minitl.bench.gemm import Products, multiply_adds, products
from minitl.bench.peak import peak_bytes, predicted_growth
from minitl.bench.timing import Burst, burst_of, interleave
from minitl.bench.worker import WAITS, Worker, ending_children
from minitl.kernels import threads
from minitl.training.progress import Bar

OURS, ALONE, GEMM = "minitl", "minitl on one thread", "gemm"
MOST_FINALISTS, NEAR = 4, 1.4  # of PyTorch's steps for a method: so many are timed at length, if so near the fastest


@dataclass(frozen=True)
class Result:
    """One method of one case. Times are medians in milliseconds; what PyTorch or the system did not tell is None."""

    case: str
    method: str
    ours_ms: float
    torch_ms: float | None
    ratio: float | None
    speedup: float | None  # of all threads over one; None where there is only one
    gmacs: float  # of a step: all its multiply-adds
    ours_peak_bytes: int | None
    torch_peak_bytes: int | None  # of the fastest of PyTorch's own modules: `torch_peak_variant`
    gemm_ms: float
    steps: int
    spread: float  # of minitl's times: the middle half's width, as a share of the median
    predicted_growth_bytes: int
    torch_variant: str | None  # the fastest
    torch_variant_peak_bytes: int | None
    torch_peak_variant: str | None
    others_busy: float | None  # the share of the cores that other work took
    torch_all_ms: dict[str, float]  # of those that were far from the fastest, one round's


class Key(NamedTuple):
    """Whose step it is."""

    tuning: Tuning
    who: str  # OURS, GEMM, or a variant of PyTorch
    wait: str = ""  # how PyTorch's threads wait

    @property
    def variant(self) -> str:
        """The variant and how its threads wait."""
        return f"{self.who} {self.wait}"


class Comparison:
    """Times and memory of one case."""

    def __init__(self, case: Case, count: int) -> None:
        self.case, self.count = case, count
        self.times: dict[Key, list[float]] = {}
        self.finalists: list[Key] = []
        self.peaks: dict[Key, int | None] = {}
        self.busy: list[float] = []

    def time(self, seconds: float) -> None:
        """Run all steps by turns: PyTorch's variants for one round, then for `seconds` the fast ones and minitl's."""
        waits = list(WAITS) if rivals.installed() else []
        workers = {wait: Worker(self.case, self.count, wait) for wait in waits}
        try:
            with ending_children():
                theirs = self._theirs(workers)
                self.times = interleave(theirs, 0)
                self._watch()
                self.finalists = self._finalists()
                turns = zip_longest(self._ours().items(), ((key, theirs[key]) for key in self.finalists))
                self.times |= interleave(dict(item for turn in turns for item in turn if item), seconds)
                self._watch()
        finally:
            for worker in workers.values():
                worker.close()

    def result(self, tuning: Tuning, *, peak: bool) -> Result:
        """What was found for one method."""
        ours = Key(tuning, OURS)
        fastest, vanilla = self._fastest(tuning), self._fastest(tuning.vanilla)
        own, of_vanilla, of_fastest = (
            self._peak(key) if peak and self.case.backward else None for key in (ours, vanilla, fastest)
        )
        alone = Key(tuning, ALONE)
        return Result(
            case=self.case.name,
            method=self.case.label(tuning),
            ours_ms=self._ms(ours),
            torch_ms=self._ms(fastest) if fastest else None,
            ratio=self._ms(ours) / self._ms(fastest) if fastest else None,
            speedup=self._ms(alone) / self._ms(ours) if alone in self.times else None,
            gmacs=1e-9 * multiply_adds(self.case, tuning),
            ours_peak_bytes=own,
            torch_peak_bytes=of_vanilla,
            gemm_ms=self._ms(Key(tuning, GEMM)),
            steps=len(self.times[ours]),
            spread=_spread(self.times[ours]),
            predicted_growth_bytes=predicted_growth(self.case, tuning),
            torch_variant=fastest.variant if fastest else None,
            torch_variant_peak_bytes=of_fastest,
            torch_peak_variant=vanilla.who if vanilla else None,
            others_busy=max(self.busy, default=None),
            torch_all_ms={key.variant: self._ms(key) for key in self._rivals(tuning)},
        )

    def _ours(self) -> dict[Key, Burst]:
        found = {}
        for tuning in self.case.tunings:
            step = burst_of(self.case.problem(tuning).step)
            found[Key(tuning, OURS)] = step
            if self.count > 1:
                found[Key(tuning, ALONE)] = partial(self._alone, step)
            found[Key(tuning, GEMM)] = burst_of(Products(products(self.case, tuning)))
        return found

    def _alone(self, step: Burst, count: int) -> list[float]:
        threads.set_threads(1)
        try:
            return step(count)
        finally:
            threads.set_threads(self.count)

    def _theirs(self, workers: Mapping[str, Worker]) -> dict[Key, Burst]:
        return {
            Key(tuning, variant, wait): worker.burst(tuning, variant)
            for wait, worker in workers.items()
            for tuning in self.case.tunings
            for variant in rivals.variants(tuning)
        }

    def _finalists(self) -> list[Key]:
        """PyTorch's steps that were not far from the fastest for some method."""
        found: dict[Key, None] = {}
        for tuning in self.case.tunings:
            fastest = {key: min(self.times[key]) for key in self._rivals(tuning)}
            ranking = sorted(fastest, key=fastest.__getitem__)[:MOST_FINALISTS]
            found |= dict.fromkeys(key for key in ranking if fastest[key] <= NEAR * fastest[ranking[0]])
        return list(found)

    def _rivals(self, tuning: Tuning) -> list[Key]:
        """Every step of PyTorch that tunes the same layers."""
        return [key for key in self.times if key.wait and key.tuning in (tuning, tuning.vanilla)]

    def _fastest(self, tuning: Tuning) -> Key | None:
        """Of those that were timed together with minitl."""
        return min((key for key in self._rivals(tuning) if key in self.finalists), key=self._ms, default=None)

    def _watch(self) -> None:
        share = others()
        self.busy += [] if share is None else [share]

    def _ms(self, key: Key) -> float:
        return 1e3 * statistics.median(self.times[key])

    def _peak(self, key: Key | None) -> int | None:
        if key is None:
            return None
        step = key._replace(wait="")
        if step not in self.peaks:
            variant = None if key.who == OURS else key.who
            self.peaks[step] = peak_bytes(self.case, key.tuning, variant, self.count)
        return self.peaks[step]


def compare(cases: Sequence[Case], *, seconds: float, count: int, peak: bool, shown: Bar) -> Iterator[list[Result]]:
    """The results of all methods of a case, one case after another, `seconds` of timing a case."""
    for case in cases:
        comparison = Comparison(case, count)
        comparison.time(seconds)
        found = [comparison.result(tuning, peak=peak) for tuning in case.tunings]
        shown.advance(f"{case.name}: {', '.join(map(_told, found))}")
        yield found


def _told(result: Result) -> str:
    """A result in a few words."""
    told = f"{result.method} {result.ours_ms:.1f} ms"
    return told if result.ratio is None else f"{told} (torch {result.torch_ms:.1f}, ratio {result.ratio:.2f})"


def geometric_means(results: Sequence[Result]) -> dict[str, float]:
    """Of the ratios, by method, over the results given that have one."""
    ratios: dict[str, list[float]] = {}
    for r in results:
        if r.ratio is not None:
            ratios.setdefault(r.method, []).append(r.ratio)
    return {method: math.exp(statistics.fmean(map(math.log, values))) for method, values in ratios.items()}


def _spread(times: Sequence[float]) -> float:
    if len(times) < 2:
        return 0.0
    first, middle, third = statistics.quantiles(times, n=4)
    return (third - first) / middle
