"""The README's Python runs as it stands, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minitl
from minitl import methods, networks
from minitl.accounting import predict
from minitl.kernels.compile import interpreted
from minitl.methods.table import markdown
from minitl.networks.irb import irb
from minitl.training.choice import CHOICES
from minitl.training.compare import ledger

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    promised = re.search(r"the same bytes, from shapes: ([\d,]+)", README)
    assert promised is not None
    assert capsys.readouterr().out.splitlines()[-1] == promised[1].replace(",", "")


def test_the_table_of_a_network_is_one(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)[0])
    network = methods.get("ft-all").apply(networks.get(str(tmp_path / "mine.toml")))
    assert (len(network.blocks), network.num_classes, network.table["resolution"]) == (6, 10, 96)
    assert predict(network, batch=1, resolution=96).totals.peak_bytes


def test_the_table_of_methods_is_that_of_their_fields() -> None:
    page = (Path(__file__).parents[1] / "tutorials" / "methods.md").read_text("utf-8")
    assert page.endswith(f"\n\n{markdown()}"), "run make pages and look at the diff"
    assert f"[All {len(methods.METHODS)} methods](tutorials/methods.md)" in README
    for line in markdown().splitlines()[2:]:
        name, *told = (cell.strip() for cell in line.strip("|").split("|"))
        assert all(told), f"{name} leaves something out"
        assert name.strip("`") in minitl.methods.METHODS


def test_the_demo_s_table_holds_what_is_predicted() -> None:
    for choice in CHOICES:
        (row,) = (line for line in README.splitlines() if re.match(rf"{choice} +[0-9]", line))
        totals = ledger(choice).totals
        *_, kept, peak, total, _, flops, _ = row.split()  # method, accuracy, spread, ..., trains, ..., seconds
        assert (kept, total) == (f"{totals.kept_bytes:,}", f"{totals.total_bytes:,}")
        assert peak == f"{totals.peak_bytes:,}" or interpreted()  # the plain loops have a peak of their own
        assert flops == f"{totals.flops.total / 1e6:,.1f}"


def test_what_is_said_of_the_demo_is_in_its_table() -> None:
    said = re.search(
        r"([\d.]+) % of the test images right with ([\d.]+) MB kept, against ([\d.]+) % with ([\d.]+) MB",
        README.replace("\n", " "),
    )
    assert said is not None
    told = []
    for choice in ("mobiletl 2", "ft-blocks 2"):
        (row,) = (line for line in README.splitlines() if re.match(rf"{choice} +[0-9]", line))
        accuracy, _, _, kept, *_ = row.split()[2:]
        told += [accuracy, f"{int(kept.replace(',', '')) / 1e6:.1f}"]
    assert list(said.groups()) == told


def test_what_a_block_keeps_in_units_of_its_input() -> None:
    told = dict(
        re.findall(r"^\| `(?:ft-all`, `)?([a-z-]+)` \| .* \| ([0-9.]+ \| [0-9.]+) \|$", README, flags=re.MULTILINE)
    )
    assert set(told) == {"ft-blocks", "mobiletl", "mobiletl-exact", "mobiletl-recompute"}
    for method, columns in told.items():
        kept = [
            predict(methods.get(method).apply(irb(**attrs)), batch=8, resolution=7).kept_bytes / (4 * 8 * 7 * 7 * 96)
            for attrs in ({"activation": "relu6", "se_channels": 0}, {})
        ]
        assert columns == " | ".join(f"{times:.1f}" for times in kept), method


def test_what_is_imported_when_it_is_first_named() -> None:
    assert next(minitl.oracle.cases("relu-exact")).op == "relu"
    assert minitl.training.__name__ == "minitl.training"
    with pytest.raises(AttributeError, match="'optimisers'"):
        minitl.optimisers  # noqa: B018
