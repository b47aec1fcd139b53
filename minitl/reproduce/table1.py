"""Table 1: blocks against a dense convolution of the same width; 96 -> 96 channels, 5x5, 7x7, batch 8.

The blocks have expansion 1 with the expanding convolution in place, and SE reduces to 24. In
the row of the dense convolution the FLOPs are those of the convolution alone, but parameters
and kept memory those of convolution, norm and ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minitl import methods, networks
from minitl.accounting.paper_flops import PAPER_FIT
from minitl.arrays import size
from minitl.blocks import ConvNorm, ConvSpec
from minitl.layers import Activation, Layer, LayerPlan
from minitl.networks.model import Model
from minitl.networks.network import build
from minitl.records import Var
from minitl.reproduce.result import CANDIDATE, Result
from minitl.reproduce.steps import PaperStep, paper_step
from minitl.tape import Tape

KEPT = "norm: x_hat and inv_std; ReLU and ReLU6 1 bit; Hard-Swish its input"
TRIED = (
    "small integer coefficients of every kind of op were searched: none that keep 2m - W for the gW of a 1x1 "
    "convolution, which the fine-tuning figure demands, give the blocks too; with 2m they come out: the candidate"
)
ROWS = {  # parameters, MFLOPs, kept MB
    "Conv": ("230592", "541.67", "0.306"),
    "MBV2": ("21408", "51.56", "0.913"),
    "MBV3": ("26136", "52.91", "1.362"),
}


class DenseBlock(Model):
    """A dense 5x5 convolution, a norm and a ReLU, in the midst of a network: its input wants a gradient."""

    def __init__(self) -> None:
        spec = ConvSpec("stem", 96, 96, 5, 1, activation="relu")
        self.block = ConvNorm(spec, ("conv", "norm", "act"), build(0, "float32", eps=1e-5, momentum=0.1))
        super().__init__("dense", [], input_channels=96, dtype="float32")

    def run(self, tape: Tape, x: Var) -> Var:
        """The block's output."""
        return self.block(tape, tape.variable(x))

    def loss(self, tape: Tape, output: Var, labels: Any) -> Var:
        """The output itself, so that what is differentiated is its sum."""
        return output

    def layers(self) -> Iterator[Layer]:
        """Convolution, norm, ReLU."""
        return self.block.layers()


def results() -> list[Result]:
    """Parameters, FLOPs and kept memory of the three rows."""
    rows = []
    for name, step in _steps().items():
        work = step.work["stem"] if name == "Conv" else step.flops
        computed = step.parameters, work.total / 1e6, step.kept_bytes / 1e6
        conventions = "weights, scales, shifts, biases", PAPER_FIT, KEPT
        for quantity, unit, published, value, convention in zip(
            ("parameters", "FLOPs", "kept"), ("", "MFLOPs", "MB"), ROWS[name], computed, conventions, strict=True
        ):
            row = Result("table1", f"{quantity}, {name}", unit, published, value, convention)
            rows.append(replace(row, note=TRIED) if row.verdict == "differs" else row)
        if name != "Conv":
            whole = (step.flops.total + _convolution_weights(step)) / 1e6
            convention = f"{PAPER_FIT}, 1x1 and depthwise gW 2m instead of 2m - W"
            rows.append(Result("table1", f"FLOPs, {name}", "MFLOPs", ROWS[name][1], whole, convention, CANDIDATE))
    return rows


def _convolution_weights(step: PaperStep) -> int:
    roles = ("expand", "depthwise", "project")
    return sum(size(record.shapes[1]) for record in step.records if record.role in roles)


def _steps() -> dict[str, PaperStep]:
    narrow: dict[str, Any] = {"expanded_channels": 96, "kernel": 5, "input_grad": True}
    models: dict[str, Model] = {
        "Conv": DenseBlock(),
        "MBV2": networks.irb(activation="relu6", se_channels=0, **narrow),
        "MBV3": networks.irb(activation="hard_swish", se_channels=24, **narrow),
    }
    for model in models.values():
        methods.get("ft-all").apply(model)
        for layer in model.layers():
            if isinstance(layer, Activation) and "band" in layer.op.rules:
                layer.apply(LayerPlan(rule="band"))  # the table fits 1 bit for ReLU6
    return {name: paper_step(model, batch=8, resolution=7) for name, model in models.items()}
