"""Two engines, one truth: every integer of the fast engine is the reference engine's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import FLOAT_PAIRS, INTEGER_PAIRS, description, mapped, plans

from simulator.arch import Accelerator, load_accelerator
from simulator.engine import fast, reference
from simulator.engine.record import LayerRecord, expand
from simulator.engine.recurrence import tile_recurrence
from simulator.engine.streams import DataRun
from simulator.mapping import Plan, plan_gemm
from simulator.workload import gemm_workload

FIELDS = (
    "cycles",
    "compute_cycles",
    "cycle_stack",
    "counts",
    "dram_read_bytes",
    "dram_write_bytes",
    "resource_cycles",
    "macs",
    "peak_macs_per_cycle",
    "sampling",
)
RELAXED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@RELAXED
@given(plan=plans(INTEGER_PAIRS + FLOAT_PAIRS))
def test_engines_agree_on_every_interval_and_count(plan: Plan) -> None:
    quick = fast.simulate_gemm(plan, "x", "gemm", trace=True)
    slow, _ = reference.simulate_gemm(plan, "x", "gemm", trace=True)
    check_equal(quick, slow)


def check_equal(quick: LayerRecord, slow: LayerRecord) -> None:
    for field in FIELDS:
        assert getattr(quick, field) == getattr(slow, field), field
    for resource in ("array", "dma"):
        assert list(expand(quick.intervals[resource])) == list(expand(slow.intervals[resource]))


@RELAXED
@given(plan=plans(INTEGER_PAIRS, family="toy"), heads=st.sampled_from([1, 3]))
def test_engines_agree_on_serial_pes_with_decoders_and_scales_inside(plan: Plan, heads: int) -> None:
    plan = replace(plan, batch=plan.batch * heads, weight_reuse=heads)
    quick = fast.simulate_gemm(plan, "x", "gemm", trace=True)
    slow, _ = reference.simulate_gemm(plan, "x", "gemm", trace=True)
    check_equal(quick, slow)
    assert sum(quick.cycle_stack.values()) == quick.cycles
    assert replace(quick, intervals={}) == fast.simulate_gemm(plan, "x", "gemm")


@dataclass
class RandomCodes:
    """Small integers, some rows of which stand for others, as in a sampled tensor."""

    plan: Plan
    seed: int
    share_of: int

    def which(self, side: str) -> np.ndarray:
        axis, extent, batches = ("m", self.plan.m, self.plan.batch)
        if side == "weights":
            axis, extent, batches = "n", self.plan.n, -(-self.plan.batch // self.plan.weight_reuse)
        held = self.plan.array.rows if self.plan.array.dataflow.rows_hold == axis else self.plan.array.cols
        blocks = batches * -(-extent // held)
        which = np.arange(blocks)
        full = np.flatnonzero((which + 1) % -(-extent // held) != 0) if extent % held else which
        which[full] = full[np.arange(len(full)) % max(1, len(full) // self.share_of)] if len(full) else []
        return which

    def share(self, side: str) -> float:
        return 1 / self.share_of

    def integers(self, side: str, block: int) -> np.ndarray:
        axis, extent = ("m", self.plan.m) if side == "activations" else ("n", self.plan.n)
        held = self.plan.array.rows if self.plan.array.dataflow.rows_hold == axis else self.plan.array.cols
        of_entry = -(-extent // held)
        rows = min(held, extent - block % of_entry * held)
        random = np.random.default_rng([self.seed, len(side), block])
        return random.integers(-127, 128, (rows, self.plan.k)) >> random.integers(0, 7, (rows, 1))


@settings(RELAXED, max_examples=200)
@given(
    drawn=mapped(INTEGER_PAIRS, family="data_toy"),
    heads=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
    share=st.sampled_from([1, 1, 2, 3]),
)
def test_engines_agree_on_time_by_codes(
    drawn: tuple[Plan, Accelerator], heads: int, seed: int, share: int
) -> None:
    plan, accelerator = drawn
    plan = replace(plan, batch=plan.batch * heads, weight_reuse=heads)
    timing = accelerator.element.data_timing(plan.weights, plan.activations)
    assert timing is not None
    data = DataRun(timing, RandomCodes(plan, seed, share))
    quick = fast.simulate_gemm(plan, "x", "gemm", data, trace=True)
    slow, _ = reference.simulate_gemm(plan, "x", "gemm", data=data, trace=True)
    check_equal(quick, slow)
    assert sum(quick.cycle_stack.values()) == quick.cycles
    assert replace(quick, intervals={}) == fast.simulate_gemm(plan, "x", "gemm", data)


@settings(RELAXED, max_examples=300)
@given(
    plan=plans(INTEGER_PAIRS + FLOAT_PAIRS, most=60),
    sequences=st.sampled_from([1, 2, 9]),
    heads=st.sampled_from([1, 3]),
)
def test_skipping_iterations_that_repeat_changes_nothing(plan: Plan, sequences: int, heads: int) -> None:
    """A trace takes every tile; without one, loops are skipped to their edges."""
    plan = replace(plan, batch=sequences * heads, weight_reuse=heads)
    every_tile = fast.simulate_gemm(plan, "x", "gemm", trace=True)
    skipping = fast.simulate_gemm(plan, "x", "gemm")
    assert replace(every_tile, intervals={}) == skipping


def test_a_long_periodic_schedule_costs_no_more_than_a_short_one() -> None:
    """2**28 tiles; one after the other they would take a minute."""
    data = description(mapping={"tile_m": 1, "tile_n": 1, "tile_k": 1, "order": "nmk"})
    plan = plan_gemm(gemm_workload(2**10, 2**8, 2**10).gemms[0], load_accelerator(data))
    record = fast.simulate_gemm(plan, "x", "gemm")
    short = fast.simulate_gemm(
        plan_gemm(gemm_workload(2**6, 2**8, 2**6).gemms[0], load_accelerator(data)), "x", "gemm"
    )
    assert sum(record.cycle_stack.values()) == record.cycles
    assert abs(record.cycles / 2**28 - short.cycles / 2**20) < 0.01


@RELAXED
@given(plan=plans(INTEGER_PAIRS + FLOAT_PAIRS, most=60))
def test_no_resource_alone_takes_longer_than_the_run(plan: Plan) -> None:
    record = fast.simulate_gemm(plan, "x", "gemm")
    if plan.array.initiation_interval == 1:
        assert max(record.resource_cycles.values()) <= record.cycles


@RELAXED
@given(plan=plans(INTEGER_PAIRS + FLOAT_PAIRS, most=60))
def test_cycle_stack_adds_up_and_macs_are_mkn(plan: Plan) -> None:
    record = fast.simulate_gemm(plan, "x", "gemm")
    assert sum(record.cycle_stack.values()) == record.cycles
    assert all(cycles >= 0 for cycles in record.cycle_stack.values())
    assert record.macs == plan.m * plan.k * plan.n * plan.batch
    # The step that follows a stream may enter a cycle after its last, so only ii = 1 makes tiling never quicker.
    assert record.cycles >= record.compute_cycles or plan.array.initiation_interval > 1


@RELAXED
@given(plan=plans(INTEGER_PAIRS + FLOAT_PAIRS, most=40))
def test_compiled_recurrence_equals_plain_function(plan: Plan) -> None:
    for trace in (True, False):
        plain = tile_recurrence.plain(*fast.prepare(plan, trace=trace))
        compiled = tile_recurrence(*fast.prepare(plan, trace=trace))
        for ours, theirs in zip(plain, compiled, strict=True):
            assert (ours == theirs).all()
