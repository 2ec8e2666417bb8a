"""Exact arithmetic of simulated hardware: integers with a known power-of-two weight.

A value is ``integer * 2**exponent`` with one exponent for a whole array, so additions and products of quantized codes
are exact; rounding happens only where hardware rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

Integers = npt.NDArray[Any]
"""int64, or Python integers where these are too narrow."""


@dataclass(frozen=True)
class BinaryFloat:
    """An IEEE 754 binary format: ``precision`` significand bits (hidden one included), subnormals down to 2**low."""

    name: str
    bits: int
    precision: int
    low: int
    """Exponent of the smallest subnormal."""
    high: int
    """All finite values are below 2**high."""


FP32 = BinaryFloat("fp32", 32, 24, -149, 128)
FP16 = BinaryFloat("fp16", 16, 11, -24, 16)


def round_to_float(values: Integers, exponent: int, to: BinaryFloat) -> npt.NDArray[np.object_]:
    """Nearest ``to`` value of ``values * 2**exponent``, ties to even, as integers times 2**to.low.

    Raises InputError where a value overflows the format: the simulated accumulator would hold an infinity.
    """
    rounded = np.empty(values.shape, object)
    flat = rounded.reshape(-1)
    for index, value in enumerate(values.reshape(-1)):
        flat[index] = _round(int(value), exponent, to)
    return rounded


def _round(value: int, exponent: int, to: BinaryFloat) -> int:
    magnitude = abs(value)
    keep = max(magnitude.bit_length() - to.precision + exponent, to.low)
    drop = keep - exponent
    if drop > 0:
        quotient, rest = divmod(magnitude, 1 << drop)
        half = 1 << (drop - 1)
        magnitude = quotient + (rest > half or (rest == half and quotient & 1))
        exponent = keep
    result = magnitude << (exponent - to.low)
    if result >> (to.high - to.low):
        raise InputError(
            f"a partial sum overflows the {to.name} accumulator", allowed=f"magnitudes below 2**{to.high}"
        )
    return -result if value < 0 else result


def wrap(values: Integers, bits: int) -> Integers:
    """Two's complement of ``bits`` bits: what an integer accumulator of that width holds."""
    half, modulus = 1 << (bits - 1), 1 << bits
    return (values + half) % modulus - half
