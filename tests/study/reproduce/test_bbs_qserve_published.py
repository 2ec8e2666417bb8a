"""BBS by its rules, counted naively; QServe's range by brute force, and its roofline's laws."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from simulator.formats.pruning import prune
from simulator.study.reproduce import reproduce
from simulator.study.reproduce.bbs import VARIANTS, bitvert_cycles, cycles, speedup
from simulator.study.reproduce.claim import Claim
from simulator.study.reproduce.qserve import BASELINES, overflows, protective_range, serve


def _naive(design: str, weights: np.ndarray, rows: int) -> int:
    """A step after the other, filter by filter, on Python integers."""
    n, k = weights.shape
    group = {"stripes": 8, "pragmatic": 8, "bitlet": 32, "bitwave": 8}[design]
    if design == "bitwave":
        weights = prune(weights, "bitflip", 2).weights
    total = 0
    for first in range(0, n, rows):
        for start in range(0, k, group):
            slowest = 0
            for row in weights[first : first + rows, start : start + group].tolist():
                if design == "stripes":
                    time = 8
                elif design == "pragmatic":
                    time = max(bin(abs(w)).count("1") + (w < 0) for w in row)
                elif design == "bitlet":
                    time = max(sum((w & 0xFF) >> bit & 1 for w in row) for bit in range(8))
                else:
                    time = sum(any(abs(w) >> bit & 1 for w in row) for bit in range(7))
                slowest = max(slowest, time)
            total += slowest
    return total


@pytest.mark.parametrize("design", ["stripes", "pragmatic", "bitlet", "bitwave"])
@pytest.mark.parametrize(("n", "k", "rows"), [(40, 96, 32), (7, 80, 3), (1, 33, 2)])
def test_cycles_of_the_baselines_equal_a_count_step_by_step(design: str, n: int, k: int, rows: int) -> None:
    draw = np.random.default_rng(n)
    weights = np.clip(np.rint(draw.laplace(0, 20, (n, k))), -127, 127).astype(np.int64)
    assert cycles(design, weights, rows) == _naive(design, weights, rows)


def test_bitvert_takes_a_cycle_for_each_stored_column_of_sixteen_weights() -> None:
    assert bitvert_cycles("moderate", 768, 768, 32) == 768 // 16 * (5 * 8 + 19 * 4)
    assert bitvert_cycles("conservative", 768, 768, 32) == 768 // 16 * (3 * 8 + 21 * 6)
    assert bitvert_cycles("moderate", 16, 17, 32) == 2 * 8


@pytest.mark.parametrize("variant", VARIANTS)
def test_pruning_more_is_faster_than_stripes_by_the_columns_saved(variant: str) -> None:
    kept = {
        "conservative": Fraction(1, 10) * 8 + Fraction(9, 10) * 6,
        "moderate": Fraction(1, 5) * 8 + 4 * Fraction(4, 5),
    }
    bound = 16 / float(kept[variant])
    assert 0.97 * bound < speedup(variant, "stripes") < bound


def test_more_filters_that_wait_for_each_other_make_bitlet_slower() -> None:
    times = [speedup("bitlet", "stripes", columns) for columns in (1, 2, 8, 32)]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]


@pytest.fixture(scope="module")
def bbs() -> list[Claim]:
    return reproduce("bbs")


def test_storage_and_cycles_of_pruned_groups_are_the_paper_s(bbs) -> None:
    exact = [row for row in bbs if row.claim in ("bits_per_weight", "cycles_of_16_weights")]
    assert [row.ours for row in exact] == [6.25, 4.25, 6, 4]
    assert all(row.ratio == 1 for row in exact)


def test_speedups_of_one_network_lie_near_the_paper_s_means_over_seven(bbs) -> None:
    rows = [row for row in bbs if "speedup" in row.claim and row.published is not None]
    assert len(rows) == 7
    assert all(0.9 < row.ratio < 1.15 for row in rows)


def _restored(value: int, lowest: int, highest: int) -> int:
    """Both steps on exact integers: ties to even, zero point within a UINT4."""
    below, above = min(lowest, 0), max(highest, 0)
    scale = max(round(Fraction(above - below, 15)), 1)
    zero = min(max(round(Fraction(-below, scale)), 0), 15)
    code = min(max(round(Fraction(value, scale)) + zero, 0), 15)
    return (code - zero) * scale


@pytest.mark.parametrize(("limit", "expected"), [(119, 0), (120, 7), (127, 278)])
def test_the_protective_range_is_exactly_the_paper_s(limit: int, expected: int) -> None:
    edge = limit - 9
    assert overflows(limit) == expected
    # where anything can overflow, checked value by value
    counted = sum(
        not -128 <= _restored(value, lowest, highest) <= 127
        for lowest in range(-limit, limit + 1)
        for highest in range(max(lowest, edge if lowest > -edge else lowest), limit + 1)
        for value in (lowest, highest)
    )
    assert counted == expected


def test_no_smaller_range_overflows_and_the_next_does() -> None:
    assert protective_range() == 119


@pytest.mark.parametrize("gpu", ["a100", "l40s"])
@pytest.mark.parametrize("network", ["llama-3-8b", "qwen1.5-72b"])
def test_fewer_bits_serve_more_tokens(network: str, gpu: str) -> None:
    ours = serve(network, gpu, "w4a8kv4")
    for scheme in BASELINES:
        other = serve(network, gpu, scheme)
        assert ours.batch > other.batch
        assert ours.tokens_per_s > other.tokens_per_s


def test_what_does_not_fit_serves_nothing() -> None:
    assert serve("qwen1.5-72b", "l40s", "w16a16kv16") == (serve("qwen1.5-72b", "l40s", "w8a8kv8"))
    assert serve("qwen1.5-72b", "l40s", "w8a8kv8").batch == 0


def test_the_batch_fills_memory() -> None:
    """Llama-3-8B, W4A8KV4 on 80 GB: 7.5 G weights of 4.125 bits, 65,536 values of 4 bits a token, 1,536 tokens."""
    weights = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 128256
    free = 80e9 - weights * 4.125 / 8
    assert serve("llama-3-8b", "a100", "w4a8kv4").batch == int(free / (65536 / 2 * 1536))
    assert ceil(weights / 1e9) == 8
