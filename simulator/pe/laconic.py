"""Laconic: both operands term by term, a product of two powers of two of each lane a cycle.

Sharify et al., "Laconic Deep Learning Inference Acceleration", ISCA 2019. A PE adds the exponents of a term of the
activation and one of the weight, counts for each exponent how many products have it (with their signs), and adds the
counts, shifted. A step takes as long as the slowest product of two values anywhere in the array. Of the paper the
abstract was at hand, of its simulator DNNsim (4748a60) the source; buckets of counts are as later literature has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.pragmatic import encoder
from simulator.pe.protocol import Pair, Side
from simulator.pe.serial import kernels, sync
from simulator.pe.serial.datapath import Use, adder_tree, all_of, ceil_log2, either, register, sum_bits
from simulator.pe.serial.family import Events, SerialPE, word_event
from simulator.pe.serial.terms import Recoding
from simulator.pe.serial.times import BothSerial


class LaconicPE(SerialPE):
    """Parameters of the Laconic PE."""

    family: Literal["laconic"]
    moments = ("cycle", "term")
    recoding: Recoding = "booth_like"
    """Of both operands; `simulator.pe.serial.terms`."""

    def positions(self, bits: int) -> int:
        return bits + (self.recoding != "none")

    def cycles(self, weights: Element, activations: Element) -> int:
        """Every bit of one value with every bit of the other."""
        return weights.bits * activations.bits

    def data_timing(self, weights: Format, activations: Format) -> BothSerial:
        rule = partial(sync.lane_terms, recoding=self.recoding)
        bulk = partial(kernels.lane_terms, recoding=self.recoding)
        terms = partial(kernels.value_terms, recoding=self.recoding)
        return BothSerial((rule, rule), (bulk, bulk), value_terms=terms)

    def structural(self) -> dict[str, int | str]:
        return {"recoding": self.recoding}

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        """A bucket for each sum of two positions; neighbours are added in pairs, the higher one shifted."""
        of_weight, of_activation = (
            ceil_log2(self.positions(bits)) for bits in (weight_bits, activation_bits)
        )
        buckets = self.positions(weight_bits) + self.positions(activation_bits) - 1
        exponent = Part("exponent", "int_adder", {"bits": max(of_weight, of_activation)}, self.lanes)
        reduction = [
            Part(f"reduce_{level + 1}", "int_adder", {"bits": bits}, count)
            for level, (bits, count) in enumerate(_reduction(sum_bits(self.lanes, 2), buckets))
        ]
        return [
            all_of(register("weight_terms", of_weight + 2, self.lanes)),
            all_of(register("activation_terms", of_activation + 2, self.lanes)),
            Use(exponent, "term", 1),
            Use(either("one_hot", buckets, self.lanes), "term", 1),
            *map(all_of, adder_tree(self.lanes, 2, buckets, "count")),
            *map(all_of, reduction),
            all_of(self.partial_adder()),
        ]

    def word_parts(self, side: Side, bits: int) -> list[Use]:
        return encoder(bits, self.recoding)

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """Encoders of both operands."""
        return [
            self.per_word("weight_encoder", "weights", weight_lines, pairs),
            self.per_word("encoder", "activations", activation_lines, pairs),
        ]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        return {
            "weights": word_event("weight_encoder", weights.element),
            "activations": word_event("encoder", activations.element),
        }


def _reduction(count_bits: int, buckets: int) -> list[tuple[int, int]]:
    """(bits, adders) of each level: level l adds numbers that stand 2**l positions apart."""
    levels, bits, level = [], count_bits, 0
    while buckets > 1:
        bits += 1 << level
        levels.append((bits, buckets // 2))
        buckets -= buckets // 2
        level += 1
    return levels
