"""Quantization against a slow second implementation in fractions, written here, and the laws it obeys."""

from __future__ import annotations

import tracemalloc
from bisect import bisect_left
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.errors import InputError
from simulator.formats import (
    Format,
    QuantizedTensor,
    dequantize,
    exact_integers,
    format_names,
    get_format,
    quantize,
    quantizer,
    tensor,
)

SCALED = [name for name in format_names() if get_format(name).scale_element is not None]
SEARCHED = [name for name in SCALED if get_format(name).quantizer is None]

# Positive values of each element and scale, in the order of their codes, from the layout as the standards
# write it.


def float_grid(exponent_bits: int, mantissa_bits: int, codes: int) -> list[Fraction]:
    bias = 2 ** (exponent_bits - 1) - 1
    grid = []
    for code in range(codes):
        field, fraction = divmod(code, 2**mantissa_bits)
        leading, power = (1, field - bias) if field else (0, 1 - bias)
        grid.append((leading + Fraction(fraction, 2**mantissa_bits)) * Fraction(2) ** power)
    return grid


def integer_grid(largest: int, step: Fraction = Fraction(1)) -> list[Fraction]:
    return [step * n for n in range(largest + 1)]


GRIDS = {
    "fp8_e4m3": float_grid(4, 3, 0x7F),
    "fp8_e5m2": float_grid(5, 2, 0x7C),
    "fp6_e3m2": float_grid(3, 2, 32),
    "fp6_e2m3": float_grid(2, 3, 32),
    "fp4_e2m1": float_grid(2, 1, 8),
    "e3m4": float_grid(3, 4, 128),
    "int2": integer_grid(1),
    "int4": integer_grid(7),
    "int8": integer_grid(127),
    "int16": integer_grid(32767),
    "mxint8": integer_grid(127, Fraction(1, 64)),
    "mxint4": integer_grid(7, Fraction(1, 4)),
    "msfp12": integer_grid(7, Fraction(1, 4)),
    "bfp7_b64": integer_grid(127, Fraction(1, 64)),
}
FP16_GRID = float_grid(5, 10, 0x7C00)


def nearest_index(grid: list[Fraction], value: Fraction) -> int:
    """Index of the nearest value of an ascending grid, ties to the even index, saturating."""
    above = bisect_left(grid, value)
    if above == len(grid):
        return above - 1
    if above == 0:
        return 0
    up, down = grid[above] - value, value - grid[above - 1]
    if up == down:
        return above if above % 2 == 0 else above - 1
    return above if up < down else above - 1


def floor_log2(value: Fraction) -> int:
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= value else exponent - 1


def shared_scale(largest: Fraction, grid: list[Fraction], rule: str) -> Fraction:
    if largest == 0:
        return Fraction(2) ** -127
    emax = floor_log2(grid[-1])
    if rule == "floor":
        exponent = floor_log2(largest) - emax
    elif rule == "ceil":
        exponent = floor_log2(largest) - emax - 2
        while largest > grid[-1] * Fraction(2) ** exponent:
            exponent += 1
    else:
        top_binade = [value for value in grid if value >= Fraction(2) ** emax]
        steps = (
            1
            / Fraction(top_binade[1] - top_binade[0] if len(top_binade) > 1 else 2**emax)
            * Fraction(2) ** emax
        )
        scaled = largest / Fraction(2) ** floor_log2(largest) * steps
        rounded = scaled.__round__()
        exponent = floor_log2(largest) - emax + (1 if rounded == 2 * steps else 0)
    return Fraction(2) ** max(-127, min(127, exponent))


def expected_magnitudes(row: np.ndarray, grid: list[Fraction], scale: Fraction) -> list[int]:
    return [nearest_index(grid, abs(Fraction(float(value))) / scale) for value in row]


def magnitudes(qt: QuantizedTensor) -> np.ndarray:
    if qt.format.is_integer:
        return np.abs(qt.codes.astype(np.int64))
    return qt.codes.astype(np.int64) & (2 ** (qt.format.code_bits - 1) - 1)


def largest_of(row: np.ndarray) -> Fraction:
    return max((abs(Fraction(float(value))) for value in row), default=Fraction(0))


