"""TinyTL's training memory, by a walk over shapes.

Cai, Gan, Zhu & Han, "TinyTL: Reduce Memory, Not Parameters for Efficient On-Device Learning",
NeurIPS 2020, arXiv:2007.11622; the counting rule is that of its source, mit-han-lab/tinyml,
`tinytl/`. ProxylessNAS-Mobile with 102 classes (Flowers-102), batch 8:

    memory = parameters (trained 4 bytes, frozen 1) + batch * peak
    peak   = max over the leaves, in order, of: in flight + saved before it + 4 * skip

What `RULES` does not list raises; TinyTL's own code counts nothing for a kind it does not know,
and says nothing. Not in the figures at all: gradients, optimizer state, pooling, upsampling.

Three things one would stumble over:

- All six columns have the lite residual modules, also those that do not train them: their
  weights and maps are counted. Without them Full is 366.97 MB, not 391.
- The figures pin most of the rule, not all of it: the peak never falls on the linear layer, on
  a norm or under a skip, so these three follow the source alone.
- TinyTL puts group norms (8 channels a group) in place of the batch norms. No figure changes:
  both have a scale and a shift a channel, running statistics are not counted as parameters,
  and a norm keeps its input whatever its statistics are taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minitl.errors import unknown
from minitl.networks import proxyless_mobile
from minitl.reproduce.lite_residual import Leaf, leaves
from minitl.reproduce.result import REDERIVED, Result

CLASSES, BATCH, RESOLUTION = 102, 8, 224

Count = Callable[[Leaf], int]
Trains = Callable[[Leaf, str], bool]  # whether a leaf's parameter of that name is trained


class Rule(NamedTuple):
    """Bytes a leaf has in flight, bytes it saves for backward, and when it saves them.

    `when` is `weight` (where its weight is trained), `backward` (where anything below the
    classifier is trained: the gradient passes it) or `never`.
    """

    in_flight: Count
    saved: Count
    when: str


def nothing(leaf: Leaf) -> int:
    """Not counted."""
    return 0


def inputs(leaf: Leaf) -> int:
    """What it reads, in float32."""
    return 4 * leaf.x


def inputs_and_outputs(leaf: Leaf) -> int:
    """What it reads and writes; of a grouped convolution's output, one group at a time."""
    return 4 * leaf.x + 4 * leaf.y // leaf.groups


def a_bit_each(leaf: Leaf) -> int:
    """One bit for each value (channels come in multiples of 8)."""
    return leaf.x // 8


RULES: dict[str, Rule] = {
    "conv": Rule(inputs_and_outputs, inputs, "weight"),
    "linear": Rule(inputs_and_outputs, inputs, "weight"),
    "norm": Rule(inputs, inputs, "weight"),
    "relu": Rule(inputs, a_bit_each, "backward"),
    "relu6": Rule(inputs, a_bit_each, "backward"),
    "hard_swish": Rule(inputs, inputs, "backward"),
    "hard_sigmoid": Rule(inputs, inputs, "backward"),
    "add": Rule(nothing, nothing, "never"),
    "dropout": Rule(nothing, nothing, "never"),
    "pool": Rule(nothing, nothing, "never"),
    "upsample": Rule(nothing, nothing, "never"),
}


def only_last(leaf: Leaf, name: str) -> bool:
    """The classifier, which every column trains."""
    return leaf.part == "classifier"


def norms(leaf: Leaf, name: str) -> bool:
    """Scales and shifts of all norms."""
    return leaf.kind == "norm" or only_last(leaf, name)


def biases(leaf: Leaf, name: str) -> bool:
    """All biases and shifts."""
    return name == "bias" or only_last(leaf, name)


def lite(leaf: Leaf, name: str) -> bool:
    """The lite residual modules."""
    return leaf.part.startswith("lite") or only_last(leaf, name)


def lite_and_biases(leaf: Leaf, name: str) -> bool:
    """Both; a module's last shift is frozen, since the block's own last shift is added to the same map."""
    return (lite(leaf, name) or biases(leaf, name)) and (leaf.part, name) != ("lite_final", "bias")


def everything(leaf: Leaf, name: str) -> bool:
    """Full fine-tuning."""
    return True


COLUMNS: dict[str, Trains] = {
    "Last": only_last,
    "Norm+Last": norms,
    "B": biases,
    "L": lite,
    "L+B": lite_and_biases,
    "Full": everything,
}
PARAMETER_BYTES = {
    "Last": "5138576",
    "Norm+Last": "5264432",
    "B": "5201504",
    "L": "10587824",
    "L+B": "10633520",
    "Full": "18986360",
}
PUBLISHED = {  # MB at each resolution: 224 is the paper's Table 2
    "Last": {224: "31"},
    "Norm+Last": {224: "192"},
    "B": {224: "32"},
    "L": {224: "37"},
    "L+B": {320: "64.7", 288: "54.4", 256: "45.2", 224: "37", 192: "30.1", 160: "24.2"},
    "Full": {224: "391", 192: "292.4", 160: "208.7", 128: "140.5", 96: "87.2"},
}
FULL_WITHOUT_MODULES = "366.97"


@dataclass(frozen=True)
class Memory:
    """Bytes of the parameters, and of the activations at the peak of the whole batch."""

    parameters: int
    activations: int

    @property
    def mb(self) -> float:
        """Their sum in MB (1e6 bytes)."""
        return (self.parameters + self.activations) / 1e6


def training_memory(network: Sequence[Leaf], trains: Trains, *, batch: int = BATCH) -> Memory:
    """What TinyTL's rule counts for these leaves; raises UnknownNameError on a kind it has no rule for."""
    backward = any(trains(leaf, name) for leaf in network if leaf.part != "classifier" for name in leaf.parameters)
    parameters = saved = peak = 0
    for leaf in network:
        rule = rule_of(leaf)
        parameters += sum(size * (4 if trains(leaf, name) else 1) for name, size in leaf.parameters.items())
        peak = max(peak, rule.in_flight(leaf) + saved + 4 * leaf.skip)
        if (rule.when == "weight" and trains(leaf, "weight")) or (rule.when == "backward" and backward):
            saved += rule.saved(leaf)
    return Memory(parameters, batch * peak)


def rule_of(leaf: Leaf) -> Rule:
    """The rule of the leaf's kind."""
    if leaf.kind not in RULES:
        raise unknown("kind of leaf", leaf.kind, RULES)
    return RULES[leaf.kind]


def results() -> list[Result]:
    """Every TinyTL figure, and the exact bytes and the one figure without modules that check the walk."""
    network = proxyless_mobile(CLASSES)
    rule, rows = "TinyTL's counting rule", []
    for column, series in PUBLISHED.items():
        for resolution, text in series.items():
            found = training_memory(leaves(network, resolution), COLUMNS[column]).mb
            rows.append(Result("tinytl", f"training memory, {column} at {resolution}", "MB", text, found, rule))
    for column, text in PARAMETER_BYTES.items():
        found = training_memory(leaves(network, RESOLUTION), COLUMNS[column]).parameters
        rows.append(Result("tinytl", f"parameters, {column}", "bytes", text, found, "exact bytes", REDERIVED))
    bare = training_memory(leaves(network, RESOLUTION, lite_residual=False), everything).mb
    quantity = f"training memory, Full without lite residual modules at {RESOLUTION}"
    return [*rows, Result("tinytl", quantity, "MB", FULL_WITHOUT_MODULES, bare, rule, REDERIVED)]
