"""QServe's progressive weights: INT8 per channel within +-119, then UINT4 per group with integer scale and zero.

Lin et al., "QServe: W4A8KV4 Quantization and System Co-design for Efficient LLM Serving", MLSys 2025, and its released
kernels. The first step uses only -119 .. 119 (the protective range), so that after the second every (q - z) * s lies
within INT8: -121 .. 121. Rounding is to nearest, ties to even.

Ours: the range of a group includes 0, as all our zero points have it; the paper takes minimum and maximum as they are
and clamps the zero point, which is the same for every group with values on both sides of 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats import passes
from simulator.formats.element import FP16, Array, integer, widen
from simulator.formats.format import Format
from simulator.formats.scaling import stored
from simulator.formats.tensor import QuantizedTensor

PROTECTIVE_RANGE = 119
Integers = npt.NDArray[np.int64]


def format_of(group: int) -> Format:
    """UINT4 codes; UINT8 scale and UINT4 zero point a group; FP16 scale a row."""
    return Format(
        f"qserve_uint4_g{group}",
        integer(4, signed=False),
        "group",
        group,
        scale_element=integer(8, signed=False),
        row_scale_element=FP16,
        has_zero_point=True,
        quantizer=progressive,
    )


def progressive(values: Array, format_: Format) -> QuantizedTensor:
    """The quantizer: two steps, the second on the integers of the first."""
    rows, k = values.shape
    reals = widen(values)
    largest = np.abs(reals).max(axis=1, keepdims=True, initial=0.0)
    row_scales = stored(FP16, largest / PROTECTIVE_RANGE)
    first = np.clip(np.rint(reals / row_scales), -PROTECTIVE_RANGE, PROTECTIVE_RANGE).astype(np.int64)
    if k:
        starts = passes.group_starts(k, format_.group_size)
        lowest = np.minimum.reduceat(first, starts, axis=1)
        highest = np.maximum.reduceat(first, starts, axis=1)
    else:
        lowest = highest = np.zeros((rows, 0), np.int64)
    largest_code = format_.element.max_code
    scales, zeros = integer_scales(lowest, highest, largest_code)
    steps = passes.per_value(scales, format_.group_size, k)
    codes = np.rint(first / steps) + passes.per_value(zeros, format_.group_size, k)
    return QuantizedTensor(
        np.clip(codes, 0, largest_code).astype(format_.code_dtype),
        format_,
        scales.astype(np.float32),
        zeros.astype(np.int32),
        row_scales=row_scales.astype(np.float32),
    )


def integer_scales(lowest: Integers, highest: Integers, largest_code: int) -> tuple[Integers, Integers]:
    """Scale, at least 1, and zero point of groups of integers between `lowest` and `highest`."""
    below, above = np.minimum(lowest, 0), np.maximum(highest, 0)
    scales = np.maximum(np.rint((above - below) / largest_code), 1)
    zeros = np.clip(np.rint(-below / scales), 0, largest_code)
    return scales.astype(np.int64), zeros.astype(np.int64)


def first_level(tensor: QuantizedTensor) -> Integers:
    """The integers (codes - zero point) * group scale that stand under the rows' scales, shape of the codes.

    For any format with integer codes and integer group scales. QServe's lie within -121 .. 121.
    """
    format_ = tensor.format
    level = format_.scale_element
    if not (format_.is_integer and level and level.is_integer and tensor.scales is not None):
        raise InputError("has no integer scales of groups", value=format_.name)
    k = tensor.codes.shape[-1]
    codes = tensor.codes.astype(np.int64)
    if tensor.zero_points is not None:
        codes -= passes.per_value(tensor.zero_points, format_.group_size, k)
    return codes * passes.per_value(tensor.scales.astype(np.int64), format_.group_size, k)
