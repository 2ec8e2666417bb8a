"""The hardware of a part, in Amaranth: operands at the ports of `PartUnit.port_widths`, the result at ``out``.

All but the register are gates alone; the clock is there because every unit has one.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.rtl.cells import FullAdder
from simulator.rtl.float_parts import add_floats, multiply_floats
from simulator.rtl.parts import named, product, shift_right
from simulator.rtl.units.part import PartUnit


class PartModule(Elaboratable):  # type: ignore[misc]
    """A part, with full adders of a library's cells or of logic."""

    def __init__(self, unit: PartUnit, adder: FullAdder | None = None) -> None:
        self.unit = unit
        self._adder = adder or FullAdder()
        self._domain = ClockDomain("sync", reset_less=True)
        self._operands = [Signal(width, name=name) for name, width in unit.port_widths.items()]
        self.out = Signal(unit.out_width)

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, *self._operands, self.out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        if self.unit.kind == "register":
            held = Signal(len(self.out), reset_less=True)
            m.d.sync += held.eq(self._operands[0])
            m.d.comb += self.out.eq(held)
        else:
            m.d.comb += self.out.eq(self._result(m))
        return m

    def _result(self, m: Module) -> Value:
        a, *others = self._operands
        kind, sizes = self.unit.kind, self.unit.sizes
        if kind == "int_multiplier":
            return product(m, a, others[0], self._adder, signed=min(sizes) > 1)
        if kind == "int_adder":
            return a + others[0]
        if kind == "comparator":
            return a > others[0]
        if kind == "shifter":
            return shift_right(m, a, others[0])
        if kind == "multiplexer":
            return select(m, self._operands[:-1], self._operands[-1])
        exponent_bits, precision = sizes
        if kind == "fp_multiplier":
            return multiply_floats(m, exponent_bits, precision, a, others[0], self._adder)
        return add_floats(m, exponent_bits, precision, a, others[0])


def select(m: Module, words: Sequence[Value], choice: Value) -> Value:
    """The word of this number, by a tree of multiplexers: a rank a bit of the number."""
    level = list(words)
    for bit in choice:
        pairs = [named(m, Mux(bit, b, a), "mux") for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]
