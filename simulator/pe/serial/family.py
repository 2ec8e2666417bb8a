"""What the bit-serial and term-serial families share: integers, exact sums in an accumulator that wraps, serial steps,
and PEs of a datapath (`simulator.pe.serial.datapath`) with something at the edge of the array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component
from simulator.pe.base import AccumulatingPE, pair_name
from simulator.pe.dot_function import DotFunction, exact_sum_bits
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Side, Stationary, Timing
from simulator.pe.serial.datapath import (
    MOMENTS,
    Use,
    all_of,
    edge_component,
    pe_component,
    register,
    word,
)

WIDEST = 16
"""Bits of an operand."""
Events = Mapping[tuple[str, str], int | Fraction]


class SerialPE(AccumulatingPE):
    """Parameters that they share. Operands: integers of up to 16 bits; outputs stay in the PEs."""

    sums_of: ClassVar[Literal["integers"]] = "integers"
    lanes: Annotated[int, Field(ge=1, le=64)] = 16
    """Products of one step."""
    pipeline_depth: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles from the last bits of a step to its sum."""

    pruned_weights: ClassVar[tuple[str, ...]] = ()
    """Formats without some bit columns that the PE takes as weights, by the beginning of their names."""
    moments: ClassVar[tuple[str, ...]] = MOMENTS
    """When its parts work."""

    def fits(self, dataflow: str) -> str | None:
        """None for arrays with stationary outputs: the bits of a product meet in one accumulator."""
        if dataflow in ("broadcast", "os"):
            return None
        return "the bits of a product are added up in place, in an array of dataflow broadcast or os"

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        for side, format in (("weights", weights), ("activations", activations)):
            element = format.element
            whole = element.kind in ("int", "uint") and element.bits <= WIDEST
            pruned = side == "weights" and element.name.startswith(self.pruned_weights or ("\0",))
            if reason is None and not whole and not pruned:
                others = "".join(f", {name}<N>" for name in self.pruned_weights) if side == "weights" else ""
                return f"its {side} are integers of up to {WIDEST} bits{others}, not {element.name}"
        return reason

    def cycles(self, weights: Element, activations: Element) -> int:
        """Cycles of a step; where codes decide, those of a step of the widest values."""
        raise NotImplementedError

    def timing(self, weights: Format, activations: Format) -> Timing:
        interval = self.cycles(weights.element, activations.element)
        return Timing(self.lanes, self.pipeline_depth, interval, serial=True)

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        """Between the operands and the sum that is accumulated."""
        raise NotImplementedError

    def structural(self) -> dict[str, int | str]:
        """Parameters of the family that its structure follows from."""
        return {}

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """What stands beside the PEs, at the lines of the array at which weights and activations enter."""
        return []

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """PEs, and what stands at the edge of the array."""
        copies = 2 if doubled else 1

        def whole(weight_bits: int, activation_bits: int) -> list[Use]:
            found = [
                *self.datapath(weight_bits, activation_bits),
                Use(register("accumulator", self.accumulator_bits, copies), "cycle", 1),
            ]
            if self.pipeline_depth > 1:
                found.append(all_of(register("pipeline", self.accumulator_bits, self.pipeline_depth - 1)))
            return found

        params: dict[str, int | str] = {
            "weight_bits": max(element.bits for element in self.elements("weights")),
            "activation_bits": max(element.bits for element in self.elements("activations")),
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "pipeline_depth": self.pipeline_depth,
            "doubled": int(doubled),
            **self.structural(),
        }
        elements = (self.elements("weights"), self.elements("activations"))
        pe = pe_component(self.family, params, weight_lines * activation_lines, whole, elements, pairs)
        return (pe, *self.edge(weight_lines, activation_lines, pairs))

    def elements(self, side: Side) -> list[Element]:
        """All that it takes on a side."""
        names = self.weights if side == "weights" else self.activations
        return [element_format(name).element for name in names]

    def per_word(self, name: str, side: Side, lines: int, pairs: Sequence[Pair]) -> Component:
        """A component with an instance for each lane of ``lines`` rows or columns; see `word_parts`."""
        used = {pair[side == "activations"].element for pair in pairs}
        return edge_component(
            name,
            f"{self.family}_{name}",
            lines * self.lanes,
            lambda bits: self.word_parts(side, bits),
            max(element.bits for element in self.elements(side)),
            sorted(used, key=lambda element: element.name),
        )

    def word_parts(self, side: Side, bits: int) -> list[Use]:
        """What turns a word into bits or terms, for each lane."""
        raise NotImplementedError

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        """Events of words that enter at the edge."""
        return {}

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """Every cycle that a fold streams counts, those too in which a PE waits for slower ones."""
        pair = pair_name((weights, activations))
        counted = {"cycle": "busy", "step": "step", "term": "term"}
        found: dict[str, Events] = {
            counted[moment]: {("pe", f"{moment} {pair}"): 1} for moment in self.moments
        }
        at_edge = {
            "weight" if side == "weights" else "activation": events
            for side, events in self.words(weights, activations).items()
        }
        return found | {"idle": {("pe", "idle"): 1}} | at_edge

    def function(self, weights: Format, activations: Format) -> DotFunction:
        """The sum of a step is exact; the accumulator wraps."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the {self.family} PE cannot multiply these: {reason}")
        return DotFunction(
            weights.element,
            activations.element,
            self.sums,
            cluster=self.lanes,
            sum_bits=exact_sum_bits(weights.element, activations.element, self.lanes),
        )


def word_event(component: str, element: Element) -> Events:
    """One word, one event."""
    return {(component, word(element)): 1}
