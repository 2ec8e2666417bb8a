"""Whole arrays of serial PEs compute for as many cycles as the machines' own simulators count.

DNNsim (github.com/isakedo/DNNsim, 4748a60) on convolutions, where no column registers carry time from one set of
windows to the next, and BitSim's Bitlet (github.com/yc2367/BitSim, 6845fad) on linear layers (docs/bit-serial.md).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import replay

from simulator.arch import load_accelerator
from simulator.engine.fast import simulate_gemm
from simulator.engine.streams import DataRun
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

DATA = Path(__file__).parents[1] / "data" / "bitserial"
LAYERS = replay.read_layers(DATA / "inputs.npz")
FAMILIES = {
    "Stripes": "stripes",
    "Loom": "loom",
    "ShapeShifter": "shapeshifter",
    "BitPragmatic": "pragmatic",
    "Laconic": "laconic",
}


@dataclass
class Blocks:
    """Operands as matrices (rows, k), cut into what a fold holds."""

    operands: dict[str, Any]
    held: dict[str, int]

    def which(self, side: str) -> Any:
        return np.arange(-(-len(self.operands[side]) // self.held[side]))

    def share(self, side: str) -> float:
        return 1.0

    def integers(self, side: str, block: int) -> Any:
        return self.operands[side][block * self.held[side] : (block + 1) * self.held[side]]


def compute(
    activations: Any, weights: Any, bits: tuple[int, int], rows: int, cols: int, pe: dict[str, Any]
) -> int:
    """Cycles of the PEs for activations (m, k) and weights (n, k); an operand without negative values is unsigned."""
    names = [
        f"{'int' if operand.min() < 0 else 'uint'}{width}"
        for operand, width in zip((activations, weights), bits, strict=True)
    ]
    data = {
        "name": "replayed",
        "clock_ghz": 1.0,
        "array": {"dataflow": "broadcast", "rows": rows, "cols": cols, "rows_hold": "n"},
        "pe": {"activations": names[0], "weights": names[1], **pe},
        "buffers": {
            name: {"kib": 1024, "banks": 2, "width_bits": 1 << 16, "ports": "1r1w"}
            for name in ("weights", "activations", "outputs")
        },
        "vector": {"lanes": 4},
        "dram": {"bandwidth_gb_per_s": 64.0, "latency_ns": 5},
    }
    accelerator = load_accelerator(data)
    workload = gemm_workload(
        len(activations), activations.shape[1], len(weights), activations=names[0], weights=names[1]
    )
    plan = plan_gemm(workload.gemms[0], accelerator)
    timing = accelerator.element.data_timing(plan.weights, plan.activations)
    codes = Blocks({"activations": activations, "weights": weights}, {"activations": cols, "weights": rows})
    record = simulate_gemm(plan, "x", "gemm", None if timing is None else DataRun(timing, codes))
    return record.cycle_stack["compute"]


def cases(simulator: str) -> list[dict[str, str]]:
    with (DATA / f"{simulator}_cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def parameters(row: dict[str, str]) -> dict[str, Any]:
    """Of the PE that a row of DNNsim's counts is about."""
    family = FAMILIES[row["architecture"]]
    recoding = "booth_like" if row["booth_encoding"] == "True" else "none"
    pe: dict[str, Any] = {"family": family, "lanes": int(row["lanes"])}
    if family == "pragmatic":
        return pe | {"recoding": recoding, "bits_first_stage": int(row["bits_first_stage"])}
    if family == "laconic":
        return pe | {"recoding": recoding}
    if family in ("loom", "shapeshifter"):
        pe |= {"group_vectors": int(row["group_size"]), "trim_zeros": row["minor_bit"] == "True"}
    if family == "loom":
        pe |= {
            "bits_per_cycle": int(row["pe_serial_bits"]),
            "dynamic_weights": row["dynamic_weights"] == "True",
        }
    return pe


@pytest.mark.parametrize("network", ["uni8", "lap8", "max8", "prof"])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_convolutions_compute_as_long_as_dnnsim_counts(network: str, architecture: str) -> None:
    layer = LAYERS[network, "conv1"]
    checked = 0
    for row in cases("dnnsim"):
        wanted = (row["network"], row["layer"], row["architecture"]) == (network, "conv1", architecture)
        if (
            not wanted
            or row["tactical"] == "True"
            or int(row["column_registers"] or 0)
            or row["tiles"] != "1"
        ):
            continue
        lanes = int(row["lanes"])
        a, w = (of(layer, lanes) for of in (replay._windows, replay._filters))
        found = compute(
            a.reshape(len(a), -1),
            w.reshape(len(w), -1),
            (layer.activation_bits, layer.weight_bits),
            int(row["rows"]),
            int(row["columns"]),
            parameters(row),
        )
        assert found == int(row["compute_cycles"]), row
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("network", ["uni8", "lap8"])
def test_linear_layers_compute_as_long_as_bitsim_counts_for_bitlet(network: str) -> None:
    weights = LAYERS[network, "fc1"].weights
    checked = 0
    for row in cases("bitsim"):
        if (row["network"], row["layer"], row["arch"]) == (network, "fc1", "Bitlet"):
            activations = np.ones((int(row["tokens"]), weights.shape[1]), np.int64)
            pe = {"family": "bitlet", "lanes": int(row["group"])}
            rows, cols = int(row["rows"]), int(row["cols"])
            found = compute(activations, weights, (8, 8), rows, cols, pe)
            assert found == int(row["compute_cycles"]), row
            checked += 1
    assert checked >= 2
