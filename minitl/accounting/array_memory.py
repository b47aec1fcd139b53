"""Count the bytes of NumPy's arrays as they come and go: alive now, the most ever, and every change.

`tracemalloc` knows a peak for all of Python together, not for arrays alone. NumPy lets the program
choose who allocates the data of arrays (NEP 49, `PyDataMem_SetHandler`); while `counting` is active,
that is the C library with a counter beside it. Arrays made before are freed by whoever made
them and are not counted. (Scratch memory of kernels and everything else of minitl is NumPy's too.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

SET_HANDLER = 304  # its place in NumPy's table of C functions
NAME = b"minitl counts array memory"


class ArrayMemory:
    """Memory from the C library: bytes alive, and the most there ever were. Others may serve it from elsewhere."""

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p

    def allocate(self, size: int) -> int | None:
        """The address of `size` bytes of zeros; None where there is no room."""
        place: int | None = self._libc.calloc(ctypes.c_size_t(1), ctypes.c_size_t(size or 1))
        return place

    def release(self, place: int) -> None:
        """Take back what was given at `place`."""
        self._libc.free(ctypes.c_void_p(place))

    def come(self, size: int) -> int | None:
        """An array's data comes."""
        place = self.allocate(size)
        if place:
            self._sizes[place] = size
            self.live += size
            self.peak = max(self.peak, self.live)
        return place

    def grow(self, place: int, size: int) -> int | None:
        """An array's data moves to where it has room for `size`."""
        new = self.come(size)
        if new:
            ctypes.memmove(new, place, min(size, self._sizes[place]))
            self.go(place)
        return new

    def go(self, place: int) -> None:
        """An array's data goes."""
        self.live -= self._sizes.pop(place)
        self.release(place)

    def reset_peak(self) -> None:
        """Forget what was before."""
        self.peak = self.live


class _Allocator(ctypes.Structure):
    MALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    CALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    REALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    _fields_ = [
        ("context", ctypes.c_void_p), ("malloc", MALLOC), ("calloc", CALLOC), ("realloc", REALLOC), ("free", FREE),
    ]  # fmt: skip


class _Handler(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator),
    ]  # fmt: skip


_kept: list[object] = []  # handlers that arrays made under them may still need when they are freed


@contextmanager
def counting(memory: ArrayMemory | None = None) -> Iterator[ArrayMemory]:
    """Count the arrays made while this is active (on this thread and those that it starts)."""
    memory = memory or ArrayMemory()
    handler = _handler(memory)
    _kept.append(handler)
    before = _set(_capsule(handler))
    try:
        yield memory
    finally:
        _set(before)


def _handler(memory: ArrayMemory) -> _Handler:
    def malloc(_: int, size: int) -> int | None:
        return memory.come(size)

    def calloc(_: int, count: int, size: int) -> int | None:
        return memory.come(count * size)

    def realloc(_: int, place: int | None, size: int) -> int | None:
        return memory.grow(place, size) if place else memory.come(size)

    def free(_: int, place: int | None, size: int) -> None:
        if place:
            memory.go(place)

    a = _Allocator
    return _Handler(NAME, 1, a(None, a.MALLOC(malloc), a.CALLOC(calloc), a.REALLOC(realloc), a.FREE(free)))


def _capsule(handler: _Handler) -> object:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule: object = make(ctypes.addressof(handler), b"mem_handler", None)
    return capsule


def _set(capsule: object) -> object:
    """Make it NumPy's handler; returns the one before."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    api = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
    table = ctypes.cast(get(api, None), ctypes.POINTER(ctypes.c_void_p))
    before: object = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])(capsule)
    return before
