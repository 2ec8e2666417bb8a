"""MixPE's hardware, in Amaranth.

Ports, sampled at the rising edge of ``clk``; there is no reset: ``a``, ``w`` operand codes; ``first``: the product of
this cycle begins a new sum; ``out``: the accumulator, two cycles later, or with two of them the sum that ``first``
ended.

The activation shifted by i for each set bit i of the weight, added: these rows are the partial products of an array
multiplier, and go into one tree. Of integers the rows of a signed weight's top bit are subtracted, and the accumulator
is one more row. The significand of a float is shifted by the weight's magnitude, so that the sum of its rows is exact
and has no sign to be undone before it is added to the accumulator; its exponent is the activation's.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.rtl.cells import FullAdder
from simulator.rtl.fast_add import add_normalised, normalise, reaches_subnormals
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, named, product
from simulator.rtl.units.mixpe import MixUnit


class MixModule(Elaboratable):  # type: ignore[misc]
    """A unit, with full adders of a library's cells or of logic."""

    def __init__(self, unit: MixUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()
        self._domain = ClockDomain("sync", reset_less=True)
        self.a = Signal(unit.activation.bits)
        self.w = Signal(unit.weight.bits)
        self.first = Signal()
        self.out = Signal(unit.held.bits)

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, self.a, self.w, self.first, self.out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        a, w, first = (Signal(len(port), reset_less=True) for port in (self.a, self.w, self.first))
        m.d.sync += [a.eq(self.a), w.eq(self.w), first.eq(self.first)]
        held = Signal(len(self.out), name="accumulator", reset_less=True)
        accumulated = self._integers if self.unit.activation.is_integer else self._floats
        total = accumulated(m, a, w, held, first)
        m.d.sync += held.eq(total)
        m.d.comb += self.out.eq(held)
        if self.unit.doubled:
            finished = Signal(len(held), reset_less=True)
            m.d.sync += finished.eq(Mux(first, held, finished))
            m.d.comb += self.out.eq(finished)
        return m

    def _integers(self, m: Module, a: Value, w: Value, held: Value, first: Value) -> Value:
        a_signed, w_signed = (element.kind == "int" for element in (self.unit.activation, self.unit.weight))
        columns = Columns(len(held))
        columns.add_product(a, w, a_signed=a_signed, b_signed=w_signed)
        columns.add_unsigned(_kept(m, held, first))
        return columns.total(m, self._adder, fast=self.fast)

    def _floats(self, m: Module, a: Value, w: Value, held: Value, first: Value) -> Value:
        element, to = self.unit.activation, self.unit.held.float_format
        assert to is not None
        field = a[element.mantissa_bits : -1]
        normal = named(m, field.any(), "normal")
        significand = Cat(a[: element.mantissa_bits], normal)
        negative = w[-1] if self.unit.weight.kind == "int" else C(0, 1)
        magnitude = named(m, Mux(negative, -w, w)[: len(w)], "magnitude")
        shifted_sum = product(m, significand, magnitude, self._adder, fast=self.fast)
        own = Cat(field[0] | ~normal, field[1:])
        sign = a[-1] ^ negative
        last_place = element.quantum_exponent - 1
        if self.fast:
            sign, size, exponent = normalise(m, to, sign, shifted_sum, own, last_place)
            subnormals = reaches_subnormals(to, last_place)
            return add_normalised(m, to, held, first, sign, size, exponent, subnormals=subnormals)
        return fused_add(m, to, _kept(m, held, first), sign, shifted_sum, own, last_place)


def _kept(m: Module, held: Value, first: Value) -> Value:
    """The sum so far, zero where a new one begins."""
    return named(m, held & ~first.replicate(len(held)), "before")
