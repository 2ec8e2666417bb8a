"""Bit-Pragmatic: an operand term by term, a signed power of two of each lane a cycle.

Albericio et al., "Bit-Pragmatic Deep Neural Network Computing", MICRO 2017. A PE shifts the parallel operand of each
lane by the position of the serial one's term, in two stages (`simulator.pe.serial.sync.two_stage_cycles`), and adds the
lanes up. Rows or columns of the array wait for the slowest, or run ahead of each other by `column_registers`. The paper
takes activations by terms, the comparison in BBS (Chen et al., MICRO 2024) weights: `serial`. Of the paper the abstract
was at hand, of its simulator DNNsim (4748a60) the source.
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
from simulator.pe.serial.datapath import (
    Use,
    adder_tree,
    all_of,
    ceil_log2,
    either,
    register,
    shift_ranks,
    sum_bits,
)
from simulator.pe.serial.family import Events, SerialPE, word_event
from simulator.pe.serial.terms import Recoding
from simulator.pe.serial.times import OneSerial
from simulator.pe.shapeshifter import kept_words


class PragmaticPE(SerialPE):
    """Parameters of the Bit-Pragmatic PE."""

    family: Literal["pragmatic"]
    serial: Side = "activations"
    """The operand that is taken by terms."""
    recoding: Recoding = "none"
    """How it is recoded; `simulator.pe.serial.terms`."""
    bits_first_stage: Annotated[int, Field(ge=0, le=sync.WHOLE)] = 2
    """Lanes are shifted by up to 2**this - 1 before they are added up; 5: by any distance."""
    column_registers: Annotated[int, Field(ge=0, le=64)] = 0
    """Steps of the parallel operand that are kept for the vectors behind."""

    @property
    def parallel(self) -> Side:
        return "weights" if self.serial == "activations" else "activations"

    def positions(self, bits: int) -> int:
        """Positions that a term of a value may have; a recoded one's may be above the value's highest."""
        return bits + (self.recoding != "none")

    def cycles(self, weights: Element, activations: Element) -> int:
        """All ones of all bits of the serial operand: that it is rarer makes the machine faster."""
        return (weights if self.serial == "weights" else activations).bits

    def data_timing(self, weights: Format, activations: Format) -> OneSerial:
        rule, bulk = (
            partial(cycles, first_stage_bits=self.bits_first_stage, recoding=self.recoding)
            for cycles in (sync.two_stage_cycles, kernels.two_stage_cycles)
        )
        terms = partial(kernels.value_terms, recoding=self.recoding)
        return OneSerial(self.serial, rule, bulk, terms, self.column_registers)

    def structural(self) -> dict[str, int | str]:
        return {"serial": self.serial, "recoding": self.recoding, "bits_first_stage": self.bits_first_stage}

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        """Offsets (position, sign, whether there is one) arrive each cycle; the second stage shifts the sum."""
        serial, parallel = weight_bits, activation_bits
        if self.serial == "activations":
            serial, parallel = activation_bits, weight_bits
        positions = self.positions(serial)
        window = min(1 << self.bits_first_stage, positions)
        shifted = parallel + window - 1
        total = sum_bits(self.lanes, shifted + 1)
        first = shift_ranks("first_shift", shifted, window, self.lanes)
        return [
            all_of(register("offsets", ceil_log2(positions) + 2, self.lanes)),
            *(Use(part, "term", part.count // self.lanes) for part in first),
            Use(either("negate", shifted + 1, self.lanes), "term", 1),
            *map(all_of, adder_tree(self.lanes, shifted + 1)),
            *map(all_of, shift_ranks("second_shift", total + positions - window, positions - window + 1)),
            all_of(self.partial_adder()),
            all_of(register("operands", parallel, self.lanes), "step"),
        ]

    def word_parts(self, side: Side, bits: int) -> list[Use]:
        return encoder(bits, self.recoding)

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """Encoders of the serial operand; registers of the other's earlier steps."""
        serial, parallel = weight_lines, activation_lines
        if self.serial == "activations":
            serial, parallel = activation_lines, weight_lines
        kept = kept_words(self, self.parallel, parallel, self.column_registers, pairs)
        return [self.per_word("encoder", self.serial, serial, pairs), *kept]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        elements = {"weights": weights.element, "activations": activations.element}
        found: dict[Side, Events] = {self.serial: word_event("encoder", elements[self.serial])}
        if self.column_registers:
            found[self.parallel] = word_event(f"kept_{self.parallel}", elements[self.parallel])
        return found


def encoder(bits: int, recoding: Recoding) -> list[Use]:
    """A word is held while its terms are found one after the other. A detector of the lowest one is a comparator of all
    bits; a recoder looks at three of them for each position. A word is counted as looked at once."""
    found = [all_of(register("word", bits)), all_of(Part("lowest", "comparator", {"bits": bits}))]
    if recoding != "none":
        found.append(all_of(Part("recoder", "comparator", {"bits": 3}, bits)))
    return found
