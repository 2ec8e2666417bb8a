"""FIGLUT: planes that pass down the rows, generators at the edge, floats or aligned integers."""

from __future__ import annotations

import functools
import operator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pe_oracles import dot, fp16, fp32, wrapped

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, get_format, quantize
from simulator.hardware import load_technology
from simulator.pe.figlut import FiglutPE

FP16 = get_format("fp16")
INT4 = get_format("int4")


def figlut(**parameters: Any) -> FiglutPE:
    return validate(
        FiglutPE,
        {
            "family": "figlut",
            "weights": ["int2", "int3", "int4"],
            "activations": "fp16",
            "accumulator": "fp32",
            **parameters,
        },
    )


def figlut_i(**parameters: Any) -> FiglutPE:
    return figlut(accumulator="int32", prealign=True, **parameters)


def signed_sum(values: list[Fraction], signs: list[int], to: Any) -> Fraction:
    """As the generator's tree adds four activations: two and two, then both; all signs at once, since negation is
    exact."""
    a, b, c, d = (s * v for s, v in zip(signs, values, strict=True))
    return to(fp32(fp32(a + b) + fp32(c + d)))


finite = st.integers(0, 2**16 - 1).filter(lambda code: code >> 10 & 31 != 31)
rows_of_codes = st.lists(st.lists(finite, min_size=4, max_size=4), min_size=1, max_size=4)
weights_of = st.lists(st.lists(st.integers(-8, 7), min_size=4, max_size=4), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(codes=rows_of_codes, w=weights_of, entries=st.sampled_from(["fp16", "fp32"]))
def test_planes_are_rounded_one_by_one_and_added_up_below_the_last_row(
    codes: list[list[int]], w: list[list[int]], entries: str
) -> None:
    values = [[Fraction(float(x)) for x in np.array(row, np.uint16).view(np.float16)] for row in codes]
    if entries == "fp16" and any(sum(map(abs, row)) >= 2**15 for row in values):
        return
    to = {"fp16": fp16, "fp32": fp32}[entries]
    sums = [Fraction(0)] * 4
    for row, weights in zip(values, w, strict=False):
        for i in range(4):
            sums[i] = fp32(sums[i] + signed_sum(row, [2 * (x + 8 >> i & 1) - 1 for x in weights], to))
    total = Fraction(0)
    for i in range(4):
        total = fp32(total + 2**i * sums[i])
    pe = figlut(float_tables=entries)
    function = pe.function(INT4, FP16)
    assert function.words == 4
    state = np.zeros(4, function.dtype)
    for row, weights in zip(values, w, strict=False):
        activations = np.array([int(value * 2**24) for value in row])
        state = function.step(state, activations, 2 * np.array(weights) + 1)
    assert Fraction(int(function.result(state))) * Fraction(2) ** function.exponent == total


@settings(max_examples=40, deadline=None)
@given(codes=rows_of_codes, w=weights_of, bits=st.integers(11, 16), group=st.sampled_from([2, 4, 16]))
def test_aligned_integers_are_summed_exactly(
    codes: list[list[int]], w: list[list[int]], bits: int, group: int
) -> None:
    pe = figlut_i(aligned_bits=bits, align_group=group)
    tensor = QuantizedTensor(np.array([functools.reduce(operator.iadd, codes, [])], np.uint16), FP16)
    aligned = pe.decode("activations", tensor)
    assert aligned.format == pe.received("activations", FP16)
    function = pe.function(INT4, FP16)
    state, expected = np.zeros(1, function.dtype), 0
    for step in range(len(codes)):
        a = aligned.codes[0, 4 * step : 4 * step + 4]
        state = function.step(state, a, 2 * np.array(w[step]) + 1)
        expected += sum(int(x) * (2 * y + 1) for x, y in zip(a, w[step], strict=True))
    assert int(function.result(state)) == wrapped(expected, 32)


def test_aligned_activations_lose_less_than_their_last_bit() -> None:
    """The whole value: scales of both groups, zero points, and the truncation of FP16 to 14 bits."""
    pe = figlut_i(align_group=8)
    random = np.random.default_rng(4)
    weights = quantize(random.normal(size=(1, 32)), get_format("int4_g8_asym"))
    activations = quantize(random.normal(size=(1, 32)) * 10.0 ** random.integers(-3, 3, (1, 32)), FP16)
    odd, aligned = pe.decode("weights", weights), pe.decode("activations", activations)
    function = pe.function(weights.format, FP16)
    assert odd.scales is not None
    assert odd.zero_points is not None
    assert aligned.scales is not None
    total, bound = Fraction(0), Fraction(0)
    for g in range(4):
        state = np.zeros(1, np.int64)
        a, w = aligned.codes[0, 8 * g : 8 * g + 8].astype(np.int64), odd.codes[0, 8 * g : 8 * g + 8]
        for low in (0, 4):
            state = function.step(state, a[low : low + 4], w[low : low + 4])
        corrected = int(state[0]) - int(odd.zero_points[0, g]) * int(a.sum())
        scales = Fraction(float(odd.scales[0, g])) * Fraction(float(aligned.scales[0, g]))
        total += corrected * scales
        bound += scales * sum(abs(int(x) - int(odd.zero_points[0, g])) for x in w)
    values = [[Fraction(float(x)) for x in dequantize(t, np.float64)[0]] for t in (activations, weights)]
    assert abs(total - dot(*values)) < bound


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_step_takes_a_cycle_for_each_plane(bits: int) -> None:
    timing = figlut().timing(get_format(f"int{bits}_g128"), FP16)
    assert (timing.initiation_interval, timing.serial, timing.lanes) == (bits, True, 4)


def test_its_array_does_16384_bit_macs_a_cycle() -> None:
    """2 x 16 x 4 PEs of mu = 4 and k = 32, as many as iFPU's 64 x 64 x 4."""
    rows, cols = 16, 2 * 4 * 32
    for bits in (2, 3, 4):
        timing = figlut().timing(get_format(f"int{bits}"), FP16)
        macs = Fraction(rows * cols * timing.lanes, timing.initiation_interval)
        assert macs * bits == 2 * 16 * 4 * 4 * 32 == 64 * 64 * 4 == 16384


def test_a_generator_of_four_inputs_has_14_adders() -> None:
    for pe, kind in ((figlut(), "fp_adder"), (figlut_i(), "int_adder")):
        made = {
            c.name: c
            for c in pe.hardware(
                activation_lines=16, weight_lines=256, stationary="weights", doubled=True, pairs=[]
            )
        }
        adders = made["table_generator"].parts[0]
        assert (adders.kind, adders.count, made["table_generator"].count) == (kind, 14, 16)
        assert made["table"].parts[0].count == 256 // 32 * 8
        assert ("aligner" in made) == (kind == "int_adder")


@pytest.mark.parametrize("pe", [figlut(), figlut(lanes=16), figlut_i(), figlut_i(lanes=8, table_inputs=2)])
def test_activity_names_events_that_are_priced(pe: FiglutPE) -> None:
    technology = load_technology()
    pairs = [(get_format(w), FP16) for w in pe.weights]
    made = pe.hardware(activation_lines=2, weight_lines=64, stationary="weights", doubled=True, pairs=pairs)
    priced = {component.name: technology.price(component) for component in made}
    for pair in pairs:
        assert pe.accepts(*pair) is None
        for events in pe.activity(*pair, stationary="weights").values():
            for component, event in events:
                assert priced[component].energy_pj[event] > 0
    bare = pe.hardware(activation_lines=2, weight_lines=64, stationary="weights", doubled=True, pairs=[])
    for with_pairs, without in zip(made, bare, strict=True):
        assert technology.price(with_pairs).area_um2 == technology.price(without).area_um2


@pytest.mark.parametrize(
    "parameters",
    [
        {"accumulator": "int32"},
        {"prealign": True},
        {"activations": "int8"},
        {"accumulator": "int32", "activations": ["int8", "fp16"]},
    ],
)
def test_sums_and_accumulator_are_of_one_kind(parameters: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="accumulator"):
        figlut(**parameters)


def test_what_cannot_be_aligned_is_refused() -> None:
    assert "11" in (figlut_i(aligned_bits=10).accepts(INT4, FP16) or "")
    blocks = figlut_i(activations="fp8_e4m3")
    assert "along K" in (blocks.accepts(INT4, get_format("mxfp8_e4m3")) or "")
    assert blocks.accepts(INT4, get_format("fp8_e4m3_token")) is None
    assert figlut().fits("ws") is None
    assert "ws" in (figlut().fits("broadcast") or "")


def test_signs_of_the_oracle_are_all_of_them() -> None:
    values = [Fraction(1), Fraction(2), Fraction(4), Fraction(8)]
    assert len({signed_sum(values, list(signs), fp32) for signs in product((-1, 1), repeat=4)}) == 16


def test_aligners_stand_before_the_generators_one_an_activation() -> None:
    """FIGLUT-I, 16 rows of 8 activations: a group of 64 waits in none of its 128 aligners for a second cycle."""
    pe = figlut_i(lanes=8, aligned_bits=14)
    found = pe.hardware(
        weight_lines=64, activation_lines=16, stationary="weights", doubled=True, pairs=[(INT4, FP16)]
    )
    (aligner,) = (component for component in found if component.name == "aligner")
    assert aligner.count == 16 * 8
    parts = {part.name: (part.params["bits"], part.count) for part in aligner.parts}
    assert parts == {"compare": (5, 1), "distance": (5, 1), "shift": (14, 1), "held": (16, 1)}
    working = {(name, "operate"): 1 for name in ("compare", "distance", "shift")}
    assert aligner.events["align"] == working | {("held", "write"): 1}


def test_every_step_reads_a_table_made_of_four_activations() -> None:
    name = "int4 x fp16"
    assert figlut_i().activity(INT4, FP16, stationary="weights") == {
        "step": {("pe", f"step {name}"): 1},
        "idle": {("pe", "idle"): 1},
        "preload": {("pe", f"preload {name}"): 1},
        "activation": {
            ("table_generator", f"generate {name}"): Fraction(1, 4),
            ("table", f"load {name}"): Fraction(1, 4),
            ("aligner", "align"): 1,
        },
        "result": {("plane_adders", f"add {name}"): 1},
    }
