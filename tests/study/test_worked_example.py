"""The numbers of docs/worked-example.md, derived there by hand, held against both engines and the report.

They are literals: nothing here is computed the way the simulator computes it. The last tests hold the page to
them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import simulator as sim
from simulator.arch import load_accelerator
from simulator.array.schedule import fold_block
from simulator.engine import fast, reference
from simulator.engine.record import LayerRecord, expand
from simulator.mapping import Plan, plan_gemm
from simulator.report import Report
from simulator.workload import gemm_workload

PAGE = (Path(__file__).parents[2] / "docs" / "worked-example.md").read_text(encoding="utf-8")

MACHINE = """\
name: by_hand
clock_ghz: 1.0
technology: published_45nm
array: {dataflow: ws, rows: 4, cols: 4, rescale_per_cycle: 0.5}
pe: {family: mac, weights: int4, activations: int8, accumulator: int32}
buffers:
  weights:     {kib: 0.125, banks: 2, width_bits: 16}
  activations: {kib: 0.25, banks: 2, width_bits: 32}
  outputs:     {kib: 1, banks: 2, width_bits: 128, ports: 1r1w}
vector: {lanes: 4}
dram: {bandwidth_gb_per_s: 0.9, latency_ns: 7.5, device: lpddr4}
mapping: {tile_m: 6, tile_n: 4, tile_k: 8, order: nmk}
"""

TRANSFERS = {
    "W0": (0, 36, 36),
    "A0": (36, 56, 92),
    "W1": (92, 36, 128),
    "W2": (133, 18, 151),
    "O0": (151, 54, 205),
    "O1": (205, 54, 259),
    "O2": (259, 27, 286),
}
"""Bus start, cycles, bus end; in the order of the DMA program."""
TILES = {"0": (100, 33, 133), "1": (136, 33, 169), "2": (205, 31, 236)}
"""Start, cycles, end."""
FOLD_CYCLES = {
    "preload": (4, 4),
    "I, first step to last": (11, 11),
    "stream": (12, 12),
    "one fold alone": (21, 19),
    "tail": (5, 3),
}
"""With four columns and with two."""
CYCLES, COMPUTE_CYCLES = 286, 79
STACK = {
    "compute": 36,
    "fill_drain": 25,
    "dequantization": 36,
    "wait_weights": 3,
    "wait_activations": 100,
    "wait_writeback": 86,
}
"""In the order of the page's columns."""
ALONE = {"compute": 36, "dram": 281, "sram": 68, "fill": 25, "vector": 30}
BUFFERS_ALONE = {
    "weights alone": (24, 16, 16, 24),
    "activations alone": (36, 32, 32, 36),
    "outputs alone": (36, 128, 128, 36),
}
"""Accesses by the array, their width, bits a cycle, cycles."""
DMA_ALONE = (16, 16, 8, 13, 6, 6, 3)
"""Cycles of each transfer at a buffer's port; the largest of these together and of the buffers is "sram"."""
READ_BYTES = {"weights": 80, "activations": 50}
WRITTEN_BYTES = {"outputs": 120}
EVENTS = {
    ("pe", "mac int4 x int8"): (480, 0.100797, 48.383),
    ("pe", "step int4 x int8"): (480, 0.459980, 220.790),
    ("pe", "idle"): (4096, 0.380953, 1560.383),
    ("pe", "preload int4 x int8"): (80, 0.035998, 2.880),
    ("skew", "shift_bit"): (7136, 0.008999495, 64.220),
    ("rescale", "rescale"): (120, 5.463952, 655.674),
    ("vector", "scale"): (120, 4.563952, 547.674),
    ("weights_buffer", "read"): (44, 0.329291, 14.489),
    ("weights_buffer", "write"): (40, 0.426732, 17.069),
    ("activations_buffer", "read"): (36, 0.621263, 22.365),
    ("activations_buffer", "write"): (13, 0.816144, 10.610),
    ("outputs_buffer", "read"): (33, 4.02566, 132.847),
    ("outputs_buffer", "write"): (36, 5.10284, 183.702),
    ("dram", "read_bit"): (1040, 8.5, 8840),
    ("dram", "write_bit"): (960, 5.1, 4896),
}
"""Count, pJ each, pJ in all."""
SILICON = {
    "pe": (16, 574.405534, 9190.489, 6943.234, 31.772241),
    "skew": (1, 1579.098312, 1579.098, 19523.624, 5.583756),
    "output_adders": (4, 137, 548, 1817.680, 2.079426),
    "rescale": (2, 20158.217568, 40316.435, 170056.687, 97.272425),
    "weights_buffer": (1, 644.998, 644.998, 6.62112, 0.001894),
    "activations_buffer": (1, 1300.202, 1300.202, 11.08454, 0.003170),
    "outputs_buffer": (1, 18082.6, 18082.6, 50.08, 0.014323),
    "vector": (4, 12458.217568, 49832.870, 103937.480, 118.904477),
}
"""Instances, um2 each, um2 in all, nW each, leakage of the GEMM in pJ."""
GEMM_PJ = (17217.087, 255.632, 17472.718)
"""Dynamic, leakage, both."""
AREA_UM2 = 121494.692
UTILIZATION, COMPUTE_UTILIZATION = 0.104895, 0.379747

