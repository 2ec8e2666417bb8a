"""Accelerator files: whatever a file holds, it is an accelerator or one clear error that names file and key."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.arch import Accelerator, accelerator_names, components, load_accelerator
from simulator.config import dump_yaml
from simulator.errors import InputError
from simulator.hardware import load_technology
from simulator.shipped import shipped_folder

SHIPPED = {path.stem: path.read_text() for path in sorted(shipped_folder("arch_configs").glob("*.yaml"))}
BASE = SHIPPED["systolic_ws_8x8"]
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(file: Path, content: bytes | str) -> Accelerator | InputError:
    """What loading ``content`` gives; any other exception fails the test."""
    file.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    try:
        return load_accelerator(file)
    except InputError as error:
        return error


def error(tmp_path: Path, **changes: object) -> str:
    """Message about the base accelerator with top-level keys replaced."""
    document = {**yaml.safe_load(BASE), **changes}
    result = outcome(tmp_path / "machine.yaml", dump_yaml(document))
    assert isinstance(result, InputError), result
    assert str(result).startswith(f"{tmp_path / 'machine.yaml'}: ")
    return str(result)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_accelerator_loads_and_its_resolved_form_is_the_same_one(name: str, tmp_path) -> None:
    machine = load_accelerator(name)
    assert machine.name == name
    assert machine.source
    again = outcome(tmp_path / "again.yaml", dump_yaml(machine.model_dump(mode="json", exclude_none=True)))
    assert again == machine
    assert load_accelerator(machine) == machine


def test_the_shipped_names_are_the_files() -> None:
    assert accelerator_names() == sorted(SHIPPED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clok_ghz": 1}, r"clok_ghz: no key of this name; allowed: did you mean clock_ghz"),
        ({"pe": None}, r"pe: must hold a PE's parameters"),
        ({"pe": {}}, r"pe\.family: this key is missing; allowed: .*mac"),
        ({"pe": {"family": "mac"}}, r"pe\.weights: this key is missing"),
        ({"pe": {"family": ["mac"]}}, r"pe\.family: no PE of this family"),
        (
            {"pe": {"family": "mac", "weights": "int4", "activations": "int8", "lane": 4}},
            r"pe\.lane: no key of this name; allowed: did you mean lanes",
        ),
        (
            {"pe": {"family": "mac", "weights": "itn4", "activations": "int8"}},
            r"pe\.weights: no number format of this name \(found 'itn4'\); allowed: did you mean int4",
        ),
        (
            {"pe": {"family": "mac", "weights": "int4", "activations": "int8", "lanes": "4"}},
            r"pe\.lanes: input should be a valid integer \(found '4'\)",
        ),
        ({"vector": {"lanes": True}}, r"vector\.lanes: input should be a valid integer \(found True\)"),
        ({"vector": {}}, r"vector\.lanes: this key is missing"),
        ({"buffers": {"weights": {"kib": 64}}}, r"buffers\.activations: this key is missing"),
        ({"technology": [1]}, r"technology: "),
        ({"name": ""}, r"name: "),
        ({"name": "x" * 201}, r"name: "),
    ],
)
def test_a_fault_is_named_with_file_and_key(tmp_path, changes: dict[str, object], message: str) -> None:
    assert re.search(message, error(tmp_path, **changes))


def test_a_change_is_blamed_on_the_change_and_the_rest_on_the_file(tmp_path) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text(BASE.replace("clock_ghz: 1.0", "clock_ghz: -1"))
    with pytest.raises(InputError, match=r"machine\.yaml: clock_ghz"):
        load_accelerator(file, {"array.rows": 8})
    file.write_text(BASE)
    with pytest.raises(InputError) as caught:
        load_accelerator(file, {"array.rows": 0})
    assert str(caught.value).startswith("array.rows: ")


def test_a_contradiction_is_blamed_on_who_made_it(tmp_path) -> None:
    file = tmp_path / "machine.yaml"
    base = BASE.replace("dataflow: ws", "dataflow: os, rows_hold: n")
    file.write_text(base)
    with pytest.raises(InputError, match=r"^array\.rows_hold: .*\(found 'n'\); allowed: k$"):
        load_accelerator(file, {"array.dataflow": "ws"})
    file.write_text(base.replace("dataflow: os", "dataflow: ws"))
    with pytest.raises(InputError, match=r"machine\.yaml: array\.rows_hold: "):
        load_accelerator(file, {"array.rows": 8})


def test_a_buffer_of_whole_bytes_has_whole_banks() -> None:
    machine = load_accelerator(
        "systolic_ws_8x8", {"buffers.outputs": "{kib: 0.0029296875, banks: 3, buffering: 1}"}
    )
    assert machine.buffers.outputs.bytes == 3
    with pytest.raises(InputError, match=r"buffers\.outputs\.kib: .*3 banks \(found 1\.0\)"):
        load_accelerator("systolic_ws_8x8", {"buffers.outputs": "{kib: 1, banks: 3, buffering: 1}"})


def test_what_a_file_lacks_may_come_from_a_change(tmp_path) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text(BASE.replace("clock_ghz: 1.0\n", ""))
    assert load_accelerator(file, {"clock_ghz": "0.7"}).clock_ghz == 0.7
    with pytest.raises(InputError, match="clock_ghz: this key is missing"):
        load_accelerator(file)


def test_a_change_is_read_as_in_the_file() -> None:
    changes = {
        "array.fold_overlap": "true",
        "pe.weights": "[int8]",
        "buffers.outputs": "{kib: 128, ports: 1rw}",
    }
    machine = load_accelerator("systolic_ws_8x8", changes)
    assert machine.array.fold_overlap is True
    assert machine.pe.weights == ("int8",)
    assert (machine.buffers.outputs.kib, machine.buffers.outputs.ports) == (128, "1rw")


@pytest.mark.parametrize("written", ["{base: published_45nm@32nm}", "mine.yaml", "{base: mine.yaml}"])
def test_paths_of_a_technology_are_beside_the_file_that_names_them(
    tmp_path, monkeypatch, written: str
) -> None:
    folder = tmp_path / "machines"
    folder.mkdir()
    (folder / "mine.yaml").write_text("base: published_45nm\nscale_to_nm: 32\n")
    (folder / "machine.yaml").write_text(BASE.replace("technology: asap7", f"technology: {written}"))
    monkeypatch.chdir(tmp_path)
    machine = load_accelerator("machines/machine.yaml")
    assert load_technology(machine.technology).node_nm == 32
    monkeypatch.chdir(folder)
    again = load_accelerator(machine.model_dump(mode="json", exclude_none=True))
    assert load_technology(again.technology).node_nm == 32


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.sampled_from(
        ["mac", "int4", "int8", "os", "fp32", "1rw", "published_45nm", "mnk", "x.csv", "a\0.yaml"]
    )
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@FUZZ
@given(st.binary(max_size=400))
def test_any_bytes_are_an_error_or_an_accelerator(tmp_path, content: bytes) -> None:
    outcome(tmp_path / "machine.yaml", content)


@FUZZ
@given(st.text(alphabet="{}[]&*!|>-:,#'\"%@`\n \tab01.~<?", max_size=200))
def test_any_yaml_punctuation_is_an_error_or_an_accelerator(tmp_path, text: str) -> None:
    outcome(tmp_path / "machine.yaml", BASE + text)


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(sorted(Accelerator.model_fields)) | st.text(max_size=5), plain, max_size=4
    )
)
def test_any_structure_is_an_error_or_an_accelerator(tmp_path, changes: dict[str, object]) -> None:
    outcome(tmp_path / "machine.yaml", dump_yaml({**yaml.safe_load(BASE), **changes}))


@FUZZ
@given(st.sampled_from(sorted(SHIPPED)), st.integers(0, 2**32 - 1))
def test_a_shipped_file_with_damaged_bytes_is_an_error_or_an_accelerator(
    tmp_path, name: str, seed: int
) -> None:
    dice = random.Random(seed)
    content = bytearray(SHIPPED[name].encode())
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(content))
        content[at : at + dice.randint(0, 3)] = bytes(dice.randrange(256) for _ in range(dice.randint(0, 3)))
    outcome(tmp_path / "machine.yaml", bytes(content))


def keys(section: dict[str, object], prefix: str = "") -> list[str]:
    """Every dotted key of a resolved accelerator."""
    found = []
    for name, value in section.items():
        found.append(prefix + name)
        if isinstance(value, dict):
            found += keys(value, f"{prefix}{name}.")
    return found


KEYS = keys(load_accelerator("systolic_ws_8x8").model_dump(exclude_none=True))


@FUZZ
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=12), plain, min_size=1, max_size=2))
def test_any_change_is_an_error_or_an_accelerator_that_prices(changes: dict[str, object]) -> None:
    try:
        machine = load_accelerator("systolic_ws_8x8", changes)
        technology = load_technology(machine.technology)
        prices = [technology.price(component) for component in components(machine)]
    except InputError:
        return
    assert all(price.area_um2 >= 0 for price in prices)
    assert load_accelerator(machine.model_dump(mode="json", exclude_none=True)) == machine
