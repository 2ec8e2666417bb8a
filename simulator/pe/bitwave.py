"""BitWave: weights bit column by bit column, of which those that are all zero in a group take no time.

Shi et al., "BitWave: Exploiting Column-Based Bit-Level Sparsity for Deep Learning Acceleration", HPCA 2024. Weights
are in sign and magnitude. A PE ANDs a magnitude column of its group (`lanes`, the paper's G = 8) with the activations,
whose signs the weights' signs have changed, adds the lanes up, shifts the sum by the column's position and accumulates.
Rows wait for the one with the most columns. Bit-flipped weights (`bitflip<N>` formats) have N columns fewer at least.
Of the paper the abstract was at hand, of the simulator BitSim (6845fad) the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
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
    and_row,
    edge_component,
    either,
    register,
    shift_ranks,
    sum_bits,
    word,
)
from simulator.pe.serial.family import Events, SerialPE
from simulator.pe.serial.times import OneSerial

BITS = 8
"""Of a weight before columns are left out."""


class BitWavePE(SerialPE):
    """Parameters of the BitWave PE. Weights: integers of up to 8 bits, `bitflip<N>`."""

    family: Literal["bitwave"]
    moments = ("cycle", "step")
    pruned_weights = ("bitflip",)
    lanes: Annotated[int, Field(ge=1, le=64)] = 8
    """Weights of a group."""

    def accepts(self, weights: Format, activations: Format) -> str | None:
        reason = super().accepts(weights, activations)
        if reason is None and weights.element.bits > BITS:
            return f"its weights have at most {BITS} bits"
        return reason

    def cycles(self, weights: Element, activations: Element) -> int:
        """Magnitude columns: all but the sign's."""
        return weights.bits if weights.kind == "uint" else max(1, weights.bits - 1)

    def data_timing(self, weights: Format, activations: Format) -> OneSerial:
        return OneSerial("weights", sync.bitwave_cycles, kernels.bitwave_cycles)

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        signed = activation_bits + 1
        total = sum_bits(self.lanes, signed)
        return [
            all_of(register("column", 1, self.lanes)),
            all_of(and_row(signed, self.lanes)),
            *map(all_of, adder_tree(self.lanes, signed)),
            *map(all_of, shift_ranks("shift", total + BITS - 1, BITS)),
            all_of(self.partial_adder()),
            all_of(either("sign", signed, self.lanes), "step"),
            all_of(register("operands", signed, self.lanes), "step"),
        ]

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """A parser of column masks for each row: the mask of a group, and a detector of its next one."""
        return [
            edge_component(
                "column_parser",
                "bitwave_column_parser",
                weight_lines,
                lambda bits: [
                    all_of(register("mask", BITS)),
                    Use(Part("next_column", "comparator", {"bits": BITS}), "cycle", bits),
                ],
                BITS,
                sorted({pair[0].element for pair in pairs}, key=lambda element: element.name),
            )
        ]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        return {"weights": {("column_parser", word(weights.element)): Fraction(1, self.lanes)}}
