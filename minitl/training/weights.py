"""Weights to begin with: a model of minitl's, which knows its network and preprocessing, or another library's file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minitl.errors import DataError, UsageError
from minitl.networks.network import Network
from minitl.training.model_file import ModelFile, is_model, read_model


@dataclass
class Weights:
    """A file of weights; `model` is what is read of it already, where `minitl train` wrote it."""

    path: Path
    source: str
    model: ModelFile | None

    def into(self, network: Network, momentum: float | None = None, *, strict: bool = True) -> list[str]:
        """Load them, the classifier only where class counts agree; say what was done.

        `momentum` and `strict` are those of `Network.load`. A model of minitl's fits whole: the network gets what the
        model's method put beside its blocks and layers, and follows the model's conventions.

        Raises what `Network.load` does where they do not fit, and DataError where no array does.
        """
        if self.model is None:
            how: Any = {"source": self.source, "classifier": "auto", "momentum": momentum, "strict": strict}
            report = network.load(self.path, **how)
            if not report.loaded:
                raise DataError(f"holds no array that {network.name} has a place for", layer=str(self.path))
            return str(report).splitlines()
        told, state, table = [f"{self.path}: {self.model.classes_text}"], self.model.state, self.model.table
        replace(self.model.method, quantised=False, checkpoint=False, rules=()).apply(network)
        if len(self.model.classes) != network.num_classes:
            own = network.state_dict()
            last = [p.name for p in network.classifier[-1].parameters.values()]
            state |= {name: own[name] for name in last}
            told.append(f"replaced: {', '.join(last)}")
        share = table["momentum"] if momentum is None else momentum
        network.take_over(state, eps=table["eps"], momentum=share, padding=table["padding"])
        return told


def load_weights(path: Path, source: str | None) -> Weights:
    """A file of weights; `source` says which library it is from. Raises DataError or UsageError."""
    model = read_model(path) if is_model(path) else None
    if model and source:
        raise UsageError(f"is a model of minitl's, not of {source}", layer=str(path), remedy="leave --source out")
    return Weights(path, source or "", model)
