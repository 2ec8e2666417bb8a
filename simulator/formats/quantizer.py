"""`quantize` and `dequantize`: arrays to codes and scales, and back.

Everything is computed in float64 and rounded once where the format rounds: extremes of each group, scale,
stored scale, then ``value / (stored scale * tensor scale)`` in float64, then the nearest code. For float32
(or narrower) values and the scale formats here the float64 quotient never lies on the other side of a
rounding boundary than the exact one: a boundary times a scale has at most 45 significant bits, so value and
boundary, when they differ, differ by more than 2**-46 of their size. The codes are those nearest to the exact
quotient. For float64 values the two roundings are the definition.

The tensor is worked through in tiles that stay in the cache, so the peak is input plus output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import fsum
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError, nearest
from simulator.formats import passes
from simulator.formats.element import E8M0, Array, Element, Floats, decode, decode_table, encode, refuse_nan
from simulator.formats.format import Format
from simulator.formats.names import get_format
from simulator.formats.scaling import (
    SCALE_RULES,
    SMALLEST_EXPONENT,
    ScaleRule,
    range_of,
    real_scales,
    second_level_scale,
    shared_exponent,
    stored,
    zero_points,
)

TILE_VALUES = 2**18
COMPILED_FROM = 2**20
"""Tensors of at least so many values use the compiled kernels; smaller ones are done before numba is
loaded."""

MSE_RATIOS = 80
"""A scale of 16 or 32 bits is searched from 1.00 down to 0.21 of the max-abs scale in steps of 0.01: the grid
of the quantizer released with GPTQ (Frantar et al., ICLR 2023), which adds up errors to the power 2.4 where
we square."""
MSE_CODES_ABOVE, MSE_CODES_BELOW = 4, 11
"""An 8-bit float scale is searched over its codes, from so many above the max-abs one down to so many
below."""
MSE_EXPONENTS = 3
"""A shared exponent is searched from rule `ceil`, which saturates nothing, downwards over so many."""


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
        return int(np.prod(self.codes.shape[:-1], dtype=np.int64))

    @property
    def storage_bits(self) -> int:
        """Exact bits of codes and metadata."""
        return self.format.storage_bits(self.rows, self.codes.shape[-1])


def quantize(
    x: npt.ArrayLike,
    format_: Format | str,
    *,
    scale: Literal["maxabs", "mse"] = "maxabs",
    scale_rule: ScaleRule | None = None,
    pad: bool = False,
) -> QuantizedTensor:
    """Write `x` (..., rows, k) in a number format; groups and rows' scales run along the last axis.

    scale: `maxabs` maps the largest magnitude (asymmetric: the range, 0 included) onto the largest code;
    `mse` takes among the candidate scales (`MSE_RATIOS`, `MSE_CODES_ABOVE`, `MSE_EXPONENTS`) the one with the
    smallest sum of squared errors, the larger scale where two tie. scale_rule: how a shared exponent follows
    from the largest magnitude (see `shared_exponent`); `floor` by default. pad: fill a short last group with
    zeros and store them.

    Values too large saturate. Scales are taken from the finite values; Inf keeps its code or saturates; NaN
    in a format without NaN is an InputError that counts and locates. An MX block with Inf or NaN gets the
    scale NaN and codes 0.
    """
    target = get_format(format_)
    values = _as_array(x)
    rule = _check_options(target, scale, scale_rule)
    shape = values.shape
    job = _Job(target, values, search=scale == "mse", rule=rule, pad=pad)
    with np.errstate(over="ignore"):
        scales, zeros, second = job.run()
    codes = job.codes.reshape(*shape[:-1], job.k)
    if scales is None:
        return QuantizedTensor(codes, target, k=shape[-1])
    scale_shape = () if target.granularity == "tensor" else (*shape[:-1], scales.shape[1])
    return QuantizedTensor(
        codes,
        target,
        scales.astype(np.float32).reshape(scale_shape),
        zeros.reshape(scale_shape) if target.has_zero_point else None,
        tensor_scale=None if second is None else np.float32(second),
        k=shape[-1],
    )


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
    for tile in _row_slices(rows, k):
        values = format_.element_values(codes[tile])
        if tensor.scales is not None and values.size:
            scales = _rows_of(tensor.scales, rows, tile).astype(np.float64) * second
            if tensor.zero_points is not None:
                zeros = _rows_of(tensor.zero_points, rows, tile)
                values -= passes.per_value(zeros, group, k)
            values *= passes.per_value(scales, group, k)
        with np.errstate(over="ignore"):
            out[tile] = values
    return out.reshape(tensor.codes.shape)[..., : tensor.k]


def _as_array(x: npt.ArrayLike) -> Array:
    """Real numbers as float32 where that is exact for their type, else float64; at least one axis."""
    values = np.asarray(x)
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise InputError(
            "cannot be quantized: not real numbers", value=str(values.dtype), allowed="floats, integers"
        )
    if values.ndim == 0:
        raise InputError(
            "a scalar has no axis to quantize along", value=values.item(), allowed="(..., rows, k)"
        )
    if values.dtype in (np.float32, np.float64):
        return values
    narrow = values.dtype.itemsize <= 2
    return values.astype(np.float32 if narrow else np.float64)


def _check_options(target: Format, scale: str, scale_rule: str | None) -> ScaleRule:
    if target.selector_bits:
        raise InputError("has selectors, which only its own package can choose", value=target.name)
    if scale not in ("maxabs", "mse"):
        raise InputError("unknown way to find a scale", key="scale", value=scale, allowed="maxabs, mse")
    if scale == "mse" and target.scale_element is None:
        raise InputError(f"{target.name} has no scale to choose", key="scale", value=scale, allowed="maxabs")
    if scale_rule is None:
        return "floor"
    if not _has_shared_exponent(target):
        raise InputError(f"{target.name} has no shared exponent", key="scale_rule", value=scale_rule)
    if scale == "mse":
        raise InputError("the MSE search chooses the exponent itself", key="scale_rule", value=scale_rule)
    for rule in SCALE_RULES:
        if rule == scale_rule:
            return rule
    raise InputError(
        "unknown rule", key="scale_rule", value=scale_rule, allowed=nearest(scale_rule, SCALE_RULES)
    )


def _has_shared_exponent(target: Format) -> bool:
    return target.scale_element is not None and target.scale_element.kind == "exponent"


def _row_slices(rows: int, k: int) -> Iterator[slice]:
    """Slices of whole rows of about `TILE_VALUES` values."""
    step = max(1, TILE_VALUES // max(k, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _rows_of(of_groups: Array, rows: int, tile: slice) -> Array:
    """The rows of a tile of what is stored per tensor, per row or per group, as (rows, groups)."""
    if of_groups.ndim == 0:
        return np.broadcast_to(of_groups, (tile.stop - tile.start, 1))
    return of_groups.reshape(rows, -1)[tile]


@dataclass(frozen=True)
class _Tile:
    """Some rows of a tensor: `values` (rows, k); extremes of each group's finite values, (rows, groups)."""

    rows: slice
    values: Array
    lowest: Floats
    highest: Floats
    is_finite: bool
    broken: npt.NDArray[np.bool_]
    """Groups with Inf or NaN."""

    @property
    def finite_values(self) -> Array:
        """`values` with 0 for Inf and NaN: what scales are chosen from."""
        return self.values if self.is_finite else np.where(np.isfinite(self.values), self.values, 0)


