"""Energy is the sum of its parts, whichever way it is summed; a record that contradicts itself is refused."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_inputs import COMPONENTS, EVENTS, layer, meta, record

from simulator.engine.record import STACK_KEYS, LayerRecord, Record
from simulator.errors import InputError
from simulator.hardware import QUALITIES, Component, PricedComponent, load_technology
from simulator.report import Report, make_report
from simulator.report.ledger import bound, check_clock


def report_of(run: Record, clock_ghz: float = 1.0, **options: object) -> Report:
    return make_report(
        run, COMPONENTS, load_technology("published_45nm"), clock_ghz=clock_ghz, meta=meta(), **options
    )


@st.composite
def layers(draw: st.DrawFn) -> LayerRecord:
    stack = draw(st.dictionaries(st.sampled_from(STACK_KEYS), st.integers(0, 10**10), min_size=1))
    counts = draw(st.dictionaries(st.sampled_from(EVENTS), st.integers(0, 10**14)))
    return layer(cycle_stack=stack, cycles=sum(stack.values()), counts=counts)


records = st.lists(layers(), min_size=1, max_size=8).map(lambda found: Record("fast", tuple(found)))


@given(records, st.floats(0.1, 4.0))
@settings(max_examples=60, deadline=None)
def test_energy_is_the_sum_of_layers_and_of_components_and_of_entries(run: Record, clock_ghz: float) -> None:
    report = report_of(run, clock_ghz)
    by_layer = math.fsum(one.energy_pj for one in report.layer_reports)
    by_component = math.fsum(report.energy_by_component_pj.values())
    by_entry = math.fsum(entry.energy_pj for one in report.layer_reports for entry in one.entries)
    assert by_layer == report.energy_pj
    assert by_component == pytest.approx(report.energy_pj, rel=1e-12)
    assert by_entry == pytest.approx(report.energy_pj, rel=1e-12)


@given(records)
@settings(max_examples=60, deadline=None)
def test_cycle_stack_of_the_run_sums_to_its_cycles(run: Record) -> None:
    report = report_of(run)
    assert sum(report.cycles_by_cause.values()) == report.cycles == run.cycles


@given(records)
@settings(max_examples=60, deadline=None)
def test_shares_by_quality_sum_to_one_and_name_known_qualities(run: Record) -> None:
    report = report_of(run)
    for shares in (report.energy_share_by_quality, report.area_share_by_quality):
        assert set(shares) <= set(QUALITIES)
        assert not shares or sum(shares.values()) == pytest.approx(1.0, rel=1e-12)


@given(records, st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_repeating_a_run_multiplies_its_energy(run: Record, times: int) -> None:
    once, often = report_of(run), report_of(Record("fast", run.layers * times))
    assert often.energy_pj == pytest.approx(times * once.energy_pj, rel=1e-12)
    assert often.cycles == times * once.cycles


def test_energy_of_a_layer_is_counts_times_prices_plus_leakage_over_its_cycles() -> None:
    technology = load_technology("published_45nm")
    run = Record("fast", (layer(cycles=1000, cycle_stack={"compute": 1000}, counts={("pe", "mac"): 7}),))
    report = report_of(run, clock_ghz=2.0)
    prices = {component.name: technology.price(component) for component in COMPONENTS}
    # 1000 cycles of 0.5 ns; 1 nW for 1 ns is 1e-6 pJ.
    leakage = sum(p.count * p.leakage_nw * 500e-6 for p in prices.values())
    expected = 7 * prices["pe"].energy_pj["mac"] + leakage
    assert report.energy_pj == pytest.approx(expected, rel=1e-12)
    assert report.component_reports[0].leakage_pj == pytest.approx(256 * prices["pe"].leakage_nw * 5e-4)
    assert report.latency_s == pytest.approx(5e-7)


def test_leakage_runs_over_all_cycles_and_halves_when_the_clock_doubles() -> None:
    slow, fast = report_of(record(), 1.0), report_of(record(), 2.0)
    for before, after in zip(slow.component_reports, fast.component_reports, strict=True):
        assert after.leakage_pj == pytest.approx(before.leakage_pj / 2)
        assert after.energy_by_event_pj == before.energy_by_event_pj


def test_area_counts_every_instance_and_leaves_dram_out() -> None:
    report = report_of(record())
    one = load_technology("published_45nm").price(COMPONENTS[0])
    assert report.area_by_component_um2["pe"] == 256 * one.area_um2
    assert "dram" not in report.area_by_component_um2
    assert report.area_um2 == pytest.approx(sum(report.area_by_component_um2.values()))


@pytest.mark.parametrize(
    ("stack", "problem"),
    [
        ({"compute": 399}, "sums to 399, the layer takes 400"),
        ({"compute": 401, "fill_drain": -1}, "-1 cycles"),
        ({"computing": 400}, "no cause"),
    ],
)
def test_cycle_stack_that_does_not_hold_is_a_fault_of_the_engine(stack: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        report_of(Record("fast", (layer(cycle_stack=stack),)))


@pytest.mark.parametrize("key", [("pe", "sleep"), ("cache", "read")])
def test_counted_event_without_a_price_is_an_error_and_never_zero(key: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=f"no price for event '{key[1]}' of component '{key[0]}'"):
        report_of(Record("fast", (layer(counts={key: 1}),)))


def test_unit_slower_than_the_clock_is_an_error_and_a_slow_memory_is_not(tmp_path) -> None:
    table = tmp_path / "mine.csv"
    header = "kind,params,quantity,event,value,node_nm,vdd,temperature_c,quality,source,note\n"
    rows = [("area_um2", "", 100), ("leakage_nw", "", 5), ("delay_ps", "", 800), ("energy_pj", "mac", 0.3)]
    lines = [
        f"my_pe,lanes=4,{quantity},{event},{value},45,,,synthesised,me,\n" for quantity, event, value in rows
    ]
    table.write_text(header + "".join(lines))
    technology = load_technology({"base": "published_45nm", "tables": [str(table)]})
    unit = Component("pe", "my_pe", {"lanes": 4}, events={"mac": {}})
    run = Record("fast", (layer(counts={("pe", "mac"): 1}),))
    slow_memory = Component("buffer", "sram", {"bytes": 1 << 22, "width_bits": 512})
    assert technology.price(slow_memory).delay_ps > 800
    make_report(run, [unit, slow_memory], technology, clock_ghz=1.25, meta=meta())
    with pytest.raises(InputError, match="component pe takes 800 ps, longer than a cycle"):
        make_report(run, [unit], technology, clock_ghz=1.26, meta=meta())


def test_the_clock_that_is_named_is_met_by_all_units() -> None:
    def priced(name: str, delay_ps: float) -> PricedComponent:
        return PricedComponent(name, "my_pe", 1, 1.0, 1.0, {}, delay_ps, "", "", {}, (), {})

    units = [priced("pe", 969.332), priced("rescale", 1642.33), priced("vector", 800)]
    with pytest.raises(InputError, match=r"component rescale takes 1642\.33 ps") as refused:
        check_clock(units, 1.0)
    assert refused.value.allowed == "at most 0.6088 GHz with this technology"
    check_clock(units, 0.6088)


def test_bound_is_the_resource_with_the_highest_lower_bound() -> None:
    assert bound(layer(resource_cycles={"compute": 5, "dram": 9, "sram": 7})) == "dram"
    assert bound(layer(resource_cycles={"fill": 5, "compute": 5})) == "compute"
    assert bound(layer(resource_cycles={})) is None


def test_utilization_is_real_macs_over_peak() -> None:
    one = report_of(record(1)).layer_reports[0]
    assert one.utilization == 32 * 64 * 16 / (256 * 400)
    assert one.compute_utilization == 32 * 64 * 16 / (256 * 300)
    vector = layer(op="softmax", macs=0, peak_macs_per_cycle=0)
    assert report_of(Record("fast", (vector,))).layer_reports[0].utilization == 0


def test_meta_and_layer_columns_must_fit() -> None:
    technology = load_technology("published_45nm")
    with pytest.raises(ValueError, match="meta must have"):
        make_report(record(), COMPONENTS, technology, clock_ghz=1.0, meta={"workload": "x"})
    with pytest.raises(ValueError, match="2 values for 3 layers"):
        report_of(record(), layer_columns={"weight_sqnr_db": [1.0, 2.0]})
    with pytest.raises(ValueError, match="two components of one name"):
        make_report(record(), COMPONENTS * 2, technology, clock_ghz=1.0, meta=meta())


def test_report_of_500_layers_takes_milliseconds() -> None:
    run = record(500)
    report_of(run)
    start = time.perf_counter()
    report_of(run).to_json()
    assert time.perf_counter() - start < 0.2
