"""EF-Train's measured total for VGG-16's convolutions, beside its cycle model (`devices.ef_train_cycles`).

Tang et al., TODAES 27(5) 2022, arXiv:2202.10935: 46.99 GFLOP/s for forward, input and weight
gradients of the 13 convolutions at 224 x 224. The batch is not stated; the model's figure grows with
it, from 0.4 % above the measured one at batch 1 to 2.2 % at batch 128. The cycle totals are those
of the published scheduler, set to the board's 16 x 16 array.
"""

from __future__ import annotations

from minitl import devices, methods, networks
from minitl.accounting.device import estimate
from minitl.devices.ef_train import ARRAY, HERTZ
from minitl.devices.ef_train_cycles import Conv, forward, grad_input, grad_weight
from minitl.devices.work import KNOWN
from minitl.reproduce.result import REDERIVED, Result

MEASURED = "46.99"
MODEL = "the model leaves out what only a board shows, and is 0.4 % (batch 1) to 2.2 % (128) above it"
SCHEDULER = {1: "194875424", 2: "386161384", 16: "3064164824", 128: "24488192344"}
VGG_16 = [  # output and input channels, side of the output
    (64, 3, 224), (64, 64, 224), (128, 64, 112), (128, 128, 112), (256, 128, 56), (256, 256, 56), (256, 256, 56),
    (512, 256, 28), (512, 512, 28), (512, 512, 28), (512, 512, 14), (512, 512, 14), (512, 512, 14),
]  # fmt: skip


def passes(batch: int) -> tuple[int, int]:
    """Cycles and FLOPs of the 38 passes: no input gradient for the lowest convolution."""
    convs = [Conv(outputs, inputs, side, side, 3, 1, batch) for outputs, inputs, side in VGG_16]
    todo = [(model, conv) for model in (forward, grad_weight) for conv in convs]
    todo += [(grad_input, conv) for conv in convs[1:]]
    cycles = sum(model(conv, ARRAY) or 0 for model, conv in todo)
    return cycles, sum(2 * conv.macs for _, conv in todo)


def results() -> list[Result]:
    """Throughput at the two ends of batch, and the cycle totals."""
    rows = []
    for batch in (min(SCHEDULER), max(SCHEDULER)):
        cycles, flops = passes(batch)
        rate, quantity = flops / cycles * HERTZ / 1e9, f"VGG-16 convolutions, batch {batch}"
        against = "cycle model against a measurement"
        rows.append(Result("ef-train", quantity, "GFLOP/s", MEASURED, rate, against, note=MODEL))
    for batch, text in SCHEDULER.items():
        quantity = f"VGG-16 convolutions, 38 passes, batch {batch}"
        rows.append(Result("ef-train", quantity, "cycles", text, passes(batch)[0], "cycle model", REDERIVED))
    return rows + _of_mobilenet_v2()


def _of_mobilenet_v2() -> list[Result]:
    """What the model says of a full step of MobileNetV2, batch 8 at 224: its stem and 1x1 convolutions have a time."""
    tuned = methods.get("ft-all").apply(networks.mobilenet_v2())
    step = estimate(tuned, devices.get("ef-train"), batch=8, resolution=224)
    flops = sum(row.work.flops for row in step.rows if row.answer.kind == KNOWN)
    model = "cycle model, its known part"
    rate, peak = flops / step.seconds(KNOWN), 2 * ARRAY.tile**2 * HERTZ
    return [
        Result("ef-train", f"MobileNetV2, stem and 1x1 convolutions, {what}", unit, text, value, model, REDERIVED)
        for what, unit, text, value in (
            ("work of a step of 8", "GFLOP", "13.21", flops / 1e9),
            ("time of a step of 8", "s", "2.08", step.seconds(KNOWN)),
            ("rate", "GFLOP/s", "6.35", rate / 1e9),
            ("of the array's peak", "%", "12", 100 * rate / peak),
        )
    ]
