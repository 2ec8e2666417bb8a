"""MixPE: INT4 weights on INT8, INT16 or FP16 activations by shift and add, dequantized after a group's product.

Yu Zhang et al., "MixPE: Quantization and Hardware Co-design for Efficient LLM Inference", arXiv 2411.16158, 2024. The
paper's text was not at hand for the datapath; its released simulator was for the configurations.

A product is the sum of the activation shifted by i for each set bit i of the weight, the top bit of a signed weight
counting negative; an FP16 activation is shifted by adding i to its exponent. The shifted significands of one product
share the activation's exponent but for i, so their sum is exact: sign, 11 + b bits, and that exponent. It is added to
the accumulator, modulo 2**bits or with one rounding to nearest even. Scales of groups are applied to the group's sum
in the array's rescale unit, zero points by the sum of the group's activations:

    y = sum over groups of s * (sum of a * q - z * sum of a)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import field_validator

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.base import PE, pair_name
from simulator.pe.elements import element_format
from simulator.pe.mac import MacFunction, MacPE
from simulator.pe.protocol import Pair, Stationary, Timing

_WIDEST_WEIGHT = 8


class MixPE(PE):
    """Parameters of MixPE. Weights: integers of at most 8 bits; activations: integers, or fp16 and other floats."""

    family: Literal["mixpe"]
    accumulator: str = "int32"
    """int<8..64>; fp32 for float activations."""

    @field_validator("weights")
    @classmethod
    def _narrow_integers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            element = element_format(name).element
            if element.kind not in ("int", "uint") or element.bits > _WIDEST_WEIGHT:
                raise ValueError(
                    f"it shifts and adds by the bits of integers of at most 8 bits, not of {name}"
                )
        return names

    @field_validator("activations")
    @classmethod
    def _shiftable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if element_format(name).element.kind not in ("int", "uint", "float"):
                raise ValueError(f"it shifts integers and floats, not {name}")
        return names

    @property
    def _mac(self) -> MacPE:
        """What computes the same with a multiplier."""
        return MacPE(
            family="mac", weights=self.weights, activations=self.activations, accumulator=self.accumulator
        )

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        return self._mac.accepts(weights, activations)

    def fits(self, dataflow: str) -> str | None:
        return (
            None if dataflow in ("os", "broadcast") else "it keeps outputs, as dataflows os and broadcast do"
        )

    def timing(self, weights: Format, activations: Format) -> Timing:
        """All bits of a weight at once: a product a cycle."""
        return Timing(lanes=1, latency=1)

    def partial_bits(self, weights: Format, activations: Format) -> int:
        return self.accumulator_bits

    @property
    def accumulator_bits(self) -> int:
        return self._mac.accumulator_bits

    def partial_adder(self) -> Part:
        return self._mac.partial_adder()

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """Shift and add, operand registers, the accumulating adder and its register.

        The shifted activations and the adders that sum them are the cells of an array multiplier, and are priced as
        one: of the activation's bits, or of its significand's, by the weight's bits. That makes MixPE's integer product
        as large as a MAC's; its floating-point product has no second significand and no normaliser.
        """
        weights = [element_format(name).element for name in self.weights]
        activations = [element_format(name).element for name in self.activations]
        w_bits, a_bits = max(e.bits for e in weights), max(e.bits for e in activations)
        parts = [
            _product("product", max(map(_factor_bits, activations)), w_bits, 1),
            self.partial_adder(),
            Part("operands", "register", {"bits": w_bits + a_bits}),
            Part("accumulator", "register", {"bits": self.accumulator_bits}, 2 if doubled else 1),
        ]
        idle = {(part.name, "clock"): part.count for part in parts if part.kind == "register"}
        events: dict[str, Mapping[tuple[str, str], int]] = {"idle": idle}
        for pair in pairs:
            name, (weight, activation) = pair_name(pair), (pair[0].element, pair[1].element)
            if f"mac {name}" in events:
                continue
            product = _product(f"product {name}", _factor_bits(activation), weight.bits, 0)
            operands = Part(f"operands {name}", "register", {"bits": weight.bits + activation.bits}, 0)
            parts += [product, operands]
            events[f"mac {name}"] = {(product.name, "operate"): 1}
            events[f"step {name}"] = {
                ("accumulate", "operate"): 1,
                (operands.name, "write"): 1,
                ("accumulator", "write"): 1,
            }
        params: dict[str, int | str] = {
            "weights": " ".join(self.weights),
            "activations": " ".join(self.activations),
            "accumulator": self.accumulator,
            "doubled": int(doubled),
        }
        return (Component("pe", self.family, params, weight_lines * activation_lines, tuple(parts), events),)

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int]]:
        name = pair_name((weights, activations))
        counted = {what: {("pe", f"{what} {name}"): 1} for what in ("mac", "step")}
        return {"idle": {("pe", "idle"): 1}, **counted}

    def function(self, weights: Format, activations: Format) -> MacFunction:
        """That of the MAC with the same accumulator: the sum of the shifted activations is the exact product."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"MixPE cannot multiply these: {reason}")
        return self._mac.function(weights, activations)


def _product(name: str, activation_bits: int, weight_bits: int, count: int) -> Part:
    return Part(name, "int_multiplier", {"a_bits": activation_bits, "b_bits": weight_bits}, count)


def _factor_bits(activation: Element) -> int:
    """Bits that are shifted: of an integer all, of a float its significand with the hidden one."""
    return activation.mantissa_bits + 1 if activation.kind == "float" else activation.bits