@cache
def hard_rows() -> np.ndarray:
    """float32 rows of 70: ordinary, wide, tiny, subnormal, near the float32 maximum, powers of two, zeros."""
    rng = np.random.default_rng(7)
    ordinary = rng.standard_normal((6, 70))
    wide = rng.standard_normal((6, 70)) * np.exp2(rng.integers(-140, 120, (6, 70)))
    tiny = rng.standard_normal((2, 70)) * 1e-44
    huge = rng.uniform(-1, 1, (3, 70)) * np.finfo(np.float32).max
    powers = np.exp2(rng.integers(-8, 8, (3, 70))) * rng.choice([-1, 1], (3, 70))
    halves = rng.integers(-600, 600, (4, 70)) / 16
    sparse = np.where(rng.random((3, 70)) < 0.9, 0, rng.standard_normal((3, 70)))
    extremes = np.zeros((3, 70))
    extremes[1, :3] = [np.finfo(np.float32).max, -1e-45, 1e-45]
    extremes[2, 5] = -1e-45
    every = [ordinary, wide, tiny, huge, powers, halves, sparse, extremes]
    return np.concatenate(every).astype(np.float32)


@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
@pytest.mark.parametrize(
    "name",
    [
        "mxfp8_e4m3",
        "mxfp8_e5m2",
        "mxfp6_e3m2",
        "mxfp6_e2m3",
        "mxfp4",
        "mxint8",
        "mxint4",
        "msfp12",
        "bfp7_b64",
    ],
)
def test_shared_exponent_blocks_equal_exact_arithmetic(name: str, rule: str) -> None:
    format_ = get_format(name)
    grid = GRIDS.get(name) or GRIDS[format_.element.name]
    x = hard_rows()
    qt = quantize(x, name, scale_rule=rule)
    for r, row in enumerate(x):
        for g, start in enumerate(range(0, 70, format_.group_size)):
            block = row[start : start + format_.group_size]
            scale = shared_scale(largest_of(block), grid, rule)
            assert Fraction(float(qt.scales[r, g])) == scale
            found = magnitudes(qt)[r, start : start + format_.group_size]
            assert found.tolist() == expected_magnitudes(block, grid, scale)


