"""The convolution layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minitl import carried, ops
from minitl.arrays import Array
from minitl.errors import MinitlError, RuleError
from minitl.layers.plan import LayerPlan
from minitl.layers.product import Product
from minitl.ops.op import NORMALISATION
from minitl.ops.rules.subspace import BASES, IN_SUBSPACE, shapes_of
from minitl.ops.rules.subspace import RULES as SUBSPACE
from minitl.parameters import Parameter
from minitl.pixels import PIXELS, Normalisation
from minitl.records import Var
from minitl.tape import Tape


def drawn(shape: tuple[int, ...], rng: np.random.Generator, dtype: str) -> Array:
    """A weight (O, C, k, k) as torchvision draws it: normal, of variance 2 / (O k k) (He et al. 2015, by fan-out)."""
    fan_out = shape[0] * shape[2] * shape[3]
    weight: Array = rng.standard_normal(shape) * np.sqrt(2.0 / fan_out)
    return weight.astype(dtype)


class Conv(Product):
    """Convolution with weight (O, C / groups, k, k): pointwise, depthwise or dense, as its shape says."""

    def __init__(
        self,
        path: str,
        role: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = False,
        rng: np.random.Generator,
        dtype: str,
    ) -> None:
        shape = (outputs, 1 if depthwise else inputs, kernel, kernel)
        parameters = {"weight": drawn(shape, rng, dtype)}
        if bias:
            parameters["bias"] = np.zeros(outputs, dtype)
        super().__init__(path, role, parameters)
        self.op = ops.depthwise_conv if depthwise else ops.pointwise_conv if kernel == 1 else ops.conv
        self.attrs = {} if self.op is ops.pointwise_conv else {"stride": stride}
        self.bases: tuple[Parameter, ...] = ()  # of its input, for the rules that have any
        self.normalisation: Normalisation | None = None  # of images in pixels, which a stem may be given

    @property
    def rules(self) -> tuple[str, ...]:
        """The op's, and without a bias those of `ops.rules.subspace`."""
        return self.op.rules if "bias" in self.parameters else (*self.op.rules, *SUBSPACE)

    @property
    def exact(self) -> bool:
        """Whether its backward rule is the derivative of its forward."""
        return self.plan.rule not in SUBSPACE and super().exact

    def apply(self, plan: LayerPlan) -> None:
        """Follow `plan` from now on; what was carried for the one before is forgotten."""
        super().apply(plan)
        self.bases = ()

    def carried(self) -> dict[str, Array]:
        """The channels chosen, or the bases."""
        return {p.name.rpartition(".")[2]: p.value for p in self.bases} or super().carried()

    def carry(self, arrays: Mapping[str, Array]) -> None:
        """Go on with these."""
        if self.plan.rule not in SUBSPACE or not arrays:
            super().carry(arrays)
            return
        dtype = self.parameters["weight"].dtype
        if set(arrays) != set(BASES) or not all(a.ndim == 2 and a.dtype == dtype for a in arrays.values()):
            raise ValueError(f"{self.path}: {list(arrays)} are not its bases")
        self.bases = tuple(Parameter(f"{self.path}.{name}", arrays[name].copy(), state=True) for name in BASES)

    @property
    def settings(self) -> tuple[Any, ...]:
        """Plans, and what makes numbers of pixels."""
        return (*super().settings, self.normalisation)

    def __call__(self, tape: Tape, x: Var) -> Var:
        """Convolve x (N, H, W, C), which may be images in pixels where it is known by what to normalise them."""
        if x.value.dtype == PIXELS:
            return self._run(tape, self.op, x, *self.parameters.values(), attrs=self._of_pixels())
        if self.plan.rule in SUBSPACE and tape.training:
            op, bases = IN_SUBSPACE[self.op.name], self._bases(tape, x)
            y = self._run(tape, op, x, self.parameters["weight"], *bases, attrs=self.attrs)
            return self._joined(tape, x, y)
        return self._multiply(tape, x, self.attrs)

    def _of_pixels(self) -> dict[str, Any]:
        """Its attributes, for images in pixels; raises RuleError where it cannot read them."""
        problem = "no mean and standard deviation are known" if self.normalisation is None else ""
        if self.plan.rule or self.op is not ops.conv:
            problem = f"the rule {self.plan.rule}" if self.plan.rule else "a 1 x 1 convolution"
            problem = f"{problem} cannot read pixels"
        if problem:
            remedy = "normalise the images: give them as numbers"
            raise RuleError(problem, layer=self.path, op=self.op.name, remedy=remedy)
        return {**self.attrs, NORMALISATION: tuple(self.normalisation or ())}

    def _bases(self, tape: Tape, x: Var) -> tuple[Parameter, ...]:
        """The bases for an input of that shape, made where there are none."""
        try:
            shapes = shapes_of(x.shape, self.plan.ranks)
        except MinitlError as error:
            raise error.at(self.path) from None
        if not tape.computes:
            return carried.stand_ins(self.path, x.value.dtype, shapes)
        if tuple(p.value.shape for p in self.bases) != shapes:
            self.bases = carried.bases(self.path, x.value, shapes, self.plan.rule)
        return self.bases

    def gated(self, tape: Tape, x: Var, gate: Var) -> Var:
        """Convolve gate x, for a pointwise convolution without bias, without building the product."""
        if self.plan.rule or self.plan.pattern or self.adaptor:
            what = f"rule {self.plan.rule} cannot encode" if self.plan.rule else "nothing can read"
            problem = f"{what} an input that the gate's rule folded never builds"
            raise RuleError(problem, layer=self.path, op=self.op.name, remedy="give se_scale another rule")
        return self._run(tape, ops.gated_conv, x, gate, self.parameters["weight"])
