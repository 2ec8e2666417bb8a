"""How BitMoD writes a weight as a sum of terms, one a cycle: its decoder and its Booth encoder.

Chen et al., "BitMoD", HPCA 2025, section IV-A. A term is a sign, a mantissa bit and a 2-bit exponent, with a
bit-significance that all lanes of a cycle share: a digit of 0, +-1, +-2, +-4 or +-8, times 2**bsig.

Integers: radix-4 Booth digits of -2 .. 2, one for two bits, the least significant first; odd widths are sign-extended
by a bit. FP4 and FP3: sign and magnitude in fixed point {I3 I2 I1 I0 . F0}, where I0 is worth the 1 of E2M1 or of FP3.
One leading-one detector looks at {I3 .. I0}, a second at {I2 I1 I0 F0} without the bit that the first found. No value
of these types, special values included, has more than these two ones; one with a single one, and zero, has terms of
zero, which take their cycle too.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from simulator.formats.element import Element, decode_integers
from simulator.pe.arithmetic import Integers

FIXED_POINT_BITS = 5
"""I3 to F0."""
WIDEST_INTEGER = 8
SPECIAL_VALUES = 4
"""Entries of the register file that a group's selector points into."""
DECODED = {4: (0, 1, 2, 3, 4, 6, 8, 12), 3: (0, 1, 2, 4)}
"""Magnitudes of the codes that the decoder knows, in their smallest unit; the code of -0 takes the special value."""
_BITS_WITH_FRACTION = 4
"""Floats of so many bits have halves."""


def cycles_of(element: Element) -> int:
    """Terms of a weight: half its bits, rounded up (8, 7, 6, 5, 4, 3 bits: 4, 4, 3, 3, 2, 2)."""
    return (element.bits + 1) // 2


def terms(weights: Integers, element: Element) -> tuple[Integers, tuple[int, ...]]:
    """Digits (..., cycles) of element integers (...), and the significance bsig of each cycle:
    weight == sum of digit * 2**bsig."""
    if element.is_integer:
        significances = tuple(range(0, 2 * cycles_of(element), 2))
        return np.stack([_booth_digit(weights, bsig) for bsig in significances], axis=-1), significances
    halves = int(element.bits >= _BITS_WITH_FRACTION)
    sign, fixed_point = np.sign(weights), np.abs(weights) << (1 - halves)
    first = _leading_one(fixed_point >> 1)
    second = _leading_one((fixed_point - (first << 1)) & 0b1111)
    return np.stack([sign * first, sign * second], axis=-1), (halves, halves - 1)


def _booth_digit(weights: Integers, low: int) -> Integers:
    """-2 * bit[low + 1] + bit[low] + bit[low - 1] of two's complement, where bit[-1] is 0."""
    below = (weights >> (low - 1)) & 1 if low else np.zeros_like(weights)
    return -2 * ((weights >> (low + 1)) & 1) + ((weights >> low) & 1) + below


def _leading_one(words: Integers) -> Integers:
    """The highest bit that is set, as a number; 0 of 0."""
    highest = np.zeros_like(words)
    for bit in range(FIXED_POINT_BITS - 1):
        highest = np.where(words >> bit & 1, 1 << bit, highest)
    return highest


@lru_cache(maxsize=64)
def refusal(element: Element) -> str | None:
    """None, or why neither decoder nor encoder takes an element."""
    if element.kind == "int":
        if element.bits <= WIDEST_INTEGER:
            return None
        return f"its Booth encoder takes integers of at most {WIDEST_INTEGER} bits, not {element.name}"
    if element.is_integer or element.bits not in DECODED or element.has_nan:
        return f"it has neither Booth digits nor a decoder for {element.name}"
    tables = _integers_of(element)
    if (tables[:, : len(DECODED[element.bits])] != DECODED[element.bits]).any():
        return f"its decoder reads codes of {element.bits} bits as {DECODED[element.bits]}, not as {element.name}"
    if len(tables) > SPECIAL_VALUES:
        return f"it has registers for {SPECIAL_VALUES} special values, fewer than {element.name} has"
    integers = np.unique(tables)
    digits, significances = terms(integers, element)
    sums = (digits * np.array([1 << (bsig + 1) for bsig in significances])).sum(axis=-1)
    return None if (sums == 2 * integers).all() else f"{element.name} has values of more than two terms"


def _integers_of(element: Element) -> Integers:
    """The integers of all codes (tables, codes)."""
    if element.kind == "table":
        return np.array(element.tables)
    return decode_integers(element, np.arange(1 << element.bits, dtype=element.dtype))[0][None]
