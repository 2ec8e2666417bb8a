"""What dequantization costs, by group size: the report's shares and the law that smaller groups never cost less."""

from __future__ import annotations

from itertools import pairwise

import pytest

import simulator as sim

GROUPS = (16, 32, 64, 128, 256)
MACHINES = {
    "systolic_ws_16x16": ("int4_g{}", "int8_token"),
    "systolic_os_16x16": ("int4_g{}_asym", "int8_token"),
    "dot_product_16x16x16": ("int4_g{}", "int8_token"),
    "mixpe_w4a8": ("int4_g{}_asym", "int8_token"),
    "figna": ("int4_g{}", "fp16"),
    "qserve": ("qserve_uint4_g{}", "int8_token"),
    "w4a16_dequantize": ("int4_g{}", "fp16"),
    "bitmod": ("bitmod_fp4_g{}", "fp16"),
    "lut_tensor_core": ("int2_g{}_asym", "int8_token"),
    "mx_dot_product": ("mxint8_b{}", "mxint8_b{}"),
}


@pytest.mark.parametrize("arch", MACHINES)
def test_halving_the_group_size_never_lowers_dequantization_work(arch: str) -> None:
    weights, activations = MACHINES[arch]
    reports = [
        sim.gemm(64, 512, 96, arch=arch, weights=weights.format(group), activations=activations.format(group))
        for group in GROUPS
    ]
    for finer, coarser in pairwise(reports):
        fine, coarse = finer.layer_reports[0], coarser.layer_reports[0]
        dynamic = [
            sum(entry.energy_pj for entry in layer.entries if entry.dequantizes and entry.event != "leakage")
            for layer in (fine, coarse)
        ]
        assert dynamic[0] >= dynamic[1]
        assert fine.record.cycle_stack["dequantization"] >= coarse.record.cycle_stack["dequantization"]


def test_shares_are_parts_of_cycles_energy_and_area() -> None:
    report = sim.gemm(64, 512, 96, arch="systolic_os_16x16", weights="int4_g16", activations="int8_token")
    shares = report.dequantization_shares
    layer = report.layer_reports[0]
    assert shares["cycles"] == layer.record.cycle_stack["dequantization"] / layer.record.cycles
    assert shares["energy"] == pytest.approx(report.energy_by_component_pj["rescale"] / report.energy_pj)
    assert shares["area"] == pytest.approx(report.area_by_component_um2["rescale"] / report.area_um2)
    assert report.layers["dequantization_pj"].sum() == pytest.approx(shares["energy"] * report.energy_pj)
    assert "dequantization" in report.text()
