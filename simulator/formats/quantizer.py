"""`quantize`: an array to codes and scales.

Everything is computed in float64 and rounded once where the format rounds: extremes of each group, scale,
stored scale, then ``value / (stored scale * tensor scale)`` in float64, then the nearest code. For float32
(or narrower) values and the scale formats here the float64 quotient never lies on the other side of a
rounding boundary than the exact one: a boundary times a scale has at most 45 significant bits, so value and
boundary, when they differ, differ by more than 2**-46 of their size. The codes are those nearest to the exact
quotient. For float64 values the two roundings are the definition.

The tensor is worked through in tiles that stay in the cache, so the peak is input plus output.

Formats whose definition is another procedure (BitNet's mean, QServe's two steps, BBS's pruning) bring it as
`Format.quantizer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import fsum, inf, prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError, nearest
from simulator.formats import passes
from simulator.formats.element import (
    E8M0,
    Array,
    Floats,
    decode_table,
    refuse_nan,
    table_integers,
    table_maxima,
)
from simulator.formats.format import Format, ScaleRule
from simulator.formats.names import get_format, origin
from simulator.formats.scaling import (
    SCALE_RULES,
    candidate_scales,
    largest_scale,
    range_of,
    real_scales,
    row_scales,
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

    `scale_rule`: how a shared exponent follows from the largest magnitude; see `shared_exponent`. By default
    the format's, which is floor for MX and block floating point.

    Of several value tables each group takes the one whose max-abs scale leaves the smallest sum of squared
    errors, the first of equals.

    `pad`: fill a short last group with zeros and store them.

    Values too large saturate. Scales are taken from the finite values; Inf keeps its code or saturates; NaN
    in a format without NaN is an InputError that counts and locates. An MX block with Inf or NaN gets the
    scale NaN and codes 0.
    """
    target = get_format(format_)
    values = _as_array(x)
    rule = _check_options(target, scale, scale_rule)
    shape = values.shape
    if target.quantizer is not None:
        return _by_its_own(target, values, pad=pad)
    job = _Job(target, values, search=scale == "mse", rule=rule, pad=pad)
    with np.errstate(over="ignore"):
        scales = job.run()
    codes = job.codes.reshape(*shape[:-1], job.k)
    if scales is None:
        return QuantizedTensor(codes, target, k=shape[-1])
    groups = scales.scales.shape[1]
    scale_shape = () if target.granularity == "tensor" else (*shape[:-1], groups)
    second, of_rows = scales.of_tensor, scales.of_rows
    return QuantizedTensor(
        codes,
        target,
        scales.scales.astype(np.float32).reshape(scale_shape),
        scales.zeros.reshape(scale_shape) if target.has_zero_point else None,
        scales.selectors.reshape(scale_shape) if target.selector_bits else None,
        None if second is None else np.float32(second),
        None if of_rows is None else of_rows.astype(np.float32).reshape(*shape[:-1], 1),
        k=shape[-1],
    )


def _by_its_own(target: Format, values: Array, *, pad: bool) -> QuantizedTensor:
    """What the format's own quantizer makes of the values, in its fields' shapes and ranges."""
    if not np.isfinite(values).all():
        refuse_nan(values, target.name)
        raise InputError("Inf among the values, and its quantizer takes finite ones", key=target.name)
    *outer, k = values.shape
    rows = values.reshape(prod(outer), k)
    if pad:
        rows = np.pad(rows, ((0, 0), (0, target.padded_k(k) - k)))
    whole = target.granularity == "tensor" or not rows.size
    tiles = [slice(None)] if whole else row_slices(*rows.shape)
    parts = [_part(target, rows[tile]) for tile in tiles]
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]).reshape(*outer, *shape[1:])
        if shape
        else getattr(parts[0], name)
        for name, _, shape in target.fields(rows.shape)
    }
    return QuantizedTensor(format=target, k=k, **fields)


def _part(target: Format, values: Array) -> QuantizedTensor:
    """Some rows, as the format's quantizer writes them."""
    assert target.quantizer is not None
    entry = origin(target)
    where = target.name if entry is None else f"{target.name} of entry point {entry}"
    try:
        found = target.quantizer(values, target)
    except Exception as error:
        if entry is None:
            raise
        raise InputError(f"its quantizer failed: {type(error).__name__}: {error}", key=where) from error
    if not isinstance(found, QuantizedTensor) or found.format != target or found.codes.shape != values.shape:
        raise InputError("its quantizer returns no tensor of this format and shape", key=where)
    try:
        found.check()
    except InputError as error:
        raise InputError(f"its quantizer returns {error}", key=where) from error
    return found


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
    if scale not in ("maxabs", "mse"):
        raise InputError("unknown way to find a scale", key="scale", value=scale, allowed="maxabs, mse")
    if scale == "mse" and target.scale_element is None:
        raise InputError(f"{target.name} has no scale to choose", key="scale", value=scale, allowed="maxabs")
    if target.quantizer is not None and (scale != "maxabs" or scale_rule is not None):
        raise InputError("finds its scales in a way of its own: no scale, no scale_rule", key=target.name)
    if scale_rule is None:
        return target.scale_rule
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
    kind = None if target.scale_element is None else target.scale_element.kind
    return kind == "exponent" and target.row_scale_element is None


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


