"""Bit-serial and term-serial accelerators, from YAML to results: both engines, every count, exact sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator.arch import load_accelerator
from simulator.engine.fast import simulate_gemm
from simulator.engine.outputs import operands_of
from simulator.engine.reference import simulate_gemm as step_by_step
from simulator.engine.streams import DataRun
from simulator.formats import dequantize, quantize
from simulator.mapping import Plan, plan_gemm
from simulator.pe.serial import term_counts
from simulator.study.codes import OperandCodes
from simulator.workload import Workload, gemm_workload

MACHINES: dict[str, dict[str, Any]] = {
    "stripes": {},
    "loom": {},
    "loom, both dynamic": {"pe.dynamic_weights": True, "pe.group_vectors": 2, "pe.bits_per_cycle": 2},
    "shapeshifter": {},
    "shapeshifter, registers": {"pe.column_registers": 1, "pe.trim_zeros": True},
    "pragmatic": {},
    "pragmatic, as in its paper": {
        "pe.serial": "activations",
        "pe.bits_first_stage": 2,
        "pe.recoding": "booth_like",
        "pe.column_registers": 1,
    },
    "laconic": {},
    "bitlet": {},
    "bitwave": {},
    "bitvert": {},
}
FORMATS = {"bitwave": "bitflip3_g32", "bitvert": "bbs_zp4_g32"}
SMALL = {
    "array.rows": 3,
    "array.cols": 2,
    "pe.lanes": 8,
    "buffers.weights.kib": 2,
    "buffers.activations.kib": 2,
    "buffers.outputs.kib": 1,
}
"""Small enough that folds and tiles are many."""


def run(machine: str, engine: str, shape: tuple[int, int, int], **changes: Any) -> Any:
    name = machine.partition(",")[0]
    return sim.gemm(*shape, arch=name, engine=engine, **(SMALL | MACHINES[machine] | changes))


@pytest.mark.parametrize("machine", MACHINES)
@settings(max_examples=6, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 90), st.integers(1, 9)),
    width=st.sampled_from([32, 64, 512]),
    overlap=st.booleans(),
    holds=st.sampled_from(["m", "n"]),
)
def test_engines_agree_on_every_count(
    machine: str, shape: tuple[int, int, int], width: int, overlap: bool, holds: str
) -> None:
    changes = {
        "buffers.weights.width_bits": width,
        "buffers.activations.width_bits": width,
        "array.fold_overlap": overlap,
        "array.rows_hold": holds,
    }
    quick, slow = (run(machine, engine, shape, **changes) for engine in ("fast", "reference"))
    one, other = (report.layer_reports[0].record for report in (quick, slow))
    assert replace(one, intervals={}) == replace(other, intervals={})
    assert quick.energy_pj == slow.energy_pj
    assert sum(one.cycle_stack.values()) == one.cycles >= one.compute_cycles


@pytest.mark.parametrize(
    "name", ["stripes", "loom", "shapeshifter", "pragmatic", "laconic", "bitlet", "bitwave", "bitvert"]
)
def test_results_are_the_products_of_the_codes(name: str) -> None:
    accelerator = load_accelerator(name, SMALL)
    workload = gemm_workload(5, 70, 7, weights=FORMATS.get(name, "int8_channel"), activations="int8_token")
    plan = plan_gemm(workload.gemms[0], accelerator)
    random = np.random.default_rng(4)
    weights = quantize(random.normal(size=(7, 70)).astype(np.float32), plan.weights)
    activations = quantize(random.laplace(size=(5, 70)).astype(np.float32), plan.activations)
    operands = operands_of(plan, accelerator.element, weights, activations)
    _, results = step_by_step(plan, "x", "gemm", operands, data_of(workload, plan, accelerator))
    assert results is not None
    exact = dequantize(activations, np.float64) @ dequantize(weights, np.float64).T
    assert np.allclose(results[0], exact, rtol=1e-6, atol=1e-6)
    assert np.abs(exact).max() > 1


def data_of(workload: Workload, plan: Any, accelerator: Any) -> DataRun | None:
    timing = accelerator.element.data_timing(plan.weights, plan.activations)
    return (
        None
        if timing is None
        else DataRun(timing, OperandCodes(workload, workload.gemms[0], plan, accelerator))
    )


@pytest.mark.parametrize("name", ["pragmatic", "laconic"])
def test_terms_are_those_of_all_products(name: str) -> None:
    """Every activation meets every weight of its K once, whatever the folds."""
    accelerator = load_accelerator(name, SMALL)
    workload = gemm_workload(5, 70, 7, weights="int8_channel", activations="int8_token")
    plan = plan_gemm(workload.gemms[0], accelerator)
    data = data_of(workload, plan, accelerator)
    assert data is not None
    record = simulate_gemm(plan, "x", "gemm", data)
    a, w = (
        np.concatenate([data.codes.integers(side, block) for block in range(len(data.codes.which(side)))])
        for side in ("activations", "weights")
    )
    recoding = "booth_like" if name == "laconic" else "none"
    by_weight = term_counts(w, recoding).sum(axis=0)
    by_activation = term_counts(a, recoding).sum(axis=0) if name == "laconic" else np.full(70, 5)
    assert record.counts["pe", "term int8 x int8"] == int(by_weight @ by_activation)


@dataclass
class Constant:
    """Codes that are all alike."""

    value: int
    plan: Plan

    def which(self, side: str) -> Any:
        return np.zeros(1, np.intp)

    def share(self, side: str) -> float:
        return 1.0

    def integers(self, side: str, block: int) -> Any:
        rows = self.plan.n if side == "weights" else self.plan.m
        return np.full((rows, self.plan.k), self.value, np.int8)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("loom", 2 * 8, 8 * 8),
        ("shapeshifter", 2, 8),
        ("pragmatic", 1, 7),
        ("laconic", 1, 2 * 2),
        ("bitlet", 1, 8),
        ("bitwave", 1, 7),
    ],
)
def test_cycles_follow_the_codes_and_not_the_nominal_interval(name: str, least: int, most: int) -> None:
    """Codes of 0 and of 127, which has seven ones, and two terms as a difference; one tile, ports that keep up."""
    ports = {"buffers.weights.width_bits": 512, "buffers.activations.width_bits": 512}
    accelerator = load_accelerator(name, SMALL | ports | {"mapping.tile_k": 80})
    workload = gemm_workload(2, 80, 3, weights="int8", activations="int8")
    plan = plan_gemm(workload.gemms[0], accelerator)
    timing = accelerator.element.data_timing(plan.weights, plan.activations)
    quick, slow = (
        simulate_gemm(plan, "x", "gemm", DataRun(timing, Constant(value, plan))) for value in (0, 127)
    )
    assert (quick.cycle_stack["compute"], slow.cycle_stack["compute"]) == (10 * least, 10 * most)
    assert slow.cycles - quick.cycles == 10 * (most - least)
