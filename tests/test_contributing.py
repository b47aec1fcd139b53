"""CONTRIBUTING's table of files: each line is carried out on a copy of the package, in its files and no others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minitl

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

LEAKY = """
from minitl.kernels.formula import where
from minitl.kernels.rules import ABOVE, Codes
from minitl.ops.activations.activation import activation


def value(x):
    return where(x > 0, x, x * 0.125)


leaky = activation("leaky", value, {"mask": Codes(1, lambda: (((0.0, ABOVE),), (0.125, 1.0)))}, flops=1)
"""
MINUS = """
import numpy as np
from minitl.arrays import size
from minitl.ops.expect import expect_values
from minitl.ops.op import Cost, Functions, Op, Split
from minitl.saved import Saved


def output_shape(shapes, attrs):
    return expect_values("minus", shapes[0])


def forward(x, *, attrs, needs, rule):
    return -x, Saved()


def backward(saved, gy, *, attrs, needs, params):
    return (-gy if needs[0] else None,)


def cost(shapes, dtype, *, attrs, needs, rule):
    return Cost(output=shapes[0], flops=Split(size(shapes[0]), needs[0] * size(shapes[0])))


minus = Op("minus", ("x",), Functions(output_shape, forward, backward, cost))
"""
HALF = """
import numpy as np
from minitl.ops.kept import GRAD_WEIGHT
from minitl.ops.op import keeps_array
from minitl.ops.rules.encoding import Encoding


def keep(saved, x, seed):
    saved.keep("x_half", x.astype(np.float16), GRAD_WEIGHT)


def restore(saved, dtype):
    return saved["x_half"].astype(dtype)


def kept(x, dtype):
    return (keeps_array("x_half", x, "float16", GRAD_WEIGHT),)


def nothing(x, dtype):
    return ()


ENCODINGS = {"half": Encoding(keep, restore, kept, nothing, nothing)}
"""
SHIFTS = """
from minitl.layers import LayerPlan, Norm
from minitl.methods.method import Method, is_final_linear


def policy(layer, blocks):
    if is_final_linear(layer):
        return LayerPlan(train=frozenset(layer.parameters))
    return LayerPlan(train=frozenset({"bias"})) if isinstance(layer, Norm) and layer.height <= blocks else LayerPlan()


shifts = Method("shifts", "shifts of the top blocks", policy, takes_blocks=True)
"""
MINE = """
base = "digits_irb"

[block]
activation = "leaky"

[stem]
activation = "silu"
"""
BOARD = """
name = "board"
title = "A board"
model = "capacity"

[memory_bytes]
value = 1e6
kind = "advertised"
source = "its box"
scope = "the board"
"""

# What is added in each line's files: a new file's text; or pairs of what stands there and what is put in its place.
Edit = str | dict[str, str]
ADDED: dict[str, dict[str, Edit]] = {
    "an activation": {
        "minitl/ops/activations/leaky.py": LEAKY,
        "minitl/ops/__init__.py": {"\n__all__": "\nfrom minitl.ops.activations.leaky import leaky\n\n__all__"},
        "minitl/export/onnx.py": {'"silu": _silu,': '"silu": _silu, "leaky": _plain("LeakyRelu", alpha=0.125),'},
    },
    "an op": {
        "minitl/ops/maps/minus.py": MINUS,
        "minitl/ops/__init__.py": {"\n__all__": "\nfrom minitl.ops.maps.minus import minus\n\n__all__"},
        "minitl/export/onnx.py": {'"sigmoid": _plain': '"minus": _plain("Neg"), "sigmoid": _plain'},
    },
    "a rule of an activation": {
        "minitl/ops/activations/silu.py": {
            '"sign": Codes': '"half": Codes(1, lambda: (((0.0, AT_LEAST),), (0.0, 0.5))), "sign": Codes',
            'approximate=("sign",)': 'approximate=("sign", "half")',
        },
    },
    "a rule of convolutions": {
        "minitl/ops/rules/half.py": HALF,
        "minitl/ops/rules/approximate.py": {
            "channels, gradient_filter,": "channels, gradient_filter, half,",
            "ENCODINGS = {": "ENCODINGS = {**half.ENCODINGS, ",
        },
    },
    "a method": {
        "minitl/methods/shifts.py": SHIFTS,
        "minitl/methods/__init__.py": {
            "\nMETHODS =": "\nfrom minitl.methods.shifts import shifts\n\nMETHODS =",
            "*(ft_all,": "shifts, *(ft_all,",
        },
    },
    "a network": {"minitl/networks/tables/mine.toml": MINE},
    "a device": {"minitl/devices/board.toml": BOARD},
}

CHECK = """
import numpy as np
import minitl
from minitl import cli, devices, methods, networks, ops
from minitl.accounting import ledger, predict
from minitl.export.onnx import EMIT
from minitl.records import Var
from minitl.tape import Tape

