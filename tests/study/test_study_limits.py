"""Where a run ends: 64-bit time, and PEs slower than one step a cycle."""

from __future__ import annotations

import pytest

import simulator as sim


def test_peak_of_pes_that_start_a_step_every_few_cycles_is_a_fraction() -> None:
    changes = {"array.rows": 1, "array.cols": 2, "pe.initiation_interval": 3}
    report = sim.gemm(4, 8, 2, arch="systolic_os_8x8", **changes)
    product = next(layer.record for layer in report.layer_reports if layer.record.macs)
    assert product.peak_macs_per_cycle == 2 / 3
    assert report.utilization == pytest.approx(4 * 8 * 2 * 3 / (2 * product.cycles))
    assert report.utilization <= 1


def test_time_beyond_64_bits_is_refused_before_it_wraps() -> None:
    buffers = {f"buffers.{name}.kib": 2**16 for name in ("weights", "activations", "outputs")}
    one = {"array.rows": 1, "array.cols": 1, "pe.initiation_interval": 64}
    with pytest.raises(sim.InputError, match=r"takes at least \d{17} cycles .* 2\*\*54"):
        sim.gemm(2**17, 2**17, 2**16, arch="systolic_ws_8x8", **buffers, **one)


def test_the_reference_engine_refuses_what_would_take_it_days() -> None:
    with pytest.raises(
        sim.InputError, match=r"engine: gemm is \d+ cycles of PEs.*fast gives the same integers"
    ):
        sim.gemm(4096, 4096, 4096, arch="systolic_ws_32x32", engine="reference")
