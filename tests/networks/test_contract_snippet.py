"""The promised way of using minitl from Python, as it is written in the contract."""

from __future__ import annotations

import json

import numpy as np

import minitl


def test_the_snippet_runs() -> None:
    array = minitl.networks.mobilenet_v3_small(num_classes=10, seed=1).state_dict()
    x, labels = np.random.default_rng(0).standard_normal((2, 40, 40, 3)).astype("float32"), [3, 7]

    net = minitl.networks.mobilenet_v3_small(num_classes=10, seed=0)
    net.load_state_dict({name: array[name] for name in net.state_dict()})
    net = minitl.methods.get("mobiletl", blocks=5).apply(net)
    tape = minitl.Tape()
    logits = net(tape, x)
    loss = minitl.cross_entropy(tape, logits, labels)
    grads = tape.backward(loss)
    text = str(minitl.accounting.ledger(tape))
    predicted = minitl.accounting.predict(net, batch=2, resolution=40)

    assert logits.value.shape == (2, 10)
    assert grads.keys() == net.trained_parameters().keys()
    assert all(isinstance(gradient, np.ndarray) for gradient in grads.values())
    found = minitl.accounting.ledger(tape)
    assert predicted.rows == found.rows
    assert predicted.kept_bytes == found.kept_bytes == sum(row.bytes for row in found.rows) > 0
    assert "features.8.block.0.2" in text
    assert "hard_swish:sign" in text
    assert json.loads(json.dumps(found.to_json()))["totals"]["kept_bytes"] == found.kept_bytes
    assert found.to_csv().count("\n") == len(found.rows) + 1


def test_networks_have_the_promised_keywords_and_a_seed() -> None:
    for name in ("mobilenet_v3_small", "mobilenet_v3_large", "mobilenet_v2", "proxyless_mobile", "digits_irb"):
        build = getattr(minitl.networks, name)
        one, again, other = (
            build(num_classes=3, seed=seed, width=0.25, dropout=0.1, dtype="float64") for seed in (1, 1, 2)
        )
        states = [{k: v.tobytes() for k, v in net.state_dict().items()} for net in (one, again, other)]
        assert states[0] == states[1] != states[2]
        assert one.predict(np.zeros((1, 32, 32, 3))).dtype == np.float64


def test_errors_are_value_errors_that_say_what_to_do() -> None:
    assert issubclass(minitl.MinitlError, ValueError)
    error = minitl.MinitlError(op="relu", expected="a", got="b", remedy="do c").at("features.1").at("features.2")
    assert str(error) == "features.1 (relu): expected a, got b; do c"
