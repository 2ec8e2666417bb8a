"""Words of a PE's two sides in Amaranth: what the multipliers take of them, and their products (see `dot_words`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import C, Cat, Module, Mux, Value

from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Columns, named, product, shift_left
from simulator.rtl.units.dot_words import Layout, Word


@dataclass(frozen=True)
class Operand:
    """What a word decodes to."""

    value: Value
    """The integer, the magnitude, or the significand."""
    sign: Value | None = None
    """Of a magnitude or significand."""
    field: Value | None = None
    """Exponent field, at least 1; None where the side has none."""


def decode(m: Module, word: Word, code: Value, is_layout: Sequence[Value]) -> Operand:
    """``is_layout``: for each layout but the first of several, whether it is the one in use."""
    if word.form in ("signed", "unsigned"):
        return Operand(code)
    sign = code[-1]
    if all(layout.kind == "uint" for layout in word.layouts):
        sign = C(0, 1)
    floats = [layout for layout in word.layouts if layout.kind == "float"]
    integers = [layout for layout in word.layouts if layout.kind != "float"]
    values: list[Value] = []
    field: Value | None = None
    if floats:
        value, field = _float(m, word, code, floats, is_layout[: len(floats) - 1])
        if word.form == "magnitude":
            value = shift_left(m, value, named(m, field - 1, "shift")[: len(field)], word.significand_bits)
        values.append(value)
    values += [_integer(m, word, code, sign, layout) for layout in integers]
    among = is_layout[len(is_layout) + 1 - len(values) :]
    value = _choose(m, [_extended(each, word.significand_bits) for each in values], among)
    if word.form == "magnitude" or field is None:
        return Operand(value, sign)
    for is_integer in among:
        field = Mux(is_integer, C(1, len(field)), field)
    return Operand(value, sign, named(m, field, "field"))


def _float(
    m: Module, word: Word, code: Value, layouts: Sequence[Layout], is_layout: Sequence[Value]
) -> tuple[Value, Value]:
    """(significand, exponent field of at least 1)."""
    widest = max(layout.exponent_bits for layout in layouts)
    below = word.fraction_bits if word.form == "floating" else word.float_fraction_bits
    exponents, fractions = [], []
    for layout in layouts:
        top = layout.fraction_bits + layout.exponent_bits
        exponents.append(_extended(code[layout.fraction_bits : top], widest))
        fractions.append(Cat(C(0, below - layout.fraction_bits), code[: layout.fraction_bits]))
    exponent = _choose(m, exponents, is_layout)
    normal = named(m, exponent.any(), "normal")
    significand = Cat(_choose(m, fractions, is_layout), normal)
    return significand, Cat(exponent[0] | ~normal, exponent[1:])


def _integer(m: Module, word: Word, code: Value, sign: Value, layout: Layout) -> Value:
    """Its magnitude; beside floats with the leading one of the largest where theirs is."""
    bits = code[: layout.magnitude_bits]
    if layout.kind == "int":
        bits = named(m, (bits ^ sign.replicate(len(bits))) + sign, "magnitude")[: len(bits)]
    zeros = word.fraction_bits - layout.fraction_bits if word.form == "floating" else 0
    return Cat(C(0, zeros), bits)


def _extended(value: Value, bits: int) -> Value:
    return Cat(value, C(0, bits - len(value)))


def _choose(m: Module, values: Sequence[Value], is_later: Sequence[Value]) -> Value:
    """The first value, or the one that is flagged."""
    chosen = values[0]
    for flag, value in zip(is_later, values[1:], strict=True):
        chosen = Mux(flag, value, chosen)
    return named(m, chosen, "operand") if is_later else chosen


def signed_product(m: Module, a: Operand, w: Operand, bits: int, adder: FullAdder) -> tuple[Value, Value]:
    """(sign, magnitude in ``bits``) of a product of magnitudes or significands."""
    assert a.sign is not None
    assert w.sign is not None
    return named(m, a.sign ^ w.sign, "sign"), product(m, a.value, w.value, adder)[:bits]


def add_product(m: Module, columns: Columns, a: Operand, w: Operand, words: tuple[Word, Word]) -> None:
    """The product of integers as rows of a tree. Of sign and magnitude the sign goes to the other factor, inverted and
    with one more row for what inversion lacks: -x = ~x + 1."""
    of_w, of_a = words
    if a.sign is None and w.sign is None:
        columns.add_product(a.value, w.value, a_signed=of_a.form == "signed", b_signed=of_w.form == "signed")
        return
    if a.sign is None:
        a, w, of_a, of_w = w, a, of_w, of_a
    assert a.sign is not None
    sign = a.sign if w.sign is None else a.sign ^ w.sign
    sign = named(m, sign, "sign")
    turned = w.value ^ sign.replicate(len(w.value))
    if of_w.form != "signed":
        turned = Cat(turned, sign)
    columns.add_product(a.value, named(m, turned, "turned"), a_signed=False, b_signed=True)
    columns.add_unsigned(a.value & sign.replicate(len(a.value)))
