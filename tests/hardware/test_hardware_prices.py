"""What circuits and components cost: published points as published, all else with the way it was got."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.hardware import QUALITIES, Component, Part, load_technology
from simulator.hardware.kinds import KINDS
from simulator.hardware.table import AREA, ENERGY, LEAKAGE, LEAKAGE_DENSITY

INT8_INT4_PE = Component(
    name="pe",
    kind="mac",
    count=256,
    params={"activations": "int8", "weights": "int4"},
    parts=(
        Part("multiplier", "int_multiplier", {"a_bits": 8, "b_bits": 4}, count=2),
        Part("accumulate", "int_adder", {"bits": 32}),
        Part("registers", "register", {"bits": 44}),
    ),
    events={
        "mac": {("multiplier", "operate"): 2, ("accumulate", "operate"): 2, ("registers", "write"): 1},
        "idle": {("registers", "clock"): 1},
    },
)

# Horowitz, ISSCC 2014 (pJ); Hennessy & Patterson, 6th edition, Figure 1.13 (um2).
HOROWITZ = [
    ("int_adder", {"bits": 8}, 0.03, 36),
    ("int_adder", {"bits": 16}, 0.05, 67),
    ("int_adder", {"bits": 32}, 0.1, 137),
    ("int_multiplier", {"a_bits": 8, "b_bits": 8}, 0.2, 282),
    ("int_multiplier", {"a_bits": 32, "b_bits": 32}, 3.1, 3495),
    ("fp_adder", {"exponent_bits": 5, "significand_bits": 11}, 0.4, 1360),
    ("fp_adder", {"exponent_bits": 8, "significand_bits": 24}, 0.9, 4184),
    ("fp_multiplier", {"exponent_bits": 5, "significand_bits": 11}, 1.1, 1640),
    ("fp_multiplier", {"exponent_bits": 8, "significand_bits": 24}, 3.7, 7700),
]


@pytest.mark.parametrize(("kind", "params", "energy", "area"), HOROWITZ)
def test_published_points_come_back_exactly(kind: str, params: dict, energy: float, area: float) -> None:
    technology = load_technology("published_45nm")
    for quantity, event, value in ((ENERGY, "operate", energy), (AREA, "", area)):
        constant = technology.constant(kind, params, quantity, event)
        assert (constant.value, constant.quality, constant.formula) == (value, "published", "")
        assert len(constant.origins) == 1


def test_every_row_of_the_shipped_tables_comes_back_exactly() -> None:
    technology = load_technology("published_45nm")
    for row in technology.table.rows:
        if row.quantity == LEAKAGE_DENSITY:
            continue
        constant = technology.constant(row.kind, dict(row.params), row.quantity, row.event)
        assert constant.value == row.value
        assert constant.source.startswith(row.source)
        assert QUALITIES.index(constant.quality) >= QUALITIES.index(row.quality)


def test_every_row_is_cited() -> None:
    for row in load_technology("published_45nm").table.rows:
        assert len(row.source) > 20
        assert row.note or row.quality not in ("estimated", "fitted")


def power(x: float, x0: float, y0: float, x1: float, y1: float) -> float:
    return y0 * (x / x0) ** (math.log(y1 / y0) / math.log(x1 / x0))


@pytest.mark.parametrize(
    ("kind", "params", "energy", "area", "words"),
    [
        # Power law in a_bits*b_bits through 8x8 and 32x32.
        (
            "int_multiplier",
            {"a_bits": 8, "b_bits": 4},
            power(32, 64, 0.2, 1024, 3.1),
            None,
            "continued below",
        ),
        ("int_multiplier", {"a_bits": 16, "b_bits": 16}, power(256, 64, 0.2, 1024, 3.1), None, "through"),
        (
            "int_multiplier",
            {"a_bits": 64, "b_bits": 64},
            power(4096, 64, 0.2, 1024, 3.1),
            None,
            "continued above",
        ),
        # Straight lines between 8, 16 and 32 bits.
        ("int_adder", {"bits": 12}, 0.04, 51.5, "through"),
        ("int_adder", {"bits": 24}, 0.075, 102, "through"),
        ("int_adder", {"bits": 4}, 0.02, 20.5, "continued below"),
        ("int_adder", {"bits": 48}, 0.15, 207, "continued above"),
        # FP8 E4M3: s^2 + 3 e = 28, below FP16's 136 and FP32's 600.
        (
            "fp_multiplier",
            {"exponent_bits": 4, "significand_bits": 4},
            power(28, 136, 1.1, 600, 3.7),
            power(28, 136, 1640, 600, 7700),
            "continued below",
        ),
        # BF16: s log2 s + 4 e = 8*3 + 32 = 56.
        (
            "fp_adder",
            {"exponent_bits": 8, "significand_bits": 8},
            power(56, 11 * math.log2(11) + 20, 0.4, 24 * math.log2(24) + 32, 0.9),
            None,
            "continued below",
        ),
    ],
)
def test_other_widths_are_read_off_the_documented_curve(
    kind: str, params: dict, energy: float, area: float | None, words: str
) -> None:
    technology = load_technology("published_45nm")
    constant = technology.constant(kind, params, ENERGY, "operate")
    assert constant.value == pytest.approx(energy, rel=1e-12)
    assert constant.quality == "estimated"
    assert words in constant.formula
    assert ("continued" in constant.formula) == ("continued" in words)
    assert f"= {constant.value:.6g} pJ" in constant.formula
    if area is not None:
        assert technology.constant(kind, params, AREA).value == pytest.approx(area, rel=1e-12)


def test_a_curve_uses_the_two_neighbouring_points_only() -> None:
    constant = load_technology("published_45nm").constant("int_adder", {"bits": 20}, ENERGY, "operate")
    assert [row for row in constant.formula.split() if row.startswith("bits=")] == ["bits=16", "bits=32"]
    assert len(constant.origins) == 2


widths = st.integers(1, 64)


@given(st.sampled_from([kind for kind, known in KINDS.items() if known.growth]), widths, widths, st.data())
@settings(deadline=None)
def test_cost_grows_with_every_width(kind: str, first: int, second: int, data: st.DataObject) -> None:
    technology = load_technology("published_45nm")
    names = KINDS[kind].params
    small = dict(zip(names, (first, second), strict=False))
    if kind == "shifter":
        small["bits"] += 1
    if kind == "multiplexer":
        small["inputs"] += 1
    name = data.draw(st.sampled_from(names))
    large = small | {name: small[name] + data.draw(st.integers(1, 16))}
    silicon = [(AREA, ""), (LEAKAGE, "")] if KINDS[kind].silicon else []
    asked = [*silicon, *((ENERGY, event) for event in KINDS[kind].events)]
    for quantity, event in asked:
        low = technology.constant(kind, small, quantity, event).value
        high = technology.constant(kind, large, quantity, event).value
        assert 0 < low < high


@given(widths, widths)
@settings(deadline=None)
def test_operands_of_a_multiplier_may_be_exchanged(a: int, b: int) -> None:
    technology = load_technology("published_45nm")
    one, other = ({"a_bits": a, "b_bits": b}, {"a_bits": b, "b_bits": a})
    assert technology.constant("int_multiplier", one, AREA) == technology.constant(
        "int_multiplier", other, AREA
    )


def test_register_is_so_many_single_bits_of_another_node_and_says_so() -> None:
    constant = load_technology("published_45nm").constant("register", {"bits": 44}, AREA)
    assert constant.value == pytest.approx(44 * 5.981433)
    assert "40 nm value used at 45 nm without scaling" in constant.formula
    assert constant.quality == "estimated"


def test_clocking_a_register_costs_less_than_writing_it() -> None:
    technology = load_technology("published_45nm")
    clock, write = (technology.constant("register", {"bits": 1}, ENERGY, e).value for e in ("clock", "write"))
    assert 0 < clock < write


def test_a_multiplexer_is_its_share_of_the_barrel_shifter_and_says_so() -> None:
    """A 32-bit barrel shifter is five ranks of 32 multiplexers with two inputs; so is an array of 160."""
    technology = load_technology("published_45nm")
    for quantity, event in ((AREA, ""), (LEAKAGE, ""), (ENERGY, "operate")):
        shifter = technology.constant("shifter", {"bits": 32}, quantity, event).value
        constant = technology.constant("multiplexer", {"inputs": 6, "bits": 32}, quantity, event)
        assert constant.value == pytest.approx(shifter, rel=1e-6)
        assert constant.quality == "estimated"
        assert "/ 160" in constant.source


def test_leakage_of_logic_is_its_density_times_its_area() -> None:
    constant = load_technology("published_45nm").constant(
        "int_multiplier", {"a_bits": 8, "b_bits": 8}, LEAKAGE
    )
    # Aladdin's 32-bit multiplier at a relaxed clock: 48176.83 nW on 4595 um2.
    assert constant.value == pytest.approx(282 * 48176.83 / 4595, rel=1e-6)
    assert constant.quality == "estimated"
    assert "Aladdin" in constant.source
    assert "Hennessy" in constant.source


def test_component_is_the_sum_of_its_parts_and_estimated() -> None:
    technology = load_technology("published_45nm")
    priced = technology.price(INT8_INT4_PE)
    multiplier = 282 * 0.5 ** (math.log(3495 / 282) / math.log(16))
    assert priced.area_um2 == pytest.approx(2 * multiplier + 137 + 44 * 5.981433, rel=1e-12)
    product = 0.2 * 0.5 ** (math.log(15.5) / math.log(16))
    assert priced.energy_pj["mac"] == pytest.approx(2 * product + 2 * 0.1 + 44 * 0.008999495, rel=1e-12)
    assert priced.energy_pj["idle"] == pytest.approx(44 * 0.007936518, rel=1e-12)
    assert priced.quality == "estimated"
    assert set(priced.energy_quality.values()) == {"estimated"}


def test_price_is_the_product_of_its_listed_constants() -> None:
    priced = load_technology("published_45nm").price(INT8_INT4_PE)
    area = sum(
        used.count * used.constant.value for used in priced.constants if used.constant.quantity == AREA
    )
    assert area == pytest.approx(priced.area_um2, rel=1e-12)
    energies = {
        (used.part, used.constant.event): used.constant.value
        for used in priced.constants
        if used.constant.quantity == ENERGY
    }
    for event, caused in priced.events.items():
        energy = sum(times * energies[key] for key, times in caused.items())
        assert energy == pytest.approx(priced.energy_pj[event], rel=1e-12)


def test_an_event_of_copies_that_work_together_costs_the_energy_of_all() -> None:
    technology = load_technology("published_45nm")
    one, both = (technology.price(replace(INT8_INT4_PE, copies=copies)) for copies in (1, 2))
    assert both.area_um2 == one.area_um2
    assert both.leakage_nw == one.leakage_nw
    for event, energy in one.energy_pj.items():
        assert both.energy_pj[event] == 2 * energy
        assert both.events[event] == {part: 2 * times for part, times in one.events[event].items()}


def test_a_component_is_priced_once() -> None:
    technology = load_technology("published_45nm")
    assert technology.price(INT8_INT4_PE) is technology.price(INT8_INT4_PE)


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (Component("pe", "mac", {"lanes": 4}), ["component pe", "published_45nm", "mac", "no parts"]),
        (
            Component("pe", "mac", {}, parts=(Part("pick", "crossbar", {"bits": 3}),)),
            ["component pe", "published_45nm", "area_um2 of crossbar (bits=3)", "cost table of your own"],
        ),
        (
            Component("dram", "dram", {"part": "lpddr9-1"}),
            ['"read_bit" of dram (device=lpddr9)', "device=hbm2"],
        ),
        (
            Component(
                "pe",
                "mac",
                {},
                parts=(Part("add", "int_adder", {"bits": 8}),),
                events={"mac": {("add", "fly"): 1}},
            ),
            ['energy_pj of event "fly" of int_adder (bits=8)'],
        ),
        (Component("pe", "mac", {}, parts=(Part("add", "int_adder", {"width": 8}),)), ["width", "bits"]),
        (Component("pe", "mac", {}, parts=(Part("add", "int_adder", {"bits": 0}),)), ["whole number from 1"]),
        (
            Component("pe", "mac", {}, parts=(Part("m", "int_multiplier", {"a_bits": 8}),)),
            ["b_bits", "needs"],
        ),
        (Component("pe", "mac", {}, parts=(Part("s", "shifter", {"bits": 1}),)), ["size", "0"]),
    ],
)
def test_whatever_has_no_price_is_an_error_that_names_it(component: Component, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_technology("published_45nm").price(component)
    for word in words:
        assert word in str(caught.value)


def test_event_of_a_part_that_is_not_there_is_a_fault_of_the_design() -> None:
    component = Component(
        "pe", "mac", {}, parts=(Part("a", "int_adder", {"bits": 8}),), events={"mac": {("b", "operate"): 1}}
    )
    with pytest.raises(ValueError, match="names part 'b'"):
        load_technology("published_45nm").price(component)


def test_dram_is_priced_by_its_device_and_has_no_area() -> None:
    technology = load_technology("published_45nm")
    named = technology.price(Component("dram", "dram", {"part": "DDR4-3200", "channels": 2}))
    assert dict(named.energy_pj) == {"read_bit": 18.75, "write_bit": 18.75}
    assert named.quality == "published"
    assert not named.silicon
    assert technology.price(Component("dram", "dram", {"device": "hbm2"})).energy_pj["read_bit"] == 3.9
    assert technology.price(Component("dram", "dram", {"device": "ddr3"})).energy_pj["read_bit"] == 20
    with pytest.raises(InputError, match="dram needs this parameter"):
        technology.price(Component("dram", "dram", {"standard": "hbm2"}))


def test_a_unit_built_for_several_clocks_is_the_smallest_that_meets_the_clock(tmp_path) -> None:
    lines = ["kind,params,quantity,event,value,node_nm,vdd,temperature_c,quality,source,note"]
    for target, area, delay in (("", 100, 900), (" target_ghz=1.5", 130, 640), (" target_ghz=2", 170, 520)):
        figures = (
            (AREA, "", area),
            ("leakage_nw", "", 5),
            ("delay_ps", "", delay),
            (ENERGY, "mac", area / 1e3),
        )
        lines += [
            f"my_pe,lanes=4{target},{what},{event},{x},45,,,synthesised,me," for what, event, x in figures
        ]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    technology = load_technology({"base": "published_45nm", "tables": [str(tmp_path / "mine.csv")]})
    unit = Component("pe", "my_pe", {"lanes": 4}, events={"mac": {}})
    found = {clock: technology.price(unit, clock) for clock in (None, 1.0, 1.2, 1.7, 3.0)}
    assert {clock: priced.area_um2 for clock, priced in found.items()} == {
        None: 100,
        1.0: 100,
        1.2: 130,
        1.7: 170,
        3.0: 170,
    }
    assert found[1.7].energy_pj["mac"] == 0.17
    assert found[3.0].delay_ps == 520  # the highest clock that it meets is that of its fastest form


def test_registers_without_logic_are_no_estimate() -> None:
    rows = Component("skew", "skew", {"bits": 9}, parts=(Part("registers", "register", {"bits": 1}, 9),))
    technology = load_technology("published_45nm")
    one = technology.constant("register", {"bits": 1}, AREA)
    priced = technology.price(rows)
    assert priced.area_um2 == 9 * one.value
    assert priced.area_quality == one.quality
