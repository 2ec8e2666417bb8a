"""Bit-Pragmatic: an operand term by term, a signed power of two of each lane a cycle.

Albericio et al., "Bit-Pragmatic Deep Neural Network Computing", MICRO 2017. A PE shifts the parallel operand of each
lane by the position of the serial one's term, in two stages (`simulator.pe.serial.sync.two_stage_cycles`), and adds the
lanes up. Rows or columns of the array wait for the slowest, or run ahead of each other by `column_registers`. The paper
takes activations by terms, the comparison in BBS (Chen et al., MICRO 2024) weights: `serial`. Of the paper the abstract
was at hand, of its simulator DNNsim (4748a60) the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
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
    edge_component,
    either,
    register,
    shift_ranks,
    sum_bits,
    word,
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

    def window(self, bits: int) -> int:
        """Positions that the first stage reaches."""
        return min(1 << self.bits_first_stage, positions(bits, self.recoding))

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
        """Offsets (distance above the lowest position, sign, whether there is one) and the lowest position arrive each
        cycle; the second stage shifts the sum by that."""
        serial, parallel = weight_bits, activation_bits
        if self.serial == "activations":
            serial, parallel = activation_bits, weight_bits
        window, bases = self.window(serial), positions(serial, self.recoding) - self.window(serial) + 1
        shifted = parallel + window - 1
        total = sum_bits(self.lanes, shifted + 1)
        first = shift_ranks("first_shift", shifted, window, self.lanes)
        lowest = [all_of(register("lowest", ceil_log2(bases)))] if bases > 1 else []
        return [
            all_of(register("offsets", ceil_log2(window) + 2, self.lanes)),
            *lowest,
            *(Use(part, "term", part.count // self.lanes) for part in first),
            Use(either("negate", shifted + 1, self.lanes), "term", 1),
            *map(all_of, adder_tree(self.lanes, shifted + 1)),
            *map(all_of, shift_ranks("second_shift", total + bases - 1, bases)),
            all_of(self.partial_adder()),
            all_of(register("operands", parallel, self.lanes), "step"),
        ]

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """An encoder for each line of the serial operand; registers of the other's earlier steps."""
        serial, parallel = weight_lines, activation_lines
        if self.serial == "activations":
            serial, parallel = activation_lines, weight_lines
        used = {pair[self.serial == "activations"].element for pair in pairs}
        encoders = edge_component(
            "encoder",
            "pragmatic_encoder",
            serial,
            self._line_encoder,
            max(element.bits for element in self.elements(self.serial)),
            sorted(used, key=lambda element: element.name),
            {"lanes": self.lanes, "recoding": self.recoding, "bits_first_stage": self.bits_first_stage},
        )
        kept = kept_words(self, self.parallel, parallel, self.column_registers, pairs)
        return [encoders, *kept]

    def _line_encoder(self, bits: int) -> list[Use]:
        """Encoders of a line's lanes. Where the first stage does not reach all positions, the lowest one of all lanes,
        and each lane's distance from it."""
        found = encoder(bits, self.recoding, self.lanes)
        places = positions(bits, self.recoding)
        if self.window(bits) < places:
            found.append(all_of(Part("lowest_of_all", "comparator", {"bits": places}, self.lanes + 1)))
            if self.bits_first_stage:
                distance = {"bits": self.bits_first_stage}
                found.append(all_of(Part("distance", "int_adder", distance, self.lanes)))
        return found

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        """The encoder's event is a step's words of all lanes."""
        elements = {"weights": weights.element, "activations": activations.element}
        event = ("encoder", word(elements[self.serial]))
        found: dict[Side, Events] = {self.serial: {event: Fraction(1, self.lanes)}}
        if self.column_registers:
            found[self.parallel] = word_event(f"kept_{self.parallel}", elements[self.parallel])
        return found


def positions(bits: int, recoding: Recoding) -> int:
    """Positions that a term of a value may have; a recoded one's may be above the value's highest."""
    return bits + (recoding != "none")


def encoder(bits: int, recoding: Recoding, lanes: int = 1) -> list[Use]:
    """Terms of a word are held while they are found one after the other: a sign and the magnitude's ones or, recoded,
    which positions have a positive and which a negative term. A detector of the lowest one is a comparator of all
    positions; a recoder looks at three bits for each. Radix-4 Booth digits are those of two's complement, the other
    codes take the magnitude. A word is counted as looked at once."""
    places = positions(bits, recoding)
    found = [
        all_of(register("terms", bits + 1 if recoding == "none" else 2 * places, lanes)),
        all_of(Part("lowest", "comparator", {"bits": places}, lanes)),
    ]
    if recoding != "radix4_booth":
        found.append(all_of(Part("magnitude", "int_adder", {"bits": bits}, lanes)))
    if recoding != "none":
        found.append(all_of(Part("recoder", "comparator", {"bits": 3}, bits * lanes)))
    return found
