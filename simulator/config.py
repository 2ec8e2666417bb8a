"""Reading YAML that a stranger wrote: plain data only, every fault an InputError with file and key path.

The document is built from the parser's events, so that nothing is constructed but maps with text keys,
lists, text, numbers, booleans and null; what aliases repeat counts as often as it is repeated, and depth
and size are bounded. Numbers are those on which YAML 1.1 and 1.2 agree: floats of either (``1e-3``), no octal
``010`` and no sexagesimal ``1:30``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from simulator.errors import InputError, nearest

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_VALUES = 1_000_000
"""Scalars, lists and maps in one document, those that aliases repeat included."""
MAX_DEPTH = 32

ModelT = TypeVar("ModelT", bound=BaseModel)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
"""YAML 1.2.2, section 10.3.2; YAML 1.1 wants a point and a sign in the exponent."""
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


class _Resolver(yaml.resolver.Resolver):
    """What plain text is: as in YAML 1.1, floats of YAML 1.2 besides."""


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Resolver` would take for a number."""


for _kind in (_Resolver, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(_FLOAT.pattern + "$"), [*"-+.0123456789"]
    )
_RESOLVER: Any = _Resolver()
_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_SCALARS: Mapping[str, Callable[[yaml.ScalarNode], Any]] = {
    "tag:yaml.org,2002:null": _CONSTRUCTOR.construct_yaml_null,
    "tag:yaml.org,2002:bool": _CONSTRUCTOR.construct_yaml_bool,
    "tag:yaml.org,2002:int": _CONSTRUCTOR.construct_yaml_int,
    "tag:yaml.org,2002:float": _CONSTRUCTOR.construct_yaml_float,
    "tag:yaml.org,2002:str": _CONSTRUCTOR.construct_yaml_str,
}


