"""The line that shows how far a long run is."""

from __future__ import annotations

import io
import time

import pytest

from simulator.cli import progress
from simulator.cli.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    monkeypatch.setattr(progress, "DELAY_S", 0.05)
    monkeypatch.setenv("TERM", "xterm")


def work(stream: io.StringIO, seconds: float) -> str:
    with ProgressLine(2, stream) as line:
        update = line.callback(1, "second")
        for step in range(10):
            update(f"layer{step}", step, 10)
            time.sleep(seconds / 10)
    return stream.getvalue()


def test_a_long_run_on_a_terminal_shows_what_is_done() -> None:
    shown = work(Terminal(), 1.0)
    assert "second: layer" in shown
    assert "/20" in shown


def test_a_short_run_shows_nothing() -> None:
    assert work(Terminal(), 0.0) == ""


def test_nothing_is_shown_where_stderr_is_no_terminal() -> None:
    assert work(io.StringIO(), 0.2) == ""


def test_an_error_ends_the_line() -> None:
    stream, line = Terminal(), ProgressLine(1)

    def fails() -> None:
        with line:
            raise KeyError

    line._stream = stream
    with pytest.raises(KeyError):
        fails()
    time.sleep(0.1)
    assert stream.getvalue() == ""
