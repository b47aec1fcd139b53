"""Saved counts memory once, at the array that owns it."""

from __future__ import annotations

import numpy as np

from minitl.saved import Kept, Saved


def test_a_buffer_is_counted_at_its_owner() -> None:
    saved, room = Saved(), np.zeros((10, 8), "float32")
    saved.keep("part", room[2:4, ::2], ("grad_input",))
    assert saved.buffers["part"].owner is room
    assert saved.nbytes == saved.buffers["part"].kept.nbytes == room.nbytes == 320


def test_memory_kept_twice_is_counted_once() -> None:
    saved, x = Saved(), np.zeros((3, 5))
    saved.keep("x", x, ("grad_weight",))
    saved.keep("flat", x.reshape(-1), ("grad_input",))
    saved.keep("other", np.zeros(2, "int64"), ("grad_input",))
    assert saved.nbytes == 120 + 16
    assert saved["flat"].base is x
    assert "flat" in saved
    assert "y" not in saved


def test_codes_stand_for_a_map_of_few_bits() -> None:
    saved = Saved()
    saved.keep("codes", np.zeros((13, 7), "uint8"), ("grad_input",), codes=((2, 5, 5, 7), 2))
    kept = saved.buffers["codes"].kept
    assert (kept.shape, kept.bits, kept.nbytes) == ((2, 5, 5, 7), 2, 91)
    saved.keep("x", np.zeros((4, 3), "float32"), ("grad_weight",))
    assert saved.buffers["x"].kept == Kept("x", (4, 3), "float32", 32, 48, ("grad_weight",))
