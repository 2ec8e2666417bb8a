"""The bit-parallel multiply-accumulate PE: every other family is compared with it.

One step multiplies ``lanes`` pairs of operands exactly, adds the products exactly in an adder tree and adds the sum to
the accumulator: modulo 2**bits for an integer accumulator, rounded once to nearest even for a floating-point one (a
fused dot product). Pipelined over ``pipeline_depth`` + ``adder_tree_stages`` cycles; a step every
``initiation_interval`` cycles. Operands are element codes; scales are applied outside (`simulator.array.rescale`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Part
from simulator.pe.arithmetic import FP16, FP32, BinaryFloat, Integers, round_to_float, wrap
from simulator.pe.elements import element_format
from simulator.pe.protocol import Stationary, Structure, Timing

ACCUMULATORS = {"fp32": FP32, "fp16": FP16}
_SAFE_BITS = 62
"""Sums below this width are computed in int64; wider ones in Python integers."""


class MacPE(BaseModel):
    """Parameters of the MAC PE, as the ``pe:`` section of an accelerator's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    family: Literal["mac"]
    weights: tuple[str, ...] = Field(min_length=1)
    """Element formats it multiplies on the weight side: int4, fp8_e4m3, ..."""
    activations: tuple[str, ...] = Field(min_length=1)
    """Element formats on the activation side; every pair of the two lists is taken, at one MAC a lane and step."""
    accumulator: str = "int32"
    """int<8..64>, fp32 or fp16."""
    lanes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Products of one step (the width d of a dot-product PE)."""
    pipeline_depth: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles from operands to accumulated sum, adder tree apart."""
    adder_tree_stages: Annotated[int, Field(ge=0, le=64)] = 0
    """Pipeline stages of the adder tree over the lanes."""
    initiation_interval: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles between two steps."""

    @field_validator("weights", "activations", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    @field_validator("weights", "activations")
    @classmethod
    def _known_elements(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            element = element_format(name).element
            if element.name != name:
                raise ValueError(f"a PE multiplies elements, without scales: write {element.name} for {name}")
        return names

    @field_validator("accumulator")
    @classmethod
    def _known_accumulator(cls, name: str) -> str:
        if name in ACCUMULATORS or (re.fullmatch("int[1-9][0-9]?", name) and 8 <= int(name[3:]) <= 64):
            return name
        raise ValueError(f"not an accumulator; allowed: int8 to int64, {', '.join(sorted(ACCUMULATORS))}")

    @property
    def float_accumulator(self) -> BinaryFloat | None:
        return ACCUMULATORS.get(self.accumulator)

    @property
    def partial_bits(self) -> int:
        """Width of a partial sum as it leaves the PE."""
        float_format = self.float_accumulator
        return float_format.bits if float_format else int(self.accumulator[3:])

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        for operand, format, taken in (
            ("weights", weights, self.weights),
            ("activations", activations, self.activations),
        ):
            if format.element.name not in taken:
                return f"its multiplier takes {operand} of {', '.join(taken)}, not {format.element.name}"
        integers = weights.element.is_integer and activations.element.is_integer
        if not integers and self.float_accumulator is None:
            return f"products of {weights.element.name} and {activations.element.name} need an fp32 or fp16 accumulator"
        return None

    def timing(self, weights: Format, activations: Format) -> Timing:
        return Timing(self.lanes, self.pipeline_depth + self.adder_tree_stages, self.initiation_interval)

    def structure(self, *, stationary: Stationary, doubled: bool) -> Structure:
        """Parts of one PE: multipliers and operand registers per lane, adder tree, accumulator, pipeline registers.

        Widths are those of the widest formats the PE takes. An integer product of n x m bits has n + m. The
        products of several float lanes are aligned to the fixed-point range that holds every one of them exactly, and
        the tree adds integers of that width: wide exponent ranges are paid for here. All adders of the tree are counted
        at its final width. ``doubled``: the accumulator (outputs stationary) or the stationary word exists twice.
        """
        weights = [element_format(name).element for name in self.weights]
        activations = [element_format(name).element for name in self.activations]
        w_bits, a_bits = max(e.bits for e in weights), max(e.bits for e in activations)
        elements = weights + activations
        integers = all(element.is_integer for element in elements)
        if integers:
            product_bits = w_bits + a_bits
            multiplier = Part(
                "multiplier", "int_multiplier", {"a_bits": a_bits, "b_bits": w_bits}, self.lanes
            )
        else:
            exponent = max(element.exponent_bits for element in elements)
            significand = max(_significand_bits(element) for element in elements)
            product_bits = max(map(_integer_bits, weights)) + max(map(_integer_bits, activations))
            params = {"exponent_bits": exponent, "significand_bits": significand}
            multiplier = Part("multiplier", "fp_multiplier", params, self.lanes)
            if self.lanes == 1:
                product_bits = 1 + (exponent + 1) + 2 * significand
        sum_bits = product_bits + ceil_log2(self.lanes)
        accumulator_copies = 2 if doubled and stationary == "outputs" else 1
        streamed_bits = sum(
            bits for name, bits in (("weights", w_bits), ("activations", a_bits)) if name != stationary
        )
        parts = [
            multiplier,
            self.partial_adder(),
            Part("operands", "register", {"bits": streamed_bits}, self.lanes),
            Part("accumulator", "register", {"bits": self.partial_bits}, accumulator_copies),
        ]
        step = {
            ("accumulate", "operate"): 1,
            ("operands", "write"): self.lanes,
            ("accumulator", "write"): 1,
        }
        idle = {("operands", "clock"): self.lanes, ("accumulator", "clock"): accumulator_copies}
        preload: dict[tuple[str, str], int] = {}
        if stationary != "outputs":
            bits = w_bits if stationary == "weights" else a_bits
            words = self.lanes * (2 if doubled else 1)
            parts.append(Part("stationary", "register", {"bits": bits}, words))
            preload[("stationary", "write")] = 1
            idle[("stationary", "clock")] = words
        if self.lanes > 1:
            parts.append(Part("tree", "int_adder", {"bits": sum_bits}, self.lanes - 1))
            step[("tree", "operate")] = self.lanes - 1
            if not integers:
                parts.append(Part("align", "shifter", {"bits": sum_bits}, self.lanes))
                step[("align", "operate")] = self.lanes
        stages = self.pipeline_depth - 1 + self.adder_tree_stages
        if stages:
            parts.append(Part("pipeline", "register", {"bits": sum_bits}, stages))
            step[("pipeline", "write")] = stages
            idle[("pipeline", "clock")] = stages
        structural: dict[str, int | str] = {
            "weights": " ".join(self.weights),
            "activations": " ".join(self.activations),
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "pipeline_depth": self.pipeline_depth,
            "adder_tree_stages": self.adder_tree_stages,
            "initiation_interval": self.initiation_interval,
            "stationary": stationary,
            "doubled": int(doubled),
        }
        events = {"mac": {("multiplier", "operate"): 1}, "step": step, "idle": idle, "preload": preload}
        return Structure(structural, tuple(parts), events)

    def partial_adder(self) -> Part:
        """The adder that joins partial sums in the output buffer: the PE's own accumulating adder once more."""
        float_format = self.float_accumulator
        if float_format is None:
            return Part("accumulate", "int_adder", {"bits": self.partial_bits})
        exponent_bits = float_format.bits - float_format.precision
        params = {"exponent_bits": exponent_bits, "significand_bits": float_format.precision}
        return Part("accumulate", "fp_adder", params)

    def function(self, weights: Format, activations: Format) -> MacFunction:
        """The arithmetic on element integers of the two formats."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the MAC PE cannot multiply these: {reason}")
        exponent = weights.element.quantum_exponent + activations.element.quantum_exponent
        bits = 0 if self.float_accumulator else self.partial_bits
        product_bits = (
            _integer_bits(weights.element) + _integer_bits(activations.element) + ceil_log2(self.lanes)
        )
        wide = bits == 0 or max(bits, product_bits) > _SAFE_BITS
        return MacFunction(exponent, bits, self.float_accumulator, np.dtype(object if wide else np.int64))


@dataclass(frozen=True)
class MacFunction:
    """Exact sums of products, accumulated modulo 2**bits or rounded to a float."""

    product_exponent: int
    bits: int
    float_format: BinaryFloat | None
    dtype: np.dtype[np.int64] | np.dtype[np.object_]

    @property
    def exponent(self) -> int:
        """Weight of the partial sums' integers, as a power of two."""
        return self.float_format.low if self.float_format else self.product_exponent

    def step(self, partial: Integers, activations: Integers, weights: Integers) -> Integers:
        """Partial sums (...) after one step on operands (..., lanes)."""
        products = (activations.astype(self.dtype) * weights.astype(self.dtype)).sum(axis=-1)
        if self.float_format is None:
            return wrap(partial + products, self.bits)
        common = min(self.product_exponent, self.exponent)
        total = partial * 2 ** (self.exponent - common) + products * 2 ** (self.product_exponent - common)
        return round_to_float(np.asarray(total, object), common, self.float_format)

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two partial sums, as the adder of the output buffer does it."""
        if self.float_format is None:
            return wrap(partial + other, self.bits)
        return round_to_float(np.asarray(partial + other, object), self.exponent, self.float_format)


def ceil_log2(value: int) -> int:
    return (value - 1).bit_length()


def _significand_bits(element: Element) -> int:
    """Bits of a significand, hidden one included; an integer's magnitude."""
    return element.bits - 1 if element.is_integer else element.mantissa_bits + 1


def _integer_bits(element: Element) -> int:
    """Bits of the element's integers (`Element.decode_integers`), sign included."""
    return element.bits if element.is_integer else element.emax + 2 - element.quantum_exponent
