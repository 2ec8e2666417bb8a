"""Look-up tables of signed sums, and the odd integers whose bits are their keys.

The sum of mu activations, each taken with a sign, has 2**mu values. A weight bit-plane is a sign for each activation,
so that its part of a dot product is one of these values: mu weight bits are the *key*. Two facts make the table small
and the planes alike (Mo et al., "LUT Tensor Core", ISCA 2025, section 3; Park et al., "FIGLUT", HPCA 2025, section
III):

- Weights as odd integers: ``2 q - (2**b - 1)`` for q in 0 .. 2**b - 1 has only digits -1 and +1, ``sum of 2**i * (2 *
  bit_i - 1)``; no plane is special, no digit is zero.
- Odd symmetry: all signs turned gives the negative. So 2**(mu - 1) *entries* are stored, those with a positive last
  activation; the last bit of the key says whether the entry is negated, and whether the others are inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.bipolar import odd_numbers
from simulator.formats.element import Element, integer

LARGEST_WEIGHT = 8
"""Bits of a weight; each is a plane."""


def odd_planes(element: Element) -> int | None:
    """Planes of an element's values as odd integers: bits of an integer, of which 2 v + 1 or 2 v - (2**b - 1) is one; a
    table of odd values stays as it is. None where there are none, or more than `LARGEST_WEIGHT`."""
    if element.is_integer:
        planes = element.bits
    elif element.kind == "table" and len(element.tables) == 1 and all(v % 2 for v in element.tables[0]):
        planes = max(map(abs, element.tables[0])).bit_length()
    else:
        return None
    return planes if planes <= LARGEST_WEIGHT else None


def odd_format(format: Format) -> Format:
    """The format of a tensor that `as_odd_integers` made: a zero point with each scale, which is half of the old one.

    A bare element, which has no scale, has no zero point either.
    """
    element = format.element
    if odd_planes(element) is None:
        raise InputError(f"has no form in odd integers of at most {LARGEST_WEIGHT} bits", value=format.name)
    if not element.is_integer:
        return format
    return replace(
        format,
        name=f"{format.name} as odd integers",
        element=integer(element.bits + 1, step_exponent=element.step_exponent),
        has_zero_point=format.scale_element is not None,
        quantizer=None,
    )


def as_odd_integers(tensor: QuantizedTensor) -> QuantizedTensor:
    """The same values in odd integers, half the scales and zero points to match (`simulator.formats.bipolar`). Raises
    InputError: a scale so small that its half is no FP32 number."""
    scales, to = tensor.scales, odd_format(tensor.format)
    if to is tensor.format:
        return tensor
    if scales is None:
        raise InputError("weights without a scale cannot be halved", value=tensor.format.name)
    halves = np.asarray(scales * np.float32(0.5), np.float32)
    if (halves * np.float32(2) != scales)[np.isfinite(scales)].any():
        raise InputError("half of a scale is no FP32 number", value=tensor.format.name)
    zeros = np.zeros(np.shape(scales), np.int32) if tensor.zero_points is None else tensor.zero_points
    return replace(
        tensor,
        codes=odd_numbers(tensor.codes, tensor.format).astype(to.element.dtype),
        format=to,
        scales=halves,
        zero_points=np.asarray(odd_numbers(zeros, tensor.format), np.int32),
    )


def keys(digits: npt.NDArray[Any], inputs: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(signs, indices), each (planes, ..., tables), of digits -1 and +1 (planes, ..., lanes), `inputs` lanes a table.

    A sum is ``sign * entry[index]``. Weights are stored like this, so that hardware inverts nothing at run time.
    """
    apart = digits.reshape(*digits.shape[:-1], -1, inputs).astype(np.int64)
    signs = apart[..., -1]
    others = (apart[..., :-1] * signs[..., None] + 1) >> 1
    return signs, others @ (1 << np.arange(inputs - 1, dtype=np.int64))


