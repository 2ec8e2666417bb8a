"""Trees that are cut before their last addition."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Value

from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Bit, Columns, _heights, _reduce


def carry_save(m: Module, columns: Columns, adder: FullAdder) -> tuple[Value, Value]:
    """Two rows whose sum is the tree's, modulo 2**width. Registers behind it hold two words, where those behind the
    multipliers hold one for each lane."""
    reduced = [list(column) for column in columns.bits]
    for weight in range(columns.width):
        if columns.constant >> weight & 1:
            reduced[weight].append(Bit(None))
    for height in _heights(max(map(len, reduced), default=0)):
        reduced = _reduce(m, reduced, height, adder)
    first, second = (
        Cat(*(column[row].seen() if row < len(column) else C(0, 1) for column in reduced)) for row in (0, 1)
    )
    return first, second
