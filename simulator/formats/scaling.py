"""From the extremes of a group to its stored scale and zero point.

A scale is rounded to the format in which it is stored, to nearest even, before anything is divided by it.
Above the largest stored value it saturates; below the smallest positive one, and so for a group of zeros, it
takes that one: no division by zero, codes 0.

Sources: OCP Microscaling Formats 1.0 section 6.3 (shared exponent, rule `floor`; Chen et al., "INT v.s. FP",
arXiv 2510.25602, and PyTorch AO's MX formats for `ceil` and `even`); Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018 (zero point);
NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv 2509.25149 (two-level scale); Dai et al.,
"VS-Quant", MLSys 2021 (integer scales of groups under a scale a row; the paper was not at hand); Wu et al.,
"ZeroQuant-FP", arXiv 2307.09782 (scales in powers of two, M1 and M2; the paper was not at hand); Frantar et
al., "GPTQ", ICLR 2023, and its released quantizer (grid of the MSE search).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.element import FP16, FP32, Element, Floats, decode, encode
from simulator.formats.format import Format, ScaleRule

SCALE_RULES: tuple[ScaleRule, ...] = ("floor", "ceil", "even")

SMALLEST_EXPONENT, LARGEST_EXPONENT = -127, 127
SMALLEST_RATIO_EXPONENT = -64
"""A group's power-of-two scale under a row's scale (M2) is 2**-64 to 1: what is smaller is nothing beside its
row, and 2**-64 times an FP16 scale is still a multiple of FP32's smallest value."""

MSE_RATIOS = 80
"""A scale of 16 or 32 bits is searched from 1.00 down to 0.21 of the max-abs scale in steps of 0.01: the grid
of the quantizer released with GPTQ, which adds up errors to the power 2.4 where we square."""
MSE_CODES_ABOVE, MSE_CODES_BELOW = 4, 11
"""An 8-bit scale is searched over its codes, from so many above the max-abs one down to so many below."""
MSE_EXPONENTS = 3
"""A shared exponent is searched from rule `ceil`, which saturates nothing, downwards over so many."""

ScalesAndZeros = tuple[Floats, npt.NDArray[np.int32]]
"""Stored scales and zero points, (rows, groups) each."""


def stored(element: Element, scales: Floats) -> Floats:
    """Non-negative reals as the scale format holds them: nearest, saturated, never zero."""
    if element == FP16:
        rounded = np.minimum(scales, element.max_value).astype(np.float16).astype(np.float64)
    elif element == FP32:
        rounded = np.minimum(scales, element.max_value).astype(np.float32).astype(np.float64)
    else:
        rounded = decode(element, encode(element, scales))
    return np.maximum(rounded, element.min_positive)


def shared_exponent(largest: Floats, element: Element, rule: ScaleRule) -> npt.NDArray[np.int64]:
    """Exponent e of the power-of-two scale of a block whose largest magnitude is `largest`.

    floor: floor(log2(largest)) - emax. OCP's rule; a block maximum above ``max_value * 2**e`` saturates.
    ceil:  the smallest e with largest <= max_value * 2**e; nothing saturates (PyTorch AO's RCEIL).
    even:  as floor, after rounding `largest` to the element's significand, ties to even (PyTorch AO's EVEN).
    Clamped to the 8-bit exponent's range, which is also the answer for a block of zeros (smallest).
    """
    fraction, exponent = np.frexp(largest)
    exponent = exponent.astype(np.int64)
    if rule == "ceil":
        largest_fraction, largest_exponent = np.frexp(element.max_value)
        shared = exponent - int(largest_exponent) + (fraction > largest_fraction)
    else:
        shared = exponent - 1 - element.emax
        if rule == "even":
            significand = np.rint(np.ldexp(fraction, element.significand_bits + 1))
            shared += significand == 1 << (element.significand_bits + 1)
    shared = np.where(largest == 0, SMALLEST_EXPONENT, shared)
    return np.clip(shared, SMALLEST_EXPONENT, LARGEST_EXPONENT)


def second_level_scale(second: Element, block_scale: Element, element: Element, largest: float) -> Floats:
    """Tensor scale above block scales (NVFP4): largest / (element max * block scale max), stored; shape
    ()."""
    real = np.float64(largest) / (element.max_value * block_scale.max_value)
    return stored(second, np.asarray(real))


def row_scales(format_: Format, scales: Floats) -> Floats:
    """Second-level scales (rows, 1), stored, above the scales (rows, groups) that the groups would like.

    Integer group scales: the row's largest scale is mapped onto the largest integer. Powers of two: the
    largest scale itself (ZeroQuant-FP, M2).
    """
    element, second = _scale_element(format_), format_.row_scale_element
    if second is None:
        raise InputError("has no scale a row above its groups'", value=format_.name)
    largest = scales.max(axis=1, keepdims=True, initial=0.0)
    return stored(second, largest if element.kind == "exponent" else largest / element.max_value)


