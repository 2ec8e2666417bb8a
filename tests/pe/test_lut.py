"""The look-up-table PE: odd integers, half tables, planes, and results bit for bit."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pe_oracles import dot, fp16, fp32, nearest_even, wrapped

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor, dequantize, get_format, quantize
from simulator.formats.element import FP32 as FP32_ELEMENT
from simulator.formats.element import integer, value_table
from simulator.hardware import load_technology
from simulator.pe.lut import LutPE
from simulator.pe.lut_structure import scale_of
from simulator.pe.tables import (
    as_odd_integers,
    generator_additions,
    half_table,
    keys,
    odd_planes,
    plain_table_additions,
    quantized,
    read,
)

FP16_FORMAT = get_format("fp16")
CODES = 2**16


def lut(**parameters: Any) -> LutPE:
    return validate(
        LutPE, {"family": "lut", "weights": ["int2", "int4"], "activations": "int8", **parameters}
    )


def entry_by_definition(key: int, activations: list[Fraction]) -> Fraction:
    """Signs by the bits of a key, +1 for 1."""
    return sum((a if key >> i & 1 else -a for i, a in enumerate(activations)), Fraction(0))


# Odd integers


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_reinterpretation_is_exact_for_every_code(bits: int, signed: bool) -> None:
    """2 q - (2**b - 1) has the digits 2 bit - 1, for unsigned q and for the two's complement of q - 2**(b - 1)."""
    element = integer(bits, signed=signed)
    assert odd_planes(element) == bits
    codes = np.arange(2**bits) - (2 ** (bits - 1) if signed else 0)
    scale = np.array(3.0, np.float32)
    tensor = QuantizedTensor(
        codes.astype(element.dtype), Format("x", element, "tensor", scale_element=FP32_ELEMENT), scale
    )
    odd = as_odd_integers(tensor)
    for q, found in enumerate(odd.codes.tolist()):
        assert found == 2 * q - (2**bits - 1) == sum(2**i * (2 * (q >> i & 1) - 1) for i in range(bits))
    assert (dequantize(odd) == dequantize(tensor)).all()


@pytest.mark.parametrize(
    "name", ["int4_g8_asym", "int2_g8_asym", "int3_channel", "int8", "uint4", "int4_channel_asym"]
)
def test_odd_integers_with_half_scales_are_the_same_values(name: str) -> None:
    values = np.random.default_rng(5).normal(size=(6, 24))
    tensor = quantize(np.abs(values) if name.startswith("u") else values, get_format(name))
    odd = as_odd_integers(tensor)
    assert (odd.codes % 2 == 1).all()
    assert odd.format.has_zero_point
    assert (dequantize(odd, np.float64) == dequantize(tensor, np.float64)).all()


def test_ternary_and_binary_weights_have_two_planes_and_one() -> None:
    assert odd_planes(get_format("ternary").element) == 2
    assert odd_planes(get_format("binary").element) == 1
    assert odd_planes(value_table("odd", (-3, 1, 3, 5))) == 3
    for element in (integer(9), get_format("fp4").element, value_table("even", (0, 1))):
        assert odd_planes(element) is None
    random = np.random.default_rng(1).normal(size=(2, 8))
    binary, ternary = (quantize(random, get_format(name)) for name in ("binary", "ternary"))
    assert as_odd_integers(binary) is binary
    assert (dequantize(as_odd_integers(ternary)) == dequantize(ternary)).all()


def test_a_scale_without_a_half_is_refused() -> None:
    tensor = QuantizedTensor(
        np.ones((1, 4), np.int8),
        Format("int4", integer(4), "tensor", scale_element=FP32_ELEMENT),
        np.float32(2.0**-149),  # type: ignore[arg-type]
    )
    with pytest.raises(InputError, match="half"):
        as_odd_integers(tensor)


# Tables


@pytest.mark.parametrize("inputs", range(1, 7))
def test_a_half_table_holds_half_of_the_sums_and_gives_all_of_them(inputs: int) -> None:
    activations = np.random.default_rng(inputs).integers(-128, 128, (5, inputs))
    entries = half_table(activations)
    assert entries.shape == (5, 2 ** (inputs - 1))
    for key in range(2**inputs):
        digits = np.array([2 * (key >> i & 1) - 1 for i in range(inputs)])
        signs, indices = keys(digits[None], inputs)
        got = signs[0] * read(entries[:, None], np.broadcast_to(indices[:, None], (1, 5, 1)))[0, :, 0]
        for row, found in zip(activations, got, strict=True):
            assert found == entry_by_definition(key, [Fraction(int(a)) for a in row])


