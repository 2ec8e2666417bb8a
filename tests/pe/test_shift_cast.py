"""Casts by exponent addition and by moving bits, over all codes, against fractions of the bit patterns."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor, dequantize, get_format, quantize
from simulator.formats.element import E8, FP4_E2M1, FP16
from simulator.hardware import load_technology
from simulator.pe.shift_cast import ShiftCastPE

FP8 = get_format("fp8_e4m3_token")
M1 = Format("m1", FP4_E2M1, "group", 16, E8)
M2 = Format("m2", FP4_E2M1, "group", 16, E8, row_scale_element=FP16)
FP4_VALUES = [Fraction(v) / 2 for v in (0, 1, 2, 3, 4, 6, 8, 12)]


def shift_cast(**parameters: Any) -> ShiftCastPE:
    given = {
        "family": "shift_cast",
        "weights": "fp4_e2m1",
        "activations": "fp8_e4m3",
        "target": "fp8_e4m3",
        "accumulator": "fp32",
    }
    return validate(ShiftCastPE, given | parameters)


def fp6() -> ShiftCastPE:
    return shift_cast(weights="fp6_e3m2", activations="fp16", target="fp16")


def e4m3_values() -> dict[int, Fraction]:
    codes = np.arange(127, dtype=np.uint8)
    return {
        int(c): Fraction(float(v)) for c, v in zip(codes, codes.view(ml_dtypes.float8_e4m3fn), strict=True)
    }


def nearest_even(value: Fraction) -> int:
    """The E4M3 code of a non-negative value."""
    return min(e4m3_values().items(), key=lambda item: (abs(item[1] - value), item[0] % 2))[0]


def test_fp4_times_a_power_of_two_is_the_nearest_fp8() -> None:
    """All codes at all distances from the row's largest exponent, down to where nothing is left."""
    exponents = range(0, -14, -1)
    codes = np.tile(np.arange(16, dtype=np.uint8), len(exponents))[None]
    scales = np.array([[2.0**e for e in exponents]], np.float32)
    found = shift_cast().decode(
        "weights", QuantizedTensor(codes, M2, scales, row_scales=np.array([[0.75]], np.float32))
    )
    expected = []
    for exponent in exponents:
        magnitudes = [nearest_even(value * Fraction(2) ** exponent) for value in FP4_VALUES]
        expected += magnitudes + [code | 128 for code in magnitudes]
    assert found.codes[0].tolist() == expected
    assert found.scales is not None
    assert found.scales.tolist() == [[0.75]]


def test_down_to_two_to_the_minus_8_the_cast_is_exact() -> None:
    """0.5 * 2**-8 is E4M3's smallest value; 1.5 * 2**-8 its third."""
    codes = np.tile(np.arange(16, dtype=np.uint8), 2)[None]
    before = QuantizedTensor(
        codes, M2, np.array([[1, 2.0**-8]], np.float32), row_scales=np.array([[3]], np.float32)
    )
    assert (dequantize(shift_cast().decode("weights", before)) == dequantize(before)).all()


def test_powers_of_two_alone_are_relative_to_their_rows_largest() -> None:
    codes = np.tile(np.arange(16, dtype=np.uint8), (2, 2))
    scales = np.array([[2.0**-20, 2.0**-21], [2.0**5, 2.0**9]], np.float32)
    before = QuantizedTensor(codes, M1, scales)
    after = shift_cast().decode("weights", before)
    assert after.scales is not None
    assert after.scales.tolist() == [[2.0**-20], [2.0**9]]
    assert (dequantize(after) == dequantize(before)).all()


def test_all_fp6_codes_keep_their_value_in_fp16() -> None:
    weights = get_format("fp6_e3m2_channel")
    before = QuantizedTensor(np.arange(64, dtype=np.uint8)[None], weights, np.array([[0.375]], np.float32))
    after = fp6().decode("weights", before)
    assert after.scales is not None
    assert after.scales.tolist() == [[0.375 * 2**12]]
    assert [f"{code:016b}" for code in after.codes[0, [1, 31, 63]]] == [
        "0000000100000000",
        "0001111100000000",
        "1001111100000000",
    ]
    assert (dequantize(after) == dequantize(before)).all()
    assert float(dequantize(before).max()) == 28 * 0.375


@pytest.mark.parametrize("name", ["fp8_e4m3_token", "mxfp8_e4m3"])
def test_weights_in_the_target_format_pass(name: str) -> None:
    pe, weights = shift_cast(weights=["fp4_e2m1", "fp8_e4m3"]), get_format(name)
    before = quantize(np.random.default_rng(4).normal(size=(3, 40)), weights)
    assert pe.accepts(weights, FP8) is None
    assert pe.received("weights", weights) == weights
    assert pe.decode("weights", before) is before


def test_what_cannot_be_moved_is_refused() -> None:
    assert fp6().accepts(get_format("fp6_e3m2_channel"), get_format("fp16")) is None
    assert shift_cast().accepts(M2, FP8) is None
    assert "infinities" in (
        shift_cast(weights="e5m2", target="fp16", activations="fp16").accepts(
            get_format("e5m2"), get_format("fp16")
        )
        or ""
    )
    assert "more exponent" in (shift_cast(weights="e5m2").accepts(get_format("e5m2"), FP8) or "")
    assert "finite" in (
        shift_cast(weights="fp8_e5m2", target="fp16").accepts(get_format("fp8_e5m2"), FP8) or ""
    )
    assert "two scales" in (shift_cast().accepts(get_format("nvfp4"), FP8) or "")
    with pytest.raises(InputError, match="target"):
        shift_cast(target="int8")


def test_moving_bits_costs_less_than_adding_exponents() -> None:
    technology = load_technology("published_45nm")
    pe = shift_cast()
    plain = get_format("fp4_e2m1_channel")
    found = {
        c.name: c
        for c in pe.hardware(
            activation_lines=4,
            weight_lines=4,
            stationary="weights",
            doubled=False,
            pairs=[(M2, FP8), (plain, FP8)],
        )
    }
    prices = technology.price(found["weight_decoder"]).energy_pj
    assert prices["decode fp4_e2m1 scaled"] > prices["decode fp4_e2m1"] > 0
    assert element_of(pe, M2) == element_of(pe, plain) == "fp8_e4m3"


def element_of(pe: ShiftCastPE, weights: Format) -> str:
    return pe.received("weights", weights).element.name
