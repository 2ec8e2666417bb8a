"""The numbers in a tensor: read from a file, or drawn so that any part of it is the same in any order.

Synthetic values come in blocks of 4096 consecutive values (last axis fastest). Block i of a tensor is drawn
from Philox-4x64 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011) with the key (seed,
sub-seed) and the counter i * 2**64; the sub-seed is the first eight bytes of the SHA-256 of the tensor's
name. Normal draws are numpy's ziggurat in float32; a Laplace draw is a standard exponential one with a
random sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from simulator.errors import InputError, nearest
from simulator.workload.checkpoint import read_rows
from simulator.workload.operations import Gemm, Operation, TensorRef, Workload
from simulator.workload.sources import Held, Stored, Synthetic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 4096
SAMPLE_LIMIT = 2**24
"""Values of a tensor up to which all of them are used; larger ones are sampled."""
READ_LIMIT = 2**30
"""Values that one call gives at most."""


@dataclass(frozen=True)
class Sample:
    """Rows of a tensor drawn without replacement: whole rows, so that scale groups are whole."""

    values: NDArray[np.float32]
    """(rows drawn, k)"""
    rows: NDArray[np.intp]
    """Their numbers, ascending."""
    share: float
    """Rows drawn / rows of the tensor; 1.0: nothing was left out."""
    seed: int


def tensor_values(
    workload: Workload, tensor: str, rows: slice | NDArray[np.intp] | None = None
) -> NDArray[np.float32]:
    """Values of a tensor before quantization: float32 (rows, k), the axes but the last one taken together
    as rows.

    ``rows``: a slice or row numbers; all unless given. Raises InputError: no tensor of this name,
    or more than `READ_LIMIT` values.
    """
    return values_of(find_tensor(workload, tensor), rows)


def values_of(ref: TensorRef, rows: slice | NDArray[np.intp] | None = None) -> NDArray[np.float32]:
    """`tensor_values` of a tensor as an operation sees it: a feature map may be read there as (images, h * w * c)."""
    import numpy as np

    wanted: range | NDArray[np.intp]
    if rows is None or isinstance(rows, slice):
        wanted = range(*(rows or slice(None)).indices(ref.rows))
    else:
        wanted = np.asarray(rows, dtype=np.intp)
    if len(wanted) * ref.k > READ_LIMIT:
        problem = f"{len(wanted)} rows of {ref.k} values are too many at once"
        raise InputError(problem, key=ref.name, allowed=f"up to {READ_LIMIT} values")
    wanted = np.asarray(wanted, dtype=np.intp)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < ref.rows:
        raise IndexError(f"{ref.name} has {ref.rows} rows")
    if isinstance(ref.values, Stored):
        return read_rows(ref.values, wanted)
    if isinstance(ref.values, Held):
        held: NDArray[np.float32] = ref.values.array.reshape(ref.rows, ref.k)[wanted]
        return held
    return _after(ref, _draw(ref, ref.values, wanted))


def sample_values(workload: Workload, tensor: str, *, limit: int = SAMPLE_LIMIT) -> Sample:
    """The whole tensor, or as many of its rows as fit ``limit`` values (at least one), chosen by the seed.

    The rows are drawn by the generator that draws the values, so a sample too is the same for every worker.
    """
    import numpy as np

    ref = find_tensor(workload, tensor)
    seed = seed_of(workload, ref)
    if ref.size <= limit:
        return Sample(tensor_values(workload, tensor), np.arange(ref.rows), 1.0, seed)
    count = max(1, limit // ref.k)
    chosen = np.sort(
        generator(seed, f"rows of {ref.stream or ref.name}").choice(ref.rows, count, replace=False)
    )
    return Sample(tensor_values(workload, tensor, chosen), chosen, count / ref.rows, seed)


def with_captured(workload: Workload, tensors: Mapping[str, NDArray[np.float32]]) -> Workload:
    """The workload with these values, by tensor name, in place of its own; quantized copies have those of their
    original. Raises InputError: no tensor of a name, or values of another number."""
    sources = {}
    for name, array in tensors.items():
        ref = find_tensor(workload, name)
        if array.size != ref.size:
            problem = f"has {ref.size} values, and {array.size} are given"
            raise InputError(problem, key=workload.name, value=name)
        sources[name] = Held(array)

    def changed(ref: TensorRef) -> TensorRef:
        source = sources.get(ref.stream or ref.name)
        return ref if source is None else replace(ref, values=source)

    def with_operands(op: Operation) -> Operation:
        if isinstance(op, Gemm):
            weights, activations = changed(op.weights), changed(op.activations)
            return replace(op, weights=weights, activations=activations, output=changed(op.output))
        return replace(op, inputs=tuple(map(changed, op.inputs)), output=changed(op.output))

    return replace(
        workload,
        operations=tuple(map(with_operands, workload.operations)),
        tensors={name: changed(ref) for name, ref in workload.tensors.items()},
    )


def seed_of(workload: Workload, ref: TensorRef) -> int:
    """The seed by which parts of a tensor are chosen: that of its synthetic values, the workload's for stored ones."""
    return ref.values.seed if isinstance(ref.values, Synthetic) else workload.seed


def find_tensor(workload: Workload, name: str) -> TensorRef:
    """Raises InputError: no tensor of this name."""
    ref = workload.tensors.get(name)
    if ref is None:
        raise InputError(
            "no tensor of this name", key=workload.name, value=name, allowed=nearest(name, workload.tensors)
        )
    return ref


def generator(seed: int, name: str, block: int = 0) -> np.random.Generator:
    """Draws for block ``block`` of what is called ``name``."""
    import numpy as np

    sub_seed = int.from_bytes(sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key=[seed, sub_seed], counter=[0, block, 0, 0]))


def _draw(ref: TensorRef, source: Synthetic, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Rows of a synthetic tensor, one run of neighbouring rows after the other."""
    import numpy as np

    values = np.empty(rows.size * ref.k, dtype=np.float32)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    filled, drawn, block = 0, -1, values
    for run in np.split(rows, breaks) if rows.size else ():
        at, end = int(run[0]) * ref.k, (int(run[-1]) + 1) * ref.k
        while at < end:
            if drawn != at // BLOCK:
                drawn = at // BLOCK
                block = _block(source, ref.stream or ref.name, drawn)
            part = block[at % BLOCK : at % BLOCK + end - at]
            values[filled : filled + part.size] = part
            filled += part.size
            at += part.size
    return values.reshape(rows.size, ref.k)


def _block(source: Synthetic, name: str, index: int) -> NDArray[np.float32]:
    """Block ``index`` of a synthetic tensor: `BLOCK` values."""
    import numpy as np

    draws = generator(source.seed, name, index)
    if source.distribution == "normal":
        return draws.standard_normal(BLOCK, dtype=np.float32)
    if source.distribution == "uniform":
        return draws.random(BLOCK, dtype=np.float32) * np.float32(2) - np.float32(1)
    magnitude = draws.standard_exponential(BLOCK, dtype=np.float32)
    negative = np.unpackbits(draws.bit_generator.random_raw(BLOCK // 64).astype("<u8").view(np.uint8)).view(
        bool
    )
    magnitude[negative] *= np.float32(-1)
    return magnitude


def _after(ref: TensorRef, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the operation that wrote the tensor makes of the draws."""
    import numpy as np

    if ref.after == "relu":
        return np.maximum(values, np.float32(0))
    if ref.after == "softmax":
        powers: NDArray[np.float32] = np.exp(values - values.max(axis=1, keepdims=True))
        powers /= powers.sum(axis=1, keepdims=True)
        return powers
    return values
