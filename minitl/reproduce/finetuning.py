"""The fine-tuning figure: MobileNetV3-Small at 224, batch 8, 100 classes, vanilla tuning of 1, 3, 5 and all blocks."""

from __future__ import annotations

from minitl import methods, networks
from minitl.accounting.paper_flops import PAPER_FIT
from minitl.reproduce.result import Result
from minitl.reproduce.steps import PaperStep, paper_step

KEPT = "kept tensors without dropout and loss"
PARAMETERS = "trained 4 bytes, frozen 1 byte a parameter"

# forward and backward MFLOPs, kept MB, parameter MB (the last, and kept for 1, read off the plot)
PUBLISHED = {
    "1": ("968.8", "284.3", "8.70+-0.03", "4.76+-0.03"),
    "3": ("972.1", "655.4", "23.1", "5.89+-0.03"),
    "5": ("975.0", "902.7", "35.9", "6.04+-0.03"),
    "all": ("1000.6", "1934.9", "129.7", "6.49+-0.03"),
}


def results() -> list[Result]:
    """Work, kept memory and parameters for each number of tuned blocks, and the two headline savings."""
    steps = {blocks: _step(blocks) for blocks in PUBLISHED}
    rows = []
    for blocks, (forward, backward, kept, parameters) in PUBLISHED.items():
        step = steps[blocks]
        work = step.flops
        for quantity, unit, published, computed, convention in (
            ("forward", "MFLOPs", forward, work.forward / 1e6, PAPER_FIT),
            ("backward", "MFLOPs", backward, (work.grad_input + work.grad_weight) / 1e6, PAPER_FIT),
            ("kept", "MB", kept, step.kept_bytes / 1e6, KEPT),
            ("parameters", "MB", parameters, step.parameter_bytes / 1e6, PARAMETERS),
        ):
            rows.append(Result("finetuning", f"{quantity}, {blocks} blocks", unit, published, computed, convention))
    five, everything = steps["5"], steps["all"]
    saved_work = 1 - five.flops.total / everything.flops.total
    memory = [step.kept_bytes + step.parameter_bytes for step in (five, everything)]
    rows.append(Result("finetuning", "FLOPs saved, 5 blocks against all", "%", "36", 100 * saved_work, PAPER_FIT))
    saved_memory = 100 * (1 - memory[0] / memory[1])
    rows.append(Result("finetuning", "memory saved, 5 blocks against all", "%", "69", saved_memory, PARAMETERS))
    return rows


def _step(blocks: str) -> PaperStep:
    method = methods.get("ft-all") if blocks == "all" else methods.get("ft-blocks", blocks=int(blocks))
    return paper_step(method.apply(networks.mobilenet_v3_small(num_classes=100)), batch=8, resolution=224)
