"""The MAC PE: what it takes, how long it takes, what it is made of, what it computes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, get_format
from simulator.hardware import Component
from simulator.pe import pe_model
from simulator.pe.arithmetic import FP16, FP32, round_to_float, wrap
from simulator.pe.elements import element_format
from simulator.pe.mac import MacPE


def mac(**parameters: Any) -> MacPE:
    return validate(MacPE, {"family": "mac", "weights": "int8", "activations": "int8", **parameters})


@given(value=st.integers(-(2**90), 2**90), exponent=st.integers(-200, 10))
def test_rounding_to_fp32_is_the_processors(value: int, exponent: int) -> None:
    """Through float64 where that is exact; FP32 rounds once."""
    top = value >> max(0, value.bit_length() - 53)
    shift = max(0, value.bit_length() - 53)
    if abs(top).bit_length() + exponent + shift > 120:
        return
    rounded = int(round_to_float(np.array([top << shift], object), exponent, FP32)[0])
    expected = np.float32(np.ldexp(float(top), exponent + shift))
    assert rounded * 2.0**-149 == expected


@given(bits=st.integers(0, 2**16 - 1))
def test_fp16_values_round_to_themselves(bits: int) -> None:
    value = float(np.array([bits], np.uint16).view(np.float16)[0])
    if np.isfinite(value):
        integer = int(value * 2**24)
        assert round_to_float(np.array([integer], object), -24, FP16)[0] == integer


def test_overflow_of_a_float_accumulator_is_refused() -> None:
    with pytest.raises(InputError, match="overflows the fp32 accumulator"):
        round_to_float(np.array([2**128], object), 0, FP32)


@given(value=st.integers(-(2**40), 2**40), bits=st.integers(2, 40))
def test_integer_accumulators_are_twos_complement(value: int, bits: int) -> None:
    held = int(wrap(np.array([value]), bits)[0])
    assert -(2 ** (bits - 1)) <= held < 2 ** (bits - 1)
    assert (held - value) % 2**bits == 0


def test_products_of_fp8_equal_float64_products() -> None:
    pe = mac(weights="fp8_e4m3", activations="fp8_e5m2", accumulator="fp32")
    weights, activations = get_format("fp8_e4m3"), get_format("fp8_e5m2")
    w_codes, a_codes = np.arange(0, 127, dtype=np.uint8), np.arange(0, 124, dtype=np.uint8)
    function = pe.function(weights, activations)
    w, a = weights.element_integers(w_codes)[0], activations.element_integers(a_codes)[0]
    sums = function.step(np.zeros((124, 127, 1), object), a[:, None, None], w[None, :, None])[..., 0]
    expected = np.outer(
        a_codes.view(ml_dtypes.float8_e5m2).astype(np.float64),
        w_codes.view(ml_dtypes.float8_e4m3fn).astype(np.float64),
    )
    assert (sums.astype(np.float64) * 2.0**function.exponent == expected).all()


def test_a_pair_outside_the_lists_is_refused_with_what_is_taken() -> None:
    assert mac().accepts(get_format("int8"), get_format("int8_token")) is None
    assert "int8" in (mac().accepts(get_format("int4"), get_format("int8")) or "")
    assert "fp32" in (mac(weights="fp8_e4m3").accepts(get_format("fp8_e4m3"), get_format("int8")) or "")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"accumulator": "int4"}, "accumulator"),
        ({"accumulator": "float"}, "accumulator"),
        ({"accumulator": "int32", "promote_every": 4}, "promote_every"),
        ({"weights": "int4_g128"}, "weights"),
        ({"weights": "int99"}, "weights"),
        ({"weights": "flint4"}, "looked up in a table"),
        ({"lanes": 0}, "lanes"),
        ({"lane": 1}, "lane"),
        ({"weights": []}, "weights"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        mac(**parameters)


def test_pipeline_and_tree_add_up_to_the_latency() -> None:
    timing = mac(lanes=4, pipeline_depth=3, adder_tree_stages=2, initiation_interval=2).timing(
        get_format("int8"), get_format("int8")
    )
    assert (timing.lanes, timing.latency, timing.initiation_interval) == (4, 5, 2)


def hardware(pe: MacPE, stationary: str, *pairs: tuple[Format, Format], doubled: bool = True) -> Component:
    (component,) = pe.hardware(
        activation_lines=2, weight_lines=3, stationary=stationary, doubled=doubled, pairs=pairs
    )  # type: ignore[arg-type]
    assert component.count == 6
    return component


def test_overlap_doubles_what_a_fold_holds() -> None:
    for stationary, name in (
        ("outputs", "accumulator"),
        ("weights", "stationary"),
        ("activations", "stationary"),
    ):
        one = {part.name: part for part in hardware(mac(), stationary, doubled=False).parts}
        two = {part.name: part for part in hardware(mac(), stationary).parts}
        assert two[name].count == 2 * one[name].count
        assert all(two[other] == one[other] for other in one if other != name)


def test_every_event_names_parts_that_exist() -> None:
    for pe in (
        mac(),
        mac(lanes=8, adder_tree_stages=3),
        mac(weights="fp16", activations="fp16", accumulator="fp32"),
    ):
        for stationary in ("outputs", "weights", "activations"):
            weights, activations = get_format(pe.weights[0]), get_format(pe.activations[0])
            component = hardware(pe, stationary, (weights, activations))
            names = {part.name for part in component.parts}
            assert {part for event in component.events.values() for part, _ in event} <= names
            made = pe.activity(weights, activations, stationary=stationary)  # type: ignore[arg-type]
            assert {event for events in made.values() for event in events} == {
                ("pe", event) for event in component.events
            }


def test_narrow_operands_drive_a_narrow_multiplier_and_change_no_area() -> None:
    pe = mac(weights=["int8", "int4"])
    int8 = get_format("int8"), get_format("int8")
    int4 = get_format("int4_g32"), get_format("int8")
    component = hardware(pe, "weights", int8, int4)
    part = {part.name: part for part in component.parts}
    assert component.events["mac int4 x int8"] == {("multiplier int4 x int8", "operate"): 1}
    assert part["multiplier int4 x int8"].params == {"a_bits": 8, "b_bits": 4}
    assert part["stationary int4 x int8"].params == {"bits": 4}
    assert {name: p for name, p in part.items() if p.count} == {
        p.name: p for p in hardware(pe, "weights").parts
    }


PAIRED = ["int4", "int8", "uint4", "fp4_e2m1", "fp6_e3m2", "fp8_e4m3", "fp8_e5m2", "fp16", "bf16"]


def codes_of(name: str, random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Element integers of random finite codes, extremes among them."""
    element = element_format(name).element
    if element.is_integer:
        low = 0 if element.kind == "uint" else -(element.max_code + 1)
        codes = random.integers(low, element.max_code + 1, shape)
        codes.flat[:2] = low, element.max_code
    else:
        # Of bf16 the values whose products fp32 holds.
        highest = element.max_code if element.exponent_bits < 8 else (127 + 60) << element.mantissa_bits
        codes = random.integers(0, highest + 1, shape)
        codes.flat[:3] = 0, 1, highest
        codes |= random.integers(0, 2, shape) << (element.bits - 1)
    return element_format(name).element_integers(codes.astype(element.dtype))


