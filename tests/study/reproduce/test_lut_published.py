"""LUT Tensor Core and FIGLUT: tables counted entry by entry, tiles counted one by one."""

from __future__ import annotations

from itertools import product

import pytest

from simulator.study.reproduce import reproduce
from simulator.study.reproduce.figlut import (
    binary_macs_per_cycle,
    direct_adds,
    peak_tops,
    tops,
)
from simulator.study.reproduce.lut_tensor_core import (
    arrays,
    gemm_cycles,
    precompute_overhead_percent,
)
from simulator.study.reproduce.lut_tensor_core import peak_tops as lut_peak_tops


def test_densities_follow_from_peak_and_area_within_rounding_but_for_one_row() -> None:
    rows = [claim for claim in reproduce("lut-tensor-core") if claim.claim == "density_tops_per_mm2"]
    assert len(rows) == 7
    off = {str(row.case["config"]) for row in rows if abs(row.ratio - 1) > 0.002}
    assert off == {"a100-int8"}
    (odd,) = (row for row in rows if row.case["config"] == "a100-int8")
    assert round(odd.ours, 2) == 18.52


def test_cycles_are_those_of_tiles_dealt_out_one_by_one() -> None:
    m, n, k, bits, machines = 5, 130, 9, 3, 4
    tiles = sum(1 for _ in product(range(0, m, 2), range(0, n, 64), range(0, k, 4)))
    busy = [0] * machines
    for tile in range(tiles):
        busy[tile % machines] += bits
    assert gemm_cycles(m, n, k, weight_bits=bits, arrays=machines) == max(busy)


def test_peak_falls_as_bits_rise_and_equals_the_tensor_cores_at_two_bits() -> None:
    assert lut_peak_tops("a100-lut-4x") == pytest.approx(4 * lut_peak_tops("a100-fp16"))
    assert lut_peak_tops("a100-lut-8x") == pytest.approx(8 * lut_peak_tops("a100-fp16"))
    assert lut_peak_tops("w_int1-a_fp16") == pytest.approx(4 * lut_peak_tops("a100-fp16"))
    assert arrays("a100-lut-4x") == 108 * 4 * 4


def test_the_measured_product_is_below_the_array_s_bound() -> None:
    (row,) = (claim for claim in reproduce("lut-tensor-core") if claim.claim == "mpgemm_tflops")
    assert 0.8 < row.published / row.ours < 1


def test_our_engine_lies_between_the_measured_product_and_the_bound() -> None:
    found = {claim.claim: claim for claim in reproduce("lut-tensor-core") if "mpgemm" in claim.claim}
    full = found["full_model_mpgemm_tflops"]
    assert full.published < full.ours < found["mpgemm_tflops"].ours


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_filling_tables_takes_time_unless_it_is_fused(phase: str) -> None:
    assert precompute_overhead_percent(phase, "fused") == 0
    assert 0 < precompute_overhead_percent(phase, "unfused") < 25


def test_figlut_computes_as_many_bits_as_the_array_it_replaces() -> None:
    assert binary_macs_per_cycle() == 64 * 64 * 4


def test_fourteen_additions_save_two_fifths() -> None:
    assert direct_adds(4) == sum(len(signs) - 1 for signs in product((1, -1), repeat=4) if signs[0] == 1)
    (saving,) = (row for row in reproduce("figlut") if row.claim == "generator_saving")
    assert saving.ours == 1 - 14 / 24


def test_figlut_s_peak_falls_with_the_bits_and_memory_bounds_it() -> None:
    assert peak_tops(2) == 2 * peak_tops(4)
    assert all(tops(bits) < peak_tops(bits) for bits in (2, 3, 4))


def test_notes_of_figlut_say_what_was_fitted() -> None:
    fitted = ("tops", "tops_per_w", "efficiency_over_figna")
    rows = [claim for claim in reproduce("figlut") if claim.claim in fitted]
    assert rows
    assert all("fitted" in row.note for row in rows)
