"""The Liberty reader on a library made up for it, on damaged files, and on two real ones."""

import gzip
import re

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.rtl.cells import CellSet
from simulator.rtl.liberty import Table, read_library


def test_units_become_ps_ff_fj_and_nw(toy):
    inverter = toy.library.cells["INV"]
    output = inverter.pins["Y"]
    assert inverter.area_um2 == 1  # a line without its semicolon
    assert inverter.leakage_nw == pytest.approx(0.1)
    assert inverter.pins["A"].capacitance_ff == pytest.approx(2.0)
    (arc,) = output.arcs
    assert arc.tables["cell_rise"].at(10.0, 2.0) == pytest.approx(10.0)
    (power,) = output.powers
    assert power.rise.at(10.0, 2.0) == pytest.approx(2.0)  # 0.002 pF V^2 is 2 fJ
    assert (toy.library.vdd, toy.library.temperature_c) == (1.0, 25.0)


def test_tables_are_turned_to_slew_first(toy):
    table = toy.library.cells["INV"].pins["Y"].powers[0].rise
    assert table.slew_ps == pytest.approx([10.0, 50.0])
    assert table.load_ff == pytest.approx([2.0, 10.0])


def test_leakage_without_condition_is_the_mean_of_the_states(toy):
    assert toy.library.cells["DFF"].leakage_nw == pytest.approx(0.8)


def test_a_table_is_linear_between_and_beyond_its_points():
    table = Table(np.array([0.0, 2.0]), np.array([0.0, 4.0]), np.array([[0.0, 4.0], [2.0, 6.0]]))
    for slew in (-1.0, 0.0, 0.5, 2.0, 3.0):
        for load in (-2.0, 0.0, 1.0, 4.0, 8.0):
            assert table.at(slew, load) == pytest.approx(slew + load)


def test_cells_are_told_apart(toy):
    cells = toy.library.cells
    assert cells["DFF"].flop is not None
    assert not cells["DFF"].is_combinational
    assert cells["AOI22"].is_combinational
    assert [cell.name for cell, _ in toy.gates("!(a b)")] == ["NAND2"]
    assert toy.ties == {False: ("TIE0", "Y"), True: ("TIE1", "Y")}


def test_a_gate_is_found_whatever_the_order_of_its_pins(toy):
    ((cell, pins),) = toy.gates("!(a b + c d)")
    assert cell.name == "AOI22"
    assert {frozenset((pins["A"], pins["B"])), frozenset((pins["C"], pins["D"]))} == {
        frozenset("ab"),
        frozenset("cd"),
    }


def test_every_truncation_is_refused(toy_file, tmp_path):
    text = toy_file.read_text()
    path = tmp_path / "cut.lib"
    for length in range(0, len(text.rstrip()) - 1, 97):
        path.write_text(text[:length])
        with pytest.raises(
            InputError, match=r"cut\.lib: (the file ends inside|not a Liberty file|.*truncated)"
        ):
            read_library([path])


def test_what_is_no_liberty_file_is_refused(toy_file, tmp_path):
    path = tmp_path / "some.lib"
    for content in (b"", b"module top; endmodule", b"\x00\x01\x02", b"\x1f\x8b damaged"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"some\.lib: (not a Liberty file|damaged gzip)"):
            read_library([path])
    path.write_bytes(gzip.compress(toy_file.read_bytes())[:-200])
    with pytest.raises(InputError, match="damaged gzip file"):
        read_library([path])
    with pytest.raises(InputError, match=r"absent\.lib: .*cannot be opened: No such file"):
        read_library([tmp_path / "absent.lib"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('time_unit : "1ns"', 'time_unit : "1parsec"', "is not a unit of s"),
        ("nom_voltage : 1.0", "nom_voltage : high", r"nom_voltage: not a number \(found 'high'\)"),
        ("area : 8;", "area : ;", "cell DFF: area: not a number"),
        ('"0.010, 0.030", "0.020, 0.040"', '"0.010, 0.030", "0.020"', "has 3 values for 2 x 2 points"),
        ('values ("0.040, 0.060"', 'values ("0.040, fast"', "values is not a list of numbers"),
        ("cell (BUF)", "cell (INV)", "cell is defined twice"),
        ("capacitive_load_unit (1, pf);", "", "capacitive_load_unit is missing"),
        ('related_pin : "CK";', 'related_pin @ "CK";', "not a Liberty statement in cell DFF"),
        ("area : 2;", "area : -2;", "cell BUF: area: must be at least 0"),
        ("area : 2;", "area : nan;", "cell BUF: area: not a number"),
        ("capacitance : 0.002", "capacitance : 1e400", "pin A: capacitance: not a number"),
        ("capacitance : 0.002", "capacitance : -0.002", "pin A: capacitance: must be at least 0"),
        ("nom_voltage : 1.0;", "nom_voltage : 0;", "nom_voltage: must be above zero"),
        ("nom_voltage : 1.0;", "", "nom_voltage: is missing"),
        ('time_unit : "1ns"', 'time_unit : "0ns"', "'0ns' is not above zero"),
        ("(1, pf)", "(-1, pf)", "is not above zero"),
        ('index_2 ("0.002, 0.010")', 'index_2 ("0.010, 0.010")', "index_2 does not increase"),
        ("0.010, 0.030", "nan, 0.030", "values is not a list of numbers"),
    ],
)
def test_damage_is_named(toy_file, tmp_path, old, new, said):
    text = toy_file.read_text()
    assert old in text
    path = tmp_path / "bad.lib"
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=said):
        read_everything(path)


