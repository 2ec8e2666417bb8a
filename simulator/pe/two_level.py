"""Two-level integer dequantization: INT4 weights become INT8 in integers, then an INT8 MAC.

The decoder at the array's edge computes, by what the weights' format stores,

======================================= ============================= ==========================================
groups with                             weight that the MAC receives  scales that remain
======================================= ============================= ==========================================
integer scales s under a scale a row    (q - z) * s                   the row's, at the output stage
other scales and zero points z          q - z                         the group's, in the array's rescale unit
other scales                            q                             the group's, in the array's rescale unit
none, one scale a row or tensor         q                             the row's or tensor's; z by sums of the
                                                                      activations
======================================= ============================= ==========================================

Integer scales: Lin et al., "QServe: W4A8KV4 Quantization and System Co-design for Efficient LLM Serving", MLSys 2025,
whose kernel computes q * s + (-z * s mod 256) on packed bytes; quantization to +-119 keeps every result within INT8
(its protective range). Zhang et al., "Dual Grained Quantization", 2023 (DGQ; the paper was not at hand) has the same
structure. Zero points: Zheng et al., "MixLLM", 2024, multiplies q - z in INT8 and scales the sum of a group. Neither:
Liu et al., "COMET", 2024, widens INT4 weights for its blocks of INT8 activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import integer
from simulator.formats.passes import per_value
from simulator.formats.qserve import first_level
from simulator.hardware.structure import Param, Part
from simulator.pe.decoder import DecodingPE, Uses
from simulator.pe.elements import element_format

Case = Literal["multiply", "subtract", "widen"]


class TwoLevelPE(DecodingPE):
    """Parameters: the MAC's, with weights as they are in memory (int2 to int8, uint2 to uint8)."""

    family: Literal["two_level"]  # type: ignore[assignment]
    target: Annotated[str, Field(pattern="^int([2-9]|1[0-6])$")] = "int8"
    """The integer that weights become."""
    scale_bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Width of the widest integer scale."""

    @field_validator("weights")
    @classmethod
    def _integers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name.removeprefix("u").startswith("int"):
                raise ValueError(f"its decoder takes integers, not {name}")
        return names

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def _target_bits(self) -> int:
        return int(self.target.removeprefix("int"))

    @property
    def decoder_params(self) -> dict[str, Param]:
        return {**super().decoder_params, "scale_bits": self.scale_bits}

    def subtracts(self, format: Format) -> bool:
        return format.has_zero_point and _case(format) != "widen"

    def multiplies(self, format: Format) -> bool:
        return _case(format) == "multiply"

    def refusal(self, format: Format) -> str | None:
        """None, or why the decoder does not take weights of this format."""
        needed = _bits_of_difference(format)
        if _case(format) != "multiply" and needed > self._target_bits:
            return f"{format.name} needs {needed} bits without its zero points, {self.target} has fewer"
        if _case(format) == "multiply" and format.row_scale_element is None:
            return f"{format.name} has no scale a row above its groups' integers"
        scale = format.scale_element
        if _case(format) == "multiply" and scale is not None and scale.bits > self.scale_bits:
            return f"its decoder multiplies by scales of at most {self.scale_bits} bits, not {scale.name}"
        return None

    def decoded(self, format: Format) -> Format:
        """The target with the scales that remain."""
        element = integer(self._target_bits)
        case = _case(format)
        if case == "multiply":
            return Format(
                f"{element.name}_channel", element, "channel", scale_element=format.row_scale_element
            )
        zeros = format.has_zero_point and case == "widen"
        name = format.name.replace(format.element.name, element.name, 1)
        if not zeros:
            name = name.removesuffix("_asym")
        return replace(format, name=name, element=element, has_zero_point=zeros, quantizer=None)

    def decode_tensor(self, tensor: QuantizedTensor) -> QuantizedTensor:
        """Exact. Raises InputError: results that the target does not hold, where the hardware would wrap around."""
        format, case = tensor.format, _case(tensor.format)
        scales, zeros = tensor.scales, tensor.zero_points
        if case == "multiply":
            codes, scales, zeros = first_level(tensor), tensor.row_scales, None
        else:
            codes = tensor.codes.astype(np.int64)
            if case == "subtract" and zeros is not None:
                codes -= per_value(zeros, format.group_size, codes.shape[-1])
                zeros = None
        half = 1 << (self._target_bits - 1)
        outside = (codes < -half) | (codes >= half)
        if outside.any():
            raise InputError(
                f"{int(outside.sum())} weights of {format.name} times their group's scale do not fit {self.target}",
                value=int(codes[outside][0]),
                allowed=f"{-half} to {half - 1}: quantize with a protective range, as QServe does",
            )
        target = self.decoded(format)
        return replace(
            tensor,
            codes=codes.astype(target.element.dtype),
            format=target,
            scales=scales,
            zero_points=zeros,
            row_scales=None if case == "multiply" else tensor.row_scales,
        )

    def decoder(self, formats: Sequence[Format]) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """A multiplier and an adder, with registers for a scale, a product of scale and zero point, and the result.

        The products of scales and zero points are made once a group and not counted.
        """
        target = self._target_bits
        widest = max(element_format(name).code_bits for name in self.weights)
        parts = [
            Part("multiplier", "int_multiplier", {"a_bits": self.scale_bits, "b_bits": widest}),
            Part("adder", "int_adder", {"bits": target}),
            Part("scale", "register", {"bits": self.scale_bits}),
            Part("offset", "register", {"bits": target}),
            Part("result", "register", {"bits": target}),
        ]
        events: dict[str, Uses] = {}
        for format in formats:
            used = {("result", "write"): 1}
            if self.subtracts(format):
                used["adder", "operate"] = 1
            if _case(format) == "multiply":
                at_width = f"multiplier {format.element.name}"
                if at_width not in {part.name for part in parts}:
                    params = {"a_bits": self.scale_bits, "b_bits": format.code_bits}
                    parts.append(Part(at_width, "int_multiplier", params, 0))
                used[at_width, "operate"] = 1
            events[self.decode_event(format)] = used
        return tuple(parts), events


def _case(weights: Format) -> Case:
    scale = weights.scale_element
    if weights.group_size and scale is not None and scale.is_integer:
        return "multiply"
    return "subtract" if weights.group_size and weights.has_zero_point else "widen"


def _bits_of_difference(weights: Format) -> int:
    """Bits of two's complement that a code, or a code less its zero point, takes."""
    unsigned = weights.element.kind == "uint"
    return weights.code_bits + int(unsigned or _case(weights) == "subtract")
