"""Networks as tables: one's own, from TOML and from Python; what is wrong with a table, and where."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import FUZZ, noisy_text
from hypothesis import given
from hypothesis import strategies as st
from models import batch, noise, stir, trained

import minitl
from minitl.accounting import measure, predict
from minitl.cli import main
from minitl.errors import DataError, MinitlError, UnknownNameError, ValueRangeError
from minitl.networks.names import STYLES

SMALL: dict[str, Any] = {
    "num_classes": 3,
    "stages": [
        {"channels": 8, "kind": "separable"},
        {"channels": 16, "stride": 2, "blocks": [{"kernel": 5}, {"expanded": 24, "repeats": 2}]},
    ],
    "stem": {"channels": 8},
    "block": {"expansion": 3, "activation": "relu6"},
    "squeeze_excite": {"ratio": 0.5},
    "head": {"channels": 32},
}
TOML = """
num_classes = 3
stages = [
    { channels = 8, kind = "separable" },
    { channels = 16, stride = 2, blocks = [{ kernel = 5 }, { expanded = 24, repeats = 2 }] },
]
stem = { channels = 8 }
block = { expansion = 3, activation = "relu6" }
squeeze_excite = { ratio = 0.5 }
head = { channels = 32 }
"""


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """SMALL with one place changed."""
    table = copy.deepcopy(SMALL)
    inner: Any = table
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return table


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(a[key].tobytes() == b[key].tobytes() for key in a)


def test_a_table_says_what_is_built() -> None:
    net = minitl.networks.from_table(SMALL)
    specs = [block.spec for block in net.blocks]
    assert [(s.in_channels, s.expanded_channels, s.out_channels, s.kernel, s.stride) for s in specs] == [
        (8, 8, 8, 3, 1), (8, 24, 16, 5, 2), (16, 24, 16, 3, 1), (16, 24, 16, 3, 1),
    ]  # fmt: skip
    assert [s.expand for s in specs] == [False, True, True, True]
    assert [bool(block.add) for block in net.blocks] == [True, False, True, True]
    assert net.stem.conv.attrs == {"stride": 2}
    assert (net.num_classes, net.name) == (3, "network")


def test_toml_and_python_are_one_schema(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    net = minitl.networks.load(path, seed=4)
    assert net.name == "mine"
    assert same(net, minitl.networks.from_table(SMALL, seed=4))
    assert same(net, minitl.networks.get(str(path), seed=4))
    assert minitl.networks.load(path, num_classes=10, width=2.0).num_classes == 10


def test_the_table_of_a_network_builds_it_again() -> None:
    for name in ("mobilenet_v3_small", "mobilenetv2_035", "tf_mobilenetv3_small_100", "mcunet_in2"):
        net = minitl.networks.get(name, num_classes=5, dropout=0.3, width=0.5)
        net.take_over({}, eps=1e-4, momentum=0.2, padding=net.table["padding"])
        again = minitl.networks.from_table(json.loads(json.dumps(net.table)))
        assert same(net, again)
        assert again.table == net.table
        assert (again.stem.norm.eps, again.stem.norm.momentum, again.name) == (1e-4, 0.2, name)
        assert [layer.p for layer in again.classifier if hasattr(layer, "p")] == [0.3]


def test_squeeze_and_excite_variants() -> None:
    """Width by ratio of the expanded or the input channels, rounded in two ways, or given; activation; gate."""
    cases: list[tuple[Any, int]] = [
        (True, 24),  # half of 48, a multiple of 8
        ({"ratio": 0.25}, 16),  # 12 is as near to 8, but 8 is less than 0.9 times 12
        ({"ratio": 0.25, "rounding": "nearest"}, 12),
        ({"ratio": 0.25, "of": "input", "rounding": "nearest"}, 4),
        ({"channels": 20}, 24),
        (False, 0),
    ]
    for squeeze, expected in cases:
        stages = [{"channels": 16, "expansion": 3, "squeeze_excite": squeeze}]
        net = minitl.networks.from_table({**SMALL, "stem": {"channels": 16}, "stages": stages})
        assert net.blocks[0].spec.se_channels == expected, squeeze
    keys = {"activation": "hard_swish", "gate": "relu6"}
    net = minitl.networks.from_table({**SMALL, "stages": [{"channels": 8, "squeeze_excite": keys}]})
    assert net.blocks[0].se
    assert (net.blocks[0].se.act.op.name, net.blocks[0].se.gate.op.name) == ("hard_swish", "relu6")


@pytest.mark.parametrize(
    ("scale", "width", "stem"), [("always", 0.5, 16), ("up", 0.5, 32), ("up", 2.0, 64), ("never", 2.0, 32)]
)
def test_what_the_width_multiplies(scale: str, width: float, stem: int) -> None:
    net = minitl.networks.from_table({**SMALL, "stem": {"channels": 32, "scale": scale}}, width=width)
    assert net.blocks[0].spec.in_channels == stem
    assert net.blocks[0].spec.out_channels == max(8, 8 * width)


def test_a_base_is_changed_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text('base = "mobilenet_v3_small"\nwidth = 0.5\n[head]\nactivation = "relu"\n')
    net, base = minitl.networks.load(path), minitl.networks.mobilenet_v3_small(width=0.5)
    assert same(net, base)
    assert net.head
    assert net.head.act
    assert net.head.act.op.name == "relu"
    assert net.name == "wide"


def test_every_style_names_every_layer_differently() -> None:
    for name in ("mobilenet_v3_small", "mobilenet_v2", "digits_irb"):
        for style in STYLES:
            net = minitl.networks.from_table({**minitl.networks.get(name).table, "names": style})
            paths = [layer.path for layer in net.layers()]
            assert len(set(paths)) == len(paths)
            assert all(paths)


def test_an_expansion_takes_the_place_of_an_inherited_width_and_the_other_way_round() -> None:
    stages = [{"channels": 8, "expansion": 2}, {"channels": 8}]
    for inherited, own in ({"expanded": 48}, 48), ({"expansion": 6}, 48):
        net = minitl.networks.from_table({**SMALL, "block": inherited, "stages": stages})
        assert [block.spec.expanded_channels for block in net.blocks] == [16, own]
    net = minitl.networks.from_table({**SMALL, "block": {"kind": "auto"}, "stages": stages})
    assert [block.spec.expand for block in net.blocks] == [True, False]


def test_so_it_is_of_a_head_and_of_squeeze_and_excite() -> None:
    for base, head, wide in (
        ("mobilenet_v2", {"expansion": 2}, 640),
        ("mobilenet_v2", {"channels": 640}, 640),
        ("mobilenet_v3_small", {"channels": 600}, 600),
        ("mobilenet_v3_small", {"activation": "relu"}, 576),
    ):
        net = minitl.networks.from_table({"base": base, "head": head})
        assert net.head
        assert net.head.conv.parameters["weight"].value.shape[0] == wide
    inherited = {"channels": 24}
    for own, count in (({"ratio": 0.5}, 8), ({"channels": 32}, 32), (True, 24), ({"activation": "silu"}, 24)):
        stages = [{"channels": 8, "expansion": 2, "squeeze_excite": own}]
        net = minitl.networks.from_table({**SMALL, "squeeze_excite": inherited, "stages": stages})
        assert net.blocks[0].spec.se_channels == count


def test_a_stride_that_stages_leave_out_is_of_their_first_block() -> None:
    rows = {"stride": 1, "repeats": 2}, {"repeats": 2}, {"blocks": [{"kernel": 5}, {"stride": 2}, {}]}
    stages = [{"channels": 8, **row} for row in rows]
    for block, strides in (({"stride": 2}, [1, 1, 2, 1, 2, 2, 1]), ({}, [1, 1, 1, 1, 1, 2, 1])):
        net = minitl.networks.from_table({**SMALL, "block": block, "stages": stages})
        assert [block.spec.stride for block in net.blocks] == strides


def test_inspect_takes_a_table_and_a_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML + 'padding = "same"\nresolution = 40\n')
    assert main(["inspect", str(path), "--width", "2", "--method", "ft-all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[key] for key in ("network", "classes", "resolution", "padding")] == ["mine", 3, 40, "same"]
    net = trained(minitl.networks.load(path, width=2), "ft-all")
    assert found["totals"]["kept_bytes"] == predict(net, batch=8, resolution=40).kept_bytes
    assert main(["inspect", str(path), "--method", "ft-all", "--by", "block"]) == 0
    assert "40 x 40, float32, optimizer sgd, SAME padding by mirrored images" in capsys.readouterr().out


# SAME padding


def test_same_padding_by_its_definition() -> None:
    """A stride-2 convolution on an even side pads (k - 3) / 2 before and (k - 1) / 2 behind."""
    table = {**SMALL, "stem": {"channels": 4, "kernel": 5, "activation": "relu"}, "padding": "same", "divisor": 1}
    for side in (8, 9):
        net = stir(minitl.networks.from_table(table, dtype="float64"))
        x, kernel = noise((1, side, side, 3)), net.state_dict()["features.0.0.weight"]
        total = max((-(-side // 2) - 1) * 2 + 5 - side, 0)
        padded = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2), (0, 0)))
        outputs = range(-(-side // 2))
        expected = np.array(
            [[np.einsum("hwc,ochw->o", padded[0, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5], kernel) for j in outputs]
             for i in outputs]
        )  # fmt: skip
        tape = minitl.Tape(fused=False)
        mirrored = np.ascontiguousarray(x[:, ::-1, ::-1])
        got = net.stem.conv(tape, tape.images(mirrored, 3, "float64")).value[0, ::-1, ::-1]
        assert np.allclose(got, expected, rtol=0, atol=1e-12)


def test_a_mirrored_network_keeps_the_sources_kernels_in_its_state_dict() -> None:
    net = stir(minitl.networks.from_table({**SMALL, "padding": "same"}))
    state, name = net.state_dict(), "features.0.0.weight"
    held = next(p for p in net.parameters() if p.name == name).value
    assert np.array_equal(held, state[name][:, :, ::-1, ::-1])
    assert not np.array_equal(held, state[name])
    other = minitl.networks.from_table({**SMALL, "padding": "same"}, seed=1)
    other.load_state_dict(state)
    assert same(net, other)
    images, _ = batch(net, resolution=16)
    assert net.predict(images).tobytes() == other.predict(images).tobytes()


@pytest.mark.parametrize(("method", "blocks"), [("ft-all", None), ("mobiletl", 2)])
def test_a_mirrored_network_is_accounted_to_the_byte(method: str, blocks: int | None) -> None:
    """The peak too: it is as near the predicted one as a symmetric network's."""
    beyond = []
    for padding in ("symmetric", "same"):
        net = trained(minitl.networks.from_table({**SMALL, "padding": padding}), method, blocks)
        got = measure(net, batch=4, resolution=64)
        assert predict(net, batch=4, resolution=64).kept_bytes == got.held_bytes == got.traced_bytes
        beyond.append(got.traced_peak_bytes - got.predicted_peak_bytes)
    mirrored_images = 4 * 64 * 64 * 3 * 4
    assert abs(beyond[0] - beyond[1]) < mirrored_images / 4


