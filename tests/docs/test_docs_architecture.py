"""The page on architecture is true: what rooms import, its example of a PE, the tests it names."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import simulator as sim
import simulator.pe
from simulator.arch import load_accelerator
from simulator.formats import get_format
from simulator.formats.entry_points import PROTOCOL_VERSION as FORMAT_VERSION
from simulator.pe.base import PE
from simulator.pe.mac import MacPE
from simulator.pe.protocol import PROTOCOL_VERSION as PE_VERSION
from simulator.pe.protocol import DataTiming, Function, ProcessingElement

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = {folder.name for folder in (ROOT / "simulator").iterdir() if (folder / "__init__.py").exists()}


def imports(room: str) -> set[str]:
    """Modules of the project that a room imports, as dotted names."""
    found = set()
    for file in (ROOT / "simulator" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("simulator.")}


def used_rooms(room: str) -> set[str]:
    return {name.split(".")[1] for name in imports(room)} & ROOMS - {room}


def room_table() -> dict[str, set[str]]:
    section = TEXT.partition("## Rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", section, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", uses)) & ROOMS for room, uses in rows}


def test_table_has_every_room_and_what_it_imports() -> None:
    assert room_table() == {room: used_rooms(room) for room in ROOMS}


def test_picture_shows_every_room_above_what_it_imports() -> None:
    picture = TEXT.split("```")[1]
    floors = [set(re.findall(r"(?:^ |│ )(\w+)", floor, re.MULTILINE)) for floor in re.split("─+", picture)]
    level = {room: height for height, floor in enumerate(floors) for room in floor & ROOMS}
    assert level.keys() == ROOMS
    for room in ROOMS:
        assert all(level[room] < level[used] for used in used_rooms(room)), room


def test_report_knows_only_the_record_of_the_engine() -> None:
    engine = {name for name in imports("report") if name.startswith("simulator.engine")}
    assert all(name.startswith("simulator.engine.record") for name in engine)


@pytest.mark.parametrize("protocol", [ProcessingElement, DataTiming, Function])
def test_page_names_every_member_of_a_protocol(protocol: type) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{protocol.__name__}`"))
    members = {name for name in vars(protocol) if not name.startswith("_")}
    assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == members


def test_page_names_the_versions_of_the_protocols() -> None:
    assert f"| `ProcessingElement` {PE_VERSION} |" in TEXT
    assert f"| `Format` {FORMAT_VERSION} |" in TEXT


@pytest.mark.parametrize("base", re.findall(r"^\| `(simulator\.pe\.[\w.]+PE)` \|", TEXT, re.MULTILINE))
def test_named_bases_are_classes_to_derive_from(base: str) -> None:
    module, _, name = base.rpartition(".")
    assert issubclass(getattr(import_module(module), name), PE)


def test_named_tests_exist() -> None:
    existing = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 10
    assert named <= existing


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> type[MacPE]:
    """The page's PE, announced as an installed package would."""
    example = next(code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "SerialPE" in code)
    scope: dict[str, Any] = {"__name__": __name__}
    exec(compile(example, "architecture.md", "exec", dont_inherit=True), scope)
    model: type[MacPE] = scope["SerialPE"]
    installed = importlib.metadata.EntryPoint("serial", "my_package.serial:SerialPE", "simulator.pe")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda point: model)
    monkeypatch.setattr(
        simulator.pe, "entry_points", lambda *, group: [installed] if group == installed.group else []
    )
    return model


def machine(family: str) -> dict[str, Any]:
    return {
        "name": family,
        "clock_ghz": 1.0,
        "technology": "published_45nm",
        "array": {"dataflow": "os", "rows": 4, "cols": 4},
        "pe": {"family": family, "weights": ["int4"], "activations": ["int8"]},
        "buffers": {name: {"kib": 4} for name in ("weights", "activations", "outputs")},
        "vector": {"lanes": 4},
        "dram": {"bandwidth_gb_per_s": 100},
    }


@pytest.mark.usefixtures("serial")
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_pe_of_another_package_runs(engine: str) -> None:
    run: dict[str, Any] = {"weights": "int4", "activations": "int8", "engine": engine}
    serial = sim.gemm(4, 16, 4, arch=machine("serial"), **run)
    mac = sim.gemm(4, 16, 4, arch=machine("mac"), **run)
    # T + r + c - 2 with p = ii = 1; the four bits of a step take four cycles each: 4 T + r + c - 2.
    assert mac.layer_reports[0].record.compute_cycles == 16 + 4 + 4 - 2
    assert serial.layer_reports[0].record.compute_cycles == 4 * 16 + 4 + 4 - 2
    # Four additions of 12 bits on the line through 8 bits (0.03 pJ) and 16 bits (0.05 pJ): 0.04 pJ each.
    pe = next(component for component in serial.component_reports if component.priced.name == "pe")
    assert pe.priced.energy_pj["mac int4 x int8"] == pytest.approx(4 * 0.04)


@pytest.mark.usefixtures("serial")
def test_serial_pe_follows_the_bits_of_its_weights() -> None:
    pe = load_accelerator(machine("serial")).element
    assert pe.timing(get_format("int2"), get_format("int8")).initiation_interval == 2
    assert pe.timing(get_format("int4"), get_format("int8")).initiation_interval == 4
