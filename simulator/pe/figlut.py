"""FIGLUT: a weight-stationary systolic array that reads tables of floats, or of aligned integers.

Park et al., "FIGLUT: An Energy-Efficient Accelerator Design for FP-INT GEMM Using Look-Up Tables", HPCA 2025. A
generator at the edge of each row turns mu activations into a half table (`simulator.pe.tables`), which is handed from
column to column. Each PE holds a table and k read-accumulate units (RACs) that share it; a unit's key is mu bits of its
weights, whose last bit inverts the others and the sign of what is read. Here a RAC is a column of the array, and k
columns share a table (`columns_per_table`). All planes of a weight tile are processed before the next tile.

- FIGLUT-F: the generator's additions are FP32's, each rounded to nearest even; entries are rounded to `float_tables`;
  the sum of each plane is rounded as it passes down the rows. Below the last row planes are multiplied by their power
  of two and added up, the lowest first, one rounding an addition.
- FIGLUT-I (`prealign: true`): activations are aligned to the largest exponent of their group at the edge
  (`simulator.pe.alignment`); tables and sums are integers.

The paper loops over planes outside the rows of the input; here each step takes its planes one after the other, which is
as many cycles. Weights are integers (the paper's binary-coded weights with a factor a plane have no format here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element, integer
from simulator.hardware.structure import Component, Part
from simulator.pe.alignment import align_refusal, aligned, aligned_format
from simulator.pe.arithmetic import FP32, BinaryFloat, Integers, add_and_round, integers_of, reals_of
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Scales, Side, Stationary, Timing
from simulator.pe.table_function import Arithmetic, TableFunction
from simulator.pe.table_pe import TABLE_FLOATS, TablePE
from simulator.pe.tables import generator_additions
from simulator.units import ceil_div

_FLOAT32 = {"exponent_bits": 8, "significand_bits": FP32.precision}
Uses = dict[tuple[str, str], int]
Events = dict[str, Mapping[tuple[str, str], int]]


class FiglutPE(TablePE):
    """Parameters of FIGLUT, by default the paper's mu = 4 and k = 32."""

    family: Literal["figlut"]
    columns_per_table: Annotated[int, Field(ge=1, le=1 << 16)] = 32
    """k: read-accumulate units that share a table."""
    float_tables: Literal["fp16", "fp32"] = "fp32"
    """What entries of floats are rounded to."""
    prealign: bool = False
    """Floats become integers before tables are made of them: FIGLUT-I."""
    align_group: Annotated[int, Field(ge=1, le=1 << 16)] = 64
    """Activations along K that share an exponent, where they are aligned."""
    aligned_bits: Annotated[int, Field(ge=3, le=30)] = 14
    """Bits of an aligned magnitude."""

    def fits(self, dataflow: str) -> str | None:
        """None for an array whose weights stay."""
        return None if dataflow == "ws" else "its weights are stationary, in an array of dataflow ws"

    @model_validator(mode="after")
    def _sums_of_one_kind(self) -> Self:
        floats = self.sums.float_format is not None
        for name in self.activations:
            element = element_format(name).element
            if (self.arithmetic(element) != "exact") != floats:
                raise InputError(
                    f"holds sums of {'floats' if floats else 'integers'}, and its tables of {name} are of "
                    f"{'integers' if floats else 'floats'}",
                    key="accumulator",
                    value=self.accumulator,
                    allowed="int<8..64>" if floats else "fp32, fp16",
                )
        return self

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        if reason is None and self._aligns(activations.element):
            reason = align_refusal(activations, self.aligned_bits)
        return reason

    def _aligns(self, activations: Element) -> bool:
        return self.prealign and not activations.is_integer

    def arithmetic(self, activations: Element) -> Arithmetic:
        """Of the tables of these activations."""
        return "exact" if self._aligns(activations) else super().arithmetic(activations)

    def received(self, side: Side, format: Format) -> Format:
        """Weights as odd integers; activations aligned, if so chosen."""
        if side == "activations" and self._aligns(format.element):
            return aligned_format(format, self.align_group, self.aligned_bits)
        return super().received(side, format)

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        if side == "activations" and self._aligns(tensor.format.element):
            return aligned(tensor, self.align_group, self.aligned_bits)
        return super().decode(side, tensor)

    def timing(self, weights: Format, activations: Format) -> Timing:
        """A cycle a plane."""
        return Timing(self.lanes, 1, self.planes(weights.element), serial=True)

    def entry_bits(self, activations: Element) -> int:
        return super().entry_bits(self._summed(activations))

    def sum_bits(self, activations: Element) -> int:
        return super().sum_bits(self._summed(activations))

    def _summed(self, activations: Element) -> Element:
        """What tables are made of."""
        return integer(self.aligned_bits + 1) if self._aligns(activations) else activations

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """RACs, tables and their generators beside the rows, adders of planes below the columns, aligners.

        A RAC has the keys of its weights, the keys' decoder (gates counted as multiplexers of two inputs), a
        multiplexer, a conditional negation, an adder and the register of the partial sum that passes down. An aligner
        compares exponents, holds a group's activations until the largest is known, subtracts and shifts.
        """
        weights = [element_format(name).element for name in self.weights]
        activations = [element_format(name).element for name in self.activations]
        key_bits = max(element.bits for element in weights)
        entry, total = max(map(self.entry_bits, activations)), max(map(self.sum_bits, activations))
        copies = ceil_div(weight_lines, self.columns_per_table)
        words = self.lanes * (2 if doubled and stationary == "weights" else 1)
        parts = {
            "pe": [
                *self._circuits(entry, total),
                self.partial_adder(),
                Part("sum", "register", {"bits": self.accumulator_bits}),
                Part("keys", "register", {"bits": key_bits}, words),
            ],
            "table": [Part("entries", "register", {"bits": entry}, copies * self.tables * self.entries)],
            "table_generator": [self._generating_adder("adder", entry, self.tables * self._additions)],
            "plane_adders": [self._weighing("weigh"), self.sums.adder("add")],
        }
        events: dict[str, Events] = {name: {} for name in parts}
        events["pe"]["idle"] = {("sum", "clock"): 1, ("keys", "clock"): words}
        for name, (weight, activation) in {pair_name(pair): pair for pair in pairs}.items():
            self._events_of(name, weight.element, activation.element, copies, parts, events)
        counts = {
            "pe": weight_lines * activation_lines,
            "table": activation_lines,
            "table_generator": activation_lines,
            "plane_adders": weight_lines,
        }
        structural: dict[str, int | str] = {
            "weights": " ".join(self.weights),
            "activations": " ".join(self.activations),
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "table_inputs": self.table_inputs,
            "copies": copies,
            "float_tables": self.float_tables,
            "aligned_bits": self.aligned_bits if self.prealign else 0,
            "stationary": stationary,
            "doubled": int(doubled),
        }
        kinds = {"pe": self.family} | {name: f"{self.family}_{name}" for name in counts if name != "pe"}
        found = [
            Component(name, kinds[name], structural, counts[name], tuple(parts[name]), events[name])
            for name in counts
        ]
        return (*found, *self._aligners(activation_lines, activations))

    @property
    def _additions(self) -> int:
        return generator_additions(self.table_inputs)

    def _circuits(self, entry: int, total: int) -> list[Part]:
        """What stands in a RAC before its adder, and works every cycle. ``entry``, ``total``: bits of what is read, and
        of the sum over the tables."""
        floats, inputs = self.sums.float_format is not None, self.table_inputs
        parts = [Part("negate", "multiplexer", {"inputs": 2, "bits": 1 if floats else entry}, self.tables)]
        if inputs > 1:
            parts.append(Part("decode", "multiplexer", {"inputs": 2, "bits": inputs - 1}, self.tables))
            parts.append(Part("select", "multiplexer", {"inputs": self.entries, "bits": entry}, self.tables))
        if self.tables > 1:
            parts.append(Part("tree", "int_adder", {"bits": total}, self.tables - 1))
            if floats:
                parts.append(Part("align", "shifter", {"bits": total}, self.tables))
        return parts

    def _generating_adder(self, name: str, entry: int, count: int) -> Part:
        """Adders of a generator: FP32's, or as wide as an entry of integers."""
        if self.sums.float_format is not None:
            return Part(name, "fp_adder", _FLOAT32, count)
        return Part(name, "int_adder", {"bits": entry}, count)

    def _weighing(self, name: str) -> Part:
        """What multiplies the sum of a plane by its power of two: an adder of exponents, or a shifter."""
        if self.sums.float_format is not None:
            return Part(name, "int_adder", {"bits": self.sums.exponent_bits})
        return Part(name, "shifter", {"bits": self.accumulator_bits})

    def _aligners(self, rows: int, activations: Sequence[Element]) -> list[Component]:
        """One for each activation that enters in a cycle."""
        floats = [element for element in activations if self._aligns(element)]
        if not floats:
            return []
        exponent = {"bits": max(element.exponent_bits for element in floats)}
        bits = max(element.bits for element in floats)
        depth = ceil_div(self.align_group, rows * self.lanes)
        parts = (
            Part("compare", "comparator", exponent),
            Part("distance", "int_adder", exponent),
            Part("shift", "shifter", {"bits": self.aligned_bits}),
            Part("held", "register", {"bits": bits}, depth),
        )
        events = {"align": {(part.name, "operate"): 1 for part in parts[:3]} | {("held", "write"): 1}}
        params: dict[str, int | str] = {"bits": bits, "aligned_bits": self.aligned_bits, "depth": depth}
        return [Component("aligner", f"{self.family}_aligner", params, rows * self.lanes, parts, events)]

    def _events_of(
        self,
        name: str,
        weights: Element,
        activations: Element,
        copies: int,
        parts: dict[str, list[Part]],
        events: dict[str, Events],
    ) -> None:
        """Adds the events of a pair, and the parts that they drive at the width of the pair."""
        planes, entry = self.planes(weights), self.entry_bits(activations)

        def narrow(component: str, part: Part) -> str:
            parts[component].append(Part(f"{part.name} {name}", part.kind, part.params, 0))
            return f"{part.name} {name}"

        step: Uses = {("accumulate", "operate"): planes, ("sum", "write"): planes}
        for part in self._circuits(entry, self.sum_bits(activations)):
            step[narrow("pe", part), "operate"] = part.count * planes
        events["pe"][f"step {name}"] = step
        keys = narrow("pe", Part("keys", "register", {"bits": weights.bits}))
        events["pe"][f"preload {name}"] = {(keys, "write"): 1}
        entries = narrow("table", Part("entries", "register", {"bits": entry}))
        events["table"][f"load {name}"] = {(entries, "write"): copies * self.entries}
        adder = narrow("table_generator", self._generating_adder("adder", entry, 0))
        events["table_generator"][f"generate {name}"] = {(adder, "operate"): self._additions}
        events["plane_adders"][f"add {name}"] = {("weigh", "operate"): planes, ("add", "operate"): planes}

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """A table is generated and handed on for every `table_inputs` activations that enter."""
        name = pair_name((weights, activations))
        entering: dict[tuple[str, str], int | Fraction] = {
            ("table_generator", f"generate {name}"): Fraction(1, self.table_inputs),
            ("table", f"load {name}"): Fraction(1, self.table_inputs),
        }
        if self._aligns(activations.element):
            entering["aligner", "align"] = 1
        return {
            "step": {("pe", f"step {name}"): 1},
            "idle": {("pe", "idle"): 1},
            "preload": {("pe", f"preload {name}"): 1},
            "activation": entering,
            "result": {("plane_adders", f"add {name}"): 1},
        }

    def function(self, weights: Format, activations: Format) -> TableFunction:
        """The arithmetic on odd integers, and on activations as they arrive behind the aligner."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the FIGLUT PE cannot multiply these: {reason}")
        arrived = self.received("activations", activations).element
        floats = self.arithmetic(activations.element) == "float"
        planes = self.planes(weights.element)
        return (PlaneSums if floats else TableFunction)(
            planes=planes,
            inputs=self.table_inputs,
            keys="odd",
            arithmetic=self.arithmetic(activations.element),
            table_float=TABLE_FLOATS[self.float_tables],
            activation_exponent=arrived.quantum_exponent,
            weight_exponent=weights.element.quantum_exponent,
            sums=self.sums,
            words=planes if floats else 1,
        )


@dataclass(frozen=True)
class PlaneSums(TableFunction):
    """Sums of floats: a word of the state for each plane, the lowest first."""

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """State (..., planes) after one step on operands (..., lanes)."""
        to = self._float
        planes = np.moveaxis(np.ldexp(self.float_planes(activations, weights), self.weight_exponent), 0, -1)
        return integers_of(add_and_round(reals_of(state, to.low), planes, to), to.low)

    def result(self, state: Integers) -> Integers:
        """Partial sums (...): planes by their powers of two."""
        to = self._float
        planes = reals_of(state, to.low)
        total = np.zeros(planes.shape[:-1])
        for plane in range(self.planes):
            total = add_and_round(total, np.ldexp(planes[..., plane], plane), to)
        return integers_of(total, to.low)

    @property
    def _float(self) -> BinaryFloat:
        assert self.sums.float_format is not None
        return self.sums.float_format
