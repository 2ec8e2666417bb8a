"""The hardware of a unit, in Amaranth.

Ports, sampled at the rising edge of ``clk``; there is no reset::

    a, w             words of operand codes, lane 0 lowest (`dot_words`)
    a_layout, w_layout  in which layout, where the side's words have several
    bias             by how much the exponents of these formats differ from those of the smallest, where they do
    a_scale, w_scale codes of the blocks' scales, where scales are applied inside; narrower integers stand left
    drop             by how much more than the least a product of integer scales is rounded off, where that differs
    first            the products of this cycle begin a new sum
    ends             they are the last of their blocks, where a second level of accumulators applies the scales
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

from collections.abc import Iterable, Mapping
from typing import Any

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.formats.element import EXPONENT_BIAS
from simulator.rtl.cells import FullAdder
from simulator.rtl.fast_add import add_normalised, normalise, reaches_subnormals
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, largest, named, product, saturate, shift_left, shift_right
from simulator.rtl.units.dot import DotUnit
from simulator.rtl.units.dot_decode import Operand, add_product, decode, signed_product
from simulator.rtl.units.dot_two_level import SecondLevel, fused_sum
from simulator.rtl.units.dot_words import Word

Pairs = list[tuple[Operand, Operand]]
"""Activation and weight, lane by lane."""


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
        of_w, of_a = unit.words
        self.a = Signal(unit.lanes * of_a.bits)
        self.w = Signal(unit.lanes * of_w.bits)
        self.a_layout = Signal((len(of_a.layouts) - 1).bit_length())
        self.w_layout = Signal((len(of_w.layouts) - 1).bit_length())
        self.bias = Signal(unit.bias_bits)
        self.drop = Signal(unit.drop_bits)
        self.first = Signal()
        self.load = Signal()
        self.swap = Signal()
        self.partial = Signal(unit.held.bits)
        self._domain = ClockDomain("sync", reset_less=True)
        self.ends = Signal()
        self.out = Signal(unit.outgoing.bits)
        self.a_scale = Signal(unit.scale_bits)
        self.w_scale = Signal(unit.scale_bits)

    @property
    def ports(self) -> list[Signal]:
        settings = (self.a_layout, self.w_layout, self.bias, self.drop, self.a_scale, self.w_scale)
        ports = [self._domain.clk, self.a, self.w, self.out, *filter(len, settings)]
        if self.unit.stationary == "outputs":
            return [*ports, self.first, *([self.ends] if self.unit.ends_groups else [])]
        return [*ports, self.load, self.partial, *([self.swap] if self.unit.doubled else [])]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        stages = _Stages(m, self.unit.cut_places[: self.unit.cuts])
        streams = self.unit.stationary == "outputs"
        live: dict[str, Value] = {"first": stages.register(self.first, "first_q")} if streams else {}
        if self.unit.ends_groups:
            live["ends"] = stages.register(self.ends, "ends_q")
        if self.unit.scale:
            live |= _scale(
                m,
                self.unit,
                stages.register(self.a_scale, "a_scale_q"),
                stages.register(self.w_scale, "w_scale_q"),
                self._adder,
            )
        live |= {
            port.name: stages.register(port, f"{port.name}_q") for port in (self.bias, self.drop) if len(port)
        }
        of_w, of_a = self.unit.words
        a = self._decoded(m, stages, of_a, self._operand(m, stages, self.a, "activations"), self.a_layout)
        w = self._decoded(m, stages, of_w, self._operand(m, stages, self.w, "weights"), self.w_layout)
        pairs = list(zip(a, w, strict=True))
        held = Signal(self.unit.held.bits, name="accumulator", reset_less=True)
        live["before"] = held if streams else self.partial
        level = SecondLevel(m, stages, self.unit, held, self._adder) if self.unit.promote_every else None
        if self.unit.is_floating_sum:
            total, live = _accumulate_float(
                m, self.unit, stages, pairs, live, self._adder, level, fast=self.fast
            )
        else:
            total, live = _accumulate_integers(m, self.unit, stages, pairs, live, self._adder, fast=self.fast)
        m.d.sync += held.eq(total)
        m.d.comb += self.out.eq(held)
        if level is not None:
            m.d.comb += self.out.eq(level.finished(live.pop("first"), live.pop("ends", C(0, 1)), live))
        elif streams and self.unit.doubled:
            finished = Signal(len(held), reset_less=True)
            m.d.sync += finished.eq(Mux(live["first"], held, finished))
            m.d.comb += self.out.eq(finished)
        return m

    def _decoded(self, m: Module, stages: _Stages, word: Word, held: Value, port: Signal) -> list[Operand]:
        """The lanes of a side."""
        flags: list[Value] = []
        if word.is_mixed:
            layout = stages.register(port, f"{port.name}_q")
            flags = [named(m, layout == index, "is_layout") for index in range(1, len(word.layouts))]
        bits = len(held) // self.unit.lanes
        return [decode(m, word, held.word_select(lane, bits), flags) for lane in range(self.unit.lanes)]

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


def _take(live: dict[str, Value], name: str) -> list[Value]:
    """The lanes' values of a name, which are live no longer."""
    lanes: list[Value] = []
    while f"{name}{len(lanes)}" in live:
        lanes.append(live.pop(f"{name}{len(lanes)}"))
    return lanes


