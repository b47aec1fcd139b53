"""Every public call, with one argument after another replaced by something odd: refused in minitl's words, or taken."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from cases import SPECS, Dims, Spec, make
from models import batch, trained

import minitl
from minitl import methods
from minitl.accounting import ledger, measure, predict
from minitl.accounting.arena import Buffer, place
from minitl.accounting.plan import entries, plan
from minitl.errors import MinitlError, brief
from minitl.kernels import threads
from minitl.layers import LayerPlan
from minitl.step import loss_and_gradients
from minitl.tape import Tape
from minitl.training.data import Dataset, digits, split
from minitl.training.fit import accuracy, fit
from minitl.training.optimizers import SGD, Adam, AdamW
from minitl.training.schedules import constant, cosine

ODD: dict[str, Any] = {
    "None": None, "True": True, "-1": -1, "0": 0, "1.5": 1.5, "nan": float("nan"), "-inf": -float("inf"),
    "1e300": 1e300,
    "empty text": "", "text": "x\ny", "bytes": b"x", "empty list": [], "list": [1, 2], "ragged": [[1], [1, 2]],
    "empty dict": {}, "dict": {1: 2, "a": None}, "set": {3}, "object": object(), "function": lambda *a, **k: None,
    "class": dict, "10^400": 10**400, "2^63": 2**63, "complex": 1j, "date": datetime.date(2000, 1, 1),
    "int8": np.int8(2), "float16": np.float16(2), "bool_": np.bool_(False), "0-d": np.array(2),
    "nat": np.datetime64("nat"),
    "no elements": np.zeros((0, 3), np.float32), "matrix": np.ones((2, 2)), "strings": np.array(["a", "b"]),
    "objects": np.array([None, {}], object), "structured": np.zeros(2, "f4,i4"),
    "big endian": np.ones((2, 8, 8, 3), ">f4"),
    "read-only": np.broadcast_to(np.float32(1), (2, 8, 8, 3)), "range": range(3),
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call, and good arguments for it."""

    function: Callable[..., object]
    arguments: dict[str, Any]

    def check(self, name: str, odd: Any) -> None:
        """Replace one argument; what is raised is minitl's and of one line."""
        text = "taken"
        try:
            with np.errstate(all="ignore"):
                self.function(**{**self.arguments, name: odd})
        except MinitlError as error:
            text = str(error)
        assert text, "says nothing"
        assert "\n" not in text
        assert len(text) < 2000


def network(method: str = "ft-all") -> Any:
    return trained(minitl.networks.digits_irb(num_classes=2, width=0.1), method)


NET = network()
IMAGES, LABELS = batch(NET, n=2, resolution=8, classes=2)
DATA = Dataset(np.concatenate([IMAGES, IMAGES]), np.array([0, 1, 0, 1]), ("a", "b"))
SHALLOW = minitl.networks.from_table({  # few blocks are few ways to tune it, and planning tries them all
    "num_classes": 2, "stem": {"channels": 8, "activation": "relu"}, "head": {"channels": 8},
    "stages": [{"channels": 8, "activation": "hard_swish", "squeeze_excite": True}] * 2,
})  # fmt: skip
WAYS = entries(SHALLOW, batch=2, resolution=8, optimizer_slots=0)
P, G = {"w": np.ones(3)}, {"w": np.ones(3)}


def on_tape(images: Any = IMAGES, labels: Any = LABELS, gy: Any = None) -> Any:
    tape = Tape()
    return tape.backward(minitl.cross_entropy(tape, NET(tape, images), labels), gy)


def taped(**options: Any) -> None:
    """With dropout, which the seed is for."""
    net = trained(minitl.networks.digits_irb(num_classes=2, width=0.1, dropout=0.5), "ft-last")
    net(Tape(**options), IMAGES)


def state(name: str, value: Any) -> Any:
    minitl.networks.digits_irb(num_classes=2, width=0.1).load_state_dict({**NET.state_dict(), name: value})


def applied(plan: Any) -> None:
    """To a layer of each kind."""
    net = minitl.networks.digits_irb(num_classes=2, width=0.1)
    for layer in net.layers():
        layer.apply(plan)


def with_plan(**fields: Any) -> None:
    applied(LayerPlan(**fields))