@pytest.mark.parametrize(
    "name", ["int2", "int4", "int8", "int16", "fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp4_e2m1", "e3m4"]
)
@pytest.mark.parametrize("suffix", ["_g16", "_channel", ""])
def test_symmetric_groups_with_fp16_scales_equal_exact_arithmetic(name: str, suffix: str) -> None:
    grid = GRIDS[name]
    x = hard_rows()
    qt = quantize(x, name + suffix)
    group = {"_g16": 16}.get(suffix, 70)
    scales = np.broadcast_to(qt.scales, (len(x), -(-70 // group)))
    for r, row in enumerate(x):
        for g, start in enumerate(range(0, 70, group)):
            values = row[start : start + group]
            largest = largest_of(values if suffix else x.ravel())
            scale = FP16_GRID[max(1, nearest_index(FP16_GRID, largest / grid[-1]))]
            assert Fraction(float(scales[r, g])) == scale
            assert magnitudes(qt)[r, start : start + group].tolist() == expected_magnitudes(
                values, grid, scale
            )


def nearest_float32(value: Fraction) -> Fraction:
    guess = np.float32(float(value))
    near = [np.nextafter(guess, np.float32(0)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(
        (Fraction(float(v)) for v in near), key=lambda v: (abs(v - value), v != Fraction(float(guess)))
    )


@pytest.mark.parametrize(
    ("name", "element"), [("nvfp4", "fp4_e2m1"), ("nvint4", "int4"), ("nvfp8_e4m3", "fp8_e4m3")]
)
@pytest.mark.parametrize("rows", [slice(0, 6), slice(6, 12), slice(17, 24), slice(27, 29)])
def test_two_level_scales_equal_exact_arithmetic(name: str, element: str, rows: slice) -> None:
    grid, block_scales = GRIDS[element], GRIDS["fp8_e4m3"]
    x = hard_rows()[rows]
    qt = quantize(x, name)
    second = max(nearest_float32(largest_of(x.ravel()) / (grid[-1] * 448)), Fraction(2) ** -149)
    assert Fraction(float(qt.tensor_scale)) == second
    for r, row in enumerate(x):
        for g, start in enumerate(range(0, 70, 16)):
            block = row[start : start + 16]
            scale = block_scales[max(1, nearest_index(block_scales, largest_of(block) / grid[-1] / second))]
            assert Fraction(float(qt.scales[r, g])) == scale
            found = magnitudes(qt)[r, start : start + 16].tolist()
            assert found == expected_magnitudes(block, grid, scale * second)


@pytest.mark.parametrize("name", ["int4_g32_asym", "int8_g32_asym", "uint4_g32_asym", "int2_g32_asym"])
def test_zero_points_equal_exact_arithmetic(name: str) -> None:
    format_ = get_format(name)
    smallest, largest = format_.code_range
    assert largest - smallest == 2**format_.code_bits - 1
    x = np.concatenate([hard_rows(), hard_rows() + np.float32(5), -np.abs(hard_rows())])
    qt = quantize(x, name)
    for r, row in enumerate(x):
        for g, start in enumerate(range(0, 70, 32)):
            values = [Fraction(float(value)) for value in row[start : start + 32]]
            below, above = min([*values, Fraction(0)]), max([*values, Fraction(0)])
            scale = FP16_GRID[max(1, nearest_index(FP16_GRID, (above - below) / (largest - smallest)))]
            zero = min(max(smallest - (below / scale).__round__(), smallest), largest)
            assert (Fraction(float(qt.scales[r, g])), qt.zero_points[r, g]) == (scale, zero)
            codes = [min(max((value / scale).__round__() + zero, smallest), largest) for value in values]
            assert qt.codes[r, start : start + 32].tolist() == codes


@pytest.mark.parametrize("name", ["uint4", "uint8_g32"])
def test_unsigned_scales_follow_the_largest_value_and_negatives_become_zero(name: str) -> None:
    x = np.array([[-9.0, 0.0, 1.5, 3.0]], np.float32)
    qt = quantize(x, name)
    top = get_format(name).code_range[1]
    scale = float(np.float16(3.0 / top))
    assert float(qt.scales.ravel()[0]) == scale
    np.testing.assert_array_equal(qt.codes, [[0, 0, np.rint(1.5 / scale), top]])


@pytest.mark.parametrize("name", SCALED)
def test_a_tensor_of_zeros_has_codes_zero_and_a_positive_scale(name: str) -> None:
    qt = quantize(np.zeros((3, 40), np.float32), name)
    assert (qt.scales > 0).all()
    if name == "binary":  # has no zero
        np.testing.assert_array_equal(dequantize(qt), np.full((3, 40), 2.0**-24))
        return
    integers, _ = exact_integers(qt)
    assert (integers == (0 if qt.zero_points is None else qt.zero_points)).all()
    np.testing.assert_array_equal(dequantize(qt), np.zeros((3, 40)))


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("shape", [(5,), (2, 3, 33), (0, 4), (3, 0), (1, 1)])
def test_any_shape_comes_back_with_its_shape(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    qt = quantize(x, name)
    format_ = qt.format
    assert qt.codes.shape == dequantize(qt).shape == qt.shape == shape
    assert qt.codes.dtype == format_.code_dtype
    if format_.scale_element is None:
        assert qt.scales is None
    elif format_.granularity == "tensor":
        assert qt.scales.shape == ()
    else:
        assert qt.scales.shape == (*shape[:-1], format_.groups(shape[-1]))
    assert (qt.tensor_scale is None) == (format_.tensor_scale_element is None)
    assert (qt.zero_points is None) == (not format_.has_zero_point)


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
tensors = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=finite32)


@given(x=tensors, name=st.sampled_from(format_names()))
def test_quantizing_what_was_dequantized_changes_nothing_at_the_same_scale(x: np.ndarray, name: str) -> None:
    """Every dequantized value is on the grid of its scale, so its nearest code there is its own."""
    qt = quantize(x, name)
    exact = dequantize(qt, np.float64)
    scale = np.ones(()) if qt.group_scales is None else qt.group_scales
    scale = scale * (1.0 if qt.tensor_scale is None else float(qt.tensor_scale))
    zeros = np.zeros(()) if qt.zero_points is None else qt.zero_points
    if qt.format.group_size:
        scale, zeros = (
            np.repeat(np.broadcast_to(v, (len(x), qt.format.groups(x.shape[1]))), qt.format.group_size, 1)[
                :, : x.shape[1]
            ]
            for v in (scale, zeros)
        )
    np.testing.assert_array_equal(exact / scale + zeros, qt.format.element_values(qt.codes, qt.selectors))


def is_mirrored(name: str) -> bool:
    """Signed, and ties do not lean to one side."""
    format_ = get_format(name)
    return format_.element.is_signed and format_.element.ties == "even" and not format_.has_zero_point


@given(x=tensors, name=st.sampled_from([n for n in SCALED if is_mirrored(n)]))
def test_negated_values_have_negated_codes(x: np.ndarray, name: str) -> None:
    np.testing.assert_array_equal(dequantize(quantize(-x, name)), -dequantize(quantize(x, name)))


@given(
    x=tensors, name=st.sampled_from([n for n in SCALED if get_format(n).granularity in ("group", "block")])
)
def test_padding_adds_zeros_and_changes_nothing_else(x: np.ndarray, name: str) -> None:
    padded, plain = quantize(x, name, pad=True), quantize(x, name)
    k = x.shape[1]
    assert padded.codes.shape[1] == get_format(name).padded_k(k)
    np.testing.assert_array_equal(padded.codes[:, :k], plain.codes)
    np.testing.assert_array_equal(padded.scales, plain.scales)
    np.testing.assert_array_equal(dequantize(padded), dequantize(plain))
    assert padded.storage_bits == get_format(name).storage_bits(len(x), k, pad=True)
    rest = replace(padded, k=padded.codes.shape[1])
    assert not dequantize(rest)[:, k:].any()


@given(
    x=hnp.arrays(np.float32, (4, 40), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    name=st.sampled_from(
        ["mxint8", "mxint6", "int4_g8", "bitmod_fp4_g16", "flint4_channel", "bbs_zp4_g16", "mxfp8_e4m3"]
    ),
)
@settings(max_examples=40, deadline=None)
def test_a_dot_product_of_dequantized_values_is_one_of_exact_integers(x: np.ndarray, name: str) -> None:
    """Sums of integer products under a product of scales: no float but the scales' own."""
    qt = quantize(x, name)
    integers, exponent = exact_integers(qt)
    group = qt.format.group_size or 40
    scales = np.broadcast_to(qt.group_scales, (4, -(-40 // group)))
    values = [[Fraction(v) for v in row] for row in dequantize(qt, np.float64).tolist()]
    total = Fraction(0)
    for g in range(0, 40, group):
        partial = sum(
            int(a) * int(b)
            for a, b in zip(integers[0, g : g + group], integers[1, g : g + group], strict=True)
        )
        scale = Fraction(float(scales[0, g // group])) * Fraction(float(scales[1, g // group]))
        total += partial * scale * Fraction(2) ** (2 * exponent)
    assert total == sum(a * b for a, b in zip(values[0], values[1], strict=True))


def test_e1m2_blocks_are_int4_blocks_under_another_code() -> None:
    """E1M2 holds the halves of 0 .. 7 and MX INT4 the quarters, so their scales differ by two.

    Below 2**125, where neither scale is at the end of its range.
    """
    x = np.clip(hard_rows(), -1e37, 1e37)
    for rule in ("floor", "ceil", "even"):
        ours = dequantize(quantize(x, "mxe1m2", scale_rule=rule))
        np.testing.assert_array_equal(ours, dequantize(quantize(x, "mxint4", scale_rule=rule)))


def test_floor_rule_saturates_the_block_maximum_where_ceil_does_not() -> None:
    block = np.array([[7.9, 0.1, -0.6, 3.0]], np.float32)
    assert dequantize(quantize(block, "mxfp4", scale_rule="floor"))[0, 0] == 6.0
    assert dequantize(quantize(block, "mxfp4", scale_rule="ceil"))[0, 0] == 8.0
    assert dequantize(quantize(block, "mxfp4", scale_rule="even"))[0, 0] == 8.0


@pytest.mark.parametrize("name", [n for n in format_names() if n.startswith("mx")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_inf_or_nan_makes_the_scale_of_its_mx_block_nan_and_leaves_the_others(name: str, bad: float) -> None:
    x = np.random.default_rng(3).standard_normal((2, 96)).astype(np.float32)
    clean = quantize(x, name)
    x[1, 40] = bad
    qt = quantize(x, name)
    np.testing.assert_array_equal(np.isnan(qt.scales), [[0, 0, 0], [0, 1, 0]])
    assert not qt.codes[1, 32:64].any()
    back = dequantize(qt)
    assert np.isnan(back[1, 32:64]).all()
    clean.codes[1, 32:64] = 0
    np.testing.assert_array_equal(qt.codes, clean.codes)


@pytest.mark.parametrize(
    "name", ["int8", "int4_g16", "int8_channel_asym", "msfp12", "nvfp4", "nvint4", "fp4_e2m1_g16"]
)
def test_infinity_saturates_and_leaves_the_scales_to_finite_values(name: str) -> None:
    x = np.random.default_rng(3).standard_normal((2, 48)).astype(np.float32)
    x[0, 3], x[1, 7] = 4.0, -4.0
    clean = quantize(x, name)
    x[0, 3 + 1], x[1, 7 + 1] = np.inf, -np.inf
    qt = quantize(x, name)
    np.testing.assert_array_equal(qt.scales, clean.scales)
    top = qt.format.element_values(qt.codes).max()
    assert qt.format.element_values(qt.codes)[0, 4] == top
    assert qt.format.element_values(qt.codes)[1, 8] == qt.format.element_values(qt.codes).min()
    untouched = np.ones(x.shape, bool)
    untouched[0, 4] = untouched[1, 8] = False
    np.testing.assert_array_equal(qt.codes[untouched], clean.codes[untouched])


@pytest.mark.parametrize("name", ["int8", "int4_g16", "msfp12", "nvfp4", "e3m4_channel"])
def test_nan_into_a_format_without_nan_is_counted_and_located(name: str) -> None:
    x = np.zeros((2, 3, 20), np.float32)
    x[1, 2, 7] = x[0, 2, 19] = np.nan
    with pytest.raises(InputError, match=rf"2 NaN among 120 values, the first at \[0, 2, 19\].*{name}"):
        quantize(x, name)


def test_floats_with_codes_for_them_keep_inf_and_nan() -> None:
    x = np.array([[1.0, np.inf, -np.inf, np.nan]], np.float32)
    largest = float(np.float16(1 / 57344)) * 57344
    np.testing.assert_array_equal(dequantize(quantize(x, "fp8_e5m2")), [[largest, np.inf, -np.inf, np.nan]])
    e4m3 = dequantize(quantize(x, "fp8_e4m3"))
    assert np.isnan(e4m3[0, 3])
    assert e4m3[0, 1] == -e4m3[0, 2] == e4m3[0, 0]
    np.testing.assert_array_equal(dequantize(quantize(x, "bf16")), x)


def test_unscaled_floats_are_casts_that_saturate() -> None:
    x = np.array([[1 / 3, -70000.0, 1e-8, 65519.0]], np.float32)
    np.testing.assert_array_equal(dequantize(quantize(x, "fp16"))[0, [0, 2]], x[0, [0, 2]].astype(np.float16))
    np.testing.assert_array_equal(dequantize(quantize(x, "fp16"))[0, [1, 3]], [-65504, 65504])
    np.testing.assert_array_equal(
        quantize(x, "bf16").codes.view(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16)
    )
    np.testing.assert_array_equal(quantize(x, "fp32").codes.view(np.float32), x)
    assert dequantize(quantize(np.array([1e300, -1e300]), "fp32"))[0] == np.finfo(np.float32).max


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, np.int8, np.uint16, np.int64, np.float64, bool]
)
def test_every_real_type_quantizes_as_its_float64_values(dtype: type) -> None:
    x = (np.random.default_rng(5).standard_normal((3, 50)) * 20).astype(dtype)
    for name in ("int8", "fp8_e4m3_g16", "mxfp4", "nvfp4"):
        a, b = quantize(x, name), quantize(x.astype(np.float64), name)
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(a.scales, b.scales)


def test_a_read_only_or_strided_array_quantizes_like_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(5).standard_normal((64, 40)).astype(np.float32)
    view = x.T
    view.setflags(write=False)
    plain = quantize(np.ascontiguousarray(view), "int4_g16")
    for threshold in (0, 10**9):
        monkeypatch.setattr(quantizer, "COMPILED_FROM", threshold)
        np.testing.assert_array_equal(quantize(view, "int4_g16").codes, plain.codes)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.array(3.0), {}, "scalar"),
        (np.array(["a"]), {}, "not real numbers"),
        (np.zeros(3, complex), {}, "not real numbers"),
        (np.zeros(3), {"scale": "min"}, "maxabs, mse"),
        (np.zeros(3), {"scale_rule": "floor"}, "no shared exponent"),
        (np.zeros(3), {"format_": "mxfp4", "scale_rule": "round"}, "floor"),
        (
            np.zeros(3),
            {"format_": "mxfp4", "scale_rule": "ceil", "scale": "mse"},
            "chooses the exponent itself",
        ),
        (np.zeros(3), {"format_": "bf16", "scale": "mse"}, "no scale to choose"),
        (np.zeros(3), {"format_": "itn8"}, "did you mean"),
        (np.zeros(3), {"format_": "fp4_g2_sm2", "scale_rule": "ceil"}, "no shared exponent"),
    ],
)
def test_what_cannot_be_quantized_is_an_input_error(
    x: np.ndarray, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        quantize(x, **({"format_": "int8"} | options))  # type: ignore[arg-type]


def brute_force_scales(largest: float, format_: Format) -> np.ndarray:
    """What the MSE search may choose from, written out: see the constants in `scaling`."""
    if format_.scale_element.kind == "exponent":
        widest = np.ceil(np.log2(largest / format_.element.max_value))
        return np.exp2(widest - np.arange(3))
    return (
        (largest * np.arange(100, 20, -1) / 100 / format_.element.max_value).astype(np.float16).astype(float)
    )


@pytest.mark.parametrize(
    "name", ["int4_g16", "int3_channel", "fp4_e2m1_g16", "mxfp4_b16", "mxint4_b16", "int4"]
)
def test_mse_scale_is_the_best_of_its_candidates(name: str) -> None:
    format_ = get_format(name)
    x = np.random.default_rng(11).standard_t(4, (12, 48)).astype(np.float32)
    values = np.unique(
        format_.element_values(np.arange(-7 if format_.is_integer else 0, 8 if format_.is_integer else 16))
    )
    if name.startswith("int3"):
        values = np.arange(-3.0, 4.0)
    qt = quantize(x, name, scale="mse")
    back = dequantize(qt, np.float64)
    if name == "int4":
        pieces = [(x.ravel(), back.ravel())]
    else:
        group = format_.group_size or 48
        pieces = [
            (x[r, s : s + group], back[r, s : s + group]) for r in range(12) for s in range(0, 48, group)
        ]
    for piece, found in pieces:
        errors = []
        for scale in brute_force_scales(float(np.abs(piece).max()), format_):
            distance = np.abs(piece[:, None].astype(float) - values * scale).min(axis=1)
            errors.append(float((distance**2).sum()))
        assert float(((piece - found) ** 2).sum()) == pytest.approx(min(errors), rel=1e-9)


@given(x=tensors, name=st.sampled_from(SEARCHED))
@settings(max_examples=60)
def test_mse_scale_is_never_worse_than_maxabs(x: np.ndarray, name: str) -> None:
    x = np.clip(x, -1e15, 1e15)
    best = np.square(x - dequantize(quantize(x, name, scale="mse"), np.float64)).sum()
    plain = np.square(x - dequantize(quantize(x, name), np.float64)).sum()
    assert best <= plain * (1 + 1e-12)


@pytest.mark.parametrize(
    "name", [*format_names(), "int4_g48", "fp8_e5m2_g24", "e5m0_g16", "mxe1m2", "uint4_g16_asym"]
)
def test_compiled_kernels_give_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    ties = np.exp2(rng.integers(-20, 20, (40, 70))) * rng.integers(-600, 600, (40, 70)) / 16
    broken = hard_rows()[:4].copy()
    format_ = get_format(name)
    if format_.element.has_nan or name.startswith("mx"):
        broken[0, 3] = np.nan
    if format_.quantizer is None:
        broken[1, 69], broken[2, 0] = np.inf, -np.inf
    for x in (hard_rows(), ties.astype(np.float32), broken, np.zeros((3, 0), np.float32)):
        for scale in ("maxabs", "mse") if name in SEARCHED else ("maxabs",):
            found = []
            for threshold in (0, 10**9):
                monkeypatch.setattr(quantizer, "COMPILED_FROM", threshold)
                found.append(quantize(x, name, scale=scale))
            compiled, plain = found
            np.testing.assert_array_equal(compiled.codes, plain.codes)
            for field in ("scales", "zero_points", "selectors", "row_scales", "tensor_scale"):
                a, b = getattr(compiled, field), getattr(plain, field)
                assert (a is None) == (b is None)
                if a is not None:
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["int8", "int4_g16", "fp8_e4m3_channel", "nvfp4", "mxint8"])
@pytest.mark.parametrize("scale", ["maxabs", "mse"])
def test_the_size_of_the_tiles_changes_nothing(
    name: str, scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = hard_rows()
    whole = quantize(x, name, scale=scale)
    monkeypatch.setattr(tensor, "TILE_VALUES", 150)
    tiled = quantize(x, name, scale=scale)
    np.testing.assert_array_equal(tiled.codes, whole.codes)
    np.testing.assert_array_equal(tiled.scales, whole.scales)
    np.testing.assert_array_equal(dequantize(tiled), dequantize(whole))


def test_float64_values_may_exceed_every_scale_and_still_saturate() -> None:
    x = np.array([[1e300, -1e-300, 3.0, -1e300]])
    for name, scale in [*product(SCALED, ["maxabs"]), *product(SEARCHED, ["mse"])]:
        values = dequantize(quantize(x, name, scale=scale), np.float64)
        assert np.isfinite(values).all()
        assert values[0, 0] >= values[0, 2] >= values[0, 3]
        assert values[0, 0] > 0 or get_format(name).has_zero_point


def test_dequantization_is_exact_in_float64_and_rounded_once_in_float32() -> None:
    qt = quantize(np.random.default_rng(1).standard_normal((4, 64)), "nvfp4")
    exact = [
        Fraction(float(v)) * Fraction(float(qt.scales[r, c // 16])) * Fraction(float(qt.tensor_scale))
        for (r, c), v in np.ndenumerate(qt.format.element_values(qt.codes))
    ]
    assert [Fraction(float(v)) for v in dequantize(qt, np.float64).ravel()] == exact
    assert dequantize(qt).dtype == np.float32
    np.testing.assert_array_equal(dequantize(qt), dequantize(qt, np.float64).astype(np.float32))


@pytest.mark.parametrize("name", ["int8", "int4_g128_asym", "fp8_e4m3", "mxfp4"])
@pytest.mark.parametrize("threshold", [0, 10**9], ids=["compiled", "numpy"])
def test_quantizing_and_back_needs_little_more_than_what_it_returns(
    name: str, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizer, "COMPILED_FROM", threshold)
    monkeypatch.setattr(tensor, "TILE_VALUES", 2**14)
    x = np.random.default_rng(0).standard_normal((1024, 2048), dtype=np.float32)
    quantize(x[:8], name)
    tracemalloc.start()
    qt = quantize(x, name)
    returned = qt.codes.nbytes + qt.scales.nbytes
    assert tracemalloc.get_traced_memory()[1] < 1.5 * returned + 2e6
    tracemalloc.reset_peak()
    back = dequantize(qt)
    assert tracemalloc.get_traced_memory()[1] < returned + back.nbytes + 2e6
    tracemalloc.stop()


def test_small_tensors_load_no_numba() -> None:
    import subprocess
    import sys

    program = (
        "import sys, numpy as np\n"
        "from simulator.formats import quantize, dequantize\n"
        "dequantize(quantize(np.ones((384, 384), np.float32), 'int4_g128', scale='mse'))\n"
        "print([name for name in ('numba', 'pandas', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
