"""What one value costs a machine that works through its bits or its terms.

A term is a signed power of two. A value is the sum of its terms, and a term-serial machine takes one of them at a time,
so time follows from how a value is recoded. Term masks say where the terms stand: bit i of a mask is a term of
weight 2**i. Signs of terms are left out: they decide what is added, not when.

`none`         the ones of the magnitude ("essential bits"; the sign is applied apart)
`booth_like`   Bit-Pragmatic's encoder (Albericio et al., MICRO 2017): a run of three or more ones becomes a difference
`naf`          the non-adjacent form, the fewest terms there can be (Reitwiesner, 1960)
`radix4_booth` the non-zero digits of radix-4 Booth recoding (MacSorley, Proc. IRE 1961) of the two's complement
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.pe.arithmetic import Integers

Recoding = Literal["none", "booth_like", "naf", "radix4_booth"]
Counts = npt.NDArray[np.int64]

VALUE_BITS = 24
"""Magnitudes here are below 2**VALUE_BITS, so that masks and their products stay within int64."""
_EVEN = int("01" * (VALUE_BITS + 2), 2)
"""Bits 0, 2, 4, ... of a mask."""


def term_masks(integers: Integers, recoding: Recoding) -> Counts:
    """Positions of the terms of each value, as bit masks; same shape."""
    values = integers.astype(np.int64)
    magnitudes = np.abs(values)
    if recoding == "booth_like":
        return _booth_like(magnitudes)
    if recoding == "naf":
        adjacent: Counts = magnitudes ^ 3 * magnitudes
        return adjacent >> 1
    if recoding == "radix4_booth":
        return _radix4(values)
    return magnitudes


def term_counts(integers: Integers, recoding: Recoding = "none") -> Counts:
    """Terms of each value; same shape. With ``none`` its essential bits."""
    return ones(term_masks(integers, recoding))


def booth_digits(integers: Integers, bits: int) -> Counts:
    """Radix-4 Booth digits, least significant first: (..., ceil(bits / 2)) of -2..2, value = sum of digit[i] * 4**i.

    Digit i of a two's complement number of ``bits`` bits is -2 b[2i+1] + b[2i] + b[2i-1], b[-1] = 0, sign extended.
    """
    values = integers.astype(np.int64)[..., None] << 1
    window = values >> 2 * np.arange((bits + 1) // 2)
    digits: Counts = -2 * (window >> 2 & 1) + (window >> 1 & 1) + (window & 1)
    return digits


def widths(integers: Integers, *, signed: bool) -> Counts:
    """Bits that a machine with value-dependent precision reads of each value; same shape.

    Unsigned: up to the highest one, at least 1. ``signed``: the same of x, or of its one's complement where it is
    negative, and a sign bit (two's complement). So zero costs 1, or 2.
    """
    return np.maximum(bit_length(folded(integers)), 1) + signed


def folded(integers: Integers) -> Counts:
    """x, or its one's complement where it is negative: what is above its highest one is copies of the sign."""
    values = integers.astype(np.int64)
    return values ^ (values >> 63)


def bit_length(masks: Integers) -> Counts:
    """Position of the highest one, counted from 1; 0 for 0."""
    return np.frexp(masks.astype(np.float64))[1].astype(np.int64)


def ones(masks: Integers) -> Counts:
    """Ones of each mask."""
    rest = masks.astype(np.int64)
    count = np.zeros(rest.shape, np.int64)
    while rest.any():
        count += rest & 1
        rest = rest >> 1
    return count


def _booth_like(magnitudes: Counts) -> Counts:
    """Scans from the top. Outside a run a one is a term; three ones in a row open a run, with a term one position above
    it. Inside a run ones are free and each zero is a term; a one before two zeros is its last term and closes it. Below
    bit 0 are zeros.
    """
    masks = np.zeros_like(magnitudes)
    inside = np.zeros(magnitudes.shape, bool)
    for position in range(int(bit_length(magnitudes.max(initial=0))) - 1, -1, -1):
        window = magnitudes << 2 >> position & 7
        first = window >= 4
        opens = ~inside & (window == 7)
        closes = inside & (window == 4)
        single = np.where(inside, ~first | closes, first & ~opens)
        masks |= single.astype(np.int64) << position | opens.astype(np.int64) << position + 1
        inside = (inside | opens) & ~closes
    return masks


def _radix4(values: Counts) -> Counts:
    """A digit of magnitude 1 (b[2i] != b[2i-1]) is a term at 2i; of magnitude 2 (else b[2i+1] != b[2i]) at 2i + 1."""
    changes = values ^ values << 1
    single = changes & _EVEN
    return single | changes & ~_EVEN & ~(single << 1) & ((1 << VALUE_BITS + 2) - 1)
