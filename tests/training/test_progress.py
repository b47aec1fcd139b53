import sys

import pytest

from minitl.training.progress import Silent, bar, following


class Terminal:
    """A stderr that says it is a terminal, and keeps what is written."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_on_a_terminal_the_bar_shows_description_steps_and_loss(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with bar("adapting", 3) as tick:
        for loss in (0.75, 0.5, 0.25):
            tick(loss)
        tick.line("a line")
    assert "adapting" in sys.stderr.text
    assert "3/3" in sys.stderr.text
    assert "loss 0.250" in sys.stderr.text
    assert "a line\n" in sys.stderr.text


@pytest.mark.parametrize("tqdm", ["installed", "missing"])
def test_in_a_pipe_there_are_lines_and_no_bar(tqdm, monkeypatch, capfd):
    if tqdm == "missing":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with bar("adapting", 2) as tick:
        tick(0.5)
        tick.line("half way")
        tick(0.25)
    assert capfd.readouterr() == ("", "half way\n")


def test_following_a_function_calls_it_and_following_nothing_says_nothing(capfd):
    losses = []
    with following(losses.append, 2) as tick:
        tick(0.5)
    assert losses == [0.5]
    with following(None, 2) as tick:
        tick(0.5)
    Silent().line("unheard")
    assert capfd.readouterr() == ("", "")
