"""Passes of the vector unit per element of each vector operation, from the table ``vector_passes.csv``.

In one pass a lane takes one element and does one of: a fused multiply-add, one table look-up (with the
fused multiply-add that forms its argument), or one step of a reduction (add, multiply-accumulate or max).
Row scalars such as a mean, a reciprocal or a scale are one value a row and are not counted.
``vector_passes.csv`` says what each pass of an operation does and which definition it follows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from simulator.errors import InputError, nearest


@dataclass(frozen=True)
class VectorKind:
    """One row of the table."""

    op: str
    passes: int
    steps: tuple[str, ...]
    source: str


@cache
def vector_kinds() -> Mapping[str, VectorKind]:
    """Name of a vector operation -> its row."""
    text = files("simulator.workload").joinpath("vector_passes.csv").read_text(encoding="utf-8")
    kinds = {}
    for row in csv.DictReader(text.splitlines()):
        steps = tuple(step.strip() for step in row["what each pass does"].split(";"))
        kinds[row["op"]] = VectorKind(row["op"], int(row["passes"]), steps, row["source"])
    return MappingProxyType(kinds)


def passes(op: str) -> int:
    """Passes per element of the vector operation ``op``. Raises InputError: unknown operation."""
    kind = vector_kinds().get(op)
    if kind is None:
        raise InputError("no vector operation of this name", value=op, allowed=nearest(op, vector_kinds()))
    return kind.passes
