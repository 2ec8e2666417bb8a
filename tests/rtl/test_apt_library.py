"""A real cell library that apt brings: from its Liberty file to a run, with nothing but documented packages.

OSU 0.18 um (Oklahoma State University; Debian package ``qflow-tech-osu018``). It is used where it is installed and is
no part of the project; its units (ns, pF, negative or missing tables) differ from those of the shipped technologies'.
"""

import re
from pathlib import Path

import pytest

pytest.importorskip("amaranth")
pytest.importorskip("pyosys")

import simulator as sim
from simulator.cli import main
from simulator.hardware import load_technology
from simulator.rtl.units import unit_of_name

pytestmark = pytest.mark.rtl

LIBRARY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
INT8, FP8 = "mac-int8-int32", "mac-fp8_e4m3-fixed42"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    if not LIBRARY.exists():
        pytest.skip("apt install qflow-tech-osu018 brings the library that this test reads")
    path = tmp_path_factory.mktemp("osu018") / "osu018.csv"
    words = ["--liberty", str(LIBRARY), "--node-nm", "180", "--unit", INT8, "--unit", FP8]
    assert main(["characterize", *words, "-o", str(path)]) == 0
    return path


def test_figures_are_those_of_its_node(table):
    prices = {
        name: load_technology(str(table)).price(unit_of_name(name).components()[0]) for name in (INT8, FP8)
    }
    # Cells of 16 to 100 um2, some 40 flops and 400 gates; an FO4 delay of about 80 ps.
    assert 15_000 < prices[INT8].area_um2 < 30_000
    assert 3_000 < prices[INT8].delay_ps < 8_000
    assert prices[INT8].quality == "synthesised"
    # As at 7 nm and at 130 nm: an exact FP8 MAC is a third to a half larger than an INT8 MAC.
    assert 1.2 < prices[FP8].area_um2 / prices[INT8].area_um2 < 1.6


def test_a_run_uses_it_and_is_refused_above_its_clock(table, capsys):
    technology = f"technology={{base: published_45nm@180nm, tables: [{table}]}}"
    words = ["gemm", "16", "16", "16", "--arch", "systolic_os_8x8", "--weights", "int8", "--set", technology]
    words += ["--set", "pe.weights=int8"]
    assert main([*words, "--set", "clock_ghz=0.1"]) == 0
    assert "synthesised" in capsys.readouterr().out
    assert main(words) == 2
    delay = load_technology(str(table)).price(unit_of_name(INT8).components()[0]).delay_ps
    (said,) = re.findall(r"allowed: at most ([\d.]+) GHz", capsys.readouterr().err)
    assert 0.999 * 1000 / delay < float(said) <= 1000 / delay


def test_explain_says_where_its_numbers_come_from(table):
    report = sim.gemm(
        8,
        8,
        8,
        arch="systolic_os_8x8",
        clock_ghz=0.1,
        technology={"base": "published_45nm@180nm", "tables": [str(table)]},
        **{"pe.weights": "int8"},
    )
    (pe,) = (found for found in report.component_reports if found.priced.name == "pe")
    for used in pe.priced.constants:
        assert used.constant.quality == "synthesised"
        for said in (
            "osu018_stdcells.lib at 1.8 V, 25 C",
            "Liberty SHA-256",
            "pyosys",
            "RTL",
            "target relaxed",
        ):
            assert said in used.constant.source
