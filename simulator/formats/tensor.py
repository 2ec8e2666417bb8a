"""A quantized tensor, and the values that it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.element import Array, Element, Floats, decode, encode
from simulator.formats.format import Format
from simulator.formats.passes import per_value

TILE_VALUES = 2**18
"""Values that are worked on at a time: a tile and what is made of it stay in the cache."""


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A tensor in a number format.

    value = (element value of the code - zero point) * scale * row_scale * tensor_scale
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
    """Index of the value table each group uses, shape of `scales` or, for groups of their own, (..., rows,
    groups); None for a format without."""
    tensor_scale: np.float32 | None = None
    """Second-level scale, one a tensor; None for a format without."""
    row_scales: npt.NDArray[np.float32] | None = None
    """Second-level scales, one a row, (..., rows, 1); None for a format without."""
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

    def check(self) -> None:
        """InputError when a field is missing or has another shape than the format says, when a code, zero
        point or selector is none of its element's, or a scale no value of the format that stores it."""
        for name, element, shape in self.format.fields(self.codes.shape):
            held, what = getattr(self, name), f"{name} of a {self.format.name} tensor"
            if held is None or np.shape(held) != shape:
                found = None if held is None else np.shape(held)
                problem = f"{what} are missing" if held is None else what
                raise InputError(problem, value=found, allowed=f"shape {shape}")
            if name in ("codes", "zero_points", "selectors"):
                _check_codes(what, element, np.asarray(held))
            else:
                _check_scales(what, element, np.asarray(held))

    @property
    def group_scales(self) -> Floats | None:
        """Scales times row scales, exact in float64, shape of `scales`: what groups are worth to hardware that
        knows one level of scales below the tensor's."""
        if self.scales is None or self.row_scales is None:
            return None if self.scales is None else self.scales.astype(np.float64)
        return self.scales.astype(np.float64) * self.row_scales


def _check_codes(what: str, element: Element, codes: Array) -> None:
    """InputError unless the codes are integers that `bits` bits hold."""
    if codes.dtype.kind not in "iu":
        raise InputError(what, value=str(codes.dtype), allowed="integers")
    signed = element.kind in ("int", "sign_magnitude")
    lowest = -(1 << (element.bits - 1)) if signed else 0
    highest = (1 << (element.bits - signed)) - 1
    if codes.size and (int(codes.min()) < lowest or int(codes.max()) > highest):
        wrong = codes[(codes < lowest) | (codes > highest)]
        raise InputError(what, value=int(wrong.flat[0]), allowed=f"{lowest} to {highest}")


def _check_scales(what: str, element: Element, scales: Array) -> None:
    """InputError unless the element holds these values."""
    reals = np.asarray(scales, np.float64).reshape(-1)
    held = decode(element, encode(element, reals))
    wrong = (held != reals) & ~(np.isnan(held) & np.isnan(reals))
    if wrong.any():
        raise InputError(what, value=float(reals[wrong][0]), allowed=f"values of {element.name}")


def exact_integers(tensor: QuantizedTensor) -> tuple[Array, int]:
    """(integers, exponent): each code is worth ``integer * 2**exponent`` before scales and zero points.

    The integers have the shape of the codes; value tables are looked up with the selectors of the groups.
    int64, but Python integers (dtype object) for the elements whose exponents span more than int64 holds
    (bf16, fp32). InputError: Inf or NaN codes, codes or selectors out of range, selectors missing.
    """
    return tensor.format.element_integers(tensor.codes, tensor.selectors)


def dequantize(tensor: QuantizedTensor, dtype: npt.DTypeLike = np.float32) -> Array:
    """The values that a quantized tensor stands for, shape of the original.

    Exact in float64; float32 (default) is rounded once from that, and Inf where a value exceeds its range.
    """
    format_ = tensor.format
    k = tensor.codes.shape[-1]
    rows = tensor.rows
    codes = tensor.codes.reshape(rows, k)
    group = format_.group_size or max(k, 1)
    second = 1.0 if tensor.tensor_scale is None else float(tensor.tensor_scale)
    group_scales = tensor.group_scales
    selectors = None if tensor.selectors is None else tensor.selectors.reshape(rows, format_.selectors(k))
    out = np.empty((rows, k), dtype)
    for tile in row_slices(rows, k):
        values = format_.element_values(codes[tile], None if selectors is None else selectors[tile])
        if group_scales is not None and values.size:
            scales = _rows_of(group_scales, rows, tile) * second
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