LAST_DIGIT = {"abs": 0.00051, "rel": 0}
"""Energies and areas of the page have three decimals."""
SIX_DIGITS = {"abs": 5.1e-7, "rel": 0}


@pytest.fixture(scope="module")
def plan() -> Plan:
    workload = gemm_workload(6, 8, 10, weights="int4_g4", activations="int8", output="fp16")
    return plan_gemm(workload.gemms[0], load_accelerator(yaml.safe_load(MACHINE)))


@pytest.fixture(scope="module", params=["fast", "reference"])
def record(request: pytest.FixtureRequest, plan: Plan) -> LayerRecord:
    if request.param == "fast":
        return fast.simulate_gemm(plan, "gemm", "gemm", trace=True)
    return reference.simulate_gemm(plan, "gemm", "gemm", trace=True)[0]


@pytest.fixture(scope="module", params=["fast", "reference"])
def report(request: pytest.FixtureRequest) -> Report:
    arch: dict[str, Any] = yaml.safe_load(MACHINE)
    return sim.gemm(
        6, 8, 10, arch=arch, weights="int4_g4", activations="int8", output="fp16", engine=request.param
    )


def test_transfers_start_and_end_as_derived(record: LayerRecord) -> None:
    assert list(expand(record.intervals["dma"])) == [(start, end) for start, _, end in TRANSFERS.values()]


def test_tiles_start_and_end_as_derived(record: LayerRecord) -> None:
    assert list(expand(record.intervals["array"])) == [(start, end) for start, _, end in TILES.values()]


def test_folds_take_the_derived_cycles(plan: Plan) -> None:
    tile = plan.k_tile(0).runs
    chunks = [chunk for run in tile for chunk in run.pattern * run.count]
    assert len(chunks) == 2
    for chunk in chunks:
        folds = [fold_block(plan.array, plan.demand, 4, c, chunk, 6) for c in (4, 2)]
        found = {
            "preload": tuple(fold.load for fold in folds),
            "I, first step to last": tuple(fold.first_issue for fold in folds),
            "stream": tuple(fold.stream for fold in folds),
            "one fold alone": tuple(fold.load + fold.end for fold in folds),
            "tail": tuple(fold.end - fold.stream for fold in folds),
        }
        assert found == FOLD_CYCLES


def test_every_cycle_has_the_derived_cause(record: LayerRecord) -> None:
    assert record.cycles == CYCLES
    assert {cause: cycles for cause, cycles in record.cycle_stack.items() if cycles} == STACK


def test_array_alone_takes_the_derived_cycles(record: LayerRecord) -> None:
    assert record.compute_cycles == COMPUTE_CYCLES
    assert (record.macs, record.peak_macs_per_cycle) == (480, 16)


def test_resources_alone_take_the_derived_cycles(record: LayerRecord) -> None:
    assert record.resource_cycles == ALONE
    busiest = max(cycles for *_, cycles in BUFFERS_ALONE.values())
    assert record.resource_cycles["sram"] == max(busiest, sum(DMA_ALONE))


def test_bytes_are_as_derived(record: LayerRecord) -> None:
    assert record.dram_read_bytes == READ_BYTES
    assert record.dram_write_bytes == WRITTEN_BYTES


def test_events_are_as_derived_and_there_are_no_others(record: LayerRecord) -> None:
    assert record.counts == {event: count for event, (count, _, _) in EVENTS.items()}


def test_energy_of_every_event_is_as_derived(report: Report) -> None:
    (gemm,) = report.layer_reports
    found = {(entry.component, entry.event): entry for entry in gemm.entries if entry.event != "leakage"}
    assert found.keys() == EVENTS.keys()
    priced = {component.priced.name: component.priced for component in report.component_reports}
    for (name, event), (count, each, energy) in EVENTS.items():
        assert found[name, event].counted == count
        assert priced[name].energy_pj[event] == pytest.approx(each, **SIX_DIGITS), (name, event)
        assert found[name, event].energy_pj == pytest.approx(energy, **LAST_DIGIT), (name, event)
    assert sum(entry.energy_pj for entry in found.values()) == pytest.approx(GEMM_PJ[0], **LAST_DIGIT)


