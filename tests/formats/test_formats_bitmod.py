"""BitMoD's types and two-level scales against a second implementation in fractions, written here."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.errors import InputError
from simulator.formats import dequantize, exact_integers, get_format, pack, quantize, quantizer, unpack
from simulator.formats.element import decode

# Chen et al., HPCA 2025: magnitudes, then the special values ER+, ER-, EA+, EA-.
PUBLISHED = {
    3: ((0, 1, 2, 4), (3, -3, 6, -6)),
    4: ((0, 1, 2, 3, 4, 6, 8, 12), (10, -10, 16, -16)),
}
values32 = st.floats(-(2.0**10), 2.0**10, width=32)
rows32 = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=values32)


def grids(bits: int) -> list[list[int]]:
    magnitudes, specials = PUBLISHED[bits]
    return [sorted({s * m for m in magnitudes for s in (1, -1)} | {special}) for special in specials]


def nearest(grid: list[int], x: Fraction) -> int:
    """The nearest value, of two the lower."""
    return min(grid, key=lambda value: (abs(value - x), value))


def fp16(x: Fraction) -> Fraction:
    return Fraction(float(max(np.float16(float(x)), np.float16(2**-24))))


def clamped(scale: Fraction) -> Fraction:
    """As the released quantizer limits it, in the float64 that we compute in."""
    return Fraction(min(max(float(scale), 1e-5), 1e4))


def choose(group: list[Fraction], bits: int, stored: bool) -> int:
    """The grid with the least squared error at the scale of its largest magnitude, the first of equals."""
    errors = []
    for grid in grids(bits):
        scale = clamped(max(map(abs, group)) / max(map(abs, grid)))
        scale = fp16(scale) if stored else scale
        errors.append(sum((scale * nearest(grid, w / scale) - w) ** 2 for w in group))
    return errors.index(min(errors))


def is_close_race(group: list[Fraction], bits: int, stored: bool) -> bool:
    """Errors so near to each other, or values so near to a midpoint, that float64 may see it otherwise."""
    errors = []
    for grid in grids(bits):
        scale = clamped(max(map(abs, group)) / max(map(abs, grid)))
        scale = fp16(scale) if stored else scale
        errors.append(float(sum((scale * nearest(grid, w / scale) - w) ** 2 for w in group)))
    first, second = sorted(errors)[:2]
    return second - first < 1e-9 * max(float(w) ** 2 for w in group)


@pytest.mark.parametrize("bits", [3, 4])
def test_value_sets_are_the_published_ones(bits: int) -> None:
    element = get_format(f"bitmod_fp{bits}").element
    codes = np.arange(2**bits, dtype=np.uint8)
    for selector, grid in enumerate(grids(bits)):
        found = decode(element, codes, np.full(codes.shape, selector))
        assert sorted(found) == grid
        assert found[2 ** (bits - 1)] == PUBLISHED[bits][1][selector]  # negative zero
        assert [abs(value) for value in found[: 2 ** (bits - 1)]] == list(PUBLISHED[bits][0])


@pytest.mark.parametrize("bits", [3, 4])
def test_every_value_is_at_most_two_ones_of_the_decoded_word(bits: int) -> None:
    """{I3 I2 I1 I0 . F0} in E2M1 units, which is the integer in halves; the special 16 takes I3 alone."""
    for grid in grids(bits):
        for value in grid:
            ones = [1 << place for place in range(5) if abs(value) >> place & 1]
            assert len(ones) <= 2
            assert sum(ones) == abs(value)


@settings(max_examples=60, deadline=None)
@given(x=rows32, bits=st.sampled_from([3, 4]))
def test_one_level_equals_exact_arithmetic(x: np.ndarray, bits: int) -> None:
    qt = quantize(x, f"bitmod_fp{bits}_g7_sfp16")
    values, exponent = exact_integers(qt)
    assert exponent == 0
    for r, row in enumerate(x.tolist()):
        for g in range(0, len(row), 7):
            group = [Fraction(w) for w in row[g : g + 7]]
            if not is_close_race(group, bits, stored=True):
                assert qt.selectors[r, g // 7] == choose(group, bits, stored=True)
            grid = grids(bits)[qt.selectors[r, g // 7]]
            scale = fp16(clamped(max(map(abs, group)) / max(map(abs, grid))))
            assert Fraction(float(qt.scales[r, g // 7])) == scale
            assert values[r, g : g + 7].tolist() == [nearest(grid, w / scale) for w in group]


@settings(max_examples=60, deadline=None)
@given(x=rows32, bits=st.sampled_from([3, 4]))
def test_two_levels_equal_exact_arithmetic(x: np.ndarray, bits: int) -> None:
    qt = quantize(x, f"bitmod_fp{bits}_g7")
    values, _ = exact_integers(qt)
    for r, row in enumerate(x.tolist()):
        groups = [[Fraction(w) for w in row[g : g + 7]] for g in range(0, len(row), 7)]
        for group, selector in zip(groups, qt.selectors[r], strict=True):
            if not is_close_race(group, bits, stored=False):
                assert selector == choose(group, bits, stored=False)
        used = [grids(bits)[selector] for selector in qt.selectors[r]]
        wanted = [
            clamped(max(map(abs, group)) / max(map(abs, grid)))
            for group, grid in zip(groups, used, strict=True)
        ]
        of_row = fp16(Fraction(float(max(wanted)) / 127))
        assert Fraction(float(qt.row_scales[r, 0])) == of_row
        for g, (group, grid) in enumerate(zip(groups, used, strict=True)):
            exact = wanted[g] / of_row
            whole = min(max(round(exact), 1), 127)
            if abs(exact * 2 - round(exact * 2)) > 1e-9:  # not at a tie, where float64 may round either way
                assert qt.scales[r, g] == whole
            scale = of_row * int(qt.scales[r, g])
            assert values[r, 7 * g : 7 * g + 7].tolist() == [nearest(grid, w / scale) for w in group]


def test_midway_goes_to_the_lower_value() -> None:
    # Scale 1 at the largest magnitude 12; so many values of 10 make ER+ the best type.
    x = np.array([[12, 0.5, -0.5, 1.5, 5, 7, -5, -7, -10, 11, *[10] * 12]], np.float32)
    qt = quantize(x, "bitmod_fp4_g32_sfp16")
    assert qt.scales[0, 0] == 1
    assert qt.selectors[0, 0] == 0
    assert exact_integers(qt)[0].tolist() == [[12, 0, -1, 1, 4, 6, -6, -8, -12, 10, *[10] * 12]]


@pytest.mark.parametrize(
    ("group", "selector"),
    [
        ([12, 10, 1], 0),
        ([12, -10, 1], 1),
        ([16, 12, -12, 1], 2),
        ([-16, 12, -12, 1], 3),
        ([12, 8, -8, 1], 0),  # the special value of none is used: the first type
        ([0, 0, 0], 0),
    ],
)
def test_each_group_takes_the_type_of_least_error(group: list[float], selector: int) -> None:
    x = np.array([group], np.float32)
    qt = quantize(x, "bitmod_fp4_g128_sfp16")
    assert qt.selectors[0, 0] == selector
    np.testing.assert_array_equal(dequantize(qt), x)


def test_metadata_are_ten_bits_a_group() -> None:
    for bits in (3, 4):
        format_ = get_format(f"bitmod_fp{bits}")
        assert format_.name == f"bitmod_fp{bits}_g128"
        assert format_.bits_per_value() == bits + 10 / 128
        assert format_.storage_bits(3, 256) == 3 * (256 * bits + 2 * 10 + 16)


def test_negative_zero_of_a_row_is_its_own_special_value() -> None:
    x = np.random.default_rng(1).standard_normal((5, 300)).astype(np.float32)
    qt = quantize(x, "bitmod_fp3_g64")
    read = unpack(pack(qt), "bitmod_fp3_g64", x.shape)
    np.testing.assert_array_equal(exact_integers(read)[0], exact_integers(qt)[0])
    np.testing.assert_array_equal(dequantize(read), dequantize(qt))
    specials = np.array([3, -3, 6, -6])[np.repeat(qt.selectors, 64, axis=1)[:, :300]]
    np.testing.assert_array_equal(exact_integers(qt)[0][qt.codes == 4], specials[qt.codes == 4])


@pytest.mark.parametrize(
    "name",
    ["bitmod_fp4_g128", "bitmod_fp3_g48", "bitmod_fp4_channel", "flint4_g32", "pot4_channel", "uflint4",
     "int4_g16_su4", "int6_g128_si8_asym", "fp4_e2m1_g128_sm1", "fp4_e2m1_g128_sm2"],
)  # fmt: skip
@pytest.mark.parametrize("search", ["maxabs", "mse"])
def test_kernels_give_the_same_bits(name: str, search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 300)) * np.exp2(rng.integers(-9, 9, (20, 300)))
    x[3] = np.rint(x[3])
    x = x.astype(np.float32)
    plain = quantize(x, name, scale=search)  # type: ignore[arg-type]
    monkeypatch.setattr(quantizer, "COMPILED_FROM", 1)
    assert pack(quantize(x, name, scale=search)) == pack(plain)  # type: ignore[arg-type]


def test_integer_group_scales_lie_under_a_scale_of_the_row() -> None:
    """VS-Quant: the largest group scale of a row becomes the largest integer, the others their share."""
    x = np.zeros((2, 64), np.float32)
    x[0, ::16] = [7, 14, 3.5, 105]
    x[1, ::16] = [0.7, 0, 0, 0.35]
    qt = quantize(x, "int4_g16_su4")
    np.testing.assert_array_equal(
        qt.scales, [[1, 2, 1, 15], [15, 1, 1, 7]]
    )  # 0.5 goes to 0, but 1 is the least
    np.testing.assert_array_equal(qt.row_scales, [[1], [np.float16(0.1 / 15)]])
    assert qt.codes[0, ::16].tolist() == [7, 7, 4, 7]  # 3.5 to even
    assert get_format("int4_g16_su4").bits_per_value(64) == 4 + 4 / 16 + 16 / 64


@settings(max_examples=40, deadline=None)
@given(
    x=rows32,
    name=st.sampled_from(["int4_g5_su4", "int6_g5_si8", "uint4_g5_su6_asym", "fp4_g5_su4", "flint4_g5_si8"]),
)
def test_two_levels_are_as_good_as_their_scales(x: np.ndarray, name: str) -> None:
    """No value within a group's range is farther from its code's than half the widest step."""
    qt = quantize(x, name)
    scale = np.repeat(qt.group_scales, 5, axis=1)[:, : x.shape[1]]
    zeros = 0 if qt.zero_points is None else np.repeat(qt.zero_points, 5, axis=1)[:, : x.shape[1]]
    element = qt.format.element
    steps = np.unique(
        np.arange(*qt.format.code_range, dtype=float)
        if qt.format.is_integer
        else decode(element, np.arange(16, dtype=np.uint8))
    )
    top, bottom = (steps.max() + qt.format.is_integer - zeros) * scale, (steps.min() - zeros) * scale
    inside = (x <= top) & (x >= bottom)
    error = np.abs(dequantize(qt, np.float64) - x)
    assert (error <= np.diff(steps).max() / 2 * scale * (1 + 1e-12))[inside].all()


def test_m1_scales_are_powers_of_two_that_saturate_nothing() -> None:
    x = np.array([[6, 1, 0, 6.5, 1, 0, 12, 3, 0]], np.float32)
    qt = quantize(x, "fp4_g3_sm1")
    assert qt.scales.tolist() == [[1, 2, 2]]
    assert quantize(x, "fp4_g3_sm1", scale_rule="floor").scales.tolist() == [[1, 1, 2]]


def test_m2_scales_are_the_largest_over_powers_of_two() -> None:
    """S_i = S_max / 2**ceil(log2(S_max / S_i)): rounded down, so that a group between powers saturates."""
    x = np.array([[9, 1, 4.5, 1, 4.6, 1, 0, 0]], np.float32)
    qt = quantize(x, "fp4_g2_sm2")
    assert qt.row_scales.tolist() == [[1.5]]
    assert qt.scales.tolist() == [[1, 0.5, 0.5, 2.0**-64]]
    assert dequantize(qt)[0, 4] == 4.5
    assert not dequantize(qt)[0, 6:].any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bitmod_fp4_tensor", "for each group"),
        ("bitmod_fp4_channel_si8", "no groups below"),
        ("bitmod_fp4_asym", "no integer zero point"),
        ("bitmod_fp5", "did you mean"),
        ("int4_su4", "no groups below"),
        ("int4_channel_sm2", "no groups below"),
        ("int4_g16_su1", "_su<2..12>"),
        ("int4_g16_si13", "_su<2..12>"),
        ("int4_g16_sm1_asym", "symmetric"),
        ("mxfp4_su4", "shares a scale per block"),
        ("fp16_su4", "without a scale"),
    ],
)
def test_suffixes_that_do_not_fit_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_format(name)


@pytest.mark.parametrize(
    ("spelled", "canonical"),
    [
        ("BitMoD-FP4", "bitmod_fp4_g128"),
        ("bitmod_fp3_g64", "bitmod_fp3_g64"),
        ("bitmod_fp4_g128_si8", "bitmod_fp4_g128"),
        ("bitmod_fp4_sfp16", "bitmod_fp4_g128_sfp16"),
        ("bitmod_fp4_channel", "bitmod_fp4_channel"),
        ("bitmod_fp4_channel_sfp16", "bitmod_fp4_channel"),
        ("int4_g16_sfp16", "int4_g16"),
        ("int6_g128_si8", "int6_g128_si8"),
        ("uint4_g128_su8_asym", "uint4_g128_su8_asym"),
        ("fp4_g256_sm1", "fp4_e2m1_g256_sm1"),
    ],
)
def test_names_with_scales_have_one_spelling(spelled: str, canonical: str) -> None:
    assert get_format(spelled).name == canonical
    assert get_format(canonical) == get_format(spelled)
