"""timm's own models, for comparison: with random weights and statistics, in float64."""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional


@cache
def import_timm() -> Any:
    """The timm package, or the test is skipped.

    timm imports torchvision only for what these models do without. Where that package lacks its
    compiled ops, an empty one whose modules are those installed stands in for it.
    """
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("timm is not installed")
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
            del sys.modules[name]
        empty, spec = ModuleType("torchvision"), find_spec("torchvision")
        assert spec
        assert spec.submodule_search_locations
        empty.__path__ = list(spec.submodule_search_locations)
        sys.modules["torchvision"] = empty
    import timm

    return timm


class HardSigmoid(nn.Module):
    """PyTorch's own multiplies by 1/6 in float32 even where x is float64, and so does its Hard-Swish."""

    def forward(self, x: Any) -> Any:
        return functional.relu6(x + 3) / 6


class HardSwish(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * (functional.relu6(x + 3) / 6)


OWN = {"hardsigmoid": HardSigmoid, "hardswish": HardSwish}


def exact(module: nn.Module) -> None:
    for name, child in module.named_children():
        own = OWN.get(type(child).__name__.lower())
        if own:
            setattr(module, name, own())
        else:
            exact(child)


def timm_model(name: str, classes: int, seed: int = 0) -> Any:
    """A model whose biases, scales and statistics are random, and whose logits differ."""
    options = {"bn_eps": 1e-3} if name == "fbnetc_100" else {}  # timm sets it for the pretrained weights alone
    model = import_timm().create_model(name, num_classes=classes, **options).double()
    exact(model)
    randomise(model, seed)
    return model


def randomise(model: Any, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    state = {}
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            array = rng.uniform(0.5, 2, value.shape)
        elif value.ndim == 1:
            low, high = (0.5, 1.5) if key.endswith("weight") else (-0.5, 0.5)
            array = rng.uniform(low, high, value.shape)
        elif value.ndim:
            array = rng.standard_normal(value.shape) * np.sqrt(2 / np.prod(value.shape[1:]))
        else:
            array = np.array(0)
        state[key] = torch.tensor(array)
    model.load_state_dict(state)
