"""A PE and the array it stands in: what does not go together is refused when the file is read."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

import simulator as sim
import simulator.pe
from simulator.arch import components, load_accelerator
from simulator.errors import InputError

BASE: dict[str, Any] = {
    "name": "x",
    "clock_ghz": 1.0,
    "array": {"dataflow": "broadcast", "rows": 2, "cols": 2},
    "buffers": {name: {"kib": 4} for name in ("weights", "activations", "outputs")},
    "vector": {"lanes": 2},
    "dram": {"bandwidth_gb_per_s": 1},
}


def test_a_pe_that_takes_no_pair_of_its_own_formats_is_refused() -> None:
    pe = {"family": "mac", "weights": ["fp8_e4m3"], "activations": ["int8"], "accumulator": "int32"}
    with pytest.raises(InputError, match=r"takes no pair of the formats it lists.*accumulator"):
        load_accelerator({**BASE, "pe": pe})


def test_scales_inside_need_stationary_outputs() -> None:
    pe = {"family": "block_dot", "weights": ["int8"], "activations": ["int8"], "lanes": 4, "scales": ["e8m0"]}
    assert load_accelerator({**BASE, "pe": pe})
    with pytest.raises(InputError, match=r"array\.dataflow.*found 'ws'.*allowed: os or broadcast"):
        load_accelerator({**BASE, "pe": pe, "array": {"dataflow": "ws", "rows": 2, "cols": 2}})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("no.such.module:PE", "cannot be loaded: ModuleNotFoundError"),
        ("fractions:Fraction", "lacks .*timing"),
        ("math:pi", "lacks"),
    ],
)
def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch, value: str, told: str) -> None:
    point = importlib.metadata.EntryPoint("theirs", value, "simulator.pe")
    monkeypatch.setattr(simulator.pe, "entry_points", lambda *, group: [point])
    pe = {"family": "theirs", "weights": ["int8"], "activations": ["int8"]}
    with pytest.raises(InputError, match=rf"entry point theirs.*{told}"):
        load_accelerator({**BASE, "pe": pe})


def test_tables_stand_where_activations_enter() -> None:
    """(M, N) = (2, 8) PEs either way: 2 lines of tables, 8 of keys."""
    found = {}
    for rows_hold, rows, cols in (("m", 2, 8), ("n", 8, 2)):
        changes = {"array.rows_hold": rows_hold, "array.rows": rows, "array.cols": cols}
        parts = components(load_accelerator("lut_tensor_core", changes))
        found[rows_hold] = {part.name: part.count for part in parts if part.name in ("pe", "table", "keys")}
    assert found["m"] == found["n"] == {"pe": 16, "table": 2, "keys": 8}


def test_what_the_operation_before_does_on_its_way_costs_energy_and_no_time() -> None:
    fused, unfused = (
        sim.gemm(512, 4096, 64, arch="lut_tensor_core", **{"pe.precompute": how})
        for how in ("fused", "unfused")
    )
    energies = [report.energy_by_component_pj["vector"] for report in (fused, unfused)]
    assert fused.cycles_by_cause["vector"] < unfused.cycles_by_cause["vector"]
    dynamic = [
        sum(
            entry.energy_pj for entry in report.layer_reports[0].entries if entry[:2] == ("vector", "operate")
        )
        for report in (fused, unfused)
    ]
    assert dynamic[0] == dynamic[1] > 0
    assert energies[0] < energies[1]
