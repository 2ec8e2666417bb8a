"""Slow arithmetic in Python's fractions, written without the package: what PE families are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor


def rounded(value: Fraction, precision: int, low: int) -> Fraction:
    """Nearest binary float of ``precision`` significand bits, subnormals in steps of 2**low, ties to even."""
    exponent = low
    while abs(value) >= Fraction(2) ** (exponent + precision):
        exponent += 1
    step = Fraction(2) ** exponent
    whole = floor(value / step)
    rest = value / step - whole
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2):
        whole += 1
    return whole * step


def fp32(value: Fraction) -> Fraction:
    return rounded(value, 24, -149)


def fp16(value: Fraction) -> Fraction:
    return rounded(value, 11, -24)


def nearest_even(value: Fraction) -> int:
    """Nearest integer, ties to even."""
    whole = floor(value)
    rest = value - whole
    return whole + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1))


def wrapped(value: int, bits: int) -> int:
    """Two's complement of so many bits."""
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def dot(activations: Sequence[Fraction], weights: Sequence[Fraction]) -> Fraction:
    return sum((a * w for a, w in zip(activations, weights, strict=True)), Fraction(0))
