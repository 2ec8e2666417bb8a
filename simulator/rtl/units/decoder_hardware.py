"""Decoders in Amaranth; see `simulator.rtl.units.decoder`.

Ports, sampled at the rising edge of ``clk``::

    value      the code in memory, in its lowest bits
    load       value begins a group: what belongs to the group is taken into its registers
    mode       which of the elements value is (set for a whole layer, not registered here)
    out        the decoded code, `DecoderUnit.latency` cycles after its value

two_level: ``scale``, ``offset`` (minus zero point times scale). shift_cast: ``distance`` of the group's power of two
from its row's; ``scaled``: it is applied. dequantize: ``zero``, ``selector`` of value tables, ``scale``.

figna, whose tree of comparators lies between the lanes: ``largest`` exponent of the group and the two inputs ``left``
and ``right`` of one node of the tree, a cycle after the value; ``larger``, the node's output, and ``exponent``, the
value's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value, signed

from simulator.formats.element import EXPONENT_BIAS, Element
from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Columns, named, saturate, shift_right
from simulator.rtl.rounding import encode_float
from simulator.rtl.staged_add import Ranks, unpacked
from simulator.rtl.units.decoder import DecoderUnit


class DecoderModule(Elaboratable):  # type: ignore[misc]
    """Ports and registers of a decoder; ``decoded`` is between them."""

    def __init__(self, unit: DecoderUnit, adder: FullAdder, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self.adder = adder
        self._domain = ClockDomain("sync", reset_less=True)
        self.inputs = {name: Signal(width, name=name) for name, width in unit.widths.items()}
        self.out = Signal(unit.after.bits)

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, *self.inputs.values(), self.out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        ranks = Ranks(m, self.unit.cut_places[: self.unit.cuts], fast=self.fast)
        value = ranks.register(self.inputs["value"], "value_q")
        m.d.comb += self.out.eq(ranks.register(self.decoded(m, ranks, value), "result"))
        return m

    def decoded(self, m: Module, ranks: Ranks, value: Value) -> Value:
        raise NotImplementedError

    def of_group(self, ranks: Ranks, name: str) -> Value:
        """What belongs to the group of the value in its register."""
        return ranks.loaded(self.inputs["load"], self.inputs[name], f"{name}_q")

    def by_mode(self, m: Module, choices: Sequence[Value], name: str) -> Value:
        """The choice of the element that ``mode`` names."""
        mode = self.inputs.get("mode", C(0, 1))
        anything_signed = any(choice.shape().signed for choice in choices)
        wide = max(len(choice) + (anything_signed and not choice.shape().signed) for choice in choices)
        chosen = Signal(signed(wide) if anything_signed else wide, name=name)
        with m.Switch(mode):
            for number, choice in enumerate(choices):
                with m.Case(number):
                    m.d.comb += chosen.eq(choice)
        return chosen


class TwoLevelModule(DecoderModule):
    """(value * scale + offset) modulo the target's width, all in one tree."""

    def decoded(self, m: Module, ranks: Ranks, value: Value) -> Value:
        scale, offset = (self.of_group(ranks, name) for name in ("scale", "offset"))
        integers = [_integer(element, value) for element in self.unit.elements]
        number = self.by_mode(m, integers, "number")
        columns = Columns(self.unit.after.bits)
        columns.add_product(number, scale, a_signed=number.shape().signed, b_signed=False)
        columns.add_unsigned(offset)
        return ranks.total(columns, self.adder)


class ShiftCastModule(DecoderModule):
    """Bits that move; where power-of-two scales are applied, rounding to the target's subnormals."""

    def decoded(self, m: Module, ranks: Ranks, value: Value) -> Value:
        distance = self.of_group(ranks, "distance")
        target = self.unit.after
        moved = [_moved(element, target, value) for element in self.unit.elements]
        scalable = [element for element in self.unit.elements if element != target]
        if not scalable:
            return self.by_mode(m, moved, "moved")
        floats = [_float(m, e, value, scalable) for e in scalable]
        modes = [floats[scalable.index(e)] if e in scalable else floats[0] for e in self.unit.elements]
        sign, magnitude, own = (
            self.by_mode(m, [mode[place] for mode in modes], name)
            for place, name in enumerate(("sign", "magnitude", "own"))
        )
        base = min(_quantum(element) for element in scalable)
        down = named(m, own - distance, "down")
        scaled = encode_float(m, ranks, target, sign, magnitude, down, base)
        is_target = self.by_mode(m, [C(e == target, 1) for e in self.unit.elements], "is_target")
        return Mux(self.inputs["scaled"] & ~is_target, scaled, self.by_mode(m, moved, "moved"))


