"""What is compared: methods, each with its blocks, options and learning rate."""

from __future__ import annotations

from typing import NamedTuple

from minitl import methods
from minitl.errors import ValueRangeError, unknown


class Choice(NamedTuple):
    """A method, how many blocks it tunes where that is a choice, and options.

    Options are `int8`, `checkpoint`, and `WHAT=RULE` for the backward rule of an activation or role.
    """

    method: str
    blocks: int | None = None
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.method, *([str(self.blocks)] if self.blocks else ()), *self.options))

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read `mobiletl:2`, `ft-all`, `mobiletl:2+int8+hard_swish=few2`."""
        name, *options = text.strip().split("+")
        method, colon, blocks = name.partition(":")
        if colon and not blocks.isdecimal():
            raise ValueRangeError(op="compare", expected="METHOD:BLOCKS", got=repr(name))
        return cls(method, int(blocks) if colon else None, tuple(options))

    def build(self) -> methods.Method:
        """The method; raises on a name, number or option there is not."""
        rules = dict(option.split("=", 1) for option in self.options if "=" in option)
        for option in self.options:
            if "=" not in option and option not in ("int8", "checkpoint"):
                raise unknown("option", option, ("int8", "checkpoint", "WHAT=RULE"), op="compare")
        flags = {"quantised": "int8" in self.options, "checkpoint": "checkpoint" in self.options}
        return methods.get(self.method, self.blocks, rules=rules, **flags)


CHOICES = (
    Choice("ft-last"),
    Choice("ft-bias"),
    Choice("ft-norm"),
    Choice("ft-blocks", 2),
    Choice("mobiletl", 2),
    Choice("mobiletl-exact", 2),
    Choice("ft-all"),
)


def everything(blocks: int = 2) -> tuple[Choice, ...]:
    """Every method, of those that differ by name only the first; with so many blocks where that is a choice."""
    known: dict[object, Choice] = {}
    for name, method in methods.METHODS.items():
        does = (method.policy, method.sides, method.rank, method.late)
        known.setdefault(does, Choice(name, blocks if method.takes_blocks else None))
    return tuple(known.values())
