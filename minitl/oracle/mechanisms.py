"""Cases of what the systems around MobileTL do: inputs kept encoded or in a subspace, pruned weights, integers.

What an op would draw at random is given: `input.noise` holds the numbers in [0, 1) that its rounding adds.
float16 is not served: it would change codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minitl import ops
from minitl.arrays import Array, Shape
from minitl.ops.op import Op
from minitl.ops.rules import approximate, sparse, subspace
from minitl.ops.rules.quantised import BITS, GROUP, groups_of
from minitl.oracle.data import Source

_CONV: dict[str, Any] = {"channels": 3, "out_channels": 5, "kernel": 3, "stride": 1}
ATTRS: dict[str, dict[str, Any]] = {
    "coded_conv": {**_CONV, "rule": "quantised2", "kept_channels": "0,2", "train": "all"},
    "subspace_conv": {**_CONV, "channels": 6, "out_channels": 4, "rule": "subspace", "ranks": "2,2,3", "train": "all"},
    "integer_conv": {**_CONV, "channels": 6, "out_channels": 4, "groups": 2, "rule": "integer", "train": "all"},
    "pruned_conv": {"channels": 8, "out_channels": 8, "bias": False, "keep": 2, "of": 4, "train": "all"},
    "pruned_linear": {"channels": 8, "out_channels": 8, "bias": True, "keep": 2, "of": 4, "train": "all"},
    "multiply": {"channels": 5},
    "add_channels": {"channels": 5},
}
RULES: dict[str, tuple[str, ...]] = {
    "coded_conv": approximate.CODED, "subspace_conv": subspace.RULES, "integer_conv": ops.conv_int.rules
}  # fmt: skip
SECOND = {"multiply": "y", "add_channels": "v"}
_PRODUCTS = {"pruned_conv": "pointwise_conv", "pruned_linear": "linear"}


def rule(op: str, attrs: Mapping[str, Any]) -> str:
    """The backward rule of a case."""
    return sparse.RULE if op in _PRODUCTS else str(attrs.get("rule", ops.multiply.rules[0]))


def the_op(op: str, attrs: Mapping[str, Any]) -> Op:
    """minitl's own, of a case."""
    if op in _PRODUCTS:
        return sparse.SPARSE[_PRODUCTS[op]]
    kind = "pointwise_conv" if attrs.get("kernel") == attrs.get("stride") == 1 else "conv"
    if op == "subspace_conv":
        return subspace.IN_SUBSPACE[kind]
    return ops.conv_int if op == "integer_conv" else getattr(ops, kind if op == "coded_conv" else op)


def attrs(op: str, a: Mapping[str, Any], values: Mapping[str, Array]) -> dict[str, Any]:
    """The attributes of minitl's op; the numbers it would draw are `input.noise`."""
    made: dict[str, Any] = {name: a[name] for name in ("stride", "groups") if name in a and name in the_op(op, a).attrs}
    if op in _PRODUCTS:
        made["pattern"] = (a["keep"], a["of"])
    if a.get("rule") == approximate.CHANNELS:
        made["channels"] = tuple(map(int, a["kept_channels"].split(",")))
    if "input.noise" in values:
        made["seed"] = _Given(values["input.noise"])
    return made


class _Given(np.random.Generator):
    """A generator that gives the numbers it was given, one after another, each once."""

    def __init__(self, numbers: Array) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = self._left = np.asarray(numbers, np.float64).ravel()

    def random(self, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
        """The next numbers, into `out`, which minitl's ops always give."""
        now, self._left = np.split(self._left, [out.size])
        out[...] = now.reshape(out.shape)
        return out


def shapes(op: str, a: Mapping[str, Any], height: int, width: int) -> dict[str, Shape]:
    """Shapes of the parameters."""
    c, o, k = a["channels"], a.get("out_channels", 0), a.get("kernel", 1)
    if op in SECOND:
        return {}
    weight = (o, c) if op == "pruned_linear" else (o, c // a.get("groups", 1), k, k)
    found: dict[str, Shape] = {"weight": weight} | ({"bias": (o,)} if a.get("bias") else {})
    if op == "subspace_conv":
        ranks = tuple(map(int, a["ranks"].split(",")))
        found |= dict(zip(subspace.BASES, subspace.shapes_of((1, height, width, c), ranks), strict=True))
    return found


def noise(op: str, a: Mapping[str, Any], x: Shape, source: Source) -> dict[str, Array]:
    """`input.noise`, where the op rounds at random: of a group's 256 values each, or of gy's shape."""
    if a.get("rule") in BITS:
        return {"input.noise": source.uniform((groups_of(x), GROUP), 0.0, 1.0)}
    if op == "integer_conv":
        stride = a["stride"]
        y = (x[0], -(-x[1] // stride), -(-x[2] // stride), a["out_channels"])
        return {"input.noise": source.uniform(y, 0.0, 1.0)}
    return {}


def basis(shape: Shape, source: Source) -> Array:
    """A basis (K, D) of orthonormal rows, rounded to float32."""
    columns = subspace.orthonormal(source.normal(shape[::-1]))
    return np.ascontiguousarray(columns.T).astype(np.float32).astype(np.float64)
