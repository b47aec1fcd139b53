"""The page on photographs: its command is one, and its table says of memory and rates what that command does."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from minitl import cli
from minitl.kernels.compile import interpreted
from minitl.training.choice import Choice
from minitl.training.settings import default_learning_rate
from minitl.training.trials import OwnComparison
from minitl.verbs import compare_own, recipe_options

sys.path.append(str(Path(__file__).parents[1] / "data"))
import makers

PAGE = (Path(__file__).parents[2] / "tutorials" / "photographs.md").read_text("utf-8")


def rows() -> list[dict[str, str]]:
    """The first table's rows, by their column's name."""
    lines = re.findall(r"^\|.*\|$", PAGE, flags=re.MULTILINE)
    header, _, *body = ([cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in body]


def test_the_table_holds_what_the_command_predicts(tmp_path: Path) -> None:
    (shell,) = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    kinds = tuple(re.findall(r"/([a-z]+)", *re.findall(r"for kind in (.*); do", shell)))
    assert len(kinds) == 7
    command = shell[shell.index("minitl compare") :].replace("\\\n", "")
    args = cli.parser().parse_args(shlex.split(command)[1:])
    images, labels = np.zeros((77, 8, 8, 3), np.uint8), np.arange(77) % 7  # enough for a whole batch
    pictures = makers.folder(tmp_path / "photographs", images, labels, kinds)
    (tmp_path / "keras.toml").write_text(f'base = "{args.network}"\npadding = "same"\n')  # as its weights have it
    recipe = replace(recipe_options.recipe_of(args), network=str(tmp_path / "keras.toml"), weights=None)
    choices = [Choice.parse(text) for text in args.methods.split(",")]
    rates = compare_own.rates_of(args, ())
    comparison = OwnComparison(choices, args.seeds, rates, path=pictures, recipe=recipe)
    for choice, row in zip(choices, rows(), strict=True):
        account = comparison.account(choice)
        totals = account.ledger.totals
        assert row["method"] == str(choice)
        assert row["keeps, MB"] == f"{totals.kept_bytes / 1e6:.2f}"
        assert row["peak, MB"] == f"{totals.peak_bytes / 1e6:.1f}" or interpreted()  # the plain loops have their own
        assert row["trains"] == f"{account.trained_parameters:,}"
        assert row["default rate"] == f"{default_learning_rate(choice.method, 'adam', pretrained=True):g}"
        found = [float(rate) for rate in row["at rates, by seed"].split(", ")]
        assert len(found) == args.seeds
        assert set(found) <= set(rates)
