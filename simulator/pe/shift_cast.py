"""Casts without a multiplier: narrow floats become wider ones by an exponent addition or by moving bits, then a MAC.

The decoder at the array's edge, by what the weights' format stores:

- power-of-two scales of groups: Wu et al., "ZeroQuant-FP: A Leap Forward in LLMs Post-Training W4A8 Quantization Using
  Floating-Point Formats", 2023 (the paper was not at hand), whose constraints M1 and M2 on scales make FP4 -> FP8 an
  addition to the exponent. A group's exponent is taken relative to the largest of its row, which goes to the row's
  scale; what lies below the target's normal values is rounded to its subnormals, to nearest even: the paper does not
  say what becomes of it.
- any other scales: Wu et al., "ZeroQuant(4+2): Redefining LLMs Quantization with a New FP6-Centric Strategy for Diverse
  Generative Tasks", 2023: sign, exponent and mantissa of FP6 move to the bits of FP16 that they have in common. The
  value is then too small by two to the difference of the biases, which goes into the scale; subnormals are exact.

Weights that are in the target format already, such as keys and values, pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import FP32, Array, Element, encode
from simulator.formats.passes import per_value
from simulator.hardware.structure import Part
from simulator.pe.decoder import FloatDecodingPE, Uses

Magnitudes = TypeVar("Magnitudes", int, Array)


class ShiftCastPE(FloatDecodingPE):
    """Parameters: the MAC's, with weights as they are in memory (floats), and what they become."""

    family: Literal["shift_cast"]  # type: ignore[assignment]

    def multiplies(self, format: Format) -> bool:
        return _adds_exponents(format) and format.element != self._element

    def refusal(self, format: Format) -> str | None:
        """None, or why the decoder does not take weights of this format."""
        own, target = format.element, self._element
        if own == target:
            return None
        if own.kind != "float" or own.has_nan:
            return f"its decoder takes floats that are all finite, not {own.name}"
        if own.exponent_bits > target.exponent_bits or own.mantissa_bits > target.mantissa_bits:
            return f"{own.name} has more exponent or mantissa bits than {target.name}"
        if not _adds_exponents(format) and self._moved(own.max_code, own) > target.max_code:
            return f"codes of {own.name} would become infinities and NaNs of {target.name}"
        if format.tensor_scale_element is not None:
            return f"its decoder has no place for the two scales of {format.name}"
        if not _adds_exponents(format) and format.row_scale_element is not None:
            return f"its decoder does not multiply by the group scales of {format.name}"
        return None

    def _moved(self, magnitudes: Magnitudes, own: Element) -> Magnitudes:
        """Exponent and mantissa in the bits of the target that they have in common."""
        return magnitudes << (self._element.mantissa_bits - own.mantissa_bits)

    def decoded(self, format: Format) -> Format:
        """The target with the scales that remain, in FP32."""
        target = self._element
        if format.element == target:
            return format
        if _adds_exponents(format):
            return Format(f"{target.name}_channel", target, "channel", scale_element=FP32)
        name = format.name.replace(format.element.name, target.name, 1)
        scale = None if format.scale_element is None else FP32
        return replace(format, name=name, element=target, scale_element=scale)

    def decode_tensor(self, tensor: QuantizedTensor) -> QuantizedTensor:
        if tensor.format.element == self._element:
            return tensor
        if _adds_exponents(tensor.format):
            return self._with_exponents_added(tensor)
        own, target = tensor.format.element, self._element
        codes = tensor.codes.astype(np.int64)
        sign, rest = codes >> (own.bits - 1), codes & ((1 << (own.bits - 1)) - 1)
        moved = sign << (target.bits - 1) | self._moved(rest, own)
        assert tensor.scales is not None
        scales = np.ldexp(tensor.scales, own.emin - target.emin).astype(np.float32)
        return replace(
            tensor, codes=moved.astype(target.dtype), format=self.decoded(tensor.format), scales=scales
        )

    def _with_exponents_added(self, weights: QuantizedTensor) -> QuantizedTensor:
        assert weights.scales is not None
        target = self._element
        largest = weights.scales.max(axis=-1, keepdims=True)
        ratios = weights.scales.astype(np.float64) / largest
        values = weights.format.element_values(weights.codes)
        values = values * per_value(ratios, weights.format.group_size, values.shape[-1])
        scales = largest if weights.row_scales is None else largest * weights.row_scales
        return replace(
            weights,
            codes=encode(target, values),
            format=self.decoded(weights.format),
            scales=scales.astype(np.float32),
            row_scales=None,
        )

    def decoder(self, formats: Sequence[Format]) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """An exponent adder and a shifter for subnormals, with the register of the group's exponent; a register for the
        result. Bits that only move cost the register."""
        target = self._element
        parts = (
            Part("adder", "int_adder", {"bits": target.exponent_bits + 1}),
            Part("shifter", "shifter", {"bits": target.mantissa_bits + 1}),
            Part("scale", "register", {"bits": target.exponent_bits + 1}),
            Part("result", "register", {"bits": target.bits}),
        )
        move = {("result", "write"): 1}
        add = move | {("adder", "operate"): 1, ("shifter", "operate"): 1}
        events: dict[str, Uses] = {
            self.decode_event(format): add if self.multiplies(format) else move for format in formats
        }
        return parts, events


def _adds_exponents(weights: Format) -> bool:
    scale = weights.scale_element
    return weights.group_size > 0 and scale is not None and scale.kind == "exponent"
