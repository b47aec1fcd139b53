"""Weights to begin with: a model of minitl's, which knows its network and preprocessing, or another library's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minitl.errors import UsageError
from minitl.networks.network import Network
from minitl.training.model_file import ModelFile, is_model, read_model


@dataclass
class Weights:
    """A file of weights; `model` is what is read of it already, where `minitl train` wrote it."""

    path: Path
    source: str
    model: ModelFile | None

    def into(self, network: Network, momentum: float | None = None) -> list[str]:
        """Load them, the classifier only where class counts agree; say what was done.

        `momentum` is that of `Network.load`; a model of minitl's says nothing about the network's.

        Raises what `Network.load` does where they do not fit.
        """
        if self.model is None:
            report = network.load(self.path, source=self.source, classifier="auto", momentum=momentum)
            return str(report).splitlines()
        told, state = [f"{self.path}: {self.model.classes_text}"], self.model.state
        if len(self.model.classes) != network.num_classes:
            own = network.state_dict()
            last = [p.name for p in network.classifier[-1].parameters.values()]
            state |= {name: own[name] for name in last}
            told.append(f"replaced: {', '.join(last)}")
        network.load_state_dict(state)
        return told


def load_weights(path: Path, source: str | None) -> Weights:
    """A file of weights; `source` says which library it is from. Raises DataError or UsageError."""
    model = read_model(path) if is_model(path) else None
    if model and source:
        raise UsageError(f"is a model of minitl's, not of {source}", layer=str(path), remedy="leave --source out")
    return Weights(path, source or "", model)
