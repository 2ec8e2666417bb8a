"""The shipped machines for mixed data types run networks in their papers' formats."""

from __future__ import annotations

import pytest

import simulator as sim

MACHINES = [
    ("bitmod", {"weights": "bitmod_fp4_g128", "activations": "fp16", "kv": "int8"}),
    ("bitmod", {"weights": "bitmod_fp3_g128", "activations": "fp16", "kv": "int8"}),
    ("bitmod", {"weights": "int6_g128_si8", "activations": "fp16", "kv": "int8"}),
    ("qserve", {"weights": "qserve_uint4_g128", "activations": "int8_token", "kv": "int4_token"}),
    ("dgq", {"weights": "int4_g128_si8_asym", "activations": "int8_token", "kv": "int4_token"}),
    ("mixllm", {"weights": "int4_g128_asym", "activations": "int8_g128", "kv": "int8"}),
    ("comet", {"weights": "int4_g128", "activations": "int8_g128", "kv": "int4_token"}),
    ("comet_w4a4", {"weights": "int4_g128", "activations": "int4_g128", "kv": "int4_token"}),
    ("finequant", {"weights": "int4_g128", "activations": "fp16", "kv": "fp16"}),
    ("zeroquant_fp", {"weights": "fp4_e2m1_g128_sm2", "activations": "fp8_e4m3_token", "kv": "fp8_e4m3"}),
    ("zeroquant_fp6", {"weights": "fp6_e3m2_channel", "activations": "fp16", "kv": "fp16"}),
    ("mixpe_w4a8", {"weights": "int4_g128_asym", "activations": "int8_token", "kv": "int4_token"}),
    ("mixpe_w4a16", {"weights": "int4_g128_asym", "activations": "fp16", "kv": "int4_token"}),
    ("figna", {"weights": "int4_g128", "activations": "fp16", "kv": "int8"}),
]


@pytest.mark.parametrize(("arch", "formats"), MACHINES)
@pytest.mark.parametrize("phase", [{"prefill": 256}, {"decode": 256}])
def test_two_layers_of_llama_2_7b(arch: str, formats: dict[str, str], phase: dict[str, int]) -> None:
    report = sim.run("llama-2-7b", arch, layers=2, **phase, **formats)
    assert report.energy_by_component_pj["pe"] > 0
    assert sum(report.cycles_by_cause.values()) == report.cycles
    assert 0 < report.layers["utilization"].max() <= 1


@pytest.mark.parametrize(("arch", "formats"), MACHINES)
def test_minilm_l6(arch: str, formats: dict[str, str]) -> None:
    report = sim.run("minilm-l6", arch, **formats)
    assert sum(report.cycles_by_cause.values()) == report.cycles


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "formats"), MACHINES)
@pytest.mark.parametrize("phase", [{"prefill": 256}, {"decode": 256}])
def test_all_of_llama_2_7b(arch: str, formats: dict[str, str], phase: dict[str, int]) -> None:
    report = sim.run("llama-2-7b", arch, **phase, **formats)
    assert sum(report.cycles_by_cause.values()) == report.cycles


def test_what_dequantizes_shows_under_its_name() -> None:
    bitmod = sim.run("llama-2-7b", "bitmod", layers=1, prefill=256, **MACHINES[0][1])
    assert {"weight_encoder", "dequantizer", "group_adder"} <= set(bitmod.energy_by_component_pj)
    mixllm = sim.run("llama-2-7b", "mixllm", layers=1, prefill=256, **MACHINES[5][1])
    assert {"weight_decoder", "rescale"} <= set(mixllm.energy_by_component_pj)
    figna = sim.run("llama-2-7b", "figna", layers=1, prefill=256, **MACHINES[13][1])
    assert {"prealigner", "rescale"} <= set(figna.energy_by_component_pj)


def test_halving_groups_never_lowers_the_energy_of_dequantization() -> None:
    shares = []
    for group in (256, 128, 64, 32):
        report = sim.gemm(64, 1024, 1024, arch="bitmod", weights=f"bitmod_fp4_g{group}", activations="fp16")
        energy = report.energy_by_component_pj
        shares.append(energy["dequantizer"] + energy["group_adder"])
    assert shares == sorted(shares)