def read_text(path: Path) -> str:
    """Contents of a text file. Raises InputError: cannot be read, too large, not UTF-8."""
    try:
        if not path.exists():
            raise InputError("no such file", file=path)
        if not path.is_file():
            raise InputError("is a folder; a file is needed" if path.is_dir() else "is not a file", file=path)
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError("is too large", file=path, allowed=f"up to {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("is not text in UTF-8", file=path) from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The map that a YAML file holds. Raises InputError, which names the file."""
    return parse_mapping(read_text(path), path)


def parse_mapping(text: str, source: object) -> dict[str, Any]:
    """The one map in ``text``. Raises InputError for everything else, see the module's first lines."""
    document = _parse(text, "", source)
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise InputError(f"must hold a map of keys, holds {found}", file=source)
    return document


def parse_value(text: str, key: str) -> Any:
    """What ``text`` would be behind ``key`` in a file: 64 a number, [a, b] a list. Raises InputError."""
    return _parse(text, key, None)


def _parse(text: str, key: str, source: object) -> Any:
    try:
        return _Document(yaml.parse(text, Loader=_LOADER), source).read(key)
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        problem = getattr(error, "problem", None) or "characters that YAML does not allow"
        raise InputError(f"is not YAML: {problem}{where}", file=source, key=key or None) from None


def validate(model: type[ModelT], data: object, *, source: object = None, prefix: str = "") -> ModelT:
    """``data`` as ``model``. Raises InputError with the key path of the first fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _fault(model, data, error, prefix, source) from None


class _Document:
    """Builds plain data from the events of one YAML document."""

    def __init__(self, events: Iterator[yaml.Event], file: object) -> None:
        self._events = events
        self._file = file
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._values = 0

    def read(self, key: str) -> Any:
        """Value of the only document, which stands behind ``key``; None where there is none."""
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error("holds more than one document", key)
                value = self._value(next(self._events), key, 0)[0]
        return value

    def _value(self, event: Any, key: str, depth: int) -> tuple[Any, int, int]:
        """(value, values in it, height of its tree)"""
        if depth > MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH}", key)
        if isinstance(event, yaml.AliasEvent):
            result = self._anchors.get(str(event.anchor))
            if result is None:
                raise self._error("alias of nothing before it", key, event.anchor)
            if depth + result[2] > MAX_DEPTH:
                raise self._error(f"is nested deeper than {MAX_DEPTH}", key)
            self._count(result[1], key)
            return result
        self._count(1, key)
        before = self._values
        tag = event.tag
        if isinstance(event, yaml.ScalarEvent):
            value, height = self._scalar(event, key), 0
        elif tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self._error("tags are not allowed", key, tag)
        elif isinstance(event, yaml.SequenceStartEvent):
            value, height = self._list(key, depth)
        else:
            value, height = self._map(key, depth)
        result = (value, 1 + self._values - before, height)
        if event.anchor is not None:
            self._anchors[event.anchor] = result
        return result

    def _list(self, key: str, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        height = 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            value, _, below = self._value(event, f"{key}[{len(items)}]", depth + 1)
            items.append(value)
            height = max(height, below + 1)
        return items, height

    def _map(self, key: str, depth: int) -> tuple[dict[str, Any], int]:
        items: dict[str, Any] = {}
        height = 0
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error("keys must be text", key)
            name = self._scalar(event, key)
            if not isinstance(name, str):
                raise self._error("keys must be text", key, name)
            path = f"{key}.{name}" if key else name
            if name in items:
                raise self._error("this key stands here twice", path)
            items[name], _, below = self._value(next(self._events), path, depth + 1)
            height = max(height, below + 1)
        return items, height

    def _scalar(self, event: yaml.ScalarEvent, key: str) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag not in _SCALARS:
            raise self._error("only text, numbers, booleans and null are allowed", key, event.value)
        kind = tag.rpartition(":")[2]
        if kind in ("int", "float"):
            self._refuse_other_bases(event.value, key)
        try:
            value = _SCALARS[tag](yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError):
            raise self._error(f"is not a {kind}", key, event.value) from None
        too_large = value in (math.inf, -math.inf) and "inf" not in event.value.lower()
        if too_large or (isinstance(value, int) and abs(value) >= 2**64):
            raise self._error("the number is too large", key, event.value)
        return value

    def _refuse_other_bases(self, text: str, key: str) -> None:
        """Raise InputError for what YAML 1.1 alone reads in base 8 or 60."""
        if ":" in text:
            raise self._error(
                "a number with ':' (YAML 1.1 counts in sixties)", key, text, f"{text!r} in quotes for text"
            )
        if _LEADING_ZERO.fullmatch(text):
            plain = text.replace("_", "").lstrip("+-0") or "0"
            sign = "-" if text[0] == "-" and plain != "0" else ""
            allowed = f"{sign}{plain}, or {text!r} in quotes for text"
            raise self._error("a number with a leading 0 (YAML 1.1 reads it as octal)", key, text, allowed)

    def _count(self, values: int, key: str) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise self._error("holds too many values", key, None, f"up to {MAX_VALUES}, aliases expanded")

    def _error(
        self, problem: str, key: str = "", value: object = None, allowed: str | None = None
    ) -> InputError:
        return InputError(problem, file=self._file, key=key or None, value=value, allowed=allowed)


def _fault(
    model: type[BaseModel], data: object, error: ValidationError, key: str, file: object | None
) -> InputError:
    """The first fault that pydantic found, in this project's words; a misspelt key before the key that
    is missing."""
    faults = error.errors(include_url=False)
    fault = next((item for item in faults if item["type"] == "extra_forbidden"), faults[0])
    kind, allowed = fault["type"], None
    path, value = key, data
    for part in fault["loc"]:
        # pydantic also names the member of a union that it tried; only what stands in the file is a key
        if isinstance(value, Mapping) and (part in value or kind == "missing"):
            path, value = f"{path}.{part}" if path else str(part), value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int):
            path, value = f"{path}[{part}]", value[part]
    inner = fault.get("ctx", {}).get("error")
    if isinstance(inner, InputError):  # of a model that the validator of this key chose
        path = ".".join(filter(None, (path, inner.key)))
        return InputError(
            inner.problem, file=file, key=path or None, value=inner.value, allowed=inner.allowed
        )
    problem = fault["msg"].removeprefix("Value error, ")
    problem = problem[:1].lower() + problem[1:]
    empty = value is None and kind not in ("extra_forbidden", "missing", "value_error")
    if kind == "extra_forbidden":
        known = _keys_at(model, fault["loc"][:-1])
        problem, value, allowed = "no key of this name", None, nearest(str(fault["loc"][-1]), known)
    elif kind == "missing":
        problem, value = "this key is missing", None
    elif kind == "literal_error":
        problem, allowed = "not one of the choices", str(fault.get("ctx", {}).get("expected", ""))
    elif kind == "value_error":
        value = None
    elif kind == "float_type" and isinstance(value, str):
        allowed = "a number such as 0.5 or 1e-3, without a unit"
    elif kind == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        allowed = f"digits only, {value:.0f}"
    if empty:
        problem += " (found nothing)"
    return InputError(problem, file=file, key=path or None, value=value, allowed=allowed)


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that the model at ``location`` inside ``model`` knows."""
    for part in location:
        field = model.model_fields.get(str(part))
        inner = None if field is None else field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            continue
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML that `parse_mapping` reads back as ``data``; short lists and maps stand in one line."""
    return str(yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100))
