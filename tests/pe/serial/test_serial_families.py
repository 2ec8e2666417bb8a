"""The bit-serial and term-serial families: exact sums, time by codes in both its forms, and who waits for whom."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arch import load_accelerator
from simulator.formats import exact_integers, get_format, quantize
from simulator.hardware import load_technology
from simulator.pe import pe_model
from simulator.pe.base import pair_name
from simulator.pe.serial import term_counts

FEW = settings(max_examples=60, deadline=None)
SHIPPED = ("stripes", "loom", "shapeshifter", "pragmatic", "laconic", "bitlet", "bitwave", "bitvert")
VARIANTS: list[dict[str, Any]] = [
    {"family": "loom"},
    {"family": "loom", "bits_per_cycle": 2, "dynamic_weights": True, "group_vectors": 2},
    {"family": "loom", "bits_per_cycle": 4, "dynamic_activations": False, "dynamic_weights": True},
    {"family": "shapeshifter"},
    {"family": "shapeshifter", "group_vectors": 2, "trim_zeros": True},
    {"family": "shapeshifter", "column_registers": 2},
    {"family": "pragmatic"},
    {"family": "pragmatic", "serial": "weights", "bits_first_stage": 5},
    {"family": "pragmatic", "bits_first_stage": 0, "recoding": "booth_like", "column_registers": 1},
    {"family": "laconic"},
    {"family": "laconic", "recoding": "none"},
    {"family": "bitlet", "lanes": 8},
    {"family": "bitwave"},
]


def element(**params: Any) -> Any:
    given = {"weights": ["int8"], "activations": ["int8", "uint8", "int5"], "lanes": 8} | params
    return pe_model(given["family"])(**given)


def formats(pe: Any, activations: str = "int8") -> tuple[Any, Any]:
    return get_format(pe.weights[0]), get_format(activations)


def operands(seed: int, rows: int, cols: int, steps: int, lanes: int, signed: bool = True) -> tuple[Any, Any]:
    """Activations (cols, steps, lanes) and weights (rows, steps, lanes), from narrow to all of 8 bits."""
    random = np.random.default_rng(seed)
    low = -127 if signed else 0
    a = random.integers(low, 128, (cols, steps, lanes)) >> random.integers(0, 8, (cols, steps, 1))
    w = random.integers(-127, 128, (rows, steps, lanes)) >> random.integers(0, 8, (rows, steps, 1))
    return a, w


@pytest.mark.parametrize("family", SHIPPED)
@FEW
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 4), bits=st.sampled_from([8, 12, 20, 32, 64]))
def test_sums_are_exact_and_wrap(family: str, seed: int, steps: int, bits: int) -> None:
    pe = element(family=family, accumulator=f"int{bits}")
    function = pe.function(*formats(pe))
    a, w = operands(seed, 1, 1, steps, pe.lanes)
    state = np.zeros((1, function.words), function.dtype)
    for step in range(steps):
        state = function.step(state, a[:, step], w[:, step])
    total = sum(int(x) * int(y) for x, y in zip(a.reshape(-1), w.reshape(-1), strict=True))
    wrapped = (total + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    assert int(function.result(state)[0]) == wrapped
    assert function.exponent == 0


@pytest.mark.parametrize("params", VARIANTS, ids=str)
@FEW
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(*(st.integers(1, 5) for _ in range(3))),
    floor=st.integers(1, 9),
    signed=st.booleans(),
)
def test_bulk_times_are_those_of_the_plain_rules(
    params: dict[str, Any], seed: int, shape: tuple[int, int, int], floor: int, signed: bool
) -> None:
    """All folds of two blocks of activations and three of weights, K in two chunks; and zeros pad short blocks."""
    rows, cols, steps = shape
    pe = element(**params)
    timing = pe.data_timing(*formats(pe, "int8" if signed else "uint8"))
    folds = [operands(seed + i, rows, cols, steps, pe.lanes, signed) for i in range(3)]
    a, w = np.stack([fold[0] for fold in folds[:2]]), np.stack([fold[1] for fold in folds])
    padded = [np.pad(x, ((0, 0), (0, 2), (0, 0), (0, 0))).astype(np.int8) for x in (a, w)]
    bounds = np.array([0, steps // 2, steps] if steps > 1 else [0, steps])
    sides = ("activations", "weights")
    profiles = [timing.profile(side, x) for side, x in zip(sides, padded, strict=True)]
    for k, side in enumerate(sides):
        if side not in timing.depends_on:
            profiles[k] = profiles[k][:1]
    bulk = timing.streams(*profiles, bounds, floor)
    bulk = np.broadcast_to(bulk, (2, 3, len(bounds) - 1))
    for i, j in np.ndindex(2, 3):
        for chunk, (low, high) in enumerate(pairwise(bounds.tolist())):
            ends = timing.ends(a[i, :, low:high], w[j, :, low:high], floor)
            assert bulk[i, j, chunk] == ends[-1]
            assert (np.diff(ends, prepend=0) >= 1).all()


@pytest.mark.parametrize("params", VARIANTS, ids=str)
@FEW
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 4), cols=st.integers(1, 4), floor=st.integers(1, 4))
def test_more_vectors_or_slower_ports_never_save_time(
    params: dict[str, Any], seed: int, rows: int, cols: int, floor: int
) -> None:
    pe = element(**params)
    timing = pe.data_timing(*formats(pe))
    a, w = operands(seed, 5, 5, 4, pe.lanes)
    whole = timing.ends(a, w, floor)
    assert (timing.ends(a[:cols], w[:rows], floor) <= whole).all()
    assert (timing.ends(a, w, floor + 1) >= whole).all()


@pytest.mark.parametrize("params", VARIANTS, ids=str)
@FEW
@given(seed=st.integers(0, 2**32))
def test_no_step_takes_longer_than_the_widest_values(params: dict[str, Any], seed: int) -> None:
    pe = element(**params)
    pair = formats(pe)
    a, w = operands(seed, 3, 3, 3, pe.lanes)
    ends = pe.data_timing(*pair).ends(a, w, 1)
    if not getattr(pe, "column_registers", 0):
        assert np.diff(ends, prepend=0).max() <= pe.timing(*pair).initiation_interval


@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_zeros_take_the_floor_or_the_least_width(params: dict[str, Any]) -> None:
    pe = element(**params)
    pair = formats(pe, "uint8")
    zeros = np.zeros((2, 3, pe.lanes), np.int64)
    (*_, last) = pe.data_timing(*pair).ends(zeros, zeros, 1)
    least = {
        ("loom", True, False): 1 * 8,
        ("loom", True, True): 1 * 2,
        ("loom", False, True): 2 * 2,
    }
    dynamic = (getattr(pe, "dynamic_activations", True), getattr(pe, "dynamic_weights", False))
    assert last == 3 * least.get((pe.family, *dynamic), 1)


@FEW
@given(seed=st.integers(0, 2**32), registers=st.integers(1, 4))
def test_column_registers_never_cost_time(seed: int, registers: int) -> None:
    for family in ("pragmatic", "shapeshifter"):
        ends = []
        for count in (0, registers, registers + 1):
            pe = element(family=family, column_registers=count)
            a, w = operands(seed, 3, 4, 6, pe.lanes)
            ends.append(int(pe.data_timing(*formats(pe)).ends(a, w, 1)[-1]))
        assert ends == sorted(ends, reverse=True)


def test_static_machines_take_the_bits_of_their_formats() -> None:
    stripes, bitvert = load_accelerator("stripes").element, load_accelerator("bitvert").element
    int8 = get_format("int8")
    for activations, cycles in (("int8_token", 8), ("int5_token", 5), ("int2", 2)):
        pair = (get_format("int8_channel"), get_format(activations))
        assert (stripes.timing(*pair).initiation_interval, stripes.data_timing(*pair)) == (cycles, None)
    for weights, cycles in (("int8", 8), ("bbs_avg2_g32", 6), ("bbs_zp4_g32", 4)):
        pair = (get_format(weights), int8)
        assert (bitvert.timing(*pair).initiation_interval, bitvert.data_timing(*pair)) == (cycles, None)


def test_loom_without_dynamic_widths_takes_their_product() -> None:
    pe = element(family="loom", dynamic_activations=False, bits_per_cycle=2)
    pair = formats(pe, "int5")
    assert pe.data_timing(*pair) is None
    assert pe.timing(*pair).initiation_interval == 8 * 3


def test_pruned_columns_make_bitwave_faster() -> None:
    """Of 8 columns of groups of 32, two are gone: the sign's and at most 5 of magnitudes are left."""
    pe = load_accelerator("bitwave").element
    weights = quantize(np.random.default_rng(0).normal(size=(32, 512)).astype(np.float32), "bitflip2_g32")
    integers, _ = exact_integers(weights)
    steps = integers.reshape(32, -1, pe.lanes)
    ends = pe.data_timing(weights.format, get_format("int8")).ends(steps[:16], steps, 1)
    assert (
        np.diff(ends, prepend=0).max()
        == 5
        == pe.timing(weights.format, get_format("int8")).initiation_interval
    )


