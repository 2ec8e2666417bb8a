"""The block-scaled dot product against rational arithmetic, and what its widths are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from block_oracle import ZERO, finite_values, oracle, rounded
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, get_format, quantize
from simulator.formats.element import Element
from simulator.hardware import load_technology
from simulator.pe.arithmetic import FP32, add_and_round, integers_of, round_to_float
from simulator.pe.block_dot import BlockDotPE, exact_sum_bits
from simulator.pe.elements import element_format
from simulator.pe.protocol import Scales

ELEMENTS = ["int8", "int4", "s3", "fp8_e4m3", "fp8_e5m2", "fp6_e2m3", "fp6_e3m2", "fp4_e2m1", "fp16", "uint4"]


def block_dot(**parameters: Any) -> BlockDotPE:
    given = {"family": "block_dot", "weights": "fp8_e4m3", "activations": "fp8_e4m3", **parameters}
    return validate(BlockDotPE, given)


def integers(element: Element, values: Any) -> Any:
    exponent = element.quantum_exponent
    return np.array(
        [[int(Fraction(value) / Fraction(2) ** exponent) for value in row] for row in values], object
    )


def simulated(
    pe: BlockDotPE, weights: Format, activations: Format, steps: list[tuple[Any, Any, Fraction, Fraction]]
) -> Fraction:
    """The PE's result of steps (activations, weights, scale of weights, of activations)."""
    function = pe.function(weights, activations)
    state = np.zeros((1, function.words), object)
    nothing = np.zeros(1, object)
    for a, w, w_scale, a_scale in steps:
        scales = Scales(
            *(np.array([int(s * 2**149)], object) for s in (w_scale, a_scale)), nothing, nothing, True
        )
        a_integers, w_integers = integers(activations.element, [a]), integers(weights.element, [w])
        state = function.step(
            state, a_integers, w_integers, scales if pe.scales_inside(weights, activations) else None
        )
    return Fraction(int(function.result(state)[0])) * Fraction(2) ** function.exponent


@st.composite
def machines(draw: st.DrawFn) -> tuple[BlockDotPE, str, str, list[tuple[Any, Any]]]:
    weights, activations = draw(st.sampled_from(ELEMENTS)), draw(st.sampled_from(ELEMENTS))
    cluster = draw(st.integers(1, 4))
    floats = not all(element_format(name).element.is_integer for name in (weights, activations))
    window = draw(st.sampled_from([None, 2, 5, 13, 24, 36])) if floats else None
    fused = window is not None and draw(st.booleans())
    truncate = draw(st.booleans())
    pe = block_dot(
        weights=weights,
        activations=activations,
        lanes=cluster * draw(st.integers(1, 3)),
        lanes_per_alignment=cluster,
        align_window=window,
        fuse_accumulator=fused,
        sticky=fused and not truncate and draw(st.booleans()),
        acc_format=draw(st.sampled_from(["fp32", "bf16", "e8m13"])),
        acc_rounding="truncate" if truncate else "nearest",
        promote_every=draw(st.sampled_from([None, 1, 2, 3])),
    )
    w_values = st.sampled_from(finite_values(element_format(weights).element))
    a_values = st.sampled_from(finite_values(element_format(activations).element))
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        steps.append(
            (
                draw(st.lists(a_values | st.just(0.0), min_size=pe.lanes, max_size=pe.lanes)),
                draw(st.lists(w_values, min_size=pe.lanes, max_size=pe.lanes)),
            )
        )
    return pe, weights, activations, steps


@settings(max_examples=300, deadline=None)
@given(machine=machines())
def test_results_equal_rational_arithmetic_bit_for_bit(machine: Any) -> None:
    pe, weight_name, activation_name, steps = machine
    weights, activations = element_format(weight_name), element_format(activation_name)
    one = Fraction(1)
    expected = oracle(pe, (weights.element, activations.element), [(a, w, one) for a, w in steps])
    assert simulated(pe, weights, activations, [(a, w, one, one) for a, w in steps]) == expected


def test_a_sum_that_is_cut_to_nothing_is_zero_whatever_the_sticky_bit() -> None:
    """The least subnormal of FP16, two bits kept: the largest value that its exponent field has is far above it."""
    pe = block_dot(
        weights="fp16",
        activations="int8",
        lanes=1,
        align_window=2,
        fuse_accumulator=True,
        sticky=True,
        acc_format="bf16",
    )
    steps = [([-127.0], [2.0**-24], Fraction(1), Fraction(1))]
    assert simulated(pe, element_format("fp16"), element_format("int8"), steps) == 0