CALLS = {
    "networks.get": Call(minitl.networks.get, {"name": "digits_irb"}),
    "networks.digits_irb": Call(
        minitl.networks.digits_irb, {"num_classes": 2, "width": 0.1, "dropout": 0.0, "dtype": "float32", "seed": 0}
    ),
    "networks.irb": Call(
        minitl.networks.irb,
        {
            "in_channels": 4, "expanded_channels": 8, "out_channels": 4, "kernel": 3, "stride": 1, "se_channels": 4,
            "expand": True, "activation": "relu", "eps": 1e-3, "momentum": 0.1, "dtype": "float32", "seed": 0,
        },
    ),
    "Tape": Call(taped, {"training": True, "seed": 0, "fused": True}),
    "net": Call(lambda tape, images: NET(tape, images), {"tape": Tape(), "images": IMAGES}),
    "net.predict": Call(NET.predict, {"images": IMAGES, "batch_size": 1}),
    "net.load_state_dict": Call(NET.load_state_dict, {"state": {}}),
    "an array of a state": Call(partial(state, "classifier.1.bias"), {"value": np.zeros(2)}),
    "a counter of a state": Call(partial(state, "features.0.1.num_batches_tracked"), {"value": 1}),
    "methods.get": Call(
        methods.get, {"name": "mobiletl", "blocks": 2, "quantised": False, "checkpoint": False, "rules": {}}
    ),
    "method": Call(
        lambda blocks, rules, network: methods.get("mobiletl", blocks, rules=rules).apply(network),
        {"blocks": 2, "rules": {"hard_swish": "exact"}, "network": network()},
    ),
    "one rule": Call(lambda rule: trained(network(), "ft-all", rules={"hard_swish": rule}), {"rule": "exact"}),
    "layer.apply": Call(applied, {"plan": LayerPlan()}),
    "LayerPlan": Call(with_plan, {"train": frozenset(), "statistics": "frozen", "rule": "", "recompute": False}),
    "loss_and_gradients": Call(
        partial(loss_and_gradients, NET), {"images": IMAGES, "labels": LABELS, "seed": 0}
    ),
    "backward": Call(on_tape, {"images": IMAGES, "labels": LABELS, "gy": None}),
    "ledger": Call(ledger, {"tape": Tape(), "optimizer_slots": 1, "convention": "standard"}),
    "predict": Call(
        predict, {"model": NET, "batch": 2, "resolution": 8, "optimizer_slots": 1, "convention": "standard"}
    ),
    "measure": Call(measure, {"model": NET, "batch": 2, "resolution": 8, "optimizer_slots": 1}),
    "entries": Call(entries, {"model": SHALLOW, "batch": 2, "resolution": 8, "optimizer_slots": 1}),
    "plan": Call(partial(plan, WAYS), {"budget": 10**9, "of": "peak"}),
    "arena": Call(place, {"buffers": [Buffer("a", "", 1, 0, 1)], "alignment": 1, "tries": 2, "seed": 0}),
    "Buffer": Call(Buffer, {"name": "a", "layer": "", "bytes": 1, "first": 0, "last": 1}),
    "fit": Call(
        fit,
        {
            "network": NET, "data": DATA, "optimizer": SGD(1e-3), "epochs": 1, "batch_size": 2, "seed": 0,
            "schedule": constant, "augment": None, "apply": False,
        },
    ),
    "accuracy": Call(accuracy, {"network": NET, "data": DATA, "batch_size": 2}),
    "Dataset": Call(Dataset, {"images": IMAGES, "labels": LABELS, "classes": ("a", "b")}),
    "fit on a Dataset": Call(
        lambda images, labels: fit(NET, Dataset(images, labels, ("a", "b")), optimizer=SGD(0), epochs=1, batch_size=2),
        {"images": IMAGES, "labels": LABELS},
    ),
    "digits": Call(digits, {"classes": [0, 1], "size": 8}),
    "split": Call(split, {"dataset": DATA, "train": 2, "seed": 0}),
    "cosine": Call(cosine, {"step": 1, "steps": 5, "warmup": 1}),
    "SGD": Call(SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False, "clip_norm": None}),
    "Adam": Call(Adam, {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "decay_vectors": True}),
    "AdamW": Call(AdamW, {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}),
    "step": Call(SGD(0.1).step, {"parameters": P, "gradients": G, "lr_scale": 1.0}),
    "set_threads": Call(lambda count: threads.set_threads(count), {"count": 1}),
}  # fmt: skip


GOOD = {  # of ops' attributes, on arrays of `Dims()`
    "stride": 1, "padding": (1, 1, 1, 1), "eps": 1e-3, "momentum": 0.1, "p": 0.5, "seed": 0, "size": (8, 9),
    "smoothing": 0.1, "weights": (1.0, 1.0, 1.0, 2.0), "window": 2, "keepdims": True, "channels": (0, 2),
}  # fmt: skip


