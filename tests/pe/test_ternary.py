"""Ternary weights: adders without multipliers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pe_oracles import wrapped

from simulator.config import validate
from simulator.formats import get_format, quantize
from simulator.hardware import load_technology
from simulator.pe.mac import MacPE
from simulator.pe.ternary import TernaryPE

TERNARY, INT8 = get_format("ternary"), get_format("int8_token")


def pe(family: str = "ternary", **parameters: Any) -> Any:
    model = TernaryPE if family == "ternary" else MacPE
    return validate(model, {"family": family, "weights": "int2", "activations": "int8", **parameters})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-128, 127), st.integers(-1, 1)), min_size=4, max_size=4),
    st.integers(8, 32),
)
def test_activations_are_added_subtracted_or_skipped(pairs: list[tuple[int, int]], bits: int) -> None:
    function = pe(lanes=4, accumulator=f"int{bits}").function(TERNARY, INT8)
    state = np.full((1,), 5, function.dtype)
    activations, weights = (np.array(column) for column in zip(*pairs, strict=True))
    expected = 5
    for activation, weight in pairs:
        expected += activation if weight > 0 else -activation if weight < 0 else 0
    assert int(function.result(function.step(state, activations, weights))) == wrapped(expected, bits)


def test_quantized_ternary_weights_have_no_other_codes() -> None:
    for name in ("ternary", "ternary_g8", "int2_channel"):
        assert set(
            np.unique(quantize(np.random.default_rng(0).normal(size=(9, 64)), get_format(name)).codes)
        ) <= {-1, 0, 1}
        assert pe().accepts(get_format(name), INT8) is None


def test_other_weights_and_float_activations_are_refused() -> None:
    for weights, activations in (("int2_g8_asym", "int8"), ("int4", "int8"), ("ternary", "fp16")):
        assert pe(activations=["int8", "fp16"]).accepts(get_format(weights), get_format(activations))


def test_it_takes_a_cycle_a_step_and_less_silicon_and_energy_than_a_mac() -> None:
    assert pe().timing(TERNARY, INT8) == pe("mac").timing(TERNARY, INT8)
    technology = load_technology("published_45nm")
    priced = [
        technology.price(
            pe(family, lanes=16).hardware(
                activation_lines=1,
                weight_lines=1,
                stationary="outputs",
                doubled=False,
                pairs=[(TERNARY, INT8)],
            )[0]
        )
        for family in ("ternary", "mac")
    ]
    assert priced[0].area_um2 < priced[1].area_um2
    for event in ("mac int2 x int8", "step int2 x int8"):
        assert 0 < priced[0].energy_pj[event] < priced[1].energy_pj[event]


def test_a_tree_of_16_has_a_bit_for_negation_and_four_for_the_sum() -> None:
    (component,) = pe(lanes=16).hardware(
        weight_lines=1, activation_lines=1, stationary="outputs", doubled=False, pairs=[]
    )
    parts = {part.name: part for part in component.parts}
    assert (parts["tree"].params, parts["tree"].count) == ({"bits": 8 + 1 + 4}, 15)
    assert (parts["multiplier"].kind, parts["multiplier"].params) == ("multiplexer", {"inputs": 3, "bits": 8})
