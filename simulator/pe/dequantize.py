"""Dequantize before multiplying: narrow weights become floats at the array's edge, then a bit-parallel MAC.

The baseline of all hardware for mixed data types: what GPU kernels for narrow weights and FP16 activations do (Lin et
al., "AWQ", MLSys 2024; Kim et al., "FineQuant", 2023; the papers were not at hand). Value by value the decoder computes

    target( (element value - zero point) * group scale )

in one rounding to nearest, ties to even; too large saturates. Scales of rows and tensors are left to the output stage,
and with ``group_scales: array`` those of groups to the array's rescale unit, as kernels have it that decode INT4 for
FP8 tensor cores. Kernels that convert to FP16 and multiply there compute the same: integers of 8 bits are exact in it.
For INT8 as target see `simulator.pe.two_level`, for casts that add exponents or move bits `simulator.pe.shift_cast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Array, Element, encode
from simulator.formats.passes import per_value
from simulator.hardware.structure import Param, Part
from simulator.pe.decoder import FloatDecodingPE, Uses
from simulator.pe.elements import element_format, significand_bits


class DequantizePE(FloatDecodingPE):
    """Parameters: the MAC's, with weights as they are in memory: integers, floats and value tables."""

    family: Literal["dequantize"]  # type: ignore[assignment]
    target: str = "fp16"
    decode_ranks: Annotated[int, Field(ge=0, le=3)] = 3
    group_scales: Literal["decoder", "array"] = "decoder"
    """Who multiplies by the scales of groups."""
    scale_significand_bits: Annotated[int, Field(ge=1, le=24)] = 11
    """Width of the widest significand of a group's scale (FP16: 11); integer scales count in full."""

    @property
    def decoder_params(self) -> dict[str, Param]:
        params = {**super().decoder_params, "group_scales": self.group_scales}
        return params | (
            {"scale_bits": self.scale_significand_bits} if self.group_scales == "decoder" else {}
        )

    def subtracts(self, format: Format) -> bool:
        return format.has_zero_point

    def multiplies(self, format: Format) -> bool:
        return format.group_size > 0 and self.group_scales == "decoder"

    def refusal(self, format: Format) -> str | None:
        """None, or why the decoder does not take this format."""
        scale = format.scale_element
        if (
            self.multiplies(format)
            and scale is not None
            and significand_bits(scale) > self.scale_significand_bits
        ):
            return (
                f"its decoder multiplies by significands of at most {self.scale_significand_bits} bits, and the "
                f"scales of {format.name} ({scale.name}) have {significand_bits(scale)}"
            )
        return None

    def decoded(self, format: Format) -> Format:
        """The target, with the scales that remain."""
        target = self._element
        if not self.multiplies(format):
            name = format.name.replace(format.element.name, target.name, 1).removesuffix("_asym")
            return replace(
                format,
                name=name,
                element=target,
                has_zero_point=False,
                selector_bits=0,
                selector_group=0,
                quantizer=None,
            )
        if format.row_scale_element is None:
            return Format(target.name, target)
        row_scale = format.row_scale_element
        return Format(f"{target.name}_channel", target, "channel", scale_element=row_scale)

    def decode_tensor(self, tensor: QuantizedTensor) -> QuantizedTensor:
        format, k = tensor.format, tensor.codes.shape[-1]
        group = format.group_size or max(k, 1)
        values = format.element_values(tensor.codes, tensor.selectors).reshape(-1, k)
        if tensor.zero_points is not None:
            values = values - per_value(_by_row(tensor.zero_points, len(values)), group, k)
        scales, row_scales = tensor.scales, tensor.row_scales
        if self.multiplies(format):
            assert scales is not None
            values = values * per_value(_by_row(scales.astype(np.float64), len(values)), group, k)
            scales, row_scales = row_scales, None
        return replace(
            tensor,
            codes=encode(self._element, values).reshape(tensor.codes.shape),
            format=self.decoded(format),
            scales=scales,
            row_scales=row_scales,
            zero_points=None,
            selectors=None,
        )

    def decoder(self, formats: Sequence[Format]) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """For integers a subtractor of the zero point and a conversion to float (leading one, shifter); for value
        tables a multiplexer; where scales are multiplied a multiplier of significands, an exponent adder, a rounder."""
        target = self._element
        elements = [element_format(name).element for name in self.weights]
        precision = target.mantissa_bits + 1
        integer_bits = max((element.bits + 1 for element in elements if element.is_integer), default=0)
        tables = [element for element in elements if element.kind == "table"]
        parts = [Part("result", "register", {"bits": target.bits})]
        if integer_bits:
            parts += [
                Part("zero_point", "register", {"bits": integer_bits - 1}),
                Part("subtractor", "int_adder", {"bits": integer_bits}),
                Part("leading_one", "comparator", {"bits": integer_bits}),
                Part("shifter", "shifter", {"bits": integer_bits}),
            ]
        if tables:
            inputs = 2 ** max(element.bits for element in tables) * max(
                len(element.tables) for element in tables
            )
            parts.append(
                Part(
                    "table", "multiplexer", {"inputs": inputs, "bits": max(map(significand_bits, tables)) + 1}
                )
            )
        if self.group_scales == "decoder":
            parts += [
                Part("scale", "register", {"bits": self.scale_significand_bits + target.exponent_bits}),
                self._multiplier_by_scale("multiplier", elements, 1),
                Part("exponent_adder", "int_adder", {"bits": target.exponent_bits + 1}),
                Part("rounder", "int_adder", {"bits": precision}),
            ]
        events: dict[str, Uses] = {}
        known = {part.name for part in parts}
        for format in formats:
            used = {("result", "write"): 1}
            if format.has_zero_point:
                used["subtractor", "operate"] = 1
            if format.is_integer:
                used |= {("leading_one", "operate"): 1, ("shifter", "operate"): 1}
            if format.element.kind == "table":
                used["table", "operate"] = 1
            if self.multiplies(format):
                own = f"multiplier {format.element.name}"
                if own not in known:
                    known.add(own)
                    parts.append(self._multiplier_by_scale(own, [format.element], 0))
                used |= {(own, "operate"): 1, ("exponent_adder", "operate"): 1, ("rounder", "operate"): 1}
            events[self.decode_event(format)] = used
        return tuple(parts), events

    def _multiplier_by_scale(self, name: str, elements: Sequence[Element], count: int) -> Part:
        """Significands of elements (integers with the bit that a zero point adds) times those of scales; what is the
        target already has no group scales."""
        scaled = [element for element in elements if element != self._element]
        widest = max((significand_bits(element) + element.is_integer for element in scaled), default=1)
        return Part(name, "int_multiplier", {"a_bits": self.scale_significand_bits, "b_bits": widest}, count)


def _by_row(of_groups: Array, rows: int) -> Array:
    """What is stored per tensor, row or group as (rows, groups)."""
    return np.broadcast_to(of_groups, (rows, 1)) if of_groups.ndim == 0 else of_groups.reshape(rows, -1)
