"""Arrays by name from safetensors and PyTorch files. Nothing in a file is ever executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.errors import DataError, MinitlError
from minitl.files import read_bytes

MOST_ELEMENTS = 1 << 28  # of an array: 1 GiB in float32
KERAS_FILES = (".h5", ".hdf5", ".keras")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put the weights
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile, in whatever order
BFLOAT16 = "BF16"  # in safetensors


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a `.safetensors`, `.pth` or `.pt` file; raises DataError where it is not one."""
    readers = {".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}
    reader = readers.get(path.suffix.lower())
    if path.suffix.lower() in KERAS_FILES:
        raise DataError(f"{path}: a file of Keras' by its name", remedy="say so: source='keras', --source keras")
    if reader is None:
        known = ", ".join((*readers, *KERAS_FILES))
        raise DataError(f"{path}: no file of weights, by its name", remedy=f"known are {known}")
    with reading(path):
        path.stat()  # a file that is not there is told before a library that is not
        return _unwrapped(reader(path))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a reader raises on what is in a file becomes a DataError of one line."""
    try:
        yield
    except MinitlError as error:
        raise error.at(str(path)) from None
    except ImportError as error:
        raise DataError(f"{path}: {error.name} is not installed", remedy=f"pip install {error.name}") from None
    except Exception as error:  # what other libraries raise on broken files is not documented
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: cannot be read as weights: {reason}") from None


def expect_size(name: str, elements: int) -> None:
    """Raise DataError if an array is larger than any network's."""
    if elements > MOST_ELEMENTS:
        raise DataError(f"array {name!r} has {elements:,} elements", remedy=f"at most {MOST_ELEMENTS:,} are read")


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import deserialize, safe_open

    with safe_open(path, framework="np") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        arrays = {name: file.get_tensor(name) for name, kind in kinds.items() if kind != BFLOAT16}
    if BFLOAT16 in kinds.values():  # which NumPy does not have
        found: dict[str, Any] = dict(deserialize(read_bytes(path)))  # type: ignore[no-untyped-call]
        arrays |= {name: _widened(found[name]) for name, kind in kinds.items() if kind == BFLOAT16}
    return arrays


def _widened(stored: Mapping[str, Any]) -> Array:
    """bfloat16 as float32, whose upper half it is."""
    halves = np.frombuffer(stored["data"], "<u2").astype(np.uint32)
    array: Array = (halves << 16).view(np.float32).reshape(stored["shape"])
    return array


def _read_torch(path: Path) -> dict[str, Any]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:  # its message advises to trust the file
        raise DataError(
            "cannot be read as weights: it holds more than tensors, or is damaged, and nothing in it is run",
            remedy="in PyTorch, torch.save(model.state_dict(), FILE)",
        ) from None
    if not isinstance(loaded, Mapping):
        raise DataError("no mapping of names to tensors", remedy="save model.state_dict()")
    inner = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
    return {str(name): _array(str(name), value) for name, value in (inner[0] if inner else loaded).items()}


def _array(name: str, tensor: Any) -> Array:
    """The tensor's numbers; one that pretends to be larger than what is stored is refused."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise DataError(f"{name!r} is no dense tensor", remedy="save model.state_dict()")
    expect_size(name, tensor.numel())
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise DataError(f"{name!r} is larger than what the file stores of it")
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    return array


def _unwrapped(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Without the prefixes that all names have."""
    while prefix := next((p for p in PREFIXES if arrays and all(name.startswith(p) for name in arrays)), ""):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return dict(arrays)
