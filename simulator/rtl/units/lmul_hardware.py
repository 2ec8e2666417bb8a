"""The hardware of L-Mul, in Amaranth.

Ports: operand codes ``a`` and ``w``, lane 0 lowest, and ``out``. With an accumulator, sampled at the rising edge of
``clk``, ``first`` begins a new sum, and ``out`` is the accumulator `LMulUnit.latency` cycles later.
"""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.rtl.cells import FullAdder
from simulator.rtl.fast_add import add_normalised, normalise, reaches_subnormals
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, ceil_log2, largest, named, saturate, shift_right
from simulator.rtl.units.lmul import LMulUnit


class LMulModule(Elaboratable):  # type: ignore[misc]
    """A unit, with full adders of a library's cells or of logic."""

    def __init__(self, unit: LMulUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()
        self._domain = ClockDomain("sync", reset_less=True)
        self.a = Signal(unit.lanes * unit.element.bits)
        self.w = Signal(unit.lanes * unit.element.bits)
        self.first = Signal()
        self.out = Signal(unit.held.bits if unit.accumulator else unit.element.bits)

    @property
    def ports(self) -> list[Signal]:
        ports = [self._domain.clk, self.a, self.w, self.out]
        return [*ports, self.first] if self.unit.accumulator else ports

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        m.d.comb += self.out.eq(self._accumulated(m) if self.unit.accumulator else self._multiplied(m))
        return m

    def _multiplied(self, m: Module) -> Value:
        """The code of the product."""
        element = self.unit.element
        total = self._sum_of_codes(m, self.a, self.w, -self.unit.offset, 2)
        magnitude = total[: element.bits - 1]
        field = magnitude[element.mantissa_bits :]
        there = _normal(self.unit, self.a) & _normal(self.unit, self.w) & ~total[-1] & field.any()
        there = named(m, there, "there")
        return Cat(magnitude & there.replicate(len(magnitude)), self.a[-1] ^ self.w[-1])

    def _sum_of_codes(self, m: Module, a: Value, w: Value, constant: int, spare_bits: int) -> Value:
        """Both codes without their signs and a constant, in so many bits more."""
        columns = Columns(len(a) - 1 + spare_bits, constant)
        columns.add_unsigned(a[:-1])
        columns.add_unsigned(w[:-1])
        return columns.total(m, self._adder, fast=self.fast)

    def _accumulated(self, m: Module) -> Value:
        unit, held = self.unit, Signal(len(self.out), name="accumulator", reset_less=True)
        to, mantissa_bits = unit.held.float_format, unit.element.mantissa_bits
        assert to is not None
        exponent = 2 * (unit.element.emin - 1) - mantissa_bits
        operands = {name: getattr(self, name) for name in ("a", "w", "first")}
        live = _registered(m, operands, "operand")
        a, w = live.pop("a"), live.pop("w")
        for lane in range(unit.lanes):
            codes = (side.word_select(lane, unit.element.bits) for side in (a, w))
            live |= {f"{name}{lane}": value for name, value in self._product(m, *codes).items()}
        live = self._cut(m, "multiply", live)
        if unit.lanes == 1:
            sign, magnitude, own = (live.pop(f"{name}0") for name in ("sign", "significand", "exponent"))
        else:
            live = self._cut(m, "tree", self._tree(m, live))
            total, own = live.pop("sum"), live.pop("exponent")
            sign = total[-1]
            magnitude = named(m, Mux(sign, -total, total), "magnitude")[: len(total)]
            exponent += mantissa_bits - (unit.align_window or 0)
        if self.fast or "normalise" in unit.taken_cuts:
            sign, size, field = normalise(m, to, sign, magnitude, own, exponent)
            live = self._cut(m, "normalise", live | {"sign": sign, "size": size, "field": field})
            sign, size, field = (live[name] for name in ("sign", "size", "field"))
            subnormals = reaches_subnormals(to, exponent)
            total = add_normalised(m, to, held, live["first"], sign, size, field, subnormals=subnormals)
        else:
            before = named(m, held & ~live["first"].replicate(len(held)), "before")
            total = fused_add(m, to, before, sign, magnitude, own, exponent)
        m.d.sync += held.eq(total)
        return held

    def _product(self, m: Module, a: Value, w: Value) -> Mapping[str, Value]:
        """Sign, significand and exponent, whose field counts both operands' biases; zeros for a product of zero."""
        total = self._sum_of_codes(m, a, w, self.unit.rounding, 1)
        mantissa_bits = self.unit.element.mantissa_bits
        there = named(m, _normal(self.unit, a) & _normal(self.unit, w), "there")
        gated = named(m, total & there.replicate(len(total)), "product")
        return {
            "sign": a[-1] ^ w[-1],
            "significand": Cat(gated[:mantissa_bits], there),
            "exponent": gated[mantissa_bits:],
        }

    def _tree(self, m: Module, live: Mapping[str, Value]) -> dict[str, Value]:
        """The sum of the lanes, aligned to the largest exponent."""
        unit, window = self.unit, self.unit.align_window or 0
        lanes = range(unit.lanes)
        top = largest(m, [live[f"exponent{lane}"] for lane in lanes])
        spare = window - unit.element.mantissa_bits
        aligned: dict[str, Value] = {"first": live["first"], "exponent": top}
        for lane in lanes:
            significand, own = live[f"significand{lane}"], live[f"exponent{lane}"]
            placed = Cat(C(0, max(spare, 0)), significand[max(-spare, 0) :])
            distance = named(m, top - own, "distance")[: len(own)]
            aligned[f"aligned{lane}"] = shift_right(m, placed, saturate(m, distance, len(placed)))
            aligned[f"sign{lane}"] = live[f"sign{lane}"]
        aligned = self._cut(m, "align", aligned)
        columns = Columns(window + 2 + ceil_log2(unit.lanes))
        for lane in lanes:
            columns.add_signed_magnitude(aligned[f"sign{lane}"], aligned[f"aligned{lane}"])
        return {
            "first": aligned["first"],
            "exponent": aligned["exponent"],
            "sum": columns.total(m, self._adder, fast=self.fast),
        }

    def _cut(self, m: Module, place: str, live: dict[str, Value]) -> dict[str, Value]:
        return _registered(m, live, place) if place in self.unit.taken_cuts else live


def _registered(m: Module, live: Mapping[str, Value], place: str) -> dict[str, Value]:
    """The same a cycle later."""
    held: dict[str, Value] = {}
    for name, value in live.items():
        held[name] = Signal(len(value), name=f"{place}_{name}", reset_less=True)
        m.d.sync += held[name].eq(value)
    return held


def _normal(unit: LMulUnit, code: Value) -> Value:
    return code[unit.element.mantissa_bits : -1].any()
