"""`minitl train`, `evaluate`, `predict` and `export`: the contract, and that nothing is ever lost."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from minitl import cli, files, methods, networks
from minitl.accounting import predict
from minitl.errors import MinitlError, UsageError
from minitl.export.onnx import largest_difference, to_onnx
from minitl.training.model_file import read_model
from minitl.training.progress import Bar
from minitl.verbs.endings import Terminated

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "data")]
import makers
from fuzz import FUZZ
from models import noise, settle, stir

TRAIN = ("--network", "digits_irb", "--method", "mobiletl", "--blocks", "2", "--resolution", "16", "--epochs", "2")
KILLS = int(os.environ.get("MINITL_KILLS", "2"))


class Cli:
    """Runs a command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as left:
            code = int(str(left.code))
        return (code, *self.capsys.readouterr())

    def json(self, *words: object) -> dict[str, Any]:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        data = json.loads(out)
        assert data.pop("schema") == f"minitl-{words[0]}/1"
        return data

    def refused(self, *words: object) -> str:
        code, out, err = self(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return makers.folder(tmp_path_factory.mktemp("photos"), *makers.pictures(10, size=20))


@pytest.fixture(scope="module")
def model(photos: Path) -> Path:
    path = photos.parent / f"{photos.name}.safetensors"
    cli.main(["train", str(photos), *TRAIN, "--out", str(path)])
    return path


def test_train_gives_what_was_promised(run: Cli, photos: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "m.safetensors", tmp_path / "log.csv"
    found = run.json("train", photos, *TRAIN, "--batch", 8, "--out", out, "--log", log)
    assert set(found) == {"epochs", "model", "kept_bytes", "peak_bytes"}
    assert [set(row) for row in found["epochs"]] == [
        {"epoch", "loss", "train_accuracy", "accuracy", "held_out_loss"}
    ] * 2
    assert found["model"] == str(out)
    network = methods.get("mobiletl", 2).apply(networks.digits_irb(num_classes=3))
    totals = predict(network, batch=8, resolution=16, optimizer_slots=2).totals
    assert (found["kept_bytes"], found["peak_bytes"]) == (totals.kept_bytes, totals.peak_bytes)
    with log.open() as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == found["epochs"]
    held = run.json("evaluate", out, photos, "--part", "held-out")
    assert (held["count"], held["accuracy"]) == (6, found["epochs"][-1]["accuracy"])


def test_train_tells_how_it_goes(run: Cli, photos: Path, tmp_path: Path) -> None:
    code, out, err = run("train", photos, *TRAIN, "--out", tmp_path / "m")
    assert code == 0
    assert "24 images to train on, 6 held out, 3 classes" in err
    assert re.search(r"digits_irb, mobiletl 2: trains 84,059 parameters; keeps 1\.\d{3} MB, peak \d\.\d{3} MB", err)
    assert "epoch 2/2: loss" in err
    assert "images/s, 0:00 left" in err
    assert max(map(len, err.splitlines())) <= 80
    assert out.startswith("accuracy on the held-out part: ")


def test_parameters_that_train_are_counted_as_plan_counts_them(run: Cli, photos: Path, tmp_path: Path) -> None:
    """Of a weight that trains in part only that part."""
    _, _, err = run("train", photos, *TRAIN, "--method", "sparse-update", "--out", tmp_path / "m")
    count = methods.get("sparse-update", 2).apply(networks.digits_irb(num_classes=3)).trained_count
    assert f"digits_irb, sparse-update 2: trains {count:,} parameters" in err


def test_what_stays_random_is_told(run: Cli, photos: Path, model: Path, tmp_path: Path) -> None:
    """Where there are no weights, and not everything trains."""
    net = methods.get("mobiletl", 2).apply(networks.digits_irb(num_classes=3))
    frozen = sum(p.value.size for p in net.parameters() if not (p.trained or p.statistic))
    told = f"without --weights what is not trained ({frozen:,} parameters) stays random\n"
    assert frozen > 50_000
    assert told in run("train", photos, *TRAIN, "--out", tmp_path / "m")[2]
    everything = ("train", photos, *TRAIN[:2], *TRAIN[6:], "--out", tmp_path / "all")
    for words in (everything, ("train", photos, "--weights", model, *TRAIN[6:], "--out", tmp_path / "n")):
        code, _, err = run(*words)
        assert (code, "stays random" in err) == (0, False)


def test_the_seed_decides_every_byte(run: Cli, photos: Path, model: Path, tmp_path: Path) -> None:
    run.json("train", photos, *TRAIN, "--out", tmp_path / "same", "--checkpoint-every", 1)
    run.json("train", photos, *TRAIN, "--out", tmp_path / "other", "--seed", 1)
    assert (tmp_path / "same").read_bytes() == model.read_bytes() != (tmp_path / "other").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "same"]


GO_ON = "the same command with --resume goes on"
DONE = ("0 of 2 epochs and 1 of 2 steps are in", "0 of 2 epochs and 2 of 2 steps are in", "1 of 2 epochs are in")


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_interrupted_and_resumed(
    run: Cli, photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Ctrl-C after some checkpoints exits 130; `--resume` goes on to the bytes of an uninterrupted run."""
    out, log, replace, left = tmp_path / "m", tmp_path / "log.json", files.write_whole, [after]

    def interrupting(path: Path, content: bytes) -> None:
        replace(path, content)
        left[0] -= path == out
        if not left[0]:
            raise KeyboardInterrupt

    command = ("train", photos, *TRAIN, "--out", out, "--log", log, "--checkpoint-every", 1, "--resume")
    with monkeypatch.context() as patch:
        patch.setattr("minitl.training.model_file.write_whole", interrupting)
        code, _, err = run(*command)
    held = ("nothing was written yet", *(f"{done} {out}: {GO_ON}" for done in DONE))[after - 1]
    assert (code, err.splitlines()[-1]) == (130, f"minitl train: interrupted: {held}")
    assert out.read_bytes() != model.read_bytes()
    assert not read_model(out).finished
    found = run.json("train", photos, "--out", out, "--log", log, "--resume")
    assert out.read_bytes() == model.read_bytes()
    assert json.loads(log.read_text()) == found["epochs"]
    assert [row["epoch"] for row in found["epochs"]] == [1, 2]


def test_a_run_that_is_replaced_is_told(run: Cli, photos: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    out.write_bytes(model.read_bytes())
    code, _, err = run("train", photos, *TRAIN, "--out", out)
    told = f"{out} holds a finished run (epochs: 2), which this run replaces; to keep it, stop now"
    assert (code, err.count(told)) == (0, 1)
    assert err.index(told) < err.index("epoch 1/2")
    assert out.read_bytes() == model.read_bytes()
    for words in (("--resume", "--out", out), ("--out", tmp_path / "new")):
        assert "replaces" not in run("train", photos, *TRAIN, *words)[2]


def test_an_interrupted_run_that_is_replaced_is_told(
    run: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise Terminated

    with monkeypatch.context() as patch:
        patch.setattr("minitl.verbs.train._Clock.say", interrupt)
        code, _, err = run("train", photos, *TRAIN, "--out", tmp_path / "m")
    told = f"minitl train: terminated: 1 of 2 epochs are in {tmp_path / 'm'}: {GO_ON}"
    assert (code, err.splitlines()[-1]) == (143, told)
    assert "m holds 1 of 2 epochs, which this run replaces" in run("train", photos, *TRAIN, "--out", tmp_path / "m")[2]


LAGGING = "accuracy may be far too low: running statistics have gone"


def test_running_statistics_that_hardly_moved_are_told(run: Cli, photos: Path, tmp_path: Path) -> None:
    """Of a new network after few steps; not after many, with a large momentum, or where none moves."""
    few = ("train", photos, *TRAIN, "--out", tmp_path / "m", "--momentum")
    told = " ".join(run(*few, 0.01)[2].split())
    assert f"{LAGGING} 4% of their way to the images (steps: 4, momentum: 0.01)" in told
    assert "a smaller --batch, more --epochs or --momentum 0.1 helps" in told
    usual = f"{LAGGING} 34% of their way to the images (steps: 4, momentum: 0.1); a smaller --batch or more"
    assert usual in " ".join(run(*few, 0.1)[2].split())
    assert LAGGING not in run(*few, 0.5)[2]
    assert LAGGING not in run(*few, 0.1, "--batch", 1)[2]
    assert LAGGING not in run(*few[:-1], "--method", "ft-last")[2]


@pytest.mark.parametrize(("seen", "told"), [(0, True), (10_000, False)])
def test_pretrained_statistics_are_near_by_their_counter(
    run: Cli, photos: Path, tmp_path: Path, seen: int, told: bool
) -> None:
    state = networks.digits_irb(num_classes=3).state_dict()
    state |= {name: np.array(seen) for name in state if name.endswith("num_batches_tracked")}
    (tmp_path / "w.safetensors").write_bytes(save(state))
    _, _, err = run(
        "train", photos, *TRAIN, "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "m", "--momentum", 0.01
    )
    assert (LAGGING in err) == told


def test_a_finished_run_stays_as_it_is(run: Cli, photos: Path, model: Path) -> None:
    before = model.read_bytes()
    code, _, err = run("train", photos, *TRAIN, "--out", model, "--resume")
    assert (code, model.read_bytes()) == (0, before)
    assert "is finished" in err


def test_a_run_goes_on_with_its_own_table_alone(run: Cli, photos: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "own.toml", tmp_path / "m"
    table.write_text('base = "digits_irb"\ndropout = 0.1\n')
    words = ("train", photos, *TRAIN[2:], "--network", table, "--momentum", 0.3, "--width", 0.5, "--out", out)
    run.json(*words)
    assert read_model(out).table["width"] == 0.5
    assert run(*words, "--resume")[0] == 0
    told = run.refused("train", photos, "--out", out, "--resume", "--width", 1)
    assert "was begun with width 0.5, not 1.0" in told
    table.write_text('base = "digits_irb"\ndropout = 0.2\n')
    assert f"{table} (resume): was begun with another table; give another --out" in run.refused(*words, "--resume")


def test_images_in_pixels_train_to_the_same_bytes(run: Cli, photos: Path, tmp_path: Path) -> None:
    found = {}
    for images in ("float", "uint8"):
        found[images] = run.json("train", photos, *TRAIN, "--images", images, "--out", tmp_path / images)
    assert (tmp_path / "uint8").read_bytes() == (tmp_path / "float").read_bytes()
    assert found["uint8"]["peak_bytes"] < found["float"]["peak_bytes"]


FRUGAL = ("--int8", "--checkpoint", "--apply", "--per-class", 7, "--momentum", 0.2)


def test_training_holds_less_where_that_is_asked_for(run: Cli, photos: Path, tmp_path: Path) -> None:
    """Frozen weights in 8 bits, blocks run again, gradients applied; and the model is used like any other."""
    out = tmp_path / "m"
    usual = run.json("train", photos, *TRAIN, "--out", tmp_path / "usual")
    found = run.json("train", photos, *TRAIN, *FRUGAL, "--out", out)
    method = methods.get("mobiletl", 2, quantised=True, checkpoint=True)
    totals = predict(
        method.apply(networks.digits_irb(num_classes=3)), batch=16, resolution=16, optimizer_slots=2, apply=True
    ).totals
    assert (found["kept_bytes"], found["peak_bytes"]) == (totals.kept_bytes, totals.peak_bytes)
    assert found["peak_bytes"] < usual["peak_bytes"]
    model = read_model(out)
    assert model.method == method
    assert model.about["method"]["apply"] is True
    assert model.network().table["momentum"] == 0.2
    inspected = run.json("inspect", out)
    assert [inspected[name] for name in ("network", "method", "blocks", "batch", "resolution", "classes")] == [
        "digits_irb", "mobiletl", 2, 16, 16, 3,
    ]  # fmt: skip
    told = {name: inspected["totals"][name] for name in ("kept_bytes", "peak_bytes")}
    assert told == {name: found[name] for name in told}
    more = run.json("train", photos, "--weights", out, "--epochs", 1, "--out", tmp_path / "more")
    assert {name: more[name] for name in told} == told
    assert read_model(tmp_path / "more").about["method"] == model.about["method"]
    other = run.json("train", photos, "--weights", out, "--epochs", 1, "--method", "ft-last", "--out", tmp_path / "x")
    assert other["kept_bytes"] < told["kept_bytes"]
    assert read_model(tmp_path / "x").about["method"] == {
        "name": "ft-last", "blocks": None, "rules": {}, "int8": False, "checkpoint": False, "apply": False,
    }  # fmt: skip
    held = run.json("evaluate", out, photos, "--part", "held-out")
    assert (held["count"], held["accuracy"]) == (9, found["epochs"][-1]["accuracy"])
    assert run.json("export", out, tmp_path / "m.onnx")["largest_difference"] < 1e-5
    for option, value in (("--momentum", 0.3), ("--per-class", 8), ("--rule", "relu=output"), ("--blocks", 1)):
        assert "was begun with" in run.refused("train", photos, "--out", out, "--resume", option, value)
    assert "was begun with int8 False" in run.refused(
        "train", photos, "--out", tmp_path / "usual", "--resume", "--int8"
    )


def test_a_checkpoint_of_before_there_were_int8_and_per_class_is_gone_on_with(run: Cli, tmp_path: Path) -> None:
    """`before_int8.checkpoint`: three of six steps of a network of one's own, as minitl wrote it then."""
    out = tmp_path / "m"
    out.write_bytes((Path(__file__).parent / "before_int8.checkpoint").read_bytes())
    images = makers.npz(tmp_path / "data.npz", *makers.pictures(10, size=8))
    assert read_model(out).about["method"] == {
        "name": "mobiletl", "blocks": 1, "rules": {"hard_swish": "few2"}, "int8": False, "checkpoint": False,
        "apply": False,
    }  # fmt: skip
    for option in (("--int8",), ("--apply",), ("--per-class", 7)):
        assert "was begun with" in run.refused("train", images, "--out", out, "--resume", *option)
    found = run.json("train", images, "--out", out, "--resume")
    assert [row["loss"] for row in found["epochs"]] == pytest.approx([1.1036, 1.0932], abs=1e-4)  # as it ended then
    assert run.json("evaluate", out, images)["count"] == 30
    assert run.json("inspect", out)["totals"]["kept_bytes"] == found["kept_bytes"]


def changed(model: Path, out: Path, part: str, **keys: object) -> Path:
    """The model, its description changed."""
    file = read_model(model)
    file.about[part] |= keys
    out.write_bytes(save(file.arrays, {"minitl": json.dumps(file.about)}))
    return out


@pytest.mark.parametrize(
    ("part", "key", "value"), [("method", "int4", True), ("training", "x", 1), ("method", "apply", 1)]
)
def test_a_key_of_a_later_minitl_is_not_passed_over(
    run: Cli, photos: Path, model: Path, tmp_path: Path, part: str, key: str, value: object
) -> None:
    later = changed(model, tmp_path / "later", part, **{key: value})
    for words in (("evaluate", later, photos), ("train", photos, "--out", later, "--resume"), ("inspect", later)):
        assert "is not a model that can be used" in run.refused(*words)


# Nothing is lost


def start(*words: object, limit: int | None = None) -> subprocess.Popen[bytes]:
    def prepare() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "minitl", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare)


@pytest.mark.parametrize(
    "options", [(), ("--width", "0.5"), ("--int8", "--apply", "--rule", "hard_swish=few2", "--optimizer", "nesterov")]
)
def test_the_command_that_plan_prints_trains_as_planned(
    run: Cli, photos: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    planned = ("plan", "digits_irb", "--classes", 3, "--batch", 4, "--budget", "2MB", *options)
    best = run.json(*planned)["best"]
    command = run(*planned)[1].rpartition("a folder for each):")[2].replace("\\\n", " ")
    words = [photos if word == "IMAGES" else word for word in shlex.split(command)[1:]]
    done = run.json(*words, "--epochs", 1, "--out", tmp_path / "m")
    assert (done["kept_bytes"], done["peak_bytes"]) == (best["kept_bytes"], best["peak_bytes"])
    method = read_model(tmp_path / "m").about["method"]
    assert (method["name"], method["blocks"]) == (best["method"], best["blocks"])


def test_plan_says_what_int8_and_checkpoints_would_let_fit(run: Cli) -> None:
    planned = ("plan", "digits_irb", "--budget", "3MB")
    said = re.findall(r"with --(\w+) ([\w-]+) (\d+) fits: ([\d,]+) bytes", run(*planned)[1])
    assert said
    before = run.json(*planned)["best"]
    for option, method, blocks, need in said:
        inspected = run.json("inspect", "digits_irb", "--method", method, "--blocks", blocks, f"--{option}")
        assert inspected["totals"]["peak_bytes"] == int(need.replace(",", "")) <= 3_000_000
        assert inspected["totals"]["trained_parameter_bytes"] >= 4 * before["trained_parameters"]


def test_killed_at_any_moment_nothing_since_the_last_checkpoint_is_lost(photos: Path, tmp_path: Path) -> None:
    """MINITL_KILLS=200 kills as many; each time what is there must be whole and no older than before."""
    command = ("train", photos, *TRAIN[:-1], 20, "--checkpoint-every", 1, "--resume", "--out")
    assert cli.main([*map(str, command), str(tmp_path / "whole")]) == 0
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "killed").mkdir()
    draw, out, done, kills, halfway = random.Random(KILLS), tmp_path / "killed" / "m", 0, 0, 0
    while kills < KILLS:
        process = start(*command, out)
        assert process.stderr is not None
        while (line := process.stderr.readline()) and b"mobiletl" not in line:
            pass  # until it has read everything, and begins
        time.sleep(draw.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.communicate()
        halfway += any(out.parent.glob(".*.part"))
        now = progress_of(out)
        assert now >= done
        done = now
        if now == FINISHED:
            assert out.read_bytes() == whole
            out.unlink()
            done = 0
    process = start(*command, out)
    process.communicate()
    assert process.returncode == 0
    assert out.read_bytes() == whole
    assert [path.name for path in out.parent.iterdir()] == ["m"]
    print(f"killed {kills} times, {halfway} of them while a checkpoint was being written; nothing was lost")


FINISHED = 10**9


def progress_of(path: Path) -> int:
    """How far a checkpoint is; it must be whole."""
    if not path.exists():
        return 0
    progress = read_model(path).about["progress"]
    return FINISHED if progress is None else 1000 * len(progress["epochs"]) + int(progress["batches"])


def test_a_full_disk_leaves_the_last_checkpoint_whole(photos: Path, model: Path, tmp_path: Path) -> None:
    """No file of more than 100 kB can be written, as on a disk that is full."""
    out = tmp_path / "m"
    out.write_bytes(model.read_bytes())
    process = start("train", photos, *TRAIN, "--out", out, "--seed", 1, limit=100_000)
    _, err = process.communicate()
    assert process.returncode == 2
    last = err.decode().splitlines()[-1]
    assert last.startswith(f"minitl train: {out}: cannot write: ")
    assert out.read_bytes() == model.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_before_any_work(run: Cli, photos: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert "cannot write: Permission denied" in run.refused("train", photos, *TRAIN, "--out", tmp_path / "m")


# Weights


def test_weights_are_begun_with_and_the_classifier_replaced_where_classes_differ(
    run: Cli, photos: Path, model: Path, tmp_path: Path
) -> None:
    two = makers.folder(
        tmp_path / "two", *(a[:12] for a in makers.pictures(9, size=16, seed=1)), classes=("a", "b", "c")
    )
    for path in (two / "c").iterdir():
        path.unlink()
    common = ("--weights", model, "--epochs", 1, "--learning-rate", 0, "--blocks", 2)
    _, _, err = run("train", two, *common, "--out", tmp_path / "m2")
    assert "replaced: classifier.1.weight, classifier.1.bias" in err
    run.json("train", photos, *common, "--out", tmp_path / "m3")
    old, new, same = (read_model(path) for path in (model, tmp_path / "m2", tmp_path / "m3"))
    assert new.preprocessing == old.preprocessing
    assert new.arrays["classifier.1.weight"].shape[0] == 2
    for name, array in old.arrays.items():
        if name.endswith(("weight", "bias")):
            assert np.array_equal(array, same.arrays[name])
            assert name.startswith("classifier") or np.array_equal(array, new.arrays[name])


def test_weights_of_other_libraries_bring_their_conventions(run: Cli, photos: Path, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    theirs = networks.get("mobilenetv2_035", num_classes=5, seed=3).state_dict()
    save_file({name: array for name, array in theirs.items() if array.ndim}, tmp_path / "timm.safetensors")
    common = ("--network", "mobilenetv2_035", "--weights", tmp_path / "timm.safetensors", "--source", "timm")
    rest = ("--resolution", 32, "--epochs", 1, "--method", "ft-last", "--learning-rate", 0, "--json")
    code, _, err = run("train", photos, *common, *rest, "--out", tmp_path / "m")
    assert code == 0
    assert "those of timm's mobilenetv2_035, by its table" in err
    model = read_model(tmp_path / "m")
    assert model.preprocessing.normalisation == "imagenet"
    assert np.array_equal(model.arrays["conv_stem.weight"], theirs["conv_stem.weight"])
    assert model.network().table["eps"] == 1e-5


def test_weights_that_fit_in_part_are_taken_if_that_is_asked_for(run: Cli, photos: Path, tmp_path: Path) -> None:
    theirs = networks.digits_irb(num_classes=3, seed=3).state_dict()
    kept = "features.0.0.weight"
    some = {name: array for name, array in theirs.items() if array.ndim and name != "features.0.1.bias"}
    (tmp_path / "some.safetensors").write_bytes(save({**some, "more.weight": np.ones(3)}))
    (tmp_path / "none.safetensors").write_bytes(save({"more.weight": np.ones(3)}))
    words = ("train", photos, *TRAIN, "--learning-rate", 0, "--out", tmp_path / "m", "--weights")
    for strict in ((), ("--strict",)):
        told = run.refused(*words, tmp_path / "some.safetensors", *strict)
        assert "1 arrays missing ['features.0.1.bias'], 1 unexpected ['more.weight']" in told
        assert told.endswith("or load what fits (strict=False, --no-strict)\n")
    code, _, err = run(*words, tmp_path / "some.safetensors", "--no-strict")
    assert (code, "missing: features.0.1.bias" in err, "unexpected: more.weight" in err) == (0, True, True)
    assert np.array_equal(read_model(tmp_path / "m").arrays[kept], theirs[kept])
    told = run.refused(*words, tmp_path / "none.safetensors", "--no-strict")
    assert "holds no array that digits_irb has a place for" in told


# evaluate, predict, export


def test_evaluate_takes_classes_by_their_names(run: Cli, photos: Path, model: Path, tmp_path: Path) -> None:
    images, labels = makers.pictures(4, size=20, seed=3)
    whole = run.json("evaluate", model, photos)
    assert whole["count"] == 30
    order = ("red", "blue", "green")  # other numbers for the same names
    renamed = np.array([order.index(makers.CLASSES[label]) for label in labels])
    one = run.json("evaluate", model, makers.folder(tmp_path / "f", images, labels))
    two = run.json("evaluate", model, makers.npz(tmp_path / "a.npz", images, renamed, classes=np.array(order)))
    assert one == two
    assert one["count"] == 12
    assert one["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in one["classes"]]))
    other = makers.folder(tmp_path / "g", images, labels, classes=("blue", "green", "violet"))
    assert "expected classes that the model knows (blue, green, red), got violet" in run.refused(
        "evaluate", model, other
    )
    assert "is known only for the data" in run.refused("evaluate", model, tmp_path / "f", "--part", "train")


def test_evaluate_says_where_it_judges_by_images_that_were_trained_on(
    run: Cli, photos: Path, model: Path, tmp_path: Path
) -> None:
    told = "24 of these 30 images were trained on; --part held-out judges by the others"
    assert run("evaluate", model, photos)[2] == f"{told}\n"
    assert run("evaluate", model, photos, "--json")[2] == f"{told}\n"
    others = makers.folder(tmp_path / "f", *makers.pictures(4, size=20, seed=3))
    for words in ((photos, "--part", "held-out"), (photos, "--part", "all"), (others,)):
        assert run("evaluate", model, *words)[2] == ""


def test_evaluate_counts_its_batches(run: Cli, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Bar] = []
    monkeypatch.setattr(Bar, "step", lambda shown: steps.append(shown))
    run.json("evaluate", model, photos, "--batch", 7)
    assert [shown.jobs for shown in steps] == [30] * 30 + [5] * 5  # looking into all images, then judging


def test_evaluate_takes_some_of_the_classes(run: Cli, photos: Path, model: Path, tmp_path: Path) -> None:
    """A folder with one class or two, and an archive that names classes it has no image of."""
    rows = run.json("evaluate", model, photos)["classes"]
    for name in makers.CLASSES[1:]:
        shutil.copytree(photos / name, tmp_path / name / name)
        found = run.json("evaluate", model, tmp_path / name)
        assert (found["count"], found["classes"]) == (10, [row for row in rows if row["class"] == name])
    two = shutil.copytree(tmp_path / "red", tmp_path / "green", dirs_exist_ok=True)
    assert run.json("evaluate", model, two)["classes"] == rows[1:]
    images, labels = makers.pictures(10, size=20)
    reds = images[labels == 2], np.full(10, 1), np.array(["violet", "red"])
    named = makers.npz(tmp_path / "a.npz", *reds[:2], classes=reds[2])
    assert run.json("evaluate", model, named)["classes"] == rows[2:]
    shutil.copytree(photos / "red", two / "violet")
    assert "got violet" in run.refused("evaluate", model, two)


def test_predict(run: Cli, photos: Path, model: Path) -> None:
    images = [photos / "red" / "0002.png", photos / "blue" / "0003.png"]
    found = run.json("predict", model, *images, "--top", 3)["results"]
    assert [row["image"] for row in found] == [str(images[0])] * 3 + [str(images[1])] * 3
    assert sum(row["probability"] for row in found[:3]) == pytest.approx(1, abs=1e-6)
    assert found[0]["probability"] >= found[1]["probability"] >= found[2]["probability"]
    assert {row["class"] for row in found[:3]} == set(makers.CLASSES)
    best = run.json("predict", model, *images)["results"]
    assert [row["class"] for row in best] == [found[0]["class"], found[3]["class"]]
    assert run("predict", model, *images)[1].splitlines()[2].split()[0] == str(images[0])


def test_export_is_checked_in_onnx_runtime(run: Cli, model: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    found = run.json("export", model, tmp_path / "m.onnx")
    assert found["checked"] is True
    assert found["largest_difference"] < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("images", ["N", 3, 16, 16])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["N", 3])]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(makers.CLASSES)
    assert json.loads(about["preprocessing"])["mean"] == [0.485, 0.456, 0.406]


def test_export_has_every_activation_statistics_and_mirrored_images(tmp_path: Path) -> None:
    """Networks that differ in activations, squeeze-and-excite, head and padding; no number is 0 or 1."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for name in ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "mnasnet_100", "tf_efficientnet_lite0"):
        network = settle(stir(networks.get(name, num_classes=5, width=0.35)), noise((2, 64, 64, 3), dtype="float32"))
        images = noise((3, 64, 64, 3), seed=1, dtype="float32")
        found = largest_difference(to_onnx(network, 64, {}), network, images)
        assert found is not None
        assert found[0] < 1e-4 * found[1], name


NO_PLACE = {"repnet-int8": "op conv_int cannot be exported"}  # in ONNX


@pytest.mark.parametrize("name", methods.METHODS)
def test_export_has_all_that_a_method_runs(name: str) -> None:
    """Side modules and adaptors among it; what training keeps or runs again leaves no trace."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = methods.get(name).apply(networks.digits_irb(num_classes=5))
    rng = np.random.default_rng(0)
    for parameter in network.parameters():  # side modules begin at 0, where they could be left out unseen
        parameter.value += rng.uniform(0.05, 0.1, parameter.value.shape).astype("float32")
    if name in NO_PLACE:
        with pytest.raises(UsageError, match=NO_PLACE[name]):
            to_onnx(network, 24, {})
        return
    images = noise((3, 24, 24, 3), seed=1, dtype="float32")
    found = largest_difference(to_onnx(network, 24, {}), network, images)
    assert found is not None
    assert found[0] < 1e-4 * found[1]


# Bad input


BAD: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "no data": (lambda p: ["train", p / "nothing"], "there is no such file or folder"),
    "no network": (lambda p: ["train", p / "photos", "--network", "resnet"], "unknown network 'resnet'"),
    "a model for a network": (lambda p: ["train", p / "photos", "--network", p / "m"], "; give it as --weights"),
    "a class alone": (lambda p: ["train", p / "photos" / "red"], "got 10 images in no folder; give the folder above"),
    "no method": (lambda p: ["train", p / "photos", "--method", "x"], "unknown method 'x'"),
    "no steps": (lambda p: ["train", p / "photos", "--checkpoint-every", 0], "--checkpoint-every of at least 1"),
    "no folder": (lambda p: ["train", p / "photos", "--out", p / "no" / "m"], "cannot write: No such file"),
    "a folder": (lambda p: ["train", p / "photos", "--out", p / "photos"], "cannot write: Is a directory"),
    "no json": (lambda p: ["train", p / "photos", "--out", p / "m.json"], "is no .json; use .safetensors"),
    "no image to write": (lambda p: ["train", p / "photos", "--out", p / "photos" / "red" / "0002.PNG"], "is no .png"),
    "no trials": (lambda p: ["compare", "--out", p / "trials.csv"], "trials.csv: what is written is no .csv; use"),
    "no log": (lambda p: ["train", p / "photos", "--log", p / "log.txt"], "unknown file type '.txt'"),
    "no seed": (lambda p: ["train", p / "photos", "--seed", -1], "seed"),
    "no weights": (lambda p: ["train", p / "photos", "--weights", p / "nothing"], "cannot be read: No such file"),
    "a large resolution": (lambda p: ["train", p / "photos", "--resolution", 10**6], "a resolution from 1 to 4096"),
    "no augmentation": (lambda p: ["train", p / "photos", "--augment", "mix"], "unknown augmentation 'mix'"),
    "all held out": (lambda p: ["train", p / "photos", "--held-out", 1], "a fraction that leaves images"),
    "another seed": (lambda p: ["train", p / "photos", "--resume", "--out", p / "m", "--seed", 5], "as --weights"),
    "other data": (lambda p: ["train", p / "more", "--resume", "--out", p / "m"], "was begun with other images"),
    "no model": (lambda p: ["train", p / "photos", "--resume", "--out", p / "text"], "not a safetensors file"),
    "no model to evaluate": (lambda p: ["evaluate", p / "text", p / "photos"], "not a safetensors file"),
    "data before the model": (lambda p: ["evaluate", p / "photos", p / "m"], "photos: is a folder"),
    "no batch": (lambda p: ["evaluate", p / "m", p / "photos", "--batch", 0], "--batch of at least 1"),
    "no image": (lambda p: ["predict", p / "m", p / "text"], "; remove it, or save it anew"),
    "a folder of images": (lambda p: ["predict", p / "m", p / "photos"], "is a folder; give its images: "),
    "more of a class": (lambda p: ["train", p / "photos", "--per-class", 500], "got 10 of blue; train on fewer"),
    "no such image": (lambda p: ["predict", p / "m", p / "nothing.png"], "cannot be read: No such file"),
    "a pipe": (lambda p: ["predict", p / "pipe", p / "text"], "is not a regular file"),
    "none of them": (lambda p: ["predict", p / "m", p / "text", "--top", 0], "--top of at least 1"),
    "no suffix": (lambda p: ["export", p / "m", p / "m.pb"], "unknown file type '.pb'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Cli, photos: Path, model: Path, tmp_path: Path, what: str
) -> None:
    (tmp_path / "photos").symlink_to(photos)
    (tmp_path / "m").write_bytes(model.read_bytes())
    (tmp_path / "text").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    makers.folder(tmp_path / "more", *makers.pictures(3, size=16))
    before = sorted(path.name for path in tmp_path.iterdir())
    words, told = BAD[what]
    small = [*TRAIN[:2], *TRAIN[6:]] if words(tmp_path)[0] == "train" and "--resume" not in words(tmp_path) else []
    line = [*words(tmp_path), *(w for w in small if "--resolution" not in words(tmp_path) or w in TRAIN[8:])]
    if what in ("no network", "no method", "a model for a network"):
        line = words(tmp_path)
    if words(tmp_path)[0] == "train" and "--out" not in line:
        line += ["--out", tmp_path / "out"]
    assert told in run.refused(*line)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "m").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("name", ["m", "m-0.75", "M.SAFETENSORS"])
def test_a_model_may_have_any_other_name(run: Cli, photos: Path, tmp_path: Path, name: str) -> None:
    run.json("train", photos, *TRAIN, "--out", tmp_path / name)
    assert run.json("evaluate", tmp_path / name, photos)["count"] == 30


def test_noise_in_a_model_raises_nothing_else(model: Path, tmp_path: Path) -> None:
    """Bytes of the header changed, or the file cut."""
    raw, rng, refused = model.read_bytes(), np.random.default_rng(0), 0
    header = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(FUZZ):
        changed = np.frombuffer(raw, np.uint8).copy()
        low = 0 if rng.random() < 0.2 else raw.index(b"minitl") if rng.random() < 0.7 else 8
        for at in rng.integers(low, header, rng.integers(1, 4)):
            changed[at] = rng.choice([ord(c) for c in '09-{}[]",:ex'] + [0, 255, int(rng.integers(256))])
        cut = len(raw) if rng.random() < 0.9 else int(rng.integers(len(raw)))
        (tmp_path / "m").write_bytes(changed[:cut].tobytes())
        try:
            read_model(tmp_path / "m").network()
        except MinitlError:
            refused += 1
    assert refused > FUZZ / 4


def broken_photos(root: Path, kinds: tuple[str, ...]) -> list[Path]:
    """Images cut in the middle, one of each kind by turns in every class; the others can be read."""
    makers.folder(root, *makers.pictures(4, size=64))
    made = []
    for number, kind in enumerate(kinds):
        path = root / makers.CLASSES[number % 3] / f"x{number}{kind}"
        Image.fromarray(makers.pictures(1, size=64)[0][0]).save(path)
        os.truncate(path, path.stat().st_size // 2)
        made.append(path)
    return made


def test_all_images_that_cannot_be_read_are_named_before_any_work(run: Cli, model: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "m"
    kinds = (".jpg", ".png", ".webp", ".gif", ".tiff", ".bmp", ".ppm")
    broken = broken_photos(photos, kinds)
    commands = (("train", photos, *TRAIN, "--out", out), ("evaluate", model, photos), ("predict", model, *broken),
                ("compare", "--data", photos, "--network", "digits_irb", "--workers", 1))  # fmt: skip
    for words in commands:
        told = run.refused(*words)
        assert re.search(r"7 of (19|7) images cannot be read: .*; remove them, or save them anew$", told)
        assert all(path.name in told for path in broken)
    broken += broken_photos(photos, kinds * 2)
    told = run.refused("train", photos, *TRAIN, "--out", out)
    assert len(re.findall(r"x\d+\.\w+ \(", told)) == 10
    assert " and 4 more; remove them" in told
    for path in set(broken) - {broken[0]}:
        path.unlink()
    assert run.refused("train", photos, *TRAIN, "--out", out).startswith(
        f"minitl train: {broken[0]}: is not an image that can be read"
    )
    assert not out.exists()
