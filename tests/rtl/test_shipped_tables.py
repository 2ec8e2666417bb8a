"""The tables that `simulator characterize` wrote for ASAP7 and SG13G2: what they hold, and runs that use them."""

import csv
import hashlib
import re
from pathlib import Path

import pytest

import simulator as sim
from simulator.errors import InputError
from simulator.hardware import load_technology
from simulator.rtl.cells import FullAdder
from simulator.rtl.units import default_units, unit_of_name

TECHNOLOGIES = ("asap7", "sg13g2")
TABLES = Path(sim.__file__).parent / "hardware" / "tables"
FULL_ADDERS = {
    "asap7": FullAdder(
        sum_inverted=True,
        carry_inverted=True,
        cells=(("FAx1_ASAP7_75t_R", {"A": "a", "B": "b", "CI": "c", "CON": "carry", "SN": "sum"}),),
        outputs=frozenset({"FAx1_ASAP7_75t_R.CON", "FAx1_ASAP7_75t_R.SN"}),
    ),
    "sg13g2": FullAdder(
        carry_inverted=True,
        cells=(
            ("sg13g2_xor2_1", {"A": "a", "B": "b", "X": "p"}),
            ("sg13g2_xor2_1", {"A": "p", "B": "c", "X": "sum"}),
            ("sg13g2_a22oi_1", {"A1": "a", "A2": "b", "B1": "p", "B2": "c", "Y": "carry"}),
        ),
        outputs=frozenset({"sg13g2_xor2_1.X", "sg13g2_a22oi_1.Y"}),
    ),
}
"""What `simulator.rtl.cells` makes of each library."""


def constant(technology, unit, quantity, event=""):
    component = unit_of_name(unit).components()[0]
    found = [name for name in component.events if name.split(" ")[0] == event]
    return load_technology(technology).constant(
        component.kind, component.params, quantity, found[0] if found else ""
    )


def area(technology, unit):
    return constant(technology, unit, "area_um2").value


@pytest.mark.parametrize("technology", TECHNOLOGIES)
@pytest.mark.parametrize("unit", default_units(), ids=lambda unit: unit.name)
def test_every_default_unit_is_priced_whole(technology, unit):
    for component in unit.components():
        priced = load_technology(technology).price(component)
        assert priced.quality == "synthesised"
        assert unit.is_part or priced.delay_ps > 0
        assert all("Liberty SHA-256" in used.constant.source for used in priced.constants)


@pytest.mark.slow
@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_rows_are_of_the_circuits_described_today(technology):
    """The RTL hash that a row names, against the description's; Amaranth of another version may write other RTL. Units
    of more cells are left out: writing them takes minutes."""
    pytest.importorskip("amaranth")
    pytest.importorskip("pyosys")
    from simulator.rtl.synthesis import rtlil, tools

    amaranth, _ = tools().split(", ")
    rows = (TABLES / f"{technology}.csv").read_text(encoding="utf-8").splitlines()
    described: dict[tuple[str, bool], str] = {}
    for row in csv.DictReader(rows):
        cells = re.search(r": (\d+) cells", row["note"])
        if cells is None or int(cells[1]) > 6000:
            continue
        named = row["source"].split("; ")
        if amaranth not in named[1]:
            pytest.skip(f"the table was made with another version than {amaranth}")
        name, fast = row["note"].split(":")[0], "target relaxed" not in named
        if (name, fast) in described:
            continue
        source = rtlil(unit_of_name(name).module(FULL_ADDERS[technology], fast=fast))
        described[name, fast] = hashlib.sha256(source.encode()).hexdigest()
        written = re.search(r"RTL ([0-9a-f]{12});", row["source"])
        assert written is not None
        assert described[name, fast].startswith(written[1]), name
    assert len(described) > 0.8 * len(default_units())


