"""The hardware of a unit, in Amaranth.

Ports, sampled at the rising edge of ``clk``; there is no reset::

    a, w             operand codes, lane 0 lowest
    a_scale, w_scale codes of the blocks' scales, where scales are applied inside
    first            the products of this cycle begin a new sum
    out              the accumulator: two's complement, or the code of the floating-point format

With two accumulators ``out`` is the second one, which takes the sum when ``first`` ends it. With a stationary operand
there is no ``first``, but::

    load             the port of the stationary operand is taken (into the second register, where there are two)
    swap             with two registers: what was loaded before this cycle counts from this cycle on
    partial          the sum that products are added to, `DotUnit.latency` - 1 cycles after their operands

``out`` holds the sum that includes an operand `DotUnit.latency` cycles after it was at the port. It is, bit for bit,
what the PE's ``function`` says of finite codes; infinities and NaN are refused before a run. A cut is a rank of
registers through the whole data path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.formats.element import EXPONENT_BIAS, Element
from simulator.pe.elements import element_format
from simulator.rtl.cells import FullAdder
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, ceil_log2, largest, named, product, saturate, shift_left, shift_right
from simulator.rtl.units.dot import DotUnit

Pairs = list[tuple[Value, Value]]
"""Codes of activation and weight, lane by lane."""


class _Stages:
    """Ranks of registers: what crosses a cut that is taken is delayed by a cycle."""

    def __init__(self, m: Module, taken: tuple[str, ...]) -> None:
        self._m = m
        self.taken = taken

    def register(self, value: Any, name: str) -> Value:
        held = Signal(Value.cast(value).shape(), name=name, reset_less=True)
        self._m.d.sync += held.eq(value)
        return held

    def cut(self, place: str, live: Mapping[str, Value]) -> dict[str, Value]:
        if place not in self.taken:
            return dict(live)
        return {name: self.register(value, f"{place}_{name}") for name, value in live.items()}


class DotModule(Elaboratable):  # type: ignore[misc]
    """A unit, with full adders of a library's cells or of logic."""

    def __init__(self, unit: DotUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()
        self.a = Signal(unit.lanes * unit.activation.bits)
        self.w = Signal(unit.lanes * unit.weight.bits)
        self.first = Signal()
        self.load = Signal()
        self.swap = Signal()
        self.partial = Signal(unit.held.bits)
        self._domain = ClockDomain("sync", reset_less=True)
        self.out = Signal(unit.held.bits)
        scale_bits = element_format(unit.scale).element.bits if unit.scale and unit.scale != "e8m0" else 8
        self.a_scale = Signal(scale_bits if unit.scale else 0)
        self.w_scale = Signal(scale_bits if unit.scale else 0)

    @property
    def ports(self) -> list[Signal]:
        ports = [self._domain.clk, self.a, self.w, self.out]
        if self.unit.scale:
            ports += [self.a_scale, self.w_scale]
        if self.unit.stationary == "outputs":
            return [*ports, self.first]
        return [*ports, self.load, self.partial, *([self.swap] if self.unit.doubled else [])]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        stages = _Stages(m, self.unit.cut_places[: self.unit.cuts])
        streams = self.unit.stationary == "outputs"
        live = {"first": stages.register(self.first, "first_q")} if streams else {}
        if self.unit.scale:
            live |= _scale(
                m,
                self.unit,
                stages.register(self.a_scale, "a_scale_q"),
                stages.register(self.w_scale, "w_scale_q"),
                self._adder,
            )
        a = self._operand(m, stages, self.a, "activations")
        w = self._operand(m, stages, self.w, "weights")
        lanes = self.unit.lanes
        pairs = [(a.word_select(i, len(a) // lanes), w.word_select(i, len(w) // lanes)) for i in range(lanes)]
        held = Signal(self.unit.held.bits, name="accumulator", reset_less=True)
        live["before"] = held if streams else self.partial
        accumulate = _accumulate_integers if self.unit.held.float_format is None else _accumulate_float
        total, first = accumulate(m, self.unit, stages, pairs, live, self._adder)
        m.d.sync += held.eq(total)
        m.d.comb += self.out.eq(held)
        if streams and self.unit.doubled:
            finished = Signal(len(held), reset_less=True)
            m.d.sync += finished.eq(Mux(first, held, finished))
            m.d.comb += self.out.eq(finished)
        return m

    def _operand(self, m: Module, stages: _Stages, port: Signal, side: str) -> Value:
        """The register of a streamed operand, or those of the stationary one."""
        if self.unit.stationary != side:
            return stages.register(port, f"{side}_q")
        held = Signal(len(port), name=f"{side}_held", reset_less=True)
        if not self.unit.doubled:
            m.d.sync += held.eq(Mux(self.load, port, held))
            return held
        waiting = Signal(len(port), name=f"{side}_next", reset_less=True)
        m.d.sync += waiting.eq(Mux(self.load, port, waiting))
        m.d.sync += held.eq(Mux(self.swap, waiting, held))
        return held


def _operand(element: Element, code: Value) -> tuple[Value, Value, Value]:
    """(sign, significand, exponent field of at least 1) of a float's code."""
    exponent = code[element.mantissa_bits : -1]
    normal = exponent.any()
    significand = Cat(code[: element.mantissa_bits], normal)
    return code[-1], significand, Cat(exponent[0] | ~normal, exponent[1:])


def _float_products(
    m: Module, unit: DotUnit, pairs: Pairs, live: Mapping[str, Value], adder: FullAdder
) -> dict[str, Value]:
    """With sign, product of significands and sum of exponent fields of every lane."""
    more = dict(live)
    for lane, (a, w) in enumerate(pairs):
        a_sign, a_significand, a_exponent = _operand(unit.activation, a)
        w_sign, w_significand, w_exponent = _operand(unit.weight, w)
        more[f"sign{lane}"] = named(m, a_sign ^ w_sign, "sign")
        more[f"product{lane}"] = named(m, product(m, a_significand, w_significand, adder), "product")
        more[f"exponent{lane}"] = named(m, a_exponent + w_exponent, "exponent")
    return more


def _take(live: dict[str, Value], name: str) -> list[Value]:
    """The lanes' values of a name, which are live no longer."""
    lanes: list[Value] = []
    while f"{name}{len(lanes)}" in live:
        lanes.append(live.pop(f"{name}{len(lanes)}"))
    return lanes


def _fixed_point_bits(unit: DotUnit) -> int:
    """Magnitude bits of any product in units of the smallest one."""
    fields = [(1 << e.exponent_bits) - 1 - int(e.has_inf) for e in (unit.weight, unit.activation)]
    return unit.weight.mantissa_bits + unit.activation.mantissa_bits + 2 + sum(fields) - 2


def _columns(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
    width: int | None = None,
) -> tuple[Columns, dict[str, Value]]:
    """The lanes' products, aligned, as one tree of ``width`` bits (default: wide enough for any sum)."""
    if unit.is_integer:
        return _integer_columns(m, unit, stages, pairs, live, adder, width)
    live = stages.cut("multiply", _float_products(m, unit, pairs, live, adder))
    if unit.align_window is None:
        bits = _fixed_point_bits(unit)
        aligned = [
            shift_left(m, value, named(m, exponent - 2, "shift")[: len(exponent)], bits)
            for value, exponent in zip(_take(live, "product"), _take(live, "exponent"), strict=True)
        ]
    else:
        bits = unit.align_window + 2
        aligned, live = _align(m, unit, stages, live, unit.align_window)
    live = stages.cut("align", live | {f"aligned{lane}": value for lane, value in enumerate(aligned)})
    columns = Columns(width or bits + 1 + ceil_log2(unit.lanes))
    for sign, value in zip(_take(live, "sign"), _take(live, "aligned"), strict=True):
        columns.add_signed_magnitude(sign, value)
    return columns, live


def _integer_columns(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
    width: int | None,
) -> tuple[Columns, dict[str, Value]]:
    """All partial products in one tree, or, cut behind the multipliers, their products."""
    is_signed = unit.weight.kind == "int"
    product_bits = unit.activation.bits + unit.weight.bits
    columns = Columns(width or product_bits + ceil_log2(unit.lanes))
    if "multiply" not in stages.taken:
        for a, w in pairs:
            columns.add_product(a, w, a_signed=is_signed, b_signed=is_signed)
        return columns, live
    products = {f"product{i}": product(m, a, w, adder, signed=is_signed) for i, (a, w) in enumerate(pairs)}
    live = stages.cut("multiply", live | products)
    for value in _take(live, "product"):
        (columns.add_signed if is_signed else columns.add_unsigned)(value)
    return columns, live


def _align(
    m: Module, unit: DotUnit, stages: _Stages, live: dict[str, Value], window: int
) -> tuple[list[Value], dict[str, Value]]:
    """Products shifted right to the largest exponent (kept as ``exponent``) of those that are not zero."""
    fraction_bits = unit.weight.mantissa_bits + unit.activation.mantissa_bits
    products, exponents = _take(live, "product"), _take(live, "exponent")
    for lane, (value, exponent) in enumerate(zip(products, exponents, strict=True)):
        live[f"product{lane}"] = value
        live[f"exponent{lane}"] = exponents[lane] = named(m, Mux(value.any(), exponent, 0), "exponent")
    live = stages.cut("exponent", live | {"exponent": largest(m, exponents)})
    aligned = []
    for value, exponent in zip(_take(live, "product"), _take(live, "exponent"), strict=True):
        placed = Cat(C(0, max(window - fraction_bits, 0)), value[max(fraction_bits - window, 0) :])
        distance = named(m, live["exponent"] - exponent, "distance")[: len(exponent)]
        aligned.append(shift_right(m, placed, saturate(m, distance, len(placed))))
    return aligned, live


def _accumulate_integers(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
) -> tuple[Value, Value]:
    """(what the accumulator takes, the flag of a new sum): one more row of the tree, unless a cut lies between."""
    bits = unit.held.bits
    before = live.pop("before")
    split = "tree" in stages.taken
    columns, live = _columns(m, unit, stages, pairs, live, adder, None if split else bits)
    if split:
        live = stages.cut("tree", live | {"sum": columns.total(m, adder)})
        columns = Columns(bits)
        is_signed = unit.weight.kind != "uint"
        (columns.add_signed if is_signed else columns.add_unsigned)(live["sum"])
    first = live.get("first", C(0, 1))
    columns.add_unsigned(_kept(m, before, first))
    return columns.total(m, adder), first


def _kept(m: Module, before: Value, first: Value) -> Value:
    """The sum so far, zero where a new one begins."""
    return named(m, before & ~first.replicate(len(before)), "before")


def _scale(m: Module, unit: DotUnit, a: Value, w: Value, adder: FullAdder) -> dict[str, Value]:
    """Exponent and, of floating-point scales, significand of the product of two scales."""
    if unit.scale == "e8m0":
        return {"scale_exponent": named(m, a + w, "scale_exponent")}
    element = element_format(unit.scale or "").element
    _, a_significand, a_exponent = _operand(element, a)
    _, w_significand, w_exponent = _operand(element, w)
    return {
        "scale_exponent": named(m, a_exponent + w_exponent, "scale_exponent"),
        "scale_product": product(m, a_significand, w_significand, adder),
    }


def _accumulate_float(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
) -> tuple[Value, Value]:
    """(what the accumulator takes, the flag of a new sum): the sum of the lanes, scaled, and one rounding."""
    to = unit.held.float_format
    assert to is not None
    before = live.pop("before")
    exponent = unit.weight.quantum_exponent + unit.activation.quantum_exponent
    if unit.lanes == 1 and not unit.is_integer:
        live = stages.cut("multiply", _float_products(m, unit, pairs, live, adder))
        sign, magnitude, own = (live.pop(f"{name}0") for name in ("sign", "product", "exponent"))
        exponent -= 2
    else:
        columns, live = _columns(m, unit, stages, pairs, live, adder)
        live = stages.cut("tree", live | {"sum": columns.total(m, adder)})
        total = live.pop("sum")
        sign = total[-1] if unit.weight.kind != "uint" else C(0, 1)
        magnitude = named(m, Mux(sign, -total, total), "magnitude")[: len(total)]
        own = live.pop("exponent", C(0, 0))
        if unit.align_window is not None:
            fraction_bits = unit.weight.mantissa_bits + unit.activation.mantissa_bits
            exponent += fraction_bits - unit.align_window - 2
    if unit.scale:
        own = named(m, own + live["scale_exponent"], "exponent")
        if unit.scale == "e8m0":
            exponent -= 2 * EXPONENT_BIAS
        else:
            element = element_format(unit.scale).element
            exponent += 2 * (element.quantum_exponent - 1)
            magnitude = product(m, magnitude, live["scale_product"], adder)
    first = live.get("first", C(0, 1))
    return fused_add(m, to, _kept(m, before, first), sign, magnitude, own, exponent), first
