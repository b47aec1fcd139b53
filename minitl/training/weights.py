"""Weights to begin with: a model of minitl's, or another library's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitl.arrays import Array
from minitl.data.preprocess import SOURCES, Preprocessing
from minitl.errors import unknown
from minitl.networks.network import Network
from minitl.training.model_file import read_model


@dataclass
class Weights:
    """A model of minitl's: its state dict, the table of its network and the preprocessing it was trained with.

    Of another library's file only the `source` is known before it is loaded.
    """

    path: Path
    state: dict[str, Array]
    table: dict[str, Any] | None
    preprocessing: Preprocessing | None
    source: str | None = None

    def into(self, network: Network) -> str:
        """Load them, the classifier only where class counts agree; say what was done."""
        if self.source is not None:
            return str(network.load(self.path, source=self.source, classifier="auto"))
        own = network.state_dict()
        fits = {name: array for name, array in self.state.items() if name not in own or own[name].shape == array.shape}
        replaced = [name for name in self.state if name not in fits]
        if all(name.startswith("classifier.") for name in replaced):
            network.load_state_dict({**fits, **{name: own[name] for name in replaced}})
        else:
            network.load_state_dict(self.state)  # which says what does not fit
        return f"loaded {self.path}" + (f"; replaced: {', '.join(replaced)}" if replaced else "")


def load_weights(path: Path, source: str | None) -> Weights:
    """Read a file of weights. Raises DataError or UnknownNameError."""
    if source is not None and source not in SOURCES:
        raise unknown("source", source, SOURCES)
    if source is not None:
        return Weights(path, {}, None, None, source)
    model = read_model(path)
    return Weights(path, model.state, model.about["network"]["table"], model.preprocessing)
