"""Lanes of the vector unit and output adders in Amaranth; see `simulator.rtl.units.vector`.

Ports, sampled at the rising edge of ``clk``: of a lane ``a``, ``b``, ``c``, FP32 codes in the lowest bits, ``sum`` and
``integer``; ``out`` and ``out_integer``. Of an output adder ``a``, ``b`` and ``out``.
"""

from __future__ import annotations

from amaranth.hdl import C, ClockDomain, Elaboratable, Module, Mux, Signal

from simulator.pe.arithmetic import FP32
from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import named
from simulator.rtl.staged_add import FUSED_PLACES, Ranks, add_operands, add_scaled, unpacked
from simulator.rtl.units.vector import INTEGER_BITS, OutputAdderUnit, VectorUnit


class VectorModule(Elaboratable):  # type: ignore[misc]
    """A lane, with full adders of a library's cells or of logic."""

    def __init__(self, unit: VectorUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()
        self._domain = ClockDomain("sync", reset_less=True)
        self.inputs = {name: Signal(width, name=name) for name, width in unit.widths.items()}
        self.out = Signal(unit.bits)
        self.out_integer = Signal()

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, *self.inputs.values(), self.out, self.out_integer]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        ranks = Ranks(m, self.unit.taken, fast=self.fast)
        held = {name: ranks.register(port, f"{name}_q") for name, port in self.inputs.items()}
        a, b, c, integer = held["a"], held["b"], held["c"], held["integer"]
        whole = named(m, held["sum"] | integer, "whole")
        (a_significand, a_field), (b_significand, b_field) = (
            unpacked(m, code[: FP32.bits], FP32.precision) for code in (a, b)
        )
        size = ranks.magnitude(a)
        # A sum counts units of 1, a significand units of 2**-149 with field 1.
        own = named(m, Mux(whole, 1 - FP32.low, a_field) + b_field, "own")
        live = ranks.cut(
            "operand",
            {
                "left": Mux(whole, size, a_significand),
                "right": Mux(integer, b[: INTEGER_BITS - 1], b_significand),
                "own": own,
                "sign": Mux(whole, a[-1], a[FP32.bits - 1]) ^ b[-1],
                "integer": integer,
                "addend": c,
            },
        )
        live = ranks.cut_product(live.pop("left"), live.pop("right"), live, self._adder)
        live = ranks.cut("product", live)
        integer, addend, sign, magnitude = (live[name] for name in ("integer", "addend", "sign", "product"))
        # The product of integers, turned where it is negative, joins the addend here and passes the rest.
        low = magnitude[: len(addend)] ^ sign.replicate(len(addend))
        total = ranks.add(addend, low, sign)[: len(addend)]
        passing = {"integer": integer, "total": total & integer.replicate(len(total))}
        late = ranks.cut("normalise", {"addend": addend[: FP32.bits]})
        for place in FUSED_PLACES:
            passing = ranks.cut(place, passing)
        exponent = 2 * (FP32.low - 1)
        code = add_scaled(m, ranks, FP32, late["addend"], sign, magnitude, live["own"], exponent)
        result = Mux(passing["integer"], passing["total"], code)
        m.d.comb += self.out.eq(ranks.register(result, "result"))
        m.d.comb += self.out_integer.eq(ranks.register(passing["integer"], "result_integer"))
        return m


class OutputAdderModule(Elaboratable):  # type: ignore[misc]
    """Two operand registers, an adder and its result."""

    def __init__(self, unit: OutputAdderUnit, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self._domain = ClockDomain("sync", reset_less=True)
        self.a, self.b, self.out = (Signal(unit.held.bits, name=name) for name in ("a", "b", "out"))

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, self.a, self.b, self.out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        ranks = Ranks(m, self.unit.taken, fast=self.fast)
        a, b = ranks.register(self.a, "a_q"), ranks.register(self.b, "b_q")
        to = self.unit.held.float_format
        total = ranks.add(a, b, C(0, 1))[: len(a)] if to is None else add_operands(m, ranks, to, a, b)
        m.d.comb += self.out.eq(ranks.register(total, "sum"))
        return m
