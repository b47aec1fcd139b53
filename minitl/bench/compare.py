"""Each case's steps, timed against PyTorch's in one run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from minitl.bench import rivals
from minitl.bench.cases import Case, Tuning
from minitl.bench.gemm import Products, products
from minitl.bench.peak import peak_bytes, predicted_growth
from minitl.bench.timing import interleave
from minitl.training.progress import Bar

OURS, GEMM = "minitl", "gemm"


@dataclass(frozen=True)
class Result:
    """One method of one case. Times are medians in milliseconds; what PyTorch or the system did not tell is None."""

    case: str
    method: str
    ours_ms: float
    torch_ms: float | None
    ratio: float | None
    ours_peak_bytes: int | None
    torch_peak_bytes: int | None  # of the fastest of PyTorch's own modules: `torch_peak_variant`
    gemm_ms: float
    steps: int
    spread: float  # of minitl's times: the middle half's width, as a share of the median
    predicted_growth_bytes: int
    torch_variant: str | None  # the fastest
    torch_variant_peak_bytes: int | None
    torch_peak_variant: str | None
    torch_all_ms: dict[str, float]


class Key(NamedTuple):
    """Whose step it is."""

    tuning: Tuning
    who: str  # OURS, GEMM, or a variant of PyTorch


class Comparison:
    """Times and memory of one case."""

    def __init__(self, case: Case, count: int) -> None:
        self.case, self.count = case, count
        self.times: Mapping[Key, list[float]] = {}
        self.peaks: dict[Key, int | None] = {}

    def time(self, seconds: float) -> None:
        """Run all steps by turns for that long."""
        self.times = interleave(self._steps(), seconds)

    def result(self, tuning: Tuning, *, peak: bool) -> Result:
        """What was found for one method."""
        ours = Key(tuning, OURS)
        fastest = min(self._rivals(tuning), key=self._ms, default=None)
        vanilla = min(self._rivals(tuning.vanilla), key=self._ms, default=None)
        own, of_vanilla, of_fastest = (self._peak(key) if peak else None for key in (ours, vanilla, fastest))
        return Result(
            case=self.case.name,
            method=self.case.label(tuning),
            ours_ms=self._ms(ours),
            torch_ms=self._ms(fastest) if fastest else None,
            ratio=self._ms(ours) / self._ms(fastest) if fastest else None,
            ours_peak_bytes=own,
            torch_peak_bytes=of_vanilla,
            gemm_ms=self._ms(Key(tuning, GEMM)),
            steps=len(self.times[ours]),
            spread=_spread(self.times[ours]),
            predicted_growth_bytes=predicted_growth(self.case, tuning),
            torch_variant=fastest.who if fastest else None,
            torch_variant_peak_bytes=of_fastest,
            torch_peak_variant=vanilla.who if vanilla else None,
            torch_all_ms={key.who: self._ms(key) for key in self._rivals(tuning)},
        )

    def _steps(self) -> dict[Key, Callable[[], object]]:
        """All steps in the order of a round: minitl's and PyTorch's by turns."""
        ours: dict[Key, Callable[[], object]] = {}
        theirs: dict[Key, Callable[[], object]] = {}
        for tuning in self.case.tunings:
            ours[Key(tuning, OURS)] = self.case.problem(tuning).step
            ours[Key(tuning, GEMM)] = Products(products(self.case, tuning))
            for key in self._own_rivals(tuning):
                theirs[key] = rivals.build(self.case, *key, self.count)
        turns = zip_longest(ours.items(), theirs.items())
        return dict(item for turn in turns for item in turn if item)

    def _own_rivals(self, tuning: Tuning) -> list[Key]:
        return [Key(tuning, variant) for variant in rivals.variants(tuning)] if rivals.installed() else []

    def _rivals(self, tuning: Tuning) -> list[Key]:
        """Every step of PyTorch that tunes the same layers."""
        return [key for same in dict.fromkeys((tuning, tuning.vanilla)) for key in self._own_rivals(same)]

    def _ms(self, key: Key) -> float:
        return 1e3 * statistics.median(self.times[key])

    def _peak(self, key: Key | None) -> int | None:
        if key is None:
            return None
        if key not in self.peaks:
            variant = None if key.who == OURS else key.who
            self.peaks[key] = peak_bytes(self.case, key.tuning, variant, self.count)
        return self.peaks[key]


def compare(cases: Sequence[Case], *, seconds: float, count: int, peak: bool, shown: Bar) -> list[Result]:
    """The results of all methods of all cases, `seconds` of timing a case."""
    results = []
    for case in cases:
        comparison = Comparison(case, count)
        comparison.time(seconds)
        found = [comparison.result(tuning, peak=peak) for tuning in case.tunings]
        shown.advance(f"{case.name}: " + ", ".join(f"{r.method} {r.ours_ms:.1f} ms" for r in found))
        results += found
    return results


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
