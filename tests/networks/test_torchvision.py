"""torchvision's own MobileNets through a file, in float64."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from models import noise

import minitl

torch = pytest.importorskip("torch")
from timm_models import import_timm, randomise  # noqa: E402

NAMES = {"mobilenet_v2": "mobilenetv2", "mobilenet_v3_small": "mobilenetv3", "mobilenet_v3_large": "mobilenetv3"}


@pytest.mark.parametrize("name", NAMES)
def test_logits(name: str, tmp_path: Path) -> None:
    """`import_timm` also makes torchvision's models importable where its compiled ops are missing."""
    import_timm()
    torch.set_num_threads(1)
    model = getattr(import_module(f"torchvision.models.{NAMES[name]}"), name)(num_classes=7).double().eval()
    randomise(model)
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    net = minitl.networks.get(name, num_classes=7, dtype="float64")
    report = net.load(path, source="torchvision")
    norms = {(m.eps, m.momentum) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert norms == {(report.eps, report.momentum)}
    images = noise((2, 65, 48, 3))
    expected = model(torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))).detach().numpy()
    off = abs(net.predict(images) - expected).max() / abs(expected).max()
    print(f"\n{name}: relative difference of logits {off:.1e}")
    assert off < 1e-10
