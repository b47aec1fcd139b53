"""Noise for readers and for the command line; `MINITL_FUZZ=10000` makes so many of each."""

from __future__ import annotations

import os

import numpy as np

FUZZ = int(os.environ.get("MINITL_FUZZ", "40"))  # executions per reader


def noisy(raw: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, or the file cut."""
    changed = np.frombuffer(raw, np.uint8).copy()
    head = min(len(raw), 400)  # sizes and headers stand at the beginning, an archive's at the end
    for at in np.concatenate([rng.integers(0, head, 3), len(raw) - 1 - rng.integers(0, head, 3)]):
        if rng.random() < 0.5:
            changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
    cut = rng.integers(len(raw)) if rng.random() < 0.2 else len(raw)
    return changed[:cut].tobytes()


TOML = [*'[]{}="\n#.,0-_', "inf", "nan", "1e999", "0x", '"""', "[[", "true", "1979-05-27", "\0", "\u00e9", "9" * 5000]


def noisy_text(text: str, rng: np.random.Generator) -> str:
    """A few letters of a TOML text replaced, pieces moved, said twice or left out, or nested deeply."""
    for _ in range(rng.integers(1, 5)):
        start, stop = sorted(rng.integers(0, len(text) + 1, 2))
        stop = min(stop, start + 40)
        what = rng.integers(6)
        if what < 3:
            text = text[:start] + str(rng.choice(TOML)) + text[start + int(what) :]
        elif what == 3:
            text = text[:start] + text[stop:]
        elif what == 4:
            text = text[:stop] + text[start:stop] + text[stop:]
        else:
            text = text[:start] + "[" * int(rng.choice([1, 50, 2000])) + text[start:]
    return text
