"""A case: one computation with all its inputs, its true results, and how exact a result must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from minitl.arrays import Array, Shape
from minitl.oracle.bounds.precision import BY_DTYPE

SCHEMA = "minitl-oracle/1"
GIVEN = ("input.", "param.", "buffer.")  # to the forward pass
INPUTS = (*GIVEN, "grad_output")
BY_SAMPLE = ("quantised8", "quantised4", "quantised2", "razor")  # rules whose codes are packed sample by sample
CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(eq=False)
class Case:
    """One case of the oracle; `tensors` holds inputs, expected results (float64) and bounds by name.

    `kept` are the ledger's rows, `macs` and `flops` its totals.
    """

    name: str
    op: str
    attrs: dict[str, Any]
    method: str
    rule: str
    layout: str
    dtype: str
    approximate_gradient: bool
    tensors: dict[str, Array]
    kept: list[dict[str, Any]]
    macs: dict[str, Any]
    flops: dict[str, Any]
    conventions: dict[str, Any]
    generator: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Array]:
        """What an implementation is given: copies, so that it may overwrite them."""
        return {name: t.copy() for name, t in self.tensors.items() if name.startswith(INPUTS)}

    @property
    def expected(self) -> dict[str, Array]:
        """What it is to find."""
        return {name: t for name, t in self.tensors.items() if not name.startswith((*INPUTS, "tol."))}

    @property
    def required(self) -> list[str]:
        """Names of the results that must be there: all but what is kept for backward."""
        return [name for name in self.expected if not name.startswith("kept.")]

    def tolerance(self, name: str, dtype: str) -> Array | None:
        """Elementwise bound of a result in that dtype; None if the case does not serve it."""
        return self.tensors.get(f"tol.{BY_DTYPE[dtype].name}.{name}") if dtype in BY_DTYPE else None

    def row(self, name: str) -> dict[str, Any]:
        """The ledger's row of a kept tensor."""
        for row in self.kept:
            if name == kept_name(row["layer"], row["tensor"]):
                return row
        raise KeyError(name)

    def check(self, got: Mapping[str, Any], only: str | None = None) -> Any:
        """Compare; raise `Mismatch`, whose text is the report, if anything is wrong."""
        from minitl.oracle.report import Mismatch

        report = self.compare(got, only)
        if not report.ok:
            raise Mismatch(report)
        return report

    def compare(self, got: Mapping[str, Any], only: str | None = None) -> Any:
        """Compare what was computed with what is expected; see `compare.compare`."""
        from minitl.oracle.compare import compare

        return compare(self, got, only)


def kept_name(layer: str, tensor: str) -> str:
    """`kept.LAYER.TENSOR`, or `kept.TENSOR` in a single op's case."""
    return ".".join(("kept", *([layer] if layer else []), tensor))


def to_layout(array: Array, layout: str) -> Array:
    """A map (N, H, W, C) in that layout; anything else as it is."""
    return array.transpose(CHANNELS_FIRST).copy() if layout == "nchw" and array.ndim == 4 else array


def from_layout(array: Array, layout: str) -> Array:
    """The inverse of `to_layout`."""
    return array.transpose(CHANNELS_LAST).copy() if layout == "nchw" and array.ndim == 4 else array


def shape_in(shape: Shape, layout: str) -> Shape:
    """The shape of a map (N, H, W, C) in that layout."""
    return tuple(shape[i] for i in CHANNELS_FIRST) if layout == "nchw" and len(shape) == 4 else tuple(shape)


def shape_from(shape: Shape, layout: str) -> Shape:
    """The inverse of `shape_in`."""
    return tuple(shape[i] for i in CHANNELS_LAST) if layout == "nchw" and len(shape) == 4 else tuple(shape)


def is_map(name: str) -> bool:
    """Whether the tensor of that name flows through the network, and so follows the layout."""
    base = name.split(".", 2)[2] if name.startswith("tol.") else name
    return base.startswith(("input.", "output", "grad_output", "grad_input.", "kept."))