Sums = npt.NDArray[Any]
"""Signed sums of activations: int64 where these are integers, float32 where the generator's adders are FP32."""
Adder = Callable[[Sums, Sums], Sums]


def half_table(activations: Sums, add: Adder = np.add) -> Sums:
    """Entries (..., 2**(mu - 1)) of activations (..., mu), as the generator tree adds them up.

    Entry e holds the sum of the last activation and of the others, each positive where its bit of e is 1. ``add``: the
    generator's adder; negation is exact in all.
    """
    inputs = activations.shape[-1]
    if inputs == 1:
        return activations
    cut = inputs // 2
    return _combined(_all_signs(activations[..., :cut], add), half_table(activations[..., cut:], add), add)


def _all_signs(activations: Sums, add: Adder) -> Sums:
    """All 2**mu signed sums, (..., 2**mu)."""
    inputs = activations.shape[-1]
    if inputs == 1:
        return np.concatenate([np.negative(activations), activations], axis=-1)
    cut = inputs // 2
    return _combined(_all_signs(activations[..., :cut], add), _all_signs(activations[..., cut:], add), add)


def _combined(low: Sums, high: Sums, add: Adder) -> Sums:
    sums = add(high[..., :, None], low[..., None, :])
    return sums.reshape(*sums.shape[:-2], -1)


def generator_additions(inputs: int) -> int:
    """Additions of the tree that `half_table` describes: 14 for 4 inputs, as FIGLUT has it, where adding each entry up
    on its own takes 24."""
    if inputs == 1:
        return 0
    cut = inputs // 2
    return (1 << inputs - 1) + _additions_of_all_signs(cut) + generator_additions(inputs - cut)


def _additions_of_all_signs(inputs: int) -> int:
    if inputs == 1:
        return 0
    cut = inputs // 2
    return (1 << inputs) + _additions_of_all_signs(cut) + _additions_of_all_signs(inputs - cut)


def plain_table(activations: Sums, add: Adder = np.add) -> Sums:
    """All 2**mu sums of subsets of activations (..., mu), each made of a smaller one: what plain bits are keys to."""
    sums = np.zeros_like(activations[..., :1])
    for index in range(activations.shape[-1]):
        sums = np.concatenate([sums, add(sums, activations[..., index : index + 1])], axis=-1)
    return sums


def plain_table_additions(inputs: int) -> int:
    """Additions of `plain_table`: none for the sum of nothing and of one activation."""
    return (1 << inputs) - inputs - 1


def read(entries: Sums, indices: npt.NDArray[np.int64]) -> Sums:
    """What the multiplexers choose: entries (..., tables, 2**(mu - 1)) at indices (planes, ..., tables), broadcast."""
    shape = np.broadcast_shapes(entries.shape[:-1], indices.shape[1:])
    entries = np.broadcast_to(entries, (len(indices), *shape, entries.shape[-1]))
    indices = np.broadcast_to(indices, (len(indices), *shape))
    return np.take_along_axis(entries, indices[..., None], axis=-1)[..., 0]


QUANTIZED_MAX = 127


def quantized(
    entries: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Entries (..., tables, 2**(mu - 1)) as INT8, and their scales (...): one for the tables of a step.

    The scale is the largest magnitude divided by 127, rounded to FP32; an entry becomes the nearest multiple of it,
    ties to the even one. (Dividing in float64 rounds no quotient of FP32 numbers onto a tie: others are 2**-25 away.)
    """
    largest = np.abs(entries).max(axis=(-1, -2))
    scales = (largest / np.float32(QUANTIZED_MAX)).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1).astype(np.float64)[..., None, None]
    codes = np.clip(np.rint(entries.astype(np.float64) / divisors), -QUANTIZED_MAX, QUANTIZED_MAX)
    codes = np.where(scales[..., None, None] > 0, codes, 0)
    return codes.astype(np.int64), scales
