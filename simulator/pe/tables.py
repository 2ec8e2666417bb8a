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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element, decode_integers, integer
from simulator.pe.arithmetic import Integers

LARGEST_WEIGHT = 8
"""Bits of a weight; each is a plane."""


@dataclass(frozen=True)
class OddForm:
    """How the values v of a weight format become odd integers: ``2 v + offset``, or v where they are odd already."""

    planes: int
    """b: bits of a key's digit string, so that the odd integers lie in -(2**b - 1) .. 2**b - 1."""
    doubled: bool
    offset: int


def odd_form(element: Element) -> OddForm | None:
    """The odd integers of an element's values; None where it has no such form in at most `LARGEST_WEIGHT` planes."""
    if element.is_integer:
        offset = 1 - 2**element.bits if element.kind == "uint" else 1
        return OddForm(element.bits, True, offset) if element.bits <= LARGEST_WEIGHT else None
    if element.kind != "table" or len(element.tables) != 1:
        return None
    values = element.tables[0]
    odd = all(value % 2 for value in values)
    largest = max(abs(value if odd else 2 * value + 1) for value in values)
    planes = largest.bit_length()
    return OddForm(planes, not odd, int(not odd)) if planes <= LARGEST_WEIGHT else None


def odd_format(format: Format) -> Format:
    """The format of a tensor that `as_odd_integers` made: a zero point with each scale, which is half of the old one.

    A bare element, which has no scale, has no zero point either.
    """
    form = _form(format)
    if not form.doubled:
        return format
    return replace(
        format,
        name=f"{format.name} as odd integers",
        element=integer(form.planes + 1, step_exponent=format.element.step_exponent),
        has_zero_point=format.scale_element is not None,
        quantizer=None,
    )


def as_odd_integers(tensor: QuantizedTensor) -> QuantizedTensor:
    """The same values in odd integers: ``s (v - z) = s/2 ((2 v + k) - (2 z + k))``. Raises InputError: a scale so small
    that its half is no FP32 number."""
    form, scales = _form(tensor.format), tensor.scales
    if not form.doubled:
        return tensor
    if scales is None:
        raise InputError("weights without a scale cannot be halved", value=tensor.format.name)
    halves = (scales * np.float32(0.5)).astype(np.float32)
    if (halves * np.float32(2) != scales)[np.isfinite(scales)].any():
        raise InputError("half of a scale is no FP32 number", value=tensor.format.name)
    values, _ = decode_integers(tensor.format.element, tensor.codes)
    zeros = np.zeros(np.shape(scales), np.int32) if tensor.zero_points is None else tensor.zero_points
    to = odd_format(tensor.format)
    return replace(
        tensor,
        codes=(2 * values + form.offset).astype(to.element.dtype),
        format=to,
        scales=halves,
        zero_points=(2 * zeros + form.offset).astype(np.int32),
    )


def _form(format: Format) -> OddForm:
    form = odd_form(format.element)
    if form is None:
        raise InputError(f"has no form in odd integers of at most {LARGEST_WEIGHT} bits", value=format.name)
    return form


def bit_planes(odd: Integers, planes: int) -> npt.NDArray[np.int64]:
    """Digits of odd integers as bits (planes, ...), lowest plane first: 1 for +1, 0 for -1.

    A zero, which fills the lanes that a short last step does not use, reads as -1: its activation is zero.
    """
    unsigned = (odd.astype(np.int64) + (2**planes - 1)) >> 1
    return np.stack([(unsigned >> plane) & 1 for plane in range(planes)])


def keys(planes: npt.NDArray[np.int64], inputs: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(signs, indices), each (planes, ..., tables), of digits (planes, ..., lanes), `inputs` lanes a table.

    A sum is ``sign * entry[index]``. Weights are stored like this, so that hardware inverts nothing at run time.
    """
    digits = planes.reshape(*planes.shape[:-1], -1, inputs)
    positive = digits[..., -1]
    others = digits[..., :-1] ^ (1 - positive)[..., None]
    return 2 * positive - 1, others @ (1 << np.arange(inputs - 1, dtype=np.int64))


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
