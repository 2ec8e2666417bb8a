"""BitMoD's arithmetic once more: scalars, bit patterns and fractions."""

from __future__ import annotations

from fractions import Fraction

FP32 = (24, -149)
"""Bits of the significand, exponent of the smallest subnormal."""
E8M12 = (13, -138)


def to_float(value: Fraction, layout: tuple[int, int] = FP32) -> Fraction:
    """Nearest value of a binary format, ties to even."""
    precision, exponent = layout
    while abs(value) / Fraction(2) ** exponent >= 2**precision:
        exponent += 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent


def booth_terms(value: int, bits: int) -> list[tuple[int, int]]:
    """(digit, bsig) by the recoding table of bit triples."""
    bits += bits % 2
    pattern = format(value % (1 << bits), f"0{bits}b")[::-1]
    recoded = {"000": 0, "001": 1, "010": 1, "011": 2, "100": -2, "101": -1, "110": -1, "111": 0}
    found = []
    for low in range(0, bits, 2):
        below = pattern[low - 1] if low else "0"
        found.append((recoded[pattern[low + 1] + pattern[low] + below], low))
    return found


def float_terms(value: int, bits: int) -> list[tuple[int, int]]:
    """From the ones of {I3 I2 I1 I0 F0}: value counts halves in 4 bits, ones in 3."""
    halves = abs(value) * (1 if bits == 4 else 2)
    unit = 0 if bits == 4 else -1
    ones = [position for position in (4, 3, 2, 1, 0) if halves >> position & 1]
    sign = -1 if value < 0 else 1
    first = 1 << (ones.pop(0) - 1) if ones and ones[0] > 0 else 0
    second = 1 << ones.pop(0) if ones else 0
    assert not ones
    assert second <= 8
    return [(sign * first, unit + 1), (sign * second, unit)]


def unpack_fp16(pattern: int) -> tuple[int, int, int]:
    """Sign, significand of 11 bits, exponent of its last bit."""
    field, fraction = pattern >> 10 & 31, pattern & 1023
    return (-1 if pattern >> 15 else 1), fraction + (1024 if field else 0), max(field, 1) - 25


def oracle_step(
    partial: Fraction,
    patterns: list[int],
    of_lanes: list[list[tuple[int, int]]],
    guard: int = 3,
    layout: tuple[int, int] = FP32,
) -> Fraction:
    """A step on FP16 patterns and the (digit, bsig) of each lane's cycles."""
    for cycle in range(len(of_lanes[0])):
        products = []
        for pattern, lane in zip(patterns, of_lanes, strict=True):
            sign, significand, exponent = unpack_fp16(pattern)
            digit = lane[cycle][0]
            if significand and digit:
                power = abs(digit).bit_length() - 1
                products.append((sign * (1 if digit > 0 else -1), significand, exponent + power))
        if products:
            unit = Fraction(2) ** (max(exponent for _, _, exponent in products) - guard)
            total = sum(s * round(m * Fraction(2) ** e / unit) for s, m, e in products)
            partial = to_float(partial + total * unit * Fraction(2) ** of_lanes[0][cycle][1], layout)
    return partial
