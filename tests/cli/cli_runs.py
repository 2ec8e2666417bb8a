"""The command, run in this process: what it printed and how it ended; a traceback fails the test."""

from __future__ import annotations

import contextlib
import io
from typing import NamedTuple

from simulator.cli import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def simulator(*arguments: object) -> Ended:
    """`simulator ARGUMENTS...`, into pipes."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def refused(*arguments: object) -> str:
    """The one line with which the command refuses these arguments; nothing else is printed."""
    ended = simulator(*arguments)
    assert ended.code == 2, ended
    assert ended.out == ""
    assert "Traceback" not in ended.err
    message, end, more = ended.err.partition("\n")
    assert message.startswith("error: "), ended.err
    assert (end, more) == ("\n", ""), ended.err
    return message
