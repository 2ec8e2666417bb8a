"""Loom: activations and weights bit by bit, as many cycles a step as the product of their widths.

Sharify et al., "Loom: Exploiting Weight and Activation Precisions to Accelerate Convolutional Neural Networks", DAC
2018. A PE takes `bits_per_cycle` bits of each activation and a bit of each weight, ANDs them and adds the lanes up; a
first accumulator collects the bits of the activations, a second one those sums, a weight bit after the other. Widths of
activations are found for the values at hand (`dynamic_activations`), those of weights are the layer's or, with
`dynamic_weights`, found likewise. Of the paper the abstract was at hand, of its simulator DNNsim (4748a60) the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import Integers
from simulator.pe.protocol import Pair, Side
from simulator.pe.serial import kernels, sync
from simulator.pe.serial.datapath import Use, adder_tree, all_of, and_row, either, register, sum_bits
from simulator.pe.serial.family import Events, SerialPE, word_event
from simulator.pe.serial.times import BothSerial, Rule
from simulator.pe.stripes import serializer
from simulator.units import ceil_div

Widths = Callable[..., npt.NDArray[np.generic]]


class LoomPE(SerialPE):
    """Parameters of the Loom PE."""

    family: Literal["loom"]
    moments = ("cycle", "step")
    bits_per_cycle: Literal[1, 2, 4] = 1
    """Bits of an activation taken at a time."""
    dynamic_activations: bool = True
    """Activations cost the width of the widest value of a group; else that of their format."""
    dynamic_weights: bool = False
    """The same for weights."""
    group_vectors: Annotated[int, Field(ge=1, le=1024)] = 1
    """Neighbouring rows or columns of a group, which share a width."""
    trim_zeros: bool = False
    """Columns of zeros below a group's lowest one take no time either."""

    def cycles(self, weights: Element, activations: Element) -> int:
        return ceil_div(activations.bits, self.bits_per_cycle) * weights.bits

    def data_timing(self, weights: Format, activations: Format) -> BothSerial | None:
        sides: tuple[tuple[Side, bool], ...] = (
            ("activations", self.dynamic_activations),
            ("weights", self.dynamic_weights),
        )
        if not any(dynamic for _, dynamic in sides):
            return None
        return BothSerial(
            (
                self._widths(sync.group_widths, activations.element, self.dynamic_activations, True),
                self._widths(sync.group_widths, weights.element, self.dynamic_weights, False),
            ),
            (
                self._widths(kernels.group_widths, activations.element, self.dynamic_activations, True),
                self._widths(kernels.group_widths, weights.element, self.dynamic_weights, False),
            ),
            depends_on=tuple(side for side, dynamic in sides if dynamic),
        )

    def _widths(self, widths: Widths, element: Element, dynamic: bool, activations: bool) -> Rule:
        """(..., steps) cycles that an operand needs for the widest of its groups."""
        taken = self.bits_per_cycle if activations else 1

        def found(integers: Integers) -> npt.NDArray[np.generic]:
            if not dynamic:
                steps = (*integers.shape[:-3], integers.shape[-2])
                return np.full(steps, ceil_div(element.bits, taken))
            each = widths(
                integers,
                signed=element.kind == "int",
                vectors_per_group=self.group_vectors,
                trim_zeros=self.trim_zeros,
            )
            return sync.serial_width(each.max(axis=-2), taken)

        return found

    def structural(self) -> dict[str, int | str]:
        return {"bits_per_cycle": self.bits_per_cycle}

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        """The second accumulator works once for each bit of a weight."""
        taken = self.bits_per_cycle
        inner = sum_bits(self.lanes, activation_bits)
        return [
            all_of(register("activation_bits", taken, self.lanes)),
            all_of(and_row(taken, self.lanes)),
            *map(all_of, adder_tree(self.lanes, taken)),
            all_of(either("negate", sum_bits(self.lanes, taken))),
            all_of(Part("inner_accumulate", "int_adder", {"bits": inner})),
            all_of(register("inner_accumulator", inner)),
            Use(register("weight_bits", 1, self.lanes), "step", self.lanes * weight_bits),
            Use(either("outer_negate", inner), "step", weight_bits),
            Use(self.partial_adder(), "step", weight_bits),
        ]

    def word_parts(self, side: Side, bits: int) -> list[Use]:
        dynamic = self.dynamic_activations if side == "activations" else self.dynamic_weights
        found = serializer(bits, self.bits_per_cycle if side == "activations" else 1)
        return found + ([all_of(Part("width", "comparator", {"bits": bits}))] if dynamic else [])

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """Dispatchers of both operands, which find the widths where these are dynamic."""
        return [
            self.per_word("weight_dispatcher", "weights", weight_lines, pairs),
            self.per_word("dispatcher", "activations", activation_lines, pairs),
        ]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        return {
            "weights": word_event("weight_dispatcher", weights.element),
            "activations": word_event("dispatcher", activations.element),
        }
