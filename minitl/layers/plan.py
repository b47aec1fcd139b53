"""What a method decides for a layer."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from minitl.checks import as_count, expect_flag
from minitl.errors import UsageError, brief


@dataclass(frozen=True)
class LayerPlan:
    """What a method decides for one layer.

    `train` names the parameters that get a gradient; `statistics` says whether a norm uses the
    batch's or its frozen running ones; `rule` is an activation's backward rule ("" for the
    op's first, the paper's baseline), or `folded` for squeeze-and-excite's multiply: the gate
    scales the projection's weights, and the gated map is never built. `recompute`, of an
    expanding convolution, keeps the block's input instead of the depthwise convolution's, which
    backward computes again. `channels`, with the rule `channels`, are the input channels whose
    weights train, or how many: then those of the largest weights when training begins. `ranks`, with the
    rules `subspace` and `subspace_fixed`, are those of height, width and channels (by default half of the
    sides and an eighth of the channels). `pattern` (N, M) prunes the weight of a 1x1 convolution or
    linear layer to N of every M (`ops.rules.sparse`). What must be kept follows from these, in the op.
    """

    train: frozenset[str] = frozenset()
    statistics: str = "frozen"
    rule: str = ""
    recompute: bool = False
    channels: int | tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    pattern: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the types; `train` may be any collection of names, and numbers any whole numbers."""
        if isinstance(self.train, str) or not isinstance(self.train, Set | Sequence):
            raise UsageError(op="LayerPlan", expected="train to be names of parameters", got=brief(repr(self.train)))
        for name in (*self.train, self.statistics, self.rule):
            if not isinstance(name, str):
                raise UsageError(op="LayerPlan", expected="names", got=brief(repr(name)))
        counts = {"ranks": self.ranks, "pattern": self.pattern or ()}
        many = as_count(self.channels)
        for name, numbers in (counts if many is not None else {**counts, "channels": self.channels}).items():
            given = [as_count(number) for number in numbers] if isinstance(numbers, Sequence) else [None]
            if None in given or (name == "pattern" and len(given) not in (0, 2)):
                raise UsageError(op="LayerPlan", expected=f"{name} in whole numbers", got=brief(repr(numbers)))
            object.__setattr__(self, name, tuple(given) or (None if name == "pattern" else ()))
        if many is not None:
            object.__setattr__(self, "channels", many)
        object.__setattr__(self, "train", frozenset(self.train))
        object.__setattr__(self, "recompute", expect_flag("recompute", self.recompute, op="LayerPlan"))


FROZEN = LayerPlan()
