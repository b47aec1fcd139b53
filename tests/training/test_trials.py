"""A comparison on one's own data: the search is honest, and where its trials run makes no difference."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitl import cli, data
from minitl.errors import UsageError
from minitl.training import trials
from minitl.training.choice import Choice
from minitl.training.cluster import spread_over
from minitl.training.progress import Silent
from minitl.training.recipe import Recipe
from minitl.training.search import Outcome, Trial
from minitl.training.trials import OwnComparison, attempt
from minitl.training.workers import spread

sys.path.append(str(Path(__file__).parents[1] / "data"))
import makers

RECIPE = Recipe("digits_irb", preprocessing={"resolution": 16}, settings={"epochs": 1, "batch": 8})
LAST, TOP = Choice("ft-last"), Choice("mobiletl", 1)
WORDS = ("--network", "digits_irb", "--resolution", "16", "--epochs", "1", "--methods", "ft-last,mobiletl:1", "--seeds",
         "2", "--learning-rates", "0.01,0.03", "--per-class", "7", "--momentum", "0.2", "--workers", "1",
         "--json")  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return makers.npz(tmp_path_factory.mktemp("data") / "a.npz", *makers.pictures(10, size=16))


def outcome(choice: Choice, seed: int, rate: float, accuracy: float, loss: float, search: bool = True) -> Outcome:
    return Outcome(Trial(choice, seed, rate, search), accuracy, loss, 1.0)


def test_the_best_rate_is_by_accuracy_then_loss_then_size(photos: Path) -> None:
    one = OwnComparison([LAST, TOP], 1, (0.1, 0.2, 0.3), path=photos, recipe=RECIPE)
    known = [outcome(LAST, 0, rate, 0.5, 1.0) for rate in (0.3, 0.2, 0.1)]
    assert one.best_rate(LAST, 0, known) == 0.1
    assert one.best_rate(LAST, 0, [*known, outcome(LAST, 0, 0.2, 0.5, 0.9)]) == 0.2
    assert one.best_rate(LAST, 0, [*known, outcome(LAST, 0, 0.3, 0.6, 2.0)]) == 0.3
    others = [outcome(TOP, 0, 0.3, 0.9, 0), outcome(LAST, 1, 0.3, 0.9, 0), outcome(LAST, 0, 0.3, 0.9, 0, search=False)]
    assert one.best_rate(LAST, 0, [*known, *others]) == 0.1
    assert one.best_rate(LAST, 0, [*known, outcome(LAST, 0, 0.4, 0.9, 0)]) == 0.1  # of a search with another list


def test_one_rate_is_not_searched(photos: Path) -> None:
    one = OwnComparison([LAST, TOP], 2, (0.5,), path=photos, recipe=RECIPE)
    assert one.searches() == []
    earlier = [outcome(LAST, 0, rate, rate, 1.0) for rate in (0.5, 0.6)]  # of a search, in the same file
    for known in ([], earlier):
        assert [t.learning_rate for t in one.finals(known)] == [0.5] * 4
    defaults = OwnComparison([LAST, TOP], 1, (), path=photos, recipe=Recipe("digits_irb", Path("weights")))
    assert defaults.searches() == []
    for known in ([], earlier):
        assert [t.learning_rate for t in defaults.finals(known)] == [0.003, 0.001]  # of pretrained weights


def test_no_rate_is_chosen_by_an_image_that_is_tested_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, tuple[set[int], set[int]]] = {}
    prepare = trials.Recipe.prepare

    def watched(recipe: Recipe, *arguments: Any) -> Any:
        prepared = prepare(recipe, *arguments)

        class Watched:
            def trainer(self, images: Any, train: Any, test: Any, settings: Any, **how: bool) -> Any:
                seen[search] = set(train.tolist()), set(test.tolist())
                return prepared.trainer(images, train, test, settings, **how)

        return Watched()

    monkeypatch.setattr(trials.Recipe, "prepare", watched)
    for search in (True, False):
        attempt(photos, RECIPE, Trial(LAST, 3, 0.01, search))
    (tried, judged), (learnt, tested) = seen[True], seen[False]
    assert not tested & (tried | judged)
    assert tried | judged == learnt
    assert not tried & judged
    assert learnt | tested == set(range(30))


def test_a_step_is_of_no_more_images_than_there_are(photos: Path) -> None:
    """24 of the 30 are trained on."""
    many, all_of_them = (
        OwnComparison([TOP], 1, (), path=photos, recipe=replace(RECIPE, settings={"batch": batch})).account(TOP)
        for batch in (64, 24)
    )
    assert many.ledger.to_json() == all_of_them.ledger.to_json()
    assert many.title == all_of_them.title == "digits_irb, batch 24, 16 px"


def test_outcomes_survive_being_stored() -> None:
    one = outcome(Choice("mobiletl", 2, ("int8", "hard_swish=output")), 1, 0.1, 0.3, 0.2)
    assert Outcome.from_json(json.loads(json.dumps(one.to_json()))) == one


def comparison(photos: Path) -> OwnComparison:
    return OwnComparison([LAST, TOP], 1, (0.01, 0.03), path=photos, recipe=RECIPE)


def found(photos: Path, how: Any, known: list[Outcome] | None = None) -> dict[Trial, tuple[float, float]]:
    return {o.trial: (o.accuracy, o.loss) for o in comparison(photos).run(how, known or [], Silent())}


def serial(function: Any, jobs: Any) -> Any:
    return spread(function, jobs, 1)


def test_a_cluster_of_two_workers_gives_what_one_process_gives(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one whose workers are in another folder than who asks."""
    distributed = pytest.importorskip("distributed")
    table, line = tmp_path / "own.toml", list[object](("--data", "own.npz", "--network", "own.toml", *WORDS[2:]))
    table.write_text('base = "digits_irb"\ndivisor = 4\n')
    (tmp_path / "own.npz").write_bytes(photos.read_bytes())
    monkeypatch.chdir(tmp_path)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, worker_dashboard_address=None
    ) as cluster:
        there = found(photos, lambda function, jobs: spread_over(cluster.scheduler_address, function, jobs))
        with distributed.Client(cluster) as client:
            client.run(os.chdir, "/")
        code, text, err = compare(capsys, *line, "--scheduler", cluster.scheduler_address)
        assert code == 0, err
    assert there == found(photos, serial)
    own = [{**row, "seconds": 0} for row in json.loads(compare(capsys, *line)[1])["results"]]
    assert [{**row, "seconds": 0} for row in json.loads(text)["results"]] == own


