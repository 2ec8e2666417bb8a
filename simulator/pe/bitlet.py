"""Bitlet: weights bit column by bit column, all columns at once, the ones of each in turn.

Lu et al., "Distilling Bit-level Sparsity Parallelism for General Purpose Deep Learning Acceleration", MICRO 2021. A PE
holds a window of weights and activations. For each significance a lane of its own picks, a cycle, the activation of the
next weight that has a one there; the picked ones are added up, each shifted by its significance, which is wiring, and
accumulated. A window takes as long as the fullest bit column of any row. Of the paper the abstract was at hand, of the
simulator BitSim (6845fad) the source.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Part
from simulator.pe.serial import kernels, sync
from simulator.pe.serial.datapath import Use, all_of, either, register
from simulator.pe.serial.family import SerialPE
from simulator.pe.serial.times import OneSerial


class BitletPE(SerialPE):
    """Parameters of the Bitlet PE; `lanes` is the window."""

    family: Literal["bitlet"]
    lanes: Literal[8, 16, 32, 64] = 64

    def cycles(self, weights: Element, activations: Element) -> int:
        """A bit column of ones."""
        return self.lanes

    def data_timing(self, weights: Format, activations: Format) -> OneSerial:
        bits = weights.element.bits
        return OneSerial(
            "weights",
            partial(sync.bitlet_cycles, bits=bits),
            partial(kernels.bitlet_cycles, bits=bits),
            partial(kernels.value_ones, bits=bits),
        )

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        """A significance has a detector of the next one among its bits of the window, and a multiplexer."""
        pick = Part("pick", "multiplexer", {"inputs": self.lanes, "bits": activation_bits}, weight_bits)
        next_one = Part("next_one", "comparator", {"bits": self.lanes}, weight_bits)
        return [
            Use(next_one, "term", 1),
            Use(pick, "term", 1),
            *map(all_of, _significances(activation_bits, weight_bits)),
            all_of(either("negate", activation_bits)),
            all_of(self.partial_adder()),
            all_of(register("weights", weight_bits, self.lanes), "step"),
            all_of(register("operands", activation_bits, self.lanes), "step"),
        ]


def _significances(bits: int, columns: int) -> list[Part]:
    """Adders of numbers of neighbouring significances, in pairs: level l adds numbers 2**l positions apart."""
    parts: list[Part] = []
    while columns > 1:
        level = len(parts)
        bits += 1 << level
        parts.append(Part(f"tree_{level + 1}", "int_adder", {"bits": bits}, columns // 2))
        columns -= columns // 2
    return parts