@pytest.mark.parametrize("inputs", range(1, 9))
def test_the_tree_is_counted_as_it_adds(inputs: int) -> None:
    """The additions that `half_table` asks its adder for, one for each sum."""
    made = 0

    def counting(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        nonlocal made
        total = low + high
        made += total.size
        return total

    half_table(np.arange(inputs), counting)
    assert made == generator_additions(inputs)
    assert made <= (inputs - 1) * 2 ** (inputs - 1)


def test_four_activations_take_14_additions() -> None:
    """FIGLUT: 42 % less than 8 entries of 3 additions each."""
    assert generator_additions(4) == 14
    assert round(1 - 14 / 24, 2) == 0.42
    assert plain_table_additions(4) == 11


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, CODES - 1), min_size=4, max_size=4))
def test_int8_tables_are_the_nearest_multiples_of_a_127th_of_the_largest(codes: list[int]) -> None:
    values = np.array(codes, np.uint16).view(np.float16)
    if not np.isfinite(values).all():
        return
    entries = half_table(values.astype(np.float32))
    found, scale = quantized(entries[None])
    exact = [Fraction(float(entry)) for entry in entries]
    step = fp32(max(map(abs, exact)) / 127)
    assert Fraction(float(scale)) == step
    for code, entry in zip(found[0].tolist(), exact, strict=True):
        assert code == (nearest_even(entry / step) if step else 0)
        assert abs(code) <= 127


def test_a_table_of_zeros_has_a_scale_of_zero() -> None:
    codes, scale = quantized(np.zeros((3, 2, 8), np.float32))
    assert not codes.any()
    assert (scale == 0).all()


# The function


def run(pe: LutPE, weights: Format, activations: Format, w: Any, a: Any) -> Fraction:
    """The partial sum of one PE over operands (steps, lanes), the weights given as their own integers."""
    function = pe.function(weights, activations)
    state = np.zeros((1,), function.dtype)
    w = np.asarray(w)
    unsigned = weights.element.kind == "uint"
    odd = 2 * w + (1 - 2**weights.element.bits if unsigned else 1) if pe.reinterpret else w
    for step in range(len(a)):
        state = function.step(state, np.asarray(a[step]), odd[step])
    return Fraction(int(function.result(state))) * Fraction(2) ** function.exponent


@pytest.mark.parametrize("activation_codes", [(1, 10, 100, 127), (-128, -128, -128, -128), (0, 0, 0, 0)])
def test_lookup_equals_the_direct_sum_for_all_sign_patterns(activation_codes: tuple[int, ...]) -> None:
    """The two planes of three times a sign are alike."""
    function = lut().function(get_format("int2"), get_format("int8"))
    for signs in product((-1, 1), repeat=4):
        state = function.step(np.zeros(1, np.int64), np.array(activation_codes), 3 * np.array(signs))
        assert int(state[0]) == 3 * sum(s * a for s, a in zip(signs, activation_codes, strict=True))


steps = st.integers(1, 3)


@settings(max_examples=80, deadline=None)
@given(
    bits=st.integers(2, 8),
    activation=st.sampled_from(["int8", "int16", "uint8"]),
    shape=st.sampled_from([(4, 4), (8, 4), (6, 3), (2, 1), (8, 8)]),
    reinterpret=st.booleans(),
    accumulator=st.sampled_from(["int32", "int8", "int64"]),
    count=steps,
    data=st.data(),
)
def test_integer_results_are_the_wrapped_dot_product(
    bits: int,
    activation: str,
    shape: tuple[int, int],
    reinterpret: bool,
    accumulator: str,
    count: int,
    data: st.DataObject,
) -> None:
    lanes, inputs = shape
    pe = lut(
        weights=f"int{bits}",
        activations=activation,
        lanes=lanes,
        table_inputs=inputs,
        reinterpret=reinterpret,
        accumulator=accumulator,
    )
    weights, activations = get_format(f"int{bits}"), get_format(activation)
    a_bits, unsigned = activations.element.bits, activation.startswith("u")
    low, high = (0, 2**a_bits - 1) if unsigned else (-(2 ** (a_bits - 1)), 2 ** (a_bits - 1) - 1)
    draw = lambda lowest, highest: data.draw(  # noqa: E731
        st.lists(
            st.lists(st.integers(lowest, highest), min_size=lanes, max_size=lanes),
            min_size=count,
            max_size=count,
        )
    )
    w, a = draw(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), draw(low, high)
    taken = [[2 * x + 1 for x in row] for row in w] if reinterpret else w
    expected = sum(x * y for ws, xs in zip(taken, a, strict=True) for x, y in zip(ws, xs, strict=True))
    assert run(pe, weights, activations, w, a) == wrapped(expected, int(accumulator[3:]))