@pytest.mark.parametrize("method", ["ft-all", "mobiletl", "mobiletl-exact", "mobiletl-recompute"])
def test_methods_on_silu_and_a_sigmoid_gate(method: str) -> None:
    """SiLU's slope is not in its output: the exact methods keep its input."""
    squeeze = {"activation": "silu", "gate": "sigmoid"}
    stages = [{"channels": 8, "stride": 2}, {"channels": 8, "squeeze_excite": squeeze}]
    table = {
        **SMALL,
        "stages": stages,
        "block": {"expansion": 3, "activation": "silu"},
        "head": {"channels": 16, "activation": "silu"},
    }
    net = trained(minitl.networks.from_table(table), method)
    images, labels = batch(net, n=2, resolution=16, classes=3)
    tape = minitl.Tape()
    loss = net.loss(tape, net(tape, images), labels)
    found = minitl.accounting.ledger(tape)
    assert found.rows == predict(net, batch=2, resolution=16).rows
    assert tape.backward(loss).keys() == net.trained_parameters().keys()
    assert net.exact == (method != "mobiletl")


# What is refused

BAD: dict[str, tuple[Any, type[MinitlError], str]] = {
    "not a table": ([], ValueRangeError, "table: expected a table of keys and values, got []"),
    "no stages": (
        changed("stages", to=[]), ValueRangeError,
        "table: expected stages to be a list of at least one table ([[stages]]), or a base, got []",
    ),
    "no stem": (
        {"stages": SMALL["stages"]}, UnknownNameError,
        "table: key 'stem' is missing; give stem, or a base that has one",
    ),
    "unknown key": (changed("widht", to=2), UnknownNameError, "table: unknown key 'widht' (did you mean 'width'?)"),
    "unknown key and no stages": ({"bse": "x"}, UnknownNameError, "table: unknown key 'bse' (did you mean 'base'?)"),
    "unknown key of a section": (changed("head", "depth", to=2), UnknownNameError, "table [head]: unknown key 'depth'"),
    "key of the table in a section": (
        changed("head", "resolution", to=96), UnknownNameError,
        "table: 'resolution' is a key of the whole table; put it above the first [section]: it is read as one of",
    ),
    "text for a number": (changed("resolution", to="96"), ValueRangeError, "from 1 to 16384, got '96'"),
    "misspelt repeats": (
        changed("stages", 0, "repeat", to=2), UnknownNameError, "unknown key 'repeat' (did you mean 'repeats'?)"
    ),
    "unknown key of a stage": (
        changed("stages", 1, "kernal", to=3), UnknownNameError, "table stages[1] blocks[0]: unknown key 'kernal'"
    ),
    "unknown key of the defaults": (changed("block", "x", to=3), UnknownNameError, "table stages[0]: unknown key 'x'"),
    "even kernel": (
        changed("stages", 0, "kernel", to=4), ValueRangeError,
        "table stages[0]: expected kernel an odd number from 1 to 31, got 4",
    ),
    "stride": (changed("stages", 0, "stride", to=3), ValueRangeError, "expected stride a whole number from 1 to 2"),
    "boolean": (changed("stages", 0, "channels", to=True), ValueRangeError, "expected channels a whole number"),
    "nan": (changed("width", to=float("nan")), ValueRangeError, "expected width above 0, at most 10, got nan"),
    "eps": (changed("eps", to=0.0), ValueRangeError, "expected eps above 0, at most 1, got 0.0"),
    "repeats": (changed("stages", 0, "repeats", to=0), ValueRangeError, "table stages[0]: expected repeats a whole"),
    "too many": (changed("stages", 0, "repeats", to=10**9), ValueRangeError, "at most 1000 blocks, got 1000000000"),
    "too large": (
        changed("stages", 1, to={"channels": 32768, "expansion": 90, "repeats": 2}), ValueRangeError,
        "expected at most 268,435,456 weights, got ",
    ),
    "both widths": (
        changed("stages", 0, to={"channels": 8, "expanded": 8, "expansion": 2}), MinitlError,
        "table stages[0]: expanded and expansion; give one of the two",
    ),
    "both squeezed": (
        changed("stages", 0, to={"channels": 8, "squeeze_excite": {"channels": 8, "ratio": 0.5}}), MinitlError,
        "table stages[0] [squeeze_excite]: channels and ratio; give one of the two",
    ),
    "both heads": (
        {"base": "mobilenet_v2", "head": {"channels": 8, "expansion": 2}}, MinitlError,
        "table [head]: channels and expansion; give one of the two",
    ),
    "both ways": (changed("stages", 1, "repeats", to=2), MinitlError, "table stages[1]: repeats and blocks; give each"),
    "section": (changed("head", to=3), ValueRangeError, "table [head]: expected a table of keys and values, got 3"),
    "names": (changed("names", to="keras"), UnknownNameError, "unknown names 'keras'; choose one of: torchvision_v2"),
    "base": (changed("base", to="mobilenet"), UnknownNameError, "'mobilenet' (did you mean 'mobilenet_v2'?)"),
    "activation": (changed("block", "activation", to="gelu"), UnknownNameError, "'gelu' cannot be expressed; minitl"),
    "kind": (
        changed("stages", 0, "kind", to="edge"), UnknownNameError,
        "table stages[0]: 'edge' cannot be expressed; a fused block expands with a dense k x k convolution",
    ),
    "dilation": (changed("stages", 0, "dilation", to=2), UnknownNameError, "minitl's convolutions have dilation 1"),
    "where": (
        changed("stages", 0, "squeeze_excite", to={"where": "project"}), UnknownNameError,
        "table stages[0] [squeeze_excite]: 'project' cannot be expressed; squeeze-and-excite stands behind",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_where_it_is_bad(case: str) -> None:
    table, kind, words = BAD[case]
    before = copy.deepcopy(table)
    with pytest.raises(kind) as caught:
        minitl.networks.from_table(table)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert repr(table) == repr(before)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    for text, words in [
        ("stages = [", "no table of a network: "),
        (b"\xff\xfe", "no table of a network: "),
        ("a = " + "[" * 5000, "no table of a network: "),
        ("a = 1", "unknown key 'a'"),
        ("", "expected stages to be a list of at least one table ([[stages]]), or a base"),
        ('base = "../digits_irb"', "unknown network '../digits_irb'"),
        (TOML.replace("kernel = 5", "kernel = 2"), "stages[1] blocks[0]: expected kernel an odd number"),
    ]:
        path.write_bytes(text if isinstance(text, bytes) else str(text).encode())
        with pytest.raises(MinitlError) as caught:
            minitl.networks.load(path)
        assert str(caught.value).startswith(str(path))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        minitl.networks.get(str(tmp_path / "none.toml"))
    with pytest.raises(DataError, match="directory"):
        minitl.networks.load(tmp_path)
    path.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(DataError, match="at most 1,048,576 are read"):
        minitl.networks.load(path)


def test_noise_in_a_file_builds_or_is_refused(tmp_path: Path) -> None:
    path, rng, refused = tmp_path / "noise.toml", np.random.default_rng(0), 0
    for _ in range(FUZZ):
        path.write_text(noisy_text(TOML, rng), "utf-8")
        try:
            minitl.networks.load(path)
        except MinitlError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > FUZZ / 4


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.sampled_from(["", "irb", "relu", "gelu", "up"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(SMALL)), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    ("stages",), ("stages", 0), ("stages", 1, "blocks"), ("stages", 1, "blocks", 0), ("stages", 0, "channels"),
    ("stages", 0, "squeeze_excite"), ("stages", 1, "stride"), ("stages", 1, "repeats"), ("stem",), ("head",),
    ("block",), ("squeeze_excite",), ("classifier",), ("width",), ("divisor",), ("names",), ("name",), ("padding",),
]  # fmt: skip


@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_anywhere_builds_or_is_refused(place: tuple[Any, ...], value: Any) -> None:
    try:
        net = minitl.networks.from_table(changed(*place, to=value))
    except MinitlError:
        return
    assert minitl.networks.from_table(json.loads(json.dumps(net.table))).table == net.table
