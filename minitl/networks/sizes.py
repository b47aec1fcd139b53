"""From a table to numbers of channels: its width multiplies them, its divisor rounds them."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitl.blocks import MOST_WEIGHTS, BlockSpec, ConvSpec
from minitl.errors import ValueRangeError
from minitl.networks.names import Outline
from minitl.networks.schema import Block, SqueezeExcite, Table


class Sizes(NamedTuple):
    """The convolutions of a network, and the channels of its hidden linear layer (0: there is none)."""

    stem: ConvSpec
    stages: tuple[tuple[BlockSpec, ...], ...]
    head: ConvSpec | None
    hidden: int

    @property
    def outline(self) -> Outline:
        """What the names of its layers depend on."""
        return Outline(self.stages, self.hidden > 0)

    @property
    def features(self) -> int:
        """How many channels reach the pool."""
        return self.head.outputs if self.head else self.stages[-1][-1].out_channels


def sizes(table: Table) -> Sizes:
    """The sizes of the table's network; raises ValueRangeError if it would have more than 2^28 weights."""
    channels = _scaled(table, table.stem.channels, table.stem.scale)
    stem = ConvSpec("stem", 3, channels, table.stem.kernel, table.stem.stride, activation=table.stem.activation)
    stages = []
    for rows in table.stages:
        specs = []
        for row in rows:
            specs.append(_block(table, row, channels))
            channels = specs[-1].out_channels
        stages.append(tuple(specs))
    hidden = _scaled(table, table.classifier.hidden, table.classifier.scale) if table.classifier.hidden else 0
    found = Sizes(stem, tuple(stages), _head(table, channels), hidden)
    count = weights(found, table.num_classes)
    if count > MOST_WEIGHTS:
        raise ValueRangeError(layer=table.name, expected=f"at most {MOST_WEIGHTS:,} weights", got=f"{count:,}")
    return found


def weights(found: Sizes, classes: int) -> int:
    """The number of weights of its convolutions and linear layers."""
    count = 3 * found.stem.outputs * found.stem.kernel**2
    for spec in (spec for specs in found.stages for spec in specs):
        count += spec.weights
    count += found.head.inputs * found.head.outputs if found.head else 0
    return count + (found.features + classes) * found.hidden if found.hidden else count + found.features * classes


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, but no less than 0.9 of it (the MobileNets' rounding)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _scaled(table: Table, channels: int, scale: str = "always") -> int:
    if scale == "never":
        return channels
    return make_divisible(channels * (max(1.0, table.width) if scale == "up" else table.width), table.divisor)


def _block(table: Table, row: Block, inputs: int) -> BlockSpec:
    wide, expansion = make_divisible(inputs * row.expansion, table.divisor), row.expansion
    if row.expanded:
        wide = _scaled(table, row.expanded)
        expansion = wide / inputs
    expand = row.kind == "irb" or (row.kind == "auto" and wide != inputs)
    if not expand:
        wide, expansion = inputs, 1.0
    return BlockSpec(
        in_channels=inputs,
        expanded_channels=wide,
        out_channels=_scaled(table, row.channels),
        kernel=row.kernel,
        stride=row.stride,
        activation=row.activation,
        expand=expand,
        residual=row.residual,
        **_squeeze(table, row.squeeze_excite, wide, expansion),
    )


def _squeeze(table: Table, se: SqueezeExcite | None, wide: int, expansion: float) -> dict[str, Any]:
    if se is None:
        return {}
    channels = _squeezed(table, se, wide, expansion)
    return {"se_channels": channels, "se_activation": se.activation, "se_gate": se.gate}


def _squeezed(table: Table, se: SqueezeExcite, wide: int, expansion: float) -> int:
    if se.channels:
        return _scaled(table, se.channels)
    ratio = se.ratio
    if se.of == "input":
        ratio /= expansion  # so it is of the expanded channels again, which may have been rounded: timm's arithmetic
    return make_divisible(wide * ratio, table.divisor) if se.rounding == "divisible" else max(1, round(wide * ratio))


def _head(table: Table, inputs: int) -> ConvSpec | None:
    head = table.head
    if head is None:
        return None
    wide = make_divisible(inputs * head.expansion, table.divisor)
    if head.channels:
        wide = _scaled(table, head.channels, head.scale)
    return ConvSpec("head", inputs, wide, activation=head.activation)
