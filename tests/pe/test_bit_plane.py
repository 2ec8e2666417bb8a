"""The bit-plane PE: counts of ones, p q cycles, padding, and what it is made of."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pe_oracles import wrapped

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, get_format
from simulator.formats.element import Element, integer
from simulator.hardware import load_technology
from simulator.pe.bit_plane import BitPlanePE, by_planes
from simulator.pe.elements import element_format

WIDTHS = [f"int{bits}" for bits in range(2, 9)] + ["uint4", "uint8"]


def planes(**parameters: Any) -> BitPlanePE:
    return validate(
        BitPlanePE, {"family": "bit_plane", "weights": WIDTHS, "activations": WIDTHS, **parameters}
    )


codes = st.integers(-(2**15), 2**15 - 1)
kinds = st.tuples(st.integers(1, 16), st.booleans()).map(lambda of: integer(of[0], signed=of[1]))


def held(element: Element, value: int) -> int:
    return wrapped(value, element.bits) if element.kind == "int" else value % 2**element.bits


@settings(max_examples=100, deadline=None)
@given(kinds, kinds, st.lists(st.tuples(codes, codes), min_size=1, max_size=9))
def test_planes_add_up_to_the_product(p: Element, q: Element, pairs: list[tuple[int, int]]) -> None:
    a, w = [held(p, x) for x, _ in pairs], [held(q, y) for _, y in pairs]
    expected = sum(x * y for x, y in zip(a, w, strict=True))
    assert by_planes(np.array(a), np.array(w), (p, q), "twos_complement") == expected


@settings(max_examples=100, deadline=None)
@given(kinds, kinds, st.lists(st.tuples(codes, codes), min_size=1, max_size=9))
def test_xor_of_bipolar_planes_adds_up_to_the_product_of_odd_integers(
    p: Element, q: Element, pairs: list[tuple[int, int]]
) -> None:
    """2 u - (2**bits - 1) for the unsigned code u, which is the signed code c plus half of the range: 2 c + 1."""
    a, w = [held(p, x) for x, _ in pairs], [held(q, y) for _, y in pairs]
    odd = [
        [2 * x + 1 if e.kind == "int" else 2 * x - (2**e.bits - 1) for x in xs] for e, xs in ((p, a), (q, w))
    ]
    expected = sum(x * y for x, y in zip(*odd, strict=True))
    assert by_planes(np.array(a), np.array(w), (p, q), "bipolar") == expected


@settings(max_examples=40, deadline=None)
@given(
    names=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)),
    encoding=st.sampled_from(["twos_complement", "bipolar"]),
    width=st.sampled_from([8, 32, 64]),
    seed=st.integers(0, 2**16),
)
def test_results_are_the_wrapped_counts_of_the_planes(
    names: tuple[str, str], encoding: Any, width: int, seed: int
) -> None:
    """Over two steps, the second of them short, from the codes as they are in memory."""
    pe = planes(encoding=encoding, accumulator=f"int{width}", lanes=5)
    random = np.random.default_rng(seed)
    formats = [get_format(name) for name in names]
    stored, received = [], []
    for side, format in zip(("weights", "activations"), formats, strict=True):
        element = format.element
        numbers = [held(element, int(x)) for x in random.integers(-(2**15), 2**15, 8)]
        tensor = QuantizedTensor(np.array(numbers, element.dtype), format, np.array(0.5, np.float32))
        decoded = pe.decode(side, tensor)  # type: ignore[arg-type]
        assert decoded.format == pe.received(side, format)  # type: ignore[arg-type]
        assert (dequantize(decoded) == dequantize(tensor)).all()
        stored.append(np.array(numbers))
        received.append(decoded.codes.astype(np.int64))
    function = pe.function(*formats)
    state = np.zeros(1, function.dtype)
    for low in (0, 5):
        w, a = (np.pad(x[low : low + 5], (0, max(0, low + 5 - 8))) for x in received)
        state = function.step(state, a, w)
    elements = formats[1].element, formats[0].element
    expected = int(by_planes(stored[1], stored[0], elements, encoding))
    assert int(function.result(state)[()]) == wrapped(expected, width)


@pytest.mark.parametrize("q", range(2, 9))
@pytest.mark.parametrize("p", range(2, 9))
def test_cost_is_p_q_before_padding(p: int, q: int) -> None:
    pair = get_format(f"int{q}"), get_format(f"int{p}_token")
    timing = planes().timing(*pair)
    assert (timing.initiation_interval, timing.serial, timing.lanes) == (p * q, True, 64)
    padded = planes(activation_plane_multiple=8, weight_plane_multiple=2).timing(*pair)
    assert padded.initiation_interval == 8 * ceil(p / 8) * 2 * ceil(q / 2) >= p * q
    parallel = planes(plane_pairs=4).timing(*pair)
    assert parallel.initiation_interval == ceil(p * q / 4)


def test_one_activation_of_8_bits_fills_an_instruction_of_a_gpu() -> None:
    """W2 A8, one token, 32 columns: 8 instructions of 8 x 8 x 128 bits, 64 1-bit dot products each, and no padding."""
    pe = planes(lanes=128, plane_pairs=2, activation_plane_multiple=8)
    assert pe.timing(get_format("int2"), get_format("int8")).initiation_interval == 8
    assert 8 * 64 == 8 * 2 * 32


def test_bismo_makes_6_55_binary_tera_operations_a_second() -> None:
    """8 x 8 units of 256 bits at 200 MHz (BISMO on the PYNQ-Z1: 6.5)."""
    timing = planes(lanes=256).timing(get_format("int2"), get_format("int2"))
    binary_macs = 8 * 8 * timing.lanes * (2 * 2) / timing.initiation_interval
    assert round(2 * binary_macs * 0.2e9 / 1e12, 2) == 6.55


@pytest.mark.parametrize("lanes", [2, 3, 7, 64, 100, 256])
def test_the_tree_that_counts_ones_has_an_adder_less_than_bits(lanes: int) -> None:
    component = planes(lanes=lanes).hardware(
        activation_lines=1, weight_lines=1, stationary="outputs", doubled=False, pairs=[]
    )[0]
    adders = [part for part in component.parts if part.name.startswith("count_")]
    assert sum(part.count for part in adders) == lanes - 1
    assert max(part.params["bits"] for part in adders) == (lanes - 1).bit_length()


@pytest.mark.parametrize("encoding", ["twos_complement", "bipolar"])
def test_activity_names_events_that_are_priced(encoding: str) -> None:
    pe = planes(encoding=encoding, plane_pairs=4, pipeline_depth=3)
    pair = get_format("int2"), get_format("int8")
    made = pe.hardware(activation_lines=2, weight_lines=2, stationary="outputs", doubled=True, pairs=[pair])
    energy = {
        component.name: load_technology("published_45nm").price(component).energy_pj for component in made
    }
    for events in pe.activity(*pair, stationary="outputs").values():
        for component, event in events:
            assert energy[component][event] > 0


def test_what_has_no_planes_is_refused() -> None:
    floats = planes(activations=["fp16", "s3"])
    assert "not of fp16" in (floats.accepts(get_format("int4"), get_format("fp16")) or "")
    assert "not of s3" in (floats.accepts(get_format("int4"), element_format("s3")) or "")
    binary = get_format("binary")
    assert "not of binary" in (planes(weights="binary").accepts(binary, get_format("int8")) or "")
    assert planes(weights="binary", encoding="bipolar").accepts(binary, get_format("int8")) is None
    wide = planes(weights="int16", encoding="bipolar")
    assert "8 bits" in (wide.accepts(get_format("int16"), get_format("int8")) or "")
    assert planes(weights="int16").accepts(get_format("int16"), get_format("int8")) is None
    with pytest.raises(InputError, match="accumulator"):
        planes(accumulator="fp32")
    assert planes().fits("broadcast") is None
    assert "broadcast" in (planes().fits("ws") or "")