def _lanes(name: str, values: Iterable[Value]) -> dict[str, Value]:
    return {f"{name}{lane}": value for lane, value in enumerate(values)}


def _float_products(
    m: Module, unit: DotUnit, stages: _Stages, pairs: Pairs, live: dict[str, Value], adder: FullAdder
) -> dict[str, Value]:
    """With sign, product of significands and sum of exponent fields of every lane; for a window also their largest
    ``exponent``, where products of zero have none."""
    exponents = []
    for lane, (a, w) in enumerate(pairs):
        sign, value = signed_product(m, a, w, unit.product_bits, adder)
        fields = [operand.field for operand in (a, w) if operand.field is not None]
        exponent = named(m, sum(fields[1:], fields[0]), "exponent")
        if unit.align_window is not None:
            exponent = named(m, Mux(a.value.any() & w.value.any(), exponent, 0), "exponent")
        exponents.append(exponent)
        live |= {f"sign{lane}": sign, f"product{lane}": value}
    live = stages.cut("multiply", live | _lanes("exponent", exponents))
    if unit.align_window is None:
        return live
    return stages.cut(
        "exponent", live | {"exponent": largest(m, [live[f"exponent{i}"] for i in range(unit.lanes)])}
    )


def _lowest_exponent(unit: DotUnit) -> int:
    """Smallest sum of exponent fields: one of each side that has them."""
    return sum(word.exponent_bits > 0 for word in unit.words)


def _columns(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
    width: int,
    *,
    fast: bool,
) -> tuple[Columns, dict[str, Value]]:
    """The lanes' products, aligned, as one tree of ``width`` bits."""
    if not unit.is_aligned:
        return _integer_columns(m, unit, stages, pairs, live, adder, width, fast=fast)
    live = _aligned_products(m, unit, stages, pairs, live, adder)
    columns = Columns(width)
    for sign, value in zip(_take(live, "sign"), _take(live, "aligned"), strict=True):
        columns.add_signed_magnitude(sign, value)
    return columns, live


def _aligned_products(
    m: Module, unit: DotUnit, stages: _Stages, pairs: Pairs, live: dict[str, Value], adder: FullAdder
) -> dict[str, Value]:
    """With sign and aligned magnitude of every lane."""
    live = _float_products(m, unit, stages, pairs, live, adder)
    aligned = _in_fixed_point(m, unit, live) if unit.align_window is None else _align(m, unit, live)
    return stages.cut("align", live | _lanes("aligned", aligned))


def _integer_columns(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
    width: int,
    *,
    fast: bool,
) -> tuple[Columns, dict[str, Value]]:
    """All partial products in one tree, or, cut behind the multipliers, their products."""
    columns = Columns(width)
    if "multiply" not in stages.taken:
        for a, w in pairs:
            add_product(m, columns, a, w, unit.words)
        return columns, live
    products = [Columns(unit.product_bits + unit.is_signed) for _ in pairs]
    for of_lane, (a, w) in zip(products, pairs, strict=True):
        add_product(m, of_lane, a, w, unit.words)
    totals = [of_lane.total(m, adder, fast=fast) for of_lane in products]
    live = stages.cut("multiply", live | _lanes("product", totals))
    for value in _take(live, "product"):
        (columns.add_signed if unit.is_signed else columns.add_unsigned)(value)
    return columns, live


