"""BitMoD's PE against an oracle in fractions that works on bit patterns, one scalar at a time."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bitmod_oracle import E8M12, FP32, booth_terms, float_terms, oracle_step, to_float
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, get_format
from simulator.formats.element import FP16, integer, value_table
from simulator.hardware import load_technology
from simulator.pe.bitmod import BitModPE
from simulator.pe.bitmod_function import WORTH_COMPILING
from simulator.pe.bitmod_terms import cycles_of, refusal, terms
from simulator.pe.protocol import Scales

FP16_FORMAT = get_format("fp16")
ONE = 1 << 149

FP4_MAGNITUDES = (0, 1, 2, 3, 4, 6, 8, 12)
FP3_MAGNITUDES = (0, 1, 2, 4)
FP4_VALUES = sorted({s * v for v in FP4_MAGNITUDES for s in (1, -1)} | {10, -10, 16, -16})
FP3_VALUES = sorted({s * v for v in FP3_MAGNITUDES for s in (1, -1)} | {3, -3, 6, -6})


def table(magnitudes: tuple[int, ...], special: int) -> tuple[int, ...]:
    return (*magnitudes, special, *(-value for value in magnitudes[1:]))


FP4 = value_table("fp4_mixed", *(table(FP4_MAGNITUDES, special) for special in (10, -10, 16, -16)))
FP3 = value_table("fp3_mixed", *(table(FP3_MAGNITUDES, special) for special in (3, -3, 6, -6)))
INT8_SCALES = integer(8)


def grouped(name: str, element: Any, group: int = 128) -> Format:
    return Format(
        name, element, "group", group, scale_element=INT8_SCALES, selector_bits=2, row_scale_element=FP16
    )


def bitmod(**parameters: Any) -> BitModPE:
    names = ["int8", "int7", "int6", "int5", "int4", "int3", "int2", "fp4_e2m1"]
    return validate(BitModPE, {"family": "bitmod", "weights": names, "activations": "fp16", **parameters})


def taking(*formats: Format, **parameters: Any) -> BitModPE:
    """A PE whose list holds elements that have no name of their own."""
    return bitmod(**parameters).model_copy(update={"weights": tuple(f.element.name for f in formats)})


finite_fp16 = st.integers(0, 2**16 - 1).filter(lambda pattern: pattern >> 10 & 31 != 31)
near_fp16 = st.builds(
    lambda sign, field, fraction: sign << 15 | field << 10 | fraction,
    st.integers(0, 1),
    st.integers(10, 20),
    st.integers(0, 1023),
)
patterns_of = st.one_of(finite_fp16, near_fp16, near_fp16)


def integers_of(patterns: list[Any]) -> Any:
    return FP16_FORMAT.element_integers(np.array(patterns, np.uint16))[0]


def run(pe: BitModPE, weights: Format, patterns: list[int], values: list[int], scales: list[int]) -> Fraction:
    """One PE over a K of len(values), groups of len(values) / len(scales)."""
    function = pe.function(weights, FP16_FORMAT)
    state = np.zeros((1, function.words), function.dtype)
    a, w = integers_of(patterns), np.array(values)
    group = len(values) // max(1, len(scales))
    for low in range(0, len(values), pe.lanes):
        at = slice(low, low + pe.lanes)
        given_scales = None
        if scales:
            one, none = np.array([ONE], object), np.array([0], object)
            of_group = np.array([scales[low // group] * ONE], object)
            given_scales = Scales(of_group, one, none, none, (low + pe.lanes) % group == 0)
        state = function.step(state, a[None, at].astype(object), w[None, at].astype(object), given_scales)
    return Fraction(int(function.result(state)[0])) * Fraction(2) ** function.exponent


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    bits=st.integers(2, 8),
    guard=st.sampled_from([0, 3, 5]),
    sums=st.sampled_from([("fp32", FP32), ("e8m12", E8M12)]),
)
def test_integer_weights_give_what_the_oracle_gives(
    data: st.DataObject, bits: int, guard: int, sums: tuple[str, tuple[int, int]]
) -> None:
    weights = get_format(f"int{bits}_channel")
    values = data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=8, max_size=8))
    patterns = data.draw(st.lists(patterns_of, min_size=8, max_size=8))
    expected = Fraction(0)
    for low in (0, 4):
        lanes = [booth_terms(value, bits) for value in values[low : low + 4]]
        expected = oracle_step(expected, patterns[low : low + 4], lanes, guard, sums[1])
    assert run(bitmod(guard_bits=guard, accumulator=sums[0]), weights, patterns, values, []) == expected


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bits=st.sampled_from([3, 4]))
def test_mixed_groups_of_floats_give_what_the_oracle_gives(data: st.DataObject, bits: int) -> None:
    weights = grouped("mixed_g8", FP4 if bits == 4 else FP3, 8)
    values = data.draw(
        st.lists(st.sampled_from(FP4_VALUES if bits == 4 else FP3_VALUES), min_size=16, max_size=16)
    )
    patterns = data.draw(st.lists(patterns_of, min_size=16, max_size=16))
    scales = data.draw(st.lists(st.integers(1, 127), min_size=2, max_size=2))
    expected = Fraction(0)
    for group, scale in enumerate(scales):
        partial = Fraction(0)
        for low in (8 * group, 8 * group + 4):
            lanes = [float_terms(value, bits) for value in values[low : low + 4]]
            partial = oracle_step(partial, patterns[low : low + 4], lanes)
        expected = to_float(expected + partial * scale)
    assert run(taking(weights), weights, patterns, values, scales) == expected


@pytest.mark.parametrize("name", ["int8_channel", "fp4_e2m1_channel", "int5_channel"])
@pytest.mark.parametrize("sums", ["fp32", "e8m12", "bf16"])
def test_the_kernel_computes_what_the_arrays_do(name: str, sums: str) -> None:
    """All finite FP16 patterns, large and small together, on sums of any size."""
    function = bitmod(accumulator=sums).function(get_format(name), FP16_FORMAT)
    random = np.random.default_rng(9)
    finite = [pattern for pattern in range(2**16) if pattern >> 10 & 31 != 31]
    bits = get_format(name).code_bits
    codes = (
        np.arange(16, dtype=np.uint8) if name[0] == "f" else np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    )
    weights = get_format(name).element_integers(codes)[0]
    assert WORTH_COMPILING <= 160 * 160
    state = np.zeros((160, 160, 1), function.dtype)
    flat = state.reshape(-1, 1)
    for _ in range(6):
        a = integers_of(random.choice(finite, (160, 1, 4)).astype(np.uint16))
        w = random.choice(weights, (1, 160, 4)) * random.integers(0, 2, (1, 160, 4))
        state = function.step(state, a, w)
        each = [np.broadcast_to(side, (160, 160, 4)).reshape(-1, 4) for side in (a, w)]
        flat = function.step(flat, *each)
        assert (state.reshape(-1, 1) == flat).all()


def test_a_sum_beyond_the_accumulator_is_refused_by_both() -> None:
    function = bitmod(accumulator="fp16").function(get_format("int8_channel"), FP16_FORMAT)
    a, w = integers_of([[0x7BFF] * 4]), np.array([[127] * 4])
    for shape in ((1, 1), (160, 160, 1)):
        with pytest.raises(InputError, match="overflows the fp16"):
            function.step(np.zeros(shape, function.dtype), a, w)


def test_a_rounded_tie_goes_to_the_even_neighbour() -> None:
    """1 + 2**-14: the small product lies half a step of the three guard bits from zero, and vanishes; 3 * 2**-14 does
    not, and becomes 2 steps."""
    one, tie, three = (np.float16(value).view(np.uint16).item() for value in (1.0, 2.0**-14, 1.5 * 2.0**-13))
    weights = get_format("int2_channel")
    assert run(bitmod(), weights, [one, tie, 0, 0], [1, 1, 0, 0], []) == 1
    assert run(bitmod(), weights, [one, three, 0, 0], [1, 1, 0, 0], []) == 1 + Fraction(2) ** -12
    assert run(bitmod(guard_bits=4), weights, [one, tie, 0, 0], [1, 1, 0, 0], []) == 1 + Fraction(2) ** -14


def test_a_zero_product_does_not_align_the_others() -> None:
    large, small = (np.float16(value).view(np.uint16).item() for value in (32768.0, 2.0**-24))
    assert (
        run(bitmod(), get_format("int8_channel"), [large, small, 0, 0], [0, 1, 0, 0], [])
        == Fraction(2) ** -24
    )


def test_a_group_of_zeros_adds_nothing() -> None:
    weights = grouped("mixed_g4", FP4, 4)
    half = np.float16(0.5).view(np.uint16).item()
    assert run(
        taking(weights), weights, [half] * 8, [0] * 4 + [16] * 4, [127, 127]
    ) == 4 * 16 * 127 * Fraction(1, 2)


def test_the_largest_sums_of_fp16_fit() -> None:
    weights = grouped("mixed_g128", FP4)
    found = run(taking(weights), weights, [0x7BFF] * 4096, [16] * 4096, [127] * 32)
    assert found == 4096 * 65504 * 16 * 127


def test_a_step_has_as_many_cycles_as_half_the_bits() -> None:
    """8, 7, 6, 5, 4 and 3 bits: 4, 4, 3, 3, 2 and 2 cycles."""
    found = [
        bitmod().timing(get_format(f"int{bits}_channel"), FP16_FORMAT).initiation_interval
        for bits in range(8, 2, -1)
    ]
    assert found == [4, 4, 3, 3, 2, 2]
    assert [cycles_of(FP4), cycles_of(FP3)] == [2, 2]


@pytest.mark.parametrize(("sharing", "stall"), [(1, 0), (8, 0), (9, 8), (16, 64)])
def test_scaling_stalls_only_what_shares_it_too_widely(sharing: int, stall: int) -> None:
    """A group of 128 takes 64 cycles in FP3; its scaling takes 8 cycles a PE, and 7 more until the column's adder has
    taken the products of eight units."""
    weights = grouped("mixed_g128", FP3)
    timing = taking(weights, dequant_shared_by=sharing).timing(weights, FP16_FORMAT)
    group = 128 // timing.lanes * timing.initiation_interval
    assert group == 64
    assert max(0, timing.group_cycles - group) == stall
    assert timing.latency == 3 + timing.group_cycles + 1 + 5


@pytest.mark.parametrize(("element", "values"), [(FP4, FP4_VALUES), (FP3, FP3_VALUES)])
def test_every_value_is_two_digits_of_a_term_each(element: Any, values: list[int]) -> None:
    digits, significances = terms(np.array(values), element)
    assert digits.shape == (len(values), 2)
    assert significances[0] == significances[1] + 1
    assert set(np.abs(digits).reshape(-1).tolist()) <= {0, 1, 2, 4, 8}
    sums = [
        sum(Fraction(int(d)) * Fraction(2) ** b for d, b in zip(row, significances, strict=True))
        for row in digits
    ]
    assert sums == values


@pytest.mark.parametrize("bits", range(2, 9))
def test_booth_digits_sum_to_the_integer(bits: int) -> None:
    values = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    digits, significances = terms(values, integer(bits))
    assert np.abs(digits).max() <= 2
    assert (digits @ np.array([1 << bsig for bsig in significances]) == values).all()


def test_int8_has_three_booth_digits_that_are_not_zero_on_average() -> None:
    digits, _ = terms(np.arange(-128, 128), integer(8))
    assert np.count_nonzero(digits) / 256 == 3


def test_values_of_three_ones_have_no_decoder() -> None:
    seven = value_table("seven", table(FP4_MAGNITUDES, 7))
    assert "two terms" in (refusal(seven) or "")
    assert refusal(FP4) is None
    assert refusal(get_format("fp4_e2m1").element) is None
    assert refusal(value_table("large", table(FP4_MAGNITUDES, 32))) is not None
    assert refusal(integer(9)) is not None
    assert refusal(FP16) is not None


def test_codes_that_the_decoder_reads_otherwise_are_refused() -> None:
    assert refusal(get_format("e2m0").element) is None
    assert "reads codes of 4 bits" in (refusal(get_format("flint4").element) or "")
    assert "reads codes of 3 bits" in (refusal(get_format("e1m1").element) or "")
    many = value_table("many", *(table(FP4_MAGNITUDES, special) for special in (5, -5, 9, -9, 10)))
    assert "4 special values" in (refusal(many) or "")


def test_a_unit_for_scales_that_is_shared_has_a_register_for_each_sum() -> None:
    found = bitmod(dequant_shared_by=4, accumulator="e8m13").hardware(
        weight_lines=8, activation_lines=8, stationary="outputs", doubled=True, pairs=()
    )
    unit = next(component for component in found if component.name == "dequantizer")
    parts = {part.name: part for part in unit.parts}
    assert (unit.count, parts["sum"].count, parts["sum"].params) == (16, 4, {"bits": 22})
    assert parts["inputs"].params == {"inputs": 4, "bits": 22}
    assert unit.params == {"bits": 8, "accumulator": "e8m13", "shared_by": 4}


def test_what_its_datapath_lacks_is_refused() -> None:
    pe = bitmod()
    assert pe.accepts(get_format("int6_channel"), FP16_FORMAT) is None
    assert "fp16" in (pe.accepts(get_format("int4_g128"), FP16_FORMAT) or "")
    assert "zero point" in (pe.accepts(get_format("int4_channel_asym"), FP16_FORMAT) or "")
    assert "int8" in (pe.accepts(get_format("int8"), get_format("int8")) or "")
    with pytest.raises(InputError, match="cannot multiply"):
        pe.function(get_format("int4_g128"), FP16_FORMAT)
    assert pe.fits("os") is None
    assert "outputs" in (pe.fits("ws") or "")


def test_widths_follow_from_significands_guard_bits_and_lanes() -> None:
    """Four significands of 11 + 3 bits, each rounded up at most to 2**14, are at most 2**16: 17 bits and a sign."""
    found = bitmod().hardware(
        weight_lines=8, activation_lines=16, stationary="outputs", doubled=False, pairs=()
    )
    parts = {(c.name, part.name): part for c in found for part in c.parts}
    assert parts["pe", "aligner"].params == {"bits": 14}
    assert (parts["pe", "tree"].params, parts["pe", "tree"].count) == ({"bits": 18}, 3)
    assert (parts["pe", "product"].params, parts["pe", "product"].count) == ({"a_bits": 11, "b_bits": 1}, 4)
    assert parts["pe", "stage_1"].params == {"bits": 4 * (11 + 1 + 4) + 6 + 3 + 1}
    assert parts["dequantizer", "adder"].params == {"bits": 24}
    assert parts["dequantizer", "product"].params == {"bits": 24 + 8}
    assert parts["group_adder", "product"].params == {"bits": 1 + 8 + 24 + 8}
    counts = {component.name: component.count for component in found}
    assert counts == {"pe": 128, "weight_encoder": 8 * 2, "dequantizer": 128, "group_adder": 16}


def test_its_hardware_has_a_price_and_its_activity_exists() -> None:
    pairs = [(grouped("mixed_g128", FP4), FP16_FORMAT), (get_format("int6_channel"), FP16_FORMAT)]
    pe = taking(*(weights for weights, _ in pairs))
    found = pe.hardware(weight_lines=32, activation_lines=32, stationary="outputs", doubled=True, pairs=pairs)
    counts = {component.name: component.count for component in found}
    assert counts == {"pe": 1024, "weight_encoder": 128, "dequantizer": 1024, "group_adder": 128}
    technology = load_technology("published_45nm")
    events = {(c.name, event) for c in found for event in technology.price(c).energy_pj}
    for pair in pairs:
        activity = pe.activity(*pair, stationary="outputs")
        assert {event for made in activity.values() for event in made} <= events
    priced = technology.price(found[0]).energy_pj
    assert priced["step int6"] == pytest.approx(1.5 * priced["step fp4_mixed"], rel=0.1)
    assert pe.activity(*pairs[1], stationary="outputs")["step"] == {("pe", "step int6"): 1}
