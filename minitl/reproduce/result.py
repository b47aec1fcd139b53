"""One published figure, what minitl computes for it, and the difference."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any

PUBLISHED, REDERIVED, CANDIDATE = KINDS = "published", "re-derived", "candidate"


@dataclass(frozen=True)
class Result:
    """A published figure beside the computed one.

    `published` is the number as printed, so that its digits are known ("51.56"), or with a
    reading error where it was read off a plot ("32.22+-0.06"). `convention` says by which rules
    the figure was counted. `kind` tells apart the figures of a paper (`published`), those that no
    paper prints but its rules give, as a check (`re-derived`), and published ones computed by a
    rule that is only a guess (`candidate`); `within` is how near, as a share, a fit says it comes. `note` says why
    a figure differs, as far as is known, and what was tried.
    """

    item: str
    quantity: str
    unit: str
    published: str
    computed: float
    convention: str
    kind: str = PUBLISHED
    within: float = 0.0
    note: str = ""

    @property
    def printed(self) -> float:
        """The published figure as a number."""
        return float(self.published.split("+-")[0])

    @property
    def decimals(self) -> int:
        """How many decimals to print: two more than were published, none for a count."""
        places = -int(Decimal(self.published.split("+-")[0]).as_tuple().exponent)
        return 0 if isinstance(self.computed, int) else places + 2

    @property
    def difference(self) -> float:
        """Computed minus published."""
        return self.computed - self.printed

    @property
    def verdict(self) -> str:
        """How the two agree.

        `rounded` or `truncated`: the computed figure, so shortened to the printed digits, is the
        published one. `within reading`: within the error of reading it off a plot. `within 0.2 %`: as near as the
        fit that it comes by says. Else `differs`.
        """
        text, _, reading = self.published.partition("+-")
        if reading:
            return "within reading" if abs(self.difference) <= float(reading) else "differs"
        digits, exact = Decimal(text), Decimal(repr(self.computed))
        if exact.quantize(digits, ROUND_HALF_EVEN) == digits:
            return "rounded"
        if exact.quantize(digits, ROUND_DOWN) == digits:
            return "truncated"
        near = abs(self.difference) <= self.within * abs(self.printed)
        return f"within {100 * self.within:g} %" if near and self.within else "differs"

    def to_json(self) -> dict[str, Any]:
        """As a dictionary with the published figure as a number."""
        return {
            "item": self.item,
            "quantity": self.quantity,
            "unit": self.unit,
            "published": self.printed,
            "computed": self.computed,
            "difference": self.difference,
            "convention": self.convention,
            "verdict": self.verdict,
            "kind": self.kind,
            "note": self.note,
        }