@dataclass(frozen=True)
class _Scales:
    """Scales, zero points and selectors, (rows, groups) or (1, 1), and the second level above them."""

    scales: Floats
    zeros: npt.NDArray[np.int32]
    selectors: npt.NDArray[np.uint8]
    of_tensor: Floats | None = None
    """()"""
    of_rows: Floats | None = None
    """(rows, 1)"""

    @property
    def second(self) -> Floats | None:
        return self.of_tensor if self.of_rows is None else self.of_rows


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

    def run(self) -> _Scales | None:
        """Fill the codes. Returns the scales; None for a format without."""
        target = self.target
        zero = np.zeros((1, 1), np.int32)
        if target.scale_element is None:
            for tile in self.tiles():
                self.encode(tile, _Scales(np.ones((1, 1)), zero, zero.astype(np.uint8)))
            return None
        if target.granularity == "tensor":
            tiles = list(self.tiles())
            span = self.tensor_range(tiles)
            if self.search:
                scale, zero = self.searched_tensor_scale(tiles, *span)
            else:
                scale, zero = largest_scale(target, *span, rule=self.rule)
            whole = _Scales(scale, zero, np.zeros((1, 1), np.uint8))
            for tile in tiles:
                self.encode(tile, whole)
            return whole
        second = None
        if target.tensor_scale_element is not None:
            largest = float(self.tensor_range(self.tiles())[1].item())
            second = second_level_scale(
                target.tensor_scale_element, target.scale_element, target.element, largest
            )
        rows, groups = self.x.shape[0], target.groups(self.k)
        shape = (rows, groups)
        scales, zeros = np.empty(shape), np.empty(shape, np.int32)
        selectors = np.zeros(shape, np.uint8)
        of_rows = None if target.row_scale_element is None else np.empty((rows, 1))
        for tile in self.tiles():
            found = self.scales_of(tile, second)
            self.encode(tile, found)
            broken = tile.broken if self.marks_broken_blocks else False
            scales[tile.rows] = np.where(broken, np.nan, found.scales)
            zeros[tile.rows], selectors[tile.rows] = found.zeros, found.selectors
            if of_rows is not None:
                of_rows[tile.rows] = found.of_rows
        return _Scales(scales, zeros, selectors, second, of_rows)

    def scales_of(self, tile: _Tile, of_tensor: Floats | None) -> _Scales:
        """Selectors, then scales of the groups of a tile: the largest, or those that the search finds."""
        target = self.target
        span = range_of(target, tile.lowest, tile.highest)
        selectors = self.chosen_tables(tile, *span, of_tensor)
        largest = table_maxima(target.element)[selectors] if target.selector_bits else None
        of_rows = None
        if target.row_scale_element is not None:
            of_rows = row_scales(target, real_scales(target, *span, None, largest))
        second = of_tensor if of_rows is None else of_rows
        chosen, zeros = largest_scale(target, *span, second, self.rule, largest)
        found = _Scales(chosen, zeros, selectors, of_tensor, of_rows)
        if not self.search:
            return found
        choices = candidate_scales(target, *span, second, largest)
        return self.best(tile, (replace(found, scales=scale, zeros=zero) for scale, zero in choices))

    def chosen_tables(
        self, tile: _Tile, below: Floats, above: Floats, second: Floats | None
    ) -> npt.NDArray[np.uint8]:
        """For each group the table that leaves the smallest error at its max-abs scale; zeros where there is
        one. Below scales of rows, which depend on the choice, the scale is the unrounded one."""
        target = self.target
        none = np.zeros(above.shape, np.int32)
        first = none.astype(np.uint8)
        if not target.selector_bits:
            return first

        def choices() -> Iterator[_Scales]:
            for table, largest in enumerate(table_maxima(target.element)):
                if target.row_scale_element is None:
                    scales, _ = largest_scale(target, below, above, second, self.rule, largest)
                else:
                    scales = real_scales(target, below, above, None, largest)
                    scales = np.where(scales > 0, scales, 1.0)
                yield _Scales(scales, none, first + np.uint8(table), second)

        return self.best(tile, choices()).selectors

    @property
    def marks_broken_blocks(self) -> bool:
        """The scale format has a NaN for blocks with Inf or NaN (E8M0)."""
        return self.target.scale_element == E8M0

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

    def best(self, tile: _Tile, choices: Iterator[_Scales]) -> _Scales:
        """For each group of the tile the choice with the smallest sum of squared errors, the first of
        equals."""
        best = next(choices)
        smallest = self.squared_errors(tile, best)
        scales, zeros, selectors = best.scales.copy(), best.zeros.copy(), best.selectors.copy()
        for choice in choices:
            errors = self.squared_errors(tile, choice)
            better = errors < smallest
            smallest[better], scales[better] = errors[better], choice.scales[better]
            zeros[better], selectors[better] = choice.zeros[better], choice.selectors[better]
        return replace(best, scales=scales, zeros=zeros, selectors=selectors)

    def searched_tensor_scale(
        self, tiles: list[_Tile], below: Floats, above: Floats
    ) -> tuple[Floats, npt.NDArray[np.int32]]:
        """The candidate with the smallest sum of squared errors over the tensor (rows added exactly)."""
        choices = list(candidate_scales(self.target, below, above))
        errors: list[list[float]] = [[] for _ in choices]
        for tile in tiles:
            for total, (scale, zero) in zip(errors, choices, strict=True):
                whole = _Scales(scale, zero, np.zeros((1, 1), np.uint8))
                total.extend(self.squared_errors(tile, whole)[:, 0].tolist())
        sums = [fsum(total) if max(total, default=0.0) < LARGEST_SUMMAND else inf for total in errors]
        return choices[sums.index(min(sums))]

    def squared_errors(self, tile: _Tile, scales: _Scales) -> Floats:
        """Sum of squared errors of each group of the tile at these scales."""
        values = tile.finite_values
        rows, k = values.shape
        divisors, zeros, selectors = self.per_group(scales, rows)
        codes = np.empty((rows, k), self.target.code_dtype)
        self.fill(codes, values, divisors, zeros, selectors, is_finite=True)
        table, width, first = self.value_table()
        offsets = selectors.astype(np.int64) * width - first
        if not self.is_compiled:
            return passes.squared_errors(values, self.group, codes, table, offsets, divisors, zeros)
        errors = np.empty(divisors.shape)
        passes.squared_errors_kernel(
            _compiled_input(values), self.group, codes, table, offsets, divisors, zeros, errors
        )
        return errors

    def value_table(self) -> tuple[Floats, int, int]:
        """Value of each code in steps, one table after the other; codes in a table; the first code."""
        element = self.target.element
        if element.is_integer:
            first, last = self.target.code_range
            return np.arange(first, last + 1, dtype=np.float64), 0, first
        if element.kind == "table":
            return table_integers(element).reshape(-1).astype(np.float64), 2**element.bits, 0
        return decode_table(element).copy(), 0, 0

    def per_group(
        self, scales: _Scales, rows: int
    ) -> tuple[Floats, npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """What values are divided by before they are rounded, zero points and selectors, (rows, groups)."""
        shape = (rows, self.target.groups(self.k))
        divisors = scales.scales * (self.unit if scales.second is None else self.unit * scales.second)
        return (
            np.broadcast_to(divisors, shape).copy(),
            np.broadcast_to(scales.zeros, shape).copy(),
            np.broadcast_to(scales.selectors, shape).copy(),
        )

    def encode(self, tile: _Tile, scales: _Scales) -> None:
        """Fill the codes of a tile."""
        values, is_finite = tile.values, tile.is_finite
        if self.marks_broken_blocks and not is_finite:
            values = np.where(passes.per_value(tile.broken, self.group, self.k), 0, values)
            is_finite = True
        of_groups = self.per_group(scales, len(values))
        self.fill(self.codes[tile.rows], values, *of_groups, is_finite=is_finite)

    def fill(
        self,
        codes: Array,
        values: Array,
        divisors: Floats,
        zeros: npt.NDArray[np.int32],
        selectors: npt.NDArray[np.uint8],
        *,
        is_finite: bool,
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
        elif element.kind == "table":
            by_half_step = passes.half_step_codes(element) if compiled else None
            if by_half_step is None:
                codes[:] = passes.table_codes(values, self.group, divisors, element, selectors)
            else:
                up = element.ties == "upper"
                inputs = (_compiled_input(values), self.group, divisors)
                passes.table_codes_kernel(*inputs, by_half_step, up, selectors, codes)
        elif compiled:
            layout = (element.mantissa_bits, element.emin, element.max_code, 1 << (element.bits - 1))
            passes.float_codes_kernel(_compiled_input(values), self.group, divisors, *layout, codes)
        else:
            codes[:] = passes.float_codes(values, self.group, divisors, element)


def _compiled_input(values: Array) -> npt.NDArray[np.float32]:
    """Contiguous and writeable, so that each kernel is compiled for one type of array only."""
    return np.require(values, np.float32, ["C", "W"])