def test_wide_exact_sums_equal_the_narrow_path() -> None:
    """E5M2 products span 70 bits and are added as Python integers; windows of 36 bits in float64."""
    e5m2 = element_format("fp8_e5m2")
    wide = block_dot(weights="fp8_e5m2", activations="fp8_e5m2", lanes=8).function(e5m2, e5m2)
    narrow = block_dot(weights="fp8_e5m2", activations="fp8_e5m2", lanes=8, align_window=36).function(
        e5m2, e5m2
    )
    assert not wide.in_float64
    assert narrow.in_float64
    random = np.random.default_rng(0)
    codes = random.integers(0x30, 0x48, (2, 500, 8)) | random.integers(0, 2, (2, 500, 8)) << 7
    a, w = (e5m2.element_integers(each.astype(np.uint8))[0] for each in codes)
    state = np.zeros((500, 1), object)
    assert (wide.step(state, a, w) == narrow.step(state, a, w)).all()


def test_accumulators_of_fixed_point_are_exact_and_wrap() -> None:
    for bits, wraps in ((40, False), (20, True)):
        pe = block_dot(lanes=4, acc_format=f"fixed{bits}")
        form = element_format("fp8_e4m3")
        codes = np.array([[0x7E, 0xFE, 0x38, 0x01], [0x7E, 0x01, 0x38, 0x7E]], np.uint8)
        a = form.element_integers(codes)[0]
        state = pe.function(form, form).step(np.zeros((1, 1), np.int64), a[:1], a[1:])
        exact = sum(int(x) * int(y) for x, y in zip(a[0], a[1], strict=True))
        held = int(state[0, 0])
        assert (held != exact) == wraps
        assert (held - exact) % 2**bits == 0


BLOCKS = [
    ("mxfp8_e4m3", "mxfp8_e4m3", "e8m0"),
    ("mxfp8_e5m2", "mxfp8_e4m3", "e8m0"),
    ("mxfp6_e3m2", "mxfp6_e2m3", "e8m0"),
    ("mxfp4", "mxfp8_e4m3", "e8m0"),
    ("mxint8", "mxint8", "e8m0"),
    ("mxint6", "mxint4", "e8m0"),
    ("nvfp4", "nvfp4", "fp8_e4m3"),
    ("nvint4", "nvint4", "fp8_e4m3"),
    ("msfp12", "msfp16", "e8"),
    ("int4_g16", "fp8_e4m3", "fp16"),
    ("int4_g16_su6", "int8_g16_su6", "uint6"),
]


