"""Tiles fit, cover the operation, end at scale groups; faster memory never slows a mapped run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import INTEGER_PAIRS, description, plans

from simulator.arch import load_accelerator
from simulator.engine import fast
from simulator.errors import InputError
from simulator.mapping import Plan, plan_gemm
from simulator.memory import FlatDram
from simulator.workload import gemm_workload, load_workload

RELAXED = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@RELAXED
@given(plan=plans(INTEGER_PAIRS, most=40), factor=st.sampled_from([2, 3, 10]))
def test_more_bandwidth_never_slows_a_mapped_run(plan: Plan, factor: int) -> None:
    wider = replace(plan, dram=replace(plan.dram, numerator=plan.dram.numerator * factor))
    assert fast.simulate_gemm(wider, "x", "gemm").cycles <= fast.simulate_gemm(plan, "x", "gemm").cycles


@RELAXED
@given(plan=plans(INTEGER_PAIRS, most=40))
def test_endless_memory_leaves_the_time_of_the_array(plan: Plan) -> None:
    """With one tile, no port limits and a DRAM that moves everything in a cycle, only the first loads and the last
    write show."""
    whole = replace(plan, tiling=replace(plan.tiling, m=plan.m, n=plan.n, k=plan.k), batch=1, weight_reuse=1)
    endless = replace(
        whole,
        demand=whole.demand.unlimited(),
        dram=FlatDram(1 << 40, 1, 0),
        fill_bits=(1 << 40,) * 3,
        vector_lanes=1 << 40,
        vector_visits=0,
    )
    record = fast.simulate_gemm(endless, "x", "gemm")
    assert record.cycles == record.compute_cycles + 3


@RELAXED
@given(plan=plans(INTEGER_PAIRS, most=40))
def test_tiles_cover_everything_and_end_at_group_edges(plan: Plan) -> None:
    mt, nt, kt = plan.counts
    assert sum(plan.rows_m(i) for i in range(mt)) == plan.m
    assert sum(plan.rows_n(i) for i in range(nt)) == plan.n
    assert sum(plan.size_k(i) for i in range(kt)) == plan.k
    if plan.edges:
        assert all(low in plan.edges for low in range(plan.tiling.k, plan.k, plan.tiling.k))
    assert len(list(plan.steps())) == plan.batch * mt * nt * kt


def test_a_tile_never_exceeds_its_buffer() -> None:
    data = description()
    accelerator = load_accelerator(data)
    plan = plan_gemm(gemm_workload(200, 300, 100).gemms[0], accelerator)
    assert plan.weight_bits(0, 0) <= accelerator.buffers.weights.tile_bits
    assert plan.activation_bits(0, 0) <= accelerator.buffers.activations.tile_bits
    m, n = np.array([plan.tiling.m]), np.array([plan.tiling.n])
    assert plan.output_tile_bits(m, n)[0] <= accelerator.buffers.outputs.tile_bits


def test_a_group_that_fits_no_buffer_is_refused_with_the_size_it_needs() -> None:
    data = description(buffers={"weights": {"kib": 0.0625, "banks": 2, "width_bits": 64}})
    with pytest.raises(InputError, match=r"the weights buffer needs .* KiB"):
        plan_gemm(gemm_workload(4, 256, 4, weights="int8_g256").gemms[0], load_accelerator(data))


def test_a_tile_size_that_was_asked_for_is_taken_or_refused() -> None:
    taken = load_accelerator(description(mapping={"tile_m": 3, "tile_n": 5, "tile_k": 7, "order": "kmn"}))
    tiling = plan_gemm(gemm_workload(20, 30, 10).gemms[0], taken).tiling
    assert (tiling.m, tiling.n, tiling.k, tiling.order) == (3, 5, 7, "kmn")
    refused = load_accelerator(description(mapping={"tile_m": 200}))
    with pytest.raises(InputError, match="the tile asked for"):
        plan_gemm(gemm_workload(200, 300, 100).gemms[0], refused)
    cut = load_accelerator(description(mapping={"tile_k": 12}))
    with pytest.raises(InputError, match=r"mapping\.tile_k.*multiples of 8"):
        plan_gemm(gemm_workload(4, 64, 4, weights="int8_g8").gemms[0], cut)


def test_an_operand_with_no_more_tiles_than_slots_is_loaded_once() -> None:
    tiles = description(mapping={"tile_m": 8, "tile_n": 3, "tile_k": 16, "order": "nmk"})
    plan = plan_gemm(gemm_workload(16, 16, 6).gemms[0], load_accelerator(tiles))
    record = fast.simulate_gemm(plan, "x", "gemm")
    assert record.dram_read_bytes == {"weights": 6 * 16 + 2, "activations": 16 * 16 + 2}


def test_a_convolution_reads_its_input_lines_not_its_im2col_matrix() -> None:
    accelerator = load_accelerator("systolic_ws_32x32")
    conv = next(
        op for op in load_workload("resnet-18").gemms if op.conv is not None and op.conv.kernel == (3, 3)
    )
    record = fast.simulate_gemm(plan_gemm(conv, accelerator), "x", "conv")
    geometry = conv.conv
    assert geometry is not None
    feature_map = geometry.in_height * geometry.in_width * geometry.in_channels
    im2col = conv.m * conv.k * conv.batch
    assert feature_map <= record.dram_read_bytes["activations"] < im2col


def test_grouped_query_heads_share_what_they_read() -> None:
    accelerator = load_accelerator("systolic_os_128x128")
    shared = next(op for op in load_workload("llama-2-7b", decode=32).gemms if op.op == "attention")
    assert shared.weight_reuse == 1
    wide = replace(shared, weight_reuse=8)
    one = fast.simulate_gemm(plan_gemm(shared, accelerator), "x", "attention").dram_read_bytes["weights"]
    eight = fast.simulate_gemm(plan_gemm(wide, accelerator), "x", "attention").dram_read_bytes["weights"]
    assert eight < one / 7
