"""The index of processing elements lists every family and every accelerator, at the rates of the code."""

from __future__ import annotations

import re

import pytest
from pe_table import BLOCK, PAGE, table

import simulator as sim
from simulator.arch.load import accelerator_names
from simulator.cli import main
from simulator.pe import FAMILIES

TEXT = PAGE.read_text(encoding="utf-8")
FAMILY_ROWS = dict(
    re.findall(r"^\| `(\w+)` (.*)$", TEXT.partition("## Families")[2].partition("\n## ")[0], re.MULTILINE)
)


def test_every_family_has_a_row_and_a_page_that_names_it() -> None:
    ours = {family for family, (module, _) in FAMILIES.items() if module.startswith("simulator.")}
    assert FAMILY_ROWS.keys() == ours
    for family, row in FAMILY_ROWS.items():
        (link,) = re.findall(r"\]\(([^)#]+)", row.rpartition("|")[0].rpartition("|")[2])
        page = (PAGE.parent / link).read_text(encoding="utf-8").lower()
        assert family in page or family.replace("_", "-") in page, (family, link)


def test_every_page_of_the_folder_is_in_the_index() -> None:
    pages = {path.name for path in PAGE.parent.glob("*.md")} - {PAGE.name}
    assert pages <= {link for row in FAMILY_ROWS.values() for link in re.findall(r"\]\(([^)#]+)", row)}


def test_accelerators_and_their_rates_are_those_of_the_code() -> None:
    shown = BLOCK.search(TEXT)
    assert shown is not None
    assert shown[0] == table(), "PYTHONPATH=. python tests/docs/pe_table.py writes it anew"


def test_every_accelerator_is_listed_once() -> None:
    shown = BLOCK.search(TEXT)
    assert shown is not None
    cells = [line.split("|")[2] for line in shown[0].splitlines()[2:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == accelerator_names()


def test_a_refused_pair_is_told_as_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    command, told = re.findall(r"<!-- refused: (.*) -->\n```text\n(.*?)\n```", TEXT, re.DOTALL)[0]
    assert main(command.split()) == 2
    assert capsys.readouterr().err.split() == told.split()


@pytest.mark.parametrize(
    ("arch", "weights", "activations", "rate"),
    [
        ("bitmod", "bitmod_fp4_g128", "fp16", 2),
        ("lut_tensor_core", "int4_channel", "int8_token", 1),
        ("stripes", "int8_channel", "int4_token", 2),
        ("bitvert", "bbs_avg4_g32", "int8_token", 4),
    ],
)
def test_a_rate_is_what_a_long_sum_takes(arch: str, weights: str, activations: str, rate: int) -> None:
    """Cycles that 4096 more values of K take, of one output: fill and drain are the same."""
    cycles = [
        sim.gemm(1, k, 1, arch=arch, weights=weights, activations=activations).layer_reports[0].record
        for k in (4096, 8192)
    ]
    assert 4096 / (cycles[1].compute_cycles - cycles[0].compute_cycles) == rate
