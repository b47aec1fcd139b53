"""The schema of a network's table: which keys it has, what they hold, and what they mean.

A table is what a TOML file holds, or a mapping of the same keys and values in Python. From the
bottom: `stem`, `stages`, `head`, `classifier`, and the keys of `Table`. A stage holds the keys of
`Block` and `repeats` (so many blocks of one kind), or `blocks` (a list of blocks that differ, each
with the keys of `Block` and `repeats`). A stage's `stride` is that of its first block. `[block]`
gives what stages leave out, and `[squeeze_excite]` what `squeeze_excite = true` means. Where two keys say
one thing in two ways (a head's `channels` and `expansion`), one given anew lets the inherited other go.

The tables of the built-in networks, in `tables/`, are examples of all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from minitl.networks.keys import anything, choice, flag, number, section, text, whole
from minitl.networks.names import STYLES
from minitl.ops.activations.activation import ACTIVATIONS

MOST_CHANNELS = 1 << 15
SCALES = ("always", "up", "never")  # when the width multiplies a number of channels; "up": if it is above 1
RATIO = (lambda x: 0 < x <= 100, "above 0, at most 100")
SMALL = (lambda x: 0 < x <= 1, "above 0, at most 1")


@dataclass(frozen=True)
class SqueezeExcite:
    """Squeeze-and-excite of `channels` (times the width), or of `ratio` times the expanded or the input channels.

    `rounding` is to a multiple of the table's divisor, as everywhere, or to the nearest whole
    number. It stands where all MobileNets have it: after the depthwise part's activation.
    """

    channels: int | None = whole(1, MOST_CHANNELS, None)
    ratio: float = number(*SMALL, 0.25)
    of: str = choice(("expanded", "input"), "expanded")
    rounding: str = choice(("divisible", "nearest"), "divisible")
    activation: str = choice(ACTIVATIONS, "relu")
    gate: str = choice(ACTIVATIONS, "hard_sigmoid")
    where: str = choice(("depthwise",), "depthwise")


@dataclass(frozen=True)
class Block:
    """An inverted residual block with `channels` (times the width) coming out.

    `kind`: "irb" has an expanding convolution, "separable" has none, "auto" has one where it
    widens. It expands to `expanded` (times the width), or to `expansion` times the channels that
    come in. Without `residual` there is no sum, even where the shapes of input and output agree.
    """

    channels: int = whole(1, MOST_CHANNELS)
    kind: str = choice(("irb", "separable", "auto"), "irb")
    kernel: int = whole(1, 31, 3, odd=True)
    stride: int = whole(1, 2, 1)
    expansion: float = number(*RATIO, 1.0)
    expanded: int | None = whole(1, MOST_CHANNELS, None)
    activation: str = choice(ACTIVATIONS, "relu")
    squeeze_excite: SqueezeExcite | None = section(SqueezeExcite, None)
    residual: bool = flag(True)


@dataclass(frozen=True)
class Stem:
    """The first convolution, with its norm and activation."""

    channels: int = whole(1, MOST_CHANNELS)
    kernel: int = whole(3, 31, 3, odd=True)
    stride: int = whole(1, 2, 2)
    activation: str = choice(ACTIVATIONS, "relu")
    scale: str = choice(SCALES, "always")


@dataclass(frozen=True)
class Head:
    """The 1x1 convolution above the blocks, with norm and activation.

    It has `channels`, or `expansion` times the channels of the last block.
    """

    channels: int | None = whole(1, MOST_CHANNELS, None)
    expansion: float = number(*RATIO, 1.0)
    activation: str = choice(ACTIVATIONS, "relu")
    scale: str = choice(SCALES, "always")


@dataclass(frozen=True)
class Classifier:
    """One linear layer; or, with `hidden` channels, one before it with an activation."""

    hidden: int | None = whole(1, MOST_CHANNELS, None)
    activation: str = choice(ACTIVATIONS, "hard_swish")
    scale: str = choice(SCALES, "always")


@dataclass(frozen=True)
class Table:
    """A whole network.

    `momentum` is PyTorch's: the share of the new batch in running statistics. `padding` "same" is
    TensorFlow's. Numbers of channels are rounded to multiples of `divisor`. `resolution` is the
    height and width of the images it was made for; it runs on others.
    """

    stem: Stem = section(Stem)
    stages: tuple[tuple[Block, ...], ...] = anything()  # read by table.read_table
    head: Head | None = section(Head, None)
    classifier: Classifier = section(Classifier, Classifier())
    name: str = text("network")
    about: str = text("")
    names: str = choice(STYLES, "torchvision_v2")
    eps: float = number(*SMALL, 1e-5)
    momentum: float = number(*SMALL, 0.1)
    padding: str = choice(("symmetric", "same"), "symmetric")
    divisor: int = whole(1, 64, 8)
    width: float = number(lambda w: 0 < w <= 10, "above 0, at most 10", 1.0)
    dropout: float = number(lambda p: 0 <= p < 1, "at least 0, below 1", 0.0)
    num_classes: int = whole(1, 1 << 20, 1000)
    resolution: int = whole(1, 1 << 14, 224)
