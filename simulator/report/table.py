"""Text tables whose columns are as wide as what they hold.

Where space is short the first column, names, is shortened in its middle; then columns that say so are left
out. A number is never cut: a table that still does not fit is wider than asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.errors import one_line

SHORTEST_NAME = 18
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class Column:
    title: str
    left: bool = False
    """Text stands left, numbers right."""
    gap: int = 2
    """Spaces before it."""
    leave_out: int = 0
    """Where space is short, columns are left out in this order; 0: never."""


def text_table(
    columns: Sequence[Column],
    sections: Sequence[Sequence[Sequence[str]]],
    *,
    width: int | None = None,
    color: bool = False,
) -> list[str]:
    """Lines of a table: titles, then the rows of each section, a rule above each. ``width`` None: no limit.

    A row that ends early has nothing in its other columns.
    """
    cells = [
        [[*map(one_line, row), *[""] * (len(columns) - len(row))] for row in section] for section in sections
    ]
    widths = [
        max(len(column.title), *(len(row[at]) for section in cells for row in section), 0)
        for at, column in enumerate(columns)
    ]
    shown = _fitting(columns, widths, width)
    if width is not None:
        rest = _needed(columns, widths, shown) - widths[0]
        widths[0] = min(widths[0], max(width - rest, SHORTEST_NAME, len(columns[0].title)))

    def line(row: Sequence[str]) -> str:
        text = shortened(row[0], widths[0]).ljust(widths[0])
        for at in shown[1:]:
            cell = row[at].ljust(widths[at]) if columns[at].left else row[at].rjust(widths[at])
            text += " " * columns[at].gap + cell
        return text.rstrip()

    rule = "─" * _needed(columns, widths, shown)
    lines = [f"{_BOLD}{line([column.title for column in columns])}{_PLAIN}"] if color else []
    lines = lines or [line([column.title for column in columns])]
    for section in cells:
        lines.append(f"{_DIM}{rule}{_PLAIN}" if color else rule)
        lines += [line(row) for row in section]
    return lines


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int | None) -> list[int]:
    """Numbers of the columns that are shown."""
    shown = list(range(len(columns)))
    least = [min(widths[0], SHORTEST_NAME), *widths[1:]]
    for _, at in sorted((column.leave_out, at) for at, column in enumerate(columns) if column.leave_out):
        if width is None or _needed(columns, least, shown) <= width:
            break
        shown.remove(at)
    return shown


def _needed(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[at] for at in shown) + sum(columns[at].gap for at in shown[1:])


def shortened(name: str, width: int) -> str:
    """``name``, without its middle where it is longer than ``width``."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"