class DequantizeModule(DecoderModule):
    """Sign, magnitude and exponent of any element, times the group's scale, rounded to the target."""

    def decoded(self, m: Module, ranks: Ranks, value: Value) -> Value:
        unit = self.unit
        elements = unit.elements
        zero = self.of_group(ranks, "zero") if "zero" in self.inputs else C(0, 1)
        selector = self.of_group(ranks, "selector") if "selector" in self.inputs else C(0, 1)
        read: list[tuple[Value, Value, Value]] = []
        others = [element for element in elements if element != unit.after]
        if any(element.is_integer for element in others):
            integers = [_integer(e, value) if e.is_integer else C(0, 1) for e in elements]
            chosen = self.by_mode(m, integers, "integer")
            difference = named(m, chosen - zero.as_signed(), "difference")
            magnitude = named(m, Mux(difference[-1], -difference, difference)[: unit.zero_bits], "magnitude")
            integer = (difference[-1], magnitude)
        for element in elements:
            if element == unit.after:
                read.append((C(0, 1), C(0, 1), C(0, 1)))
            elif element.is_integer:
                offset = element.step_exponent - self.base
                read.append((*integer, C(offset, max(offset.bit_length(), 1))))
            elif element.kind == "table":
                read.append(_table(m, element, value, selector, self.base))
            else:
                read.append(_float(m, element, value, others))
        sign, magnitude, own = (
            self.by_mode(m, [parts[place] for parts in read], name)
            for place, name in enumerate(("sign", "magnitude", "own"))
        )
        live: dict[str, Value] = {"sign": sign, "magnitude": magnitude, "own": own}
        passes = unit.after in elements
        if passes:
            live |= {"code": value}
        exponent = self.base
        if unit.option:
            scale, field = _scale(m, self.of_group(ranks, "scale"), unit.option)
            live |= {"scale": scale, "field": field}
        live = ranks.cut("operand", live)
        if unit.option:
            live["magnitude"] = ranks.product(live["magnitude"], live.pop("scale"), self.adder)
            live["own"] = named(m, live["own"] + live.pop("field"), "exponent")
            exponent -= EXPONENT_BIAS + unit.option - 1
        live = ranks.cut("product", live)
        code = live.pop("code", None)
        encoded = encode_float(m, ranks, unit.after, live["sign"], live["magnitude"], live["own"], exponent)
        if code is None:
            return encoded
        code = ranks.cut("normalise", {"code": code})["code"]
        is_target = self.by_mode(m, [C(e == unit.after, 1) for e in elements], "is_target")
        return Mux(is_target, code[: unit.after.bits], encoded)

    @property
    def base(self) -> int:
        """The smallest exponent of a unit of any element's magnitude."""
        return min((_quantum(e) for e in self.unit.elements if e != self.unit.after), default=0)


class FignaModule(DecoderModule):
    """One lane of the aligner and one node of the tree that finds the largest exponent."""

    def __init__(self, unit: DecoderUnit, adder: FullAdder, *, fast: bool = False) -> None:
        super().__init__(unit, adder, fast=fast)
        self.larger = Signal(len(self.inputs["left"]))
        self.exponent = Signal(len(self.inputs["left"]))

    @property
    def ports(self) -> list[Signal]:
        return [*super().ports, self.larger, self.exponent]

    def decoded(self, m: Module, ranks: Ranks, value: Value) -> Value:
        left, right, top = (self.inputs[name] for name in ("left", "right", "largest"))
        m.d.comb += self.larger.eq(Mux(left > right, left, right))
        (element,) = self.unit.elements
        significand, field = unpacked(m, value, element.mantissa_bits + 1)
        m.d.comb += self.exponent.eq(field)
        placed = Cat(C(0, self.unit.option), significand)
        distance = named(m, (top - field)[: len(top)], "distance")
        return Cat(shift_right(m, placed, saturate(m, distance, len(placed))), value[-1])


MODULES = {
    "two_level": TwoLevelModule,
    "shift_cast": ShiftCastModule,
    "dequantize": DequantizeModule,
    "figna": FignaModule,
}


def decoder_module(unit: DecoderUnit, adder: FullAdder, *, fast: bool) -> DecoderModule:
    return MODULES[unit.family](unit, adder, fast=fast)


def _integer(element: Element, value: Value) -> Value:
    own = value[: element.bits]
    return own.as_signed() if element.kind == "int" else own


def _quantum(element: Element) -> int:
    """Exponent of the unit of a magnitude, of floats that of the numbers with exponent field 0."""
    return element.quantum_exponent - 1 if element.kind == "float" else element.step_exponent


def _float(
    m: Module, element: Element, value: Value, others: Sequence[Element]
) -> tuple[Value, Value, Value]:
    """(sign, significand, exponent above the smallest unit of all ``others``) of a float."""
    code = value[: element.bits]
    significand, field = unpacked(m, code, element.mantissa_bits + 1)
    return code[-1], significand, field + (_quantum(element) - min(map(_quantum, others)))


def _table(
    m: Module, element: Element, value: Value, selector: Value, base: int
) -> tuple[Value, Value, Value]:
    """(sign, magnitude, exponent above ``base``) of a code in the table that the selector names."""
    bits = max(abs(entry) for table in element.tables for entry in table).bit_length()
    sign, magnitude = Signal(name="table_sign"), Signal(bits, name="table_magnitude")
    with m.Switch(Cat(value[: element.bits], selector)):
        for number, table in enumerate(element.tables):
            for code, entry in enumerate(table):
                with m.Case(code | number << element.bits):
                    m.d.comb += [sign.eq(int(entry < 0)), magnitude.eq(abs(entry))]
    offset = element.step_exponent - base
    return sign, magnitude, C(offset, max(offset.bit_length(), 1))


def _moved(element: Element, target: Element, value: Value) -> Value:
    """Sign, exponent and mantissa in the bits of the target that they have in common."""
    code = value[: element.bits]
    if element == target:
        return code
    below = target.mantissa_bits - element.mantissa_bits
    above = target.bits - 1 - below - (element.bits - 1)
    return Cat(C(0, below), code[:-1], C(0, above), code[-1])


def _scale(m: Module, code: Value, bits: int) -> tuple[Value, Value]:
    """(significand, exponent field of at least 1) of a scale."""
    field = code[bits - 1 :]
    normal = named(m, field.any(), "normal")
    return Cat(code[: bits - 1], normal), named(m, Cat(field[0] | ~normal, field[1:]), "field")
