"""Adders without multipliers for ternary weights: add, subtract or skip.

Weights of BitNet b1.58 (Ma et al., arXiv 2402.17764) are -1, 0 or +1, so that a product is the activation, its negative
or nothing: a multiplexer of three inputs, the 1 of a negation being a carry into the next adder. A skipped activation
takes its cycle like any other. All else is the MAC PE's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Part
from simulator.pe.mac import MacPE


class TernaryPE(MacPE):
    """The MAC's parameters. Weights: int2 without zero point, whose codes are -1, 0 and +1; activations: integers."""

    family: Literal["ternary"]  # type: ignore[assignment]

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        if weights.element.name != "int2" or weights.has_zero_point:
            return (
                f"its weights are -1, 0 and +1 (ternary, or int2 with symmetric scales), not {weights.name}"
            )
        if not activations.element.is_integer:
            return f"it adds integers, not {activations.element.name}"
        return super().accepts(weights, activations)

    def _sum_bits(self, weights: Sequence[Element], activations: Sequence[Element]) -> int:
        """Width of the adder tree's result: a negated activation needs a bit more than the activation."""
        return max(element.bits for element in activations) + 1 + (self.lanes - 1).bit_length()

    @staticmethod
    def _multiplier(
        name: str, weights: Sequence[Element], activations: Sequence[Element], count: int
    ) -> Part:
        """What stands in a multiplier's place."""
        return Part(name, "multiplexer", {"inputs": 3, "bits": max(e.bits for e in activations)}, count)
