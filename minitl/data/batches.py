"""Batches of network inputs, prepared while the batch before is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from minitl.arrays import Array
from minitl.data.augment import Augmentation
from minitl.data.preprocess import Preprocessing
from minitl.data.source import Source
from minitl.pixels import PIXELS

Batch = tuple[Array, Array]  # images (N, R, R, 3) and labels (N,)
PLAIN = Augmentation()


@dataclass(frozen=True)
class Part:
    """Some images of a source, and how they become a network's input: numbers of a dtype, or pixels, uint8."""

    source: Source
    indices: Array
    preprocessing: Preprocessing
    augmentation: Augmentation = PLAIN
    dtype: str = "float32"

    def __len__(self) -> int:
        return len(self.indices)

    def order(self, seed: int, epoch: int) -> Array:
        """The part's images in the order of that epoch."""
        return np.random.default_rng((seed, epoch)).permutation(self.indices)

    def image(self, index: int, seed: int, epoch: int) -> Array:
        """One image, uint8 (R, R, 3). What is drawn depends on seed, epoch and image alone, not on what came before."""
        image = self.source.read(index)
        if not self.augmentation.kinds:
            return self.preprocessing.resize(image)
        return self.augmentation(image, self.preprocessing, np.random.default_rng((seed, epoch, 1 + index)))

    def batches(self, groups: Sequence[Array], seed: int = 0, epoch: int = 0) -> Iterator[Batch]:
        """The images of each group of indices. One group ahead is read in threads; two are in memory at a time."""
        with ThreadPoolExecutor(max_workers=2) as pool:

            def read(group: Array) -> list[Future[Array]]:
                return [pool.submit(self.image, int(index), seed, epoch) for index in group]

            try:
                ahead = [read(group) for group in groups[:1]]
                for number, group in enumerate(groups, start=1):
                    images = [future.result() for future in ahead.pop()]
                    ahead += [read(following) for following in groups[number : number + 1]]
                    yield self._input(np.stack(images)), self.source.labels[group]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _input(self, images: Array) -> Array:
        return images if self.dtype == PIXELS else self.preprocessing.normalise(images, self.dtype)

    def in_order(self, batch: int) -> Iterator[Batch]:
        """All images of the part, `batch` at a time."""
        return self.batches([self.indices[i : i + batch] for i in range(0, len(self), batch)])
