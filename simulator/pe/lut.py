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
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.arithmetic import (
    FP16,
    FP32,
    BinaryFloat,
    Integers,
    add_and_round,
    integers_of,
    reals_of,
    round_reals,
    wrap,
)
from simulator.pe.base import PE, pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Scales, Side, Stationary, Timing
from simulator.pe.tables import (
    Sums,
    as_odd_integers,
    bit_planes,
    generator_additions,
    half_table,
    keys,
    odd_form,
    odd_format,
    plain_table,
    plain_table_additions,
    quantized,
    read,
)
from simulator.units import ceil_div

Arithmetic = Literal["exact", "float", "int8"]
"""Of the tables: integers; floats; floats quantized to INT8."""
Uses = dict[tuple[str, str], int]

_TREE_BITS = 53
"""Widest sum of float entries: what float64 holds."""
_TABLE_FLOATS: dict[str, BinaryFloat] = {"fp16": FP16, "fp32": FP32}


class LutPE(PE):
    """Parameters of the look-up-table PE, by default LUT Tensor Core's tile with K = 4. Weights: integers of 1 to 8
    bits; activations: integers and floats of up to 16 bits."""

    family: Literal["lut"]
    accumulator: str = "int32"
    """Of integers: int<8..64>. Where activations are floats: fp32, fp16, ..."""
    lanes: Annotated[int, Field(ge=1, le=1024)] = 4
    """K of the tile: activations of a row that a step takes, a multiple of `table_inputs`."""
    table_inputs: Annotated[int, Field(ge=1, le=8)] = 4
    """mu: activations of one table."""
    columns_per_table: Annotated[int, Field(ge=1, le=1 << 16)] = 64
    """PEs of a row that read one table: N of the tile. A wider array holds each table so many times."""
    reinterpret: bool = True
    """Weights as odd integers, tables of 2**(mu - 1) entries; False: plain bits, 2**mu entries."""
    table_quantization: Literal["none", "int8"] = "none"
    """Of tables of floats."""
    float_tables: Literal["fp16", "fp32"] = "fp16"
    """What entries of floats are rounded to, unless they are quantized."""
    precompute: Literal["fused", "unfused"] = "fused"
    """unfused: an operation of the vector unit makes the tables before the array starts. fused: with the operation
    before, in whose time it is hidden."""
    pipeline_stages: Annotated[int, Field(ge=1, le=2)] = 1
    """2: a register between the multiplexers and the adders."""

    @field_validator("accumulator")
    @classmethod
    def _known_accumulator(cls, name: str) -> str:
        return accumulator(name).name

    @model_validator(mode="after")
    def _whole_tables(self) -> LutPE:
        if self.lanes % self.table_inputs:
            raise InputError(
                f"is no whole number of tables of {self.table_inputs} activations",
                key="lanes",
                value=self.lanes,
                allowed=f"a multiple of {self.table_inputs}",
            )
        return self

    @property
    def tables(self) -> int:
        """Tables that a PE reads in a step."""
        return self.lanes // self.table_inputs

    @property
    def entries(self) -> int:
        """Sums that a table stores; the sum of nothing is no entry."""
        return (1 << self.table_inputs - 1) if self.reinterpret else (1 << self.table_inputs) - 1

    @property
    def sums(self) -> Accumulator:
        return accumulator(self.accumulator)

    @property
    def accumulator_bits(self) -> int:
        return self.sums.bits

    def partial_bits(self, weights: Format, activations: Format) -> int:
        """Width of a partial sum as it leaves the PE."""
        return self.accumulator_bits

    def partial_adder(self) -> Part:
        """The PE's own accumulating adder once more."""
        return self.sums.adder("accumulate")

    def fits(self, dataflow: str) -> str | None:
        """None for an array whose rows broadcast their tables."""
        if dataflow == "broadcast":
            return None
        return "its tables are broadcast along the rows of an array of dataflow broadcast"

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        if reason:
            return reason
        if odd_form(weights.element) is None:
            return f"{weights.name} has no integers of at most 8 bits, a plane each"
        if not self.reinterpret and not weights.element.is_integer:
            return f"without reinterpretation its keys are the bits of integers, which {weights.element.name} is not"
        element = activations.element
        if element.kind == "exponent" or element.kind == "table" or element.bits > 16:
            return f"its tables are of integers and of floats of up to 16 bits, not of {element.name}"
        arithmetic = self.arithmetic(element)
        if arithmetic == "exact":
            return None
        if self.sums.float_format is None:
            return f"tables of {element.name} need an fp32 or fp16 accumulator"
        if arithmetic == "float" and self.tables > 1 and self._sum_bits(element) > _TREE_BITS:
            return (
                f"a tree over {self.tables} tables of {element.name} adds fixed point of {self._sum_bits(element)} "
                f"bits; it has at most {_TREE_BITS} (one table a step needs none)"
            )
        return None

    def arithmetic(self, activations: Element) -> Arithmetic:
        """Of the tables of these activations."""
        if activations.is_integer:
            return "exact"
        return "int8" if self.table_quantization == "int8" else "float"

    def received(self, side: Side, format: Format) -> Format:
        """Weights as odd integers, which is how they were stored: no decoder is needed."""
        return odd_format(format) if side == "weights" and self.reinterpret else format

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return as_odd_integers(tensor) if side == "weights" and self.reinterpret else tensor

    def planes(self, weights: Element) -> int:
        """Cycles of a step: bits of the weights."""
        form = odd_form(weights)
        if form is None:
            raise InputError("has no bit-planes that a table is read with", value=weights.name)
        return form.planes

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

    # Structure

    def entry_bits(self, activations: Element) -> int:
        """Width of a stored sum."""
        arithmetic = self.arithmetic(activations)
        if arithmetic == "int8":
            return 8
        if arithmetic == "float":
            return _TABLE_FLOATS[self.float_tables].bits
        largest: int = 2**activations.bits - 1 if activations.kind == "uint" else 2 ** (activations.bits - 1)
        return (self.table_inputs * largest).bit_length() + 1

    def _sum_bits(self, activations: Element) -> int:
        """Width of the sum of what a PE reads in a cycle; of several floats, aligned in fixed point."""
        if self.arithmetic(activations) != "float":
            bits = self.entry_bits(activations)
        elif self.tables == 1:
            return _TABLE_FLOATS[self.float_tables].bits
        else:
            value_bits = activations.emax + 2 - activations.quantum_exponent
            bits = value_bits + (self.table_inputs - 1).bit_length()
        return bits + (self.tables - 1).bit_length()

    def hardware(
        self, *, rows: int, cols: int, stationary: Stationary, doubled: bool, pairs: Sequence[Pair]
    ) -> tuple[Component, ...]:
        """Tables beside the rows, keys above the columns, and PEs of multiplexers that share both.

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
        copies = rows * ceil_div(cols, self.columns_per_table)
        table_parts = [Part("entries", "register", {"bits": entry}, self.tables * self.entries)]
        if "int8" in arithmetics:
            table_parts.append(Part("scale", "register", {"bits": FP32.bits}))
        circuits = self._circuits(arithmetics, entry, max(map(self._sum_bits, activations)), planes)
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
            table_events[f"load {name}"] = {(f"entries {name}", "write"): self.entries}
            if self.arithmetic(activation.element) == "int8":
                table_events[f"scale {name}"] = {("scale", "write"): 1}
            key_parts.append(Part(f"keys {name}", "register", {"bits": weight.element.bits}, 0))
            key_events[f"load {name}"] = {(f"keys {name}", "write"): 1}
        structural: dict[str, int | str] = {
            "weights": " ".join(self.weights),
            "activations": " ".join(self.activations),
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "table_inputs": self.table_inputs,
            "reinterpret": int(self.reinterpret),
            "table_quantization": self.table_quantization,
            "float_tables": self.float_tables,
            "pipeline_stages": self.pipeline_stages,
            "doubled": int(doubled),
        }
        return (
            Component("pe", self.family, structural, rows * cols, tuple(pe_parts), pe_events),
            Component("table", f"{self.family}_table", structural, copies, tuple(table_parts), table_events),
            Component("keys", f"{self.family}_keys", structural, cols, tuple(key_parts), key_events),
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
            {arithmetic}, self.entry_bits(activations), self._sum_bits(activations), planes
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

    def function(self, weights: Format, activations: Format) -> LutFunction:
        """The arithmetic on odd integers (plain ones without reinterpretation) and the activations' integers."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the look-up-table PE cannot multiply these: {reason}")
        element = activations.element
        return LutFunction(
            planes=self.planes(weights.element),
            inputs=self.table_inputs,
            keys="odd" if self.reinterpret else weights.element.kind,
            arithmetic=self.arithmetic(element),
            table_float=_TABLE_FLOATS[self.float_tables],
            activation_exponent=element.quantum_exponent,
            weight_exponent=weights.element.quantum_exponent,
            sums=self.sums,
        )