def _summed(
    m: Module, stages: _Stages, columns: Columns, live: dict[str, Value], adder: FullAdder, *, fast: bool
) -> dict[str, Value]:
    """With the tree's ``sum``."""
    if "compress" in stages.taken:
        rows = columns.rows(m, adder)
        live = stages.cut("compress", live | _lanes("row", rows))
        columns = Columns(columns.width)
        for row in _take(live, "row"):
            columns.add_unsigned(row)
    return stages.cut("tree", live | {"sum": columns.total(m, adder, fast=fast)})


def _in_fixed_point(m: Module, unit: DotUnit, live: dict[str, Value]) -> list[Value]:
    """Products in units of the smallest."""
    lowest = _lowest_exponent(unit)
    return [
        shift_left(m, value, named(m, exponent - lowest, "shift")[: len(exponent)], unit.term_bits)
        for value, exponent in zip(_take(live, "product"), _take(live, "exponent"), strict=True)
    ]


def _align(m: Module, unit: DotUnit, live: dict[str, Value]) -> list[Value]:
    """Products shifted right to the largest exponent."""
    assert unit.align_window is not None
    more = unit.align_window - unit.fraction_bits
    aligned = []
    for value, exponent in zip(_take(live, "product"), _take(live, "exponent"), strict=True):
        placed = Cat(C(0, max(more, 0)), value[max(-more, 0) :])
        distance = named(m, live["exponent"] - exponent, "distance")[: len(exponent)]
        aligned.append(shift_right(m, placed, saturate(m, distance, len(placed))))
    return aligned


def _accumulate_integers(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
    *,
    fast: bool,
) -> tuple[Value, dict[str, Value]]:
    """(what the accumulator takes, what else is live): one more row of the tree, unless a cut or a multiplication
    by scales lies between."""
    bits = unit.held.bits
    before = live.pop("before")
    split = unit.scale is not None or not {"compress", "tree"}.isdisjoint(stages.taken)
    width = unit.sum_bits if split else bits
    columns, live = _columns(m, unit, stages, pairs, live, adder, width, fast=fast)
    if split:
        live = _summed(m, stages, columns, live, adder, fast=fast)
        if unit.scale is not None:
            live = stages.cut("scale", live | {"sum": _scaled_integer(m, unit, live, adder, fast=fast)})
        columns = Columns(bits)
        (columns.add_signed if unit.is_signed else columns.add_unsigned)(live["sum"])
    columns.add_unsigned(_kept(m, before, live.get("first", C(0, 1))))
    return columns.total(m, adder, fast=fast), live


def _scaled_integer(
    m: Module, unit: DotUnit, live: dict[str, Value], adder: FullAdder, *, fast: bool
) -> Value:
    """The lanes' sum times the rounded product of the scales, which is worth what was rounded off."""
    total, scale = live.pop("sum"), live.pop("scale_product")
    columns = Columns(len(total) + len(scale))
    columns.add_product(scale, total, a_signed=False, b_signed=unit.is_signed)
    scaled = Cat(C(0, unit.dropped_bits[0]), columns.total(m, adder, fast=fast))
    if not unit.drop_bits:
        return scaled
    drop = live.pop("drop")
    wide = len(scaled) + (1 << unit.drop_bits) - 1
    top = scaled[-1] if unit.is_signed else C(0, 1)
    return shift_left(m, Cat(scaled, top.replicate(wide - len(scaled))), drop, wide)


def _kept(m: Module, before: Value, first: Value) -> Value:
    """The sum so far, zero where a new one begins."""
    return named(m, before & ~first.replicate(len(before)), "before")


def _scale(m: Module, unit: DotUnit, a: Value, w: Value, adder: FullAdder) -> dict[str, Value]:
    """Exponent, significand or integer of the product of two scales."""
    element = unit.scale_element((unit.scale or "").split("+")[0])
    if element.kind == "exponent":
        return {"scale_exponent": named(m, a + w, "scale_exponent")}
    if element.is_integer:
        return {"scale_product": _rounded(m, unit, product(m, a, w, adder))}
    a_scale, w_scale = (decode(m, Word((element,), "floating"), code, ()) for code in (a, w))
    assert a_scale.field is not None
    return {
        "scale_exponent": named(m, a_scale.field + w_scale.field, "scale_exponent"),
        "scale_product": product(m, a_scale.value, w_scale.value, adder),
    }


