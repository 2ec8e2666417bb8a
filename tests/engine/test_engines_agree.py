"""Two engines, one truth: every integer of the fast engine is the reference engine's."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from machines import FLOAT_PAIRS, INTEGER_PAIRS, plans

from simulator.engine import fast, reference
from simulator.engine.record import expand
from simulator.mapping import Plan

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
    for field in FIELDS:
        assert getattr(quick, field) == getattr(slow, field), field
    for resource in ("array", "dma"):
        assert list(expand(quick.intervals[resource])) == list(expand(slow.intervals[resource]))


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
    plain = fast.tile_recurrence.plain(*fast.prepare(plan, trace=True))
    compiled = fast.tile_recurrence(*fast.prepare(plan, trace=True))
    for ours, theirs in zip(plain, compiled, strict=True):
        assert (ours == theirs).all()
