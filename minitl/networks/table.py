"""How a table is read: from TOML, on top of another one (`base`), its stages spelled out block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from minitl.errors import MinitlError, UnknownNameError
from minitl.networks.keys import expect_known, mapping, read, wrong
from minitl.networks.schema import Block, SqueezeExcite, Table

MOST_BLOCKS = 1000
SECTIONS = ("stem", "block", "squeeze_excite", "head", "classifier")  # merged key by key with those of a base
ABOVE = ("base", "block", "squeeze_excite")  # keys of a table that are no fields of `Table`
EITHER = {  # one of them given anew lets the other go
    "block": ("expanded", "expansion"), "squeeze_excite": ("channels", "ratio"), "head": ("channels", "expansion")
}  # fmt: skip


def read_table(data: Mapping[str, Any], where: str) -> Table:
    """The table of the mapping; raises, naming the place, where a key or a value is not in the schema."""
    top = mapping(where, "", data)
    names = [f.name for f in fields(Table)]
    expect_known(top, (*names, *ABOVE), where)
    for section in SECTIONS:
        for key in mapping(f"{where} [{section}]", "", top.get(section, {})):
            if key in names:
                remedy = f"put it above the first [section]: it is read as one of [{section}]"
                raise UnknownNameError(f"{key!r} is a key of the whole table", layer=where, remedy=remedy)
    defaults = mapping(f"{where} [block]", "", top.pop("block", {}))
    squeeze = mapping(f"{where} [squeeze_excite]", "", top.pop("squeeze_excite", {}))
    read(SqueezeExcite, squeeze, f"{where} [squeeze_excite]")
    defaults = {"squeeze_excite": False, **defaults}
    rows = top.get("stages", [])
    if not isinstance(rows, list | tuple) or not rows:
        raise wrong(where, "stages to be a list of at least one table ([[stages]]), or a base", rows)
    stages, blocks = [], 0
    for number, row in enumerate(rows):
        stages.append(tuple(_stage(row, defaults, squeeze, f"{where} stages[{number}]", MOST_BLOCKS - blocks)))
        blocks += len(stages[-1])
    return read(Table, {**top, "stages": tuple(stages)}, where, otherwise=", or a base that has one")


def merged(base: Mapping[str, Any], own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keys of both, where `own` prevails."""
    result = {**base, **own}
    for key in SECTIONS:
        if isinstance(base.get(key), Mapping) and isinstance(own.get(key), Mapping):
            result[key] = _over(base[key], own[key], key, f"{where} [{key}]")
    return result


def _stage(row: Any, defaults: dict[str, Any], squeeze: dict[str, Any], where: str, most: int) -> Iterator[Block]:
    """The stage's blocks, at most `most`."""
    keys, defaults = mapping(where, "", row), dict(defaults)
    inherited = defaults.pop("stride", 1)
    stride, made = keys.pop("stride", inherited), 0
    entries = keys.pop("blocks", None)
    if entries is not None and "repeats" in keys:
        raise MinitlError("repeats and blocks", layer=where, remedy="give each of the blocks its repeats")
    if not isinstance(entries, list | tuple | None):
        raise wrong(where, "blocks to be a list of tables", entries)
    for number, entry in enumerate(entries or [{"repeats": keys.pop("repeats", 1)}]):
        place = f"{where} blocks[{number}]" if entries else where
        own = mapping(place, "", entry)
        repeats = own.pop("repeats", 1)
        made += repeats if type(repeats) is int else 0
        if type(repeats) is not int or repeats < 1 or made > most:
            raise wrong(place, f"repeats a whole number from 1, and at most {MOST_BLOCKS} blocks", repeats)
        own = _over(_over(defaults, keys, "block", where), own, "block", place)
        for _ in range(repeats):
            yield _block({"stride": stride, **own}, squeeze, place)
            stride = 1


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any], section: str, where: str) -> dict[str, Any]:
    """The keys of both, where `upper` prevails."""
    either = EITHER.get(section, ())
    given = [key for key in either if key in upper]
    if len(given) > 1:
        raise MinitlError(" and ".join(given), layer=where, remedy="give one of the two")
    return {**{key: value for key, value in lower.items() if not given or key not in either}, **upper}


def _block(keys: dict[str, Any], squeeze: dict[str, Any], where: str) -> Block:
    wanted = keys.pop("squeeze_excite")
    if wanted is not False:
        own = {} if wanted is True else mapping(where, "squeeze_excite", wanted)
        keys["squeeze_excite"] = _over(squeeze, own, "squeeze_excite", f"{where} [squeeze_excite]")
    return read(Block, keys, where, ("repeats", "blocks"))
