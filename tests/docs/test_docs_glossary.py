"""Every key and column that the glossary names exists, and every cause and dataflow of the code is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import simulator as sim
from simulator.arch import Accelerator
from simulator.array.dataflow import DATAFLOWS
from simulator.array.schedule import CAUSES
from simulator.pe import pe_model

TEXT = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| name |")
]
KEYS = [key for row in ROWS if not row[2].startswith("workload") for key in re.findall(r"`([^`]+)`", row[2])]
COLUMNS = [column for row in ROWS for column in re.findall(r"`([^`]+)`", row[3])]


def test_every_row_has_all_columns() -> None:
    assert {len(row) for row in ROWS} == {5}


def test_a_name_is_explained_once() -> None:
    names = [row[0] for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("key", KEYS)
def test_key_is_one_of_the_accelerators(key: str) -> None:
    model: type[BaseModel] = Accelerator
    for part in key.split("."):
        assert part in model.model_fields, key
        inner = pe_model("mac") if part == "pe" else model.model_fields[part].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner


def test_every_key_of_array_and_pe_is_in_the_glossary() -> None:
    keys = {f"array.{key}" for key in Accelerator.model_fields["array"].annotation.model_fields}  # type: ignore[union-attr]
    keys |= {f"pe.{key}" for key in pe_model("mac").model_fields}
    assert keys <= set(KEYS)


@pytest.fixture(scope="module")
def columns() -> set[str]:
    """Columns of a run that spills, so that partial sums are moved."""
    changes = {"mapping.tile_k": 8, "mapping.tile_n": 8, "mapping.order": "kmn"}
    report = sim.gemm(8, 16, 24, arch="systolic_os_8x8", **changes)
    tables = {
        "": report.layers,
        "components.": report.components,
        "cycle_stack.": report.cycle_stack,
        "energy.": report.energy,
    }
    return {prefix + name for prefix, table in tables.items() for name in table.columns}


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "weight_sqnr_db"])
def test_column_is_one_of_the_reports(column: str, columns: set[str]) -> None:
    pattern = re.compile(re.sub(r"<\w+>", r"\\w+", column))
    assert any(pattern.fullmatch(name) for name in columns)


def test_every_cause_and_dataflow_is_named() -> None:
    named = set(re.findall(r"`([^`]+)`", TEXT))
    assert {*CAUSES, "vector", *DATAFLOWS} <= named
