"""Adding to a floating-point accumulator in one short cycle.

What `simulator.rtl.fused_add` computes, bit for bit, in another order. Everything that does not depend on the
accumulator is in `normalise`, which may lie behind a rank of registers; `add_normalised` is the loop:

1. In parallel: both differences of the exponents; which magnitude is the greater, by comparing the codes as integers;
   both shifts to the right, begun with the low bits of the differences, of which the right one is chosen at the end.
   The difference of magnitudes is never negative then, and no sum has to be complemented.
2. The sum. That nothing was shifted out is the carry into its tree, not a second addition. Beside it, from the same
   two rows, an indicator of the leading one (Schmookler & Nowka, "Leading zero anticipation and detection", ARITH
   2001): right, or one place too high.
3. The shift to the left, high places first, as the count of zeros gives them.
4. Rounding by injection (Even & Seidel, "A comparison of three rounding algorithms for IEEE floating-point
   multiplication", IEEE Trans. Computers 49, 2000): one increment serves both places of the leading one, since half a
   unit of the higher is the unit of the lower; ties to even clear the last bit. The choice between both comes last.

The papers were not at hand; the circuits were derived anew and are held to exact rounding by the tests.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Value, signed

from simulator.pe.arithmetic import BinaryFloat
from simulator.rtl import prefix
from simulator.rtl.parts import ceil_log2, leading_zeros, named, saturate, shift_left, shift_right


def reaches_subnormals(to: BinaryFloat, exponent: int) -> bool:
    """Whether sums of multiples of 2**exponent can be subnormal and not zero."""
    return exponent < to.low + to.precision - 1


def normalise(
    m: Module, to: BinaryFloat, sign: Value, magnitude: Value, own: Value, exponent: int
) -> tuple[Value, Value, Value]:
    """(sign, significand, exponent field) in ``to`` of (-1)**sign * magnitude * 2**(own + exponent), which must not
    exceed its range; zero is positive.

    The significand is as wide as the magnitude, its leading one on top; a number below the normal ones is shifted right
    into field 1 instead, and a one that is lost stays in the lowest bit, two places at least below the last of ``to``.
    """
    exponent_bits = to.bits - to.precision
    if reaches_subnormals(to, exponent):
        missing = max(to.precision + 2 - len(magnitude), 0)
        magnitude, exponent = Cat(C(0, missing), magnitude), exponent - missing
    width = len(magnitude)
    sign = named(m, sign & magnitude.any(), "sign")
    leading = leading_zeros(m, magnitude)
    reach = exponent + width - (to.low + to.precision - 1)
    highest = named(m, own + C(reach, signed(reach.bit_length() + 1)), "highest")
    if not reaches_subnormals(to, exponent):
        significand = shift_left(m, magnitude, leading[: ceil_log2(width)], width)
        field = named(m, highest - leading, "field")[:exponent_bits]
        return sign, significand, named(m, field & significand[-1].replicate(exponent_bits), "field")
    room = named(m, highest - 1, "room")
    below = named(m, room < 0, "below")
    right = saturate(m, named(m, Mux(below, -room, 0), "right")[: len(room)], width)
    lowered = shift_right(m, magnitude, right, sticky=True)
    left = named(m, Mux(below, 0, Mux(room < leading, room, leading)), "left")[: ceil_log2(width)]
    significand = shift_left(m, Cat(lowered[0] | lowered[1], lowered[2:]), left, width)
    lowest = below | ~magnitude.any()
    return sign, significand, named(m, Mux(lowest, 1, highest - left), "field")[:exponent_bits]


def add_normalised(
    m: Module,
    to: BinaryFloat,
    addend: Value,
    first: Value,
    sign: Value,
    size: Value,
    field: Value,
    *,
    subnormals: bool,
) -> Value:
    """The code of addend, or of zero where ``first``, plus the number of `normalise`, rounded once to nearest even.

    ``addend`` is a code of ``to`` that sums of such numbers reach; the result must be finite. What cancels to zero has
    the sign of the addend.
    """
    precision = to.precision
    fraction, own_field = addend[: precision - 1], addend[precision - 1 : -1]
    normal = named(m, own_field.any(), "normal")
    # A zero's field of 0 may stay: any alignment of zero is right.
    own = Cat(own_field[0] | ~normal, own_field[1:]) if subnormals else own_field

    compared = max(len(size), precision) - 1
    high = Cat(C(0, compared - len(size) + 1), size[:-1], field[0] & size[-1], field[1:])
    low = Cat(C(0, compared - precision + 1), addend[:-1])
    higher = named(m, prefix.greater(m, high, low) | first, "higher")

    # Two bits below the wider of both and a sticky bit are all that the rounding can see.
    width = max(len(size), precision) + 2
    a = Cat(C(0, width - precision), fraction, normal)
    b = Cat(C(0, width - len(size)), size)
    a_shifted, a_lost = _shifted(m, a, named(m, prefix.add(m, field, ~own, C(1, 1)), "distance"), first)
    b_shifted, b_lost = _shifted(m, b, named(m, prefix.add(m, own, ~field, C(1, 1)), "distance"), C(0, 1))
    sticky = named(m, Mux(higher, a_lost, b_lost), "sticky")
    subtract = named(m, sign ^ addend[-1], "subtract")
    small = named(m, Mux(higher, a_shifted, b_shifted) ^ subtract.replicate(width), "small")
    big = named(m, Mux(higher, b, a), "big")
    top = named(m, Mux(higher, field, own), "top")

    total = prefix.add(m, big, small, named(m, subtract & ~sticky, "carry_in"))
    total = named(m, Cat(total[:-1], total[-1] & ~subtract), "total")
    # The sum of two magnitudes has its leading one on the carry's place or the one below.
    leading = named(m, Cat((big ^ small) ^ Cat(C(1, 1), (big | small)[:-1]), ~subtract), "leading")
    if subnormals:
        lowest = Cat(*(named(m, top == place, "lowest") for place in range(width, -1, -1)))
        leading = named(m, leading | lowest, "leading")
    zeros = leading_zeros(m, leading)[: ceil_log2(width + 1)]
    placed = shift_left(m, total, zeros, width + 1, high_first=True)
    code = _rounded(m, to, placed, sticky, top, zeros, subnormals=subnormals)
    return Cat(code, Mux(higher, sign, addend[-1]))


def _shifted(m: Module, value: Value, distance: Value, drop: Value) -> tuple[Value, Value]:
    """(value >> distance, whether a one was lost); zero where it is dropped. ``distance`` is a difference with the
    carry on top; without carry it is negative, and nothing is asked."""
    bits = ceil_log2(len(value))
    far = named(m, distance[bits:-1].any(), "far")
    moved = shift_right(m, value, distance[:bits], sticky=True)
    kept = named(m, moved[1:] & ~(far | drop).replicate(len(value)), "aligned")
    return kept, named(m, Mux(far, value.any(), moved[0]) & ~drop, "lost")


def _rounded(
    m: Module, to: BinaryFloat, placed: Value, sticky: Value, top: Value, zeros: Value, *, subnormals: bool
) -> Value:
    """Code without sign of a sum whose leading one is on top or, ``late``, one place below.

    ``top``: exponent field of the place below the carry's, before the sum was moved left by ``zeros``.
    """
    precision, exponent_bits = to.precision, to.bits - to.precision
    # Exponent fields by how far the leading one is above the late place, 0 to 2: rounding may carry.
    above = prefix.increment(m, Cat(top, C(0, 1)))
    fields = [*prefix.add_both(m, above, ~Cat(zeros, C(0, exponent_bits + 1 - len(zeros))))]
    fields = [value[:exponent_bits] for value in (*fields, prefix.increment(m, fields[1]))]
    late: Value = named(m, ~placed[-1], "late")
    if subnormals:
        late = named(m, late & fields[0].any(), "late")

    last = len(placed) - precision - 1
    kept, guard, rest = placed[last:], placed[last - 1], placed[: last - 1].any() | sticky
    up = named(m, ~late | (guard & (kept[0] | rest)), "up")
    ones = prefix.ones_up_to(m, kept)
    rounded = named(m, kept ^ Cat(up, *(bit & up for bit in ones[:-1])), "rounded")
    tie = named(m, kept[0] & ~(guard | rest), "tie")
    fraction = Mux(late, rounded[: precision - 1], Cat(rounded[1] & ~tie, rounded[2:precision]))
    # Without a leading one the sum is zero or subnormal, unless rounding makes it the smallest normal number.
    smallest = C(0, exponent_bits - 1)
    late_field = Mux(kept[-2], Mux(ones[-2] & up, fields[1], fields[0]), Cat(rounded[-2], smallest))
    early_field = Mux(ones[-1], fields[2], fields[1])
    if subnormals:
        early_field = Mux(kept[-1], early_field, Cat(rounded[-1], smallest))
    return named(m, Cat(fraction, Mux(late, late_field, early_field)), "code")