def tree(values: list[Fraction], round_: Any) -> dict[int, Fraction]:
    """Key of the other activations -> entry, as FIGLUT's two-level tree of four activations adds it up."""
    a, b, c, d = values
    low = {(i, j): round_((a if i else -a) + (b if j else -b)) for i in (0, 1) for j in (0, 1)}
    high = {k: round_((c if k else -c) + d) for k in (0, 1)}
    return {i + 2 * j + 4 * k: round_(low[i, j] + high[k]) for (i, j), k in product(low, high)}


def looked_up(entries: dict[int, Fraction], signs: list[int]) -> Fraction:
    """The entry with these signs: that of the inverted key negated where the last sign is negative."""
    flip = signs[-1]
    return flip * entries[sum(2**i for i in range(3) if signs[i] == flip)]


floats = st.lists(st.integers(0, CODES - 1), min_size=4, max_size=4)


def fp16_values(codes: list[int]) -> list[float] | None:
    values = np.array(codes, np.uint16).view(np.float16).astype(np.float64)
    return values.tolist() if np.isfinite(values).all() else None


@settings(max_examples=60, deadline=None)
@given(
    codes=st.lists(floats, min_size=1, max_size=3),
    w=st.lists(st.lists(st.integers(-8, 7), min_size=4, max_size=4), min_size=3, max_size=3),
    how=st.sampled_from(["fp16", "fp32", "int8"]),
    accumulator=st.sampled_from(["fp32", "fp16"]),
)
@example(codes=[[0, 0, 0, 28818]], w=[[0] * 4] * 3, how="fp16", accumulator="fp16")  # overflows on its way
def test_float_results_are_the_defined_approximation(
    codes: list[list[int]], w: list[list[int]], how: str, accumulator: str
) -> None:
    values = [fp16_values(row) for row in codes]
    if None in values:
        return
    quantization = {"table_quantization": "int8"} if how == "int8" else {"float_tables": how}
    pe = lut(weights="int4", activations="fp16", accumulator=accumulator, **quantization)
    exact = [[Fraction(value) for value in row] for row in values if row]
    to = {"fp32": fp32, "fp16": fp16}[accumulator]
    total = Fraction(0)
    for row, weights in zip(exact, w, strict=False):
        entries = tree(row, fp32)
        digits = [[2 * ((x + 8) >> i & 1) - 1 for x in weights] for i in range(4)]
        if how == "int8":
            scale = fp32(max(map(abs, entries.values())) / 127)
            entries = {key: Fraction(nearest_even(e / scale) if scale else 0) for key, e in entries.items()}
            whole = sum((2**i * looked_up(entries, plane) for i, plane in enumerate(digits)), Fraction(0))
            total = to(total + whole * scale)
        else:
            entries = {key: fp16(e) if how == "fp16" else e for key, e in entries.items()}
            for i, plane in enumerate(digits):
                total = to(total + 2**i * looked_up(entries, plane))
                if abs(total) >= 2**16:
                    return
        if abs(total) >= 2**16 or max(map(abs, entries.values())) >= 2**16:
            return
    steps_of_integers = [[int(value * 2**24) for value in row] for row in exact]
    found = run(pe, get_format("int4"), FP16_FORMAT, w[: len(exact)], steps_of_integers)
    assert found == total


