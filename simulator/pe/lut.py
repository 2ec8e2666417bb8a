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
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element
from simulator.hardware.structure import Component
from simulator.pe.base import pair_name
from simulator.pe.lut_structure import components, cut_places, elements
from simulator.pe.protocol import Pair, Side, Stationary, Timing
from simulator.pe.table_function import Arithmetic, TableFunction
from simulator.pe.table_pe import TABLE_FLOATS, TablePE
from simulator.pe.tables import generator_additions, odd_planes, plain_table_additions


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
    pipeline_stages: Annotated[int, Field(ge=1, le=5)] = 1
    """Ranks of registers in a PE, the accumulator's among them. The others lie, where the PE has such a place, and in
    this order, between the tables and the adder of planes, behind the sum of the planes, behind the multiplication by
    the scale, and before the loop of a floating-point accumulator."""

    @model_validator(mode="after")
    def _stages_exist(self) -> Self:
        most = 1 + len(cut_places(self))
        if self.pipeline_stages > most:
            raise InputError(
                "more stages than the PE of these tables and weights has",
                key="pipeline_stages",
                value=self.pipeline_stages,
                allowed=f"1 to {most}",
            )
        return self

    @property
    def most_planes(self) -> int:
        """Bits of the widest weights."""
        return max(odd_planes(element) or 1 for element in elements(self.weights))

    @property
    def stored(self) -> str:
        """What the tables hold: exact sums of integers, int8 with a scale, fp16 or fp32."""
        held = {self.arithmetic(element) for element in elements(self.activations)}
        return " ".join(sorted(self.float_tables if kind == "float" else kind for kind in held))

    @property
    def first_plane(self) -> Literal["lowest", "highest"]:
        """Planes of floats are added one by one, the lowest first; the sum of integers is doubled between two."""
        return "lowest" if self.stored == self.float_tables else "highest"

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
        """Tables where activations enter, keys where weights do, and PEs of multiplexers that share both."""
        return components(
            self,
            weight_lines=weight_lines,
            activation_lines=activation_lines,
            stationary=stationary,
            doubled=doubled,
            pairs=pairs,
        )

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """Keys are loaded as weights enter, a table for every `table_inputs` activations, scales for every step."""
        name, weight = pair_name((weights, activations)), weights.element.name
        loads: dict[tuple[str, str], int | Fraction] = {
            ("table", f"load {name}"): Fraction(1, self.table_inputs)
        }
        if self.arithmetic(activations.element) == "int8":
            loads["table", f"scale {name}"] = Fraction(1, self.lanes)
        return {
            "step": {("pe", f"step {name}"): 1},
            "idle": {("pe", "idle"): 1},
            "weight": {("keys", f"load {weight}"): 1},
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