@pytest.mark.parametrize("weights", ["int8_channel", "bbs_avg2_g32"])
def test_half_of_the_multipliers_take_every_stored_column(weights: str) -> None:
    """BBS's identity, column by column: with more ones than zeros, the sum of all activations less the zeros' ones.

    Codes of zero-point shifting are no sum of columns: their sign negates.
    """
    tensor = quantize(np.random.default_rng(1).laplace(size=(6, 64)).astype(np.float32), weights)
    integers, _ = exact_integers(tensor)
    activations = np.random.default_rng(2).integers(-128, 128, 64)
    pe = load_accelerator("bitvert").element
    function = pe.function(tensor.format, get_format("int8"))
    for row, codes in zip(integers, np.asarray(tensor.codes).astype(np.int64), strict=True):
        state, total = np.zeros((1, 1), np.int64), 0
        for low in range(0, 64, pe.lanes):
            a, w = activations[low : low + pe.lanes], row[low : low + pe.lanes]
            state = function.step(state, a[None], w[None])
            total += by_columns(a, codes[low : low + pe.lanes], w, tensor.format.code_bits, pe.lanes // 2)
        assert int(function.result(state)[0]) == total == int(activations @ row)


def by_columns(a: Any, codes: Any, weights: Any, bits: int, multipliers: int) -> int:
    """Codes are affine in their bits: the weight of a column, and the constant, follow from the group's values."""
    planes = np.stack([codes >> bit & 1 for bit in range(bits)], axis=1)
    system = np.concatenate([planes, np.ones((len(a), 1))], axis=1)
    worth = np.linalg.lstsq(system, weights, rcond=None)[0]
    assert np.allclose(system @ worth, weights)
    total = worth[-1] * a.sum()
    for column in range(bits):
        ones = planes[:, column]
        inverted = ones.sum() > multipliers
        picked = a[(ones == 0) if inverted else (ones == 1)]
        assert len(picked) <= multipliers
        total += worth[column] * (a.sum() - picked.sum() if inverted else picked.sum())
    return round(float(total))


def test_terms_of_products_are_what_the_codes_say() -> None:
    random = np.random.default_rng(3)
    codes = random.integers(-127, 128, (4, 32)).astype(np.int8)
    expected = {
        "pragmatic": (term_counts(codes), np.ones_like(codes)),
        "laconic": (term_counts(codes, "booth_like"),) * 2,
        "bitlet": (
            np.ones_like(codes),
            np.array([[int(x & 255).bit_count() for x in row] for row in codes.tolist()]),
        ),
    }
    for family, sides in expected.items():
        pe = element(family=family)
        timing = pe.data_timing(*formats(pe))
        for side, terms in zip(("activations", "weights"), sides, strict=True):
            assert (timing.terms(side, codes) == terms).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_event_of_every_pair_exists_and_has_a_price(name: str) -> None:
    accelerator = load_accelerator(name)
    pe = accelerator.element
    pairs = [(get_format(w), get_format(a)) for w in pe.weights for a in pe.activations]
    parts = pe.hardware(weight_lines=4, activation_lines=3, stationary="outputs", doubled=True, pairs=pairs)
    priced = {part.name: load_technology("published_45nm").price(part) for part in parts}
    for pair in pairs:
        assert pe.accepts(*pair) is None
        for made in pe.activity(*pair, stationary="outputs").values():
            for component, event in made:
                assert priced[component].energy_pj[event] > 0, (pair_name(pair), component, event)
    assert all(cost.area_um2 > 0 for cost in priced.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_refuses_what_it_has_no_bits_for(name: str) -> None:
    pe = load_accelerator(name).element
    assert "int8" in pe.accepts(get_format("fp16"), get_format("int8"))
    assert pe.accepts(get_format("int8"), get_format("fp8_e4m3"))
    with pytest.raises(ValueError, match="integers"):
        element(family=pe.family, accumulator="fp32")


def test_narrow_operands_cost_less_energy() -> None:
    """The same PE: what is parallel at 4 bits switches half of its gates."""
    pe = element(family="stripes", weights=["int8", "int4"])
    pairs = [(get_format(w), get_format("int8")) for w in ("int8", "int4")]
    (found, *_) = pe.hardware(
        weight_lines=1, activation_lines=1, stationary="outputs", doubled=False, pairs=pairs
    )
    cost = load_technology("published_45nm").price(found)
    assert cost.energy_pj["cycle int4 x int8"] < cost.energy_pj["cycle int8 x int8"]
    assert cost.energy_pj["step int4 x int8"] == pytest.approx(cost.energy_pj["step int8 x int8"] / 2)
