"""How long prices and reports take, for a run of 500 layers: a large language model, block by block."""

from __future__ import annotations

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

import simulator.hardware
from simulator.engine.record import LayerRecord, Record
from simulator.hardware import Component, Part, load_technology
from simulator.report import META_KEYS, Report, make_report

BUFFERS = ("weights", "activations", "outputs")
COMPONENTS = (
    Component(
        name="pe",
        kind="mac",
        params={},
        count=1024,
        parts=(Part("multiplier", "int_multiplier", {"a_bits": 8, "b_bits": 4}),),
        events={"mac": {("multiplier", "operate"): 1}},
    ),
    *(Component(name, "sram", {"bytes": 1 << 17, "width_bits": 256, "banks": 2}) for name in BUFFERS),
    Component("dram", "dram", {"device": "ddr4"}),
)
LAYER = LayerRecord(
    name="layers.0.gate_proj",
    op="matmul",
    m=512,
    k=4096,
    n=11008,
    batch=1,
    cycles=30_000_000,
    compute_cycles=25_000_000,
    macs=512 * 4096 * 11008,
    peak_macs_per_cycle=1024,
    cycle_stack={"compute": 24_000_000, "fill_drain": 1_000_000, "wait_weights": 5_000_000},
    counts={("pe", "mac"): 512 * 4096 * 11008}
    | {(name, event): 10**6 for name in BUFFERS for event in ("read", "write")}
    | {("dram", "read_bit"): 10**9, ("dram", "write_bit"): 10**8},
    dram_read_bytes={"weights": 10**8, "activations": 10**7},
    dram_write_bytes={"outputs": 10**7},
    resource_cycles={"compute": 24_000_000, "dram": 28_000_000},
)
RUN = Record("fast", (LAYER,) * 500)
META = dict.fromkeys(META_KEYS, "") | {"phase": {}, "formats": {}, "config": {}}


def report() -> Report:
    return make_report(RUN, COMPONENTS, load_technology("published_45nm"), clock_ghz=1.0, meta=META)


def test_bench_load_a_technology(benchmark: BenchmarkFixture) -> None:
    path = Path(simulator.hardware.__file__).parent / "technologies" / "published_45nm.yaml"
    benchmark(lambda: load_technology(path))


def test_bench_report_500_layers(benchmark: BenchmarkFixture) -> None:
    benchmark(report)


def test_bench_json_of_500_layers(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: report().to_json())


def test_bench_text_of_500_layers(benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: report().text())
