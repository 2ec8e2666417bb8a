"""Elements whose values are a table: BitMoD's, ANT's flint and powers of two, and one bit.

Values are integers; the scale of the group brings them to size. Codes are sign and magnitude.

Sources: Chen et al., "BitMoD: Bit-serial Mixture-of-Datatype LLM Acceleration", HPCA 2025, section III, and the
quantizer released with it; Guo et al., "ANT: Exploiting Adaptive Numerical Data Type for Low-bit Deep Neural
Network Quantization", MICRO 2022, section IV, and the quantizer released with it (the integer view of flint is
derived from the values, the paper was not at hand for it).
"""

from __future__ import annotations

from functools import lru_cache

from simulator.formats.element import Element, value_table

SPECIAL_VALUES = {3: (3, -3, 6, -6), 4: (10, -10, 16, -16)}
"""BitMoD: what negative zero may stand for, in the order of the selectors: extra resolution + and -, extra
asymmetry + and -."""
BITMOD_MAGNITUDES = {3: (0, 1, 2, 4), 4: (0, 1, 2, 3, 4, 6, 8, 12)}
"""BitMoD: the magnitudes of FP3 and of FP4 (E2M1 times two)."""

FLINT_BITS = range(2, 9)
POT_BITS = range(3, 7)


@lru_cache(maxsize=16)
def bitmod(bits: int) -> Element:
    """FP3 or FP4 with the redundant negative zero replaced by one of four special values; ties go down.

    FP4 is worth twice its E2M1 value, so that the integers are exact (special values of +-5 and +-8 in E2M1).
    """
    magnitudes = BITMOD_MAGNITUDES[bits]
    negative = tuple(-value for value in magnitudes[1:])
    tables = ((*magnitudes, special, *negative) for special in SPECIAL_VALUES[bits])
    return value_table(f"bitmod_fp{bits}", *tables, ties="lower")


def flint_magnitude(code: int, bits: int) -> int:
    """Value of an unsigned flint code of `bits` bits: base << exponent, both found by leading zeros.

    Top bit 0: the code itself. Top bit 1, z leading zeros in the rest: rest << 1 << 2 z. Rest 0: the largest,
    4**(bits - 1).
    """
    top = 1 << (bits - 1)
    if code < top:
        return code
    rest = code - top
    if rest == 0:
        return 1 << (2 * (bits - 1))
    leading_zeros = bits - 1 - rest.bit_length()
    return rest << (1 + 2 * leading_zeros)


@lru_cache(maxsize=16)
def flint(bits: int, *, signed: bool = True) -> Element:
    """ANT's float-int: integers where they are dense, powers of two where they are not; ties go up.

    Signed: a sign, and the unsigned flint of one bit less as the magnitude (two codes for zero).
    """
    if not signed:
        return value_table(f"uflint{bits}", _flint_magnitudes(bits), ties="upper")
    return value_table(f"flint{bits}", _mirrored(_flint_magnitudes(bits - 1)), ties="upper")


@lru_cache(maxsize=16)
def power_of_two(bits: int) -> Element:
    """ANT's PoT: 0 and +-2**i, i from 0 to 2**(bits - 1) - 2 (two codes for zero); ties go up."""
    magnitudes = (0, *(1 << i for i in range(2 ** (bits - 1) - 1)))
    return value_table(f"pot{bits}", _mirrored(magnitudes), ties="upper")


BINARY = value_table("binary", (-1, 1), ties="upper")
"""One bit: code 0 is -1, code 1 is +1; 0 becomes +1."""


def _flint_magnitudes(bits: int) -> tuple[int, ...]:
    return tuple(flint_magnitude(code, bits) for code in range(1 << bits))


def _mirrored(magnitudes: tuple[int, ...]) -> tuple[int, ...]:
    """The table of a sign bit above the magnitude's."""
    return magnitudes + tuple(-value for value in magnitudes)
