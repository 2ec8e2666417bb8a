"""docs/accelerators.md: its example runs, every key is in its tables, and defaults are those of the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import simulator as sim
from simulator.arch import Accelerator
from simulator.arch.accelerator import (
    ArraySection,
    BufferSection,
    DramSection,
    FormatsSection,
    MappingSection,
    VectorSection,
)
from simulator.pe import FAMILIES
from simulator.pe.mac import MacPE

OURS = {family for family, (module, _) in FAMILIES.items() if module.startswith("simulator.")}
"""Without those that other tests announce."""

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "accelerators.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "## Keys": Accelerator,
    "### `array`": ArraySection,
    "### `pe`": MacPE,
    "### `formats`": FormatsSection,
    "### `buffers`": BufferSection,
    "### `dram`": DramSection,
    "### `mapping`": MappingSection,
}


@pytest.fixture
def example(tmp_path, monkeypatch) -> None:
    found = re.search(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert found is not None
    (tmp_path / "small.yaml").write_text(found[1])
    monkeypatch.chdir(tmp_path)


def test_the_example_runs(example) -> None:
    machine = sim.load_accelerator("small.yaml")
    report = sim.gemm(32, 64, 32, arch=machine)
    assert report.technology.node_nm == 32
    assert report.cycles > 0


def test_the_program_runs(example) -> None:
    for program in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(compile(program, "docs/accelerators.md", "exec"), {})
    assert sim.load_accelerator("small.yaml", {"technology": "published_45nm"}).array.rows == 16


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_table_has_every_key_and_its_default(heading: str) -> None:
    section = TEXT.partition(f"\n{heading}\n")[2]
    section = re.split(r"\n##+ ", section)[0]
    rows = {}
    for keys, default in re.findall(r"^\| (`[^|]+`) \| ([^|]*)\|", section, flags=re.MULTILINE):
        rows |= dict.fromkeys(re.findall(r"`(\w+)`", keys), default.strip())
    fields = {name: field for name, field in SECTIONS[heading].model_fields.items() if name != "family"}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        if field.is_required():
            assert rows[name] == "", name
        elif field.default not in (None, "") and not isinstance(field.default, BaseModel):
            shown = rows[name].strip("`")
            assert shown == str(field.default).lower(), name


def test_the_vector_unit_is_described() -> None:
    assert set(VectorSection.model_fields) == {"lanes", "ranks"}
    assert "`lanes`: elements a cycle" in TEXT
    assert f"`ranks` ({VectorSection.model_fields['ranks'].default})" in TEXT


def test_every_family_is_named_with_its_page() -> None:
    links = re.findall(r"\[([^\]]*)\]\((?:processing-elements/)?[\w-]+\.md[^)]*\)", TEXT)
    assert {name for link in links for name in re.findall(r"`(\w+)`", link)} == OURS


def test_formats_of_an_accelerator_stand_behind_the_users_and_before_the_workloads() -> None:
    def weights(arch: str, **chosen: str) -> str:
        report = sim.run("bert-base", arch, layers=1, prefill=4, **chosen)
        return str(report.to_json()["formats"]["weights"])

    assert weights("mixpe_w4a8", weights="int4_channel") == "int4_channel"
    assert weights("bitmod") == "bitmod_fp4_g128"
    assert weights("systolic_ws_16x16") == "int8_channel"
