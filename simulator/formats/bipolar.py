"""Integers written as odd numbers: every bit is worth +1 or -1 instead of 1 or 0.

q' = 2 q - (2**b - 1) for unsigned codes, 2 q + 1 for two's complement, maps b-bit codes one to one onto the odd
numbers -(2**b - 1) .. 2**b - 1, and s (q - z) = s/2 (q' - z') with z' mapped like q. Since
q' = sum of 2**i * (2 * bit_i - 1), lookup tables are symmetric and planes of bits need only additions and subtractions.

Mo et al., "LUT Tensor Core", ISCA 2025 (reinterpretation); "APT-LLM", arXiv 2508.19087 (bipolar-INT); Park et al.,
"FIGLUT", HPCA 2025 (binary coding of uniform integers).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.element import Array
from simulator.formats.format import Format
from simulator.formats.tensor import QuantizedTensor


class Bipolar(NamedTuple):
    """value = (odd - zero point) * scale, exactly that of the tensor it was made from."""

    odd: npt.NDArray[np.int64]
    scales: npt.NDArray[np.float64]
    """Half the tensor's, all levels but the tensor scale together."""
    zero_points: npt.NDArray[np.int64]
    """Shape of `scales`; the image of 0 where the format has none."""


def bipolar(tensor: QuantizedTensor) -> Bipolar:
    """The tensor in odd numbers. InputError: not of integers with a scale."""
    format_ = tensor.format
    scales = tensor.group_scales
    if not format_.is_integer or scales is None:
        raise InputError("only integers with a scale become odd numbers", value=format_.name)
    zeros = np.zeros(scales.shape, np.int64) if tensor.zero_points is None else tensor.zero_points
    scale = np.ldexp(scales, format_.element.step_exponent - 1)
    return Bipolar(odd_numbers(tensor.codes, format_), scale, odd_numbers(zeros, format_))


def odd_numbers(codes: Array, format_: Format) -> npt.NDArray[np.int64]:
    """q' of integer codes of a format."""
    offset = (1 << format_.code_bits) - 1 if format_.element.kind == "uint" else -1
    return 2 * np.asarray(codes).astype(np.int64) - offset


def bit_planes(odd: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int8]:
    """Planes (bits, ...) of -1 and +1, the lowest first: the odd number is the sum of 2**i * plane i."""
    unsigned = (np.asarray(odd) + (1 << bits) - 1) >> 1
    if unsigned.size and (unsigned.min() < 0 or unsigned.max() >= 1 << bits):
        raise InputError(
            "odd numbers out of range", value=int(odd.flat[0]), allowed=f"within +-{2**bits - 1}"
        )
    places = np.arange(bits).reshape(-1, *[1] * unsigned.ndim)
    return ((unsigned >> places & 1) * 2 - 1).astype(np.int8)
