"""YAML files as validated models: safe, small, without surprises, and with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from simulator.errors import InputError, nearest

MAX_BYTES = 4 * 2**20
"""Largest configuration file that is read."""

M = TypeVar("M", bound=BaseModel)


class _StrictLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Plain data only: no tags that construct objects, no aliases (they can grow without bound), no repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises InputError: unreadable, not text, not YAML, not a mapping."""
    try:
        if path.is_dir():
            raise InputError("is a folder; a YAML file is needed", file=path)
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"is larger than {MAX_BYTES} bytes", file=path)
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    except UnicodeDecodeError:
        raise InputError("is not a YAML text file (not UTF-8)", file=path) from None
    return parse_mapping(text, path)


def parse_mapping(text: str, source: object) -> dict[str, Any]:
    """The mapping that a YAML text holds; ``source`` is named in errors."""
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"is not usable YAML{where}: {error.problem}", file=source) from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"is not usable YAML: {str(error).splitlines()[0]}", file=source) from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise InputError(f"must hold keys and values, holds {found}", file=source)
    return data


def validate(model: type[M], data: Mapping[str, Any], *, source: object = None, prefix: str = "") -> M:
    """``data`` as ``model``. Raises InputError for the first thing wrong: key path, value, what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _as_input_error(error, model, source, prefix) from None


def _as_input_error(
    error: ValidationError, model: type[BaseModel], source: object, prefix: str
) -> InputError:
    details = error.errors(include_url=False)
    first = next((item for item in details if item["type"] == "extra_forbidden"), details[0])
    location = [str(part) for part in first["loc"]]
    key = ".".join(([prefix] if prefix else []) + location)
    more = f" ({len(details) - 1} more problems)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return InputError(
            f"unknown key{more}",
            file=source,
            key=key,
            allowed=nearest(location[-1], known) if known else None,
        )
    if first["type"] == "missing":
        return InputError(f"is missing{more}", file=source, key=key)
    problem = first["msg"].removeprefix("Value error, ")
    problem = problem[0].lower() + problem[1:] if problem else "is not usable"
    value = None if isinstance(first["input"], dict) else first["input"]
    return InputError(f"{problem}{more}", file=source, key=key or None, value=value)


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Field names of the model that lies at ``path`` inside ``model``; [] where the path leaves plain models."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next(
            (item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None
        )
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]
