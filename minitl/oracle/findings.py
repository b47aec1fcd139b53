"""Which of the usual mistakes explain what came: how well each fits, how much it gives otherwise, which are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from minitl.arrays import Array
from minitl.oracle import updates
from minitl.oracle.bounds.precision import BY_DTYPE, PRECISIONS
from minitl.oracle.case import Case
from minitl.oracle.mistakes import results
from minitl.oracle.mistakes.formats import FORMATS, ROUNDOFF
from minitl.oracle.mistakes.runs import Runs, Wrong
from minitl.oracle.recipes import COMPOSITES

FORWARD = ("output", "buffer_after")  # what a mistake of the forward changes
BACKWARD = ("grad_", "param_after")  # and one of the backward
NEARER = 0.1  # a mistake explains a result that is at least ten times nearer to it than to the truth
COMPUTED = (*FORWARD, *BACKWARD, "state_after")  # what a step with a mistake gives
MISSES = 1  # tensors that a mistake may give otherwise than they came before the rest is not computed
FIT = 10.0  # of mistakes that explain the same, those this many times worse than the best are dropped
TELLING = 3  # values that are not as good as 0, before numbers of a low precision are taken for a sign of it


@dataclass(eq=False)
class _Explanation:
    """A mistake: the wrong tensors it explains and how well, those it may, and how many it gives otherwise.

    It may explain a tensor where its numbers are within the bound of what came, but hardly nearer than the truth.
    """

    cause: str
    layer: str
    fits: dict[str, float] = field(default_factory=dict)
    alone: bool = False  # told from each tensor by itself
    contradicted: int = 0
    agreeing: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Findings:
    """Everything that explains some wrong tensor."""

    case: Case
    got: Mapping[str, Array]
    wrong: Sequence[str]
    found: list[_Explanation] = field(default_factory=list)

    def of_results(self) -> None:
        """Mistakes that are the same for each tensor, whatever was computed."""
        fits: dict[str, dict[str, float]] = {}
        for name in self.wrong:
            for cause, values in results.mistakes(self.case, name):
                if (fit := self.fit(name, values)) is not None:
                    fits.setdefault(cause, {}).setdefault(name, fit)
        self.found += [_Explanation(cause, "", by_name, alone=True) for cause, by_name in fits.items()]

    def of_updates(self) -> None:
        """Mistakes in an optimizer's steps."""
        mistaken = updates.mistaken(self.case.op, self.case.attrs, self.case.inputs, PRECISIONS["f64"])
        self._try(Wrong(cause, "", tensors.items()) for cause, tensors in mistaken)

    def of_runs(self, runs: Runs) -> None:
        """Mistakes of single ops, through the whole step."""
        for single in (False, True):
            if any(name.startswith(FORWARD) for name in self._unexplained()) or "output" in self.wrong:
                self._try(runs.changing_output(self._may_be_output, single=single))
            if any(name.startswith(BACKWARD) for name in self._unexplained()) or "output" not in self.wrong:
                self._try(runs.changing_gradients(single=single))
            if not any(name.startswith(COMPUTED) for name in self._unexplained()):
                return

    def _may_be_output(self, cause: str, values: Array) -> bool:
        """Roundings to few bits are told by what comes before the output: small errors turn them about."""
        if "output" not in self.wrong or cause.startswith("low precision"):
            return "output" not in self.got or self._agrees("output", values)
        return self.fit("output", values) is not None

    def _unexplained(self) -> list[str]:
        explained = {name for e in self.found for name in (*e.fits, *e.agreeing)}
        return [name for name in self.wrong if name not in explained]

    def _try(self, steps: Iterable[Wrong]) -> None:
        """Compare what each mistake gives, from the loss on down, until too much of it is not what came."""
        for cause, layer, tensors, far in steps:
            found = _Explanation(cause, layer)
            for name, values in tensors:
                self._weigh(found, name, values)
                if far and found.contradicted > MISSES and not found.fits:
                    break
            if found.fits and not self._chance(found, far=far):
                self.found.append(found)

    def _chance(self, found: _Explanation, *, far: bool) -> bool:
        """Whether a mistake in a block is told by chance: denied by most of what feels it, or below a wrong output.

        An output of many values that fits is no chance; a loss, which is one number, may be.
        """
        told = "output" in found.fits.keys() | found.agreeing
        if self.case.op not in COMPOSITES or ("output" in found.fits and self.got["output"].size >= TELLING):
            return False
        below = "output" in self._unexplained() and not told
        return below or (far and found.contradicted > len(found.fits))

    def _weigh(self, found: _Explanation, name: str, values: Array) -> None:
        if name not in self.got or not name.startswith(COMPUTED):
            return
        if name in self.wrong and (fit := self.fit(name, values)) is not None:
            found.fits[name] = fit
        elif not self._agrees(name, values):
            found.contradicted += 1
        elif name in self.wrong:
            found.agreeing.add(name)

    def fit(self, name: str, values: Array) -> float | None:
        """How near these values are to what came, relative to the truth; None if that explains nothing."""
        got, expected = self.got[name].astype(np.float64), self.case.tensors[name]
        if values.shape != got.shape:
            return None
        error, off = np.abs(got - values).max(), np.abs(got - expected).max()
        if error <= min(self._within(name, values), NEARER * off):
            return float(error / off)
        return None

    def _agrees(self, name: str, values: Array) -> bool:
        return values.shape == self.got[name].shape and bool(
            np.abs(self.got[name].astype(np.float64) - values).max() <= self._within(name, values)
        )

    def _within(self, name: str, values: Array) -> float:
        """The tensor's largest bound, for values of another size, and a few roundings."""
        dtype = self.got[name].dtype.name
        bound, largest = self.case.tolerance(name, dtype), np.abs(values).max()
        assert bound is not None
        grown = max(1.0, largest / max(np.abs(self.case.tensors[name]).max(), 1e-300))
        return float(4 * grown * bound.max() + 8 * BY_DTYPE[dtype].u * largest)

    def named(self) -> dict[str, str]:
        """For each tensor the mistake that explains most, or those that explain it equally well.

        In a block, where tensors follow from one another, what was told from one tensor alone does not stand
        while another is not explained: it may be chance.
        """
        named = self._best() | self._of_their_own()
        if self.case.op in COMPOSITES and not all(named.get(name) for name in self.wrong):
            self.found = [e for e in self.found if not e.alone]
            named = self._best() | self._of_their_own()
        return named

    def _best(self) -> dict[str, str]:
        named: dict[str, str] = {}
        left = set(self.wrong)
        while left:
            ranked = [((len(left & e.fits.keys()), -e.contradicted), e) for e in self.found if left & e.fits.keys()]
            if not ranked:
                break
            best = max(rank for rank, _ in ranked)
            chosen = next(e for rank, e in ranked if rank == best)
            explained = left & chosen.fits.keys()
            equal = [e for rank, e in ranked if rank == best and left & e.fits.keys() == explained]
            text = _joined(equal, explained)
            explained |= left & chosen.agreeing
            named |= dict.fromkeys(explained, text)
            left -= explained
        return named

    def _of_their_own(self) -> dict[str, str]:
        """Causes of tensors that no mistake explains, told from what came."""
        return {name: self._of_its_own(name) for name in self._unexplained()}

    def _of_its_own(self, name: str) -> str:
        got, expected = self.got[name].astype(np.float64), self.case.tensors[name]

        def within(values: Array) -> bool:
            return self.fit(name, values) is not None

        return (
            results.of_got(self.case, name, got, expected, within)
            or self._low_precision(name, got, expected)
            or self._float32_good(name, got, expected)
        )

    def _float32_good(self, name: str, got: Array, expected: Array) -> str:
        bound = self.case.tolerance(name, "float32")
        wide = self.got[name].dtype == np.float64
        if wide and bound is not None and (np.abs(got - expected) <= bound).all():
            return "float32 somewhere on the way: within the bound of float32, not within that of float64"
        return ""

    def _low_precision(self, name: str, got: Array, expected: Array) -> str:
        """A format of which every value is a number, though the right ones are not, if its arithmetic may give them."""
        bound = self.case.tolerance(name, "float32")
        assert bound is not None
        if np.count_nonzero(np.abs(got) > bound.max()) < TELLING or any(not e.alone for e in self.found):
            return ""  # nothing to tell by, or what is left of another mistake
        for text, rounded in FORMATS.items():
            u = ROUNDOFF[text]
            near = np.abs(got - expected) <= bound.max() * u / PRECISIONS["f32"].u + 4 * u * np.abs(expected)
            if (
                (rounded(got) == got).all()
                and not (rounded(expected) == expected.astype(np.float32)).all()
                and near.all()
            ):
                return f"low precision: every value is a {text} number"
        return ""


def _joined(equal: Sequence[_Explanation], tensors: set[str]) -> str:
    """The causes that fit about as well as the best, each with the layers it may be in."""
    fits = [max(e.fits[name] for name in tensors) for e in equal]
    good = [e for e, fit in zip(equal, fits, strict=True) if fit <= FIT * min(fits) + 1e-12]
    layers: dict[str, list[str]] = {}
    for e in good:
        layers.setdefault(e.cause, []).append(e.layer)
    return " or ".join(list(_texts(layers))[:3])


def _texts(layers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for cause, where in layers.items():
        places = list(dict.fromkeys(where))
        yield cause if "" in places else f"{cause} (at {' or '.join(places[:2])})"
