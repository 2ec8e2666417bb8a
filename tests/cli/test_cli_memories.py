"""`simulator memories`: a table that `technology` names, or one message and nothing half-written."""

from __future__ import annotations

import contextlib
import stat
import sys
from pathlib import Path

import pytest
from cli_runs import refused, simulator

from simulator.cli.output import partial_folder
from simulator.hardware import Component, load_technology

PROGRAM = Path(__file__).parents[1] / "hardware" / "data" / "cacti_program.py"


@pytest.fixture
def cacti(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program with CACTI's interface; the test works in a folder of its own."""
    binary = tmp_path / "program" / "cacti"
    (binary.parent / "tech_params").mkdir(parents=True)
    (binary.parent / "tech_params" / "45nm.dat").write_text("-Vdd (V) 1 1.1 0.7 1.1 1.1\n")
    binary.write_text(f"#!{sys.executable}\n{PROGRAM.read_text()}")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return binary


def test_a_finished_table_leaves_only_what_is_somebody_elses(tmp_path: Path) -> None:
    kept = ("0123456789abcdef", "0123456789abcdef.out", "0123456789abcdef.log", "unit.0123456789abcdef.json")
    with partial_folder(tmp_path / "mine.csv") as folder:
        for name in (*kept, "notes.txt"):
            (folder / name).write_text("")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    with contextlib.suppress(KeyboardInterrupt), partial_folder(tmp_path / "mine.csv") as folder:
        (folder / kept[0]).write_text("")
        raise KeyboardInterrupt
    assert (folder / kept[0]).exists()
    with partial_folder(tmp_path / "mine.csv"):
        pass
    assert not folder.exists()


def test_the_table_prices_memories(cacti: Path) -> None:
    words = [
        "--cacti",
        cacti,
        "--node-nm",
        45,
        "--cell",
        "itrs-lop",
        "--temperature-k",
        350,
        "--ports",
        "1rw",
    ]
    sizes = ["--width-bits", 32, "--width-bits", 64, "--words", 128, "--words", 256]
    assert simulator("memories", *words, *sizes, "--jobs", 2, "-o", "mine.csv") == (0, "", "")
    assert [path.name for path in Path().iterdir()] == ["mine.csv"]
    technology = load_technology("mine.csv")
    assert "SRAM itrs-lop at 0.7 V and 76.85 C" in technology.description
    memory = technology.price(Component("b", "sram", {"bytes": 1024, "width_bits": 64}))
    assert memory.area_um2 == pytest.approx(1024)
    assert memory.energy_pj == pytest.approx({"read": 1.024, "write": 2.048})
    assert memory.quality == "compiled"
    with_logic = load_technology({"base": ["mine.csv", "published_45nm"]})
    assert (
        with_logic.price(Component("b", "sram", {"bytes": 1024, "width_bits": 64})).area_um2
        == memory.area_um2
    )


def test_what_cannot_be_made_is_one_message_and_no_table(cacti: Path) -> None:
    good = ["memories", "--cacti", cacti, "--node-nm", 45]
    for words, message in (
        (["memories", "--node-nm", 45, "-o", "t.csv"], "memories --cacti: this option is missing"),
        (
            [*good[:3], "--node-nm", 130, "-o", "t.csv"],
            "not a node of CACTI's (found 130.0); allowed: 22 to 90",
        ),
        ([*good, "--cell", "sram", "-o", "t.csv"], "allowed: itrs-hp, itrs-lstp, itrs-lop"),
        ([*good, "--ports", "2rw", "-o", "t.csv"], "allowed: 1rw, 1r1w"),
        ([*good, "--jobs", 0, "-o", "t.csv"], "--jobs: must be at least 1"),
        ([*good, "-o", "t.txt"], "allowed: a .csv file"),
        ([*good, "-o", "nowhere/t.csv"], "no such folder"),
        (
            ["memories", "--cacti", "gone", "--node-nm", 45, "-o", "t.csv"],
            "gone: --cacti: CACTI is not there",
        ),
        (
            [*good, "--words", 64, "--width-bits", 8, "-o", "t.csv"],
            "CACTI gives no results: ERROR: no valid tag",
        ),
    ):
        assert message in refused(*words)
        assert not list(Path().glob("*.csv"))


def test_a_file_where_the_folder_of_what_is_done_belongs_is_one_message(cacti: Path) -> None:
    Path("t.partial").write_text("mine")
    said = refused("memories", "--cacti", cacti, "--node-nm", 45, "-o", "t.csv")
    assert "t.partial: cannot keep what is done: File exists" in said
    assert Path("t.partial").read_text() == "mine"


def test_a_run_that_failed_goes_on_where_it_was(cacti: Path) -> None:
    words = ["--cacti", cacti, "--node-nm", 45, "--ports", "1rw", "--width-bits", 8, "--words", 32]
    refused("memories", *words, "--words", 64, "-o", "t.csv")
    assert Path("t.partial").is_dir()
    assert simulator("memories", *words, "-o", "t.csv").code == 0
    assert (cacti.parent / "runs").read_text().split() == ["32", "64"]
    assert not Path("t.partial").exists()


@pytest.mark.parametrize(
    ("technology", "words"),
    [
        ("asap7", ["cacti_32nm_lstp.csv", "ASAP7 SRAM macro", "by 1 macro of this process (1024 x 64)"]),
        ("sg13g2", ["cacti_90nm_lstp.csv", "IHP Open PDK", "by 4 macros of this process"]),
    ],
)
def test_explain_says_how_memories_came_to_their_node(
    technology: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ("--set", f"technology={technology}", "--set", "clock_ghz=0.1")
    ran = simulator("gemm", 32, 32, 32, "--arch", "systolic_ws_8x8", *changes, "--json")
    assert ran.code == 0, ran
    Path("report.json").write_text(ran.out)
    told = " ".join(simulator("explain", "report.json").out.split())
    for expected in [*words, "SRAM: macros of CACTI 7", "leakage_nw"]:
        assert expected in told
