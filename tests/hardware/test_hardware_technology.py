"""Technologies: by name, by file, of one's own, and scaled; and tables that say where they are wrong."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.hardware import Component, Part, load_technology, technology_names
from simulator.hardware.scaling import Scaling, area_factors
from simulator.hardware.table import AREA, COLUMNS, DELAY, ENERGY, LEAKAGE

HEADER = ",".join(COLUMNS) + "\n"
SRAM_ROW = (
    "sram_macro,words=64 width_bits=32 ports=1rw cell=itrs-hp,area_um2,,900,28,0.9,86.85,compiled,CACTI,\n"
)
ADDER = Component(
    "adder",
    "accumulator",
    {"bits": 32},
    parts=(Part("add", "int_adder", {"bits": 32}),),
    events={"add": {("add", "operate"): 1}},
)


fields = st.lists(
    st.sampled_from(
        ["int_adder", "bits=8", "energy_pj", "area_um2", "operate", "0.1", "1e999", "45", "scaled", ""]
    ),
    min_size=9,
    max_size=12,
)


def join_fields(rows: list[list[str]]) -> str:
    return HEADER + "".join(",".join(row) + "\n" for row in rows)


def unit_table(folder: Path, node: float = 45, name: str = "mine.csv", energy: float = 0.125) -> Path:
    rows = (("area_um2", "", 90), ("leakage_nw", "", 7), ("delay_ps", "", 400), ("energy_pj", "add", energy))
    lines = [
        f"accumulator,bits=32,{quantity},{event},{value},{node},0.8,25,synthesised,yosys on a library,\n"
        for quantity, event, value in rows
    ]
    path = folder / name
    path.write_text(HEADER + "".join(lines))
    return path


def test_default_is_the_published_45_nm_technology() -> None:
    technology = load_technology("published_45nm")
    assert technology.name == "published_45nm"
    assert technology.name in technology_names()
    assert (technology.node_nm, technology.vdd) == (45, 0.9)
    assert "CACTI" in technology.description


def test_a_table_is_a_technology(tmp_path: Path) -> None:
    technology = load_technology(unit_table(tmp_path))
    assert (technology.name, technology.node_nm, technology.vdd) == ("mine", 45, 0.8)
    priced = technology.price(ADDER)
    assert (priced.area_um2, priced.leakage_nw, priced.delay_ps) == (90, 7, 400)
    assert priced.energy_pj == {"add": 0.125}
    assert priced.quality == "synthesised"
    with pytest.raises(InputError, match="technology mine has no"):
        technology.price(Component("b", "sram", {"bytes": 1024, "width_bits": 32}))


def test_unit_row_wins_over_the_sum_of_parts_and_the_base_gives_the_rest(tmp_path: Path) -> None:
    table = unit_table(tmp_path)
    technology = load_technology({"base": "published_45nm", "tables": [str(table)]})
    assert technology.name == "published_45nm+mine"
    assert technology.price(ADDER).quality == "synthesised"
    wider = Component("adder", "accumulator", {"bits": 33}, parts=ADDER.parts, events=ADDER.events)
    assert technology.price(wider).quality == "estimated"
    assert technology.price(Component("dram", "dram", {"device": "ddr3"})).energy_pj["read_bit"] == 20


def test_parameters_of_a_unit_may_hold_spaces(tmp_path: Path) -> None:
    path = unit_table(tmp_path)
    path.write_text(path.read_text().replace("bits=32", "weights=int8 int4 lanes=4"))
    technology = load_technology(path)
    unit = Component("pe", "accumulator", {"lanes": 4, "weights": "int8 int4"}, events={"add": {}})
    assert technology.price(unit).area_um2 == 90
    assert {row.params for row in technology.table.rows} == {(("lanes", 4), ("weights", "int8 int4"))}


def test_unit_without_one_of_its_rows_is_an_error_and_not_filled_from_parts(tmp_path: Path) -> None:
    path = unit_table(tmp_path)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "energy_pj" not in line))
    technology = load_technology({"base": "published_45nm", "tables": [str(path)]})
    with pytest.raises(InputError, match='energy_pj of event "add" of accumulator'):
        technology.price(ADDER)


def test_technology_file_looks_for_tables_and_base_beside_itself(tmp_path: Path) -> None:
    unit_table(tmp_path)
    (tmp_path / "lab.yaml").write_text("{base: published_45nm, tables: [mine.csv], description: our lab}")
    (tmp_path / "top.yaml").write_text("{base: lab.yaml, scale_to_nm: 7}")
    assert load_technology(tmp_path / "lab.yaml").description == "our lab"
    scaled = load_technology(tmp_path / "top.yaml")
    assert scaled.price(ADDER).area_um2 == pytest.approx(90 * 0.059)
    assert scaled.price(ADDER).area_quality == "scaled"


def test_rows_of_another_node_are_refused_unless_accepted_and_then_say_so(tmp_path: Path) -> None:
    table = unit_table(tmp_path, node=28)
    with pytest.raises(InputError, match="accepted_nodes_nm") as caught:
        load_technology({"base": "published_45nm", "tables": [str(table)]})
    assert "mine.csv:2" in str(caught.value)
    accepted = load_technology({"base": "published_45nm", "tables": [str(table)], "accepted_nodes_nm": [28]})
    priced = accepted.price(ADDER)
    assert priced.quality == "estimated"
    assert "28 nm value used at 45 nm without scaling" in priced.constants[0].constant.formula


def test_table_of_two_nodes_is_no_technology(tmp_path: Path) -> None:
    one, two = unit_table(tmp_path, 45), unit_table(tmp_path, 7, "two.csv")
    one.write_text(one.read_text() + two.read_text().removeprefix(HEADER).replace("accumulator", "other"))
    with pytest.raises(InputError, match="several nodes"):
        load_technology(one)


def test_own_rows_stand_beside_a_scaled_base_at_its_node(tmp_path: Path) -> None:
    table = unit_table(tmp_path, node=7)
    technology = load_technology({"base": "published_45nm", "scale_to_nm": 7, "tables": [str(table)]})
    assert technology.price(ADDER).quality == "synthesised"
    assert technology.price(ADDER).area_um2 == 90
    memory = technology.price(Component("b", "sram", {"bytes": 8192, "width_bits": 32}))
    assert memory.area_um2 == pytest.approx(25650 * 0.059)


# Delay and energy at nominal supply relative to 45 nm high performance, computed from the paper's polynomials
# apart from this code, to the digits given.
NOMINAL = {
    180: (6.32, 30.6),
    130: (2.68, 6.0),
    90: (2.05, 3.0),
    65: (1.53, 1.95),
    32: (0.67, 0.53),
    20: (0.76, 0.23),
    16: (0.51, 0.161),
    14: (0.36, 0.112),
    10: (0.31, 0.082),
    7: (0.26, 0.056),
}


@pytest.mark.parametrize("node", NOMINAL)
def test_scaling_factors_are_the_published_ones(node: int) -> None:
    scaling = Scaling(45, node)
    delay, energy = NOMINAL[node]
    assert scaling.factor(DELAY, "hp", 1.0)[0] == pytest.approx(delay, rel=0.02)
    assert scaling.factor(ENERGY, "hp", 1.0)[0] == pytest.approx(energy, rel=0.02)


def test_area_factors_are_the_published_table() -> None:
    factors = area_factors()
    assert (factors[45, 7], factors[45, 14], factors[65, 45], factors[180, 7]) == (0.059, 0.17, 0.66, 0.0032)
    assert len(factors) == 121
    for (start, end), factor in factors.items():
        # The paper rounds to two digits.
        assert factor * factors[end, start] == pytest.approx(1, rel=0.06)


def test_scaled_technology_scales_logic_and_memory_and_says_so() -> None:
    base, scaled = load_technology("published_45nm"), load_technology("published_45nm@7nm")
    assert (scaled.name, scaled.node_nm, scaled.vdd) == ("published_45nm@7nm", 7, 0.7)
    before = base.constant("int_adder", {"bits": 32}, ENERGY, "operate")
    after = scaled.constant("int_adder", {"bits": 32}, ENERGY, "operate")
    # 7HP at 0.7 V over 45HP at the 0.9 V of the source.
    factor = (0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447) / (1.018 * 0.81 - 0.3107 * 0.9 + 0.1539)
    assert after.value == pytest.approx(before.value * factor, rel=1e-12)
    assert (before.quality, after.quality) == ("published", "scaled")
    assert "Stillmaker & Baas 2017" in after.formula
    assert "45 to 7 nm, 0.9 to 0.7 V" in after.formula


def test_low_standby_power_memory_scales_with_low_power_devices() -> None:
    component = Component("b", "sram", {"bytes": 8192, "width_bits": 32})
    before = load_technology("published_45nm").price(component)
    after = load_technology("published_45nm@7nm").price(component)
    factor = (0.09365 * 0.49 - 0.03409 * 0.7 + 0.02043) / (1.103 * 1.21 - 0.362 * 1.1 + 0.2767)
    assert after.energy_pj["read"] == pytest.approx(before.energy_pj["read"] * factor, rel=1e-12)
    assert after.energy_quality["read"] == "scaled"


def test_scaled_leakage_keeps_current_per_area_and_is_estimated() -> None:
    base, scaled = load_technology("published_45nm"), load_technology("published_45nm@7nm")
    before = base.constant("int_adder", {"bits": 32}, LEAKAGE)
    after = scaled.constant("int_adder", {"bits": 32}, LEAKAGE)
    assert after.value == pytest.approx(before.value * 0.059 * 0.7 / 0.9)
    assert after.quality == "estimated"
    assert "assumption" in after.formula


def test_estimate_stays_an_estimate_when_scaled() -> None:
    constant = load_technology("published_45nm@7nm").constant("int_adder", {"bits": 12}, AREA)
    assert constant.quality == "estimated"
    assert "line in s = bits" in constant.formula
    assert "scaled 45 to 7 nm" in constant.formula


def test_dram_is_not_scaled() -> None:
    dram = Component("dram", "dram", {"device": "hbm2"})
    scaled = load_technology("published_45nm@7nm")
    assert scaled.price(dram).energy_pj == load_technology("published_45nm").price(dram).energy_pj


def test_supply_of_the_target_may_be_given() -> None:
    low = load_technology({"base": "published_45nm", "scale_to_nm": 7, "vdd": 0.55})
    nominal = load_technology("published_45nm@7nm")
    assert low.name == "published_45nm@7nm,0.55V"
    assert low.price(ADDER).energy_pj["add"] < nominal.price(ADDER).energy_pj["add"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("published_54nm", "did you mean published_45nm"),
        ("published_45nm@7", "published_45nm@7nm"),
        ("published_45nm@28nm", "180, 130, 90, 65, 45, 32, 20, 16, 14, 10, 7"),
        ("published_45nm@7nm@16nm", "scaled already"),
        ("no/such/table.csv", "No such file"),
        ("a\0b.csv", "not a usable name"),
        ("no/such/technology.yaml", "no such file"),
        ({"base": "published_45nm", "scale_to_nm": 7, "vdd": 3.0}, "0.5 to 1.2 V"),
        ({"base": "published_45nm", "scale_to_nm": "7"}, "scale_to_nm"),
        ({"base": "published_45nm", "scale_to": 7}, "did you mean scale_to_nm"),
        ({"base": "published_45nm", "vdd": 0.8}, "supply is for scaling or for own tables"),
        ({"base": "published_45nm", "node_nm": 7}, "differs from the node of the base"),
        ({"scale_to_nm": 7}, "tables or a base"),
        ({}, "tables or a base"),
    ],
)
def test_technology_that_cannot_be_is_refused_with_what_is_allowed(what: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_technology(what)
    assert words in str(caught.value)


GOOD = "int_adder,bits=8,energy_pj,operate,0.03,45,0.9,,published,somebody 2014,\n"


@pytest.mark.parametrize(
    ("line", "column"),
    [
        (GOOD.replace("int_adder", ""), "kind"),
        (GOOD.replace("somebody 2014", ""), "source"),
        (GOOD.replace("0.03", "cheap"), "value"),
        (GOOD.replace("0.03", "nan"), "value"),
        (GOOD.replace("0.03", "-1"), "value"),
        (GOOD.replace("0.03", "0"), "value"),
        (GOOD.replace("0.03", ""), "value"),
        (GOOD.replace("energy_pj", "energy_nj"), "quantity"),
        (GOOD.replace("operate", "work"), "event"),
        (GOOD.replace("operate", ""), "event"),
        (GOOD.replace("energy_pj", "area_um2"), "event"),
        (GOOD.replace("published", "guessed"), "quality"),
        (GOOD.replace("bits=8", "bits"), "params"),
        (GOOD.replace("bits=8", "bits=8 bits=9"), "params"),
        (GOOD.replace("bits=8", "width=8"), "params"),
        (GOOD.replace("bits=8", "bits=0"), "params"),
        (GOOD.replace("bits=8", "bits=" + "9" * 5000), "params"),
        (GOOD.replace("bits=8", ""), "params"),
        (GOOD.replace(",45,", ",x,"), "node_nm"),
        (GOOD.replace("energy_pj,operate", "leakage_nw_per_um2,"), "params"),
        (GOOD + GOOD, "params"),
    ],
)
def test_wrong_row_is_refused_with_file_line_and_column(tmp_path: Path, line: str, column: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + line)
    with pytest.raises(InputError) as caught:
        load_technology(path)
    assert f"mine.csv:{1 + line.count(chr(10))}: {column}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column is missing"),
        (HEADER, "no rows"),
        (HEADER.replace("vdd", "volt") + GOOD, "column is missing"),
        (HEADER.replace("note", "note,price") + GOOD, "price"),
        (HEADER.replace("note", "note,vdd") + GOOD, "occurs twice"),
        (HEADER + "int_adder,bits=8\n", "11 fields"),
        (HEADER + GOOD.strip() + ",one,more\n", "11 fields"),
        (HEADER + 'int_adder,"bits=8\n', "comma-separated"),
    ],
)
def test_file_that_is_no_cost_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_technology(path)


def test_technology_that_does_not_describe_itself_tells_nodes_cells_and_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + SRAM_ROW)
    own = "Rows of mine.csv (28 nm); SRAM itrs-hp at 0.9 V and 86.85 C."
    assert load_technology(path).description == own
    both = {"base": "published_45nm", "tables": [str(path)], "accepted_nodes_nm": [28]}
    assert load_technology(both).description == f"{own} {load_technology('published_45nm').description}"
    assert "Scaled from 45 nm to 7 nm" in load_technology("published_45nm@7nm").description


def test_own_macros_replace_those_of_the_base_altogether(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + SRAM_ROW)
    technology = load_technology({"base": "published_45nm", "tables": [str(path)], "accepted_nodes_nm": [28]})
    memory = {"bytes": 256, "width_bits": 32}
    assert technology.constant("sram", memory, AREA).value == 900
    for params, quantity in ((memory, LEAKAGE), (memory | {"ports": "1r1w"}, AREA)):
        with pytest.raises(InputError, match=f"{quantity} of sram"):
            technology.constant("sram", params, quantity)


def test_technology_is_not_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{base: b.yaml}")
    (tmp_path / "b.yaml").write_text("{base: a.yaml}")
    with pytest.raises(InputError, match="is its own base"):
        load_technology(tmp_path / "a.yaml")


@given(st.one_of(st.text(), st.text().map(lambda text: HEADER + text), st.lists(fields).map(join_fields)))
@settings(deadline=None)
def test_any_text_is_a_table_or_an_input_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        with contextlib.suppress(InputError):
            load_technology(path)


def test_binary_file_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.yaml").write_text("[1, 2")
    (tmp_path / "c.yaml").write_text("- 1")
    (tmp_path / "d.csv").mkdir()
    for name in ("a.csv", "b.yaml", "c.yaml", "d.csv"):
        with pytest.raises(InputError, match=name):
            load_technology(tmp_path / name)


def test_memory_cells_are_never_mixed(tmp_path: Path) -> None:
    rows = [
        f"sram_macro,words=64 width_bits=32 ports=1rw cell={cell},"
        f"area_um2,,900,28,0.9,{celsius},compiled,CACTI,\n"
        for cell, celsius in (("itrs-lstp", 26.85), ("itrs-hp", 86.85))
    ]
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + "".join(rows))
    with pytest.raises(InputError, match=r"mix memory cells.*itrs-hp at 0.9 V and 86.85 C here"):
        load_technology(path)


def test_one_point_gives_no_curve(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + GOOD)
    technology = load_technology(path)
    assert technology.constant("int_adder", {"bits": 8}, ENERGY, "operate").value == 0.03
    with pytest.raises(InputError, match=r"no energy_pj of event \"operate\" of int_adder \(bits=9\)"):
        technology.constant("int_adder", {"bits": 9}, ENERGY, "operate")


def test_falling_line_is_not_continued_below_zero(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(HEADER + GOOD + GOOD.replace("bits=8", "bits=9").replace("0.03", "0.06"))
    with pytest.raises(InputError, match="not above zero at bits=1"):
        load_technology(path).constant("int_adder", {"bits": 1}, ENERGY, "operate")