@settings(max_examples=30, deadline=None)
@given(
    codes=st.lists(floats, min_size=8, max_size=8),
    w=st.lists(st.integers(0, 3), min_size=32, max_size=32),
)
def test_tables_of_a_step_share_a_scale_as_in_t_mac(codes: list[list[int]], w: list[int]) -> None:
    values = [fp16_values(row) for row in codes]
    if None in values:
        return
    pe = lut(weights="uint2", activations="fp16", lanes=32, table_quantization="int8", accumulator="fp32")
    exact = [[Fraction(value) for value in row] for row in values if row]
    tables = [tree(row, fp32) for row in exact]
    scale = fp32(max(abs(e) for entries in tables for e in entries.values()) / 127)
    whole = Fraction(0)
    for t, entries in enumerate(tables):
        held = {key: Fraction(nearest_even(e / scale) if scale else 0) for key, e in entries.items()}
        for i in range(2):
            whole += 2**i * looked_up(held, [2 * (x >> i & 1) - 1 for x in w[4 * t : 4 * t + 4]])
    steps_of_integers = [[int(value * 2**24) for row in exact for value in row]]
    assert run(pe, get_format("uint2"), FP16_FORMAT, [w], steps_of_integers) == fp32(whole * scale)


@pytest.mark.parametrize("reinterpret", [True, False])
def test_several_unquantized_tables_are_added_exactly_and_rounded_once_a_plane(reinterpret: bool) -> None:
    pe = lut(
        weights="int2",
        activations="fp16",
        lanes=8,
        accumulator="fp32",
        float_tables="fp32",
        reinterpret=reinterpret,
    )
    random = np.random.default_rng(3)
    a = random.integers(-(2**30), 2**30, (1, 8)) >> random.integers(0, 20, (1, 8))
    a = np.round(np.ldexp(a.astype(np.float64), -24).astype(np.float16).astype(np.float64) * 2**24).astype(
        np.int64
    )
    w = random.integers(-2, 2, (1, 8))
    total = Fraction(0)
    for i in range(2):
        plane = Fraction(0)
        for t in range(2):
            row = [Fraction(int(x), 2**24) for x in a[0, 4 * t : 4 * t + 4]]
            bits = [int(x) + 2 >> i & 1 if reinterpret else int(x) >> i & 1 for x in w[0, 4 * t : 4 * t + 4]]
            if reinterpret:
                plane += looked_up(tree(row, fp32), [2 * bit - 1 for bit in bits])
            else:
                chosen = Fraction(0)
                for value, bit in zip(row, bits, strict=True):
                    chosen = fp32(chosen + value) if bit else chosen
                plane += chosen if i == 0 else -chosen
        total = fp32(total + 2**i * plane)
    assert run(pe, get_format("int2"), FP16_FORMAT, w, a) == total


def test_lanes_that_a_short_step_leaves_empty_add_nothing() -> None:
    pe = lut()
    function = pe.function(get_format("int4"), get_format("int8"))
    state = function.step(np.zeros(1, np.int64), np.array([5, -3, 0, 0]), np.array([15, -7, 0, 0]))
    assert int(state[0]) == 5 * 15 + 3 * 7


def test_rows_and_columns_broadcast() -> None:
    pe = lut(activations=["int8", "fp16"], accumulator="fp32", table_quantization="int8")
    random = np.random.default_rng(0)
    for activation, a in (
        ("int8", random.integers(-127, 128, (3, 1, 4))),
        ("fp16", random.integers(0, 2**20, (3, 1, 4))),
    ):
        function = pe.function(get_format("int4"), get_format(activation))
        w = 2 * random.integers(-8, 8, (1, 5, 4)) + 1
        together = function.step(np.zeros((3, 5, 1), function.dtype), a, w)
        for i, j in np.ndindex(3, 5):
            alone = function.step(np.zeros(1, function.dtype), a[i, 0], w[0, j])
            assert (together[i, j] == alone).all()


def test_the_whole_value_comes_out_with_scales_and_zero_points() -> None:
    """s/2 (sum of a (odd - z')) is the dot product of the quantized values."""
    pe = lut(weights="int4")
    random = np.random.default_rng(2)
    tensor = quantize(random.normal(size=(1, 16)), get_format("int4_channel_asym"))
    odd = pe.decode("weights", tensor)
    a = random.integers(-127, 128, 16)
    function = pe.function(tensor.format, get_format("int8"))
    state = np.zeros(1, np.int64)
    for low in range(0, 16, 4):
        state = function.step(state, a[low : low + 4], odd.codes[0, low : low + 4])
    assert odd.scales is not None
    assert odd.zero_points is not None
    corrected = int(state[0]) - int(odd.zero_points.item()) * int(a.sum())
    values = [Fraction(float(x)) for x in dequantize(tensor, np.float64)[0]]
    assert corrected * Fraction(float(odd.scales.item())) == dot([Fraction(int(x)) for x in a], values)


