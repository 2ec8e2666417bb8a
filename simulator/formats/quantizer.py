"""`quantize`: an array to codes and scales.

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
from math import fsum, inf, prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError, nearest
from simulator.formats import passes
from simulator.formats.element import E8M0, Array, Floats, decode_table, refuse_nan
from simulator.formats.format import Format
from simulator.formats.names import get_format
from simulator.formats.scaling import (
    SCALE_RULES,
    ScaleRule,
    candidate_scales,
    largest_scale,
    range_of,
    second_level_scale,
)
from simulator.formats.tensor import QuantizedTensor, row_slices

COMPILED_FROM = 2**20
"""Tensors of at least so many values use the compiled kernels; smaller ones are done before numba loads."""

LARGEST_SUMMAND = 1e290
"""Squared errors of a row beyond this, which float64 values alone reach, count as infinite."""


def quantize(
    x: npt.ArrayLike,
    format_: Format | str,
    *,
    scale: Literal["maxabs", "mse"] = "maxabs",
    scale_rule: ScaleRule | None = None,
    pad: bool = False,
) -> QuantizedTensor:
    """Write `x` (..., rows, k) in a number format; K is the last axis.

    `scale`: ``maxabs`` maps the largest magnitude (asymmetric: the range, 0 included) onto the largest code;
    ``mse`` takes, of the `candidate_scales`, the one with the smallest sum of squared errors.

    `scale_rule`: how a shared exponent follows from the largest magnitude; see `shared_exponent`. Floor by
    default.

    `pad`: fill a short last group with zeros and store them.

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
    """One tensor on its way into a format: its values as rows, read in tiles, and the codes they become."""

    def __init__(self, target: Format, x: Array, *, search: bool, rule: ScaleRule, pad: bool) -> None:
        self.target, self.source, self.search, self.rule = target, x, search, rule
        self.x = x.reshape(prod(x.shape[:-1]), x.shape[-1])
        self.k = target.padded_k(x.shape[-1]) if pad else x.shape[-1]
        self.group = target.group_size or max(self.k, 1)
        self.codes = np.empty((self.x.shape[0], self.k), target.code_dtype)
        self.is_compiled = x.dtype == np.float32 and x.size >= COMPILED_FROM
        self.unit = 2.0**target.element.step_exponent

    def run(self) -> tuple[Floats | None, npt.NDArray[np.int32], Floats | None]:
        """Fill the codes. Returns scales and zero points, (rows, groups) or (1, 1), and the second-level
        scale."""
        target = self.target
        shape = (self.x.shape[0], target.groups(self.k))
        if target.scale_element is None:
            for tile in self.tiles():
                self.encode(tile, np.ones((1, 1)), np.zeros((1, 1), np.int32))
            return None, np.zeros((1, 1), np.int32), None
        if target.granularity == "tensor":
            tiles = list(self.tiles())
            span = self.tensor_range(tiles)
            if self.search:
                scale, zero = self.searched_tensor_scale(tiles, *span)
            else:
                scale, zero = largest_scale(target, *span, rule=self.rule)
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
            span = range_of(target, tile.lowest, tile.highest)
            if self.search:
                chosen, zero = self.searched_scales(tile, *span, second)
            else:
                chosen, zero = largest_scale(target, *span, second, self.rule)
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
        for rows in row_slices(*self.codes.shape):
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

    def searched_scales(
        self, tile: _Tile, below: Floats, above: Floats, second: Floats | None
    ) -> tuple[Floats, npt.NDArray[np.int32]]:
        """For each group of the tile the candidate with the smallest sum of squared errors."""
        choices = candidate_scales(self.target, below, above, second)
        scales, zeros = next(choices)
        best = self.squared_errors(tile, self.divisors(scales, second), zeros)
        for scale, zero in choices:
            errors = self.squared_errors(tile, self.divisors(scale, second), zero)
            better = errors < best
            best[better], scales[better], zeros[better] = errors[better], scale[better], zero[better]
        return scales, zeros

    def searched_tensor_scale(
        self, tiles: list[_Tile], below: Floats, above: Floats
    ) -> tuple[Floats, npt.NDArray[np.int32]]:
        """The candidate with the smallest sum of squared errors over the tensor (rows added exactly)."""
        choices = list(candidate_scales(self.target, below, above))
        errors: list[list[float]] = [[] for _ in choices]
        for tile in tiles:
            for total, (scale, zero) in zip(errors, choices, strict=True):
                total.extend(self.squared_errors(tile, scale * self.unit, zero)[:, 0].tolist())
        sums = [fsum(total) if max(total, default=0.0) < LARGEST_SUMMAND else inf for total in errors]
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


def _compiled_input(values: Array) -> npt.NDArray[np.float32]:
    """Contiguous and writeable, so that each kernel is compiled for one type of array only."""
    return np.require(values, np.float32, ["C", "W"])
