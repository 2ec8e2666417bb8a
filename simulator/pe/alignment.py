"""Pre-alignment: floats of a group as integers that share the exponent of the largest.

A significand m (hidden bit included) with exponent E becomes ``m * 2**g >> (E_max - E)``, its sign apart, so that what
is shifted out is cut off towards zero; the group's scale is the power of two that the last kept bit is worth. With
``bits`` = 11 + g of FP16, nothing of the largest value is lost. So do FIGLUT-I (Park et al., HPCA 2025) and FIGNA (Jang
et al., HPCA 2024; `simulator.pe.figna`); FIGNA's paper was not at hand, nor do we know FIGLUT's width.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import FP32, decode, integer
from simulator.pe.arithmetic import Integers
from simulator.units import ceil_div


def aligned_format(format: Format, group: int, bits: int) -> Format:
    """The format of a tensor that `aligned` made: integers of ``bits`` and a sign, a scale for each ``group``."""
    return Format(
        f"{format.name} aligned in groups of {group}",
        integer(bits + 1),
        "group",
        group_size=group,
        scale_element=FP32,
    )


def align_refusal(format: Format, bits: int) -> str | None:
    """None, or why values of this format cannot be aligned to ``bits``."""
    element = format.element
    if element.kind != "float" or element.bits > 16:
        return f"its aligner takes floats of up to 16 bits, not {element.name}"
    if element.mantissa_bits + 1 > bits:
        return f"{element.name} has significands of {element.mantissa_bits + 1} bits, more than its {bits} aligned ones"
    if format.granularity not in ("none", "tensor", "token", "channel"):
        return f"{format.name} has scales along K, as the exponents of its groups are"
    return None


def aligned(tensor: QuantizedTensor, group: int, bits: int) -> QuantizedTensor:
    """The aligner, bit for bit. Groups of a row of the last axis; a scale that the tensor had goes into theirs.

    Raises InputError: Inf or NaN, or a scale that FP32 does not hold.
    """
    to = aligned_format(tensor.format, group, bits)
    reason = align_refusal(tensor.format, bits)
    if reason:
        raise InputError(f"cannot be aligned: {reason}", value=tensor.format.name)
    codes, exponents = shared_exponent(tensor, group, bits)
    scales = np.ldexp(np.ones(()), exponents - (bits - 1))
    if tensor.scales is not None:
        scales = scales * tensor.scales.astype(np.float64)
    stored = scales.astype(np.float32)
    if (stored != scales).any():
        raise InputError("the scale of an aligned group is no FP32 number", value=tensor.format.name)
    return replace(tensor, codes=codes.astype(to.element.dtype), format=to, scales=stored)


def shared_exponent(tensor: QuantizedTensor, group: int, bits: int) -> tuple[Integers, Integers]:
    """(..., k) integers of ``bits`` and a sign, and (..., groups) exponents E_max: the integer 2**(bits - 1) is worth
    2**E_max. Zero and subnormals have the exponent of the smallest normal value.

    Raises InputError: Inf or NaN.
    """
    element = tensor.format.element
    values = decode(element, tensor.codes[..., : tensor.k])
    broken = ~np.isfinite(values)
    if broken.any():
        raise InputError(f"{int(broken.sum())} Inf or NaN cannot be aligned", value=tensor.format.name)
    rows, k = values.shape[:-1], tensor.k
    groups = ceil_div(k, group)
    padded = np.zeros((*rows, groups * group))
    padded[..., :k] = values
    padded = padded.reshape(*rows, groups, group)
    largest = np.abs(padded).max(axis=-1)
    exponents = np.where(largest > 0, np.maximum(np.frexp(largest)[1] - 1, element.emin), element.emin)
    integers = np.trunc(np.ldexp(padded, (bits - 1 - exponents)[..., None])).astype(np.int64)
    return integers.reshape(*rows, -1)[..., :k], exponents.astype(np.int64)