def test_a_cluster_that_is_not_there_is_told(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("minitl.training.cluster.TIMEOUT", 0.2)
    with pytest.raises(UsageError, match=r"the scheduler tcp://127.0.0.1:9 does not answer"):
        next(spread_over("tcp://127.0.0.1:9", print, []))


def compare(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main(["compare", *map(str, words)])
    return (code, *capsys.readouterr())


def test_compare_is_taken_up_where_it_was(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "trials.json"
    command = ("--data", photos, *WORDS, "--out", out)
    drawn: list[str] = []
    monkeypatch.setattr("minitl.verbs.compare_own.plot_accuracy", lambda found, path, about: drawn.append(about))
    code, text, _ = compare(capsys, *command, "--plots", tmp_path / "plots")
    assert (code, drawn) == (0, ["digits_irb, batch 16, 16 px"])
    whole = json.loads(text)
    assert [path.split("/")[-1] for path in whole["plots"]] == ["accuracy.png", "memory.png"]
    assert [(r["method"], r["blocks"], r["seeds"], len(r["accuracy"])) for r in whole["results"]] == [
        ("ft-last", None, 2, 2), ("mobiletl", 1, 2, 2)]  # fmt: skip
    assert {rate for r in whole["results"] for rate in r["learning_rates"]} <= {0.01, 0.03}
    stored = json.loads(out.read_text())
    assert len(stored["trials"]) == 2 * 2 * 3
    out.write_text(json.dumps({**stored, "trials": stored["trials"][:5]}))
    calls: list[Trial] = []

    def counted(path: Path, recipe: Recipe, trial: Trial) -> Outcome:
        calls.append(trial)
        return attempt(path, recipe, trial)

    monkeypatch.setattr("minitl.training.trials.attempt", counted)
    code, text, _ = compare(capsys, *command, "--resume")
    assert (code, len(calls)) == (0, 7)
    again = json.loads(text)
    for one, other in zip(whole["results"], again["results"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    monkeypatch.undo()
    table = tmp_path / "own.toml"
    table.write_text('base = "digits_irb"\n')
    for words, what in (
        (("--batch", 4), "settings (batch "), (("--width", 0.5), "width; "), (("--network", table), "network"),
        (("--held-out", 0.5), "settings (held_out "), (("--fit", "pad"), "preprocessing (fit "),
    ):  # fmt: skip
        code, _, err = compare(capsys, "--data", photos, *WORDS, "--out", out, "--resume", *words)
        assert (code, f"was begun with other {what}" in err) == (2, True)


def test_a_table_that_was_changed_is_another_network(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    table, out = tmp_path / "own.toml", tmp_path / "trials.json"
    words = ("--data", photos, *WORDS, "--network", table, "--methods", "ft-last", "--seeds", 1, "--out", out)
    table.write_text('base = "digits_irb"\ndropout = 0.1\n')
    assert compare(capsys, *words)[0] == 0
    assert compare(capsys, *words, "--resume")[0] == 0
    table.write_text('base = "digits_irb"\ndropout = 0.2\n')
    code, _, err = compare(capsys, *words, "--resume")
    assert (code, "was begun with other network" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--network", "digits_irb"), "--network is for a comparison on --data"),
        (("--resume",), "--resume needs --out"),
        (("--data", "DATA", "--resume"), "--resume needs --out"),
        (("--data", "DATA", "--learning-rates", "0.1,x"), "expected --learning-rates like"),
        (("--data", "DATA", "--learning-rates", "-1"), "expected --learning-rates like"),
        (("--data", "DATA", "--methods", "mobiletl:99"), "expected blocks from 1 to 7"),
        (("--data", "nowhere"), "there is no such file or folder"),
        (("--data", "DATA", "--resume", "--out", "DATA"), "what is written is no .npz"),
        (("--data", "DATA", "--resume", "--out", __file__), "holds no trials of a comparison"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], photos: Path, words: tuple[str, ...], told: str
) -> None:
    rest = WORDS[:4] if "--data" in words else ()
    before = photos.read_bytes()
    code, out, err = compare(capsys, *(str(photos) if word == "DATA" else word for word in words), *rest)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert photos.read_bytes() == before


def test_a_seed_gives_the_same_trial(photos: Path) -> None:
    one, two = (attempt(photos, RECIPE, Trial(TOP, 1, 0.01, False)) for _ in range(2))
    assert (one.accuracy, one.loss) == (two.accuracy, two.loss)
    assert len(data.load(photos)) == 30
    assert np.isfinite(one.loss)
