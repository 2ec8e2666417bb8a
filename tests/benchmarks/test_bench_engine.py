"""Speed of mapping and engines. `pytest tests/benchmarks`; medians are what counts."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import simulator as sim
from simulator.array import schedule
from simulator.engine import accounts, fast, reference
from simulator.mapping import plan_gemm
from simulator.study.run import run_workload
from simulator.workload import Gemm, gemm_workload, load_workload

PEER = os.environ.get("SCALESIM_PYTHON")
"""An interpreter with scalesim 3.0.0, numpy 1.26 and pandas 2.2, for the comparison with SCALE-Sim."""


def map_and_simulate(operation: Gemm, accelerator: sim.Accelerator) -> int:
    """Nothing remembered from the round before."""
    schedule.fold_block.cache_clear()
    accounts.compute_cycles.cache_clear()
    return fast.simulate_gemm(plan_gemm(operation, accelerator), "gemm", "gemm").cycles


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_map_and_simulate_4096_cubed_on_128x128(benchmark: Any, dataflow: str) -> None:
    accelerator = sim.load_accelerator(f"systolic_{dataflow}_128x128")
    operation = gemm_workload(4096, 4096, 4096).gemms[0]
    assert benchmark(map_and_simulate, operation, accelerator) > 4096**3 // 128**2


def test_llama_2_7b_prefill_2048_on_128x128(benchmark: Any) -> None:
    accelerator = sim.load_accelerator("systolic_ws_128x128")

    def run() -> int:
        workload = load_workload("llama-2-7b", prefill=2048, weights="int8")
        return run_workload(workload, accelerator).cycles

    assert benchmark(run) > 0


def test_llama_2_7b_as_a_whole_process(benchmark: Any) -> None:
    command = [sys.executable, "-m", "simulator", "run", "llama-2-7b", "--arch", "systolic_ws_128x128"]
    command += ["--prefill", "2048", "--weights", "int8", "--json"]

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    benchmark.extra_info["peak_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def test_minilm_as_a_whole_process(benchmark: Any) -> None:
    command = [sys.executable, "-m", "simulator", "run", "minilm-l6", "--arch", "systolic_ws_32x32"]
    benchmark.pedantic(
        lambda: subprocess.run(command, check=True, capture_output=True), rounds=3, warmup_rounds=1
    )


def test_import_simulator(benchmark: Any) -> None:
    command = [sys.executable, "-c", "import simulator"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True), rounds=5, warmup_rounds=1)


@pytest.mark.skipif(PEER is None, reason="SCALESIM_PYTHON names no interpreter with scalesim 3.0.0")
def test_beside_scalesim(capsys: Any) -> None:
    """256 x 384 x 1536 on 32x32, all three in one run: ratios to SCALE-Sim's time."""
    assert PEER is not None
    size = ("256", "384", "1536", "32", "ws")
    script = Path(__file__).with_name("scalesim_peer.py")
    answer = subprocess.run(
        [PEER, str(script), *size], check=True, capture_output=True, text=True
    ).stdout.split()
    peer_seconds, peer_cycles = float(answer[-2]), int(answer[-1])
    operation = gemm_workload(256, 384, 1536).gemms[0]
    accelerator = sim.load_accelerator("systolic_ws_32x32")
    starved = sim.load_accelerator(
        "systolic_ws_32x32", {"dram.bandwidth_gb_per_s": 2, "buffers.weights.kib": 8}
    )

    def median(work: Any, rounds: int) -> float:
        if rounds > 1:
            work()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return sorted(times)[rounds // 2]

    plan = plan_gemm(operation, accelerator)

    def closed_form() -> None:
        schedule.fold_block.cache_clear()
        accounts.compute_cycles.cache_clear()
        accounts.compute_cycles(plan)

    assert accounts.compute_cycles(plan) == peer_cycles
    rows = [
        ("compute cycles alone, as SCALE-Sim's CALC mode", median(closed_form, 200)),
        ("mapping and fast engine", median(lambda: map_and_simulate(operation, accelerator), 50)),
        ("the same, starved of bandwidth (stalls)", median(lambda: map_and_simulate(operation, starved), 50)),
        (
            "reference engine, register by register",
            median(lambda: reference.simulate_gemm(plan, "gemm", "gemm"), 1),
        ),
    ]
    with capsys.disabled():
        print(f"\nSCALE-Sim {peer_seconds:.2f} s")
        for name, seconds in rows:
            print(f"  {name}: {seconds * 1e3:.3f} ms, {peer_seconds / seconds:,.1f} times faster")
    assert peer_seconds / rows[0][1] > 10_000
