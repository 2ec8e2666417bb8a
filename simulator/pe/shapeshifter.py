"""ShapeShifter: activations bit by bit, as many cycles as the widest value of a group has bits.

Delmas Lascorz et al., "ShapeShifter: Enabling Fine-Grain Data Width Adaptation in Deep Learning", MICRO 2019. The PE is
that of Stripes; a step ends with the last group, or groups run ahead of each other by `column_registers`. Of the paper
the abstract was at hand, of its simulator DNNsim (4748a60) the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.protocol import Pair, Side
from simulator.pe.serial import kernels, sync
from simulator.pe.serial.datapath import Use, all_of, edge_component, register
from simulator.pe.serial.family import Events, SerialPE, word_event
from simulator.pe.serial.times import OneSerial
from simulator.pe.stripes import bit_by_bit, serializer


class ShapeShifterPE(SerialPE):
    """Parameters of the ShapeShifter PE."""

    family: Literal["shapeshifter"]
    moments = ("cycle", "step")
    group_vectors: Annotated[int, Field(ge=1, le=1024)] = 1
    """Neighbouring windows of a group, which share a width."""
    column_registers: Annotated[int, Field(ge=0, le=64)] = 0
    """Steps of weights that are kept for the groups behind."""
    trim_zeros: bool = False
    """Columns of zeros below a group's lowest one take no time either."""

    def cycles(self, weights: Element, activations: Element) -> int:
        return activations.bits

    def data_timing(self, weights: Format, activations: Format) -> OneSerial:
        signed = activations.element.kind == "int"
        rule, bulk = (
            partial(widths, signed=signed, vectors_per_group=self.group_vectors, trim_zeros=self.trim_zeros)
            for widths in (sync.group_widths, kernels.group_widths)
        )
        return OneSerial("activations", rule, bulk, registers=self.column_registers)

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        return bit_by_bit(self.lanes, activation_bits, weight_bits, self.partial_adder())

    def word_parts(self, side: Side, bits: int) -> list[Use]:
        return [*serializer(bits), all_of(Part("width", "comparator", {"bits": bits}))]

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """Dispatchers, which find the widths; registers of the weights of earlier steps, for each row."""
        kept = kept_words(self, "weights", weight_lines, self.column_registers, pairs)
        return [self.per_word("dispatcher", "activations", activation_lines, pairs), *kept]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        found: dict[Side, Events] = {"activations": word_event("dispatcher", activations.element)}
        if self.column_registers:
            found["weights"] = word_event("kept_weights", weights.element)
        return found


def kept_words(
    pe: SerialPE, side: Side, lines: int, registers: int, pairs: Sequence[Pair]
) -> list[Component]:
    """Column registers: words that a whole row or column has taken, kept for those behind; none without them."""
    if not registers:
        return []
    return [
        edge_component(
            f"kept_{side}",
            "column_registers",
            lines * pe.lanes,
            lambda bits: [Use(register("kept", bits, registers), "step", 1)],
            max(element.bits for element in pe.elements(side)),
            sorted({pair[side == "activations"].element for pair in pairs}, key=lambda e: e.name),
        )
    ]
