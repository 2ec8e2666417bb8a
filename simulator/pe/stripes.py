"""Stripes: activations bit by bit, as many cycles a step as they have bits.

Judd et al., "Stripes: Bit-Serial Deep Neural Network Computing", MICRO 2016. A PE ANDs one bit of each of its
activations with the weights of its lanes, adds the lanes up and collects the sums of a step from the highest bit on,
each time shifted by one; the sign bit's sum is subtracted. With the lowest bit the step's sum joins the accumulator. A
layer's precision is that of its activation format. No value decides the time. Of the paper the abstract was at hand, of
its simulator DNNsim (4748a60) the source; the register that a step's sum is collected in is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.protocol import Pair, Side
from simulator.pe.serial.datapath import Use, adder_tree, all_of, and_row, either, register, sum_bits
from simulator.pe.serial.family import Events, SerialPE, word_event


class StripesPE(SerialPE):
    """Parameters of the Stripes PE."""

    family: Literal["stripes"]
    moments = ("cycle", "step")

    def cycles(self, weights: Element, activations: Element) -> int:
        return activations.bits

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        return bit_by_bit(self.lanes, activation_bits, weight_bits, self.partial_adder())

    def word_parts(self, side: Side, bits: int) -> list[Use]:
        return serializer(bits)

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """Dispatchers of activations: a register and a multiplexer of its bits for each lane of a column."""
        return [self.per_word("dispatcher", "activations", activation_lines, pairs)]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        return {"activations": word_event("dispatcher", activations.element)}


def bit_by_bit(lanes: int, serial_bits: int, parallel_bits: int, accumulate: Part) -> list[Use]:
    """One bit of an operand and all of the other, lane by lane, added up, subtracted for a sign bit. One adder doubles
    a step's sum so far and adds the next bit's, and with the last bit the accumulator."""
    total = sum_bits(lanes, parallel_bits)
    return [
        all_of(register("bits", 1, lanes)),
        all_of(and_row(parallel_bits, lanes)),
        *map(all_of, adder_tree(lanes, parallel_bits)),
        all_of(either("negate", total)),
        all_of(register("partial", total + serial_bits - 1)),
        all_of(accumulate),
        all_of(register("operands", parallel_bits, lanes), "step"),
    ]


def serializer(bits: int, taken: int = 1) -> list[Use]:
    """A word is held and ``taken`` bits of it chosen at a time."""
    chunks = -(-bits // taken)
    chosen = Part("bit", "multiplexer", {"inputs": max(2, chunks), "bits": taken})
    return [all_of(register("word", bits)), Use(chosen, "cycle", chunks)]