assert {"leaky", "minus"} <= set(EMIT)
tape = Tape()
x = tape.variable(Var(np.ones((1, 2, 2, 3), np.float32)), True)
y = tape.run(ops.minus, x, layer="x", role="")
tape.backward(y)

images, labels = np.random.default_rng(0).standard_normal((4, 12, 12, 3), np.float32), np.arange(4)
HALF = {"silu": "half", "expand": "half"}
for method, rules in (("shifts", {}), ("mobiletl-exact", HALF), ("ft-all", HALF)):
    net = methods.get(method, None if method == "ft-all" else 2, rules=rules).apply(networks.get("mine"))
    tape = Tape()
    loss = minitl.cross_entropy(tape, net(tape, images), labels)
    assert any(row.rule == "half" for row in ledger(tape).rows) == bool(rules)
    assert any((row.op, row.tensor) == ("leaky", "mask") for row in ledger(tape).rows)
    assert ledger(tape).kept_bytes == predict(net, batch=4, resolution=12).kept_bytes > 0
    tape.backward(loss)
for words in (["inspect", "mine", "--method", "shifts"], ["estimate", "mine", "--device", "board"]):
    assert cli.main([*words, "--json"]) == 0, words
print("added")
"""


def table() -> dict[str, tuple[list[str], list[str]]]:
    """Each line's files to write or change, and those of its tests."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| ")
    ]
    files = re.compile(r"`([^`]+)`").findall
    return {what: (files(write) + files(change), files(test)) for what, write, change, test in lines[1:]}


def test_every_line_has_its_files() -> None:
    assert set(table()) == set(ADDED)
    for what, (changed, tests) in table().items():
        assert changed, what
        assert tests, what
        for file in (*changed, *tests):
            folder_or_file = ROOT / file
            assert (folder_or_file.parent if "NAME" in file else folder_or_file).exists(), file


def test_what_the_table_says_suffices(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    shutil.copytree(Path(minitl.__file__).parent, tmp_path / "minitl", ignore=ignored)
    for what, edits in ADDED.items():
        added = {
            file.replace(Path(file).stem, "NAME") if isinstance(edit, str) else file for file, edit in edits.items()
        }
        assert added == set(table()[what][0]), what
        for file, edit in edits.items():
            path = tmp_path / file
            if isinstance(edit, str):
                assert not path.exists()
                path.write_text(edit)
                continue
            for old, new in edit.items():
                text = path.read_text()
                assert text.count(old) == 1, (file, old)
                path.write_text(text.replace(old, new))
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "1"}
    got = subprocess.run(
        [sys.executable, "-c", CHECK], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert got.stdout.splitlines()[-1:] == ["added"], got.stderr


def test_links_and_files_named_in_the_text_are_there() -> None:
    named = [*re.findall(r"\]\(([^)#]+)\)", TEXT), *re.findall(r"`((?:minitl|tests|tutorials|\.ci)/[^`*]+)`", TEXT)]
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("target", re.findall(r"^make ([a-z-]+)", TEXT, flags=re.MULTILINE))
def test_commands_are_targets_of_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