def read_everything(path):
    pins = [pin for cell in read_library([path]).cells.values() for pin in cell.pins.values()]
    return [(pin.arcs, pin.powers) for pin in pins]


def test_files_of_one_library_must_agree(toy_file, tmp_path):
    other = tmp_path / "other.lib"
    other.write_text(toy_file.read_text().replace("nom_voltage : 1.0", "nom_voltage : 0.9"))
    with pytest.raises(InputError, match="of another corner"):
        read_library([toy_file, other])
    other.write_text(toy_file.read_text())
    with pytest.raises(InputError, match=r"cell is defined in other\.lib too"):
        read_library([toy_file, other])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("DFF",), "no rising-edge D flip-flop"),
        (("INV",), "no inverter"),
        (("BUF",), "no buffer"),
        (("NAND2", "NOR2"), "no two-input NAND or NOR gate"),
    ],
)
def test_a_missing_class_of_cells_is_named(toy, cells, said):
    with pytest.raises(InputError, match=said):
        CellSet(toy.library, cells)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("cell_rise|cell_fall", r"no\.lib: the library has no delay tables"),
        ("internal_power", r"no\.lib: the library has no tables of internal energy"),
        ("cell_leakage_power|leakage_power(?=\\s*\\()", r"no\.lib: the library has no leakage of cells"),
    ],
)
def test_figures_that_would_come_out_as_zero_are_missed(toy_file, tmp_path, pattern, said):
    path = tmp_path / "no.lib"
    path.write_text(re.sub(pattern, "something_else", toy_file.read_text()))
    with pytest.raises(InputError, match=said):
        CellSet(read_library([path]))


def test_a_function_that_cannot_be_read_names_its_file(toy_file, tmp_path):
    path = tmp_path / "function.lib"
    path.write_text(toy_file.read_text().replace('"A\'"', '"Q7"'))
    with pytest.raises(InputError, match=r"function\.lib: function of pin Y of cell INV"):
        CellSet(read_library([path]))


@pytest.mark.parametrize(("cell", "said"), [("XOR2", "two-input XOR gate"), ("AOI22", "AOI22")])
def test_a_full_adder_needs_its_gates(toy, cell, said):
    with pytest.raises(InputError, match=said):
        assert CellSet(toy.library, (cell,)).full_adder


def test_unknown_cells_to_avoid_are_named(toy):
    with pytest.raises(InputError, match="did you mean NAND2"):
        CellSet(toy.library, ("NAND_2",))


def test_asap7_is_read_whole(asap7, asap7_files):
    library = asap7.library
    text = "".join(gzip.decompress(path.read_bytes()).decode() for path in asap7_files)
    assert set(library.cells) == set(re.findall(r"\n\s*cell \((\w+)\)", text))
    assert library.corner == "0.7 V, 25 C"
    adder = library.cells["FAx1_ASAP7_75t_R"]
    assert adder.area_um2 == 0.20412
    assert adder.leakage_nw == pytest.approx(0.212189)
    assert asap7.full_adder.cells[0][0] == adder.name
    assert (asap7.full_adder.sum_inverted, asap7.full_adder.carry_inverted) == (True, True)
    # The rails' tables averaged: rise_power by CLK at (5 ps, 0.72 fF) is 0.509235 at VDD and 0.620513 at VSS.
    (power,) = library.cells["DFFHQNx1_ASAP7_75t_R"].pins["QN"].powers
    assert power.rise.at(5, 0.72) == pytest.approx((0.509235 + 0.620513) / 2)
    # One of the 42 cells whose area has no semicolon: all have an area.
    assert all(cell.area_um2 > 0 for cell in library.cells.values())


def test_sg13g2_adds_with_gates(sg13g2):
    assert sg13g2.library.corner == "1.2 V, 25 C"
    assert [cell for cell, _ in sg13g2.full_adder.cells] == [
        "sg13g2_xor2_1",
        "sg13g2_xor2_1",
        "sg13g2_a22oi_1",
    ]
    assert sg13g2.flops["sg13g2_dfrbp_1"].inactive == {"RESET_B": True}
    assert not sg13g2.library.cells["sg13g2_ebufn_2"].is_combinational  # a three-state buffer
