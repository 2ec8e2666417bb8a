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


def round_to_float(
    values: Integers, exponent: int, to: BinaryFloat, *, truncate: bool = False
) -> npt.NDArray[np.object_]:
    """Nearest ``to`` value of ``values * 2**exponent``, ties to even, as integers times 2**to.low.

    ``truncate``: the ``to`` value next to it towards zero instead. Raises InputError where a value overflows the
    format: the simulated accumulator would hold an infinity.
    """
    rounded = np.empty(values.shape, object)
    flat = rounded.reshape(-1)
    for index, value in enumerate(values.reshape(-1)):
        flat[index] = _round(int(value), exponent, to, truncate)
    return rounded


def _round(value: int, exponent: int, to: BinaryFloat, truncate: bool) -> int:
    magnitude = abs(value)
    keep = max(magnitude.bit_length() - to.precision + exponent, to.low)
    drop = keep - exponent
    if drop > 0:
        quotient, rest = divmod(magnitude, 1 << drop)
        half = 1 << (drop - 1)
        up = not truncate and (rest > half or (rest == half and bool(quotient & 1)))
        magnitude = quotient + up
        exponent = keep
    result = magnitude << (exponent - to.low)
    if result >> (to.high - to.low):
        raise _overflow(to)
    return -result if value < 0 else result


def _overflow(to: BinaryFloat) -> InputError:
    return InputError(
        f"a partial sum overflows the {to.name} accumulator", allowed=f"magnitudes below 2**{to.high}"
    )


Reals = npt.NDArray[np.float64]
"""Values that float64 holds exactly: what hardware adds, many at a time."""


def add_and_round(values: Reals, others: Reals, to: BinaryFloat, *, truncate: bool = False) -> Reals:
    """``values + others`` rounded once, as `round_to_float` does it; for what is far from float64's own limits.

    The sum is first rounded to odd in float64, which is innocuous with two bits to spare (Boldo and Melquiond,
    "Emulation of FMA and Correctly Rounded Sums", IEEE Transactions on Computers 57(4), 2008).
    """
    total = values + others
    part = total - values
    error = (values - (total - part)) + (others - part)
    even = (total.view(np.int64) & 1) == 0
    total = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return round_reals(total, to, truncate=truncate)


def round_reals(values: Reals, to: BinaryFloat, *, truncate: bool = False) -> Reals:
    """Nearest ``to`` value of each, ties to even (``truncate``: towards zero). Raises InputError: overflow."""
    unit = np.maximum(np.frexp(values)[1] - to.precision, to.low)
    steps = np.ldexp(values, -unit)
    rounded: Reals = np.ldexp(np.trunc(steps) if truncate else np.rint(steps), unit)
    if (np.abs(rounded) >= 2.0**to.high).any():
        raise _overflow(to)
    return rounded


def reals_of(integers: Integers, exponent: int) -> Reals:
    """``integers * 2**exponent``; exact where an integer has no more than 53 significant bits."""
    values: Reals = np.ldexp(integers.astype(np.float64), exponent)
    return values


def integers_of(values: Reals, exponent: int) -> npt.NDArray[np.object_]:
    """Python integers n with values == n * 2**exponent."""
    return np.asarray(_to_int(np.ldexp(values, -exponent)), object)


_to_int = np.frompyfunc(int, 1, 1)


def wrap(values: Integers, bits: int) -> Integers:
    """Two's complement of ``bits`` bits: what an integer accumulator of that width holds."""
    half, modulus = 1 << (bits - 1), 1 << bits
    return (values + half) % modulus - half
