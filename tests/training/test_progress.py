import sys

import pytest

from minitl.training.progress import Silent, bar


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
    with bar("adapting", 4) as shown:
        for loss in (0.75, 0.5, 0.25):
            shown.step(loss)
        shown.advance("a line")
    assert "adapting" in sys.stderr.text
    assert "4/4" in sys.stderr.text
    assert "loss 0.250" in sys.stderr.text
    assert "a line\n" in sys.stderr.text


@pytest.mark.parametrize("tqdm", ["installed", "missing"])
def test_in_a_pipe_there_are_lines_and_no_bar(tqdm, monkeypatch, capfd):
    if tqdm == "missing":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with bar("adapting", 2) as shown:
        shown.step(0.5)
        shown.advance("half way")
        shown.step(0.25)
    assert capfd.readouterr() == ("", "[1/2] half way\n")


def test_silence(capfd):
    Silent().step(0.5)
    Silent().advance("unheard")
    assert capfd.readouterr() == ("", "")