def range_of(format_: Format, lowest: Floats, highest: Floats) -> tuple[Floats, Floats]:
    """The interval (<= 0, >= 0) that the codes of each group must span."""
    below, above = np.minimum(lowest, 0.0), np.maximum(highest, 0.0)
    if format_.has_zero_point:
        return below, above
    if not format_.element.is_signed:
        return np.zeros_like(above), above
    largest = np.maximum(-below, above)
    return -largest, largest


def real_scales(
    format_: Format,
    below: Floats,
    above: Floats,
    second: Floats | None = None,
    largest: Floats | None = None,
) -> Floats:
    """Unrounded scales that, with the second level, map [below, above] onto the codes.

    `second`: the second-level scale, of the tensor () or of the rows (rows, 1). `largest`: of each group, the
    largest value of the table that it uses; the element's by default.
    """
    span: Floats = above
    steps: Floats = np.asarray(format_.element.max_value if largest is None else largest)
    if format_.has_zero_point:
        smallest_code, largest_code = format_.code_range
        span, steps = above - below, np.asarray(float(largest_code - smallest_code))
    if format_.scale_limits is not None:
        span, steps = np.clip(span / steps, *format_.scale_limits), np.ones(())
    scales: Floats = span / (steps if second is None else steps * second)
    return scales


def zero_points(format_: Format, scales: Floats, below: Floats) -> npt.NDArray[np.int32]:
    """Code of the value 0: the code range begins at `below`. Zeros where the format has no zero point."""
    if not format_.has_zero_point:
        return np.zeros(scales.shape, np.int32)
    smallest, largest = format_.code_range
    codes: Floats = np.clip(smallest - np.rint(below / scales), smallest, largest)
    return codes.astype(np.int32)


def largest_scale(
    format_: Format,
    below: Floats,
    above: Floats,
    second: Floats | None = None,
    rule: ScaleRule = "floor",
    largest: Floats | None = None,
) -> ScalesAndZeros:
    """Max-abs scales: those that map [below, above] of each group onto the codes; `second` and `largest` as in
    `real_scales`."""
    element = _scale_element(format_)
    if element.kind != "exponent":
        scales = stored(element, real_scales(format_, below, above, second, largest))
    elif format_.row_scale_element is None:
        scales = _powers_of_two(shared_exponent(above, format_.element, rule))
    else:
        scales = _powers_of_two(_ratio_exponents(real_scales(format_, below, above, None, largest)))
    return scales, zero_points(format_, scales if second is None else scales * second, below)


def candidate_scales(
    format_: Format,
    below: Floats,
    above: Floats,
    second: Floats | None = None,
    largest: Floats | None = None,
) -> Iterator[ScalesAndZeros]:
    """The scales among which the MSE search chooses, from large to small; the first of equals wins."""
    element = _scale_element(format_)

    def with_zeros(scales: Floats) -> ScalesAndZeros:
        return scales, zero_points(format_, scales if second is None else scales * second, below)

    if element.kind == "exponent":
        if format_.row_scale_element is None:
            widest, smallest = shared_exponent(above, format_.element, "ceil"), SMALLEST_EXPONENT
        else:
            reals = real_scales(format_, below, above, None, largest)
            widest, smallest = np.minimum(_ratio_exponents(reals) + 1, 0), SMALLEST_RATIO_EXPONENT
        for fewer in range(MSE_EXPONENTS):
            yield with_zeros(_powers_of_two(np.maximum(widest - fewer, smallest)))
    elif element.bits == 8 or element.is_integer:
        codes = encode(element, real_scales(format_, below, above, second, largest)).astype(np.int64)
        for offset in range(MSE_CODES_ABOVE, -MSE_CODES_BELOW - 1, -1):
            yield with_zeros(decode(element, np.clip(codes + offset, 1, element.max_code)))
    else:
        for hundredths in range(100, 100 - MSE_RATIOS, -1):
            ratio = hundredths / 100
            yield largest_scale(format_, below * ratio, above * ratio, second, largest=largest)


def _ratio_exponents(scales: Floats) -> npt.NDArray[np.int64]:
    """-ceil(log2(largest of the row / scale)), within -64 .. 0, of the unrounded scales (rows, groups)."""
    largest = scales.max(axis=1, keepdims=True, initial=0.0)
    ratios = scales / np.where(largest > 0, largest, 1.0)
    exponents = np.frexp(ratios)[1].astype(np.int64) - 1
    return np.clip(np.where(ratios > 0, exponents, SMALLEST_RATIO_EXPONENT), SMALLEST_RATIO_EXPONENT, 0)


def _powers_of_two(exponents: npt.NDArray[np.int64]) -> Floats:
    return np.ldexp(1.0, exponents.astype(np.int32))


def _scale_element(format_: Format) -> Element:
    if format_.scale_element is None:
        raise InputError("has no scale", value=format_.name)
    return format_.scale_element
