"""Dequantize before multiplying: what the decoder makes of each weight, and what it is made of."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from simulator.arch import components, load_accelerator
from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, get_format, quantize
from simulator.formats.element import decode
from simulator.pe.dequantize import DequantizePE

TARGETS = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16, "fp8_e4m3": ml_dtypes.float8_e4m3fn}
STORED = [
    "int4_g32",
    "int4_g32_asym",
    "int8_g32_asym",
    "int3_g16",
    "uint4_g32",
    "fp4_e2m1_g32",
    "mxfp4",
    "nvfp4",
    "mxint8",
    "bitmod_fp4_g32",
    "bitmod_fp3_g32",
    "flint4_g32",
    "int4_g16_su6",
    "int4_channel",
    "int4_channel_asym",
    "int4",
    "msfp12",
]


def dequantizer(weights: str, **parameters: Any) -> DequantizePE:
    name = get_format(weights).element.name
    given = {
        "family": "dequantize",
        "weights": name,
        "activations": "fp16",
        "accumulator": "fp32",
        **parameters,
    }
    return validate(DequantizePE, given)


def tensor(name: str, *, size: float = 1.0) -> QuantizedTensor:
    """Six rows of a block and a half, a block of zeros among them."""
    random = np.random.default_rng(3)
    values = random.normal(size=(2, 3, 72)) * np.exp(random.normal(size=(2, 3, 72))) * size
    values[0, 1, :32] = 0
    return quantize(np.abs(values) if name.startswith("uint") else values, name)


def exact_rows(weights: QuantizedTensor, *, group_scaled: bool) -> list[list[Fraction]]:
    """(element value - zero point) * scale of its group, a value at a time."""
    format, k = weights.format, weights.codes.shape[-1]
    values = format.element_values(weights.codes, weights.selectors).reshape(-1, k)
    size = format.group_size or k
    rows = []
    for row, elements in enumerate(values.tolist()):
        found = []
        for column, element in enumerate(elements):
            value = Fraction(element)
            if weights.zero_points is not None:
                zeros = weights.zero_points.reshape(-1)
                per_row = len(zeros) // len(values)
                value -= int(zeros[row * per_row + column // size] if per_row else zeros[0])
            if group_scaled and format.group_size:
                scales = weights.scales.reshape(len(values), -1)  # type: ignore[union-attr]
                value *= Fraction(float(scales[row, column // size]))
            found.append(value)
        rows.append(found)
    return rows


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("group_scales", ["decoder", "array"])
def test_every_weight_is_rounded_once(name: str, target: str, group_scales: str) -> None:
    """To what ml_dtypes and numpy round the exact value to; FP8 saturates where they have NaN."""
    pe, weights = dequantizer(name, target=target, group_scales=group_scales), tensor(name)
    got = pe.decode("weights", weights)
    assert got.format == pe.received("weights", weights.format)
    assert got.zero_points is None
    assert got.selectors is None
    largest = float(ml_dtypes.finfo(TARGETS[target]).max)
    exact = exact_rows(weights, group_scaled=group_scales == "decoder")
    reals = np.clip(np.array([[float(value) for value in row] for row in exact]), -largest, largest)
    assert all(Fraction(float(value)) == value for row in exact for value in row)
    expected = reals.astype(TARGETS[target]).astype(np.float64)
    values = decode(got.format.element, got.codes).reshape(expected.shape)
    assert (values == expected).all()


@pytest.mark.parametrize("name", STORED)
def test_what_remains_to_be_scaled_is_worth_the_same(name: str) -> None:
    """With values that FP16 holds exactly the decoded tensor stands for what the stored one does."""
    weights = tensor(name)
    got = dequantizer(name, target="fp16", group_scales="array").decode("weights", weights)
    assert (dequantize(got, np.float64) == dequantize(weights, np.float64)).all()


def test_a_scale_that_stays_is_not_applied_twice() -> None:
    for name, inside, remaining in (
        ("int4_g32", None, "int4_g32"),
        ("int4_g16_su6", "channel", None),
        ("int4_channel", "channel", "int4_channel"),
    ):
        weights = tensor(name)
        pe = dequantizer(name)
        format = pe.received("weights", weights.format)
        assert format.granularity == (inside or "none")
        got = pe.decode("weights", weights)
        if remaining == "int4_g32":
            assert got.scales is None
        restored, stored = dequantize(got, np.float64), dequantize(weights, np.float64)
        assert np.allclose(restored, stored, rtol=2**-11, atol=2**-25)


def test_too_large_for_the_target_saturates() -> None:
    weights = tensor("int4_g32", size=60000.0)
    got = dequantizer("int4_g32").decode("weights", weights)
    values = decode(got.format.element, got.codes)
    assert np.abs(values).max() == 65504
    assert np.isfinite(values).all()


def test_products_are_those_of_the_target_and_the_activation() -> None:
    weights, activations = tensor("int4_g32_asym"), quantize(np.linspace(-3, 3, 72)[None], "fp16")
    pe = dequantizer("int4_g32_asym", lanes=4)
    function = pe.function(weights.format, activations.format)
    received = pe.decode("weights", weights)
    w, w_exponent = received.format.element_integers(received.codes[0, 0])
    a, a_exponent = activations.format.element_integers(activations.codes[0])
    state, held = np.zeros((1, 1), object), np.float32(0)
    for low in range(0, 72, 4):
        step = slice(low, low + 4)
        state = function.step(state, a[None, step], w[None, step])
        exact = sum(Fraction(int(x) * int(y)) for x, y in zip(a[step], w[step], strict=True))
        total = Fraction(float(held)) + exact * Fraction(2) ** (w_exponent + a_exponent)
        held = np.float32(float(total))
        assert Fraction(float(total)) == total
    assert Fraction(int(function.result(state)[0]), 2**149) == Fraction(float(held))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "int8"}, "not a float of at most 16 bits"),
        ({"target": "fp32"}, "not a float of at most 16 bits"),
        ({"group_scales": "both"}, "group_scales"),
        ({"decode_cycles": 0}, "decode_cycles"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dequantizer("int4", **parameters)


def test_formats_without_a_decoder_are_refused() -> None:
    fp16 = get_format("fp16")
    narrow = dequantizer("int4", scale_significand_bits=4)
    assert "have 11" in (narrow.accepts(get_format("int4_g32"), fp16) or "")
    assert narrow.accepts(get_format("int4_g16_su6"), fp16) is not None
    assert dequantizer("fp4_e2m1", scale_significand_bits=4).accepts(get_format("nvfp4"), fp16) is None
    assert "it takes weights of int4" in (narrow.accepts(get_format("int3"), fp16) or "")
    assert "activations" in (dequantizer("int4").accepts(get_format("int4"), get_format("int8")) or "")


def test_the_decoder_stands_at_the_edge_with_its_cycles() -> None:
    pe = dequantizer("int4", lanes=8, decode_cycles=2)
    pair = (get_format("int4_g32_asym"), get_format("fp16"))
    assert pe.timing(*pair).weight_decode == 2
    pe_component, decoder = pe.hardware(
        weight_lines=5, activation_lines=3, stationary="outputs", doubled=False, pairs=[pair]
    )
    assert (pe_component.count, decoder.count) == (15, 5 * 8)
    assert pe.activity(*pair, stationary="outputs")["weight"] == {
        ("weight_decoder", "decode int4 zero scaled"): 1
    }


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"array.dataflow": "os"}, 5),
        ({"array.dataflow": "os", "array.rows_hold": "n"}, 3),
        ({"array.dataflow": "broadcast", "array.rows_hold": "n"}, 3),
        ({"array.dataflow": "ws"}, 5),
        ({"array.dataflow": "is"}, 3),
    ],
)
def test_decoders_stand_where_weights_enter(changes: dict[str, str], lines: int) -> None:
    accelerator = load_accelerator("w4a16_dequantize", {"array.rows": 3, "array.cols": 5, **changes})
    (decoder,) = (part for part in components(accelerator) if part.name == "weight_decoder")
    assert decoder.count == lines * accelerator.pe.lanes


def test_each_step_of_decoding_is_a_part_that_works_only_where_it_is_needed() -> None:
    names = ["int4_g32", "int4_g32_asym", "int8_channel", "fp4_e2m1_g32", "flint4_g32"]
    formats = [get_format(name) for name in names]
    elements = [format.element.name for format in formats]
    pe = validate(
        DequantizePE,
        {"family": "dequantize", "weights": elements, "activations": "fp16", "accumulator": "fp32"},
    )
    parts, events = pe.decoder(formats)
    known = {part.name: part for part in parts}
    assert {part for event in events.values() for part, _ in event} <= set(known)
    assert known["multiplier"].params == {"a_bits": 11, "b_bits": 8}
    assert known["multiplier int4"].params == {"a_bits": 11, "b_bits": 4}
    assert known["multiplier int4"].count == 0
    assert ("subtractor", "operate") in events["decode int4 zero scaled"]
    assert ("subtractor", "operate") not in events["decode int4 scaled"]
    assert ("multiplier int8", "operate") not in events["decode int8"]
    assert ("leading_one", "operate") not in events["decode fp4_e2m1 scaled"]
    assert ("table", "operate") in events["decode flint4 scaled"]
    array = pe.model_copy(update={"group_scales": "array"})
    assert "multiplier" not in {part.name for part in array.decoder(formats)[0]}
