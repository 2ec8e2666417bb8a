"""Cells of a multiply-accumulate unit, priced in full adders.

Counts are those of textbook circuits. The weights of the cells were fitted once (``data/gate_cells.csv``) and hold for
every format alike: they rank formats, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import Literal

from simulator.study.reproduce.figures import read_figures

Cells = Mapping[str, float]
"""How many of each cell; a lane's share of a shared one may be a fraction."""


def price(cells: Cells, quantity: Literal["area", "energy"] = "area") -> float:
    """Full adders' worth of ``cells``."""
    table = read_figures("gate_cells")
    return sum(count * table.value(quantity, cell=cell) for cell, count in cells.items())


def together(*parts: Cells) -> Cells:
    """The cells of all parts."""
    total: dict[str, float] = {}
    for part in parts:
        for cell, count in part.items():
            total[cell] = total.get(cell, 0) + count
    return total


def share(cells: Cells, lanes: int) -> Cells:
    """A lane's share of what ``lanes`` have in common."""
    return {cell: count / lanes for cell, count in cells.items()}


def multiplier(bits: int) -> Cells:
    """Array multiplier of two unsigned numbers of ``bits``: partial products, then rows of adders."""
    return {"and": bits * bits, "full_adder": bits * (bits - 2), "half_adder": bits}


def adder(bits: int) -> Cells:
    """Ripple-carry adder."""
    return {"full_adder": bits}


def subtractor(bits: int) -> Cells:
    """Adder one of whose operands can be inverted."""
    return {"full_adder": bits, "xor": bits}


def aligner(bits: int, furthest: int) -> Cells:
    """Shift of a number to its place in ``bits``, 0 to ``furthest`` away; bits that leave stick."""
    return {"mux": bits * stages(furthest)}


def normalizer(bits: int) -> Cells:
    """Shift by the leading zeros of ``bits``; zeros come in from below, where a multiplexer is an AND."""
    cells: Cells = {"and": bits, "or": bits}  # count the zeros
    for stage in range(stages(bits - 1)):
        zeros = 1 << stage
        cells = together(cells, {"mux": bits - zeros, "and": zeros})
    return cells


def stages(furthest: int) -> int:
    """Stages of a shifter by 0 to ``furthest``."""
    return ceil(log2(furthest + 1))
