"""Pre-alignment of floats: against significands and exponents read from the bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, get_format, quantize
from simulator.pe.alignment import align_refusal, aligned, aligned_format

FP16 = get_format("fp16")
finite = st.integers(0, 2**16 - 1).filter(lambda code: code >> 10 & 31 != 31)


def fields(code: int) -> tuple[int, int, int]:
    """Sign, significand with hidden bit, and biased exponent (1 for subnormals) of FP16."""
    exponent, fraction = code >> 10 & 31, code & 1023
    return -1 if code >> 15 else 1, fraction + (1024 if exponent else 0), max(exponent, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=1, max_size=11), st.integers(0, 6), st.integers(1, 5))
def test_significands_are_shifted_to_the_largest_exponent_of_the_group(
    codes: list[int], guard: int, group: int
) -> None:
    tensor = aligned(QuantizedTensor(np.array([codes], np.uint16), FP16), group, 11 + guard)
    assert tensor.format == aligned_format(FP16, group, 11 + guard)
    tensor.check()
    for first in range(0, len(codes), group):
        members = [fields(code) for code in codes[first : first + group]]
        top = max(exponent for _, m, exponent in members if m) if any(m for _, m, _ in members) else 1
        for at, (sign, m, exponent) in enumerate(members):
            assert int(tensor.codes[0, first + at]) == sign * (m * 2**guard >> (top - exponent if m else 0))
        assert float(tensor.scales[0, first // group]) == 2.0 ** (top - 25 - guard)  # type: ignore[index]


def test_an_aligned_integer_has_a_bit_more_for_its_sign() -> None:
    assert aligned_format(FP16, 64, 14).element.name == "int15"


def test_scales_of_a_token_go_into_those_of_its_groups() -> None:
    tensor = quantize(np.random.default_rng(0).normal(size=(3, 8)), get_format("fp8_e4m3_token"))
    wide = aligned(tensor, 4, 4 + 15)
    assert (dequantize(wide, np.float64) == dequantize(tensor, np.float64)).all()


def test_what_cannot_be_aligned_is_refused() -> None:
    assert "not int8" in (align_refusal(get_format("int8"), 14) or "")
    assert "11" in (align_refusal(FP16, 10) or "")
    assert "scales along K" in (align_refusal(get_format("mxfp8_e4m3"), 14) or "")
    with pytest.raises(InputError, match="NaN"):
        aligned(QuantizedTensor(np.array([[0x7C00]], np.uint16), FP16), 1, 14)