@pytest.mark.parametrize(("weights", "activations", "scale"), BLOCKS)
@pytest.mark.parametrize(("window", "fused"), [(None, False), (13, False), (13, True)])
def test_block_formats_equal_rational_arithmetic(
    weights: str, activations: str, scale: str, window: int | None, fused: bool
) -> None:
    """Quantized tensors with outliers, a block of zeros and half a block, one pair of rows at a time."""
    random = np.random.default_rng(5)
    values = random.normal(size=(2, 3, 40)) * np.exp(random.normal(size=(2, 3, 40)) * 2)
    values[:, :, :16] *= [[[0.0], [1.0], [1.0]], [[1.0], [1.0], [0.0]]]
    w, a = quantize(values[0], weights), quantize(values[1], activations)
    names = (w.format.element.name, a.format.element.name)
    lanes = min(format.group_size for format in (w.format, a.format) if format.group_size)
    # Beside the elements of the pair the PE takes a float, so that it has aligners.
    pe = block_dot(
        weights=sorted({names[0], "fp8_e5m2"}),
        activations=names[1],
        lanes=lanes,
        align_window=window,
        fuse_accumulator=fused,
        scales=scale,
    )
    if fused and scale not in ("e8m0", "e8"):
        assert "no multiplier for scales" in (pe.accepts(w.format, a.format) or "")
        return
    assert pe.scales_inside(w.format, a.format)
    values_of = [[[float(x) for x in row] for row in t.format.element_values(t.codes)] for t in (w, a)]

    def scale_of(tensor: Any, row: int, k: int) -> Fraction:
        if not tensor.format.group_size:
            return Fraction(1)
        return Fraction(float(tensor.scales[row, k // tensor.format.group_size]))

    for row in range(3):
        steps = []
        for low in range(0, 40, lanes):
            size = min(lanes, 40 - low)
            padding = [0.0] * (lanes - size)
            steps.append(
                (
                    values_of[1][row][low : low + size] + padding,
                    values_of[0][row][low : low + size] + padding,
                    scale_of(w, row, low),
                    scale_of(a, row, low),
                )
            )
        expected = oracle(pe, (w.format.element, a.format.element), [(x, y, s * t) for x, y, s, t in steps])
        assert simulated(pe, w.format, a.format, steps) == expected


def test_mxint8_in_one_block_is_integer_arithmetic() -> None:
    form = get_format("mxint8")
    random = np.random.default_rng(1)
    codes = random.integers(-127, 128, (2, 200, 32))
    codes[:, 0], codes[:, 1, :] = 127, -127
    codes[1, 1] = 127
    one = np.full(200, 2**149, object)
    scales = Scales(one * 2**5, one // 2**9, one * 0, one * 0, True)
    function = block_dot(weights="int8", activations="int8", scales="e8m0").function(form, form)
    got = function.result(function.step(np.zeros((200, 1), object), codes[0], codes[1], scales))
    exact = (codes[0] * codes[1]).sum(axis=-1)
    assert (got == [int(value) * 2 ** (149 - 12 + 5 - 9) for value in exact]).all()


def test_a_fused_exponent_max_takes_scales_in() -> None:
    """The alignment is with the scaled products: a small scale drops products below a large accumulator."""
    form = get_format("mxfp8_e4m3")
    pe = block_dot(lanes=2, align_window=8, fuse_accumulator=True, scales="e8m0")
    one = Fraction(1)
    for shift in range(14):
        small = Fraction(1, 2**shift)
        steps = [([1.0, 0.0], [1.5, 0.0], one, one), ([1.0, 0.0], [1.25, 0.0], small, one)]
        expected = oracle(pe, (form.element, form.element), [(a, w, s * t) for a, w, s, t in steps])
        assert simulated(pe, form, form, steps) == expected
        assert (expected == Fraction(3, 2)) == (shift > 8)


def test_products_of_integer_scales_keep_their_upper_bits() -> None:
    form = get_format("int4_g16_su6")
    one = 2**149
    for kept in (4, 6, 8, 12):
        pe = block_dot(
            weights="int4",
            activations="int4",
            acc_format="int32",
            lanes=16,
            scales="uint6",
            scale_product_bits=kept,
        )
        function = pe.function(form, form)
        assert function.dtype == np.int64
        for w, a in ((63, 63), (1, 1), (10, 13), (63, 1), (0, 7)):
            scales = Scales(*(np.array([s * one], object) for s in (w, a, 0, 0)), True)
            state = function.step(
                np.zeros((1, 1), np.int64), np.ones((1, 16), int), np.full((1, 16), 3), scales
            )
            step = 2 ** (12 - kept)
            assert int(state[0, 0]) == 48 * step * round(Fraction(w * a, step))


def test_truncating_thirteen_bits_loses_what_a_second_level_keeps() -> None:
    """Sums of many equal products stall where a product falls below the last bit; promotion every fourth step helps."""
    form = element_format("fp8_e4m3")
    reduced = {"lanes": 32, "align_window": 13, "fuse_accumulator": True, "acc_format": "e8m13"}
    errors = []
    for promote in (None, 4):
        pe = block_dot(**reduced, acc_rounding="truncate", promote_every=promote)
        function = pe.function(form, form)
        state = np.zeros((1, function.words), object)
        ones, thirds = np.full((1, 32), 2**9), np.full((1, 32), 13 * 2**5)
        for _ in range(256):
            state = function.step(state, ones, thirds)
        value = Fraction(int(function.result(state)[0])) * Fraction(2) ** function.exponent
        errors.append(1 - value / (256 * 32 * Fraction(13, 16)))
    assert 0 <= errors[1] < errors[0] / 8


def test_a_window_of_24_drops_less_than_a_last_bit_a_term() -> None:
    form = element_format("fp8_e4m3")
    random = np.random.default_rng(2)
    codes = random.integers(8, 0x7F, (2, 400, 32)) | random.integers(0, 2, (2, 400, 32)) << 7
    a, w = (form.element_integers(each.astype(np.uint8))[0] for each in codes)
    exact = block_dot().function(form, form)
    fused = block_dot(align_window=24, fuse_accumulator=True, sticky=True).function(form, form)
    state = np.zeros((400, 1), object)
    different = 0
    for _ in range(3):
        x, y = exact.step(state, a, w)[:, 0], fused.step(state, a, w)[:, 0]
        products = np.abs(a * w).astype(object) * 2 ** (149 - 18)
        largest = np.maximum(products.max(axis=-1), abs(state[:, 0]))
        ulps = np.array([2 ** max(0, int(value).bit_length() - 24) for value in abs(x)], object)
        assert (abs(x - y) * 2**24 <= 33 * largest + ulps * 2**24).all()
        different += (x != y).sum()
        state = exact.step(state, a, w)
    assert different


def test_fast_rounding_of_sums_is_the_plain_one() -> None:
    random = np.random.default_rng(3)
    a = np.ldexp(random.integers(-(2**24), 2**24, 4000).astype(float), random.integers(-160, 60, 4000))
    b = np.ldexp(random.integers(-(2**53), 2**53, 4000).astype(float), random.integers(-190, 30, 4000))
    exact = [int(Fraction(x) * 2**400) + int(Fraction(y) * 2**400) for x, y in zip(a, b, strict=True)]
    for truncate in (False, True):
        plain = round_to_float(np.array(exact, object), -400, FP32, truncate=truncate)
        assert (integers_of(add_and_round(a, b, FP32, truncate=truncate), FP32.low) == plain).all()


def test_scales_wait_for_the_second_level() -> None:
    """Blocks of three steps, promotion every second: after the second step, at the end of the block, with its scale."""
    form = get_format("fp8_e4m3_g6")
    pe = block_dot(
        lanes=2, align_window=13, fuse_accumulator=True, acc_format="e8m13", promote_every=2, scales="fp16"
    )
    function = pe.function(form, form)
    random = np.random.default_rng(4)
    values = [float(x) for x in finite_values(form.element)]
    state, promoted = np.zeros((1, 3), object), ZERO
    for block in range(4):
        scales = [Fraction(float(np.float16(scale))) for scale in (0.1 * 3**block, 0.7 / 5**block)]
        held: list[Any] = []
        for number in range(3):
            a, w = random.choice(values, 2).tolist(), random.choice(values, 2).tolist()
            exact = [np.array([int(scale * 2**149)], object) for scale in scales]
            nothing = np.zeros(1, object)
            step = Scales(exact[0], exact[1], nothing, nothing, number == 2)
            state = function.step(state, integers(form.element, [a]), integers(form.element, [w]), step)
            held.append((a, w, Fraction(1)))
            if number > 0:
                first = oracle(
                    pe.model_copy(update={"promote_every": None}), (form.element, form.element), held
                )
                promoted = rounded(promoted + first * scales[0] * scales[1], 24, -126, truncate=False)
                held = []
        assert Fraction(int(function.result(state)[0]), 2**149) == promoted
        assert not state[0, 0]
    assert pe.accepts(get_format("fp8_e4m3_g6"), form) is None
    wide = pe.model_copy(update={"acc_format": "fp32", "scales": ("fp32",)})
    fp32_scales = replace(form, scale_element=element_format("fp32").element)
    assert "wider than 53 bits" in (wide.accepts(fp32_scales, fp32_scales) or "")


def test_overflow_of_the_accumulator_is_refused() -> None:
    form = get_format("mxfp8_e4m3")
    function = block_dot(lanes=2, scales="e8m0").function(form, form)
    large = np.array([2 ** (149 + 100)], object)
    scales = Scales(large, large, large * 0, large * 0, True)
    with pytest.raises(InputError, match="overflows the fp32 accumulator"):
        function.step(np.zeros((1, 1), object), np.ones((1, 2), int), np.ones((1, 2), int) * 2**18, scales)


# What it takes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 32, "lanes_per_alignment": 5}, "does not divide the lanes"),
        ({"fuse_accumulator": True}, "fuse_accumulator: needs an align_window"),
        ({"align_window": 24, "sticky": True}, "sticky: needs a fused accumulator"),
        ({"align_window": 24, "acc_format": "fixed64"}, "align_window: needs a floating-point acc_format"),
        ({"acc_format": "int40", "acc_rounding": "truncate"}, "acc_rounding: needs a floating-point"),
        ({"acc_format": "int40", "promote_every": 4}, "promote_every: needs a floating-point"),
        ({"weights": "int8", "activations": "int4", "align_window": 8}, "needs an element with exponents"),
        ({"acc_format": "e9m3"}, "not an accumulator; allowed: int8 to int64"),
        ({"acc_format": "fixed4000"}, "not an accumulator"),
        ({"scales": "e80"}, "no number format"),
        ({"scales": "e8m0", "scale_product_bits": 6}, "needs scales that are integers"),
        ({"weights": "flint4"}, "multipliers take integers and floats"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        block_dot(**parameters)


@pytest.mark.parametrize(
    ("parameters", "weights", "activations", "message"),
    [
        ({}, "fp4_e2m1", "fp8_e4m3", "it takes weights of fp8_e4m3"),
        ({"acc_format": "int32"}, "fp8_e4m3", "fp8_e4m3", "need a fixed-point or floating-point accumulator"),
        (
            {"acc_format": "fixed64", "scales": "e8m0"},
            "mxfp8_e4m3",
            "mxfp8_e4m3",
            "cannot hold sums scaled by e8m0",
        ),
        (
            {"align_window": 8, "fuse_accumulator": True, "scales": "fp8_e4m3", "weights": "fp4_e2m1"},
            "nvfp4",
            "fp8_e4m3",
            "no multiplier for scales of fp8_e4m3",
        ),
        ({"weights": "int4", "scales": "fp16"}, "int4_g32_asym", "fp8_e4m3", "has zero points"),
    ],
)
def test_pairs_without_a_datapath_are_refused(
    parameters: dict[str, Any], weights: str, activations: str, message: str
) -> None:
    pe, pair = block_dot(**parameters), (get_format(weights), get_format(activations))
    assert message in (pe.accepts(*pair) or "")
    with pytest.raises(InputError, match="block-scaled dot product cannot multiply"):
        pe.function(*pair)


def test_scales_of_other_formats_are_left_to_the_rescale_unit() -> None:
    pe = block_dot(weights=["fp8_e4m3", "fp4_e2m1"], activations=["fp8_e4m3", "fp4_e2m1"], scales=["e8m0"])
    assert pe.scales_inside(get_format("mxfp4"), get_format("mxfp8_e4m3"))
    assert pe.scales_inside(get_format("mxfp4"), get_format("fp8_e4m3"))
    assert not pe.scales_inside(get_format("nvfp4"), get_format("nvfp4"))
    assert not pe.scales_inside(get_format("fp8_e4m3"), get_format("fp8_e4m3"))


def test_scales_and_second_levels_need_stationary_outputs() -> None:
    assert block_dot().fits("ws") is None
    for more in ({"scales": "e8m0"}, {"promote_every": 4}):
        assert block_dot(**more).fits("broadcast") is None
        assert "pe." in (block_dot(**more).fits("ws") or "")


# What it is made of


@pytest.mark.parametrize(
    ("element", "bits"),
    [("int8", 21), ("fp4_e2m1", 14), ("fp6_e2m3", 18), ("fp6_e3m2", 24), ("fp8_e4m3", 42), ("fp8_e5m2", 70)],
)
def test_exact_sums_of_32_products_have_the_derived_widths(element: str, bits: int) -> None:
    """OCP Microscaling 1.0, section 5.3, gives the elements; the widths are 32 largest products and a sign."""
    one = element_format(element).element
    assert exact_sum_bits(one, one, 32) == bits


def parts(pe: BlockDotPE, **more: Any) -> dict[str, Any]:
    given = {
        "weight_lines": 2,
        "activation_lines": 3,
        "stationary": "outputs",
        "doubled": False,
        "pairs": (),
        **more,
    }
    (component,) = pe.hardware(**given)
    assert component.count == given["weight_lines"] * given["activation_lines"]
    return {part.name: part for part in component.parts}


def test_parameters_without_a_value_are_no_part_of_a_pe_s_name_in_tables() -> None:
    """A table's row cannot hold ``scales=``."""
    for scales in ((), ("e8m0",)):
        pe = block_dot(weights="fp8_e4m3", activations="fp8_e4m3", scales=scales, align_window=22)
        (component,) = pe.hardware(
            weight_lines=1, activation_lines=1, stationary="outputs", doubled=False, pairs=()
        )
        assert ("scales" in component.params) == bool(scales)
        assert all(str(value) for value in component.params.values())


def test_a_block_of_integers_needs_no_aligner_and_one_of_floats_one_a_lane() -> None:
    integers_only = parts(block_dot(weights="int8", activations="int8", scales="e8m0"))
    assert not {"aligner", "exponent_adder", "exponent_max", "scaler"} & set(integers_only)
    assert integers_only["tree"].params == {"bits": 21}
    assert integers_only["tree"].count == 31
    assert integers_only["multiplier"].params == {"a_bits": 8, "b_bits": 8}
    assert integers_only["scale_exponent_adder"].params == {"bits": 9}
    floats = parts(block_dot(align_window=24))
    assert floats["multiplier"].params == {"a_bits": 4, "b_bits": 4}
    assert (floats["aligner"].count, floats["aligner"].params) == (32, {"bits": 27})
    assert (floats["exponent_max"].count, floats["exponent_subtractor"].count) == (31, 32)
    assert floats["tree"].params == {"bits": 32}
    assert parts(block_dot())["aligner"].params == {"bits": 37}


def test_a_block_scale_of_e4m3_is_a_multiplier_of_significands() -> None:
    built = parts(block_dot(weights="fp4_e2m1", activations="fp4_e2m1", lanes=16, scales="fp8_e4m3"))
    assert built["scale_multiplier"].params == {"a_bits": 4, "b_bits": 4}
    assert built["scaler"].params == {"a_bits": 13, "b_bits": 8}
    assert built["scale"].params == {"bits": 5 + 8}
    vs_quant = block_dot(
        weights="int4", activations="int4", acc_format="int24", lanes=16, scales="uint6", scale_product_bits=6
    )
    assert parts(vs_quant)["scaler"].params == {"a_bits": 12, "b_bits": 6}
    assert parts(vs_quant)["accumulate"].params == {"bits": 24}


def test_the_end_of_a_block_multiplies_two_scales_once() -> None:
    form = get_format("nvfp4")
    pe = block_dot(weights="fp4_e2m1", activations="fp4_e2m1", lanes=16, scales="fp8_e4m3")
    (component,) = pe.hardware(
        weight_lines=1, activation_lines=1, stationary="outputs", doubled=False, pairs=[(form, form)]
    )
    assert component.events["group fp4_e2m1 x fp4_e2m1 in blocks"] == {
        ("scale_operands", "write"): 1,
        ("scale", "write"): 1,
        ("scale_multiplier", "operate"): 1,
        ("scale_exponent_adder", "operate"): 1,
    }


def test_scales_at_the_second_level_multiply_the_accumulator_once_a_group() -> None:
    pe = block_dot(acc_format="e8m13", promote_every=4, scales="fp16")
    built = parts(pe)
    assert (built["scaler"].count, built["scaler"].params) == (1, {"a_bits": 14, "b_bits": 22})
    form = get_format("fp8_e4m3_g128")
    (component,) = pe.hardware(
        activation_lines=1, weight_lines=1, stationary="outputs", doubled=False, pairs=[(form, form)]
    )
    promotion = component.events["promote fp8_e4m3 x fp8_e4m3 in blocks"]
    assert {("scaler", "operate"), ("promote", "operate"), ("promoted", "write")} <= set(promotion)
    assert ("scaler", "operate") not in component.events["group fp8_e4m3 x fp8_e4m3 in blocks"]
    assert ("scaler", "operate") not in component.events["step fp8_e4m3 x fp8_e4m3 in blocks"]
    name = ("pe", "promote fp8_e4m3 x fp8_e4m3")
    for size, promotions in ((128, 1), (160, 2), (32, 1), (512, 4)):
        grouped = get_format(f"fp8_e4m3_g{size}")
        made = pe.activity(grouped, grouped, stationary="outputs")
        assert made["group"]["pe", f"{name[1]} in blocks"] == promotions
        assert "result" not in made
    plain = get_format("fp8_e4m3")
    made = pe.activity(plain, plain, stationary="outputs")
    assert made["result"] == {name: 1}
    assert made["step"][name] == Fraction(1, 4)


def test_every_cluster_has_an_accumulating_adder_of_its_own() -> None:
    for cluster in (1, 4, 32):
        built = parts(block_dot(lanes_per_alignment=cluster, align_window=24))
        assert built["accumulate"].count == 32 // cluster
        assert ("tree" in built) == (cluster > 1)
        assert built.get("tree") is None or built["tree"].count == 32 - 32 // cluster


def test_events_name_parts_that_exist_and_work_at_the_active_widths() -> None:
    formats = [
        ("mxfp4", "mxfp8_e4m3"),
        ("mxint8", "mxint8"),
        ("int8", "int8"),
        ("nvfp4", "fp6_e2m3"),
        ("int8", "fp8_e5m2"),
    ]
    pairs = [(get_format(w), get_format(a)) for w, a in formats]
    elements = ["fp8_e4m3", "fp8_e5m2", "fp6_e2m3", "fp4_e2m1", "int8"]
    for more in (
        {},
        {"align_window": 24},
        {"lanes_per_alignment": 1},
        {"promote_every": 4, "pipeline_depth": 3},
    ):
        pe = block_dot(weights=elements, activations=elements, scales=["e8m0", "fp8_e4m3"], **more)
        for stationary in ("outputs", "weights", "activations"):
            (component,) = pe.hardware(
                activation_lines=1, weight_lines=1, stationary=stationary, doubled=True, pairs=pairs
            )  # type: ignore[arg-type]
            known = {part.name: part for part in component.parts}
            assert {part for event in component.events.values() for part, _ in event} <= set(known)
            assert len(known) == len(component.parts)
            for pair in pairs:
                for made in pe.activity(*pair, stationary=stationary).values():  # type: ignore[arg-type]
                    assert {event for _, event in made} <= set(component.events)
        assert known["multiplier fp4_e2m1 x fp8_e4m3 in blocks"].params == {"a_bits": 4, "b_bits": 2}
        assert known["multiplier fp4_e2m1 x fp8_e4m3 in blocks"].count == 0
        assert "group fp4_e2m1 x fp8_e4m3 in blocks" in component.events
        assert "group int8 x fp8_e5m2 in blocks" not in component.events


def area(pe: BlockDotPE) -> float:
    components = pe.hardware(
        activation_lines=1, weight_lines=1, stationary="outputs", doubled=False, pairs=()
    )
    return load_technology("published_45nm").price(components[0]).area_um2


def test_what_fp8_costs_over_int8_is_decided_by_alignment_and_accumulator() -> None:
    """Literature: 1.13 to 2.83 (FormatScope's DP32; Chen et al.; van Baalen et al., arXiv 2303.17951)."""
    int8 = area(block_dot(weights="int8", activations="int8", acc_format="int32"))
    by_cluster = [
        area(block_dot(lanes_per_alignment=cluster, align_window=24)) / int8 for cluster in (32, 8, 4, 2, 1)
    ]
    assert by_cluster == sorted(by_cluster)
    assert 1.3 < by_cluster[0] < 1.6
    assert 9 < by_cluster[-1] < 10
    by_window = [area(block_dot(align_window=window)) / int8 for window in (8, 13, 24, 32)]
    assert by_window == sorted(by_window)
    by_exponent = [
        area(block_dot(weights=name, activations=name, acc_format="fixed128"))
        for name in ("e2m5", "e3m4", "e4m3", "e5m2")
    ]
    assert by_exponent == sorted(by_exponent)


def logic_cost(element: str, format: str, **parameters: Any) -> tuple[float, float]:
    """Area and energy of a product, a share of the step and of the block's scales included, without registers."""
    pe = block_dot(weights=element, activations=element, **parameters)
    pair = (get_format(format), get_format(format))
    (component,) = pe.hardware(
        activation_lines=1, weight_lines=1, stationary="outputs", doubled=False, pairs=[pair]
    )
    registers = {part.name for part in component.parts if part.kind == "register"}
    gates = replace(
        component,
        parts=tuple(part for part in component.parts if part.name not in registers),
        events={
            event: {use: times for use, times in uses.items() if use[0] not in registers}
            for event, uses in component.events.items()
        },
    )
    priced = load_technology("published_45nm").price(gates)
    times = {"mac": pe.lanes, "step": 1, "group": 1}
    energy = sum(
        priced.energy_pj[f"{event} {element} x {element} in blocks"] * count for event, count in times.items()
    )
    return priced.area_um2 / pe.lanes, energy / pe.lanes


def test_costs_beside_chen_et_al_are_those_of_the_documentation() -> None:
    """docs/processing-elements/block-scaled.md, against arXiv 2510.25602, table 7: 0.79 and 0.63, 0.54 and 0.55, 0.38
    and 0.34."""
    area, energy = logic_cost("fp8_e4m3", "mxfp8_e4m3", scales="e8m0", align_window=22)
    for element, format, more, expected in (
        ("int8", "mxint8", {"scales": "e8m0"}, (0.86, 0.56)),
        ("fp4_e2m1", "nvfp4", {"scales": "fp8_e4m3", "lanes": 16}, (0.76, 0.45)),
        ("int4", "nvint4", {"scales": "fp8_e4m3", "lanes": 16}, (0.74, 0.34)),
    ):
        own = logic_cost(element, format, **more)
        assert (round(own[0] / area, 2), round(own[1] / energy, 2)) == expected


@settings(max_examples=60, deadline=None)
@given(
    exponents=st.lists(st.tuples(st.integers(-127, 40), st.integers(-127, 40)), min_size=1, max_size=4),
    window=st.sampled_from([None, 10, 24]),
    fused=st.booleans(),
    truncate=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_scales_of_every_size_reach_subnormals_and_zero(
    exponents: list[tuple[int, int]], window: int | None, fused: bool, truncate: bool, seed: int
) -> None:
    """E8M0 goes down to 2**-127 on both sides, far below FP32's smallest subnormal."""
    form = get_format("mxfp8_e5m2")
    pe = block_dot(
        weights="fp8_e5m2",
        activations="fp8_e5m2",
        lanes=3,
        align_window=window,
        fuse_accumulator=fused and window is not None,
        acc_rounding="truncate" if truncate else "nearest",
        scales="e8m0",
    )
    random = np.random.default_rng(seed)
    values = [value for value in finite_values(form.element) if abs(value) < 64]
    steps = []
    for left, right in exponents:
        a, w = random.choice(values, 3).tolist(), random.choice(values, 3).tolist()
        steps.append((a, w, Fraction(2) ** left, Fraction(2) ** right))
    expected = oracle(pe, (form.element, form.element), [(a, w, s * t) for a, w, s, t in steps])
    assert simulated(pe, form, form, steps) == expected


@pytest.mark.parametrize("acc_format", ["fp32", "bf16", "fixed16"])
def test_int4_in_an_e1m2_grid_is_int4(acc_format: str) -> None:
    """The values of E1M2 are -7 to 7 of its steps."""
    e1m2, int4 = element_format("e1m2"), element_format("int4")
    random = np.random.default_rng(6)
    integers = random.integers(-7, 8, (2, 2, 50, 16))
    codes = np.where(integers < 0, 8 - integers, integers).astype(np.uint8)
    decoded, exponent = e1m2.element_integers(codes)
    assert (decoded == integers).all()
    assert exponent == e1m2.element.quantum_exponent
    results = []
    for form in (e1m2, int4):
        function = block_dot(
            weights=form.name, activations=form.name, lanes=16, acc_format=acc_format
        ).function(form, form)
        state = np.zeros((50, 1), function.dtype)
        for a, w in integers:
            state = function.step(state, a, w)
        unit = Fraction(2) ** (function.exponent - 2 * form.element.quantum_exponent)
        results.append([int(value) * unit for value in function.result(state)])
    assert results[0] == results[1]


def test_shorter_alignment_never_changes_what_is_exact() -> None:
    """Where no rounding occurs the clusters are of no consequence."""
    form = element_format("fp6_e2m3")
    random = np.random.default_rng(8)
    codes = random.integers(0, 64, (2, 40, 16)).astype(np.uint8)
    a, w = (form.element_integers(each)[0] for each in codes)
    found = []
    for cluster in (1, 2, 4, 8, 16):
        pe = block_dot(weights="fp6_e2m3", activations="fp6_e2m3", lanes=16, lanes_per_alignment=cluster)
        found.append(pe.function(form, form).step(np.zeros((40, 1), object), a, w))
    assert all((each == found[0]).all() for each in found)
    assert (found[0][:, 0] == (a * w).sum(axis=-1).astype(object) * 2 ** (149 - 6)).all()
