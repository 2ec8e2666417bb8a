"""Elements by table: flint, powers of two, one bit, ternary; QServe's integers; odd numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.errors import InputError
from simulator.formats import dequantize, exact_integers, get_format, pack, quantize, unpack
from simulator.formats.binarized import WORD_BITS, ternary_codes, ternary_words
from simulator.formats.bipolar import bipolar, bit_planes, odd_numbers
from simulator.formats.element import Element, decode, encode, levels, value_table
from simulator.formats.qserve import PROTECTIVE_RANGE, first_level, integer_scales

values32 = st.floats(-(2.0**20), 2.0**20, width=32)
rows32 = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=values32)


def all_values(name: str) -> list[float]:
    element = get_format(name).element
    codes = np.arange(2**element.bits)
    if element.is_integer:
        codes = np.arange(-element.max_code, element.max_code + 1)
    return sorted({abs(v) for v in decode(element, codes.astype(element.dtype)).tolist()})


# Table of data types of Chen et al., BitMoD, HPCA 2025, scaled to integers.
STEPS_OF_FP6_E3M2 = [
    *range(8), *range(8, 16, 2), *range(16, 32, 4), *range(32, 64, 8), *range(64, 128, 16),
    *range(128, 256, 32), *range(256, 449, 64),
]  # fmt: skip
TYPES = {
    "int3": [0, 1, 2, 3],
    "int4": list(range(8)),
    "fp4_e2m1": [0, 1, 2, 3, 4, 6, 8, 12],
    "flint4": [0, 1, 2, 3, 4, 6, 8, 16],
    "e2m2": [*range(9), 10, 12, 14, 16, 20, 24, 28],
    "e3m1": [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192],
    "flint5": [*range(9), 10, 12, 14, 16, 24, 32, 64],
    "fp6_e2m3": [*range(16), *range(16, 32, 2), *range(32, 61, 4)],
    "fp6_e3m2": STEPS_OF_FP6_E3M2,
    "pot4": [0, 1, 2, 4, 8, 16, 32, 64],
    "pot3": [0, 1, 2, 4],
    "binary": [1],
    "ternary": [0, 1],
}


@pytest.mark.parametrize("name", TYPES)
def test_value_sets_are_the_published_ones(name: str) -> None:
    found = all_values(name)
    step = get_format(name).element.min_positive
    assert [value / step for value in found] == TYPES[name]


def test_unsigned_flint_is_the_golden_table() -> None:
    golden = [0, 1, 2, 3, 4, 5, 6, 7, 64, 32, 16, 24, 8, 10, 12, 14]
    assert decode(get_format("uflint4").element, np.arange(16, dtype=np.uint8)).tolist() == golden


def test_signed_flint_is_a_sign_and_an_unsigned_flint() -> None:
    positive = [0, 1, 2, 3, 16, 8, 4, 6]
    found = decode(get_format("flint4").element, np.arange(16, dtype=np.uint8))
    assert found.tolist() == positive + [-value for value in positive]


@pytest.mark.parametrize("bits", range(2, 9))
def test_flint_spends_mantissa_bits_around_the_middle(bits: int) -> None:
    """ANT's value generator: interval e holds 2**m values, m = k - 2 - e above the middle and k - 1 + e below."""
    expected = {Fraction(0), Fraction(2) ** (bits - 1)}
    for e in range(-(bits - 1), bits - 1):
        mantissa = bits - 2 - e if e >= 0 else bits - 2 - (-e - 1)
        expected |= {Fraction(2) ** e * (1 + Fraction(j, 2**mantissa)) for j in range(2**mantissa)}
    element = get_format(f"uflint{bits}").element
    found = {Fraction(v) / 2 ** (bits - 1) for v in decode(element, np.arange(2**bits)).tolist()}
    assert found == expected


@pytest.mark.parametrize("name", ["flint4", "uflint4", "flint8", "pot4", "binary", "bitmod_fp4"])
def test_encoding_takes_the_nearest_value_and_ties_to_one_side(name: str) -> None:
    element = get_format(name).element
    found = levels(element, 0)
    assert element.ties == ("lower" if name == "bitmod_fp4" else "upper")
    values = found.values.tolist()
    for low, high in pairwise(values):
        middle = (low + high) / 2
        around = np.array([low, np.nextafter(middle, low), middle, np.nextafter(middle, high), high])
        tie = high if element.ties == "upper" else low
        codes = encode(element, around)
        selectors = np.zeros(5, int)
        assert decode(element, codes, selectors).tolist() == [low, low, tie, high, high]
    ends = encode(element, np.array([-1e30, 1e30, -np.inf, np.inf]))
    assert decode(element, ends, np.zeros(4, int)).tolist() == [values[0], values[-1]] * 2