@dataclass(frozen=True)
class LutFunction:
    """Sums of products by look-up, a step's planes at a time."""

    planes: int
    inputs: int
    keys: str
    """odd: digits -1 and +1. int: bits, the top one negative. uint: bits."""
    arithmetic: Arithmetic
    table_float: BinaryFloat
    activation_exponent: int
    weight_exponent: int
    sums: Accumulator
    words: int = 1

    @property
    def exponent(self) -> int:
        """Weight of the partial sums' integers, as a power of two."""
        to = self.sums.float_format
        return to.low if to else self.activation_exponent + self.weight_exponent

    @property
    def dtype(self) -> np.dtype[np.int64] | np.dtype[np.object_]:
        return np.dtype(object if self.sums.float_format or self.sums.bits > 62 else np.int64)

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """Accumulators (..., 1) after one step on operands (..., lanes)."""
        tables = activations.reshape(*activations.shape[:-1], -1, self.inputs)
        to = self.sums.float_format
        if self.arithmetic == "exact":
            totals = self._over_planes(self._read(self._table(tables.astype(np.int64)), weights))
            if to is None:
                return wrap(state + totals[..., None], self.sums.bits)
            addends = [reals_of(totals, self.activation_exponent + self.weight_exponent)]
        else:
            entries = self._table(self._floats(tables))
            if not np.isfinite(entries).all():
                raise InputError("a sum of activations overflows the FP32 adders that make tables")
            if self.arithmetic == "int8":
                codes, factors = quantized(entries)
                totals = self._over_planes(self._read(codes, weights))
                addends = [np.ldexp(totals * factors.astype(np.float64), self.weight_exponent)]
            else:
                kept = round_reals(entries.astype(np.float64), self.table_float)
                sums = self._read(kept, weights)
                addends = [np.ldexp(plane, self.weight_exponent + i) for i, plane in enumerate(sums)]
        assert to is not None
        held = reals_of(state[..., 0], to.low)
        for addend in addends:
            held = add_and_round(held, addend, to)
        return integers_of(held, to.low)[..., None]

    def result(self, state: Integers) -> Integers:
        return state[..., 0]

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two partial sums, as the adder of the output buffer does it."""
        to = self.sums.float_format
        if to is None:
            return wrap(partial + other, self.sums.bits)
        return integers_of(add_and_round(reals_of(partial, to.low), reals_of(other, to.low), to), to.low)

    def _table(self, activations: Sums) -> Sums:
        return half_table(activations) if self.keys == "odd" else plain_table(activations)

    def _floats(self, activations: Integers) -> npt.NDArray[np.float32]:
        """Activations as the FP32 adders get them, exactly."""
        return reals_of(activations, self.activation_exponent).astype(np.float32)

    def _read(self, entries: Sums, weights: Integers) -> Sums:
        """(planes, ...) sums over the tables of entries (..., tables, choices), each with the sign of its key."""
        if self.keys == "odd":
            signs, indices = keys(bit_planes(weights, self.planes), self.inputs)
            signed: Sums = (signs * read(entries, indices)).sum(axis=-1)
            return signed
        bits = np.stack([(weights.astype(np.int64) >> plane) & 1 for plane in range(self.planes)])
        digits = bits.reshape(*bits.shape[:-1], -1, self.inputs)
        sums: Sums = read(entries, digits @ (1 << np.arange(self.inputs, dtype=np.int64))).sum(axis=-1)
        if self.keys == "int":
            sums[-1] = -sums[-1]
        return sums

    def _over_planes(self, sums: Sums) -> npt.NDArray[np.int64]:
        """Plane sums (planes, ...) by their weights, added up."""
        return np.tensordot(1 << np.arange(self.planes, dtype=np.int64), sums, axes=1)
