"""From units to a cost table: synthesis, laws of its figures, the command, and runs that use the table."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("amaranth")
pytest.importorskip("pyosys")

import simulator as sim
from simulator.cli import main
from simulator.errors import InputError
from simulator.hardware.table import read_table, table_text
from simulator.rtl import synthesis
from simulator.rtl.characterise import Characteriser, Settings, characterise, prove
from simulator.rtl.network import Network
from simulator.rtl.synthesis import synthesise
from simulator.rtl.units import unit_of_name

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def worker(toy_file):
    return Characteriser(Settings((str(toy_file),)))


@pytest.fixture(scope="module")
def figures(worker):
    names = ("mac-int2-int16", "mac-int4-int12", "mac-int4-int16", "mac-int4-int24", "mac-int4-int16-cut1")
    return {name: worker.figures(unit_of_name(name)) for name in names}


def test_area_grows_with_widths(figures):
    areas = {name: found.area_um2 for name, found in figures.items()}
    assert areas["mac-int2-int16"] < areas["mac-int4-int16"]
    assert areas["mac-int4-int12"] < areas["mac-int4-int16"] < areas["mac-int4-int24"]


def test_registers_are_operands_flag_accumulator_and_cuts(figures):
    assert figures["mac-int4-int16"].flops == 4 + 4 + 1 + 16
    # Behind the multiplier: a product of 8 bits, and the flag.
    assert figures["mac-int4-int16-cut1"].flops == 4 + 4 + 1 + 16 + 8 + 1
    assert figures["mac-int4-int16"].register_area_um2 == 25 * 8


def test_a_cut_shortens_the_period(worker):
    whole, cut = (worker.figures(unit_of_name(f"mac-fp4_e2m1-e4m3{cut}")) for cut in ("", "-cut1"))
    assert cut.delay_ps < whole.delay_ps
    assert cut.area_um2 > whole.area_um2


def test_a_tight_clock_buys_speed_with_area(worker, toy_file):
    unit = unit_of_name("mac-fp4_e2m1-e4m3")
    relaxed, tight = Characteriser(Settings((str(toy_file),), clock_ghz=20.0)).all_figures(unit)
    assert (relaxed.target_ghz, tight.target_ghz) == (None, 20.0)
    assert tight.delay_ps <= relaxed.delay_ps
    assert tight.area_um2 >= relaxed.area_um2


def test_zeros_cost_less_than_operands(figures):
    for found in figures.values():
        zero, uniform = found.energy["zero"], found.energy["uniform"]
        assert zero.total_fj < uniform.total_fj
        assert zero.combinational_timed_fj < 0.05 * uniform.combinational_timed_fj
        assert (
            found.energy["gaussian"].combinational_glitch_free_fj
            < found.energy["gaussian"].combinational_timed_fj
        )


def test_a_wrong_gate_is_noticed(worker):
    unit = unit_of_name("mac-int2-int8")
    netlist = synthesise(unit.module(worker.cells.full_adder), worker.cells)
    prove(unit, Network(netlist, worker.cells, worker.conditions))
    index = next(i for i, (_, cell, _) in enumerate(netlist.cells) if cell == "XOR2")
    name, _, pins = netlist.cells[index]
    wrong = (*netlist.cells[:index], (name, "NAND2", pins), *netlist.cells[index + 1 :])
    with pytest.raises(AssertionError, match="gates give"):
        prove(unit, Network(replace(netlist, cells=wrong), worker.cells, worker.conditions))


def test_float_units_are_proved_in_gates(worker):
    """`figures` proves before it measures: window, scales, rounding and cuts, in gates of the library."""
    unit = unit_of_name("dot2-fp6_e3m2-al4-e8m0-fp16-cut2")
    netlist = synthesise(unit.module(worker.cells.full_adder), worker.cells)
    prove(unit, Network(netlist, worker.cells, worker.conditions))


def test_synthesis_ends_with_its_time(worker):
    unit = unit_of_name("mac-int4-int16")
    began = time.monotonic()
    with pytest.raises(InputError, match="longer than"):
        synthesise(unit.module(worker.cells.full_adder), worker.cells, time_limit_s=0.05)
    assert time.monotonic() - began < 10


def test_what_yosys_says_is_passed_on(worker, monkeypatch):
    script = synthesis._script
    monkeypatch.setattr(
        synthesis, "_script", lambda *args: script(*args).replace("read_rtlil", "read_nothing")
    )
    with pytest.raises(InputError, match="Yosys failed: ERROR: No such command: read_nothing"):
        synthesise(unit_of_name("mac-int2-int8").module(), worker.cells)


def test_a_missing_tool_is_named(monkeypatch, toy_file):
    monkeypatch.setattr(synthesis, "find_spec", lambda name: None if name == "pyosys" else name)
    with pytest.raises(InputError, match=r"pyosys is not installed; .* allowed: pip install .*\[rtl\]"):
        Characteriser(Settings((str(toy_file),)))


def test_what_is_done_is_not_done_again(tmp_path, toy_file, monkeypatch):
    units = [unit_of_name(name) for name in ("mac-int2-int8", "mac-int2-int9")]
    settings = Settings((str(toy_file),))
    steps = []
    first = dict(
        characterise(units[:1], settings, tmp_path / "kept", progress=lambda *step: steps.append(step))
    )
    assert steps == [("mac-int2-int8", 1, 1)]
    asked = []
    whole = Characteriser.all_figures
    monkeypatch.setattr(
        Characteriser, "all_figures", lambda self, unit: asked.append(unit.name) or whole(self, unit)
    )
    again = dict(characterise(units, settings, tmp_path / "kept"))
    assert asked == ["mac-int2-int9"]
    assert again[units[0]] == first[units[0]]
    list(characterise(units[:1], replace(settings, clock_ghz=1.0), tmp_path / "kept"))
    assert asked == ["mac-int2-int9", "mac-int2-int8"]


@pytest.mark.parametrize("kept", ["[]", '["x"]', '{"a": 1}', "[1]", "null", "[{", ""])
def test_kept_figures_that_are_damaged_are_made_again(tmp_path, toy_file, kept):
    unit = unit_of_name("part-register-1")
    settings = Settings((str(toy_file),))
    ((_, first),) = characterise([unit], settings, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(kept)
    assert list(characterise([unit], settings, tmp_path)) == [(unit, first)]


def test_two_processes_give_the_same_figures(toy_file):
    units = [unit_of_name(name) for name in ("mac-int2-int8", "mac-int2-int9")]
    settings = Settings((str(toy_file),))
    assert list(characterise(units, settings, jobs=2)) == list(characterise(units, settings))


def die(name):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_said(toy_file, monkeypatch):
    monkeypatch.setattr("simulator.rtl.characterise._one", die)
    units = [unit_of_name(name) for name in ("mac-int2-int8", "mac-int2-int9")]
    with pytest.raises(InputError, match=r"--jobs: a worker was killed.*found 2"):
        list(characterise(units, Settings((str(toy_file),)), jobs=2))


def test_what_fails_names_its_unit(toy_file):
    settings = Settings((str(toy_file),), time_limit_s=0.01)
    with pytest.raises(InputError, match=r"unit mac-int2-int8: synthesis took longer than 0.01 s"):
        list(characterise([unit_of_name("mac-int2-int8")], settings))


def test_a_library_has_the_node_that_is_known(sg13g2_files):
    with pytest.raises(InputError, match=r"--node-nm: IHP SG13G2 is a library of 130 nm .found 7"):
        Characteriser(Settings(tuple(map(str, sg13g2_files)), node_nm=7))


def test_a_run_uses_the_table(tmp_path, toy_file, capsys):
    table = tmp_path / "toy.csv"
    code = main(["characterize", "--liberty", str(toy_file), "--unit", "mac-int4-int16", "-o", str(table)])
    assert code == 0
    assert not table.with_suffix(".partial").exists()
    rows = {(row.quantity, row.event): row for row in read_table(table)}
    assert {row.quality for row in rows.values()} == {"synthesised"}
    technology = {"base": "published_45nm", "tables": [str(table)]}
    changes = {"pe.weights": "int4", "pe.activations": "int4", "pe.accumulator": "int16"}
    report = sim.gemm(
        8, 16, 4, arch="systolic_os_8x8", weights="int4", activations="int4", technology=technology, **changes
    )
    pe = next(row for row in report.components.to_dict("records") if row["component"] == "pe")
    assert pe["area_um2"] == pytest.approx(64 * rows["area_um2", ""].value)
    macs = 8 * 16 * 4
    energy = macs * (rows["energy_pj", "mac int4 x int4"].value + rows["energy_pj", "step int4 x int4"].value)
    assert pe["energy_pj"] > energy
    assert "Liberty SHA-256" in json.dumps(report.to_json())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--liberty: a cell library is needed"),
        (("--liberty", "nothing.lib", "-o", "t.csv"), "nothing.lib: Liberty file cannot be opened"),
        (("--liberty", "nothing.lib", "-o", "t.txt"), "-o: the table needs a name"),
        (("--liberty", "nothing.lib"), "-o: the table needs a name"),
        (("--unit", "mac-int8-int31x", "--list"), "--unit: no such unit"),
        (("--unit", "mac-ternary-int32", "--list"), "no such unit: weights: a PE takes elements"),
        (("--unit", "dot9999-int4-int32", "--list"), "no such unit: lanes: Input should be less than"),
        (
            ("--unit", "bitmod-l4-guard99-fp32", "--list"),
            "no such unit: guard_bits: input should be less than",
        ),
        (("--json",), "--json: only with --list"),
        (
            (
                "--liberty",
                str(Path(__file__).with_name("toy.lib")),
                "--dont-use",
                "AOI22",
                "--unit",
                "mac-int2-int8",
                "-o",
                "t.csv",
            ),
            "the library has no full adder",
        ),
        (("--liberty", "nothing.lib", "--clock-ghz", "0", "-o", "t.csv"), "--clock-ghz: must be above zero"),
    ],
)
def test_bad_input_is_one_message(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["characterize", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_units_are_listed_exactly(capsys):
    assert main(["characterize", "--list", "--json", "--unit", "dot32-fp8_e4m3-al22-e8m0-fp32-cut3"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "dot32-fp8_e4m3-al22-e8m0-fp32-cut3",
            "family": "dot product",
            "weights": "fp8_e4m3",
            "activations": "fp8_e4m3",
            "lanes": 32,
            "accumulator": "fp32",
            "alignment": "all products once, 22 bits below the largest exponent, 24 a product",
            "align_window": 22,
            "scales": "e8m0",
            "scale_product_bits": None,
            "accumulator_aligned_with_products": False,
            "rounding": "nearest even",
            "promoted_to_fp32_every": None,
            "operand_words": {
                "weights": "floating, 1 layout in 8 bits",
                "activations": "floating, 1 layout in 8 bits",
            },
            "pipeline_cuts": ["normalise", "compress", "exponent"],
            "latency_cycles": 5,
            "stationary": "outputs",
            "doubled": False,
            "registers_counted": "operands, scales, flag of a new sum, cuts, accumulator",
        }
    ]
    assert main(["characterize", "--list"]) == 0
    assert "mac-int8-int32" in capsys.readouterr().out


SAMPLE = (
    "mac-int8-int32",
    "mac-fp8_e4m3-fp32-cut1",
    "lmul-fp8_e4m3",
    "bitmod_encoder-l4",
    "mixpe-int4xint8-int32-double",
    "lut_keys-int2-l4",
    "stripes_dispatcher-int8+int7+int6+int5+int4+int3+int2+uint8",
    "part-register-1",
    "part-int_adder-8",
    "decode-figna-fp16-g3",
    "output_adder-int32",
    pytest.param("dot16-int4-fp8_e4m3-fp32-cut2", marks=pytest.mark.slow),
    pytest.param("rescale-int32-z8x8-s11-cut10", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize(("technology", "clock_ghz"), [("asap7", 1.0), ("sg13g2", 0.2)])
def test_shipped_tables_come_out_again(technology, clock_ghz, name, request, tmp_path):
    """Units of every family, synthesised anew, for the area and for the clock. Other tool versions may differ a
    little."""
    files = sorted(request.getfixturevalue(f"{technology}_files"))
    worker = Characteriser(Settings(tuple(map(str, files)), clock_ghz=clock_ghz))
    unit, made = unit_of_name(name), tmp_path / "made.csv"
    made.write_text(table_text(r for figures in worker.all_figures(unit) for r in worker.rows(unit, figures)))

    def rows_of(path):
        rows = [row for row in read_table(path) if row.note.startswith(f"{name}:")]
        return {(row.kind, row.params, row.quantity, row.event): row.value for row in rows}

    shipped = rows_of(Path(sim.__file__).parent / "hardware" / "tables" / f"{technology}.csv")
    assert shipped == pytest.approx(rows_of(made), rel=0.02)


def test_table_text_has_every_column(worker, figures):
    unit = unit_of_name("mac-int4-int16")
    text = table_text(worker.rows(unit, figures[unit.name]))
    assert text.startswith("kind,params,quantity,event,value,")
    assert len(text.splitlines()) == 1 + 3 + 3


@pytest.mark.slow
def test_units_of_a_machine_price_all_its_logic(tmp_path, toy_file, capsys):
    """Everything but memories comes from a table of these alone."""
    table = tmp_path / "toy.csv"
    arguments = ["--liberty", str(toy_file), "--node-nm", "45", "--arch", "systolic_ws_8x8", "-o", str(table)]
    assert main(["characterize", *arguments]) == 0
    assert "of no unit by default, so made of parts: skew" in capsys.readouterr().err
    technology = {"base": "published_45nm", "tables": [str(table)]}
    report = sim.gemm(16, 16, 16, arch="systolic_ws_8x8", clock_ghz=0.05, technology=technology)
    logic = [each for each in report.to_json()["costs"]["components"] if each["kind"] not in ("sram", "dram")]
    assert {each["component"] for each in logic} == {"pe", "skew", "output_adders", "rescale", "vector"}
    sources = {constant["source"] for each in logic for constant in each["constants"]}
    assert all("Liberty SHA-256" in source for source in sources)


def test_machines_that_are_not_there_are_named(capsys):
    assert main(["characterize", "--list", "--arch", "systolic_xs"]) == 2
    assert "systolic_xs" in capsys.readouterr().err
