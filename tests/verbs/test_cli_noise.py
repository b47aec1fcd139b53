"""Command lines that nobody would write: documented endings only, one line about it, and no file half written.

Lines are made from the parser's own options, so that a new one is covered as it comes, with values that make sense
and values that do not; then words are lost, doubled, exchanged and misspelt. `MINITL_FUZZ=10000` runs so many.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from minitl import cli, devices, methods
from minitl.training.model_file import is_model

sys.path.append(str(Path(__file__).parents[1] / "data"))
import makers
from fuzz import FUZZ

PACKAGE = str(Path(cli.__file__).parent)
LONGEST = 0.7  # seconds: what takes longer is interrupted, as by Ctrl-C
LEFT_OUT = ("help", "action", "traceback", "compile")  # the last waits for processes, which are not interrupted
MODEL = ("train", "photos", "--network", "mine.toml", "--epochs", "1", "--out", "m.safetensors")
TABLE = 'base = "mobilenet_v2"\nresolution = 8\nstages = [{ channels = 8, kind = "separable" }, { channels = 8 }]\n'
DEVICE = (Path(devices.__file__).parent / "pulp-8.toml").read_text()

# Values. None of them names a place outside the folder, or asks for thousands of processes.
STRANGE = ["", " ", "-", "--", "-1", "x", "nan", "1e400", "\0", "\n", "\x1b[2J", "é", "\udcff", "n" * 300, "{}", "*",
           "%s", "=", ",", ":", "+", "9" * 400, "\u0661", "photos/photos", "1,2", "a:b", "true", "None"]  # fmt: skip
FEW, WHOLE = ["1", "2", "3", "8"], ["0", "-1", "17", "2147483648", "1000000000000", "1000000000001", "1.5"]
SHARE, NUMBER = ["0.1", "0.5", "1e-3", "1"], ["0", "2", "-1", "1e9", "inf"]
FILES = ["photos", "photos/red/0002.png", "data.npz", "mine.toml", "device.toml", "m.safetensors", "pipe", "pipe.toml",
         "empty", "text", "ref", "none", "broken.png", "trials.json"]  # fmt: skip
MADE = ["out.safetensors", "out.png", "out.svg", "out.json", "out.csv", "out.h", "out.html", "out.onnx", "none/out.png"]
NAMES = {
    "network": ["digits_irb", "irb", "mine.toml", "m.safetensors"],
    "data": ["photos", "data.npz"],
    "model": ["m.safetensors"],
    "weights": ["m.safetensors"],
    "images": ["photos/red/0002.png"],
    "file": ["out.onnx"],
    "ref": ["ref"],
    "got": ["ref"],
    "pattern": ["relu-exact"],
    "method": [*methods.METHODS, "ft-all,mobiletl"],
    "methods": ["ft-last", "mobiletl:2", "mobiletl:1+int8", "ft-all,ft-last", "mobiletl:2+relu=output"],
    "against": [*methods.METHODS],
    "device": [*devices.names(), "device.toml"],
    "budget": ["1MB", "3MB", "40MB", "2GFLOPs", "40"],
    "rule": ["hard_swish=few2", "relu=output", "project=filter2", "expand=quantised4", "expand_act=output"],
    "attr": ["kernel=3", "stride=2", "activation=relu6", "se_channels=0", "expand=false", "in_channels=8"],
    "op": ["conv", "relu", "irb", "linear"],
    "item": ["slope", "subspace"],
    "cases": ["none*"],  # a case takes seconds
    "workers": ["1", "0", "-1"],
    "scheduler": ["tcp://", "tcp://x"],
    "source": ["torchvision", "timm", "keras"],
    "augment": ["none", "flip", "flip,shift"],
    "learning_rates": ["0.1", "0.1,0.01", "default"],
    "dtype": ["float32", "float64"],
}


class Lines:
    """Draws command lines."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.care = rng, True
        self.verbs = _subparsers(cli.parser())

    def one_of(self, values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def draw(self) -> list[str]:
        """A line; every other one is made with care, and may do what it says."""
        self.care = self.rng.random() < 0.5
        name = self.one_of([*self.verbs])
        words, parser = [name], self.verbs[name]
        if actions := _subparsers(parser):
            words.append(self.one_of([*actions]))
            parser = actions[words[-1]]
        words += self.arguments(parser)
        for _ in range(0 if self.care else self.one_of([0, 1, 1, 2])):
            self.spoil(words)
        return words

    def arguments(self, parser: argparse.ArgumentParser) -> list[str]:
        known = [a for a in parser._actions if a.dest not in LEFT_OUT]
        words = [word for a in known if not a.option_strings for word in self.values(a)]
        few = self.rng.permutation(len(known))[: self.one_of([0, 1, 2, 3, 5])]
        for action in (known[i] for i in few):
            if action.option_strings:
                words += [action.option_strings[-1], *self.values(action)]
        if any(a.required and a.option_strings for a in known) and self.rng.random() < 0.7:
            words += [
                word
                for a in known
                if a.required and a.option_strings
                for word in (a.option_strings[-1], *self.values(a))
            ]
        return words

    def values(self, action: argparse.Action) -> list[str]:
        if action.nargs == 0 or (action.nargs in ("?", "*") and self.rng.random() < 0.5):
            return []
        return [self.value(action) for _ in range(self.one_of([1, 2]) if action.nargs == "+" else 1)]

    def value(self, action: argparse.Action) -> str:
        if action.dest in NAMES:
            usual, unusual = NAMES[action.dest], FILES
        elif action.choices is not None:
            usual, unusual = list(action.choices), STRANGE
        elif action.type in (int, float):
            usual, unusual = (FEW, WHOLE) if action.type is int else (SHARE, NUMBER)
        else:
            usual, unusual = MADE, FILES
        if action.dest in ("cases", "workers") or self.care or self.rng.random() < 0.7:
            return str(self.one_of(usual))
        return str(self.one_of(self.one_of([unusual, STRANGE])))

    def spoil(self, words: list[str]) -> None:
        at, what = int(self.rng.integers(len(words))), int(self.rng.integers(6))
        other = int(self.rng.integers(len(words)))
        if what == 0:
            del words[at]
            words += [] if words else ["--json"]
        elif what == 1:
            words.insert(at, words[other])
        elif what == 2:
            words[at], words[other] = words[other], words[at]
        elif what == 3:
            words.insert(at, self.one_of(STRANGE))
        elif what == 4:
            words += self.arguments(self.verbs[self.one_of([*self.verbs])])[:2]
        else:
            letters = list(words[at])
            for _ in range(self.one_of([1, 1, 3])):
                place = int(self.rng.integers(len(letters) + 1))
                letters[place : place + self.one_of([0, 1])] = [self.one_of([*"-=:,+0aé \n\0", ""])]
            words[at] = "".join(letters)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


@contextmanager
def interrupted_after(seconds: float) -> Iterator[list[bool]]:
    """Ctrl-C after so many seconds, in minitl's own code; the list says whether it came to that.

    Libraries are spared: an import stays half done, and some of their C code does not survive it. So is whatever
    `__del__` calls: Python ignores what is raised there, and the line would go on for ever.
    """
    fired: list[bool] = []

    def interrupt(_: int, frame: FrameType | None) -> None:
        outer = frame
        while outer and outer.f_code.co_name != "__del__":
            outer = outer.f_back
        if frame is None or outer or not frame.f_code.co_filename.startswith(PACKAGE):
            signal.setitimer(signal.ITIMER_REAL, 0.003)
            return
        fired.append(True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield fired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def furnish(folder: Path) -> None:
    """Files of every kind that a word may name."""
    makers.folder(folder / "photos", *makers.pictures(4, size=8))
    makers.npz(folder / "data.npz", *makers.pictures(4, size=8))
    (folder / "mine.toml").write_text(TABLE)
    (folder / "device.toml").write_text(DEVICE)
    (folder / "text").write_text("text")
    (folder / "empty").mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert cli.main([*MODEL]) == 0
    assert cli.main(["oracle", "export", "ref", "relu-exact"]) == 0
    for name in ("pipe", "pipe.toml"):
        os.mkfifo(folder / name)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def expect_whole(path: Path) -> None:
    """Raise where a file that was written is not what its name promises."""
    kind = path.suffix
    if path.is_dir() or is_model(path):
        return
    if path.read_bytes().startswith(b"<?xml"):
        ElementTree.parse(path)
        return
    if kind == ".json":
        json.loads(path.read_text())
    elif kind == ".csv":
        assert len({len(row) for row in csv.reader(io.StringIO(path.read_text()))}) == 1
    elif kind == ".png":
        with Image.open(path) as image:
            image.load()
    elif kind in (".svg", ".html", ""):
        assert re.search(r"</(svg|html|testsuites?)>\s*$", path.read_text())
    elif kind == ".h":
        assert path.read_text().rstrip().endswith("#endif") or "{" in path.read_text()
    elif kind == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(str(path)))
    elif path.name == "tensors.safetensors":
        load_file(path)
    else:
        assert kind in (".txt", ".c")


def complaint(words: list[str], code: int, out: str, err: str, warned: list[str]) -> str:
    """What is wrong with how a line ended, if anything."""
    if code not in (0, 1, 2):
        return f"exit {code}: {err}"
    if warned or ("Traceback" in err and "--traceback" not in words):
        return f"{warned} {err}"
    last = err.splitlines()[-1] if err else ""
    if code == 2 and not (last.startswith("minitl") and last.isprintable() and err.endswith("\n")):
        return f"exit 2 with {err!r}"
    if re.search(r"(?<!\S)(\S+: )\1", last):
        return f"says a thing twice: {last}"
    if code == 1 and not {"inspect", "oracle", "export"} & set(words):
        return f"a verdict: {out}"
    if code == 0 and "--json" in words and out.startswith("{"):
        json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return ""


def test_any_line_ends_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minitl.training.workers.default_workers", lambda: 1)
    monkeypatch.setattr("minitl.bench.rivals.installed", lambda: False)  # whose processes take seconds to begin
    furnish(tmp_path)
    capsys.readouterr()
    lines, before = Lines(np.random.default_rng(FUZZ)), contents(tmp_path)
    codes, verbs, found, late = Counter[int](), Counter[str](), list[tuple[list[str], str]](), list[str]()
    for _ in range(FUZZ):
        words = lines.draw()
        with warnings.catch_warnings(record=True) as warned, interrupted_after(LONGEST) as fired:
            warnings.simplefilter("always")
            try:
                code = cli.main(words)
            except SystemExit as left:
                code = int(str(left.code))
        codes[code] += 1
        verbs.update(words[:1] if code == 0 and words[0] in cli.VERBS else [])
        texts = [str(w.message) for w in warned if w.category is not ResourceWarning]
        out, err = capsys.readouterr()
        wrong = "" if fired else complaint(words, code, out, err, texts)  # Ctrl-C has tests of its own, in processes
        if fired and code != 130:
            late.append(f"{words}: {code} {err}")
        after = contents(tmp_path)
        if after != before:
            wrong += "".join(half_written(tmp_path / name) for name in after if after[name] != before.get(name))
            again(tmp_path, before)
        found += [(words, wrong)] if wrong else []
    with capsys.disabled():
        print(f"\n{FUZZ} command lines ended with {dict(codes)}; of those done: {dict(verbs)}", *late, sep="\n")
    assert not found, "\n".join(f"{words}: {wrong}" for words, wrong in found[:20])
    assert min(codes[0] + codes[130], codes[2]) > FUZZ / 20  # 130: it worked until it was interrupted


def half_written(path: Path) -> str:
    """What is wrong with a file that was written, if anything."""
    if path.name.endswith(".part"):
        return f" left {path.name} behind"
    try:
        expect_whole(path)
    except Exception as error:
        return f" {path.name}: {error!r}"
    return ""


def again(folder: Path, before: dict[str, bytes]) -> None:
    """Everything as it was."""
    shutil.rmtree(folder)
    folder.mkdir()
    os.chdir(folder)
    for name, content in before.items():
        restore(folder / name, content)


def restore(path: Path, content: bytes) -> None:
    if path.stem == "pipe":
        os.mkfifo(path)
    elif content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    else:
        path.mkdir(parents=True, exist_ok=True)
