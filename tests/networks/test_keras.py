"""Networks against Keras' own models, from its own files: `.keras`, `.weights.h5` and the older `.h5`.

`pytest -s tests/networks/test_keras.py` prints the differences found. Without Keras it is skipped.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import noise

import minitl

keras = pytest.importorskip("keras")

# Keras computes in float32 (u = 6e-8); through some 60 layers of sums the difference grows about a hundredfold.
TOLERANCE = 1e-5

CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "mobilenet_v2": ("MobileNetV2", {"alpha": 0.35}, "mobilenetv2_035", {}),
    "mobilenet_v3_small": (
        "MobileNetV3Small", {"include_preprocessing": False, "dropout_rate": 0.1}, "mobilenetv3_small_100", {}
    ),
    "mobilenet_v3_large": ("MobileNetV3Large", {"include_preprocessing": False}, "mobilenet_v3_large", {}),
    "efficientnet_b0": ("EfficientNetB0", {}, "efficientnet_b0", {"strict": False}),
}  # fmt: skip


def keras_model(name: str, options: dict[str, Any]) -> Any:
    """With random numbers everywhere, and logits instead of probabilities."""
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(64, 64, 3), classes=7, classifier_activation=None, **options)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        kind, shape = variable.path.rpartition("/")[2], variable.shape
        if kind in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif kind in ("beta", "moving_mean", "bias"):
            variable.assign(rng.uniform(-0.5, 0.5, shape))
        elif kind == "kernel":
            variable.assign(rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1])))
    return model


@pytest.mark.parametrize("form", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("case", CASES)
def test_logits(case: str, form: str, tmp_path: Path) -> None:
    name, options, ours, how = CASES[case]
    model, path = keras_model(name, options), tmp_path / f"net{form}"
    model.save_weights(path) if form == ".weights.h5" else model.save(path)
    net = minitl.networks.get(ours, num_classes=7)
    report = net.load(path, source="keras", **how)
    assert (report.missing, report.replaced, report.padding, report.eps) == ((), (), "same", 1e-3)
    assert [name for name in report.unexpected if not re.match(r"normalization(_\d+)?/", name)] == []
    images = noise((2, 64, 64, 3), 1, "float32")
    given = images
    if ours == "efficientnet_b0":  # its first two layers scale to 0..1 and normalise (by 0 and 1, untrained)
        given = images * 255
    expected = keras.ops.convert_to_numpy(model(given, training=False)).reshape(2, 7)
    off = abs(net.predict(images) - expected).max() / abs(expected).max()
    symmetric = minitl.networks.from_table({**net.table, "padding": "symmetric"})
    symmetric.load_state_dict(net.state_dict())
    without = abs(symmetric.predict(images) - expected).max() / abs(expected).max()
    print(f"\n{case} {form}: relative difference {off:.1e}, with symmetric padding {without:.1e}")
    assert off < TOLERANCE
    assert without > 20 * off
