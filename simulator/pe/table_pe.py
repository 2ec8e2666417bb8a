"""What PEs that read tables share: their parameters, the formats they take, and widths."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element
from simulator.pe.arithmetic import FP16, FP32, BinaryFloat
from simulator.pe.base import AccumulatingPE
from simulator.pe.protocol import Side
from simulator.pe.table_function import Arithmetic
from simulator.pe.tables import as_odd_integers, odd_format, odd_planes

_TREE_BITS = 53
"""Widest sum of float entries: what float64 holds."""
TABLE_FLOATS: dict[str, BinaryFloat] = {"fp16": FP16, "fp32": FP32}


class TablePE(AccumulatingPE):
    """Parameters that they share. Weights: integers of 1 to 8 bits, read as odd integers; activations: integers and
    floats of up to 16 bits."""

    accumulator: str = "int32"
    """Of integers: int<8..64>. Where activations are floats: fp32, fp16, ..."""
    lanes: Annotated[int, Field(ge=1, le=1024)] = 4
    """Activations that a step takes, a multiple of `table_inputs`."""
    table_inputs: Annotated[int, Field(ge=1, le=8)] = 4
    """mu: activations of one table."""
    columns_per_table: Annotated[int, Field(ge=1, le=1 << 16)] = 64
    """PEs of a row that read one table. A wider array holds each table so many times."""
    float_tables: Literal["fp16", "fp32"] = "fp16"
    """What entries of floats are rounded to."""

    @model_validator(mode="after")
    def _whole_tables(self) -> Self:
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
        """Sums that a table stores."""
        return 1 << self.table_inputs - 1

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        if reason:
            return reason
        if odd_planes(weights.element) is None:
            return f"{weights.name} has no integers of at most 8 bits, a plane each"
        element = activations.element
        if element.kind == "exponent" or element.kind == "table" or element.bits > 16:
            return f"its tables are of integers and of floats of up to 16 bits, not of {element.name}"
        arithmetic = self.arithmetic(element)
        if arithmetic == "exact":
            return None
        if self.sums.float_format is None:
            return f"tables of {element.name} need an fp32 or fp16 accumulator"
        if arithmetic == "float" and self.tables > 1 and self.sum_bits(element) > _TREE_BITS:
            return (
                f"a tree over {self.tables} tables of {element.name} adds fixed point of {self.sum_bits(element)} "
                f"bits; it has at most {_TREE_BITS} (one table a step needs none)"
            )
        return None

    def arithmetic(self, activations: Element) -> Arithmetic:
        """Of the tables of these activations."""
        return "exact" if activations.is_integer else "float"

    def received(self, side: Side, format: Format) -> Format:
        """Weights as odd integers, which is how they were stored: no decoder is needed."""
        return odd_format(format) if side == "weights" else format

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return as_odd_integers(tensor) if side == "weights" else tensor

    def planes(self, weights: Element) -> int:
        """Cycles of a step: bits of the weights."""
        planes = odd_planes(weights)
        if planes is None:
            raise InputError("has no bit-planes that a table is read with", value=weights.name)
        return planes

    def entry_bits(self, activations: Element) -> int:
        """Width of a stored sum."""
        arithmetic = self.arithmetic(activations)
        if arithmetic == "int8":
            return 8
        if arithmetic == "float":
            return TABLE_FLOATS[self.float_tables].bits
        largest: int = 2**activations.bits - 1 if activations.kind == "uint" else 2 ** (activations.bits - 1)
        return (self.table_inputs * largest).bit_length() + 1

    def sum_bits(self, activations: Element) -> int:
        """Width of the sum of what a PE reads in a cycle; of several floats, aligned in fixed point."""
        if self.arithmetic(activations) != "float":
            bits = self.entry_bits(activations)
        elif self.tables == 1:
            return TABLE_FLOATS[self.float_tables].bits
        else:
            value_bits = activations.emax + 2 - activations.quantum_exponent
            bits = value_bits + (self.table_inputs - 1).bit_length()
        return bits + (self.tables - 1).bit_length()