class _Job:
    """One tensor on its way into a format: the values `x` (rows, k), read in tiles, and the codes they
    become."""

    def __init__(self, target: Format, x: Array, *, search: bool, rule: ScaleRule, pad: bool) -> None:
        self.target, self.source, self.search, self.rule = target, x, search, rule
        self.x = x.reshape(int(np.prod(x.shape[:-1], dtype=np.int64)), x.shape[-1])
        self.k = target.padded_k(x.shape[-1]) if pad else x.shape[-1]
        self.group = target.group_size or max(self.k, 1)
        self.codes = np.empty((self.x.shape[0], self.k), target.code_dtype)
        self.is_compiled = x.dtype == np.float32 and x.size >= COMPILED_FROM
        self.unit = 2.0**target.element.step_exponent

    def run(self) -> tuple[Floats | None, npt.NDArray[np.int32], Floats | None]:
        """Fill the codes. Scales and zero points (rows, groups), per tensor (1, 1); the second-level scale
        ()."""
        target = self.target
        shape = (self.x.shape[0], target.groups(self.k))
        if target.scale_element is None:
            for tile in self.tiles():
                self.encode(tile, np.ones((1, 1)), np.zeros((1, 1), np.int32))
            return None, np.zeros((1, 1), np.int32), None
        if target.granularity == "tensor":
            tiles = list(self.tiles())
            span = self.tensor_range(tiles)
            scale, zero = (
                self.searched_tensor_scale(tiles, *span) if self.search else self.largest_scale(*span)
            )
            for tile in tiles:
                self.encode(tile, scale * self.unit, zero)
            return scale, zero, None
        second = None
        if target.tensor_scale_element is not None:
            largest = float(self.tensor_range(self.tiles())[1].item())
            second = second_level_scale(
                target.tensor_scale_element, target.scale_element, target.element, largest
            )
        scales, zeros = np.empty(shape), np.empty(shape, np.int32)
        for tile in self.tiles():
            choose = self.searched_scales if self.search else self.tile_scales
            chosen, zero = choose(tile, second)
            self.encode(tile, self.divisors(chosen, second), zero)
            scales[tile.rows] = np.where(tile.broken, np.nan, chosen) if self.marks_broken_blocks else chosen
            zeros[tile.rows] = zero
        return scales, zeros, second

    @property
    def marks_broken_blocks(self) -> bool:
        """The scale format has a NaN for blocks with Inf or NaN (E8M0)."""
        return self.target.scale_element == E8M0

    def divisors(self, scales: Floats, second: Floats | None) -> Floats:
        """What a value is divided by before it is rounded to an integer or to the element."""
        return scales * (self.unit if second is None else self.unit * float(second))

    def tiles(self) -> Iterator[_Tile]:
        """The tensor in tiles, with extremes; NaN that the format cannot hold is refused here."""
        holds_nan = self.target.element.has_nan or self.marks_broken_blocks
        for rows in _row_slices(*self.codes.shape):
            values = self.x[rows]
            if values.shape[1] < self.k:
                values = np.pad(values, ((0, 0), (0, self.k - values.shape[1])))
            lowest, highest = self.extremes(values)
            broken = ~(np.isfinite(lowest) & np.isfinite(highest))
            is_finite = not broken.any()
            if not is_finite:
                if not holds_nan:
                    refuse_nan(self.source, self.target.name)
                lowest, highest = passes.extremes(np.where(np.isfinite(values), values, 0), self.group)
            yield _Tile(rows, values, lowest, highest, is_finite, broken)

    def extremes(self, values: Array) -> tuple[Floats, Floats]:
        if not values.shape[1]:
            return np.zeros((len(values), 1)), np.zeros((len(values), 1))
        if not self.is_compiled:
            return passes.extremes(values, self.group)
        low = np.empty((len(values), self.target.groups(self.k)), np.int32)
        high = np.empty_like(low)
        passes.extremes_kernel(_compiled_input(values), self.group, low, high)
        return passes.floats_of_keys(low), passes.floats_of_keys(high)

    def tensor_range(self, tiles: Iterable[_Tile]) -> tuple[Floats, Floats]:
        """The range of the whole tensor, shape (1, 1)."""
        lowest = highest = np.zeros((1, 1))
        for tile in tiles:
            if tile.lowest.size:
                lowest = np.minimum(lowest, tile.lowest.min())
                highest = np.maximum(highest, tile.highest.max())
        return range_of(self.target, lowest, highest)

    def tile_scales(self, tile: _Tile, second: Floats | None) -> tuple[Floats, npt.NDArray[np.int32]]:
        return self.largest_scale(*range_of(self.target, tile.lowest, tile.highest), second)

    def largest_scale(
        self, below: Floats, above: Floats, second: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Stored max-abs scales and zero points of groups that span [below, above]."""
        element = _scale_element(self.target)
        if element.kind == "exponent":
            scales = np.exp2(shared_exponent(above, self.target.element, self.rule).astype(np.float64))
        else:
            scales = stored(element, real_scales(self.target, below, above, second))
        return scales, zero_points(self.target, scales, below)

    def candidates(
        self, below: Floats, above: Floats, second: Floats | None = None
    ) -> Iterator[tuple[Floats, npt.NDArray[np.int32]]]:
        """Stored scales and zero points among which the MSE search chooses, from large to small."""
        element = _scale_element(self.target)
        if element.kind == "exponent":
            widest = shared_exponent(above, self.target.element, "ceil")
            for fewer in range(MSE_EXPONENTS):
                scales = np.exp2(np.maximum(widest - fewer, SMALLEST_EXPONENT).astype(np.float64))
                yield scales, zero_points(self.target, scales, below)
        elif element.bits == 8:
            codes = encode(element, real_scales(self.target, below, above, second)).astype(np.int64)
            for offset in range(MSE_CODES_ABOVE, -MSE_CODES_BELOW - 1, -1):
                scales = decode(element, np.clip(codes + offset, 1, element.max_code))
                yield scales, zero_points(self.target, scales, below)
        else:
            for hundredths in range(100, 100 - MSE_RATIOS, -1):
                ratio = hundredths / 100
                yield self.largest_scale(below * ratio, above * ratio, second)

    def searched_scales(self, tile: _Tile, second: Floats | None) -> tuple[Floats, npt.NDArray[np.int32]]:
        """For each group of the tile the candidate with the smallest sum of squared errors."""
        best = np.full(tile.lowest.shape, np.inf)
        scales, zeros = np.empty(best.shape), np.empty(best.shape, np.int32)
        for scale, zero in self.candidates(*range_of(self.target, tile.lowest, tile.highest), second):
            errors = self.squared_errors(tile, self.divisors(scale, second), zero)
            better = errors < best
            best[better], scales[better], zeros[better] = errors[better], scale[better], zero[better]
        return scales, zeros

    def searched_tensor_scale(
        self, tiles: list[_Tile], below: Floats, above: Floats
    ) -> tuple[Floats, npt.NDArray[np.int32]]:
        """The candidate with the smallest sum of squared errors over the tensor (rows added exactly)."""
        choices = list(self.candidates(below, above))
        errors: list[list[float]] = [[] for _ in choices]
        for tile in tiles:
            for total, (scale, zero) in zip(errors, choices, strict=True):
                total.extend(self.squared_errors(tile, scale * self.unit, zero)[:, 0].tolist())
        sums = [fsum(total) for total in errors]
        return choices[sums.index(min(sums))]

    def squared_errors(self, tile: _Tile, divisors: Floats, zeros: npt.NDArray[np.int32]) -> Floats:
        """Sum of squared errors of each group of the tile at these scales."""
        values = tile.finite_values
        rows, k = values.shape
        groups = (rows, self.target.groups(k))
        divisors, zeros = np.broadcast_to(divisors, groups).copy(), np.broadcast_to(zeros, groups).copy()
        codes = np.empty((rows, k), self.target.code_dtype)
        self.fill(codes, values, divisors, zeros, is_finite=True)
        element = self.target.element
        first = self.target.code_range[0] if element.is_integer else 0
        if element.is_integer:
            table = np.arange(first, self.target.code_range[1] + 1, dtype=np.float64)
        else:
            table = decode_table(element)
        if not self.is_compiled:
            return passes.squared_errors(values, self.group, codes, table, first, divisors, zeros)
        errors = np.empty(groups)
        passes.squared_errors_kernel(
            _compiled_input(values), self.group, codes, table.copy(), first, divisors, zeros, errors
        )
        return errors

    def encode(self, tile: _Tile, divisors: Floats, zeros: npt.NDArray[np.int32]) -> None:
        """Fill the codes of a tile."""
        groups = (len(tile.values), self.target.groups(self.k))
        divisors, zeros = np.broadcast_to(divisors, groups).copy(), np.broadcast_to(zeros, groups).copy()
        values, is_finite = tile.values, tile.is_finite
        if self.marks_broken_blocks and not is_finite:
            values = np.where(passes.per_value(tile.broken, self.group, self.k), 0, values)
            is_finite = True
        self.fill(self.codes[tile.rows], values, divisors, zeros, is_finite=is_finite)

    def fill(
        self, codes: Array, values: Array, divisors: Floats, zeros: npt.NDArray[np.int32], *, is_finite: bool
    ) -> None:
        """Write the codes of `values` (rows, k) into `codes`."""
        element = self.target.element
        compiled = self.is_compiled and is_finite
        if element.is_integer:
            span = self.target.code_range
            if compiled:
                passes.integer_codes_kernel(
                    _compiled_input(values), self.group, divisors, zeros, *span, codes
                )
            else:
                codes[:] = passes.integer_codes(values, self.group, divisors, zeros, span, codes.dtype)
        elif compiled:
            layout = (element.mantissa_bits, element.emin, element.max_code, 1 << (element.bits - 1))
            passes.float_codes_kernel(_compiled_input(values), self.group, divisors, *layout, codes)
        else:
            codes[:] = passes.float_codes(values, self.group, divisors, element)


def _scale_element(target: Format) -> Element:
    if target.scale_element is None:
        raise InputError("has no scale", value=target.name)
    return target.scale_element


def _compiled_input(values: Array) -> npt.NDArray[np.float32]:
    """Contiguous and writeable, so that each kernel is compiled for one type of array only."""
    return np.require(values, np.float32, ["C", "W"])
