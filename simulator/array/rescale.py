"""What becomes of partial sums: the rescale unit, the output stage, and the operands' scales that both apply.

Every quantity is an exact integer times a power of two. The rescale unit adds `partial sum * weight scale * activation
scale` of a group to an FP32 accumulator with one rounding (to nearest, ties to even), groups in ascending order. The
output stage multiplies by the scales of row, column and tensors and rounds once to FP32; the output format's quantizer
follows. Zero points are subtracted exactly, from sums of the other operand's codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats import QuantizedTensor, exact_integers
from simulator.pe.arithmetic import FP32, Integers, round_to_float
from simulator.pe.protocol import SCALE_EXPONENT
from simulator.units import ceil_div

Exact = npt.NDArray[np.object_]

UNIT = 1 << -SCALE_EXPONENT


@dataclass(frozen=True, eq=False)
class Operand:
    """One operand of a batch of GEMMs as exact integers: (batch, rows, k) codes and (batch, rows, groups) scales."""

    integers: Integers
    """Element integers; zero points not subtracted."""
    exponent: int
    """A code is worth its integer times 2**exponent."""
    scales: Exact
    """Integers times 2**SCALE_EXPONENT; one group where the scale is per row or tensor."""
    zero_points: Exact
    row_scales: Exact
    """(batch, rows), second level of groups' scales; ones where there is none."""
    tensor_scale: int
    group_size: int
    span: int
    """Groups begin anew every ``span`` values of K."""

    def group_at(self, k0: int) -> int:
        """Index of the scale that applies to the K values that begin at ``k0``."""
        if not self.group_size:
            return 0
        return (k0 // self.span) * ceil_div(self.span, self.group_size) + (k0 % self.span) // self.group_size


def operand(tensor: QuantizedTensor, batch: int, rows: int) -> Operand:
    """A quantized tensor as the operand of ``batch`` GEMMs.

    The tensor's last axis is what groups run along; its shape is (batch * rows, k), or (batch * rows, kernel positions,
    channels) where groups begin anew at each position. Raises InputError: codes or scales that are not finite.
    """
    format = tensor.format
    span = tensor.shape[-1]
    integers, exponent = exact_integers(tensor)
    scales = np.float32(1) if tensor.scales is None else tensor.scales
    zeros = np.zeros(np.shape(scales), np.int64) if tensor.zero_points is None else tensor.zero_points
    second = (
        np.ones((batch, rows)) if tensor.row_scales is None else np.asarray(tensor.row_scales, np.float64)
    )
    return Operand(
        integers[..., :span].reshape(batch, rows, -1).astype(object),
        exponent,
        _per_row(_exact_scales(np.asarray(scales, np.float64)), batch, rows),
        _per_row(zeros.astype(object), batch, rows),
        _exact_scales(second.reshape(batch, rows, -1)[..., 0]),
        UNIT if tensor.tensor_scale is None else int(_exact_scales(np.asarray(float(tensor.tensor_scale)))),
        format.group_size,
        span,
    )


def _per_row(values: Exact, batch: int, rows: int) -> Exact:
    if values.size == 1:
        return np.broadcast_to(values.reshape(1, 1, 1), (batch, rows, 1))
    return values.reshape(batch, rows, -1)


def _exact_scales(scales: npt.NDArray[np.float64]) -> Exact:
    """Scales as integers times 2**SCALE_EXPONENT."""
    if not np.isfinite(scales).all():
        raise InputError("a scale is NaN or infinite, and so is every result of its group")
    exact = np.empty(scales.shape, object)
    flat = exact.reshape(-1)
    for index, value in enumerate(scales.reshape(-1).tolist()):
        numerator, denominator = value.as_integer_ratio()
        flat[index] = numerator * UNIT // denominator
    return exact


def correct(
    partial: Integers,
    exponent: int,
    weights: Operand,
    activations: Operand,
    where: tuple[int, int, slice, slice, int, int],
) -> tuple[Exact, int]:
    """Partial sums (m, n) of K [low, high) without the operands' zero points; the integers and their exponent.

    ``partial`` times 2**exponent; ``where``: batch entry of weights and of activations, rows of m and of n, low, high.
    """
    weight_batch, batch, m, n, low, high = where
    w_zero = weights.zero_points[weight_batch, n, weights.group_at(low)][None, :]
    a_zero = activations.zero_points[batch, m, activations.group_at(low)][:, None]
    w_sum = weights.integers[weight_batch, n, low:high].sum(axis=-1)[None, :]
    a_sum = activations.integers[batch, m, low:high].sum(axis=-1)[:, None]
    zeros: Exact = w_zero * a_sum + a_zero * w_sum - (high - low) * w_zero * a_zero
    products = weights.exponent + activations.exponent
    common = min(exponent, products)
    corrected: Exact = partial.astype(object) * 2 ** (exponent - common) - zeros * 2 ** (products - common)
    return corrected, common


def accumulate_scaled(
    accumulator: Integers, partial: Integers, exponent: int, w_scale: Exact, a_scale: Exact
) -> Exact:
    """accumulator + partial * w_scale * a_scale, rounded once to FP32.

    ``accumulator`` and the result are integers times 2**-149, ``partial`` times 2**exponent.
    """
    product_exponent = exponent + 2 * SCALE_EXPONENT
    common = min(product_exponent, FP32.low)
    product = partial.astype(object) * w_scale * a_scale
    total = accumulator.astype(object) * 2 ** (FP32.low - common) + product * 2 ** (product_exponent - common)
    return round_to_float(total, common, FP32)


def finish(
    sums: Integers, exponent: int, w_scale: Exact, a_scale: Exact, tensor_scale: int
) -> npt.NDArray[np.float32]:
    """The output stage: sums * scales, rounded once to FP32. ``tensor_scale``: product of both tensors' second
    levels."""
    product = sums.astype(object) * w_scale * a_scale * tensor_scale
    rounded = round_to_float(product, exponent + 4 * SCALE_EXPONENT, FP32)
    scale = 1 << -FP32.low
    return np.array([np.float32(int(value) / scale) for value in rounded.reshape(-1)], np.float32).reshape(
        sums.shape
    )
