"""The kernels for whole tensors say what the plain rules say."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.pe.serial import Recoding, kernels, sync

RECODINGS: tuple[Recoding, ...] = get_args(Recoding)
DTYPES = ("int8", "uint8", "int16", "uint16", "int64")


@st.composite
def operand(draw: st.DrawFn, max_lanes: int = 66) -> np.ndarray:
    """(folds, vectors, steps, lanes) of the values that are apt to go wrong: extremes, zeros, small ones."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    lanes = draw(st.sampled_from([n for n in (1, 7, 8, 16, 17, 32, 64, 66) if n <= max_lanes]))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 9)), lanes)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = draw(st.integers(1, 16))
    low, high = (0 if dtype.kind == "u" else -(2 ** (bits - 1))), 2 ** (bits - (dtype.kind != "u"))
    if dtype == np.int64 and draw(st.booleans()):
        low, high = -(2**17), 2**18  # beyond what the kernels take
    info = np.iinfo(dtype)
    low, high = max(low, int(info.min)), min(high, int(info.max) + 1)
    values = generator.integers(low, high, shape)
    values[generator.random(shape) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = 0
    values[generator.random(shape) < 0.05] = low
    return values.astype(dtype)


def same(found: Any, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.astype(np.int64), expected)


@pytest.mark.parametrize("recoding", RECODINGS)
@settings(max_examples=40, deadline=None)
@given(x=operand(), bits=st.integers(0, 5))
def test_terms_retire_as_the_plain_rule_says(x: np.ndarray, bits: int, recoding: Recoding) -> None:
    given = {"first_stage_bits": bits, "recoding": recoding}
    same(kernels.two_stage_cycles(x, **given), sync.two_stage_cycles(x, **given))


@settings(max_examples=60, deadline=None)
@given(x=operand(), signed=st.booleans(), group=st.integers(1, 3), trim=st.booleans())
def test_widths_are_the_plain_ones(x: np.ndarray, signed: bool, group: int, trim: bool) -> None:
    given = {"signed": signed, "vectors_per_group": group, "trim_zeros": trim}
    same(kernels.group_widths(x, **given), sync.group_widths(x, **given))


@settings(max_examples=60, deadline=None)
@given(x=operand(), bits=st.sampled_from([4, 8, 20]))
def test_bit_columns_are_the_plain_ones(x: np.ndarray, bits: int) -> None:
    same(kernels.bit_column_ones(x, bits=bits), sync.bit_column_ones(x, bits=bits))
    same(kernels.bitlet_cycles(x, bits=bits), sync.bitlet_cycles(x, bits=bits))
    same(kernels.bitwave_cycles(x), sync.bitwave_cycles(x))
    for multipliers in (1, 8, 64):
        given = {"bits": bits, "multipliers": multipliers}
        same(kernels.bit_column_cycles(x, **given), sync.bit_column_cycles(x, **given))


@pytest.mark.parametrize("recoding", RECODINGS)
@settings(max_examples=20, deadline=None)
@given(x=operand())
def test_most_terms_of_a_lane_are_the_plain_ones(x: np.ndarray, recoding: Recoding) -> None:
    same(kernels.lane_terms(x, recoding=recoding), sync.lane_terms(x, recoding=recoding))


def test_columns_of_many_blocks_keep_their_place() -> None:
    x = np.random.default_rng(1).integers(-128, 128, (3, 5, 211, 16), np.int8)
    same(kernels.two_stage_cycles(x, first_stage_bits=2), sync.two_stage_cycles(x, first_stage_bits=2))
    transposed = np.asfortranarray(x)
    same(kernels.bitlet_cycles(transposed, bits=8), sync.bitlet_cycles(x, bits=8))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 12),
    lanes=st.sampled_from([None, 1, 16]),
    floor=st.integers(1, 30),
    cuts=st.sets(st.integers(1, 11)),
    registers=st.integers(0, 3),
)
def test_streams_end_as_their_last_step(
    seed: int, steps: int, lanes: int | None, floor: int, cuts: set[int], registers: int
) -> None:
    generator = np.random.default_rng(seed)
    bounds = np.array([0, *sorted(cut for cut in cuts if cut < steps), steps])
    chunks = [slice(*pair) for pair in pairwise(bounds)]
    shape = (steps,) if lanes is None else (steps, lanes)
    a = generator.integers(0, 10, (2, *shape), np.uint8)
    w = generator.integers(0, 10, (3, *shape), np.uint8)
    products = [
        [[sync.step_ends(sync.product_cycles(i[c], j[c]), floor)[-1] for c in chunks] for j in w] for i in a
    ]
    same(kernels.product_streams(a, w, bounds, floor), np.array(products))
    cycles = generator.integers(1, 10, (2, steps, 3), np.uint8)
    ahead = [[sync.column_register_ends(i[c], registers, floor)[-1] for c in chunks] for i in cycles]
    same(kernels.column_register_streams(cycles, registers, bounds, floor), np.array(ahead))
    together = [[sync.step_ends(i[c], floor)[-1] for c in chunks] for i in cycles[:, :, 0]]
    same(kernels.step_streams(cycles[:, :, 0], bounds, floor), np.array(together))


def test_nothing_makes_no_streams() -> None:
    empty = np.zeros((0, 4, 3, 16), np.int8)
    assert kernels.two_stage_cycles(empty).shape == (0, 4, 3)
    assert kernels.group_widths(empty.astype(np.int64), signed=True).shape == (0, 4, 3)
