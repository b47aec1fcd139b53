import sys
import threading

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


def on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # rich draws no bar on one that is called dumb
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_on_a_terminal_the_bar_shows_description_steps_and_loss(monkeypatch):
    pytest.importorskip("rich")
    terminal = on_a_terminal(monkeypatch)
    with bar("adapting", 4) as shown:
        for loss in (0.75, 0.5, 0.25):
            shown.step(loss)
        shown.advance("a line")
    assert "adapting" in terminal.text
    assert "4/4" in terminal.text
    assert "loss 0.250" in terminal.text
    assert "a line\n" in terminal.text


@pytest.mark.parametrize("rich", ["installed", "missing"])
def test_in_a_pipe_there_are_lines_and_no_bar(rich, monkeypatch, capfd):
    if rich == "missing":
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    with bar("adapting", 2) as shown:
        shown.step(0.5)
        shown.advance("half way")
        shown.step(0.25)
    assert capfd.readouterr() == ("", "[1/2] half way\n")


def test_silence(capfd):
    Silent().step(0.5)
    Silent().advance("unheard")
    assert capfd.readouterr() == ("", "")


def test_the_bar_follows_steps_done_elsewhere(monkeypatch):
    pytest.importorskip("rich")
    terminal = on_a_terminal(monkeypatch)
    seen = threading.Event()

    def count():
        if shown.drawn.tasks[0].completed == 7:
            seen.set()
        return 7

    with bar("comparing", 10, jobs=2) as shown:
        shown.follow(count)
        shown.advance("a job")
        assert seen.wait(30)
    assert "[1/2] a job\n" in terminal.text
    assert "7/10" in terminal.text
