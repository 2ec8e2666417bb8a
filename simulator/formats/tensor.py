"""A quantized tensor, and the values that it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.element import Array
from simulator.formats.format import Format
from simulator.formats.passes import per_value

TILE_VALUES = 2**18
"""Values that are worked on at a time: a tile and what is made of it stay in the cache."""


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A tensor in a number format.

    value = (element value of the code - zero point) * scale * tensor_scale
    """

    codes: Array
    """Element codes, shape of the tensor (with `pad`, K rounded up to whole groups): signed numbers for
    integer formats (unsigned for uint), unsigned bit patterns for floats."""
    format: Format
    scales: npt.NDArray[np.float32] | None = None
    """Stored scales by value: shape () per tensor, (..., rows, 1) per channel or token, (..., rows, groups)
    per group or block; None for a format without scale. NaN in an MX block that had Inf or NaN."""
    zero_points: npt.NDArray[np.int32] | None = None
    """Integer code of the value 0, shape of `scales`; None for a format without."""
    selectors: Array | None = None
    """Index of the value table each group uses, shape of `scales`; None for a format without."""
    tensor_scale: np.float32 | None = None
    """Second-level scale; None for a format with one level."""
    k: int = -1
    """Length of the last axis before padding."""

    def __post_init__(self) -> None:
        if self.k < 0:
            object.__setattr__(self, "k", self.codes.shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that was quantized."""
        return (*self.codes.shape[:-1], self.k)

    @property
    def rows(self) -> int:
        return prod(self.codes.shape[:-1])

    @property
    def storage_bits(self) -> int:
        """Exact bits of codes and metadata."""
        return self.format.storage_bits(self.rows, self.codes.shape[-1])


def dequantize(tensor: QuantizedTensor, dtype: npt.DTypeLike = np.float32) -> Array:
    """The values that a quantized tensor stands for, shape of the original.

    Exact in float64; float32 (default) is rounded once from that, and Inf where a value exceeds its range.
    """
    format_ = tensor.format
    if format_.selector_bits:
        raise InputError("has selectors, whose value tables only its own package knows", value=format_.name)
    k = tensor.codes.shape[-1]
    rows = tensor.rows
    codes = tensor.codes.reshape(rows, k)
    group = format_.group_size or max(k, 1)
    second = 1.0 if tensor.tensor_scale is None else float(tensor.tensor_scale)
    out = np.empty((rows, k), dtype)
    for tile in row_slices(rows, k):
        values = format_.element_values(codes[tile])
        if tensor.scales is not None and values.size:
            scales = _rows_of(tensor.scales, rows, tile).astype(np.float64) * second
            if tensor.zero_points is not None:
                zeros = _rows_of(tensor.zero_points, rows, tile)
                values -= per_value(zeros, group, k)
            values *= per_value(scales, group, k)
        with np.errstate(over="ignore"):
            out[tile] = values
    return out.reshape(tensor.codes.shape)[..., : tensor.k]


def row_slices(rows: int, k: int) -> Iterator[slice]:
    """Slices of whole rows of about `TILE_VALUES` values."""
    step = max(1, TILE_VALUES // max(k, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _rows_of(of_groups: Array, rows: int, tile: slice) -> Array:
    """The rows of a tile of what is stored per tensor, per row or per group, as (rows, groups)."""
    if of_groups.ndim == 0:
        return np.broadcast_to(of_groups, (tile.stop - tile.start, 1))
    return of_groups.reshape(rows, -1)[tile]
