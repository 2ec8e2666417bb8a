"""Accelerators of look-up tables and bit-planes on whole networks, in the formats of their papers."""

from __future__ import annotations

from typing import Any

import pytest

import simulator as sim

MACHINES = {
    "lut_tensor_core": {"weights": "ternary", "activations": "int8_token", "kv": "int8_token"},
    "lut_tensor_core_fp16": {"weights": "int2_g128_asym", "activations": "fp16", "kv": "int8_token"},
    "figlut": {"weights": "int4_g128_asym", "activations": "fp16", "kv": "int4_token"},
    "figlut_i": {"weights": "int4_g128_asym", "activations": "fp16", "kv": "int4_token"},
    "t_mac": {"weights": "int4_g128_asym", "activations": "fp16", "kv": "int4_token"},
    "bismo": {"weights": "int2_channel", "activations": "int2_token", "kv": "int2_token"},
    "abq_llm": {"weights": "int2_channel_asym", "activations": "int8_token", "kv": "int8_token"},
    "apt_llm": {"weights": "int2_channel", "activations": "int2_token", "kv": "int2_token"},
    "flexq": {"weights": "int6_g128", "activations": "int6_token", "kv": "int6_token"},
}
PHASES = ({"prefill": 256}, {"decode": 256})


def check(report: Any) -> None:
    """Layers sum to the total, and what stands beside the PEs shows under its name."""
    assert report.cycles == sum(report.cycles_by_cause.values()) > 0
    assert sum(layer.record.cycles for layer in report.layer_reports) == report.cycles
    energy = report.energy_by_component_pj
    family = sim.load_accelerator(report.meta["arch"]).element.family
    beside = {
        "lut": {"table", "keys"},
        "figlut": {"table", "table_generator", "plane_adders"},
        "bit_plane": set(),
    }
    assert all(energy[component] > 0 for component in beside[family] | {"pe"})


@pytest.mark.parametrize("name", MACHINES)
def test_two_layers_of_llama_run(name: str) -> None:
    for phase in PHASES:
        check(sim.run("llama-2-7b", name, layers=2, **phase, **MACHINES[name]))


@pytest.mark.parametrize("name", MACHINES)
def test_minilm_runs(name: str) -> None:
    check(sim.run("minilm-l6", name, **MACHINES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_all_of_llama_runs(name: str) -> None:
    for phase in PHASES:
        check(sim.run("llama-2-7b", name, **phase, **MACHINES[name]))


def test_fewer_planes_are_faster_in_proportion() -> None:
    """In compute cycles of a GEMM whose folds are all long: b cycles for weights of b bits."""
    compute = {
        bits: sim.gemm(
            64,
            4096,
            4096,
            arch="lut_tensor_core",
            weights=f"int{bits}_channel_asym",
            activations="int8_token",
        )
        .layer_reports[0]
        .record.cycle_stack["compute"]
        for bits in (2, 3, 4, 8)
    }
    assert {bits: cycles / compute[2] for bits, cycles in compute.items()} == {2: 1, 3: 1.5, 4: 2, 8: 4}


def test_smaller_groups_never_lower_the_work_of_dequantization() -> None:
    work = [
        sim.gemm(
            64, 1024, 4096, arch="lut_tensor_core", weights=f"int4_g{size}_asym", activations="int8_token"
        )
        .layer_reports[0]
        .record.counts["rescale", "rescale"]
        for size in (256, 128, 64, 32)
    ]
    assert work == [64 * 4096 * (1024 // size) for size in (256, 128, 64, 32)]
