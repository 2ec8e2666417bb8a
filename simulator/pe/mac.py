"""The bit-parallel multiply-accumulate PE: every other family is compared with it.

One step multiplies ``lanes`` pairs of operands exactly, adds the products exactly in an adder tree and adds the sum to
the accumulator: modulo 2**bits for an integer accumulator, rounded once to nearest even for a floating-point one (a
fused dot product). Pipelined over ``pipeline_depth`` + ``adder_tree_stages`` cycles; a step every
``initiation_interval`` cycles. Operands are element codes; scales are applied outside (`simulator.array.rescale`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import FP16, FP32, BinaryFloat, Integers, round_to_float, wrap
from simulator.pe.base import PE, pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Scales, Stationary, Timing

ACCUMULATORS = {"fp32": FP32, "fp16": FP16}
_SAFE_BITS = 62
"""Sums below this width are computed in int64; wider ones in Python integers."""


class MacPE(PE):
    """Parameters of the MAC PE, as the ``pe:`` section of an accelerator's YAML. Every pair of the two lists of
    elements is taken, at one MAC a lane and step."""

    family: Literal["mac"]
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
    def accumulator_bits(self) -> int:
        float_format = self.float_accumulator
        return float_format.bits if float_format else int(self.accumulator[3:])

    def partial_bits(self, weights: Format, activations: Format) -> int:
        """Width of a partial sum as it leaves the PE."""
        return self.accumulator_bits

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        integers = weights.element.is_integer and activations.element.is_integer
        if reason is None and not integers and self.float_accumulator is None:
            return f"products of {weights.element.name} and {activations.element.name} need an fp32 or fp16 accumulator"
        return reason

    def timing(self, weights: Format, activations: Format) -> Timing:
        return Timing(self.lanes, self.pipeline_depth + self.adder_tree_stages, self.initiation_interval)

    def hardware(
        self, *, rows: int, cols: int, stationary: Stationary, doubled: bool, pairs: Sequence[Pair]
    ) -> tuple[Component, ...]:
        """One component, "pe": multipliers and operand registers per lane, adder tree, accumulator, pipeline registers.

        Widths are those of the widest formats the PE takes. An integer product of n x m bits has n + m. The
        products of several float lanes are aligned to the fixed-point range that holds every one of them exactly, and
        the tree adds integers of that width: wide exponent ranges are paid for here. All adders of the tree are counted
        at its final width. Events of a pair of narrower formats drive the multiplier, the operand registers and the
        stationary word at the width of that pair: what the operands do not fill does not toggle.
        """
        weights = [element_format(name).element for name in self.weights]
        activations = [element_format(name).element for name in self.activations]
        w_bits, a_bits = max(e.bits for e in weights), max(e.bits for e in activations)
        sum_bits = self._sum_bits(weights, activations)
        accumulator_copies = 2 if doubled and stationary == "outputs" else 1
        stages = self.pipeline_depth - 1 + self.adder_tree_stages
        parts = [
            self._multiplier("multiplier", weights, activations, self.lanes),
            self.partial_adder(),
            Part("operands", "register", {"bits": _streamed(w_bits, a_bits, stationary)}, self.lanes),
            Part("accumulator", "register", {"bits": self.accumulator_bits}, accumulator_copies),
        ]
        idle = {("operands", "clock"): self.lanes, ("accumulator", "clock"): accumulator_copies}
        if stationary != "outputs":
            words = self.lanes * (2 if doubled else 1)
            parts.append(Part("stationary", "register", {"bits": _held(w_bits, a_bits, stationary)}, words))
            idle["stationary", "clock"] = words
        if self.lanes > 1:
            parts.append(Part("tree", "int_adder", {"bits": sum_bits}, self.lanes - 1))
            if not _all_integers(weights + activations):
                parts.append(Part("align", "shifter", {"bits": sum_bits}, self.lanes))
        if stages:
            parts.append(Part("pipeline", "register", {"bits": sum_bits}, stages))
            idle["pipeline", "clock"] = stages
        events: dict[str, Mapping[tuple[str, str], int]] = {"idle": idle}
        for pair in {pair_name(pair): pair for pair in pairs}.values():
            more, made = self._events(pair, parts, stationary)
            parts += more
            events |= made
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
        return (Component("pe", self.family, structural, rows * cols, tuple(parts), events),)

    def _events(
        self, pair: Pair, parts: Sequence[Part], stationary: Stationary
    ) -> tuple[list[Part], dict[str, dict[tuple[str, str], int]]]:
        """What the events of a pair of formats make the parts do; parts that work at a width of their own."""
        name = pair_name(pair)
        weight, activation = pair[0].element, pair[1].element
        at_width = [
            self._multiplier(f"multiplier {name}", [weight], [activation], 0),
            Part(
                f"operands {name}",
                "register",
                {"bits": _streamed(weight.bits, activation.bits, stationary)},
                0,
            ),
        ]
        present = {part.name for part in parts}
        step = {
            ("accumulate", "operate"): 1,
            (at_width[1].name, "write"): self.lanes,
            ("accumulator", "write"): 1,
        }
        if "tree" in present:
            step["tree", "operate"] = self.lanes - 1
        if "align" in present:
            step["align", "operate"] = self.lanes
        stages = self.pipeline_depth - 1 + self.adder_tree_stages
        if stages:
            step["pipeline", "write"] = stages
        events = {f"mac {name}": {(at_width[0].name, "operate"): 1}, f"step {name}": step}
        if stationary != "outputs":
            held = Part(
                f"stationary {name}", "register", {"bits": _held(weight.bits, activation.bits, stationary)}, 0
            )
            at_width.append(held)
            events[f"preload {name}"] = {(held.name, "write"): 1}
        return at_width, events

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int]]:
        name = pair_name((weights, activations))
        counted = ["mac", "step"] + ([] if stationary == "outputs" else ["preload"])
        return {"idle": {("pe", "idle"): 1}} | {what: {("pe", f"{what} {name}"): 1} for what in counted}

    def _sum_bits(self, weights: Sequence[Element], activations: Sequence[Element]) -> int:
        """Width of the adder tree's result."""
        elements = [*weights, *activations]
        if _all_integers(elements):
            product = max(e.bits for e in weights) + max(e.bits for e in activations)
        elif self.lanes == 1:
            exponent = max(element.exponent_bits for element in elements)
            product = 1 + (exponent + 1) + 2 * max(map(_significand_bits, elements))
        else:
            product = max(map(_integer_bits, weights)) + max(map(_integer_bits, activations))
        return product + ceil_log2(self.lanes)

    @staticmethod
    def _multiplier(
        name: str, weights: Sequence[Element], activations: Sequence[Element], count: int
    ) -> Part:
        """The multiplier that takes all of these elements."""
        elements = [*weights, *activations]
        if _all_integers(elements):
            params = {"a_bits": max(e.bits for e in activations), "b_bits": max(e.bits for e in weights)}
            return Part(name, "int_multiplier", params, count)
        params = {
            "exponent_bits": max(element.exponent_bits for element in elements),
            "significand_bits": max(map(_significand_bits, elements)),
        }
        return Part(name, "fp_multiplier", params, count)

    def partial_adder(self) -> Part:
        """The adder that joins partial sums in the output buffer: the PE's own accumulating adder once more."""
        float_format = self.float_accumulator
        if float_format is None:
            return Part("accumulate", "int_adder", {"bits": self.accumulator_bits})
        exponent_bits = float_format.bits - float_format.precision
        params = {"exponent_bits": exponent_bits, "significand_bits": float_format.precision}
        return Part("accumulate", "fp_adder", params)

    def function(self, weights: Format, activations: Format) -> MacFunction:
        """The arithmetic on element integers of the two formats."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the MAC PE cannot multiply these: {reason}")
        exponent = weights.element.quantum_exponent + activations.element.quantum_exponent
        bits = 0 if self.float_accumulator else self.accumulator_bits
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
    words: int = 1

    @property
    def exponent(self) -> int:
        """Weight of the partial sums' integers, as a power of two."""
        return self.float_format.low if self.float_format else self.product_exponent

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """Accumulators (..., 1) after one step on operands (..., lanes)."""
        return self._accumulated(state[..., 0], activations, weights)[..., None]

    def result(self, state: Integers) -> Integers:
        return state[..., 0]

    def _accumulated(self, partial: Integers, activations: Integers, weights: Integers) -> Integers:
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


def _all_integers(elements: Sequence[Element]) -> bool:
    return all(element.is_integer for element in elements)


def _streamed(weight_bits: int, activation_bits: int, stationary: Stationary) -> int:
    """Bits of the operand registers of a lane: of what does not stay."""
    return (weight_bits if stationary != "weights" else 0) + (
        activation_bits if stationary != "activations" else 0
    )


def _held(weight_bits: int, activation_bits: int, stationary: Stationary) -> int:
    """Bits of a stationary word."""
    return weight_bits if stationary == "weights" else activation_bits
