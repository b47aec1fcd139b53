"""A method: for every layer, what trains and by which backward rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from minitl.checks import expect_count
from minitl.errors import MinitlError, RuleError, UsageError, ValueRangeError, brief, unknown
from minitl.layers import Activation, Adaptor, Conv, Layer, LayerPlan, Linear, Norm, Product
from minitl.networks.model import Model
from minitl.networks.network import Network
from minitl.ops.op import EXACT
from minitl.parameters import Parameter
from minitl.sides import LowRank, Side

M = TypeVar("M", bound=Model)

DEFAULT_BLOCKS = 5  # as in the paper's headline figures


@dataclass(frozen=True)
class Method:
    """A policy from a layer's role and height to its plan.

    `policy(layer, blocks)` sees `layer.role` and `layer.height` (0 above the blocks, 1 for the
    top block, and so on down). `takes_blocks` says whether the number of tuned blocks is the
    user's choice; where it is not, `blocks` is None.

    Options of every method: `quantised` holds the weights of convolutions and linear layers that
    are not trained as int8, with one scale per output channel, and multiplies them out where they
    are used; norms and biases stay as they are. `checkpoint` keeps only the input of each tuned
    block and runs the block again in backward. `rules` are pairs of a role or an activation's
    name and the backward rule it takes instead of the policy's.

    `sides` makes the modules that stand beside the blocks, by the blocks' numbers; `rank` says of a
    convolution or linear layer of what rank a low-rank adaptor stands beside it, 0 for none. Both stay where
    the network already has those of this method, and a method without takes them away.

    `late` is the policy of the last hundredth of a training run, where that is another.

    `summary` says in short what trains, `keeps` what is held for backward, `published` where the method is from.
    """

    name: str
    summary: str
    policy: Callable[[Layer, int], LayerPlan]
    takes_blocks: bool = False
    blocks: int | None = None
    quantised: bool = False
    checkpoint: bool = False
    rules: tuple[tuple[str, str], ...] = ()
    sides: Callable[[Network], Mapping[int, Side]] | None = None
    rank: Callable[[Product, int], int] | None = None
    late: Callable[[Layer, int], LayerPlan] | None = None
    keeps: str = ""
    published: str = ""

    def __repr__(self) -> str:
        options = [f"{self.blocks} blocks"] if self.blocks else []
        options += ["quantised"] * self.quantised + ["checkpoint"] * self.checkpoint
        options += [f"{what}={rule}" for what, rule in self.rules]
        return f"<Method {', '.join([self.name, *options])}: {self.summary}>"

    def with_blocks(self, blocks: int | None) -> Method:
        """The method with that many tuned blocks; raises where the method does not take a number."""
        if blocks is not None and not self.takes_blocks:
            raise ValueRangeError(
                f"method {self.name} does not take a number of blocks, got blocks={brief(blocks)}",
                remedy="leave blocks out, or use ft-blocks or mobiletl",
            )
        return replace(self, blocks=blocks)

    def apply(self, network: M) -> M:
        """Give every layer of `network` its plan, replacing any earlier one, and return the network.

        The number of blocks must be from 1 to the network's; by default it is 5, or all where
        there are fewer. `rules` must be for activations that the network has. Whatever is refused
        is refused before anything has changed.
        """
        if not isinstance(network, Model):
            raise UsageError(op=self.name, expected="a network or a block to tune", got=brief(repr(network)))
        blocks = self.resolve(len(network.blocks), network.name)
        self._check_rules(network)
        plans = self._plans(network, blocks or 0)
        for layer, plan in plans.items():
            layer.apply(plan)
            for parameter in layer.parameters.values():
                if self._quantises(parameter, plan):
                    parameter.quantise()
                else:
                    parameter.restore()
        network.method, network.tuned_blocks, network.checkpoint = self.name, blocks, self.checkpoint
        network.late = replace(self, policy=self.late, late=None).apply if self.late else None
        return network

    def _plans(self, network: Model, blocks: int) -> dict[Layer, LayerPlan]:
        """Every layer's plan, with this method's modules and adaptors there; where one is refused, as it was before."""
        if self.sides and not isinstance(network, Network):
            problem = "its side modules need a whole network, not a single block"
            raise UsageError(problem, op=self.name, layer=network.name)
        sides, adaptors = network.sides, network.adaptors
        try:
            if network.method != self.name:
                network.attach(self.sides(network) if self.sides and isinstance(network, Network) else {})
            network.adapt(self._adaptors(network, blocks))
            plans = {layer: self._checked_plan(layer, blocks) for layer in network.layers()}
            _expect_shared(network, plans)
        except MinitlError:
            network.attach(sides)
            network.adapt(adaptors)
            raise
        return plans

    def _adaptors(self, network: Model, blocks: int) -> dict[str, Adaptor]:
        """The adaptors by their layers' paths; those that the network has by this method already."""
        known = network.adaptors if network.method == self.name else {}
        products = [layer for layer in network.layers() if isinstance(layer, Product)] if self.rank else []
        ranks = {layer: self.rank(layer, blocks) for layer in products if self.rank}
        return {layer.path: known.get(layer.path) or LowRank(layer, rank) for layer, rank in ranks.items() if rank}

    def _check_rules(self, network: Model) -> None:
        acts = [layer for layer in network.layers() if isinstance(layer, Activation)]
        convs = [layer for layer in network.layers() if isinstance(layer, Conv)]
        known = dict.fromkeys([act.op.name for act in acts] + [layer.role for layer in (*acts, *convs)])
        for what, rule in self.rules:
            if what not in known:
                raise unknown("activation or role", what, known, layer=network.name)
            if not rule:
                raise ValueRangeError(layer=network.name, expected=f"a backward rule for {what}", got="none")
            for layer in convs:  # also one that is frozen, and will keep nothing
                if layer.role == what and rule not in layer.rules:
                    raise unknown("backward rule", rule, layer.rules, layer=layer.path)

    def _checked_plan(self, layer: Layer, blocks: int) -> LayerPlan:
        """The layer's plan, which the layer can follow."""
        try:
            plan = self._plan(layer, blocks)
            layer.check(plan)
        except MinitlError as error:
            raise error.at(layer.path) from None
        for parameter in layer.parameters.values():
            if self._quantises(parameter, plan) and parameter.scale is None:
                parameter.expect_quantisable()
        return plan

    def _quantises(self, parameter: Parameter, plan: LayerPlan) -> bool:
        trained = parameter.name.rpartition(".")[2] in plan.train
        return self.quantised and parameter.value.ndim > 1 and not trained

    def _plan(self, layer: Layer, blocks: int) -> LayerPlan:
        plan = self.policy(layer, blocks)
        for name, rule in self.rules:
            if isinstance(layer, Conv) and not plan.train:
                continue  # it keeps nothing
            if isinstance(layer, Activation | Conv) and name in (layer.role, layer.op.name):
                usual = isinstance(layer, Conv) and rule == EXACT  # what it does without being told
                plan = replace(plan, rule="" if usual else rule)
        return plan

    def resolve(self, available: int, network: str) -> int | None:
        """The number of blocks this method tunes in a network that has `available`."""
        if not self.takes_blocks:
            return None
        blocks = min(DEFAULT_BLOCKS, available) if self.blocks is None else self.blocks
        return expect_count("blocks", blocks, most=available, layer=network)


def _expect_shared(network: Model, plans: Mapping[Layer, LayerPlan]) -> None:
    """Raise RuleError where an activation's rule reads its output from a convolution that keeps it encoded."""
    for act, conv in (pair for block in network.blocks for pair in block.feeds()):
        rule = plans[conv].rule
        if plans[act].rule == "output" and plans[conv].train and rule:
            problem = f"rule output reads what {conv.path} keeps, which its rule {rule} encodes"
            raise RuleError(problem, layer=act.path, op=act.op.name, remedy="give one of them another rule")


def trained_as_usual(layer: Layer) -> LayerPlan:
    """All parameters; batch statistics in a norm; an activation's baseline rule."""
    trained = frozenset(name for name in layer.parameters if name in layer.trainable)
    return LayerPlan(train=trained, statistics="batch" if isinstance(layer, Norm) else "frozen")


def is_final_linear(layer: Layer) -> bool:
    """Whether the layer gives the logits; every method trains it."""
    return isinstance(layer, Linear) and layer.final
