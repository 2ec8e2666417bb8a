"""The MAC PE: what it takes, how long it takes, what it is made of, what it computes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import get_format
from simulator.pe import pe_model
from simulator.pe.arithmetic import FP16, FP32, round_to_float, wrap
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
    sums = function.step(np.zeros((124, 127), object), a[:, None, None], w[None, :, None])
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
        ({"weights": "int4_g128"}, "weights"),
        ({"weights": "int99"}, "weights"),
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


def test_overlap_doubles_what_a_fold_holds() -> None:
    for stationary, name in (
        ("outputs", "accumulator"),
        ("weights", "stationary"),
        ("activations", "stationary"),
    ):
        one = {part.name: part for part in mac().structure(stationary=stationary, doubled=False).parts}  # type: ignore[arg-type]
        two = {part.name: part for part in mac().structure(stationary=stationary, doubled=True).parts}  # type: ignore[arg-type]
        assert two[name].count == 2 * one[name].count
        assert all(two[other] == one[other] for other in one if other != name)


def test_every_event_names_parts_that_exist() -> None:
    for pe in (
        mac(),
        mac(lanes=8, adder_tree_stages=3),
        mac(weights="fp16", activations="fp16", accumulator="fp32"),
    ):
        for stationary in ("outputs", "weights", "activations"):
            structure = pe.structure(stationary=stationary, doubled=True)  # type: ignore[arg-type]
            names = {part.name for part in structure.parts}
            assert {part for event in structure.events.values() for part, _ in event} <= names


def test_an_unknown_family_offers_the_known_ones() -> None:
    with pytest.raises(InputError, match="mac"):
        pe_model("mak")