@pytest.mark.parametrize(("technology", "clock_ghz"), [("asap7", 1.0), ("sg13g2", 0.2)])
def test_what_misses_the_clock_is_built_for_it_too(technology, clock_ghz):
    """Not slower and not smaller than built for the area."""
    found: dict[tuple[str, bool], dict[str, float]] = {}
    with (TABLES / f"{technology}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            built = "target relaxed" not in row["source"]
            found.setdefault((row["note"].split(":")[0], built), {})[row["quantity"]] = float(row["value"])
    misses = [
        name
        for (name, built), figures in found.items()
        if not built and figures.get("delay_ps", 0.0) * clock_ghz > 1000
    ]
    assert len(misses) > 50
    assert {name for name, built in found if built} == set(misses)
    for name in misses:
        assert found[name, True]["delay_ps"] <= found[name, False]["delay_ps"]
        assert found[name, True]["area_um2"] >= found[name, False]["area_um2"]


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_areas_keep_their_order(technology):
    def rising(*units):
        areas = [area(technology, unit) for unit in units]
        assert areas == sorted(areas)

    rising("mac-int4-int16", "mac-int4-int32", "mac-int4xint8-int32", "mac-int8-int32", "mac-int16-int48")
    rising(
        "mac-int8-int32", "mac-fp8_e4m3-fixed42", "mac-fp8_e4m3-fixed48", "mac-fp8_e4m3-fp32", "mac-fp16-fp32"
    )
    rising("mac-fp4_e2m1-fixed14", "mac-fp6_e2m3-fixed18", "mac-fp6_e3m2-fixed24", "mac-fp8_e4m3-fixed42")
    rising("mac-int8-int32", "mac-int8-int32-double")
    rising("mac-int8-int32-ws", "mac-int8-int32-ws-double")
    rising("dot32-int8-e8m0-fp32", "dot32-fp8_e4m3-al22-e8m0-fp32", "dot32-fp8_e4m3-al24-e8m0-fp32")
    rising("dot32-fp8_e4m3-al24-e8m0-fp32", "dot32-fp8_e4m3-al24-e8m0-fp32-cut3")


@pytest.mark.parametrize(
    ("unit", "over", "low", "high"),
    [
        ("mac-fp8_e4m3-fixed42", "mac-int8-int32", 1.2, 1.6),
        ("mac-fp8_e4m3-fp32", "mac-int8-int32", 1.8, 2.4),
        ("mac-fp16-fp32", "mac-int8-int32", 2.9, 3.5),
        ("dot32-fp8_e4m3-al22-e8m0-fp32-cut4-double", "dot32-int8-e8m0-fp32-cut3-double", 1.15, 1.5),
        ("dot16-fp4_e2m1-fix-fp8_e4m3-fp32-cut2", "dot16-int4-fp8_e4m3-fp32-cut2", 0.85, 1.15),
    ],
)
@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_formats_compare_alike_across_libraries(technology, unit, over, low, high):
    """Ratios that independent syntheses of other descriptions found too, in three libraries."""
    assert low < area(technology, unit) / area(technology, over) < high


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_energies_split_into_gates_and_clocks(technology):
    """An idle cycle is cheaper than a step. A narrower operand on the same hardware saves nothing worth naming: its
    sign fills the upper bits, which toggle with it. A multiplier of its own width does."""
    unit = unit_of_name("mac-int8+int4xint8-int32")
    (component,) = unit.components()
    energy = load_technology(technology).price(component).energy_pj
    assert energy["idle"] < energy["step int8 x int8"]
    assert energy["mac int4 x int8"] < 1.1 * energy["mac int8 x int8"]
    narrow = constant(technology, "mac-int4xint8-int32", "energy_pj", "mac").value
    assert narrow < 0.8 * energy["mac int4 x int8"]


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize(("technology", "clock_ghz"), [("asap7", 0.8), ("sg13g2", 0.15)])
def test_shipped_arrays_run_on_synthesised_pes(dataflow, technology, clock_ghz):
    changes = {"technology": technology, "clock_ghz": clock_ghz}
    report = sim.gemm(
        64, 64, 64, arch=f"systolic_{dataflow}_16x16", weights="int4", activations="int8", **changes
    )
    pe = next(row for row in report.components.to_dict("records") if row["component"] == "pe")
    assert pe["quality"] == "synthesised"
    flow = "" if dataflow == "os" else f"-{dataflow}"
    assert pe["area_um2"] == pytest.approx(256 * area(technology, f"mac-int8+int4xint8-int32{flow}"))


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_a_clock_beyond_the_pe_is_refused_with_one_that_all_units_meet(technology):
    highest = 1000 / constant(technology, "mac-int8+int4xint8-int32-ws", "delay_ps").value
    machine = {"arch": "systolic_ws_8x8", "technology": technology}
    with pytest.raises(InputError, match="longer than a cycle") as refused:
        sim.gemm(8, 8, 8, clock_ghz=1.01 * highest, **machine)
    (said,) = re.findall(r"at most ([\d.]+) GHz with this technology", refused.value.allowed)
    assert float(said) <= highest
    sim.gemm(8, 8, 8, clock_ghz=float(said), **machine)
    with pytest.raises(InputError, match="longer than a cycle"):
        sim.gemm(8, 8, 8, clock_ghz=1.001 * float(said), **machine)
