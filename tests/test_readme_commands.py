"""The README's commands run as they stand, one after the other, in an empty folder with pictures of one's own.

Options are added that make them smaller, and nothing is taken away. What installs (`pip`, `make`) is for `.ci/run`.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from minitl import cli, networks
from minitl.kernels import threads
from minitl.kernels.compile import interpreted

sys.path.append(str(Path(__file__).parent / "data"))
import makers

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("minitl ")
]
SMALLER = {
    "oracle export": "'relu-*'",
    "train": "--resolution 32 --epochs 1",
    "compare": "--resolution 32 --epochs 1 --seeds 1 --learning-rates default --workers 1",
    "bench": "--cases 'irb 96-576-96 7x7*' --seconds 0 --no-peak --threads 1",
}


def furnish() -> None:
    """What the README takes for granted: photographs, weights of torchvision's."""
    torch = pytest.importorskip("torch")
    makers.folder(Path("photos"), *makers.pictures(6, size=40))
    makers.folder(Path("more_photos"), *makers.pictures(2, size=40, seed=1))
    Image.fromarray(makers.pictures(1, size=40)[0][0]).save("cat.jpg")
    weights = networks.mobilenet_v2(seed=1).state_dict()
    torch.save({name: torch.tensor(array) for name, array in weights.items()}, "mobilenet_v2.pth")


def answer() -> None:
    """Right results for the oracle's cases."""
    for case in Path("vectors").iterdir():
        if case.is_dir():
            (Path("results") / case.name).mkdir(parents=True)
            wanted = ("output", "grad_input", "grad_param", "buffer_after", "kept", "state_after", "param_after")
            tensors = load_file(case / "tensors.safetensors")
            given = {name: np.array(a) for name, a in tensors.items() if name.startswith(wanted)}
            save_file(given, Path("results") / case.name / "tensors.safetensors")


@pytest.mark.skipif(interpreted(), reason="takes minutes without the JIT")
def test_every_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minitl.kernels.threads._threads", threads.count())  # as it is again when the test ends
    monkeypatch.setattr("minitl.bench.compare.WAITS", {"spinning": ""})  # the other way is that of test_bench.py
    furnish()
    printed: dict[str, str] = {}
    for line in LINES:
        words = shlex.split(line, comments=True)[1:]
        if words[:2] == ["oracle", "check"]:
            answer()
        added = next((added for verb, added in SMALLER.items() if " ".join(words).startswith(verb)), "")
        code = cli.main([*words, *shlex.split(added)])
        out, err = capsys.readouterr()
        assert code == 0, (line, err)
        printed[line] = out
    assert {line.split()[1] for line in LINES} == {
        "inspect", "plan", "train", "evaluate", "predict", "export", "compare", "oracle", "bench",
    }  # fmt: skip
    shown = re.findall(r"The first prints, among other things,\n\n```\n(.*?)```", README, flags=re.DOTALL)[0]
    first = next(out for line, out in printed.items() if line.startswith("minitl inspect irb --method mobiletl "))
    assert set(map(str.rstrip, shown.splitlines())) <= set(map(str.rstrip, first.splitlines()))
