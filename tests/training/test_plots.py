import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl.errors import UsageError
from minitl.methods import METHODS
from minitl.training.choice import CHOICES, everything
from minitl.training.search import Result

pytest.importorskip("matplotlib")

from minitl.accounting.plot import new_figure
from minitl.training.plots import Dot, label, pareto, plot_accuracy, plot_memory, plot_pareto


def result(choice, kept, *accuracy):
    return Result(
        choice.method,
        choice.blocks,
        choice.options,
        len(accuracy),
        list(accuracy),
        kept,
        2 * kept,
        2 * kept,
        10,
        100,
        1.0,
        [0.01] * len(accuracy),
    )


RESULTS = [result(choice, 10 ** (4 + i), 0.5 + 0.05 * i, 0.6) for i, choice in enumerate(CHOICES)]


@pytest.mark.parametrize("plot", [plot_accuracy, plot_memory, plot_pareto])
def test_a_plot_is_a_file(plot, tmp_path):
    plot(RESULTS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_the_pareto_set_holds_what_no_other_matches_for_as_little():
    ways = [(3, 0.9), (1, 0.5), (2, 0.5), (2, 0.8), (4, 0.9), (3, 0.7), (5, 1.0), (1, 0.4)]
    assert pareto(ways, lambda way: way) == [(1, 0.5), (2, 0.8), (3, 0.9), (5, 1.0)]


def test_every_method_is_compared_once():
    names = [choice.method for choice in everything()]
    assert len(set(names)) == len(names)
    assert set(METHODS) - set(names) == {"tinytl-b"}, "ft-bias by another name"
    assert all((choice.blocks == 2) == METHODS[choice.method].takes_blocks for choice in everything())


def test_one_seed_has_no_spread_and_draws(tmp_path):
    plot_accuracy([result(CHOICES[0], 1000, 0.5)], tmp_path / "plot.svg")
    assert "ft-last" in (tmp_path / "plot.svg").read_text()


dots = st.lists(
    st.tuples(st.floats(1e-2, 1e2), st.floats(0, 100), st.floats(0, 5), st.sampled_from(["ft-all", "mobiletl 2"])),
    min_size=1,
    max_size=6,
    unique_by=lambda dot: (round(dot[0], 1), round(dot[1])),
)


@given(dots)
@settings(max_examples=6)
def test_names_cover_neither_each_other_nor_dots(dots):
    figure, (axes,) = new_figure(7, 4.5)
    axes.set(xscale="log", xlim=(1e-3, 1e3), ylim=(-20, 120))
    figure.draw_without_rendering()
    label(axes, [Dot(*dot) for dot in dots])
    boxes = [name.get_window_extent() for name in axes.texts if name.get_text()]
    assert len(boxes) == len(dots)
    for box in boxes:
        assert box.count_overlaps(boxes) == 1  # itself
        assert not any(box.contains(*spot) for spot in axes.transData.transform([dot[:2] for dot in dots]))


@pytest.mark.parametrize("plot", [plot_accuracy, plot_memory])
def test_without_matplotlib_there_is_a_remedy(plot, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'minitl\[demo\]'"):
        plot(RESULTS, tmp_path / "plot.png")
