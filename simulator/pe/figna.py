"""FIGNA: floating-point activations aligned once, before an array of integer MACs.

Jaeyong Jang, Yulhwa Kim, Juheun Lee, Jae-Joon Kim, "FIGNA: Integer Unit-Based Accelerator Design for FP-INT GEMM
Preserving Numerical Accuracy", HPCA 2024. The full paper was not at hand; that it keeps 14 bits of an FP16 activation
is from the comparison in Fang et al., "Anda", HPCA 2025.

The pre-aligner at the array's edge takes ``align_group`` values along K, finds their largest exponent E, and hands on
integers that share it: of a value (-1)**s * m * 2**(e - p), with m the significand of p + 1 bits, hidden one included,

    (-1)**s * floor(m * 2**guard_bits / 2**(E - e)),        each worth 2**(E - p - guard_bits).

Integer MACs add up their products with integer weights; at the end of a group the array's rescale unit converts the
sum to floating point, multiplies by 2**E and by the weights' scale, and adds it in FP32. Where weights have groups too,
a sum ends at the edges of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import E8, Element, sign_magnitude
from simulator.hardware.structure import Part
from simulator.pe.alignment import shared_exponent
from simulator.pe.decoder import DecodingPE, Uses
from simulator.pe.elements import element_format
from simulator.pe.protocol import Side

ALIGNED = ("fp16", "bf16")


class FignaPE(DecodingPE):
    """Parameters: the MAC's, with activations as they are in memory (fp16, bf16) and integer weights."""

    side: ClassVar[Side] = "activations"
    decoder_name: ClassVar[str] = "prealigner"

    family: Literal["figna"]  # type: ignore[assignment]
    guard_bits: Annotated[int, Field(ge=0, le=16)] = 3
    """Bits kept below the last of the significand with the largest exponent (FP16: 11 + 3 bits)."""
    align_group: Annotated[int, Field(ge=1, le=65536)] = 64
    """Values along K that share an exponent: the rows of a weight-stationary array."""

    @field_validator("activations")
    @classmethod
    def _one_float(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) != 1 or names[0] not in ALIGNED:
            raise ValueError(f"its pre-aligner is made for one of {', '.join(ALIGNED)}")
        return names

    @field_validator("weights")
    @classmethod
    def _integers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not element_format(name).is_integer:
                raise ValueError(f"its multipliers take integer weights, not {name}")
        return names

    @property
    def _before(self) -> Element:
        return element_format(self.activations[0]).element

    @property
    def _aligned(self) -> Element:
        """Sign and magnitude; its own unit puts the hidden one of the largest exponent at 1."""
        return sign_magnitude(self._before.mantissa_bits + 1 + self.guard_bits)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self._aligned.name,)

    def refusal(self, format: Format) -> str | None:
        return None

    def decoded(self, format: Format) -> Format:
        """Block floating point: integers with a shared exponent."""
        element = self._aligned
        name = f"bfp{element.bits - 1}_b{self.align_group}"
        return Format(name, element, "block", self.align_group, scale_element=E8)

    def decode_tensor(self, tensor: QuantizedTensor) -> QuantizedTensor:
        """Raises InputError: Inf or NaN, which have no aligned significand."""
        target = self.decoded(tensor.format)
        aligned, exponents = shared_exponent(tensor, self.align_group, target.element.bits - 1)
        return replace(
            tensor,
            codes=aligned.astype(target.element.dtype),
            format=target,
            scales=np.ldexp(1.0, exponents.astype(np.int32)).astype(np.float32),
        )

    def decoder(self, formats: Sequence[Format]) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """Of one value: a node of the tree of comparators that finds the largest exponent, the distance from it, a
        shifter, and a register for the integer; its own register holds the value while its group is compared.
        Computing -x for negative values is not needed: the MACs take sign and magnitude."""
        before, after = self._before, self._aligned
        parts = (
            Part("comparator", "comparator", {"bits": before.exponent_bits}),
            Part("distance", "int_adder", {"bits": before.exponent_bits}),
            Part("shifter", "shifter", {"bits": after.bits - 1}),
            Part("result", "register", {"bits": after.bits}),
        )
        align = {("comparator", "operate"): 1, ("distance", "operate"): 1, ("shifter", "operate"): 1}
        events: dict[str, Uses] = {
            self.decode_event(format): align | {("result", "write"): 1} for format in formats
        }
        return parts, events
