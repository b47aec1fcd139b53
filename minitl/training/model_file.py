"""A model in one safetensors file: the network with its weights, its classes, and how images become its input.

The same file is the checkpoint of a training run that is not over; it then holds the optimizer's
arrays (`optimizer/NAME/SLOT`), what backward rules carry from step to step (`state/LAYER/NAME`), the
best weights so far where they may be needed (`best/NAME`) and the run's progress besides. Everything
that is not an array is JSON under the one metadata key `minitl`: the library writes several keys in
random order. There is no time, path or history in a finished file: the same run gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minitl import methods, networks
from minitl.arrays import Array, is_count
from minitl.checks import expect_flag
from minitl.data.augment import Augmentation
from minitl.data.files import open_file
from minitl.data.preprocess import Preprocessing
from minitl.errors import DataError, MinitlError
from minitl.files import write_whole
from minitl.networks.network import Network
from minitl.networks.sizes import sizes, weights
from minitl.networks.table import read_table
from minitl.training.optimizers import State
from minitl.training.settings import Settings
from minitl.training.trainer import Progress, Trainer

SCHEMA, KEY = "minitl-model/1", "minitl"
LATER: dict[str, dict[str, Any]] = {  # keys that the first files had not, and what was done then
    "method": {"int8": False, "checkpoint": False, "apply": False},
    "training": {"per_class": 0},
}
OPTIMIZER, BEST, STATE = "optimizer/", "best/", "state/"


@dataclass
class ModelFile:
    """What a file says. `about` holds the network's description, the method, and what else is JSON."""

    about: dict[str, Any]
    arrays: dict[str, Array] = field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.about["classes"])

    @property
    def classes_text(self) -> str:
        """The network, and what it tells apart."""
        shown = ", ".join(self.classes[:4]) + ", ..." * (len(self.classes) > 4)
        return f"{self.about['network']['table']['name']}, {len(self.classes)} classes ({shown})"

    @property
    def table(self) -> dict[str, Any]:
        """The table of its network, for its classes."""
        return {**self.about["network"]["table"], "num_classes": len(self.classes)}

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the network's input."""
        return Preprocessing.from_json(self.about["preprocessing"])

    @property
    def method(self) -> methods.Method:
        """The method it was trained by."""
        about = self.about["method"]
        if unknown := about.keys() - {"name", "blocks", "rules", *LATER["method"]}:
            raise KeyError(*sorted(unknown))
        expect_flag("apply", about["apply"], op="train")
        flags = {"quantised": about["int8"], "checkpoint": about["checkpoint"]}
        return methods.get(about["name"], about["blocks"], rules=about["rules"], **flags)

    @property
    def settings(self) -> Settings:
        """How it was trained."""
        return Settings.from_json(self.about["training"])

    @property
    def finished(self) -> bool:
        """Whether its training is over."""
        return self.about["progress"] is None

    @property
    def state(self) -> dict[str, Array]:
        """The network's state dict."""
        return {name: array for name, array in self.arrays.items() if "/" not in name}

    def network(self) -> Network:
        """The network, with its method and weights."""
        with expecting("model"):
            built = networks.from_table(self.table, dtype=self.about["network"]["dtype"])
            self.method.apply(built)
            built.load_state_dict(self.state)
            return built


def describe(trainer: Trainer, method: methods.Method) -> dict[str, Any]:
    """All that is known of a run, its progress apart."""
    network, part = trainer.network, trainer.train
    return {
        "schema": SCHEMA,
        "network": {"table": network.table, "dtype": network.dtype},
        "method": {
            "name": method.name,
            "blocks": network.tuned_blocks,
            "rules": dict(method.rules),
            "int8": method.quantised,
            "checkpoint": method.checkpoint,
            "apply": trainer.apply,
        },
        "classes": list(part.source.classes),
        "preprocessing": part.preprocessing.to_json(),
        "augmentation": str(part.augmentation),
        "training": trainer.settings.to_json(),
        "data": part.source.digest,
    }


def write_model(path: Path, trainer: Trainer, about: Mapping[str, Any]) -> None:
    """Write the run as it stands: its network, and whatever is needed to go on if it is not over."""
    arrays, progress = trainer.network.state_dict(), None
    if not trainer.done:
        states = trainer.optimizer.state
        for name, state in states.items():
            arrays |= {f"{OPTIMIZER}{name}/{slot}": array for slot, array in enumerate(state.arrays)}
        arrays |= {f"{BEST}{name}": array for name, array in trainer.best_state.items()}
        for layer in trainer.network.layers():
            arrays |= {f"{STATE}{layer.path}/{name}": array for name, array in layer.carried().items()}
        progress = {**trainer.progress.to_json(), "steps": {name: state.steps for name, state in states.items()}}
    text = json.dumps({**about, "progress": progress}, sort_keys=True, allow_nan=False)
    dense = {name: array if array.flags.c_contiguous else array.copy(order="C") for name, array in arrays.items()}
    write_whole(path, save(dense, {KEY: text}))


