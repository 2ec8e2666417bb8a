"""Element codes against ml_dtypes and gfloat, which we did not write, and against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest

from simulator.errors import InputError
from simulator.formats import get_format
from simulator.formats.element import (
    BF16,
    E8M0,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    Element,
    codes_of_patterns,
    decode,
    decode_integers,
    encode,
    integer,
    minifloat,
    patterns,
    sign_magnitude,
    widen,
)

ML_DTYPES = [
    (FP16, np.float16),
    (BF16, ml_dtypes.bfloat16),
    (FP8_E4M3, ml_dtypes.float8_e4m3fn),
    (FP8_E5M2, ml_dtypes.float8_e5m2),
    (minifloat(4, 3, "ieee"), ml_dtypes.float8_e4m3),
    (minifloat(3, 4, "ieee"), ml_dtypes.float8_e3m4),
    (FP6_E2M3, ml_dtypes.float6_e2m3fn),
    (FP6_E3M2, ml_dtypes.float6_e3m2fn),
    (FP4_E2M1, ml_dtypes.float4_e2m1fn),
]
GFLOAT = [
    (FP16, gfloat.formats.format_info_binary16),
    (BF16, gfloat.formats.format_info_bfloat16),
    (FP8_E4M3, gfloat.formats.format_info_ocp_e4m3),
    (FP8_E5M2, gfloat.formats.format_info_ocp_e5m2),
    (FP6_E2M3, gfloat.formats.format_info_ocp_e2m3),
    (FP6_E3M2, gfloat.formats.format_info_ocp_e3m2),
    (FP4_E2M1, gfloat.formats.format_info_ocp_e2m1),
]
MINIFLOATS = [
    minifloat(exponent, mantissa, specials)
    for exponent in range(1, 9)
    for mantissa in range(16 - exponent)
    for specials in ("none", "ieee")
    if exponent + mantissa >= 2 and (specials == "none" or (exponent >= 2 and mantissa >= 1))
]


def gfloat_minifloat(element: Element) -> gfloat.FormatInfo:
    ieee = element.specials == "ieee"
    return gfloat.FormatInfo(
        element.name,
        element.bits,
        element.mantissa_bits + 1,
        bias=2 ** (element.exponent_bits - 1) - 1,
        is_signed=True,
        domain=gfloat.Domain.Extended if ieee else gfloat.Domain.Finite,
        has_nz=True,
        num_high_nans=2**element.mantissa_bits - 1 if ieee else 0,
        has_subnormals=True,
        is_twos_complement=False,
    )


def all_codes(element: Element) -> np.ndarray:
    return np.arange(2**element.bits).astype(element.dtype)


def finite_values(element: Element) -> np.ndarray:
    values = np.unique(decode(element, all_codes(element)))
    return values[np.isfinite(values)]


def probes(element: Element) -> np.ndarray:
    """Every value, every midpoint and their float64 neighbours on both sides, all within the range."""
    values = finite_values(element)
    middles = (values[1:] + values[:-1]) / 2
    exact = np.concatenate([values, middles])
    every = np.concatenate([exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf)])
    return every[np.abs(every) <= element.max_value]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal as float64 patterns, all NaN alike."""
    a, b = widen(a), widen(b)
    nan = np.isnan(a)
    return bool((nan == np.isnan(b)).all() and (a[~nan].view(np.int64) == b[~nan].view(np.int64)).all())


@pytest.mark.parametrize(("element", "dtype"), ML_DTYPES, ids=lambda value: getattr(value, "name", None))
def test_every_code_decodes_as_in_ml_dtypes(element: Element, dtype: type) -> None:
    codes = all_codes(element)
    theirs = codes.astype(np.uint16 if element.bits > 8 else np.uint8).view(dtype)
    assert same_bits(decode(element, codes), theirs.astype(np.float32))


@pytest.mark.parametrize(("element", "info"), GFLOAT, ids=lambda value: getattr(value, "name", None))
def test_every_code_decodes_as_in_gfloat(element: Element, info: gfloat.FormatInfo) -> None:
    codes = all_codes(element)
    assert same_bits(decode(element, codes), gfloat.decode_ndarray(info, codes.astype(np.int64)))


@pytest.mark.parametrize("element", MINIFLOATS, ids=lambda element: element.name)
def test_every_code_of_any_minifloat_decodes_as_in_gfloat(element: Element) -> None:
    codes = all_codes(element)
    assert same_bits(
        decode(element, codes), gfloat.decode_ndarray(gfloat_minifloat(element), codes.astype(np.int64))
    )


@pytest.mark.parametrize(("element", "dtype"), ML_DTYPES, ids=lambda value: getattr(value, "name", None))
def test_values_and_midpoints_encode_as_in_ml_dtypes(element: Element, dtype: type) -> None:
    """ml_dtypes rounds float64 to its small types through float32, so the probes are values of float32."""
    values = np.unique(probes(element).astype(np.float32))
    values = values[np.abs(values) <= element.max_value]
    theirs = values.astype(dtype).view(np.uint16 if element.bits > 8 else np.uint8)
    np.testing.assert_array_equal(encode(element, values), theirs)


@pytest.mark.parametrize("element", [e for e in MINIFLOATS if e.bits <= 10], ids=lambda element: element.name)
def test_values_and_midpoints_of_any_minifloat_encode_as_in_gfloat(element: Element) -> None:
    info = gfloat_minifloat(element)
    values = probes(element)
    rounded = gfloat.round_ndarray(info, values, gfloat.RoundMode.TiesToEven)
    np.testing.assert_array_equal(encode(element, values), gfloat.encode_ndarray(info, rounded))


