"""From a name, a file or a mapping, and the changes a user asks for, to an `Accelerator`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulator.arch.accelerator import Accelerator
from simulator.config import parse_value, read_mapping, validate
from simulator.errors import InputError
from simulator.shipped import find_config, shipped_names

KIND = "arch_configs"


def accelerator_names() -> list[str]:
    """Names of the shipped accelerators."""
    return shipped_names(KIND)


def load_accelerator(
    arch: str | Path | Mapping[str, Any] | Accelerator, changes: Mapping[str, Any] | None = None
) -> Accelerator:
    """The accelerator that ``arch`` means: a shipped name, a YAML file or its content; with ``changes`` applied.

    ``changes``: dotted key -> value (``{"array.rows": 64}``); text values are read as YAML does. Paths in a file's
    ``technology`` are relative to that file, all others to the working folder. Raises InputError.
    """
    source: Path | None = None
    if isinstance(arch, Accelerator):
        data: Mapping[str, Any] = arch.model_dump(exclude_none=True)
    elif isinstance(arch, Mapping):
        data = arch
    else:
        source = find_config(str(arch), KIND)
        data = read_mapping(source)
        if "technology" in data:
            data = {**data, "technology": _beside(source, data["technology"])}
    written = data
    for key, value in (changes or {}).items():
        read = parse_value(value, key) if isinstance(value, str) else value
        data = _changed(data, key.split("."), read, key)
    try:
        return validate(Accelerator, data, source=source)
    except InputError as error:
        if source is None or not changes or str(error) == _fault_of(written, source):
            raise
        raise InputError(error.problem, key=error.key, value=error.value, allowed=error.allowed) from None


def _fault_of(data: Mapping[str, Any], source: Path) -> str:
    """What is wrong with the file as it is written; empty where nothing is."""
    try:
        validate(Accelerator, data, source=source)
    except InputError as error:
        return str(error)
    return ""


def _beside(file: Path, technology: Any) -> Any:
    """What ``technology`` in a file says, its paths made absolute; what is no technology is left to validation."""
    if isinstance(technology, str):
        is_path = Path(technology).suffix in (".csv", ".yaml", ".yml") and "\0" not in technology
        return str((file.parent / technology).resolve()) if is_path else technology
    if not isinstance(technology, Mapping):
        return technology
    placed = dict(technology)
    if "base" in placed:
        placed["base"] = _beside(file, placed["base"])
    if isinstance(placed.get("tables"), list):
        placed["tables"] = [_beside(file, table) for table in placed["tables"]]
    return placed


def _changed(data: Mapping[str, Any], path: list[str], value: Any, key: str) -> dict[str, Any]:
    """A copy of ``data`` with the value at ``path`` replaced; sections on the way are made where they are missing."""
    head, *rest = path
    copy = dict(data)
    if not head:
        raise InputError("is not a dotted key such as array.rows", key=key)
    if not rest:
        copy[head] = value
        return copy
    below = copy.get(head, {})
    if not isinstance(below, Mapping):
        raise InputError(f"{head} is a value, not a section", key=key)
    copy[head] = _changed(below, rest, value, key)
    return copy