def test_area_and_leakage_of_every_component_are_as_derived(report: Report) -> None:
    silicon = {c.priced.name: c for c in report.component_reports if c.priced.silicon}
    (gemm,) = report.layer_reports
    leaked = {entry.component: entry.energy_pj for entry in gemm.entries if entry.event == "leakage"}
    assert silicon.keys() == leaked.keys() == SILICON.keys()
    for name, (instances, each_um2, all_um2, leakage_nw, leakage_pj) in SILICON.items():
        component = silicon[name]
        assert component.priced.count == instances
        assert component.priced.area_um2 == pytest.approx(each_um2, **SIX_DIGITS), name
        assert component.area_um2 == pytest.approx(all_um2, **LAST_DIGIT), name
        assert component.priced.leakage_nw == pytest.approx(leakage_nw, **LAST_DIGIT), name
        assert leaked[name] == pytest.approx(leakage_pj, **SIX_DIGITS), name
    assert sum(leaked.values()) == pytest.approx(GEMM_PJ[1], **LAST_DIGIT)


def test_run_is_the_one_layer_with_the_derived_totals(report: Report) -> None:
    (gemm,) = report.layer_reports
    assert gemm.record.name == "gemm"
    assert gemm.record.cycles == report.cycles == CYCLES
    assert gemm.energy_pj == pytest.approx(GEMM_PJ[2], **LAST_DIGIT)
    assert report.energy_pj == pytest.approx(GEMM_PJ[2], **LAST_DIGIT)
    assert report.area_um2 == pytest.approx(AREA_UM2, **LAST_DIGIT)
    assert gemm.utilization == pytest.approx(UTILIZATION, **SIX_DIGITS)
    assert gemm.compute_utilization == pytest.approx(COMPUTE_UTILIZATION, **SIX_DIGITS)
    assert gemm.bound == "dram"


def test_page_shows_this_machine() -> None:
    assert f"```yaml\n{MACHINE}```" in PAGE


def _rows() -> list[tuple[str, tuple[float, ...]]]:
    """What each row of the page begins with, and the numbers that stand in it in this order."""
    rows: list[tuple[str, tuple[float, ...]]] = [
        *TRANSFERS.items(),
        *((name, cycles) for name, cycles in TILES.items()),
        *((name, cycles) for name, cycles in FOLD_CYCLES.items()),
        *((f"{name} | {event}", numbers) for (name, event), numbers in EVENTS.items()),
        *SILICON.items(),
        *((f"{name} read", (count,)) for name, count in READ_BYTES.items()),
        *((f"{name} written", (count,)) for name, count in WRITTEN_BYTES.items()),
        (str(CYCLES), tuple(STACK.values())),
        ("cycles", (CYCLES,)),
        ("MACs", (480,)),
        ("peak MACs", (16,)),
        ("utilization", (CYCLES, UTILIZATION)),
        ("compute_utilization", (COMPUTE_CYCLES, COMPUTE_UTILIZATION)),
        ("compute alone", (ALONE["compute"],)),
        ("DRAM alone", (ALONE["dram"],)),
        ("SRAM alone", (ALONE["sram"],)),
        ("fill alone", (ALONE["fill"],)),
        ("vector alone", (ALONE["vector"],)),
        ("DMA alone", (sum(DMA_ALONE),)),
        *BUFFERS_ALONE.items(),
        ("sum", (GEMM_PJ[0],)),
        ("sum", (AREA_UM2,)),
        ("energy, pJ", GEMM_PJ),
        ("area, um2", (AREA_UM2,)),
    ]
    return rows


@pytest.mark.parametrize(("label", "numbers"), _rows())
def test_numbers_of_the_test_stand_in_a_row_of_the_page(label: str, numbers: tuple[float, ...]) -> None:
    start = f"| {label}"
    rows = [line.removeprefix(start) for line in PAGE.splitlines() if line.startswith(start)]
    assert any(_occur_in_order(numbers, row) for row in rows)


def _occur_in_order(numbers: tuple[float, ...], row: str) -> bool:
    shown = iter(float(text) for text in re.findall(r"\d+(?:\.\d+)?", row))
    return all(any(number == other for other in shown) for number in numbers)