@settings(max_examples=40, deadline=None)
@given(x=rows32, name=st.sampled_from(["flint4_g6", "pot4_g6", "flint5_channel", "uflint3_g6", "uflint4"]))
def test_table_formats_equal_exact_arithmetic(x: np.ndarray, name: str) -> None:
    qt = quantize(x, name)
    format_ = qt.format
    grid = sorted(set(format_.element.tables[0]))
    group = format_.group_size or x.shape[1]
    integers, _ = exact_integers(qt)
    scales = np.broadcast_to(qt.scales, (len(x), -(-x.shape[1] // group)))
    for r, row in enumerate(x.tolist()):
        for g in range(0, len(row), group):
            values = [Fraction(w) for w in row[g : g + group]]
            among = values if format_.granularity != "tensor" else [Fraction(w) for w in x.ravel().tolist()]
            largest = max([abs(w) if grid[0] < 0 else w for w in among] + [Fraction(0)])
            fp16 = np.float16(min(float(largest / grid[-1]), 65504.0))
            scale = Fraction(float(max(fp16, np.float16(2**-24))))
            assert Fraction(float(scales[r, g // group])) == scale
            expected = [min(grid, key=lambda v: (abs(v - w / scale), -v)) for w in values]
            assert integers[r, g : g + group].tolist() == expected


@settings(max_examples=40, deadline=None)
@given(
    x=rows32,
    name=st.sampled_from(["ternary", "ternary_channel", "ternary_g6", "binary", "binary_token", "binary_g6"]),
)
def test_the_scale_of_one_bit_and_of_three_values_is_the_mean_magnitude(x: np.ndarray, name: str) -> None:
    qt = quantize(x, name)
    group = {"_g6": 6}.get(name[-3:], x.shape[1])
    integers, _ = exact_integers(qt)
    scales = np.broadcast_to(qt.scales, (len(x), -(-x.shape[1] // group)))
    for r, row in enumerate(x.tolist()):
        for g in range(0, len(row), group):
            values = [Fraction(w) for w in row[g : g + group]]
            among = [Fraction(w) for w in x.ravel().tolist()] if "_" not in name else values
            mean = sum(map(abs, among)) / len(among)
            scale = Fraction(float(scales[r, g // group]))
            stored = max(min(mean, Fraction(65504)), Fraction(1, 2**24))
            assert abs(scale - stored) <= max(stored * Fraction(1, 2**11), Fraction(1, 2**25)) * Fraction(
                1001, 1000
            )
            if name.startswith("ternary"):
                expected = [max(-1, min(1, round(w / scale))) for w in values]
            else:
                expected = [1 if w >= 0 else -1 for w in values]
            assert integers[r, g : g + group].tolist() == expected


def test_means_that_can_be_written_are_stored_exactly() -> None:
    x = np.array([[1, -2, 3, 0.5, -0.5, 5]], np.float32)
    assert quantize(x, "ternary").scales == 2
    assert quantize(x, "ternary_g2").scales.tolist() == [[1.5, 1.75, 2.75]]
    assert quantize(x, "ternary").codes.tolist() == [[0, -1, 1, 0, 0, 1]]  # 1 / 2 goes to even
    assert quantize(x, "binary").codes.tolist() == [[1, 0, 1, 1, 0, 1]]
    assert get_format("ternary").bits_per_value() == 2
    assert get_format("binary_g64").bits_per_value() == 1.25
    assert not dequantize(quantize(np.zeros((2, 3)), "ternary")).any()


@pytest.mark.parametrize("per_word", [1, 3, 5])
def test_ternary_words_hold_every_combination(per_word: int) -> None:
    every = np.array(list(product((-1, 0, 1), repeat=per_word)), np.int8)
    words = ternary_words(every, per_word)
    assert words.shape == (3**per_word, 1)
    assert len(set(words.ravel().tolist())) == 3**per_word <= 2 ** WORD_BITS[per_word]
    np.testing.assert_array_equal(ternary_codes(words, per_word, per_word), every)


def test_ternary_words_of_a_ragged_row_read_back() -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (2, 3, 22))
    for per_word, count in ((3, 8), (5, 5)):
        words = ternary_words(codes, per_word)
        assert words.shape == (2, 3, count)
        np.testing.assert_array_equal(ternary_codes(words, per_word, 22), codes)
    with pytest.raises(InputError, match="1, 3, 5"):
        ternary_words(codes, 4)
    with pytest.raises(InputError, match="found 2"):
        ternary_words(codes + 1, 5)


def dequantized_ends(limit: int) -> np.ndarray:
    """The ends of every range within +-limit, after QServe's second step."""
    lowest, highest = np.mgrid[-limit : limit + 1, -limit : limit + 1]
    ordered = lowest <= highest
    lowest, highest = lowest[ordered], highest[ordered]
    scales, zeros = integer_scales(lowest, highest, 15)
    ends = np.concatenate([lowest, highest])
    scales, zeros = np.tile(scales, 2), np.tile(zeros, 2)
    return (np.clip(np.rint(ends / scales) + zeros, 0, 15) - zeros) * scales


def test_the_protective_range_is_the_widest_that_stays_in_int8() -> None:
    safe = dequantized_ends(PROTECTIVE_RANGE)
    assert (safe.min(), safe.max()) == (-121, 121)
    for limit, overflows in ((120, 7), (127, 278)):
        found = dequantized_ends(limit)
        assert int(((found < -128) | (found > 127)).sum()) == overflows


@settings(max_examples=60, deadline=None)
@given(x=rows32)
def test_qserve_equals_its_two_steps_in_exact_arithmetic(x: np.ndarray) -> None:
    qt = quantize(x, "qserve_uint4_g6")
    for r, row in enumerate(x.tolist()):
        values = [Fraction(w) for w in row]
        largest = max(map(abs, values)) / 119
        fp16 = Fraction(float(max(np.float16(float(largest)), np.float16(2**-24))))
        assert Fraction(float(qt.row_scales[r, 0])) == fp16
        first = [max(-119, min(119, round(w / fp16))) for w in values]
        for g in range(0, len(row), 6):
            group = first[g : g + 6]
            low, high = min([*group, 0]), max([*group, 0])
            scale = max(1, round(Fraction(high - low, 15)))
            zero = max(0, min(15, round(Fraction(-low, scale))))
            codes = [max(0, min(15, round(Fraction(w, scale)) + zero)) for w in group]
            assert (qt.scales[r, g // 6], qt.zero_points[r, g // 6]) == (scale, zero)
            assert qt.codes[r, g : g + 6].tolist() == codes
    integers = first_level(qt)
    assert np.abs(integers).max() <= 121
    np.testing.assert_array_equal(dequantize(qt, np.float64), integers * qt.row_scales.astype(np.float64))


def test_qserve_stores_twelve_bits_a_group() -> None:
    format_ = get_format("qserve_uint4")
    assert format_.name == "qserve_uint4_g128"
    assert format_.bits_per_value() == 4 + 12 / 128
    assert format_.element.name == "uint4"
    x = np.random.default_rng(0).standard_normal((3, 200)).astype(np.float32)
    qt = quantize(x, format_)
    assert len(pack(qt)) * 8 == format_.storage_bits(3, 200) == 3 * (200 * 4 + 2 * 12 + 16)
    np.testing.assert_array_equal(dequantize(unpack(pack(qt), format_, x.shape)), dequantize(qt))


@pytest.mark.parametrize("bits", range(1, 9))
def test_odd_numbers_are_exact_for_every_code(bits: int) -> None:
    codes = np.arange(2**bits)
    odd = 2 * codes - (2**bits - 1)
    if bits > 1:
        np.testing.assert_array_equal(odd_numbers(codes, get_format(f"uint{bits}")), odd)
        signed = codes - 2 ** (bits - 1)
        np.testing.assert_array_equal(odd_numbers(signed, get_format(f"int{bits}")), odd)
    planes = bit_planes(odd, bits)
    assert set(planes.ravel().tolist()) == {-1, 1}
    assert planes.shape == (bits, 2**bits)
    np.testing.assert_array_equal((planes * (1 << np.arange(bits))[:, None]).sum(axis=0), odd)


@pytest.mark.parametrize(
    "name", ["int4_g8", "int4_g8_asym", "uint2_g8_asym", "mxint8", "int3", "int4_g8_su4"]
)
def test_a_tensor_in_odd_numbers_is_the_same_tensor(name: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    qt = quantize(x, name)
    found = bipolar(qt)
    assert (found.odd % 2 == 1).all()
    group = qt.format.group_size or 32
    scales, zeros = (
        np.repeat(np.broadcast_to(v, (4, 32 // group)), group, axis=1)
        for v in (found.scales, found.zero_points)
    )
    np.testing.assert_array_equal((found.odd - zeros) * scales, dequantize(qt, np.float64))


def test_only_integers_become_odd() -> None:
    with pytest.raises(InputError, match="fp4_e2m1"):
        bipolar(quantize(np.ones((1, 4)), "fp4_e2m1"))
    with pytest.raises(InputError, match=r"\+-3"):
        bit_planes(np.array([5]), 2)


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ([], {}, "2 to 65536"),
        ([(1, 2, 3)], {}, "4 integers"),
        ([(1, 2), (1, 2, 3, 4)], {}, "2 integers"),
        ([(0, 0)], {}, "zeros only"),
        ([(0, 0.5)], {}, "an int"),
        ([(0, 2**41)], {}, "an int"),
        ([(0, 1)], {"ties": "even"}, "lower, upper"),
    ],
)
def test_tables_that_cannot_be_are_refused(
    tables: list[tuple[int, ...]], options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        value_table("mine", *tables, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="only table elements"):
        Element("int4", "int", 4, tables=((1, 2),))


def test_codes_and_selectors_out_of_range_are_refused() -> None:
    element = get_format("bitmod_fp3").element
    with pytest.raises(InputError, match=r"not a code of bitmod_fp3.*found 8.*0 to 7"):
        decode(element, np.array([1, 8]), np.array([0, 0]))
    with pytest.raises(InputError, match=r"not a selector.*found 4.*0 to 3"):
        decode(element, np.array([1, 2]), np.array([0, 4]))
    with pytest.raises(InputError, match="selectors are needed"):
        decode(element, np.array([1, 2]))
    format_ = get_format("bitmod_fp3_g2")
    with pytest.raises(InputError, match=r"shape \(1, 2\)"):
        format_.element_integers(np.zeros((1, 4), int), np.zeros((1, 4), int))
