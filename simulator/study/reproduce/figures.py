"""Published figures and the constants of published models: comma-separated files, one number a row.

Columns: ``name``, ``case`` (``key=value`` pairs separated by spaces), ``value`` as printed, ``unit``, ``source``
(paper and table, figure or section), ``note`` (what is odd about the row; may be empty).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DATA = Path(__file__).parent / "data"
COLUMNS = ("name", "case", "value", "unit", "source", "note")

Value = int | float
Case = Mapping[str, str | int | float]
_Key = tuple[str, frozenset[tuple[str, str | int | float]]]


@dataclass(frozen=True)
class Figure:
    """One number that somebody published."""

    name: str
    case: Case
    text: str
    """The number as printed: its digits say how exact it is."""
    unit: str
    source: str
    note: str

    @property
    def value(self) -> Value:
        return number(self.text)

    @property
    def last_digit(self) -> float:
        """What one in the last printed digit is worth."""
        mantissa, _, exponent = self.text.lower().partition("e")
        return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


class Figures:
    """The rows of one file, found by name and case."""

    def __init__(self, rows: tuple[Figure, ...]) -> None:
        self.rows = rows
        self._index = {_key(row.name, row.case): row for row in rows}
        if len(self._index) < len(rows):
            raise ValueError("two figures of one name and case")

    def __iter__(self) -> Iterator[Figure]:
        return iter(self.rows)

    def named(self, name: str) -> list[Figure]:
        """The figures of one name, in the order of the file."""
        return [row for row in self.rows if row.name == name]

    def get(self, name: str, **case: str | int | float) -> Figure | None:
        return self._index.get(_key(name, case))

    def value(self, name: str, **case: str | int | float) -> Value:
        """The number of this name and case; KeyError where the file has none."""
        return self._index[_key(name, case)].value

    def whole(self, name: str, **case: str | int | float) -> int:
        """The same, where it is a count."""
        value = self.value(name, **case)
        if not isinstance(value, int):
            raise KeyError(f"{name} is not a whole number")
        return value


def number(text: str) -> Value:
    """``text`` as an integer where it is one, else as a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def parse_case(text: str) -> dict[str, str | int | float]:
    """``model=phi-2 bits=4`` as a mapping; values that are numbers become numbers."""
    case: dict[str, str | int | float] = {}
    for pair in text.split():
        key, _, value = pair.partition("=")
        try:
            case[key] = number(value)
        except ValueError:
            case[key] = value
    return case


@lru_cache(maxsize=32)
def read_figures(name: str) -> Figures:
    """The figures of ``data/<name>.csv``."""
    with open(DATA / f"{name}.csv", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{name}.csv: columns are {reader.fieldnames}, not {COLUMNS}")
        return Figures(
            tuple(
                Figure(
                    row["name"],
                    parse_case(row["case"]),
                    row["value"],
                    row["unit"],
                    row["source"],
                    row["note"],
                )
                for row in reader
            )
        )


def _key(name: str, case: Case) -> _Key:
    return name, frozenset(case.items())
