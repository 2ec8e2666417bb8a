"""How the codes of several formats share the operand registers and the multipliers of one PE.

All formats of a side arrive in one *word*, as wide as the widest of them. Whoever unpacks codes from memory lays a
narrower one into it so that the PE need not tell it from a wider one wherever that is possible:

- the sign, or two's complement's top bit, is the word's top bit;
- integers lie so that equal bits of two formats have equal weights: INT4 beside INT8 is extended with its sign, MXINT4
  beside MXINT8, both worth less than two, has zeros below, and so have the mantissas of block floating point;
- a float whose exponent and mantissa fit into those of a wider one has zeros above its exponent and below its mantissa.
  FP6 and FP4 so are FP8 E4M3 words of few codes, with another bias.

What is left are the *layouts* of a word, E4M3, E5M2 and integers for instance, which a mode port of the side chooses
among. Biases of formats never matter between lanes, since all lanes of a cycle multiply the same pair of formats: the
sum's exponent takes what is left of them (port ``bias``, in place of tables of formats in each PE).

A word is decoded into one of four forms:

``signed``, ``unsigned``  two's complement, or unsigned integers, as they are
``magnitude``             sign and magnitude; also small floats that share an exact PE with integers of at least their
                          range, as integers (FP4 E2M1 with INT4: 0, 1, 2, 3, 4, 6, 8, 12)
``floating``              sign, significand, and exponent field; of integers, which have none, beside floats: the
                          field of the smallest float
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from simulator.formats.element import Element
from simulator.rtl.unit import Codes

Form = Literal["signed", "unsigned", "magnitude", "floating"]


@dataclass(frozen=True)
class Layout:
    """Where the bits below the sign lie."""

    exponent_bits: int
    """0: an integer."""
    fraction_bits: int
    """Below the leading one of the largest binade."""
    kind: str
    """``float``, or that of the integers."""

    @property
    def magnitude_bits(self) -> int:
        """Of an integer's magnitude; two's complement has one more value below zero."""
        return self.fraction_bits + (2 if self.kind == "int" else 1)

    def holds(self, other: Layout) -> bool:
        return (
            self.kind == other.kind
            and self.exponent_bits >= other.exponent_bits
            and self.fraction_bits >= other.fraction_bits
        )


@dataclass(frozen=True)
class Word:
    """The words of one side of a PE."""

    elements: tuple[Element, ...]
    form: Form

    @property
    def bits(self) -> int:
        return max(element.bits for element in self.elements)

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """Those that are not part of another, floats before integers, in the order of the formats."""
        own = [self._own(element) for element in self.elements]
        largest = [
            layout for layout in own if not any(other != layout and other.holds(layout) for other in own)
        ]
        return tuple(dict.fromkeys(sorted(largest, key=lambda layout: layout.kind != "float")))

    def _own(self, element: Element) -> Layout:
        if element.is_integer:
            return Layout(
                0, element.significand_bits + (0 if self._aligned else self._step(element)), element.kind
            )
        return Layout(element.exponent_bits, element.mantissa_bits, "float")

    @property
    def _aligned(self) -> bool:
        """Significands have their leading ones in one place, not their last bits."""
        return self.form == "floating"

    def _step(self, element: Element) -> int:
        """Places between the last bits of an integer and of the finest one."""
        integers = [each.step_exponent for each in self.elements if each.is_integer]
        return element.step_exponent - min(integers)

    def layout(self, element: Element) -> int:
        """Index of the layout that an element's codes are written in."""
        own = self._own(element)
        return next(i for i, layout in enumerate(self.layouts) if layout.holds(own))

    @cached_property
    def fraction_bits(self) -> int:
        """Of every significand (form ``floating``)."""
        return max(layout.fraction_bits for layout in self.layouts)

    @cached_property
    def exponent_bits(self) -> int:
        """Of the exponent field; 0: there is none."""
        return max(layout.exponent_bits for layout in self.layouts) if self.form == "floating" else 0

    @cached_property
    def significand_bits(self) -> int:
        """Of the magnitude that is multiplied."""
        if self.form != "floating":
            return self.largest.bit_length()
        return max(
            self.fraction_bits - layout.fraction_bits + layout.magnitude_bits for layout in self.layouts
        )

    @cached_property
    def largest(self) -> int:
        """Largest magnitude of the integers that are multiplied (all forms but ``floating``)."""
        return max(_largest(element) << self._shift(element) for element in self.elements)

    def _shift(self, element: Element) -> int:
        """Zeros below an element's own last bit (all forms but ``floating``)."""
        if element.is_integer:
            return self._step(element)
        return self.float_fraction_bits - element.mantissa_bits

    @property
    def float_fraction_bits(self) -> int:
        """Of the floats' significands before they become integers or are put beside these."""
        return max((layout.fraction_bits for layout in self.layouts if layout.kind == "float"), default=0)

    @property
    def is_mixed(self) -> bool:
        """It needs a mode port."""
        return len(self.layouts) > 1

    def exponent(self, element: Element) -> int:
        """Of what the last bit of the decoded magnitude is worth, with an exponent field of 1."""
        if self._aligned:
            return element.quantum_exponent - (self.fraction_bits - element.significand_bits)
        return element.quantum_exponent - self._shift(element)

    def last_field(self, element: Element) -> int:
        """Largest exponent field of finite codes."""
        if element.is_integer:
            return 1
        return (1 << element.exponent_bits) - 1 - int(element.has_inf)

    def words(self, element: Element, codes: Codes) -> Codes:
        """Codes of one of the elements as they are laid into the word; negative where two's complement is."""
        layout = self.layouts[self.layout(element)]
        if element.is_integer:
            more = layout.fraction_bits - element.significand_bits if self._aligned else self._step(element)
            if element.kind != "sign_magnitude":
                return codes << more
            return (np.abs(codes) << more) | (codes < 0).astype(np.int64) << (self.bits - 1)
        sign, magnitude = codes >> (element.bits - 1), codes & ((1 << (element.bits - 1)) - 1)
        field, fraction = magnitude >> element.mantissa_bits, magnitude & ((1 << element.mantissa_bits) - 1)
        left = layout.fraction_bits - element.mantissa_bits
        return sign << (self.bits - 1) | field << layout.fraction_bits | fraction << left


def words(
    weights: tuple[Element, ...], activations: tuple[Element, ...], *, exact: bool
) -> tuple[Word, Word]:
    """Words of both sides. ``exact``: products are added without a window, so that floats may become integers."""
    sides = (weights, activations)
    if exact and all(_as_integers(elements) for elements in sides):
        return _word(weights), _word(activations)
    return Word(weights, "floating"), Word(activations, "floating")


def _word(elements: tuple[Element, ...]) -> Word:
    kinds = {element.kind for element in elements}
    if kinds == {"int"}:
        return Word(elements, "signed")
    return Word(elements, "unsigned" if kinds == {"uint"} else "magnitude")


def _as_integers(elements: tuple[Element, ...]) -> bool:
    """All are integers, or there are integers as wide as the floats of this side in units of their smallest."""
    integers = [_largest(element).bit_length() for element in elements if element.is_integer]
    floats = [_largest(element).bit_length() for element in elements if not element.is_integer]
    return bool(integers) and max(floats, default=0) <= max(integers)


def _largest(element: Element) -> int:
    """Largest magnitude in units of the smallest."""
    if element.kind == "int":
        return 1 << (element.bits - 1)
    if element.is_integer:
        return element.max_code
    return int(np.ldexp(element.max_value, -element.quantum_exponent))
