"""BitVert: weights bit column by bit column, never more than half of a column's lanes, and only stored columns.

Chen et al., "BBS: Bi-directional Bit-level Sparsity for Deep Learning Acceleration", MICRO 2024. As

    sum of a * b  =  sum of a  -  sum of a * (1 - b)          b: the bits of a column

a column with more ones than zeros is inverted, and half as many multipliers as lanes take any column in a cycle. Lanes
are cut into sub-groups of `sub_group`, each inverted on its own; each has half as many multiplexers, the j-th of which
sees the activations j to j + sub_group / 2, and chained priority encoders that find which. Binary pruning leaves 8 - n
columns in memory (`bbs_avg<n>`, `bbs_zp<n>` formats) and a constant for each group, by which the sum of activations is
multiplied, three bits a cycle. Columns are those of two's complement, shifted constants' too. A step takes a cycle for
each stored column, whatever the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from pydantic import model_validator

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.protocol import Pair, Side
from simulator.pe.serial.datapath import (
    Use,
    adder_tree,
    all_of,
    edge_component,
    either,
    register,
    shift_ranks,
    sum_bits,
    word,
)
from simulator.pe.serial.family import Events, SerialPE
from simulator.pe.serial.sync import stored_columns

BITS = 8
"""Of a weight before pruning."""
CONSTANT_BITS = 6
"""Of a group's constant, of which `_CONSTANT_STEP` are multiplied in a cycle."""
_CONSTANT_STEP = 3


class BitVertPE(SerialPE):
    """Parameters of the BitVert PE. Weights: integers of up to 8 bits, `bbs_avg<N>`, `bbs_zp<N>`."""

    family: Literal["bitvert"]
    moments = ("cycle", "step")
    pruned_weights = ("bbs_avg", "bbs_zp")
    lanes: Literal[8, 16, 32, 64] = 16
    sub_group: Literal[4, 8, 16] = 8
    """Lanes that share multiplexers."""

    @model_validator(mode="after")
    def _whole_sub_groups(self) -> BitVertPE:
        if self.lanes % self.sub_group:
            raise InputError(
                f"is no whole number of sub-groups of {self.sub_group}", key="lanes", value=self.lanes
            )
        return self

    def accepts(self, weights: Format, activations: Format) -> str | None:
        reason = super().accepts(weights, activations)
        if reason is None and weights.element.bits > BITS:
            return f"its weights have at most {BITS} bits"
        return reason

    def cycles(self, weights: Element, activations: Element) -> int:
        return stored_columns(BITS, BITS - weights.bits)

    def structural(self) -> dict[str, int | str]:
        return {"sub_group": self.sub_group}

    def datapath(self, weight_bits: int, activation_bits: int) -> list[Use]:
        """The sums of activations come from the edge. A sub-group's column sum, or that less the sub-group's
        activations, is negated in the sign column, added to the others', shifted and accumulated, with the constant's
        product."""
        window = self.sub_group // 2 + 1
        groups, multipliers = self.lanes // self.sub_group, self.lanes // 2
        total = sum_bits(self.lanes, activation_bits)
        of_group = sum_bits(self.sub_group, activation_bits)
        constant = Part("constant", "int_multiplier", {"a_bits": total, "b_bits": _CONSTANT_STEP})
        constant_sum = Part("constant_sum", "int_adder", {"bits": total + CONSTANT_BITS})
        visits = CONSTANT_BITS // _CONSTANT_STEP if weight_bits < BITS else 0
        return [
            all_of(register("column", 1, self.lanes)),
            all_of(Part("more_ones", "comparator", {"bits": self.sub_group}, groups)),
            all_of(either("invert", 1, self.lanes)),
            all_of(Part("next_one", "comparator", {"bits": window}, multipliers)),
            all_of(Part("pick", "multiplexer", {"inputs": window, "bits": activation_bits}, multipliers)),
            *map(all_of, adder_tree(self.sub_group // 2, activation_bits, groups)),
            all_of(Part("complement", "int_adder", {"bits": of_group}, groups)),
            all_of(either("inverted", of_group, groups)),
            *map(all_of, adder_tree(groups, of_group, name="sub_groups")),
            all_of(either("negate", total)),
            *map(all_of, shift_ranks("shift", total + BITS - 1, BITS)),
            all_of(self.partial_adder()),
            Use(register("digit", _CONSTANT_STEP), "step", visits),
            Use(constant, "step", visits),
            Use(constant_sum, "step", visits),
            all_of(register("operands", activation_bits, self.lanes), "step"),
        ]

    def edge(self, weight_lines: int, activation_lines: int, pairs: Sequence[Pair]) -> list[Component]:
        """For each column, which its PEs share: the sums of a step's activations of each sub-group and of all."""
        return [
            edge_component(
                "activation_sum",
                "bitvert_activation_sum",
                activation_lines,
                self._sums,
                max(element.bits for element in self.elements("activations")),
                sorted({pair[1].element for pair in pairs}, key=lambda element: element.name),
                {"lanes": self.lanes, "sub_group": self.sub_group},
            )
        ]

    def _sums(self, bits: int) -> list[Use]:
        groups, of_group = self.lanes // self.sub_group, sum_bits(self.sub_group, bits)
        return [
            *map(all_of, adder_tree(self.sub_group, bits, groups)),
            *map(all_of, adder_tree(groups, of_group, name="sub_groups")),
            all_of(register("sums", of_group, groups)),
            *([all_of(register("sum", sum_bits(self.lanes, bits)))] if groups > 1 else []),
        ]

    def words(self, weights: Format, activations: Format) -> Mapping[Side, Events]:
        return {"activations": {("activation_sum", word(activations.element)): Fraction(1, self.lanes)}}
