"""The command ``simulator``: arguments in, a report out. Nothing else in the project prints.

Exit codes: 0; 2 for what the user wrote and cannot be used, with one message on stderr; 130 after Ctrl-C;
141 when whoever read the output has gone. Anything else is a program error and shows its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from simulator.cli.memories import app
from simulator.cli.usage import UsageError, in_one_line
from simulator.errors import InputError, one_line

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (``sys.argv`` unless given). Gives its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = None if arguments is None else list(arguments)
    try:
        code = app(words, prog_name="simulator", standalone_mode=False)
    except InputError as error:
        return _refuse(error)
    except UsageError as error:
        return _refuse(in_one_line(error))
    except SystemExit as leaving:
        code = leaving.code
    return code if isinstance(code, int) else 0


def _refuse(error: InputError) -> int:
    print(f"error: {one_line(str(error))}", file=sys.stderr)
    return 2
