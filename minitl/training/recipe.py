"""From what was asked for to a trainer: the network, its weights, the method, and how images become its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minitl import networks
from minitl.arrays import Array
from minitl.data.augment import Augmentation
from minitl.data.batches import Part
from minitl.data.preprocess import SOURCES, Preprocessing
from minitl.data.source import Source
from minitl.methods import Method
from minitl.networks.network import Network
from minitl.pixels import PIXELS
from minitl.training.model_file import ModelFile
from minitl.training.settings import Settings, default_learning_rate
from minitl.training.trainer import Trainer
from minitl.training.weights import load_weights

DEFAULT_NETWORK = "mobilenet_v3_small"
EXCEPTIONS = (  # whose weights, of which networks, were trained with other pixels than the source's others
    ("timm", "tf_", "half"),  # ported from TensorFlow
    ("keras", "efficientnet", "imagenet"),  # by the first layers of Keras' model itself
)


@dataclass(frozen=True)
class Recipe:
    """What was asked for; what was not has a default that depends on the rest.

    `preprocessing` and `settings` hold those fields of `Preprocessing` and `Settings` that were
    given. `source` says which library the weights are from; unless `strict`, those of them are taken
    that fit. `width` multiplies channels. `momentum` is the share of a new batch in the norms' running
    statistics, in place of the weights' or the network's own. With `pixels`, the network is given
    images in uint8: the same bytes in the end, and less memory.
    """

    network: str | None = None
    weights: Path | None = None
    source: str | None = None
    width: float | None = None
    strict: bool = True
    momentum: float | None = None
    augment: str | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    apply: bool = False
    pixels: bool = False

    @property
    def model(self) -> ModelFile | None:
        """The model that `weights` are, where they are one of minitl's. Raises what `load_weights` does."""
        return load_weights(self.weights, self.source).model if self.weights else None

    @property
    def default_method(self) -> str:
        """Without pretrained weights there is nothing worth freezing."""
        return "mobiletl" if self.weights else "ft-all"

    def settings_for(self, method: str) -> Settings:
        """All settings; the learning rate depends on the method."""
        optimizer = self.settings.get("optimizer", Settings.optimizer)
        rate = default_learning_rate(method, optimizer, pretrained=self.weights is not None)
        return Settings(**{"learning_rate": rate, **self.settings})

    def prepare(self, images: Source, method: Method, settings: Settings) -> Prepared:
        """The network for these images, under the method; and how they become its input."""
        weights = load_weights(self.weights, self.source) if self.weights else None
        model = weights.model if weights else None
        options: dict[str, Any] = {"num_classes": len(images.classes), "seed": settings.seed}
        options |= {"width": self.width, "momentum": self.momentum}
        if self.network is None and model:
            network = networks.from_table(model.table, **options)
        else:
            network = networks.get(self.network or DEFAULT_NETWORK, **options)
        report = weights.into(network, self.momentum, strict=self.strict) if weights else []
        beside = {p.name for p in network.parameters()}
        method.apply(network)
        if gone := beside - {p.name for p in network.parameters()}:
            report.append(f"left out: what the model's method put beside the network ({len(gone)} arrays)")
        kinds = self.augment or ("flip,shift" if images.natural else "shift")
        preprocessing = self._preprocessing(network, model)
        return Prepared(network, preprocessing, Augmentation.parse(kinds), report, pixels=self.pixels)

    def _preprocessing(self, network: Network, model: ModelFile | None) -> Preprocessing:
        """What was asked for, over what the weights were trained with."""
        if model:
            return replace(model.preprocessing, **self.preprocessing)
        normalisation = SOURCES.get(self.source or "", Preprocessing.normalisation)
        for source, name, theirs in EXCEPTIONS:
            if self.source == source and network.name.startswith(name):
                normalisation = theirs
        usual = {"resolution": network.table["resolution"], "normalisation": normalisation}
        return Preprocessing(**{**usual, **self.preprocessing})


@dataclass(frozen=True)
class Prepared:
    """A network that can be trained; `report` says what became of its weights."""

    network: Network
    preprocessing: Preprocessing
    augmentation: Augmentation
    report: Sequence[str] = ()
    pixels: bool = False

    def __post_init__(self) -> None:
        if self.pixels:
            self.network.normalisation = self.preprocessing.normalisation

    def trainer(self, images: Source, train: Array, held_out: Array, settings: Settings, **how: bool) -> Trainer:
        """Train on those images, judge by these; `how` is `apply` and `judge_all` (see `Trainer`)."""
        dtype = PIXELS if self.pixels else self.network.dtype
        learnt = Part(images, train, self.preprocessing, self.augmentation, dtype)
        judged = Part(images, held_out, self.preprocessing, dtype=dtype)
        return Trainer(self.network, learnt, judged, settings, **how)
