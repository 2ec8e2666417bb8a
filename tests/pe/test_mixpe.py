"""MixPE: shift and add on bits, against its function."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import get_format
from simulator.hardware import load_technology
from simulator.pe.mac import MacPE
from simulator.pe.mixpe import MixPE

W4, A8, A16 = get_format("int4_g128_asym"), get_format("int8_token"), get_format("fp16")


def mixpe(**parameters: Any) -> MixPE:
    return validate(MixPE, {"family": "mixpe", "weights": "int4", "activations": "int8", **parameters})


def w4a16() -> MixPE:
    return mixpe(activations="fp16", accumulator="fp32")


def shift_and_add(weight: int, activation: int) -> int:
    """By the bits of a 4-bit weight, the top one negative."""
    bits = weight % 16
    shifted = [activation << i if bits >> i & 1 else 0 for i in range(4)]
    return shifted[0] + shifted[1] + shifted[2] - shifted[3]


def exponent_shifted(weight: int, pattern: int) -> Fraction:
    """The same on an FP16 pattern: i is added to its exponent; zero and subnormals have the smallest one."""
    sign, field, fraction = pattern >> 15, pattern >> 10 & 31, pattern & 1023
    significand = fraction + (1024 if field else 0)
    exponent = max(field, 1) - 25
    bits = weight % 16
    terms = [
        Fraction(significand) * Fraction(2) ** (exponent + i) if bits >> i & 1 else Fraction(0)
        for i in range(4)
    ]
    product = terms[0] + terms[1] + terms[2] - terms[3]
    return -product if sign else product


def to_fp32(value: Fraction) -> Fraction:
    exponent = -149
    while abs(value) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent


def test_integer_products_are_shifted_sums_for_all_operands() -> None:
    weights, activations = np.arange(-8, 8), np.arange(-128, 128)
    function = mixpe().function(W4, A8)
    found = function.result(
        function.step(np.zeros((16, 256, 1), np.int64), activations[None, :, None], weights[:, None, None])
    )
    assert found.tolist() == [[shift_and_add(int(w), int(a)) for a in activations] for w in weights]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-8, 7), st.integers(0, 0xFFFF).filter(lambda p: p >> 10 & 31 != 31)),
        min_size=1,
        max_size=6,
    )
)
def test_float_products_are_sums_of_shifted_exponents_rounded_once_a_step(
    pairs: list[tuple[int, int]],
) -> None:
    function = w4a16().function(W4, A16)
    state, expected = np.zeros((1, 1), object), Fraction(0)
    for weight, pattern in pairs:
        activation = A16.element_integers(np.array([[pattern]], np.uint16))[0].astype(object)
        state = function.step(state, activation, np.array([[weight]], object))
        expected = to_fp32(expected + exponent_shifted(weight, pattern))
    assert Fraction(int(function.result(state)[0])) * Fraction(2) ** function.exponent == expected


def test_int16_activations_are_taken_too() -> None:
    function = mixpe(activations="int16").function(W4, get_format("int16_token"))
    found = function.step(np.zeros((1, 1), np.int64), np.array([[-32767]]), np.array([[-8]]))
    assert function.result(found).tolist() == [shift_and_add(-8, -32767)]


def test_scales_and_zero_points_are_left_to_the_array() -> None:
    pe = mixpe()
    assert not pe.scales_inside(W4, A8)
    assert pe.received("weights", W4) == W4
    assert (pe.timing(W4, A8).lanes, pe.timing(W4, A8).initiation_interval) == (1, 1)


def test_what_it_does_not_shift_is_refused() -> None:
    assert "fp32" in (mixpe(activations="fp16").accepts(W4, A16) or "")
    assert "int4" in (mixpe().accepts(get_format("int8"), A8) or "")
    for weights in ("int16", "fp4_e2m1"):
        with pytest.raises(InputError, match="shifts and adds"):
            mixpe(weights=weights)
    with pytest.raises(InputError, match="shifts integers and floats"):
        mixpe(activations="flint4")
    assert "outputs" in (mixpe().fits("ws") or "")


def test_a_float_product_costs_less_than_a_multiplier_of_floats() -> None:
    technology = load_technology("published_45nm")
    mac = validate(MacPE, {"family": "mac", "weights": "int4", "activations": "fp16", "accumulator": "fp32"})
    costs = []
    for pe in (w4a16(), mac):
        (found,) = pe.hardware(
            activation_lines=1, weight_lines=1, stationary="outputs", doubled=False, pairs=[(W4, A16)]
        )
        priced = technology.price(found)
        activity = pe.activity(W4, A16, stationary="outputs")
        assert {event for made in activity.values() for _, event in made} <= set(priced.energy_pj)
        costs.append((priced.energy_pj["mac int4 x fp16"], priced.area_um2))
    assert costs[0][0] < costs[1][0]
    assert costs[0][1] < costs[1][1]


@pytest.mark.parametrize("doubled", [False, True])
def test_a_pe_has_one_array_of_shifted_words_and_an_accumulator_for_each_fold_in_flight(
    doubled: bool,
) -> None:
    (found,) = mixpe().hardware(
        weight_lines=2, activation_lines=3, stationary="outputs", doubled=doubled, pairs=[(W4, A8)]
    )
    parts = {part.name: part for part in found.parts}
    assert found.count == 6
    assert (parts["product"].count, parts["product"].params["b_bits"]) == (1, 4)
    assert (parts["accumulator"].count, parts["accumulator"].params) == (1 + doubled, {"bits": 32})
    assert found.events["idle"] == {("operands", "clock"): 1, ("accumulator", "clock"): 1 + doubled}