def continue_from(file: ModelFile, trainer: Trainer) -> None:
    """Bring a new trainer to where the checkpoint was. Raises DataError where it holds something else."""
    with expecting("checkpoint"):
        progress, steps = Progress.from_json(file.about["progress"]), file.about["progress"]["steps"]
        if progress.batches > len(trainer.spans):
            raise ValueError(f"{progress.batches} batches of {len(trainer.spans)}")
        done = len(progress.epochs) * len(trainer.spans) + progress.batches
        trainer.network.begin_step(done - 1, trainer.steps)  # the last one taken: its optimizer state is in the file
        states = dict(_states(file, trainer, steps))
        best = {name.removeprefix(BEST): a for name, a in file.arrays.items() if name.startswith(BEST)}
        trainer.network.load_state_dict({**file.state, **best})  # which checks the best, too
        trainer.network.load_state_dict(file.state)
        for layer in trainer.network.layers():
            start = f"{STATE}{layer.path}/"
            layer.carry({name.removeprefix(start): a for name, a in file.arrays.items() if name.startswith(start)})
    trainer.progress, trainer.best_state, trainer.optimizer.state = progress, best, states


def _states(file: ModelFile, trainer: Trainer, steps: Mapping[str, Any]) -> Iterator[tuple[str, State]]:
    """The optimizer's state of each parameter that has taken a step."""
    for name, parameter in trainer.network.trained_parameters().items():
        if name in steps:
            slots = range(trainer.optimizer.slots)
            state = State(tuple(file.arrays[f"{OPTIMIZER}{name}/{slot}"] for slot in slots), steps[name])
            if not state.fits(parameter) or not is_count(state.steps, least=1):
                raise ValueError(f"the optimizer's state does not fit {name}")
            yield name, state


@contextmanager
def expecting(what: str, where: str = "") -> Iterator[None]:
    """Whatever a description that makes no sense raises becomes a DataError."""
    try:
        yield
    except MinitlError as error:
        raise DataError(f"is not a {what} that can be used: {error}", layer=where) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"is not a {what} that can be used: {told}", layer=where) from None


def is_model(path: Path) -> bool:
    """Whether `write_model` wrote the file, by its metadata. Raises DataError where there is no regular file."""
    open_file(path).close()
    try:
        with safe_open(path, framework="numpy") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, ValueError, OSError):
        return False


def read_model(path: Path) -> ModelFile:
    """Read a model or checkpoint that `write_model` wrote. Raises DataError."""
    open_file(path).close()  # a regular file, or an error that says what is wrong
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY, "")
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        about = json.loads(text) if text else {}
    except (SafetensorError, ValueError, RecursionError, OSError, TypeError) as error:
        raise DataError(f"is not a safetensors file that can be read: {error}", layer=str(path)) from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        got = about.get("schema", "weights alone") if isinstance(about, dict) else "something else"
        raise DataError(layer=str(path), expected=f"a model that `minitl train` wrote ({SCHEMA})", got=str(got)[:80])
    with expecting("model", str(path)):
        model = ModelFile(_completed(about), arrays)
        check(model)
    return model


def _completed(about: Mapping[str, Any]) -> dict[str, Any]:
    """The description with the keys that a file of an earlier minitl lacks."""
    return {**about, **{part: {**keys, **about[part]} for part, keys in LATER.items()}}


def check(model: ModelFile) -> None:
    """Raise unless all parts of the description are there and make sense together."""
    names = model.about["classes"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise TypeError("classes are names")
    " ".join(names).encode()  # raises UnicodeEncodeError, a ValueError, for what cannot be printed
    model.preprocessing, model.settings, model.method  # noqa: B018  (they raise)
    Augmentation.parse(model.about["augmentation"])
    needed = weights(sizes(read_table(model.table, "network")), len(names))
    there = sum(array.size for array in model.arrays.values())
    if needed > there:  # so that no network is built that is larger than the file
        raise DataError(expected=f"at least {needed:,} weights for its network", got=f"{there:,}")
    progress = model.about["progress"]
    if progress is not None:
        Progress.from_json(progress)
