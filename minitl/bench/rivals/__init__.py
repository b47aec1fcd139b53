"""The same steps in PyTorch, in every way that might be its fastest.

A variant is a form and a memory layout. `modules` is what a user of PyTorch writes, and knows nothing of
MobileTL; the other forms are MobileTL, as fast as we could make it:

    folded       the frozen inner norm is folded into the convolution's weight and bias; the activation
                 passes its gradient by the sign of its output, which the next convolution keeps anyway
    folded-mask  the same with a mask of bools that the activation keeps
    norm         the frozen inner norm is a batch norm in evaluation mode
    whole-block  a block is one autograd function, forward and backward written by hand

PyTorch is imported only where a rival is built.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from minitl.bench.cases import Case, Tuning

if TYPE_CHECKING:
    from minitl.bench.rivals.step import TorchStep

LAYOUTS = ("nchw", "channels_last")
MODULES, FOLDED, FOLDED_MASK, NORM, WHOLE_BLOCK = "modules", "folded", "folded-mask", "norm", "whole-block"
MOBILETL = (FOLDED, FOLDED_MASK, NORM, WHOLE_BLOCK)
REMEDY = "for the comparison with PyTorch: pip install torch==2.13.0"


def installed() -> bool:
    """Whether PyTorch can be imported."""
    return find_spec("torch") is not None


def variants(tuning: Tuning) -> list[str]:
    """What PyTorch offers for exactly this method (`tuning.vanilla` has offers besides)."""
    forms = MOBILETL if tuning.method == "mobiletl" else (MODULES,)
    return [f"{form} {layout}" for form in forms for layout in LAYOUTS]


def build(case: Case, tuning: Tuning, variant: str, threads: int, dtype: str = "float32") -> TorchStep:
    """The step in PyTorch, with the numbers that minitl's has."""
    import torch

    from minitl.bench.rivals.step import TorchStep

    torch.set_num_threads(threads)
    form, layout = variant.split(" ")
    return TorchStep(case.problem(tuning, dtype), form, layout)