# Time, structure, activity


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_step_takes_a_cycle_for_each_bit_of_the_weights(bits: int) -> None:
    names = [f"int{n}" for n in range(2, 9)]
    for activation in ("int8", "int16", "fp16"):
        pe = lut(weights=names, activations=["int8", "int16", "fp16"], accumulator="fp32")
        timing = pe.timing(get_format(f"int{bits}_g128_asym"), get_format(activation))
        assert (timing.initiation_interval, timing.latency, timing.lanes, timing.serial) == (bits, 1, 4, True)
    assert lut(pipeline_stages=2).timing(get_format("int4"), get_format("int8")).latency == 2


def test_making_tables_takes_passes_of_the_vector_unit_unless_they_are_fused() -> None:
    weights = get_format("int4")
    assert lut(precompute="unfused").vector_passes(weights, get_format("int8")) == Fraction(14, 4)
    fused = lut(precompute="fused")
    assert fused.vector_passes(weights, get_format("int8")) == 0
    assert fused.fused_passes(weights, get_format("int8")) == Fraction(14, 4)
    floats = lut(precompute="unfused", activations="fp16", accumulator="fp32", table_quantization="int8")
    assert floats.vector_passes(weights, FP16_FORMAT) == Fraction(14 + 8 + 8 + 1, 4)


def parts(pe: LutPE, component: str, cols: int = 64) -> dict[str, Any]:
    made = pe.hardware(activation_lines=2, weight_lines=cols, stationary="outputs", doubled=True, pairs=[])
    return {part.name: part for found in made if found.name == component for part in found.parts}


def test_symmetry_halves_the_table() -> None:
    half, full = parts(lut(), "table")["entries"], parts(lut(reinterpret=False), "table")["entries"]
    assert half.count == 8
    assert full.count == 15
    assert parts(lut(), "pe")["select"].params["inputs"] == 8
    assert parts(lut(reinterpret=False), "pe")["select"].params["inputs"] == 16


@pytest.mark.parametrize(("activations", "bits"), [("int8", 11), ("uint8", 11), ("int2", 5), ("uint2", 5)])
def test_entries_hold_four_largest_activations_and_a_sign(activations: str, bits: int) -> None:
    pe = lut(activations=activations)
    assert parts(pe, "table")["entries"].params == {"bits": bits}
    assert parts(pe, "pe")["select"].params == {"inputs": 8, "bits": bits}
    assert parts(pe, "pe")["negate"].params == {"inputs": 2, "bits": bits}


def test_tables_of_one_activation_need_no_choice() -> None:
    assert "select" not in parts(lut(table_inputs=1), "pe")
    assert parts(lut(table_inputs=2), "pe")["select"].params["inputs"] == 2


def test_a_table_serves_as_many_columns_as_it_can() -> None:
    for cols, copies in ((32, 1), (64, 1), (65, 2), (256, 4)):
        made = lut().hardware(
            activation_lines=2, weight_lines=cols, stationary="outputs", doubled=False, pairs=[]
        )
        counts = {component.name: (component.count, component.copies) for component in made}
        assert counts == {"pe": (2 * cols, 1), "table": (2 * copies, copies), "keys": (cols, 1)}
        assert parts(lut(), "table", cols)["entries"].count == 8


def every_kind() -> list[LutPE]:
    return [
        lut(),
        lut(reinterpret=False, lanes=8, pipeline_stages=2),
        lut(activations=["int8", "fp16"], accumulator="fp32"),
        lut(
            activations=["int8", "fp16", "fp8_e4m3"], accumulator="fp32", lanes=32, table_quantization="int8"
        ),
    ]


def test_a_loaded_table_is_clocked_through_the_planes_that_read_it() -> None:
    pe = lut(weights=["binary", "int4"])
    pairs = [(get_format(w), get_format("int8")) for w in pe.weights]
    table = pe.hardware(activation_lines=1, weight_lines=1, stationary="outputs", doubled=False, pairs=pairs)[
        1
    ]
    assert table.events == {
        "load binary x int8": {("entries binary x int8", "write"): 8},
        "load int4 x int8": {("entries int4 x int8", "write"): 8, ("entries", "clock"): 24},
    }


