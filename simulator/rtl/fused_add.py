"""Adding to a floating-point accumulator with one rounding."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Value, signed

from simulator.pe.arithmetic import BinaryFloat
from simulator.rtl.parts import ceil_log2, leading_zeros, named, saturate, shift_left, shift_right


def fused_add(
    m: Module, to: BinaryFloat, addend: Value, sign: Value, magnitude: Value, own: Value, exponent: int
) -> Value:
    """The code of addend + (-1)**sign * magnitude * 2**(own + exponent), rounded once to nearest even.

    ``addend`` is a code of ``to`` that sums of such magnitudes reach, subnormals included; the result must be finite.
    The magnitude is normalised first. The larger term stays, the other is shifted right; two bits below the wider of
    both and a sticky bit are all that the rounding can see. What serves subnormals only is left out where every sum is
    a multiple of a normal number.
    """
    precision, exponent_bits = to.precision, to.bits - to.precision
    origin = to.low + precision - 1
    subnormals = exponent < origin
    field = addend[precision - 1 : -1]
    normal = named(m, field.any(), "normal")
    significand = Cat(addend[: precision - 1], normal)
    # Exponents of both terms' tops, from the bottom of the first binade of normal numbers.
    addend_top = Cat(field[0] | ~normal, field[1:])
    leading = leading_zeros(m, magnitude)
    size = shift_left(m, magnitude, leading[: ceil_log2(len(magnitude))], len(magnitude))
    reach = exponent + len(magnitude) - origin
    size_top = named(m, own + C(reach, signed(reach.bit_length() + 1)) - leading, "top")
    difference = named(m, size_top - addend_top, "difference")

    wide = max(len(size), precision)
    size, significand = Cat(C(0, wide - len(size)), size), Cat(C(0, wide - precision), significand)
    compared = wide - len(magnitude)
    above = (difference > 0) | ((difference == 0) & (size[compared:] > significand[compared:]))
    higher = named(m, above & size[-1], "higher")
    distance = named(m, Mux(higher, difference, -difference), "distance")[: len(difference) - 1]
    width = wide + 2
    big = Cat(C(0, 3), Mux(higher, size, significand))
    small = Cat(C(0, 2), Mux(higher, significand, size))
    shifted = shift_right(m, small, saturate(m, distance, width), sticky=True)
    subtract = named(m, sign ^ addend[-1], "subtract")
    turned: Value = C(0, 1)
    if subnormals:
        # An addend without its leading one is not above all that is shifted.
        turned = named(m, subtract & ~higher & ~normal & (shifted > big), "turned")
    left, right = big ^ turned.replicate(width + 1), shifted ^ (subtract & ~turned).replicate(width + 1)
    total = named(m, Cat(C(1, 1), left) + Cat(subtract, right), "total")[1:]
    total = Cat(total[:-1], total[-1] & ~subtract)

    top = named(m, Mux(higher, size_top, addend_top), "top_of_sum")
    zeros = leading_zeros(m, total)
    shift: Value = zeros
    if subnormals:
        shift = named(m, Mux(top < zeros, top[: len(zeros)], zeros), "normalise")
    normalised = shift_left(m, total, shift, width + 2)
    kept, guard = normalised[-precision:], normalised[-precision - 1]
    up = guard & (kept[0] | normalised[: -precision - 1].any())
    own_field = named(m, (top + 1 - shift)[:exponent_bits] & kept[-1].replicate(exponent_bits), "field")
    code = named(m, Cat(kept[:-1], own_field) + up, "code")
    return Cat(code[: to.bits - 1], Mux(higher, sign, addend[-1]) ^ turned)