@pytest.mark.parametrize("weights", PAIRED)
@pytest.mark.parametrize("activations", PAIRED)
@pytest.mark.parametrize("accumulator", ["fp32", "bf16", "fixed600", "fixed48", "int32", "int20"])
def test_every_pair_of_elements_is_summed_exactly_and_rounded_or_wrapped_once(
    weights: str, activations: str, accumulator: str
) -> None:
    pe = mac(weights=weights, activations=activations, accumulator=accumulator, lanes=4)
    pair = (element_format(weights), element_format(activations))
    if accumulator.startswith("int") and not (pair[0].is_integer and pair[1].is_integer):
        assert "floating-point or fixed-point accumulator" in (pe.accepts(*pair) or "")
        return
    random = np.random.default_rng(len(weights) + len(activations))
    (w, w_exponent), (a, a_exponent) = (
        codes_of(weights, random, (2, 30, 4)),
        codes_of(activations, random, (2, 30, 4)),
    )
    function = pe.function(*pair)
    state, expected = np.zeros((30, 1), function.dtype), [Fraction(0)] * 30
    unit = Fraction(2) ** (w_exponent + a_exponent)
    for step in range(2):
        state = function.step(state, a[step], w[step])
        for row in range(30):
            products = zip(a[step, row], w[step, row], strict=True)
            total = expected[row] + sum(int(x) * int(y) for x, y in products) * unit
            expected[row] = held(total, accumulator, unit)
    got = [Fraction(int(value)) * Fraction(2) ** function.exponent for value in function.result(state)]
    assert got == expected


def held(value: Fraction, accumulator: str, unit: Fraction) -> Fraction:
    """What an accumulator of this name makes of a sum."""
    if accumulator[:2] in ("fi", "in"):
        bits = int(accumulator.removeprefix("fixed").removeprefix("int"))
        return ((value / unit + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)) * unit
    precision = {"fp32": 24, "bf16": 8}[accumulator]
    exponent = -126
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    step = Fraction(2) ** (exponent - precision + 1)
    return round(value / step) * step


def test_a_second_level_takes_the_first_every_so_many_steps() -> None:
    form = element_format("fp8_e4m3")
    pe = mac(weights="fp8_e4m3", activations="fp8_e4m3", accumulator="bf16", promote_every=2)
    function = pe.function(form, form)
    state, first, second = np.zeros((1, function.words), object), Fraction(0), Fraction(0)
    for count, value in enumerate([100, 1, 3, 0.125, 7], 1):
        operand = np.array([[int(value * 2**9)]])
        state = function.step(state, operand, operand)
        first = held(first + Fraction(value) ** 2, "bf16", Fraction(0))
        if count % 2 == 0:
            second, first = held(second + first, "fp32", Fraction(0)), Fraction(0)
    assert Fraction(int(function.result(state)[0]), 2**149) == second + first == 9984 + 9 + 49
    assert pe.accumulator_bits == 32
    assert pe.fits("broadcast") is None
    assert "promote_every" in (pe.fits("ws") or "")
    built = {part.name: part for part in hardware(pe, "outputs").parts}
    assert built["accumulator"].params == {"bits": 16}
    assert built["promoted"].params == {"bits": 32}


def test_a_fixed_point_accumulator_aligns_each_float_product() -> None:
    single = {
        part.name: part for part in hardware(mac(weights="fp8_e4m3", accumulator="fp32"), "outputs").parts
    }
    fixed = {
        part.name: part for part in hardware(mac(weights="fp8_e4m3", accumulator="fixed64"), "outputs").parts
    }
    assert "align" not in single
    assert fixed["align"].count == 1
    assert fixed["accumulate"].params == {"bits": 64}


def test_an_unknown_family_offers_the_known_ones() -> None:
    with pytest.raises(InputError, match="mac"):
        pe_model("mak")
