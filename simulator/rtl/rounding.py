"""Rounding to a narrow float, as encoders of formats do it."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Value, signed

from simulator.formats.element import Element
from simulator.rtl.parts import leading_zeros, named, saturate, shift_left, shift_right
from simulator.rtl.staged_add import Ranks


def encode_float(
    m: Module, ranks: Ranks, element: Element, sign: Value, magnitude: Value, own: Value, exponent: int
) -> Value:
    """The code of (-1)**sign * magnitude * 2**(own + exponent), rounded to nearest even; too large saturates.

    The magnitude is normalised and, below the normal numbers, shifted back; the place "normalise" lies between.
    """
    precision = element.mantissa_bits + 1
    missing = max(precision + 1 - len(magnitude), 0)
    if missing:
        magnitude, exponent = named(m, Cat(C(0, missing), magnitude), "magnitude"), exponent - missing
    length = len(magnitude)
    leading = leading_zeros(m, magnitude)
    # The exponent field of a number whose leading one is the top bit, if it is a normal one.
    reach = exponent + length - element.emin
    live = ranks.cut(
        "normalise",
        {
            "sign": sign,
            "size": shift_left(m, magnitude, leading[: (length - 1).bit_length()], length),
            "field": named(m, own + C(reach, signed(reach.bit_length() + 1)) - leading, "field"),
        },
    )
    field = live["field"]
    lacking = named(m, Mux(field < 1, 1 - field, 0), "lacking")[: len(field)]
    placed = shift_right(m, live["size"], saturate(m, lacking, length), sticky=True)
    kept, guard, rest = placed[-precision:], placed[-precision - 1], placed[: -precision - 1]
    up = guard & (kept[0] | rest.any())
    code = ranks.increment(named(m, Cat(kept[:-1], Mux(kept[-1], field[:-1], 0)), "unrounded"), up)
    over = named(m, code > element.max_code, "over")
    return Cat(Mux(over, element.max_code, code)[: element.bits - 1], live["sign"])
