"""What a unit's hardware must put out: the PE's own ``function``, step by step, as the bits of the output port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from simulator.formats.element import EXPONENT_BIAS, Element, decode_integers
from simulator.pe.accumulator import Accumulator
from simulator.pe.protocol import SCALE_EXPONENT, Pair, Scales
from simulator.rtl.unit import Codes
from simulator.rtl.units.dot_operands import Operands

if TYPE_CHECKING:
    from simulator.rtl.units.dot import DotUnit


def expected_sums(unit: DotUnit, parts: Sequence[tuple[Operands, Pair]]) -> list[int]:
    """What the port shows after each cycle's operands, as integers of the PE's function: streams in pairs of formats,
    one after the other, each of which begins with a new sum.

    Raises InputError where a sum overflows the accumulator's format: the hardware's answer is then undefined.
    """
    sums = [each for stream, pair in parts for each in _sums(unit, stream, pair)]
    if not unit.doubled or unit.stationary != "outputs":
        return sums
    first = np.concatenate([stream.first for stream, _ in parts])
    finished = [0, *(sums[cycle - 1] if cycle else 0 for cycle in np.flatnonzero(first))]
    return [finished[count] for count in np.cumsum(first)]


def _sums(unit: DotUnit, stream: Operands, pair: Pair) -> list[int]:
    """The accumulator after each cycle's operands."""
    weight_format, activation_format = unit.scale_pair(pair)
    function = unit.pe.function(weight_format, activation_format)
    activations, _ = decode_integers(activation_format.element, stream.activations)
    weights, _ = decode_integers(weight_format.element, stream.weights)
    state = np.zeros((1, function.words), function.dtype)
    sums: list[int] = []
    for cycle, first in enumerate(stream.first):
        if stream.partials is not None:
            (before,) = sums_of_codes(unit.held, [int(stream.partials[cycle]) & ((1 << unit.held.bits) - 1)])
            state = np.array([[before]], function.dtype)
        elif first:
            state = np.zeros((1, function.words), function.dtype)
        scales = _scales((weight_format, activation_format), stream, cycle)
        now = slice(cycle, cycle + 1)
        state = function.step(state, activations[now], weights[now], scales)
        sums.append(int(function.result(state)[0]))
    return sums


def sums_of_codes(held: Accumulator, codes: list[int]) -> list[int]:
    """Port values as the function's integers: two's complement, or the float's value times 2**-low."""
    return [_integer(held, code) for code in codes]


def _integer(held: Accumulator, code: int) -> int:
    to = held.float_format
    negative = code >> (held.bits - 1)
    if to is None:
        return code - (negative << held.bits)
    fraction = code & ((1 << (to.precision - 1)) - 1)
    field = (code >> (to.precision - 1)) & ((1 << held.exponent_bits) - 1)
    magnitude = fraction + ((1 << (to.precision - 1)) if field else 0) << (max(field, 1) - 1)
    return -magnitude if negative else magnitude


def _scales(pair: Pair, stream: Operands, cycle: int) -> Scales | None:
    if stream.activation_scales is None or stream.weight_scales is None:
        return None
    weights, activations = (
        np.array([_scale(format.scale_element, codes, cycle)], object)
        for format, codes in zip(pair, (stream.weight_scales, stream.activation_scales), strict=True)
    )
    none = np.array([0], object)
    return Scales(
        weights, activations, none, none, ends_group=stream.ends is None or bool(stream.ends[cycle])
    )


def _scale(element: Element | None, codes: Codes, cycle: int) -> int:
    assert element is not None
    if element.kind == "exponent":
        return 1 << (int(codes[cycle]) - EXPONENT_BIAS - SCALE_EXPONENT)
    integers, exponent = decode_integers(element, codes[cycle : cycle + 1])
    return int(integers[0]) << (exponent - SCALE_EXPONENT)
