"""An arena as a file: JSON, or a C header of offsets."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from minitl.accounting.arena import Arena, Placed
from minitl.files import write_whole


def write_arena(arena: Arena, path: Path, title: str) -> None:
    """Write it whole or not at all, as its suffix says (one of FORMS); raises UsageError where that cannot be done."""
    write_whole(path, FORMS[path.suffix.lower()](arena, title).encode())


def as_json(arena: Arena, title: str) -> str:
    """`{"about": title, "size_bytes": ..., "lower_bound_bytes": ..., "buffers": [...]}`."""
    return json.dumps({"about": title, **arena.to_json()}, indent=1) + "\n"


def as_header(arena: Arena, title: str) -> str:
    """`#define`s of the block's size, and of each buffer's offset and bytes, with when it is alive."""
    lines = [
        f"/* {title}",
        " * One block for a training step: offsets in bytes, from an address aligned to 64.",
        f" * No block is smaller than {arena.lower_bound_bytes} bytes, the step's peak.",
        " * A buffer may be written from its first moment to its last; the same bytes are others' before and after. */",
        "#ifndef MINITL_ARENA_H",
        "#define MINITL_ARENA_H",
        "",
        f"#define MINITL_ARENA_BYTES {arena.size_bytes}u",
        "",
    ]
    for macro, b in zip(_macros(arena.buffers), arena.buffers, strict=True):
        lines.append(f"/* {b.kind}{f' of {b.layer}' * bool(b.layer)}: {b.name}, moments {b.first} to {b.last} */")
        lines.append(f"#define {macro}_OFFSET {b.offset}u")
        lines.append(f"#define {macro}_BYTES {b.bytes}u")
    return "\n".join([*lines, "", "#endif", ""])


def _macros(buffers: tuple[Placed, ...]) -> list[str]:
    """A name for each, numbered where several would have the same."""
    plain = [_macro(b) for b in buffers]
    count, seen = Counter(plain), Counter[str]()
    names = []
    for name in plain:
        seen[name] += 1
        names.append(f"{name}__{seen[name]}" if count[name] > 1 else name)
    return names


def _macro(b: Placed) -> str:
    """`MINITL_FEATURES_9_CONV_0_0_WEIGHT`."""
    name = b.name if b.name.startswith(b.layer) else f"{b.layer}.{b.name}"
    return "MINITL_" + re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").upper()


FORMS: dict[str, Callable[[Arena, str], str]] = {".json": as_json, ".h": as_header}
