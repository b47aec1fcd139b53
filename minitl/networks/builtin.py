"""The built-in networks, a table each in `tables/`, and networks of one's own from a TOML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from minitl.errors import unknown
from minitl.files import read_toml
from minitl.networks.assemble import assemble
from minitl.networks.keys import mapping
from minitl.networks.network import Network
from minitl.networks.table import merged

TABLES = Path(__file__).with_name("tables")
FIRST = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "proxyless_mobile", "digits_irb")  # in lists


def load(path: str | Path, num_classes: int | None = None, **options: Any) -> Network:
    """The network of a TOML file (its keys: `networks.schema`), with a classifier for `num_classes`.

    A key `base` names a built-in network whose table the file changes. `options` are those of
    `from_table`. Raises DataError where the file cannot be read, and else what `from_table` does.
    """
    path = Path(path)
    table = _on_base(read_toml(path, "table of a network"), str(path))
    return assemble({"name": path.stem, **table}, str(path), num_classes=num_classes, **options)


def get(name: str, **options: Any) -> Network:
    """The built-in network of that name, or the network of a file whose name ends with `.toml`.

    `options` are those of `from_table`.
    """
    if isinstance(name, str) and name.endswith(".toml"):
        return load(name, **options)
    return assemble({**_builtin_table(name, ""), "name": name}, name, **options)


def from_table(table: Mapping[str, Any], **options: Any) -> Network:
    """The network of a table: a mapping with the keys of `networks.schema`, and perhaps a `base`.

    `options` are `dtype` and `seed` (which weights are drawn from), and keys of the table to be
    given anew, such as `num_classes`, `width` and `dropout`; None leaves the table's. Raises
    ValueRangeError or UnknownNameError, naming the place, where the schema does not know a key or
    a value.
    """
    where = "table"
    return assemble(_on_base(mapping(where, "", table), where), where, **options)


def _builtin_table(name: Any, where: str) -> dict[str, Any]:
    """The table of a built-in network, with that of its base worked in."""
    if not isinstance(name, str) or name not in NETWORKS:
        raise unknown("network", name, NETWORKS, layer=where)
    return _on_base(_read(name), name)


def _on_base(table: dict[str, Any], where: str) -> dict[str, Any]:
    """The table on top of that of the built-in network which its `base` names, if it has one."""
    if "base" not in table:
        return table
    own = {key: value for key, value in table.items() if key != "base"}
    return merged(_builtin_table(table["base"], where), own, where)


@cache
def _read(name: str) -> dict[str, Any]:
    return read_toml(TABLES / f"{name}.toml", "table of a network")


def _builder(name: str) -> Callable[..., Network]:
    def build(
        num_classes: int | None = None,
        *,
        width: float | None = None,
        dropout: float | None = None,
        dtype: str = "float32",
        seed: int = 0,
    ) -> Network:
        return get(name, num_classes=num_classes, width=width, dropout=dropout, dtype=dtype, seed=seed)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}: see `networks/tables/{name}.toml`. Weights are drawn from `seed`."
    return build


_TABLES = sorted(path.stem for path in TABLES.glob("*.toml"))
NETWORKS = {name: _builder(name) for name in dict.fromkeys((*FIRST, *_TABLES))}
