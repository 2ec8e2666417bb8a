"""Units and the integer arithmetic of time: every quantity that is rounded is rounded here, once, upwards."""

from __future__ import annotations

from fractions import Fraction

KIB = 1024
GIGA = 10**9
BITS_PER_BYTE = 8


def ceil_div(numerator: int, denominator: int) -> int:
    """Smallest integer not below ``numerator / denominator`` (denominator > 0)."""
    return -(-numerator // denominator)


def exact(value: float | int | str) -> Fraction:
    """The decimal number a user wrote, as an exact fraction: 0.1 is 1/10, not its binary neighbour."""
    return Fraction(str(value))
