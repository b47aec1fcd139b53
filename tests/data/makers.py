"""Small data sets in every format, holding the same pictures."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minitl.arrays import Array

CLASSES = ("blue", "green", "red")


def pictures(per_class: int = 6, size: int = 24, seed: int = 0) -> tuple[Array, Array]:
    """Noise with the class's channel brighter: uint8 (N, H, W, 3), and labels, classes by turns."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(3), per_class)
    images = rng.integers(0, 120, (len(labels), size, size, 3), np.uint8)
    images[np.arange(len(labels)), :, :, 2 - labels] += 100
    return images, labels


def folder(root: Path, images: Array, labels: Array, classes: tuple[str, ...] = CLASSES) -> Path:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:04}.png")
    return root


def npz(path: Path, images: Array, labels: Array, *, packed: bool = False, **others: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save: Any = np.savez_compressed if packed else np.savez
    save(path, images=images, labels=labels, **others)
    return path


def cifar(root: Path, images: Array, labels: Array, *, fine: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    heads = np.stack([labels * 0 + 7, labels], 1) if fine else labels[:, None]
    records = np.concatenate([heads.astype(np.uint8), images.transpose(0, 3, 1, 2).reshape(len(labels), -1)], 1)
    first, second = ("train.bin", "test.bin") if fine else ("data_batch_1.bin", "test_batch.bin")
    third = len(labels) // 3
    (root / first).write_bytes(records[third:].tobytes())
    (root / second).write_bytes(records[:third].tobytes())
    return root


def idx(root: Path, images: Array, labels: Array, *, packed: bool = False) -> Path:
    """Grey: the channel of the mean."""
    root.mkdir(parents=True, exist_ok=True)
    write = gzip.compress if packed else bytes
    third = len(labels) // 3
    for name, which in (("train", slice(third, None)), ("t10k", slice(third))):
        for kind, array in (("images-idx3", images[which, ..., 1]), ("labels-idx1", labels[which])):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            path = root / f"{name}-{kind}-ubyte{'.gz' * packed}"
            path.write_bytes(write(header + array.astype(np.uint8).tobytes()))
    return root