@pytest.mark.parametrize(
    "element", [*MINIFLOATS, *(e for e, _ in ML_DTYPES)], ids=lambda element: element.name
)
def test_zero_keeps_its_sign(element: Element) -> None:
    np.testing.assert_array_equal(encode(element, np.array([0.0, -0.0])), [0, 1 << (element.bits - 1)])


def test_e8m0_decodes_and_encodes_as_in_ml_dtypes_and_gfloat() -> None:
    codes = np.arange(256, dtype=np.uint8)
    values = decode(E8M0, codes)
    assert same_bits(values, codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))
    assert same_bits(
        values, gfloat.decode_ndarray(gfloat.formats.format_info_ocp_e8m0, codes.astype(np.int64))
    )
    np.testing.assert_array_equal(encode(E8M0, values), codes)


def test_fp32_decodes_and_encodes_as_numpy_does() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 2**32, 20000, dtype=np.uint32)
    floats = codes.view(np.float32)
    assert same_bits(decode(FP32, codes), floats)
    finite = np.isfinite(floats)
    np.testing.assert_array_equal(encode(FP32, floats)[finite], codes[finite])
    wide = rng.standard_normal(20000) * np.exp2(rng.integers(-160, 127, 20000))
    np.testing.assert_array_equal(encode(FP32, wide), wide.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("element", [*MINIFLOATS, *(e for e, _ in GFLOAT)], ids=lambda element: element.name)
def test_too_large_saturates_and_infinity_keeps_its_code_where_there_is_one(element: Element) -> None:
    beyond = np.array([element.max_value * 1.75, 1e300, np.inf])
    largest, huge, infinite = encode(element, beyond)
    assert largest == huge == element.max_code
    assert decode(element, np.array([infinite]))[0] == (np.inf if element.has_inf else element.max_value)
    sign = 1 << (element.bits - 1)
    np.testing.assert_array_equal(encode(element, -beyond), encode(element, beyond) | sign)


@pytest.mark.parametrize("element", [FP16, BF16, FP8_E4M3, FP8_E5M2], ids=lambda element: element.name)
def test_nan_becomes_a_nan_code_with_its_sign(element: Element) -> None:
    codes = encode(element, np.array([np.nan, -np.nan]))
    assert np.isnan(decode(element, codes)).all()
    np.testing.assert_array_equal(codes >> (element.bits - 1), [0, 1])


@pytest.mark.parametrize("element", [FP4_E2M1, minifloat(3, 4), integer(8), sign_magnitude(3)])
def test_nan_without_a_nan_code_is_counted_and_located(element: Element) -> None:
    values = np.zeros((3, 4))
    values[1, 2] = values[2, 0] = np.nan
    with pytest.raises(InputError, match=rf"2 NaN among 12 values, the first at \[1, 2\].*{element.name}"):
        encode(element, values)


@pytest.mark.parametrize(
    ("element", "largest", "smallest"),
    [
        (FP8_E4M3, 448, 2.0**-9),
        (FP8_E5M2, 57344, 2.0**-16),
        (FP6_E3M2, 28, 2.0**-4),
        (FP6_E2M3, 7.5, 0.125),
        (FP4_E2M1, 6, 0.5),
        (E8M0, 2.0**127, 2.0**-127),
        (FP16, 65504, 2.0**-24),
        (integer(8, step_exponent=-6), 127 / 64, 2.0**-6),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_ranges_are_those_of_the_ocp_tables(element: Element, largest: float, smallest: float) -> None:
    assert (element.max_value, element.min_positive) == (largest, smallest)


@pytest.mark.parametrize("element", [FP4_E2M1, FP8_E5M2, FP16, BF16, minifloat(8, 3), minifloat(1, 2)])
def test_integers_times_their_exponent_are_the_values_exactly(element: Element) -> None:
    codes = all_codes(element)
    codes = codes[np.isfinite(decode(element, codes))]
    integers, exponent = decode_integers(element, codes)
    values = decode(element, codes)
    assert all(int(n) * Fraction(2) ** exponent == Fraction(v) for n, v in zip(integers, values, strict=True))
    assert integers.dtype == (np.int64 if element.emax + 1 - exponent <= 63 else object)


def test_integer_codes_are_their_own_integers() -> None:
    for name, exponent in [("int4_g128", 0), ("mxint8", -6), ("msfp12", -2)]:
        codes = np.arange(-7, 8, dtype=np.int8)
        integers, found = get_format(name).element_integers(codes)
        np.testing.assert_array_equal(integers, codes)
        assert found == exponent
        np.testing.assert_array_equal(get_format(name).element_values(codes), codes * 2.0**exponent)


def test_infinity_has_no_integer() -> None:
    with pytest.raises(InputError, match="2 Inf or NaN codes of fp8_e5m2"):
        get_format("fp8_e5m2").element_integers(np.array([0, 0x7C, 0x7F], np.uint8))


def test_a_pattern_beyond_the_width_is_no_code() -> None:
    with pytest.raises(InputError, match=r"not a code of fp4_e2m1.*16"):
        get_format("mxfp4").element_values(np.array([3, 16], np.uint8))


@pytest.mark.parametrize(
    "element", [integer(5), integer(16), integer(3, signed=False), sign_magnitude(3), FP8_E4M3]
)
def test_stored_patterns_read_back(element: Element) -> None:
    top = element.max_code
    codes = np.arange(-top if element.dtype.kind == "i" else 0, top + 1).astype(element.dtype)
    stored = patterns(element, codes)
    assert int(stored.max()) < 2**element.bits
    np.testing.assert_array_equal(codes_of_patterns(element, stored), codes)


def test_signed_integers_are_stored_in_twos_complement_and_block_floats_in_sign_and_magnitude() -> None:
    assert patterns(integer(4), np.array([-3], np.int8))[0] == 0b1101
    assert patterns(sign_magnitude(3), np.array([-3], np.int8))[0] == 0b1011
