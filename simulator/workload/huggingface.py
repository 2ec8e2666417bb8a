"""Models as Hugging Face stores them: ``config.json``, with the weights in safetensors files beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from simulator.config import dump_yaml, read_text, validate
from simulator.errors import InputError, nearest
from simulator.workload.families import FAMILIES


def is_model(name_or_path: str | Path) -> bool:
    """Is this a config.json, a folder with one, or a safetensors file, rather than a workload file or
    its name?"""
    path = Path(name_or_path)
    try:
        return path.suffix in (".json", ".safetensors") or (path / "config.json").is_file()
    except (OSError, ValueError):
        return False


def read_model(name_or_path: str | Path) -> dict[str, Any]:
    """The workload document of a model: its sizes, and its weights where they lie beside config.json.

    Raises InputError: no config.json, not JSON, or a model_type that no family reads.
    """
    given = Path(name_or_path)
    try:
        folder = given if given.is_dir() else given.parent
        file = given if given.suffix == ".json" else folder / "config.json"
        if not file.exists():
            raise InputError("no such file; a model needs its config.json", file=file)
        weights = given if given.suffix == ".safetensors" else folder
        stored = given.suffix == ".safetensors" or any(folder.glob("*.safetensors"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", file=given) from None
    config = _json(file)
    known = {kind: family for family in FAMILIES.values() for kind in family.model_types}
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in known:
        allowed = ", ".join(sorted(known))
        hint = f"{nearest(kind, known)} supported: {allowed}" if isinstance(kind, str) and kind else allowed
        raise InputError(
            "no family reads this model_type", file=file, key="model_type", value=kind, allowed=hint
        )
    family = known[kind]
    try:
        fields = family.from_huggingface(config)
    except KeyError as error:
        raise InputError("this key is missing", file=file, key=str(error.args[0])) from None
    except (ValueError, TypeError) as error:
        raise InputError(str(error), file=file) from None
    model = validate(family.config, fields, source=file)
    name = re.sub(r"[^A-Za-z0-9_.+-]", "-", folder.resolve().name).strip("-._+") or family.name
    document: dict[str, Any] = {
        "name": name[:200],
        "source": f"config.json of a {kind} model",
        "model": {"family": family.name, **model.model_dump(exclude_none=True)},
    }
    if stored:
        document["values"] = {"weights": {"safetensors": str(weights.resolve())}}
    return document


def trace(path: str | Path) -> str:
    """The workload file, as YAML, of a model: config.json, its folder, or a .safetensors file beside one."""
    if not is_model(path):
        raise InputError(
            "not a model", file=path, allowed="config.json, a folder with one, or a .safetensors file"
        )
    document = read_model(path)
    formats = {"weights": "int8_channel", "activations": "int8_token", "kv": "int8", "output": "fp16"}
    return dump_yaml({**document, "formats": formats})


def _json(file: Path) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise InputError("this key stands here twice", file=file, key=key)
            result[key] = value
        return result

    try:
        data = json.loads(read_text(file), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not JSON: {error}", file=file) from None
    if not isinstance(data, dict):
        raise InputError("must hold an object", file=file)
    return data
