"""Who waits for whom: worked steps, limits and laws of the rules."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from literal_replay import retire, width

from simulator.pe.serial import Recoding, sync, term_counts, term_masks

RECODINGS: tuple[Recoding, ...] = get_args(Recoding)
int8 = st.integers(-128, 127)
operands = arrays.arrays(np.int64, st.tuples(*[st.integers(1, 4)] * 3), elements=int8)
"""(vectors, steps, lanes)"""


def test_a_lane_beyond_the_first_shifter_waits() -> None:
    """Lowest ones at 0 and 4; a first stage of 2 bits reaches 3 positions further, so the second lane waits."""
    lanes = np.array([0b0000_0001, 0b0001_0000])
    assert sync.two_stage_cycles(lanes, first_stage_bits=2) == 2
    assert sync.two_stage_cycles(lanes, first_stage_bits=3) == 1
    lanes = np.array([0b0000_0111, 0b0001_0000])
    assert sync.two_stage_cycles(lanes, first_stage_bits=2) == 3  # the second retires beside position 1


def test_a_step_without_terms_takes_a_cycle() -> None:
    assert sync.two_stage_cycles(np.zeros((3, 4), int)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("recoding", RECODINGS)
@settings(max_examples=50)
@given(
    lanes=arrays.arrays(np.int64, st.integers(1, 6), elements=st.integers(-300, 300)), bits=st.integers(0, 5)
)
def test_terms_retire_from_the_bottom_in_each_lane(lanes: np.ndarray, bits: int, recoding: Recoding) -> None:
    masks = term_masks(lanes, recoding).tolist()
    assert sync.two_stage_cycles(lanes, first_stage_bits=bits, recoding=recoding) == retire(masks, bits)


@given(operand=operands)
def test_without_a_first_stage_positions_go_one_by_one(operand: np.ndarray) -> None:
    positions = term_counts(np.bitwise_or.reduce(np.abs(operand), axis=-1))
    assert (sync.two_stage_cycles(operand, first_stage_bits=0) == np.maximum(positions, 1)).all()


@given(operand=operands)
def test_with_the_whole_shifter_lanes_take_one_term_a_cycle(operand: np.ndarray) -> None:
    most = term_counts(operand).max(axis=-1)
    assert (sync.two_stage_cycles(operand) == np.maximum(most, 1)).all()


@given(operand=operands, more=operands, bits=st.integers(0, 5))
def test_more_lanes_never_make_a_step_faster(operand: np.ndarray, more: np.ndarray, bits: int) -> None:
    vectors, steps = min(len(operand), len(more)), min(operand.shape[1], more.shape[1])
    few, more = operand[:vectors, :steps], more[:vectors, :steps]
    many = np.concatenate([few, more], axis=-1)
    assert (sync.bitlet_cycles(many, bits=8) >= sync.bitlet_cycles(few, bits=8)).all()
    assert (sync.bitwave_cycles(many) >= sync.bitwave_cycles(few)).all()
    assert (
        sync.bit_column_cycles(many, bits=8, multipliers=2)
        >= sync.bit_column_cycles(few, bits=8, multipliers=2)
    ).all()
    for trim in (False, True):
        wide, narrow = (sync.group_widths(x, signed=True, trim_zeros=trim) for x in (many, few))
        assert (wide >= narrow).all()
    assert (
        sync.two_stage_cycles(many, first_stage_bits=bits)
        >= sync.two_stage_cycles(few, first_stage_bits=bits)
    ).all()


@given(operand=operands, group=st.integers(1, 4), signed=st.booleans(), trim=st.booleans())
def test_vectors_of_a_group_share_a_width(operand: np.ndarray, group: int, signed: bool, trim: bool) -> None:
    values = operand if signed else np.abs(operand)
    found = sync.group_widths(values, signed=signed, vectors_per_group=group, trim_zeros=trim)
    for g, start in enumerate(range(0, len(values), group)):
        for step in range(values.shape[1]):
            lanes = values[start : start + group, step].reshape(-1).tolist()
            assert found[g, step] == width(lanes, signed, trim)


@given(operand=operands)
def test_wider_groups_never_make_a_step_faster(operand: np.ndarray) -> None:
    slowest = [
        sync.group_widths(operand, signed=True, vectors_per_group=group).max(axis=0) for group in (1, 2, 4)
    ]
    assert (slowest[0] == slowest[1]).all()  # leading zeros: the slowest group is that of the widest value
    trimmed = [
        sync.group_widths(operand, signed=True, vectors_per_group=group, trim_zeros=True).max(axis=0)
        for group in (1, 2, 4)
    ]
    assert (trimmed[0] <= trimmed[1]).all()
    assert (trimmed[1] <= trimmed[2]).all()


@given(a=operands, w=operands)
def test_laconics_slowest_product_is_that_of_a_lanes_most_terms(a: np.ndarray, w: np.ndarray) -> None:
    steps, lanes = min(a.shape[1], w.shape[1]), min(a.shape[2], w.shape[2])
    a, w = a[:, :steps, :lanes], w[:, :steps, :lanes]
    every = term_counts(a)[:, None] * term_counts(w)[None]
    found = sync.product_cycles(sync.lane_terms(a), sync.lane_terms(w))
    assert (found == every.max(axis=(0, 1, 3))).all()


@given(a=operands, w=operands)
def test_more_lanes_rows_or_columns_never_make_products_faster(a: np.ndarray, w: np.ndarray) -> None:
    """Both operands by terms, and by widths."""
    steps, lanes = min(a.shape[1], w.shape[1]), min(a.shape[2], w.shape[2])
    a, w = a[:, :steps, :lanes], w[:, :steps, :lanes]

    def by_terms(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        return sync.product_cycles(sync.lane_terms(a), sync.lane_terms(w))

    def by_widths(a: np.ndarray, w: np.ndarray) -> np.ndarray:
        return sync.product_cycles(*(sync.group_widths(x, signed=True).max(axis=0) for x in (a, w)))

    for rule in (by_terms, by_widths):
        all_of_them = rule(a, w)
        assert (all_of_them >= rule(a[..., :1], w[..., :1])).all()
        assert (all_of_them >= rule(a[:1], w)).all()
        assert (all_of_them >= rule(a, w[:1])).all()


@given(operand=operands, bits=st.integers(0, 5))
def test_no_step_takes_more_cycles_than_its_values_have_bits(operand: np.ndarray, bits: int) -> None:
    """Essential bits, unrecoded: of an operand by terms, by columns, and of both."""
    most = np.array([[max(1, *(abs(int(x)).bit_length() for x in step)) for step in v] for v in operand])
    fits = int(most.max())
    assert (sync.two_stage_cycles(operand, first_stage_bits=bits) <= most).all()
    assert (sync.bitwave_cycles(operand) <= most).all()
    terms = sync.lane_terms(operand)
    assert (sync.product_cycles(terms, terms) <= fits**2).all()


@pytest.mark.parametrize(("p", "q"), [(1, 1), (4, 8), (8, 8), (3, 5)])
def test_bit_planes_of_p_and_q_bits_take_p_times_q(p: int, q: int) -> None:
    a, w = np.full((1, 3, 2), 2**p - 1), np.full((1, 3, 2), 2**q - 1)
    loom = [sync.group_widths(x, signed=False).max(axis=0) for x in (a, w)]
    assert sync.product_cycles(*loom).tolist() == [p * q] * 3
    laconic = [sync.lane_terms(x) for x in (a, w)]
    assert sync.product_cycles(*laconic).tolist() == [p * q] * 3


@pytest.mark.parametrize(("bits", "cycles"), [(1, 7), (2, 4), (4, 2)])
def test_loom_takes_several_bits_of_a_serial_operand_at_a_time(bits: int, cycles: int) -> None:
    assert sync.serial_width(np.array([7]), bits).tolist() == [cycles]


@pytest.mark.parametrize(("pruned", "cycles"), [(0, 8), (2, 6), (4, 4)])
def test_bitvert_multiplies_sixteen_pairs_in_its_stored_columns(pruned: int, cycles: int) -> None:
    """BBS: 8 of 16 lanes work on a column, of which inversion leaves at most half the bits; one cycle a column."""
    assert sync.stored_columns(8, pruned) == cycles


@given(weights=arrays.arrays(np.int64, 16, elements=int8))
def test_inverted_columns_need_half_the_multipliers(weights: np.ndarray) -> None:
    ones = sync.bit_column_ones(weights, bits=8)
    assert (np.minimum(ones, 16 - ones) <= 8).all()
    assert sync.bit_column_cycles(weights, bits=8, multipliers=16) <= sync.stored_columns(8, 0)


def test_bitlet_ends_with_its_fullest_column() -> None:
    weights = np.array([0b0101, 0b0001, -1, 0])
    assert sync.bit_column_ones(weights, bits=4).tolist() == [3, 1, 2, 1]
    assert sync.bitlet_cycles(weights, bits=4) == 3


def test_bitwave_skips_columns_of_zeros_and_pays_no_cycle_for_the_sign() -> None:
    assert sync.bitwave_cycles(np.array([[4, 4, 12, -4], [0, 0, 0, 0], [-64, 1, 0, 0]])).tolist() == [2, 0, 2]


def test_steps_wait_for_their_delivery() -> None:
    assert sync.step_ends(np.array([3, 0, 5]), 2).tolist() == [3, 5, 10]


def test_a_column_register_lets_columns_run_one_step_ahead() -> None:
    cycles = np.array([[8, 1], [1, 8], [1, 1]])
    assert sync.column_register_ends(cycles, 0, 1).tolist() == [8, 16, 17]
    assert sync.column_register_ends(cycles, 1, 1).tolist() == [8, 9, 10]
    # the third step is issued when all have ended the first, at 8; the second column ends its second at 9


step_cycles = arrays.arrays(
    np.int64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=st.integers(1, 9)
)


@given(cycles=step_cycles, floor=st.integers(1, 6))
def test_no_column_register_means_one_step_for_all(cycles: np.ndarray, floor: int) -> None:
    together = sync.step_ends(cycles.max(axis=1), floor)
    assert (sync.column_register_ends(cycles, 0, floor) == together).all()


@given(cycles=step_cycles, registers=st.integers(0, 4), floor=st.integers(1, 6))
def test_column_registers_never_cost_time(cycles: np.ndarray, registers: int, floor: int) -> None:
    fewer, more = (sync.column_register_ends(cycles, n, floor) for n in (registers, registers + 1))
    assert (more <= fewer).all()
    assert more[-1] >= max(cycles.sum(axis=0).max(), floor * len(cycles))
    assert (np.diff(more, prepend=0) > 0).all()


@given(cycles=step_cycles, registers=st.integers(0, 3), floor=st.integers(1, 6))
def test_more_columns_never_end_sooner(cycles: np.ndarray, registers: int, floor: int) -> None:
    all_columns = sync.column_register_ends(cycles, registers, floor)
    assert (all_columns >= sync.column_register_ends(cycles[:, :1], registers, floor)).all()
