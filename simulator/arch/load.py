"""From a name, a file or a mapping, and the changes a user asks for, to an `Accelerator`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from simulator.arch.accelerator import Accelerator
from simulator.config import read_mapping, validate
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

    ``changes``: dotted key -> value (``{"array.rows": 64}``); text values are read as YAML does. Raises InputError.
    """
    if isinstance(arch, Accelerator):
        data, source = arch.model_dump(exclude_none=True), None
    elif isinstance(arch, Mapping):
        data, source = dict(arch), None
    else:
        source = find_config(str(arch), KIND)
        data = read_mapping(source)
    for key, value in (changes or {}).items():
        data = _changed(data, key.split("."), _scalar(value), key, source)
    return validate(Accelerator, data, source=source)


def _scalar(value: Any) -> Any:
    """``--set`` gives text: 64 is a number, true a truth value, [a, b] a list; as in the YAML file."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _changed(
    data: Mapping[str, Any], path: list[str], value: Any, key: str, source: object
) -> dict[str, Any]:
    """A copy of ``data`` with the value at ``path`` replaced; sections on the way are made where they are missing."""
    head, *rest = path
    copy = dict(data)
    if not head:
        raise InputError("is not a dotted key such as array.rows", file=source, key=key)
    if not rest:
        copy[head] = value
        return copy
    below = copy.get(head, {})
    if not isinstance(below, Mapping):
        raise InputError(f"{head} is a value, not a section", file=source, key=key)
    copy[head] = _changed(below, rest, value, key, source)
    return copy
