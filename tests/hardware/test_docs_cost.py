"""docs/cost.md is true: its examples run, and its tables are the shipped ones."""

from __future__ import annotations

import doctest
import math
import os
import re
from pathlib import Path

import pytest

from simulator.hardware import QUALITIES, load_technology
from simulator.hardware.cacti import Cacti, Macro, Settings
from simulator.hardware.table import LEAKAGE_DENSITY, CostRow, param_text

REAL = os.environ.get("SIMULATOR_CACTI")
PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")


def table_under(heading: str) -> list[list[str]]:
    """Cells of the rows of the first table under a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    first = rows[1:].index("|" + "---|" * (rows[0].count("|") - 1)) + 2
    found = []
    for line in rows[first:]:
        if line.count("|") != rows[0].count("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def rows_of(table: str) -> list[CostRow]:
    return [row for row in load_technology("published_45nm").table.rows if row.origin.startswith(table)]


def test_examples_print_what_the_page_says() -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 8
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "cost.md", None, None)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_logic_table_is_the_shipped_one() -> None:
    shipped = {(row.kind, param_text(row.params), row.quantity): row.value for row in rows_of("horowitz")}
    page = {}
    for kind, params, energy, area in table_under("`published_45nm`: logic"):
        page[kind, params, "energy_pj"] = float(energy)
        page[kind, params, "area_um2"] = float(area)
    assert page == shipped


def test_table_of_registers_and_leakage_is_the_shipped_one() -> None:
    shipped = {
        (row.kind, param_text(row.params), f"{row.quantity} {row.event}".strip()): row.value
        for row in rows_of("aladdin")
    }
    page = {
        (kind, params, quantity): float(value)
        for kind, params, quantity, value, _ in table_under(
            "`published_45nm`: registers, shifters, multiplexers, comparators, leakage"
        )
    }
    assert page == pytest.approx(shipped)


def test_quotients_beside_the_leakage_densities_are_their_values() -> None:
    densities = [row for row in rows_of("aladdin") if row.quantity == LEAKAGE_DENSITY]
    assert len(densities) == 4
    for row in densities:
        leakage, area = re.search(r"([\d.]+) nW / ([\d.]+) um2", row.note).groups()
        assert row.value == pytest.approx(float(leakage) / float(area), rel=1e-6)


QUANTITIES = {"area um2": "area_um2", "leakage nW": "leakage_nw", "access ps": "delay_ps"}


def test_table_of_memories_compares_every_published_macro_with_ours() -> None:
    page = {}
    for technology, size, quantity, published, ours, ratio in table_under("`asap7` and `sg13g2`: memories"):
        words, width = size.split(" x ")
        memory = {"bytes": int(words) * int(width) // 8, "width_bits": int(width)}
        event = quantity.removesuffix(" pJ") if quantity.endswith(" pJ") else ""
        asked = (QUANTITIES.get(quantity, "energy_pj"), event)
        found = load_technology(technology).constant("sram", memory, *asked)
        assert float(ours) == pytest.approx(found.value, rel=5e-4)
        assert float(ratio) == pytest.approx(found.value / float(published), abs=0.006)
        page[technology, f"ports=1rw width_bits={width} words={words}", *asked] = float(published)
    shipped = {
        (technology, param_text(row.params), row.quantity, row.event): row.value
        for technology in ("asap7", "sg13g2")
        for row in load_technology(technology).table.rows
        if row.kind == "sram_reference"
    }
    assert page == pytest.approx(shipped, rel=1e-5)


@pytest.mark.skipif(not REAL, reason="SIMULATOR_CACTI names no CACTI binary")
def test_table_of_cells_is_what_cacti_gives(tmp_path: Path) -> None:
    section = PAGE.split("### Which cell\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.MULTILINE)
    assert len(rows) == 6
    for node, cell, read, leakage, access in rows:
        got, _ = Cacti(Path(str(REAL))).run(Macro(1024, 64, "1rw"), Settings(float(node), cell), tmp_path)
        assert (got.read_pj, got.leakage_nw / 1e3, got.access_ps) == pytest.approx(
            (float(read), float(leakage), float(access)), rel=1e-3
        )


def test_dram_table_is_the_shipped_one() -> None:
    shipped = {(dict(row.params)["device"], row.event): row.value for row in rows_of("dram")}
    page = {}
    for device, read, write, _ in table_under("`published_45nm`: DRAM"):
        page[device, "read_bit"], page[device, "write_bit"] = float(read), float(write)
    assert page == shipped


def test_exponents_of_the_growth_laws_are_those_of_the_points() -> None:
    sizes = {
        "int_multiplier": (64, 1024),
        "fp_multiplier": (11**2 + 3 * 5, 24**2 + 3 * 8),
        "fp_adder": (11 * math.log2(11) + 4 * 5, 24 * math.log2(24) + 4 * 8),
    }
    for kind, (small, large) in sizes.items():
        line = next(
            line for line in PAGE.splitlines() if line.startswith(f"| {kind} |") and "power law" in line
        )
        page = [float(number) for number in line.strip("| ").split("|")[-1].split(",")]
        for exponent, quantity in zip(page, ("energy_pj", "area_um2"), strict=True):
            low, high = (
                row.value for row in rows_of("horowitz") if (row.kind, row.quantity) == (kind, quantity)
            )
            assert exponent == pytest.approx(math.log(high / low) / math.log(large / small), abs=6e-4)


def test_qualities_are_listed_from_the_firmest_to_the_softest() -> None:
    assert tuple(cells[0].strip("`") for cells in table_under("Qualities")) == QUALITIES