def computed(spec: Spec, **attrs: Any) -> None:
    """An op's forward, backward and cost."""
    case = make(spec, Dims())
    given: dict[str, Any] = {"attrs": {**spec.attrs(case.dims), **attrs}, "needs": case.needs}
    y, saved = case.op.forward(*(a.copy() for a in case.arrays), **given, rule=spec.rule)
    case.op.backward(saved, np.ones_like(y), **given, params=case.params)
    case.op.cost([a.shape for a in case.arrays], "float64", **given, rule=spec.rule)


CALLS |= {
    f"ops.{spec.name}": Call(
        partial(computed, spec),
        {name: spec.attrs(Dims()).get(name, GOOD.get(name)) for name in spec.op.attrs if name != "normalisation"},
    )
    for spec in SPECS
    if spec.op.attrs
}


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = threads._threads
    yield
    threads.set_threads(before)


@pytest.mark.parametrize("call", CALLS)
def test_good_arguments_are_taken(call: str) -> None:
    if call == "net.load_state_dict":
        CALLS[call].function(NET.state_dict())
    else:
        CALLS[call].function(**CALLS[call].arguments)


@pytest.mark.parametrize(("call", "argument"), [(name, a) for name, c in CALLS.items() for a in c.arguments])
def test_odd_arguments_are_taken_or_refused_in_words(call: str, argument: str) -> None:
    failed = []
    for name, odd in ODD.items():
        if argument == "epochs" and name in ("10^400", "2^63"):
            continue  # taken, and never done
        if argument in ("schedule", "augment") and name == "class":
            continue  # a function of the caller's own, which raises what it likes
        try:
            CALLS[call].check(argument, odd)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {brief(error)}")
    assert not failed, "\n".join(failed)


WORDS: dict[str, tuple[Callable[[], object], str]] = {
    "no images": (lambda: NET.predict(IMAGES[:0]), "digits_irb (images): expected (N, H, W, 3), none of them 0, got"),
    "no batch": (lambda: NET.predict(IMAGES, 0), "digits_irb: expected batch_size of at least 1, got 0"),
    "less than none": (lambda: NET.predict(IMAGES, -1), "digits_irb: expected batch_size of at least 1, got -1"),
    "seed": (
        lambda: fit(NET, DATA, optimizer=SGD(0), epochs=1, batch_size=2, seed=-1),
        "fit: expected seed of at least 0, got -1",
    ),
    "half a batch": (
        lambda: fit(NET, DATA, optimizer=SGD(0), epochs=1, batch_size=8.5),
        "batches: expected batch_size of at least 1, got 8.5",
    ),
    "half an epoch": (
        lambda: fit(NET, DATA, optimizer=SGD(0), epochs=1.5, batch_size=2),
        "fit: expected epochs of at least 1, got 1.5",
    ),
    "a count of classes": (
        lambda: Dataset(IMAGES, LABELS, 10),
        "Dataset: expected classes to be names, got 10; give their names, as in classes=('cat', 'dog')",
    ),
    "no state": (
        lambda: NET.load_state_dict(None),
        "load_state_dict: expected arrays by parameter name, got None",
    ),
    "a path": (
        lambda: NET.load_state_dict("file.pth"),
        "expected arrays by parameter name, got 'file.pth'; to read a file, use load",
    ),
    "one beta": (
        lambda: Adam(0.1, betas=(0.9,)),
        "optimizer: expected betas to be two numbers, got (0.9,)",
    ),
    "a label below 0": (
        lambda: Dataset(IMAGES, [0, -1], ["a", "b"]),
        "Dataset: expected labels 0 to 1, got -1 to 0; leave unlabelled images out",
    ),
    "labels that are no integers": (
        lambda: accuracy(NET, Dataset(IMAGES, [0.0, 1.0], ["a", "b"])),
        "Dataset: expected integer labels, got float64; use .astype(int)",
    ),
    "more classes than the network has": (
        lambda: accuracy(NET, Dataset(IMAGES, LABELS, ("a", "b", "c"))),
        "digits_irb: expected data of at most 2 classes, got 3; build the network with num_classes large enough",
    ),
    "an activation there is not": (
        lambda: trained(network(), "ft-all", rules={"x": "sign"}),
        "digits_irb: unknown activation or role 'x'; choose one of: hard_swish, ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_the_words_say_what_is_wrong(case: str) -> None:
    call, words = WORDS[case]
    with pytest.raises(MinitlError) as caught:
        call()
    assert words in str(caught.value)