def _rounded(m: Module, unit: DotUnit, value: Value) -> Value:
    """A product of integer scales, of which narrow ones stand left, in the bits that are kept of the widest's: to
    nearest, ties to even."""
    drop = unit.dropped_bits[-1]
    if not drop:
        return value
    kept, guard, below = value[drop:], value[drop - 1], value[: drop - 1]
    up = guard & (kept[0] | below.any())
    largest_scale = (1 << unit.scale_bits) - 1
    carries = round(largest_scale**2 / (1 << drop)) >> len(kept)
    return named(m, kept + up, "scale_product")[: len(kept) + carries]


def _accumulate_float(
    m: Module,
    unit: DotUnit,
    stages: _Stages,
    pairs: Pairs,
    live: dict[str, Value],
    adder: FullAdder,
    level: SecondLevel | None,
    *,
    fast: bool,
) -> tuple[Value, dict[str, Value]]:
    """(what the accumulator takes, what else is live): the sum of the lanes, scaled unless that is left to the second
    level, and one rounding."""
    to = unit.held.float_format
    assert to is not None
    before = live.pop("before")
    if unit.fused:
        live = _aligned_products(m, unit, stages, pairs, live, adder)
        fresh = level.fresh(live["first"]) if level else live["first"]
        signs, aligned = _take(live, "sign"), _take(live, "aligned")
        largest_exponent, bias = live.pop("exponent"), live.pop("bias", C(0, 0))
        kept = _kept(m, before, fresh)
        return fused_sum(m, unit, kept, signs, aligned, largest_exponent, bias, adder), live
    exponent = unit.exponent
    own: Value = C(0, 0)
    if unit.lanes == 1 and unit.is_aligned:
        live = _float_products(m, unit, stages, pairs, live, adder)
        sign, magnitude, own = (live.pop(f"{name}0") for name in ("sign", "product", "exponent"))
        exponent -= _lowest_exponent(unit)
    else:
        columns, live = _columns(m, unit, stages, pairs, live, adder, unit.sum_bits, fast=fast)
        live = _summed(m, stages, columns, live, adder, fast=fast)
        total = live.pop("sum")
        sign = total[-1] if unit.is_signed else C(0, 1)
        magnitude = named(m, Mux(sign, -total, total), "magnitude")[: len(total)]
        if unit.align_window is not None:
            own = live.pop("exponent")
            exponent += unit.fraction_bits - unit.align_window - _lowest_exponent(unit)
    if "bias" in live:
        own = named(m, own + live.pop("bias"), "exponent")
    if unit.scale and level is None:
        own = named(m, own + live.pop("scale_exponent"), "exponent")
        element = unit.scale_element(unit.scale)
        if element.kind == "exponent":
            exponent -= 2 * EXPONENT_BIAS
        else:
            exponent += 2 * (element.quantum_exponent - 1)
            live = stages.cut(
                "scale",
                {
                    "sign": sign,
                    "exponent": own,
                    "magnitude": product(m, magnitude, live.pop("scale_product"), adder, fast=fast),
                }
                | live,
            )
            sign, own, magnitude = (live.pop(name) for name in ("sign", "exponent", "magnitude"))
    if not fast and "normalise" not in stages.taken:
        first = live.get("first", C(0, 1))
        before = _kept(m, before, level.fresh(first) if level else first)
        return fused_add(m, to, before, sign, magnitude, own, exponent), live
    sign, size, field = normalise(m, to, sign, magnitude, own, exponent)
    live = stages.cut("normalise", live | {"sign": sign, "size": size, "field": field})
    sign, size, field = (live.pop(name) for name in ("sign", "size", "field"))
    first = live.get("first", C(0, 1))
    fresh = level.fresh(first) if level else first
    subnormals = reaches_subnormals(to, exponent)
    return add_normalised(m, to, before, fresh, sign, size, field, subnormals=subnormals), live
