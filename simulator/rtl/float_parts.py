"""Multiplying and adding two floats of one format, each with one rounding to nearest even.

Subnormal operands and results are exact, as in `fused_add`. Infinities, NaN and overflow are not handled: every code is
a finite number, and results must be too. A zero that is the difference of equal numbers is positive.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Value

from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import ceil_log2, leading_zeros, named, product, saturate, shift_left, shift_right


def multiply_floats(
    m: Module, exponent_bits: int, precision: int, a: Value, b: Value, adder: FullAdder
) -> Value:
    """The code of a * b. The product of the significands is normalised, or, below the normal numbers, moved to the
    place of the subnormal ones: left by an operand's missing leading one, right by what the exponent lacks."""
    (a_significand, a_exponent), (b_significand, b_exponent) = (_operand(m, x, precision) for x in (a, b))
    whole = product(m, a_significand, b_significand, adder)
    bias = (1 << (exponent_bits - 1)) - 1
    # Field of the result whose leading one is the top bit of the product.
    top = named(m, a_exponent + b_exponent - (bias - 1), "top")
    low = named(m, top < 1, "low")
    room = named(m, Mux(low, 0, (top - 1)[: len(top) - 1]), "room")
    zeros = leading_zeros(m, whole)
    left = named(m, Mux(room < zeros, room[: len(zeros)], zeros), "left")
    normalised = shift_left(m, whole, left[: ceil_log2(len(whole))], len(whole))
    kept = Cat(normalised[: precision - 1].any(), normalised[precision - 1 :])
    lacking = named(m, Mux(low, (1 - top)[: len(top) - 1], 0), "lacking")
    placed = shift_right(m, kept, saturate(m, lacking, len(kept)), sticky=True)
    # From the top: significand, guard, and two bits that only say whether anything is below.
    significand, guard = placed[3:], placed[2]
    up = guard & (significand[0] | placed[:2].any())
    field = Mux(significand[-1], (top - left)[:exponent_bits], 0)
    return Cat(named(m, Cat(significand[:-1], field) + up, "code")[: len(a) - 1], a[-1] ^ b[-1])


def add_floats(m: Module, exponent_bits: int, precision: int, a: Value, b: Value) -> Value:
    """The code of a + b: the larger magnitude stays, the other is shifted to its exponent; two bits below the larger
    one and a sticky bit are all that the rounding can see."""
    swap = named(m, b[:-1] > a[:-1], "swap")
    large, small = named(m, Mux(swap, b, a), "large"), named(m, Mux(swap, a, b), "small")
    (big, top), (other, low) = (_operand(m, x, precision) for x in (large, small))
    distance = named(m, (top - low)[:exponent_bits], "distance")
    width = precision + 2
    shifted = shift_right(m, Cat(C(0, 2), other), saturate(m, distance, width), sticky=True)
    subtract = named(m, large[-1] ^ small[-1], "subtract")
    right = shifted ^ subtract.replicate(width + 1)
    total = named(m, Cat(C(1, 1), C(0, 3), big) + Cat(subtract, right), "total")[1:]
    total = Cat(total[:-1], total[-1] & ~subtract)
    zeros = leading_zeros(m, total)
    left = named(m, Mux(top < zeros, top[: len(zeros)], zeros), "left")
    normalised = shift_left(m, total, left[: ceil_log2(len(total))], len(total))
    significand, guard = normalised[-precision:], normalised[-precision - 1]
    up = guard & (significand[0] | normalised[: -precision - 1].any())
    field = Mux(significand[-1], (top + 1 - left)[:exponent_bits], 0)
    code = named(m, Cat(significand[:-1], field) + up, "code")[: len(a) - 1]
    return Cat(code, large[-1] & (~subtract | total.any()))


def _operand(m: Module, code: Value, precision: int) -> tuple[Value, Value]:
    """(significand, exponent field, which of a subnormal number is one)."""
    field = code[precision - 1 : -1]
    normal = named(m, field.any(), "normal")
    return Cat(code[: precision - 1], normal), named(m, Cat(field[0] | ~normal, field[1:]), "exponent")
