"""CACTI asked for macros: its configuration, its results, its failures; and CACTI itself, where there is one."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.hardware.cacti import (
    LARGEST_BYTES,
    Cacti,
    Macro,
    Settings,
    compiled,
    configuration,
    grid,
    read_results,
)
from simulator.hardware.table import CostRow, read_table, table_text

TABLES = Path(__file__).parents[2] / "simulator" / "hardware" / "tables"

# What CACTI 7 wrote for 1024 words of 64 bits, one read-write port, 32 nm, itrs-lstp, 300 K.
OUTPUT = (Path(__file__).parent / "data" / "cacti_output.csv").read_text()

PROGRAM = Path(__file__).parent / "data" / "cacti_program.py"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "cacti"
    (folder / "tech_params").mkdir(parents=True)
    (folder / "tech_params" / "32nm.dat").write_text("-Vth (V) 0.2 0.5 0.2 0.4 1\n-Vdd (V) 0.9 1 0.6 1 1\n")
    (folder / "tech_params" / "28nm.dat").write_text("nothing\n")
    binary = folder / "cacti"
    binary.write_text(f"#!{sys.executable}\n{PROGRAM.read_text()}")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return binary


def test_configuration_asks_for_one_bank_of_plain_memory() -> None:
    lines = configuration(Macro(1024, 64, "1r1w"), Settings(45, "itrs-hp", 360, ecc=True)).splitlines()
    for line in (
        "-size (bytes) 8192",
        "-block size (bytes) 8",
        "-output/input bus width 64",
        "-UCA bank 1",
        "-read-write port 0",
        "-exclusive read port 1",
        "-exclusive write port 1",
        "-technology (u) 0.045",
        "-operating temperature (K) 360",
        '-cache type "ram"',
        '-Data array cell type - "itrs-hp"',
        '-Data array peripheral type - "itrs-hp"',
        '-Optimize ED or ED^2 (ED, ED^2, NONE): "ED^2"',
        '-Add ECC - "true"',
    ):
        assert line in lines
    keys = [line.split('"')[0].rstrip("0123456789.:") for line in lines]
    assert len(set(keys)) == len(keys)
    assert "-read-write port 1" in configuration(Macro(32, 16, "1rw"), Settings(32))
    assert '-Add ECC - "false"' in configuration(Macro(32, 16, "1rw"), Settings(32))


def test_recorded_results_are_read_in_our_units() -> None:
    figures = read_results(OUTPUT, "recorded")
    assert figures.read_pj == pytest.approx(3.44337)
    assert figures.write_pj == pytest.approx(4.27156)
    assert figures.area_um2 == pytest.approx(13287.2)
    assert figures.leakage_nw == pytest.approx(450.01)
    assert figures.access_ps == pytest.approx(843.732)


@pytest.mark.parametrize("text", ["", OUTPUT.splitlines()[0], OUTPUT.replace("0.00344337", "N/A"), "\0\n\0"])
def test_damaged_results_are_one_message(text: str) -> None:
    with pytest.raises(InputError, match=r"there.out: results of CACTI cannot be read"):
        read_results(text, "there.out")


def test_default_grid_reaches_from_32_words_to_16_mib_in_powers_of_two() -> None:
    macros = grid()
    assert len(macros) == len(set(macros)) == 198
    assert {macro.ports for macro in macros} == {"1rw", "1r1w"}
    assert {macro.width_bits for macro in macros} == {16, 32, 64, 128, 256, 512}
    for width in (16, 512):
        words = sorted(macro.words for macro in macros if macro.width_bits == width)
        assert (words[0], words[-1] * width // 8) == (32, LARGEST_BYTES)
    assert grid([24], [100, 7], ["1rw"]) == [Macro(100, 24, "1rw"), Macro(7, 24, "1rw")]


def test_rows_say_how_to_obtain_them_again(program: Path, tmp_path: Path) -> None:
    macros = [Macro(64, 64, "1rw"), Macro(32, 128, "1r1w")]
    cacti = Cacti(program)
    (tmp_path / "t.csv").write_text(table_text(compiled(cacti, macros, Settings(32), tmp_path / "partial")))
    rows = read_table(tmp_path / "t.csv")
    found = {(dict(row.params)["ports"], row.quantity, row.event): row for row in rows}
    assert len(found) == len(rows) == 10
    row = found["1rw", "energy_pj", "write"]
    assert dict(row.params) == {"words": 64, "width_bits": 64, "ports": "1rw", "cell": "itrs-lstp"}
    assert (row.value, row.node_nm, row.vdd, row.temperature_c) == (pytest.approx(1.024), 32, 1.0, 26.85)
    assert row.quality == "compiled"
    for words in ("CACTI 7.0 of a test", cacti.digest[:12], "32 nm", "itrs-lstp", "1 V", "300 K", "no ECC"):
        assert words in row.source
    assert found["1r1w", "delay_ps", ""].value == 500


def test_provenance_changes_with_the_technology_files(program: Path) -> None:
    before = Cacti(program).digest
    (program.parent / "tech_params" / "32nm.dat").write_text("-Vdd (V) 0.8 1 0.6 1 1\n")
    assert Cacti(program).digest != before


def test_an_interrupted_run_goes_on_where_it_was(program: Path, tmp_path: Path) -> None:
    runs, partial = program.parent / "runs", tmp_path / "partial"
    macros = grid([16], [64, 128, 256], ["1rw"])
    rows = compiled(Cacti(program), macros, Settings(32), partial)
    first = [next(rows) for _ in range(5)]
    rows.close()
    done = len(runs.read_text().split())
    again = list(compiled(Cacti(program), macros, Settings(32), partial))
    assert again[:5] == first
    assert len(again) == 15
    assert done <= len(runs.read_text().split()) == len(macros)
    broken = next(partial.glob("*.out"))
    broken.write_text("half a li")
    assert list(compiled(Cacti(program), macros, Settings(32), partial, jobs=3)) == again
    assert len(runs.read_text().split()) == len(macros) + 1
    other = list(compiled(Cacti(program), macros, Settings(32, "itrs-hp"), partial))
    assert other[0]["vdd"] == "0.9"


def test_supply_is_that_of_the_cell_and_unknown_between_nodes(program: Path) -> None:
    cacti = Cacti(program)
    for cell, vdd in (("itrs-hp", 0.9), ("itrs-lstp", 1.0), ("itrs-lop", 0.6)):
        assert cacti.vdd(Settings(32, cell)) == vdd
    assert cacti.vdd(Settings(40)) is None
    with pytest.raises(InputError, match=r"28nm.dat: -Vdd \(V\): names no supply"):
        cacti.vdd(Settings(28))


def test_a_missing_or_failing_cacti_is_one_message(program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"CACTI is not there; .*make opt.*hwcomponents-cacti"):
        Cacti(tmp_path / "nowhere")
    alone = tmp_path / "alone"
    alone.write_text("")
    with pytest.raises(InputError, match="no folder tech_params beside it"):
        Cacti(alone)
    with pytest.raises(InputError, match=r"no results: ERROR: no valid tag .*'32 x 16 1rw'"):
        list(compiled(Cacti(program), [Macro(32, 16, "1rw")], Settings(32), tmp_path))
    program.chmod(0o600)
    with pytest.raises(InputError, match="CACTI does not start: Permission denied"):
        list(compiled(Cacti(program), [Macro(64, 16, "1rw")], Settings(32), tmp_path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Settings(7), "node_nm: not a node of CACTI's .*22 to 90"),
        (lambda: Settings(130), "node_nm"),
        (lambda: Settings(32, "lstp"), "cell: .*itrs-hp, itrs-lstp, itrs-lop"),
        (lambda: Settings(32, temperature_k=305), "temperature_k: .*300 to 400 in steps of 10"),
        (lambda: Macro(0, 16, "1rw"), "words: must be at least 1"),
        (lambda: Macro(16, 12, "1rw"), "width_bits: CACTI counts whole bytes"),
        (lambda: Macro(16, 16, "2rw"), "ports: .*1rw, 1r1w"),
    ],
)
def test_what_cacti_cannot_make_is_refused(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


REAL = os.environ.get("SIMULATOR_CACTI")


def settings_of(row: CostRow) -> Settings:
    temperature = round((row.temperature_c or 0) + 273.15)
    return Settings(
        row.node_nm or 0, str(dict(row.params)["cell"]), temperature, ecc="no ECC" not in row.source
    )


@pytest.mark.skipif(not REAL, reason="SIMULATOR_CACTI names no CACTI binary")
@pytest.mark.parametrize("table", ["cacti_28nm_hp", "cacti_32nm_lstp", "cacti_45nm_lstp", "cacti_90nm_lstp"])
def test_shipped_macros_are_what_cacti_gives(table: str, tmp_path: Path) -> None:
    by_macro: dict[Macro, dict[tuple[str, str], CostRow]] = {}
    for row in read_table(TABLES / f"{table}.csv"):
        params = dict(row.params)
        macro = Macro(int(params["words"]), int(params["width_bits"]), str(params["ports"]))
        by_macro.setdefault(macro, {})[row.quantity, row.event] = row
    assert len(by_macro) >= 36
    cacti = Cacti(Path(str(REAL)))
    for macro in sorted(by_macro, key=str)[:: max(1, len(by_macro) // 6)]:
        shipped = by_macro[macro]
        settings = settings_of(next(iter(shipped.values())))
        rows = {(row["quantity"], row["event"]): row for row in compiled(cacti, [macro], settings, tmp_path)}
        for what, row in shipped.items():
            assert rows[what]["value"] == f"{row.value:.9g}", row.origin
            if row.vdd is not None:
                assert rows[what]["vdd"] == f"{row.vdd:g}"
