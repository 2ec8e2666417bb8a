"""The bit-serial look-up-table PE of LUT Tensor Core.

Mo et al., "LUT Tensor Core: A Software-Hardware Co-Design for LUT-Based Low-Bit LLM Inference", ISCA 2025, section 3.
An M x N x K tile is an array of M rows and N columns that takes K activations of each row a step: tables of their
signed sums (`simulator.pe.tables`) are broadcast along the row, and each of the row's PEs reads them with the keys of
its column, one bit-plane of the weights a cycle. Weights of b bits take b cycles a step, whatever the activations are.

`reinterpret`: weights become odd integers, which halves the table and gives each scale a zero point, corrected with
sums of activations like any other. Without it the keys are plain bits: all 2**mu sums of subsets are stored, and the
top plane of signed weights is subtracted; UNPU (Lee et al., IEEE JSSC 2019) is such a machine.

Tables of integers are exact. Those of floats are added up in FP32, each addition rounded to nearest even; then

- `table_quantization: none`: entries are rounded to `float_tables`; each plane, times its power of two, is added to the
  accumulator, lowest plane first, with one rounding;
- `table_quantization: int8`: entries are rounded to INT8 with one FP32 scale for the tables of a step (`quantized`);
  the planes are added up as integers, and the sum times the scale is added to the accumulator with one rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import FP32
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Side, Stationary, Timing
from simulator.pe.table_function import Arithmetic, TableFunction
from simulator.pe.table_pe import TABLE_FLOATS, TablePE
from simulator.pe.tables import generator_additions, plain_table_additions
from simulator.units import ceil_div

Uses = dict[tuple[str, str], int]


class LutPE(TablePE):
    """Parameters of the look-up-table PE, by default LUT Tensor Core's tile with K = 4."""

    family: Literal["lut"]
    reinterpret: bool = True
    """Weights as odd integers, tables of 2**(mu - 1) entries; False: plain bits, 2**mu entries."""
    table_quantization: Literal["none", "int8"] = "none"
    """Of tables of floats, instead of `float_tables`."""
    precompute: Literal["fused", "unfused"] = "fused"
    """unfused: an operation of the vector unit makes the tables before the array starts. fused: with the operation
    before, in whose time it is hidden."""
    pipeline_stages: Annotated[int, Field(ge=1, le=2)] = 1
    """2: a register between the multiplexers and the adders."""

    @property
    def entries(self) -> int:
        """Sums that a table stores; the sum of nothing is no entry."""
        return super().entries if self.reinterpret else (1 << self.table_inputs) - 1

    def fits(self, dataflow: str) -> str | None:
        """None for an array whose rows broadcast their tables."""
        if dataflow == "broadcast":
            return None
        return "its tables are broadcast along the rows of an array of dataflow broadcast"

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        if self.reinterpret or weights.element.is_integer:
            return super().accepts(weights, activations)
        return (
            f"without reinterpretation its keys are the bits of integers, which {weights.element.name} is not"
        )

    def arithmetic(self, activations: Element) -> Arithmetic:
        """Of the tables of these activations."""
        quantized = self.table_quantization == "int8" and not activations.is_integer
        return "int8" if quantized else super().arithmetic(activations)

    def received(self, side: Side, format: Format) -> Format:
        return super().received(side, format) if self.reinterpret else format

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return super().decode(side, tensor) if self.reinterpret else tensor

    def timing(self, weights: Format, activations: Format) -> Timing:
        """A cycle a plane; K and the activations never change it."""
        return Timing(self.lanes, self.pipeline_stages, self.planes(weights.element), serial=True)

    def table_passes(self, activations: Format) -> Fraction:
        """Visits of a vector lane for each activation, to make tables of them: the additions of the tree; to quantize
        them the maximum of the entries, their multiplication by the reciprocal of the scale, and this for each step."""
        additions = generator_additions if self.reinterpret else plain_table_additions
        visits = Fraction(additions(self.table_inputs), self.table_inputs)
        if self.arithmetic(activations.element) == "int8":
            visits += Fraction(2 * self.entries, self.table_inputs) + Fraction(1, self.lanes)
        return visits

    def vector_passes(self, weights: Format, activations: Format) -> Fraction:
        return self.table_passes(activations) if self.precompute == "unfused" else Fraction(0)

    def fused_passes(self, weights: Format, activations: Format) -> Fraction:
        return self.table_passes(activations) if self.precompute == "fused" else Fraction(0)

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """Tables where activations enter, keys where weights do, and PEs of multiplexers that share both.

        A PE negates what it reads (a multiplexer between entry and complement; the 1 is the carry into the next adder),
        adds the tables' values in a tree, adds planes to twice the sum of those above them, the highest first, and adds
        that sum to its accumulator. With tables of floats that are not quantized it has neither: a plane's exponent is
        raised by its weight and it goes into the accumulator itself.
        """
        weights = [element_format(name).element for name in self.weights]
        activations = [element_format(name).element for name in self.activations]
        planes = max(map(self.planes, weights))
        arithmetics = {self.arithmetic(element) for element in activations}
        entry = max(map(self.entry_bits, activations))
        copies = ceil_div(weight_lines, self.columns_per_table)
        table_parts = [Part("entries", "register", {"bits": entry}, copies * self.tables * self.entries)]
        if "int8" in arithmetics:
            table_parts.append(Part("scale", "register", {"bits": FP32.bits}, copies))
        circuits = self._circuits(arithmetics, entry, max(map(self.sum_bits, activations)), planes)
        pe_parts = [part for part, _ in circuits]
        copies_of_sum = 2 if doubled and stationary == "outputs" else 1
        pe_parts += [
            self.partial_adder(),
            Part("accumulator", "register", {"bits": self.accumulator_bits}, copies_of_sum),
        ]
        clocked = [part for part in pe_parts if part.kind == "register"]
        table_events: dict[str, Mapping[tuple[str, str], int]] = {}
        key_parts = [Part("keys", "register", {"bits": max(element.bits for element in weights)}, self.lanes)]
        key_events: dict[str, Mapping[tuple[str, str], int]] = {}
        pe_events: dict[str, Mapping[tuple[str, str], int]] = {
            "idle": {(part.name, "clock"): part.count for part in clocked}
        }
        for name, (weight, activation) in {pair_name(pair): pair for pair in pairs}.items():
            made, step = self._step(name, weight.element, activation.element)
            pe_parts += made
            pe_events[f"step {name}"] = step
            bits = {"bits": self.entry_bits(activation.element)}
            table_parts.append(Part(f"entries {name}", "register", bits, 0))
            table_events[f"load {name}"] = {(f"entries {name}", "write"): copies * self.entries}
            if self.arithmetic(activation.element) == "int8":
                table_events[f"scale {name}"] = {("scale", "write"): copies}
            key_parts.append(Part(f"keys {name}", "register", {"bits": weight.element.bits}, 0))
            key_events[f"load {name}"] = {(f"keys {name}", "write"): 1}
        structural: dict[str, int | str] = {
            "weights": " ".join(self.weights),
            "activations": " ".join(self.activations),
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "table_inputs": self.table_inputs,
            "copies": copies,
            "reinterpret": int(self.reinterpret),
            "table_quantization": self.table_quantization,
            "float_tables": self.float_tables,
            "pipeline_stages": self.pipeline_stages,
            "doubled": int(doubled),
        }
        return (
            Component(
                "pe", self.family, structural, weight_lines * activation_lines, tuple(pe_parts), pe_events
            ),
            Component(
                "table",
                f"{self.family}_table",
                structural,
                activation_lines,
                tuple(table_parts),
                table_events,
            ),
            Component("keys", f"{self.family}_keys", structural, weight_lines, tuple(key_parts), key_events),
        )

    def _circuits(
        self, arithmetics: set[Arithmetic], entry: int, total: int, planes: int
    ) -> list[tuple[Part, bool]]:
        """What stands in a PE before its accumulator, and whether it works every cycle or once a step. ``entry``,
        ``total``: bits of what is read, and of the sum over the tables."""
        floats, integers = "float" in arithmetics, bool(arithmetics - {"float"})
        choices = 2 ** (self.table_inputs - self.reinterpret)
        signed = entry if integers else 1
        every: list[Part] = []
        if choices > 1:
            every.append(Part("select", "multiplexer", {"inputs": choices, "bits": entry}, self.tables))
        if self.reinterpret:
            every.append(Part("negate", "multiplexer", {"inputs": 2, "bits": signed}, self.tables))
        if self.tables > 1:
            every.append(Part("tree", "int_adder", {"bits": total}, self.tables - 1))
            if floats:
                every.append(Part("align", "shifter", {"bits": total}, self.tables))
        if not self.reinterpret:
            every.append(Part("negate", "multiplexer", {"inputs": 2, "bits": total if integers else 1}))
        if self.pipeline_stages > 1:
            every.append(Part("pipeline", "register", {"bits": total}))
        once: list[Part] = []
        if integers:
            every.append(Part("plane_adder", "int_adder", {"bits": total + planes}))
            every.append(Part("plane_sum", "register", {"bits": total + planes}))
        if floats:
            every.append(Part("plane_exponent", "int_adder", {"bits": self.sums.exponent_bits}))
        if "int8" in arithmetics:
            once.append(
                Part(
                    "scale_multiplier", "int_multiplier", {"a_bits": FP32.precision, "b_bits": total + planes}
                )
            )
        return [(part, True) for part in every] + [(part, False) for part in once]

    def _step(self, name: str, weights: Element, activations: Element) -> tuple[list[Part], Uses]:
        """What a step of a pair does, and the parts that do it at the width of the pair."""
        arithmetic, planes = self.arithmetic(activations), self.planes(weights)
        circuits = self._circuits(
            {arithmetic}, self.entry_bits(activations), self.sum_bits(activations), planes
        )
        parts, step = [], {}
        for part, every_plane in circuits:
            narrow = Part(f"{part.name} {name}", part.kind, part.params, 0)
            event = "write" if part.kind == "register" else "operate"
            parts.append(narrow)
            step[narrow.name, event] = part.count * (planes if every_plane else 1)
        sums = planes if arithmetic == "float" else 1
        step["accumulate", "operate"] = step["accumulator", "write"] = sums
        if planes > sums:
            step["accumulator", "clock"] = planes - sums
        return parts, step

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """Keys are loaded as weights enter, a table for every `table_inputs` activations, scales for every step."""
        name = pair_name((weights, activations))
        loads: dict[tuple[str, str], int | Fraction] = {
            ("table", f"load {name}"): Fraction(1, self.table_inputs)
        }
        if self.arithmetic(activations.element) == "int8":
            loads["table", f"scale {name}"] = Fraction(1, self.lanes)
        return {
            "step": {("pe", f"step {name}"): 1},
            "idle": {("pe", "idle"): 1},
            "weight": {("keys", f"load {name}"): 1},
            "activation": loads,
        }

    def function(self, weights: Format, activations: Format) -> TableFunction:
        """The arithmetic on odd integers (plain ones without reinterpretation) and the activations' integers."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the look-up-table PE cannot multiply these: {reason}")
        element = activations.element
        return TableFunction(
            planes=self.planes(weights.element),
            inputs=self.table_inputs,
            keys="odd" if self.reinterpret else weights.element.kind,
            arithmetic=self.arithmetic(element),
            table_float=TABLE_FLOATS[self.float_tables],
            activation_exponent=element.quantum_exponent,
            weight_exponent=weights.element.quantum_exponent,
            sums=self.sums,
        )
