"""Element codes: which bit patterns a number format has and what each is worth, before any scale.

An `Element` is a value: integers (two's complement, unsigned, sign-magnitude), minifloats ``ExMy``, bare
exponents (E8M0), and value tables: any codes at all, worth the integers that a table lists. Minifloats have
subnormals and the IEEE 754 bias ``2**(E-1) - 1``; what their largest codes mean is `specials`. Rounding is to
nearest, ties to the even code (in tables: to the lower or the upper value); too large saturates.

A table element may have several tables; a *selector*, stored with each group of values, says which one its
codes are to be read in.

Sources: IEEE 754-2019 section 3.4 (layout, bias, subnormals); OCP 8-bit Floating Point Specification (OFP8)
1.0 (E4M3, E5M2); OCP Microscaling Formats (MX) 1.0 section 5.3 (FP6, FP4, INT8 elements) and 5.4 (E8M0).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Kind = Literal["int", "uint", "sign_magnitude", "float", "exponent", "table"]
Specials = Literal["none", "nan", "ieee"]
Ties = Literal["even", "lower", "upper"]

EXPONENT_BIAS = 127
"""Bias of the bare 8-bit exponents, that of FP32."""

LARGEST_TABLE_VALUE = 2**40
"""Integers of value tables are at most this: with it, products with FP16 scales stay exact in float64."""


@dataclass(frozen=True)
class Element:
    """The codes of one format.

    Codes in arrays are the integers themselves for the integer kinds (signed for ``int`` and
    ``sign_magnitude``) and the bit patterns, unsigned, for ``float`` (sign, exponent, mantissa from the top),
    ``exponent`` and ``table``.
    """

    name: str
    kind: Kind
    bits: int
    exponent_bits: int = 0
    mantissa_bits: int = 0
    specials: Specials = "none"
    """``none``: every code is finite. ``nan``: the code(s) of all ones are NaN, no Inf. ``ieee``: Inf and
    NaN."""
    step_exponent: int = 0
    """Integers, and the integers in tables, count steps of ``2**step_exponent`` (OCP MX INT8: -6)."""
    tables: tuple[tuple[int, ...], ...] = field(default=(), repr=False, hash=False)
    """Of a ``table``: for each selector the integer that each code stands for, 2**bits of them."""
    ties: Ties = "even"
    """Where a value lies midway between two: the even code, or of a table the lower or the upper value."""

    def __post_init__(self) -> None:
        if self.kind == "table":
            _check_tables(self)
        elif self.tables or self.ties != "even":
            raise InputError("only table elements have tables and ties of their own", key=self.name)

    @property
    def is_integer(self) -> bool:
        """The codes are the integers, to an integer multiplier; those of a table need a decoder before it."""
        return self.kind in ("int", "uint", "sign_magnitude")

    @property
    def has_nan(self) -> bool:
        return self.specials != "none"

    @property
    def has_inf(self) -> bool:
        return self.specials == "ieee"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest numpy integer type that holds the codes."""
        width = 8 if self.bits <= 8 else 16 if self.bits <= 16 else 32
        return np.dtype(f"{'int' if self.kind in ('int', 'sign_magnitude') else 'uint'}{width}")

    @property
    def is_signed(self) -> bool:
        """There are values below zero."""
        if self.kind == "table":
            return bool(table_integers(self).min() < 0)
        return self.kind not in ("uint", "exponent")

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal value (and of the subnormals)."""
        if self.kind == "float":
            return 2 - (1 << (self.exponent_bits - 1))
        return -EXPONENT_BIAS if self.kind == "exponent" else self.step_exponent

    @property
    def max_code(self) -> int:
        """Largest finite code without its sign; symmetric integers leave the most negative code unused."""
        if self.kind == "float":
            if self.specials == "ieee":
                return (((1 << self.exponent_bits) - 1) << self.mantissa_bits) - 1
            return (1 << (self.bits - 1)) - (2 if self.specials == "nan" else 1)
        if self.kind == "exponent":
            return (1 << self.bits) - 2
        return (1 << (self.bits if self.kind in ("uint", "table") else self.bits - 1)) - 1

    @property
    def max_value(self) -> float:
        """Largest finite magnitude; of several tables, the largest in any."""
        if self.kind == "table":
            return float(table_maxima(self).max())
        return float(decode(self, np.array([self.max_code], self.dtype))[0])

    @property
    def min_positive(self) -> float:
        """Smallest magnitude above zero."""
        if self.kind == "table":
            smallest = min(abs(value) for table in self.tables for value in table if value)
            return float(np.ldexp(float(smallest), self.step_exponent))
        lowest = 0 if self.kind == "exponent" else 1
        return float(decode(self, np.array([lowest], self.dtype))[0])

    @property
    def emax(self) -> int:
        """floor(log2(max_value)): the exponent of the binade that holds the largest value."""
        return int(np.frexp(self.max_value)[1]) - 1

    @property
    def significand_bits(self) -> int:
        """Mantissa bits (without the leading one) of the values in the top binade."""
        counted = self.is_integer or self.kind == "table"
        return self.emax - self.step_exponent if counted else self.mantissa_bits

    @property
    def quantum_exponent(self) -> int:
        """Every finite value is an integer multiple of ``2**quantum_exponent``."""
        return self.emin - self.mantissa_bits if self.kind == "float" else self.emin


def integer(bits: int, *, signed: bool = True, step_exponent: int = 0) -> Element:
    """INTn (two's complement, used symmetrically unless there is a zero point) or UINTn."""
    kind: Kind = "int" if signed else "uint"
    return Element(f"{kind}{bits}", kind, bits, step_exponent=step_exponent)


def sign_magnitude(mantissa_bits: int) -> Element:
    """A sign and a mantissa without hidden bit, worth -2 < value < 2: the element of block floating point."""
    return Element(f"s{mantissa_bits}", "sign_magnitude", 1 + mantissa_bits, step_exponent=1 - mantissa_bits)


def minifloat(exponent_bits: int, mantissa_bits: int, specials: Specials = "none", name: str = "") -> Element:
    """ExMy: one sign bit, `exponent_bits` (1 to 8), `mantissa_bits`."""
    name = name or f"e{exponent_bits}m{mantissa_bits}{'ieee' if specials == 'ieee' else ''}"
    return Element(name, "float", 1 + exponent_bits + mantissa_bits, exponent_bits, mantissa_bits, specials)


def value_table(
    name: str, *tables: tuple[int, ...], step_exponent: int = 0, ties: Literal["lower", "upper"] = "lower"
) -> Element:
    """An element whose code c is worth ``tables[selector][c] * 2**step_exponent``.

    Each table lists 2**bits integers, in the order of the codes; a value may stand there twice, the first
    code is then the one that is written. ``ties``: what a value midway between two becomes.
    """
    bits = (len(tables[0]) - 1).bit_length() if tables else 0
    return Element(name, "table", bits, step_exponent=step_exponent, tables=tables, ties=ties)


def _check_tables(element: Element) -> None:
    count = 2**element.bits
    if not element.tables or not 1 <= element.bits <= 16:
        raise InputError("a table element needs tables of 2 to 65536 codes", key=element.name)
    if element.ties not in ("lower", "upper"):
        raise InputError(
            "ties of a table element", key=element.name, value=element.ties, allowed="lower, upper"
        )
    for table in element.tables:
        if not isinstance(table, tuple) or len(table) != count:
            raise InputError(
                "a value table", key=element.name, value=len(table), allowed=f"a tuple of {count} integers"
            )
        for value in table:
            if type(value) is not int or abs(value) > LARGEST_TABLE_VALUE:
                raise InputError(
                    "entry of a value table", key=element.name, value=value, allowed="an int up to 2**40"
                )
    if not any(map(any, element.tables)):
        raise InputError("value tables of zeros only", key=element.name)


FP32 = minifloat(8, 23, "ieee", "fp32")
FP16 = minifloat(5, 10, "ieee", "fp16")
BF16 = minifloat(8, 7, "ieee", "bf16")
FP8_E4M3 = minifloat(4, 3, "nan", "fp8_e4m3")
FP8_E5M2 = minifloat(5, 2, "ieee", "fp8_e5m2")
FP6_E2M3 = minifloat(2, 3, name="fp6_e2m3")
FP6_E3M2 = minifloat(3, 2, name="fp6_e3m2")
FP4_E2M1 = minifloat(2, 1, name="fp4_e2m1")

NAMED_FLOATS = (FP32, FP16, BF16, FP8_E4M3, FP8_E5M2, FP6_E2M3, FP6_E3M2, FP4_E2M1)

E8M0 = Element("e8m0", "exponent", 8, exponent_bits=8, specials="nan")
"""Powers of two 2**-127 .. 2**127; 0xFF is NaN; no zero, no sign, no Inf (OCP MX 1.0 section 5.4.1)."""
E8 = Element("e8", "exponent", 8, exponent_bits=8)
"""The shared exponent of block floating point: as E8M0, but 0xFF is not used."""


class Levels(NamedTuple):
    """The distinct values of a table in ascending order, in steps of 2**step_exponent, all float64."""

    values: Floats
    codes: npt.NDArray[np.int64]
    """The first code that stands for each value."""
    midpoints: Floats
    """Between neighbouring values, exact."""


@lru_cache(maxsize=4096)
def levels(element: Element, table: int) -> Levels:
    """What a table element can be rounded to."""
    values, codes = np.unique(np.array(element.tables[table], np.int64), return_index=True)
    steps = values.astype(np.float64)
    return Levels(steps, codes, (steps[1:] + steps[:-1]) / 2)


@lru_cache(maxsize=256)
def table_integers(element: Element) -> npt.NDArray[np.int64]:
    """The tables of a table element, (selectors, 2**bits), read-only."""
    integers = np.array(element.tables, np.int64)
    integers.setflags(write=False)
    return integers


def table_maxima(element: Element) -> Floats:
    """Largest magnitude in each table, (selectors,)."""
    largest = np.abs(table_integers(element)).max(axis=1).astype(np.float64)
    return np.asarray(np.ldexp(largest, element.step_exponent))


def nearest_steps(element: Element, table: int, steps: Floats) -> Array:
    """The code of the table's value nearest to each number of steps; ties as the element says."""
    found = levels(element, table)
    side: Literal["left", "right"] = "left" if element.ties == "lower" else "right"
    codes: Array = found.codes[np.searchsorted(found.midpoints, steps, side)]
    return codes.astype(element.dtype)


def look_up(element: Element, codes: Array, selectors: Array | None = None) -> npt.NDArray[np.int64]:
    """The integers that codes of a table element stand for; `selectors`, as many as there are codes, where
    there are several tables. InputError: codes or selectors out of range, selectors missing."""
    tables = table_integers(element)
    if selectors is None:
        if len(tables) > 1:
            raise InputError(f"{element.name} has {len(tables)} value tables: selectors are needed")
        selectors = np.zeros(1, np.int64)
    for what, found, count in (
        (f"not a code of {element.name}", codes, tables.shape[1]),
        (f"not a selector of {element.name}", selectors, len(tables)),
    ):
        if found.size and not (int(found.min()) >= 0 and int(found.max()) < count):
            wrong = found[(found < 0) | (found >= count)]
            raise InputError(what, value=int(wrong.flat[0]), allowed=f"0 to {count - 1}")
    integers: npt.NDArray[np.int64] = tables[
        selectors.reshape(-1) if selectors.size == 1 else selectors, codes
    ]
    return integers


def decode(element: Element, codes: Array, selectors: Array | None = None) -> Floats:
    """The exact value of each code, float64 of the same shape. The one float wider than 16 bits is FP32.

    `selectors`: the table of each code, of the same shape, for elements that have several.
    """
    if element.kind == "table":
        return np.ldexp(look_up(element, codes, selectors).astype(np.float64), element.step_exponent)
    if element.is_integer:
        return np.ldexp(codes.astype(np.float64), element.step_exponent)
    if element.bits <= 16:
        table = decode_table(element)
        if codes.size and (int(codes.max()) >= table.size or int(codes.min()) < 0):
            raise InputError(
                f"not a code of {element.name}", value=int(codes.max()), allowed=f"0 to {table.size - 1}"
            )
        values: Floats = table[codes]
        return values
    return widen(codes.astype(np.uint32).view(np.float32))


@lru_cache(maxsize=256)
def decode_table(element: Element) -> Floats:
    """Value of every bit pattern of a float or exponent element of at most 16 bits, read-only, (2**bits,)."""
    table = _decode_bits(element, np.arange(2**element.bits))
    table.setflags(write=False)
    return table


def _decode_bits(element: Element, codes: Array) -> Floats:
    patterns = codes.astype(np.int64)
    if element.kind == "exponent":
        powers = np.ldexp(1.0, (patterns - EXPONENT_BIAS).astype(np.int32))
        return np.where(patterns > element.max_code, np.nan, powers)
    magnitude = patterns & (2 ** (element.bits - 1) - 1)
    field = magnitude >> element.mantissa_bits
    fraction = magnitude & (2**element.mantissa_bits - 1)
    significand = (fraction + ((field > 0).astype(np.int64) << element.mantissa_bits)).astype(np.float64)
    exponent = np.maximum(field, 1) - 1 + element.quantum_exponent
    values = np.ldexp(significand, exponent.astype(np.int32))
    if element.has_inf:
        values = np.where(magnitude == element.max_code + 1, np.inf, values)
        values = np.where(magnitude > element.max_code + 1, np.nan, values)
    elif element.has_nan:
        values = np.where(magnitude > element.max_code, np.nan, values)
    signed: Floats = np.where(patterns >> (element.bits - 1), -values, values)
    return signed


def decode_integers(element: Element, codes: Array, selectors: Array | None = None) -> tuple[Array, int]:
    """(integers, exponent): value == integer * 2**exponent exactly, one exponent for the whole element.

    `selectors` as in `decode`. int64 where every finite value of the element fits, else Python integers
    (dtype object). Inf and NaN codes are an InputError: they have no integer.
    """
    exponent = element.quantum_exponent
    if element.kind == "table":
        return look_up(element, codes, selectors), exponent
    if element.is_integer:
        return codes.astype(np.int64), exponent
    values = decode(element, codes)
    bad = ~np.isfinite(values)
    if bad.any():
        raise InputError(f"{int(bad.sum())} Inf or NaN codes of {element.name} have no integer value")
    if element.emax + 1 - exponent <= 63:
        return np.ldexp(values, -exponent).astype(np.int64), exponent
    significands, exponents = np.frexp(values)
    wide = np.ldexp(significands, 53).astype(np.int64).astype(object)
    shifts = (exponents - 53 - exponent).astype(object)
    shift = np.frompyfunc(lambda number, by: number << by if by >= 0 else number >> -by, 2, 1)
    return np.asarray(shift(wide, shifts), dtype=object), exponent


def encode(element: Element, values: Array) -> Array:
    """The code nearest to each value (any float type; computed in float64), ties to the even code; of an
    element with tables, in the first of them and with ties of its own.

    Too large saturates. Inf keeps its code where the element has one, else it saturates; NaN takes the quiet
    NaN code with its sign, and is an InputError where the element has none (counted, the first one located).
    Negative values, and values below the smallest exponent, saturate in an element that has none. Zero keeps
    its sign in floats.
    """
    reals = widen(values)
    if not element.has_nan:
        refuse_nan(reals, element.name)
    if element.kind == "table":
        return nearest_steps(element, 0, np.ldexp(reals, -element.step_exponent))
    if element.is_integer:
        steps = np.rint(np.ldexp(reals, -element.step_exponent))
        lowest = 0 if element.kind == "uint" else -element.max_code
        return np.clip(steps, lowest, element.max_code).astype(element.dtype)
    magnitude = np.abs(reals) if element.kind == "float" else np.maximum(reals, 0.0)
    special = ~np.isfinite(magnitude)
    safe = np.where(special, 0.0, magnitude)
    exponent = np.where(safe > 0, np.maximum(np.frexp(safe)[1] - 1, element.emin), element.emin)
    scaled = np.ldexp(safe, element.mantissa_bits - exponent)
    binade = (exponent.astype(np.int64) - element.emin) << element.mantissa_bits
    lower = np.floor(scaled).astype(np.int64) + binade
    remainder = scaled - np.floor(scaled)
    if element.kind == "exponent":
        lower -= 1
    codes: Array = lower + ((remainder > 0.5) | ((remainder == 0.5) & (lower % 2 == 1)))
    codes = np.clip(codes, 0, element.max_code)
    if special.any():
        inf_code = element.max_code + (1 if element.has_inf else 0)
        nan_code = element.max_code + 1 + (2 ** (element.mantissa_bits - 1) if element.has_inf else 0)
        codes = np.where(special, np.where(np.isnan(reals), nan_code, inf_code), codes)
    if element.kind == "float":
        codes |= np.signbit(reals).astype(np.int64) << (element.bits - 1)
    return codes.astype(element.dtype)


def widen(values: Array) -> Floats:
    """The values in float64; a signalling NaN becomes a quiet one without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(values, dtype=np.float64)


def refuse_nan(values: Array, format_name: str) -> None:
    """InputError when there is a NaN, with their number and the index of the first."""
    missing = np.isnan(values)
    if missing.any():
        first = ", ".join(
            str(int(index)) for index in np.unravel_index(int(np.argmax(missing)), missing.shape)
        )
        raise InputError(
            f"{int(missing.sum())} NaN among {values.size} values, the first at [{first}], "
            f"cannot be written in {format_name}, which has no NaN"
        )


def patterns(element: Element, codes: Array) -> npt.NDArray[np.uint64]:
    """Stored bit pattern of each code: two's complement, sign and magnitude, or the code itself."""
    wide = codes.astype(np.int64)
    if element.kind == "int":
        wide = wide & (2**element.bits - 1)
    elif element.kind == "sign_magnitude":
        wide = np.abs(wide) | ((wide < 0).astype(np.int64) << (element.bits - 1))
    return wide.astype(np.uint64)


def codes_of_patterns(element: Element, stored: npt.NDArray[np.uint64]) -> Array:
    """Inverse of `patterns` (a stored negative zero of a sign-magnitude element reads as 0)."""
    wide = stored.astype(np.int64)
    if element.kind == "int":
        wide = wide - ((wide >> (element.bits - 1)) << element.bits)
    elif element.kind == "sign_magnitude":
        magnitude = wide & (2 ** (element.bits - 1) - 1)
        wide = np.where(wide >> (element.bits - 1), -magnitude, magnitude)
    return wide.astype(element.dtype)
