"""INT4 to INT8 in integers: against the packed 32-bit arithmetic of QServe's kernel, and the other cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor, dequantize, get_format, quantize
from simulator.formats.element import FP16, integer
from simulator.hardware import load_technology
from simulator.pe.two_level import TwoLevelPE

UINT4, UINT8 = integer(4, signed=False), integer(8, signed=False)
INT8 = get_format("int8_token")


def progressive(group: int = 4) -> Format:
    """UINT4 with integer scale and zero point a group, under an FP16 scale a row."""
    return Format("progressive", UINT4, "group", group, UINT8, row_scale_element=FP16, has_zero_point=True)


def two_level(**parameters: Any) -> TwoLevelPE:
    names = ["uint4", "int4", "int8"]
    return validate(
        TwoLevelPE, {"family": "two_level", "weights": names, "activations": "int8", **parameters}
    )


def tensor(codes: Any, scales: Any, zeros: Any, format: Format | None = None) -> QuantizedTensor:
    codes = np.array(codes)
    return QuantizedTensor(
        codes.astype(np.uint8),
        format or progressive(),
        np.array(scales, np.float32),
        np.array(zeros, np.int32),
        row_scales=np.full((len(codes), 1), 0.5, np.float32),
    )


def packed_bytes(codes: list[int], scale: int, zero: int) -> list[int]:
    """Four weights at once, as the kernel does it: one 32-bit product, then four additions modulo 256."""
    word = sum(code << (8 * i) for i, code in enumerate(codes)) * scale & 0xFFFFFFFF
    offset = -zero * scale % 256
    found = [((word >> (8 * i) & 0xFF) + offset) % 256 for i in range(4)]
    return [byte - 256 if byte >= 128 else byte for byte in found]


def quantized(values: list[int]) -> tuple[list[int], int, int]:
    """Codes, scale and zero point of a group of INT8 weights: QServe's second level."""
    low, high = min(values), max(values)
    scale = max(1, round((high - low) / 15))
    zero = min(15, max(0, round(-low / scale)))
    return [min(15, max(0, round(value / scale) + zero)) for value in values], scale, zero


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-119, 119), min_size=4, max_size=4))
def test_weights_within_the_protective_range_decode_as_on_packed_bytes(values: list[int]) -> None:
    codes, scale, zero = quantized(values)
    decoded = two_level().decode("weights", tensor([codes], [[scale]], [[zero]]))
    assert decoded.codes.tolist() == [packed_bytes(codes, scale, zero)]
    assert decoded.format.element.name == "int8"
    assert decoded.format.granularity == "channel"
    assert decoded.scales is not None
    assert decoded.scales.tolist() == [[0.5]]


def test_the_protective_range_is_119() -> None:
    """Over all groups' ranges, of their extremes: none leaves INT8 at 119; seven do at 120, 278 at 127."""
    outside = {}
    for bound in (119, 120, 127):
        outside[bound] = 0
        for low in range(-bound, 1):
            for high in range(bound + 1):
                codes, scale, zero = quantized([low, high])
                results = [(code - zero) * scale for code in codes]
                outside[bound] += sum(not -128 <= result <= 127 for result in results)
    assert outside == {119: 0, 120: 7, 127: 278}


def test_results_beyond_int8_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 weights of progressive .* protective range"):
        two_level().decode("weights", tensor([[15, 15, 0, 3]], [[17]], [[0]]))


def test_decoding_changes_no_value() -> None:
    random = np.random.default_rng(1)
    before = tensor(
        random.integers(0, 16, (3, 12)), random.integers(1, 9, (3, 3)), random.integers(0, 16, (3, 3))
    )
    after = two_level().decode("weights", before)
    assert (dequantize(after) == dequantize(before)).all()


@pytest.mark.parametrize(
    ("name", "received", "zeros"),
    [
        ("int4_g8_asym", "int8_g8", False),
        ("int4_g8", "int8_g8", False),
        ("int4_channel", "int8_channel", False),
        ("int4_channel_asym", "int8_channel_asym", True),
        ("int8_channel", "int8_channel", False),
        ("uint4_channel", "int8_channel", False),
    ],
)
def test_what_the_decoder_does_not_apply_stays(name: str, received: str, zeros: bool) -> None:
    pe, weights = two_level(), get_format(name)
    assert pe.accepts(weights, INT8) is None
    assert pe.received("weights", weights).name == received
    before = quantize(np.random.default_rng(2).normal(size=(5, 21)), weights)
    after = pe.decode("weights", before)
    assert (after.zero_points is not None) == zeros
    assert after.codes.dtype == np.int8
    assert (dequantize(after) == dequantize(before)).all()


def test_a_difference_of_two_int8_codes_does_not_fit_int8() -> None:
    assert "9 bits" in (two_level().accepts(get_format("int8_g8_asym"), INT8) or "")
    assert two_level(target="int16").accepts(get_format("int8_g8_asym"), INT8) is None


def test_what_it_does_not_decode_is_refused() -> None:
    pe = two_level()
    assert "int6" in (pe.accepts(get_format("int6"), INT8) or "")
    assert "fp16" in (pe.accepts(get_format("int4"), get_format("fp16")) or "")
    with pytest.raises(InputError, match="integers"):
        two_level(weights=["fp4_e2m1"])
    assert "8 bits" in (
        pe.accepts(Format("wide", UINT4, "group", 4, integer(12), row_scale_element=FP16), INT8) or ""
    )


def test_sums_are_those_of_the_decoded_integers() -> None:
    pe, weights = two_level(lanes=4), progressive()
    before = tensor([[0, 15, 7, 8]], [[9]], [[7]])
    after = pe.decode("weights", before)
    activations = np.array([127, -128, 3, -5])
    function = pe.function(weights, INT8)
    sums = function.step(np.zeros((1, 1), np.int64), activations[None], after.codes.astype(np.int64))
    assert function.result(sums).tolist() == [
        sum((q - 7) * 9 * a for q, a in zip([0, 15, 7, 8], [127, -128, 3, -5], strict=True))
    ]


def test_decoders_stand_at_the_edge_and_cost_by_what_they_do() -> None:
    pe = two_level(lanes=16, decode_cycles=2)
    pairs = [(progressive(), INT8), (get_format("int4_g128_asym"), INT8), (get_format("int8_channel"), INT8)]
    found = {
        c.name: c
        for c in pe.hardware(
            activation_lines=8, weight_lines=4, stationary="outputs", doubled=True, pairs=pairs
        )
    }
    assert found["weight_decoder"].count == 4 * 16
    assert pe.timing(*pairs[0]).weight_decode == 2
    technology = load_technology("published_45nm")
    prices = {name: technology.price(component).energy_pj for name, component in found.items()}
    costs = []
    for pair in pairs:
        activity = pe.activity(*pair, stationary="outputs")
        assert all(event in prices[name] for made in activity.values() for name, event in made)
        ((name, event),) = activity["weight"]
        costs.append(prices[name][event])
    assert costs[0] > costs[1] > costs[2] > 0
