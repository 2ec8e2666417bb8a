"""Where a command's answer goes: text or JSON on stdout, or a file; remarks on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from simulator.errors import InputError, one_line

if TYPE_CHECKING:
    from simulator.report import Report

_READER_GONE = 141
"""128 + SIGPIPE, as for a program that the signal ends."""
_KEPT = re.compile(r"[0-9a-f]{16}(\.out|\.log)?|.+\.[0-9a-f]{16}\.(json|new)")
"""Files of a `partial_folder`: of CACTI's macros, of units."""


@dataclass(frozen=True)
class Destination:
    """What becomes of the reports of a run; none of the three: text."""

    json: bool
    csv: Path | None
    parquet: Path | None

    def check(self) -> None:
        """Refuse, before anything runs, what could not be written afterwards."""
        if self.json + (self.csv is not None) + (self.parquet is not None) > 1:
            raise InputError("give one of --json, --csv and --parquet")
        for path in (self.csv, self.parquet):
            if path is not None:
                check_target(path)

    def deliver(self, reports: Sequence[Report]) -> None:
        """One report as itself, several side by side or as a list."""
        from simulator.report import compare_text, write_csv, write_parquet

        if self.json:
            objects = [report.to_json() for report in reports]
            emit(json.dumps(objects if len(objects) > 1 else objects[0], indent=1, allow_nan=False) + "\n")
        elif self.csv is not None:
            write_csv(self.csv, reports)
        elif self.parquet is not None:
            write_parquet(self.parquet, reports)
        else:
            width, color = terminal()
            if len(reports) > 1:
                emit(compare_text(reports, width=width, color=color))
            else:
                emit(reports[0].text(width=width, color=color, fold=True))
            return
        for note in dict.fromkeys(note for report in reports for note in report.meta["config"]["notes"]):
            remark(note)


def check_target(path: Path) -> None:
    """Raise InputError where a file cannot be made at ``path``."""
    try:
        if path.is_dir():
            raise InputError("is a folder; a file is needed", file=path)
        if not path.parent.is_dir():
            raise InputError("there is no such folder to write into", file=path.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be written: {error}", file=path) from None


@contextlib.contextmanager
def partial_folder(output: Path) -> Iterator[Path]:
    """``mine.partial`` beside ``mine.csv``, which keeps what is done until the table is written: what is kept is gone
    when the block ends without an error, a file of anybody else's and the folder with it are not. Raises InputError: it
    cannot be made."""
    folder = output.with_suffix(".partial")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot keep what is done: {error.strerror}", file=folder) from None
    try:
        yield folder
        for path in folder.iterdir():
            if _KEPT.fullmatch(path.name):
                path.unlink()
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def terminal() -> tuple[int | None, bool]:
    """Columns of the terminal on stdout, None where it is none; and whether it shows colour."""
    if not sys.stdout.isatty():
        return None, False
    return shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR") and os.environ.get(
        "TERM"
    ) != "dumb"


def emit(text: str) -> None:
    """Write to stdout, at once and all of it. A reader that has gone is no error worth a message."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # what is still buffered would fail again, loudly, when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(_READER_GONE) from None
        raise InputError(f"standard output cannot be written: {error.strerror}") from None


def remark(text: str) -> None:
    """Tell the user something beside the answer."""
    print(f"note: {one_line(text)}", file=sys.stderr)
