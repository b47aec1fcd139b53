"""A run that stops and goes on gives the bytes of one that did not; early stopping, losses, memory."""

from __future__ import annotations

import copy
import itertools
import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import minitl
from minitl import data
from minitl.data.augment import Augmentation
from minitl.data.batches import Part
from minitl.data.preprocess import Preprocessing
from minitl.errors import DataError, MinitlError
from minitl.training.model_file import continue_from, describe, read_model, write_model
from minitl.training.recipe import Recipe
from minitl.training.settings import OPTIMIZERS, Settings, default_learning_rate, differences
from minitl.training.trainer import Trainer, class_weights, evaluate

sys.path.append(str(Path(__file__).parents[1] / "data"))
import makers
from fuzz import FUZZ

METHOD = minitl.methods.get("mobiletl", 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> data.Source:
    return data.load(makers.npz(tmp_path_factory.mktemp("data") / "a.npz", *makers.pictures(10, size=16)))


def trainer(
    source: data.Source,
    method: minitl.methods.Method = METHOD,
    *,
    apply: bool = False,
    judge_all: bool = True,
    **changes: object,
) -> Trainer:
    settings = Settings(**{"epochs": 3, "batch": 9, "learning_rate": 0.01, **changes})
    network = method.apply(minitl.networks.digits_irb(num_classes=3, dropout=0.1))
    train, held = settings.split(source)
    preprocessing = Preprocessing(16)
    return Trainer(
        network,
        Part(source, train, preprocessing, Augmentation(("flip", "shift"))),
        Part(source, held, preprocessing),
        settings,
        apply=apply,
        judge_all=judge_all,
    )


RUNS: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer": "sgd", "warmup": 1.0, "weight_decay": 0.01},
    "weighed": {"optimizer": "nesterov", "label_smoothing": 0.1, "class_weights": "1,2,3", "clip_norm": 1.0},
    "patient": {"optimizer": "adamw", "patience": 2, "schedule": "constant"},
    "frugal": {"method": minitl.methods.get("mobiletl", 2, quantised=True, checkpoint=True), "apply": True},
    "few": {"per_class": 6},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_stops_after_any_event_gives_the_same_bytes(source: data.Source, name: str, tmp_path: Path) -> None:
    whole, pieces = trainer(source, **RUNS[name]), trainer(source, **RUNS[name])
    method = RUNS[name].get("method", METHOD)
    list(whole.run())
    write_model(tmp_path / "whole", whole, describe(whole, method))
    path, events = tmp_path / "pieces", 0
    write_model(path, pieces, describe(pieces, method))
    while not pieces.done:
        pieces = trainer(source, **RUNS[name])  # as a new process would
        continue_from(read_model(path), pieces)
        next(pieces.run())
        write_model(path, pieces, describe(pieces, method))
        events += 1
    assert events == len(whole.progress.epochs) * (len(whole.spans) + 1)
    assert pieces.progress == whole.progress
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_gradients_applied_as_they_come_give_the_same_bytes(source: data.Source, tmp_path: Path) -> None:
    written = []
    for apply in (False, True):
        one = trainer(source, apply=apply, epochs=2)
        list(one.run())
        write_model(tmp_path / "model", one, describe(one, METHOD))
        raw = (tmp_path / "model").read_bytes()
        written.append(raw[8 + int.from_bytes(raw[:8], "little") :])  # of the header, which says whether
        assert read_model(tmp_path / "model").about["method"]["apply"] is apply
    assert written[0] == written[1]
    with pytest.raises(MinitlError, match="leave clip_norm out"):
        trainer(source, apply=True, clip_norm=1.0)


def test_what_is_not_asked_for_is_not_judged(source: data.Source) -> None:
    one, last = trainer(source), trainer(source, judge_all=False)
    list(one.run())
    list(last.run())
    assert [np.isnan(row["accuracy"]) for row in last.progress.epochs] == [True, True, False]
    assert last.progress.epochs[-1] == one.progress.epochs[-1]
    assert trainer(source, judge_all=False, patience=2).judge_all


@pytest.mark.parametrize("name", ["subspace", "sparse-update", "slope"])
def test_what_a_rule_carries_from_step_to_step_is_in_a_checkpoint(
    source: data.Source, name: str, tmp_path: Path
) -> None:
    """The channels chosen when training began, not those that are largest by now; bases as far as they have come.

    And adaptors that begin to train in the last step only, with their optimizer's state.
    """
    method = minitl.methods.get(name, 2)
    whole, pieces = (trainer(source, method, epochs=1, learning_rate=0.5) for _ in range(2))
    list(whole.run())
    write_model(tmp_path / "whole", whole, describe(whole, method))
    path = tmp_path / "pieces"
    write_model(path, pieces, describe(pieces, method))
    while not pieces.done:
        file = read_model(path)
        pieces = trainer(source, method, epochs=1, learning_rate=0.5)
        continue_from(file, pieces)
        next(pieces.run())
        write_model(path, pieces, describe(pieces, method))
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert not any(key.startswith("state/") for key in read_model(path).arrays)
    keys = [key for key in file.arrays if key.startswith("state/")]
    assert bool(keys) == (name != "slope")
    for wrong in [change(file.arrays[key]) for key in keys[:1] for change in (np.complex64, np.atleast_3d)]:
        broken = replace(file, arrays={**file.arrays, keys[0]: np.asarray(wrong)})
        with pytest.raises(DataError, match="is not a checkpoint that can be used"):
            continue_from(broken, trainer(source, method, epochs=1, learning_rate=0.5))


def test_a_finished_file_is_the_network_and_what_it_takes_to_use_it(source: data.Source, tmp_path: Path) -> None:
    one = trainer(source)
    list(one.run())
    write_model(tmp_path / "model", one, describe(one, METHOD))
    file = read_model(tmp_path / "model")
    assert file.finished
    assert file.classes == source.classes
    assert file.preprocessing == one.train.preprocessing
    assert file.settings == one.settings
    assert set(file.arrays) == set(one.network.state_dict())
    again = file.network()
    assert (again.method, again.tuned_blocks) == ("mobiletl", 2)
    assert evaluate(again, one.held_out, 4).accuracy == one.progress.epochs[-1]["accuracy"]
    content = (tmp_path / "model").read_bytes()
    assert str(tmp_path).encode() not in content
    assert content.count(b"__metadata__") == 1


@pytest.mark.parametrize("name", ["mobiletl", "tinytl-lb", "rep-net", "multiplicative-attention", "lora", "slope"])
def test_a_model_is_begun_with_as_it_was(source: data.Source, name: str, tmp_path: Path) -> None:
    """With its padding, eps and momentum, and what its method put beside the network, named or not."""
    method, path = minitl.methods.get(name), tmp_path / "m.safetensors"
    run = trainer(source, method, epochs=1)
    run.network.take_over(run.network.state_dict(), eps=1e-2, momentum=0.3, padding="same")
    list(run.run())
    write_model(path, run, describe(run, method))
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype("float32")
    expected, beside = run.network.predict(images), bool(run.network.sides or run.network.adaptors)
    for network in (None, "digits_irb"):
        recipe = Recipe(network=network, weights=path)
        prepared = recipe.prepare(source, method, run.settings)
        assert np.array_equal(prepared.network.predict(images), expected)
        assert (prepared.network.padding, prepared.network.stem.norm.momentum) == ("same", 0.3)
        assert replace(recipe, momentum=0.5).prepare(source, method, run.settings).network.stem.norm.momentum == 0.5
        assert len(prepared.report) == 1
        other = recipe.prepare(source, minitl.methods.get("ft-last"), run.settings)
        assert not other.network.sides
        assert not other.network.adaptors
        assert ("left out: what the model's method put beside" in other.report[-1]) == beside


@pytest.mark.parametrize(
    ("origin", "network", "normalisation"),
    [
        (None, "mobilenet_v2", "imagenet"),
        ("torchvision", "mobilenet_v2", "imagenet"),
        ("timm", "efficientnet_lite0", "imagenet"),
        ("timm", "tf_efficientnet_lite0", "half"),
        ("keras", "mobilenet_v2", "half"),
        ("keras", "efficientnet_b0", "imagenet"),
    ],
)
def test_pixels_are_normalised_as_the_weights_had_them(
    source: data.Source, origin: str | None, network: str, normalisation: str
) -> None:
    """Keras' MobileNets take -1 to 1; its EfficientNets normalise in their first layers, as everybody does."""
    recipe = Recipe(network=network, source=origin, width=0.25)
    assert recipe.prepare(source, METHOD, Settings()).preprocessing.normalisation == normalisation


def test_training_learns_and_patience_goes_back_to_the_best(source: data.Source) -> None:
    one = trainer(source, minitl.methods.get("ft-all"), epochs=20, patience=7, schedule="constant")
    list(one.run())
    rows, best = one.progress.epochs, one.progress.best
    assert len(rows) == min(best + 7, 20)
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[best - 1]["accuracy"] == max(row["accuracy"] for row in rows) > 0.6
    assert evaluate(one.network, one.held_out, 9).accuracy == rows[best - 1]["accuracy"]


def test_a_checkpoint_that_was_tampered_with_is_refused(source: data.Source, tmp_path: Path) -> None:
    one = trainer(source)
    next(one.run())
    write_model(tmp_path / "model", one, describe(one, METHOD))
    file = read_model(tmp_path / "model")
    name = next(name for name in file.arrays if name.startswith("optimizer/"))
    file.arrays[name] = file.arrays[name][1:]
    with pytest.raises(DataError, match="optimizer's state does not fit"):
        continue_from(file, trainer(source))


def leaves(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON tree: a list or dictionary, and the index or key in it."""
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ())
    return [(tree, key) for key, _ in pairs] + [place for _, below in pairs for place in leaves(below)]


STRANGE: tuple[Any, ...] = (
    None,
    -1,
    0,
    1,
    2**70,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\ud800",
    [],
    {},
    [1],
    {"a": 1},
    True,
)


def test_a_checkpoint_that_says_something_else_is_refused_or_still_makes_sense(
    source: data.Source, tmp_path: Path
) -> None:
    """Any one number, text or list of its description replaced by any other, or left out."""
    one = trainer(source, patience=2)
    list(itertools.islice(one.run(), 5))
    write_model(tmp_path / "model", one, describe(one, METHOD))
    whole, rng, refused = read_model(tmp_path / "model"), np.random.default_rng(0), 0
    for _ in range(FUZZ):
        about = copy.deepcopy(whole.about)
        places = leaves(about)
        tree, key = places[rng.integers(len(places))]
        if rng.random() < 0.2:
            del tree[key]
        else:
            tree[key] = STRANGE[rng.integers(len(STRANGE))]
        text = json.dumps(about)
        (tmp_path / "other").write_bytes(save(whole.arrays, {"minitl": text}))
        try:
            file = read_model(tmp_path / "other")
            again = trainer(source, patience=2) if rng.random() < 0.5 else None
            file.network()
            if again and not file.finished:
                continue_from(file, again)
        except MinitlError as error:
            assert "\n" not in str(error)  # noqa: PT017
            refused += 1
    assert FUZZ / 3 < refused < FUZZ


def test_class_weights(source: data.Source) -> None:
    part = Part(source, np.array([0, 1, 3, 4, 6, 7, 9]), Preprocessing(16))  # 4 of class 0, 3 of class 1, none of 2
    assert class_weights("", part) is None
    assert class_weights("balanced", part)[:2] == pytest.approx([7 / 8, 7 / 6])
    assert class_weights("1,2.5,3", part) == [1, 2.5, 3]
    for wrong in ("1,2", "a,b,c", "1,,3"):
        with pytest.raises(MinitlError, match="class weights `balanced` or 3 numbers"):
            class_weights(wrong, part)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch": 0}, {"warmup": 3.0}, {"seed": -1}, {"patience": -1}, {"learning_rate": -1.0},
     {"optimizer": "lion"}, {"schedule": "x"}, {"clip_norm": -1.0}, {"learning_rate": float("nan")},
     {"epochs": 1.5}, {"seed": True}, {"decay_vectors": 1}, {"class_weights": [1, 2]}, {"label_smoothing": 1.5}],
)  # fmt: skip
def test_settings_refuse_what_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(MinitlError):
        Settings(**{"epochs": 2, **wrong})


def test_settings_survive_being_stored_and_nothing_else_is_taken_for_them() -> None:
    one = Settings(optimizer="sgd", warmup=0.5)
    assert Settings.from_json(one.to_json()) == one
    other = Settings(epochs=np.int64(3), warmup=1, learning_rate=np.float32(0.5), weight_decay=0)
    assert Settings.from_json(json.loads(json.dumps(other.to_json()))) == other
    for wrong in ({**one.to_json(), "epochs": "2"}, {**one.to_json(), "seed": True}, {}, {**one.to_json(), "x": 1}):
        with pytest.raises((TypeError, KeyError)):
            Settings.from_json(wrong)


def test_a_run_is_not_gone_on_with_otherwise() -> None:
    differences({"batch": 16, "seed": 0}, {"seed": 0})
    with pytest.raises(MinitlError, match="was begun with batch 16, not 8"):
        differences({"batch": 16, "seed": 0}, {"batch": 8})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_has_a_learning_rate(optimizer: str) -> None:
    for method in minitl.methods.METHODS:
        assert 0 < default_learning_rate(method, optimizer, pretrained=True) < 1


MAKERS = {
    "folder": makers.folder,
    "npz": lambda path, *pair: makers.npz(path.with_suffix(".npz"), *pair),
    "npz packed": lambda path, *pair: makers.npz(path.with_suffix(".npz"), *pair, packed=True),
    "cifar": makers.cifar,
    "idx packed": lambda path, *pair: makers.idx(path, *pair, packed=True),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_memory_does_not_grow_with_the_data(kind: str, tmp_path: Path) -> None:
    """What opening the data and an epoch of batches hold at most, by what Python's allocator traces.

    The less of two runs: in any of them Python's table of names may grow, for all names of the process at once.
    """
    images, labels = makers.pictures(200, size=32)
    peaks = list[int]()
    for count in (60, 60, 60, 600, 600):  # the first imports and compiles
        make: Any = MAKERS[kind]
        path = make(tmp_path / f"{len(peaks)}", images[:count], labels[:count])
        tracemalloc.start()
        source = data.load(path)
        part = Part(source, np.arange(count), Preprocessing(32), Augmentation(("flip", "shift")))
        for _ in part.batches(np.split(part.order(0, 0), count // 15)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks[3:]) < 1.2 * min(peaks[1:3]) + 300 * 540  # labels, order and paths; an image has 3,072 bytes
