"""FIGNA: the pre-aligner against fractions, and integer sums of aligned activations through the array."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitmod_oracle import to_float
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arch import load_accelerator
from simulator.array.rescale import operand
from simulator.config import validate
from simulator.engine import reference
from simulator.engine.reference import Operands
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, get_format, quantize
from simulator.hardware import load_technology
from simulator.mapping import plan_gemm
from simulator.pe.figna import FignaPE
from simulator.workload import gemm_workload

FP16, W4 = get_format("fp16"), get_format("int4_g128")
NUMPY = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def figna(**parameters: Any) -> FignaPE:
    return validate(
        FignaPE, {"family": "figna", "weights": ["int4", "int8"], "activations": "fp16", **parameters}
    )


def exponent_of(value: Fraction, smallest: int) -> int:
    """floor(log2), zero and subnormals that of the smallest normal value."""
    exponent = smallest
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    return exponent


def aligned(values: list[Fraction], bits: int, smallest: int) -> list[Fraction]:
    """Each cut off towards zero after so many bits from the largest exponent's."""
    unit = Fraction(2) ** (max(exponent_of(value, smallest) for value in values) - bits + 1)
    return [int(value / unit) * unit for value in values]


@settings(max_examples=60, deadline=None)
@given(
    patterns=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=13),
    name=st.sampled_from(["fp16", "bf16"]),
    guard=st.integers(0, 6),
)
def test_aligned_values_are_the_oracles(patterns: list[int], name: str, guard: int) -> None:
    codes = np.array([patterns], np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs, which are among the codes
        reals = codes.view(NUMPY[name]).astype(np.float64)
    codes = np.where(np.isfinite(reals), codes, 0).astype(np.uint16)
    values = [Fraction(float(v)) for v in codes.view(NUMPY[name])[0].astype(np.float64)]
    pe = figna(activations=name, guard_bits=guard, align_group=5)
    found = pe.decode("activations", QuantizedTensor(codes, get_format(name)))
    bits, smallest = {"fp16": (11, -14), "bf16": (8, -126)}[name]
    expected = []
    for low in range(0, len(values), 5):
        expected += aligned(values[low : low + 5], bits + guard, smallest)
    assert [Fraction(float(v)) for v in dequantize(found, np.float64)[0]] == expected
    assert int(np.abs(found.codes).max()) < 1 << (bits + guard)


def test_values_of_one_exponent_lose_nothing() -> None:
    values = np.array([[1.0, -1.999, 1.5, 1.0009765625]], np.float16)
    before = quantize(values, "fp16")
    assert (dequantize(figna().decode("activations", before)) == values).all()


def test_the_error_of_a_value_is_below_one_part_in_8192_of_the_largest() -> None:
    """14 bits: less than a unit of 2**-13 of the largest exponent's power of two."""
    values = np.random.default_rng(3).laplace(size=(20, 64)).astype(np.float16)
    after = dequantize(figna().decode("activations", quantize(values, "fp16")), np.float64)
    power = 2.0 ** np.floor(np.log2(np.abs(values).max(axis=1, keepdims=True).astype(np.float64)))
    assert (np.abs(after - values) < power * 2.0**-13).all()


def test_infinities_are_refused() -> None:
    with pytest.raises(InputError, match="2 Inf or NaN"):
        figna().decode("activations", QuantizedTensor(np.array([[0x7C00, 0xFE01, 0]], np.uint16), FP16))


def test_zeros_are_zeros() -> None:
    found = figna().decode("activations", QuantizedTensor(np.array([[0, 0x8000]], np.uint16), FP16))
    assert found.codes.tolist() == [[0, 0]]


def expected(activations: QuantizedTensor, weights: QuantizedTensor, i: int, j: int) -> Fraction:
    """Integer sums of 8 values, each scaled and rounded into FP32; a channel's scale last."""
    assert activations.scales is not None
    assert weights.scales is not None
    group, total = weights.format.group_size, Fraction(0)
    for low in range(0, 24, 8):
        where = low // group if group else 0
        zero = 0 if weights.zero_points is None else int(weights.zero_points[j, where])
        aligned_codes, codes = (
            activations.codes[i, low : low + 8].tolist(),
            weights.codes[j, low : low + 8].tolist(),
        )
        whole = sum(a * (q - zero) for a, q in zip(aligned_codes, codes, strict=True))
        scale = Fraction(float(activations.scales[i, low // 8])) / 2**13
        total = to_float(total + whole * scale * (Fraction(float(weights.scales[j, where])) if group else 1))
    return total if group else to_float(total * Fraction(float(weights.scales[j, 0])))


@pytest.mark.parametrize("weights", ["int4_channel", "int8_g8", "int4_g16_asym"])
def test_results_through_the_array_are_integer_sums_scaled_a_group(weights: str) -> None:
    accelerator = load_accelerator(
        {
            "name": "small",
            "clock_ghz": 1.0,
            "array": {"dataflow": "ws", "rows": 8, "cols": 4},
            "pe": {"family": "figna", "weights": ["int4", "int8"], "activations": "fp16", "align_group": 8},
            "buffers": {
                "weights": {"kib": 1, "banks": 2, "width_bits": 128},
                "activations": {"kib": 1, "banks": 2, "width_bits": 128},
                "outputs": {"kib": 1, "banks": 2, "width_bits": 128, "ports": "1r1w"},
            },
            "vector": {"lanes": 4},
            "dram": {"bandwidth_gb_per_s": 8.0, "latency_ns": 5},
        }
    )
    pe = accelerator.element
    plan = plan_gemm(gemm_workload(3, 24, 5, weights=weights, activations="fp16").gemms[0], accelerator)
    random = np.random.default_rng(5)
    w = quantize(random.normal(size=(5, 24)).astype(np.float32), weights)
    a = pe.decode("activations", quantize(random.laplace(size=(3, 24)).astype(np.float32), "fp16"))
    operands = Operands(operand(w, 1, 5), operand(a, 1, 3), pe.function(w.format, FP16))
    _, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    assert results[0].tolist() == [[float(expected(a, w, i, j)) for j in range(5)] for i in range(3)]


def test_the_array_sees_groups_of_the_aligners_size() -> None:
    pe = figna(align_group=32)
    received = pe.received("activations", FP16)
    assert (received.group_size, received.element.bits, received.element.name) == (32, 15, "s14")
    assert pe.word_bits("activations") == 15
    assert pe.timing(W4, FP16).initiation_interval == 1


def test_what_it_does_not_align_is_refused() -> None:
    with pytest.raises(InputError, match="pre-aligner"):
        figna(activations="int8")
    with pytest.raises(InputError, match="integer weights"):
        figna(weights="fp4_e2m1")
    assert "int6" in (figna().accepts(get_format("int6"), FP16) or "")


def test_prealigners_stand_at_the_rows() -> None:
    pe = figna()
    found = {
        c.name: c
        for c in pe.hardware(
            activation_lines=64, weight_lines=32, stationary="weights", doubled=True, pairs=[(W4, FP16)]
        )
    }
    assert found["prealigner"].count == 64
    technology = load_technology("published_45nm")
    activity = pe.activity(W4, FP16, stationary="weights")
    prices = {name: technology.price(component).energy_pj for name, component in found.items()}
    assert all(event in prices[name] for made in activity.values() for name, event in made)
    assert activity["activation"] == {("prealigner", "decode fp16"): 1}


def test_a_prealigner_has_the_widths_of_exponents_and_aligned_significands() -> None:
    """FP16: exponents of 5 bits, significands of 11 and 3 guard bits; each circuit works once a value."""
    pe = figna()
    assert pe.received("activations", FP16).name == "bfp14_b64"
    found = pe.hardware(
        weight_lines=1, activation_lines=1, stationary="weights", doubled=False, pairs=[(W4, FP16)]
    )
    (aligner,) = (component for component in found if component.name == "prealigner")
    assert {part.name: part.params["bits"] for part in aligner.parts} == {
        "comparator": 5,
        "distance": 5,
        "shifter": 14,
        "value": 16,
        "result": 15,
    }
    assert {part.count for part in aligner.parts} == {1}
    assert aligner.events["decode fp16"] == {
        ("comparator", "operate"): 1,
        ("distance", "operate"): 1,
        ("shifter", "operate"): 1,
        ("value", "write"): 1,
        ("result", "write"): 1,
    }