def test_stages_are_those_that_the_data_path_can_be_cut_into() -> None:
    floats = {"activations": "fp16", "accumulator": "fp32"}
    for parameters, most in (
        ({}, 3),
        ({"weights": "binary"}, 2),
        (floats, 3),
        (floats | {"table_quantization": "int8"}, 5),
    ):
        pe = lut(**parameters, pipeline_stages=most)
        assert pe.timing(get_format(pe.weights[0]), get_format(pe.activations[0])).latency == most
        cuts = [part for name, part in parts(pe, "pe").items() if name.startswith("cut_")]
        assert len(cuts) == most - 1
        if most < 5:
            with pytest.raises(InputError, match=f"allowed: 1 to {most}"):
                lut(**parameters, pipeline_stages=most + 1)


@pytest.mark.parametrize("name", ["fp16", "fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("inputs", [2, 4])
def test_scales_of_int8_tables_fit_the_exponents_that_pes_take(name: str, inputs: int) -> None:
    element = get_format(name).element
    scale = scale_of([element], inputs)
    for value in (element.min_positive, element.max_value):
        alike = np.full((1, inputs), value, np.float32)
        alone = alike * (np.arange(inputs) == 0)
        _, found = quantized(half_table(alone if value == element.min_positive else alike))
        assert 0 <= (int(found.view(np.int32)) >> 23) - scale.lowest < 1 << scale.exponent_bits


@pytest.mark.parametrize("pe", every_kind())
def test_activity_names_events_that_are_priced(pe: LutPE) -> None:
    technology = load_technology()
    pairs = [(get_format(w), get_format(a)) for w in pe.weights for a in pe.activations]
    made = pe.hardware(activation_lines=2, weight_lines=8, stationary="outputs", doubled=True, pairs=pairs)
    priced = {component.name: technology.price(component) for component in made}
    for pair in pairs:
        assert pe.accepts(*pair) is None
        for events in pe.activity(*pair, stationary="outputs").values():
            for component, event in events:
                assert priced[component].energy_pj[event] > 0
    bare = pe.hardware(activation_lines=2, weight_lines=8, stationary="outputs", doubled=True, pairs=[])
    for with_pairs, without in zip(made, bare, strict=True):
        assert technology.price(with_pairs).area_um2 == technology.price(without).area_um2


def test_energy_of_a_step_follows_the_planes() -> None:
    technology = load_technology()
    pe = lut()
    pairs = [(get_format(w), get_format("int8")) for w in pe.weights]
    component = pe.hardware(
        activation_lines=2, weight_lines=8, stationary="outputs", doubled=True, pairs=pairs
    )[0]
    energy = technology.price(component).energy_pj
    assert 1.5 * energy["step int2 x int8"] < energy["step int4 x int8"] < 2.5 * energy["step int2 x int8"]


@pytest.mark.parametrize(
    ("parameters", "pair", "words"),
    [
        ({}, ("int8", "int8"), "int8"),
        ({"activations": "fp16"}, ("int4", "fp16"), "accumulator"),
        ({"weights": "fp8_e4m3"}, ("fp8_e4m3", "int8"), "8 bits"),
        ({"activations": "fp32", "accumulator": "fp32"}, ("int4", "fp32"), "16 bits"),
        ({"activations": "bf16", "accumulator": "fp32", "lanes": 8}, ("int4", "bf16"), "fixed point"),
    ],
)
def test_pairs_that_it_does_not_take_are_refused(
    parameters: dict[str, Any], pair: tuple[str, str], words: str
) -> None:
    reason = lut(**parameters).accepts(get_format(pair[0]), get_format(pair[1]))
    assert reason is not None
    assert words in reason


def test_it_works_in_broadcast_arrays_only() -> None:
    assert lut().fits("broadcast") is None
    assert "broadcast" in (lut().fits("ws") or "")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"lanes": 6}, "lanes"), ({"accumulator": "int4"}, "accumulator"), ({"lut": 1}, "lut")],
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        lut(**parameters)


def test_sums_that_overflow_a_table_are_refused_as_such() -> None:
    """The accumulator would hold them: FP16 entries do not."""
    element = LutPE(family="lut", weights=("int2",), activations=("fp16",), accumulator="fp32")
    function = element.function(get_format("int2_channel"), get_format("fp16"))
    largest = np.full((1, 4), 65504 << 24, object)
    odd = np.ones((1, 4), np.int64)
    with pytest.raises(InputError, match="overflows the fp16 entries of tables"):
        function.step(np.zeros((1, 1), object), largest, odd)
