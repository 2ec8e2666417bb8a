"""The block-scaled dot product once more, in fractions, a product at a time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from simulator.formats.element import Element, decode_table
from simulator.pe.block_dot import BlockDotPE

ZERO = Fraction(0)


def floor_log2(value: Fraction) -> int:
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent - 1 if Fraction(2) ** exponent > value else exponent


def rounded(value: Fraction, precision: int, emin: int, *, truncate: bool, sticky: bool = False) -> Fraction:
    if not value:
        return value
    step = Fraction(2) ** (max(floor_log2(abs(value)), emin) - precision + 1)
    whole, rest = divmod(abs(value), step)
    up = rest > step / 2 or (rest == step / 2 and (whole % 2 == 1 or sticky))
    magnitude = (whole + (up and not truncate)) * step
    return magnitude if value > 0 else -magnitude


@dataclass(frozen=True)
class Number:
    """An operand: its value and its exponent field's exponent."""

    value: Fraction
    exponent: int


def number(element: Element, value: float) -> Number:
    exact = Fraction(value)
    if element.is_integer:
        return Number(exact, floor_log2(Fraction(element.max_value)))
    lowest = 2 - 2 ** (element.exponent_bits - 1)
    return Number(exact, max(floor_log2(abs(exact)), lowest) if exact else lowest)


def cut(value: Fraction, unit: Fraction) -> Fraction:
    """Towards zero, to a multiple of ``unit``."""
    magnitude = abs(value) // unit * unit
    return magnitude if value >= 0 else -magnitude


LAYOUTS = {"fp32": (24, -126), "bf16": (8, -126), "e8m13": (14, -126)}


def oracle(
    pe: BlockDotPE, elements: tuple[Element, Element], steps: list[tuple[Any, Any, Fraction]]
) -> Fraction:
    """The result of steps (activations, weights, product of scales)."""
    precision, emin = LAYOUTS[pe.acc_format]
    floats = not all(element.is_integer for element in elements)
    truncate = pe.acc_rounding == "truncate"
    held = promoted = ZERO
    for count, (activations, weights, scale) in enumerate(steps, 1):
        pairs = list(zip(activations, weights, strict=True))
        for low in range(0, pe.lanes, pe.lanes_per_alignment or pe.lanes):
            terms = []
            for a, w in pairs[low : low + (pe.lanes_per_alignment or pe.lanes)]:
                left, right = number(elements[1], a), number(elements[0], w)
                terms.append(Number(left.value * right.value, left.exponent + right.exponent))
            fused = pe.fuse_accumulator
            if fused:
                moved = floor_log2(scale)
                terms = [Number(term.value * scale, term.exponent + moved) for term in terms]
                terms.append(Number(held, max(floor_log2(abs(held)), emin) if held else emin))
            values = [term.value for term in terms]
            lost = False
            unit = ZERO
            present = [term.exponent for term in terms if term.value]
            if pe.align_window is not None and (floats or fused) and present:
                unit = Fraction(2) ** (max(present) - pe.align_window)
                values = [cut(value, unit) for value in values]
                lost = any(value != term.value for value, term in zip(values, terms, strict=True))
            total = sum(values, ZERO)
            if fused:
                held = rounded(total, precision, emin, truncate=truncate, sticky=lost and pe.sticky)
            else:
                held = rounded(held + total * scale, precision, emin, truncate=truncate)
        if pe.promote_every and count % pe.promote_every == 0:
            promoted, held = rounded(promoted + held, 24, -126, truncate=False), ZERO
    return rounded(promoted + held, 24, -126, truncate=False) if pe.promote_every else held


def finite_values(element: Element) -> list[float]:
    if element.is_integer:
        low = 0 if element.kind == "uint" else -element.max_code
        return [float(code) * 2.0**element.step_exponent for code in range(low, element.max_code + 1)]
    return [float(value) for value in decode_table(element) if np.isfinite(value)]
