"""What most PE families share: lists of element formats, and the answers of a PE without decoder or data-dependent
time."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from simulator.formats import Format, QuantizedTensor
from simulator.hardware.structure import Part
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.elements import element_format
from simulator.pe.protocol import DataTiming, Pair, Side


class PE(BaseModel):
    """Base of the families' parameter models, the ``pe:`` section of an accelerator's YAML. A family adds its
    parameters, ``family``, and the members of `simulator.pe.protocol.ProcessingElement` that are not here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    family: Any
    weights: tuple[str, ...] = Field(min_length=1)
    """Element formats on the weight side: int4, fp8_e4m3, ..."""
    activations: tuple[str, ...] = Field(min_length=1)
    """Element formats on the activation side."""

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
                raise ValueError(f"a PE takes elements, without scales: write {element.name} for {name}")
        return names

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken: elements that are not in the lists."""
        for operand, format, taken in (
            ("weights", weights, self.weights),
            ("activations", activations, self.activations),
        ):
            if format.element.name not in taken:
                return f"it takes {operand} of {', '.join(taken)}, not {format.element.name}"
        return None

    def fits(self, dataflow: str) -> str | None:
        return None

    def received(self, side: Side, format: Format) -> Format:
        return format

    def word_bits(self, side: Side) -> int:
        names = self.weights if side == "weights" else self.activations
        return max(self.received(side, element_format(name)).code_bits for name in names)

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return tensor

    def scales_inside(self, weights: Format, activations: Format) -> bool:
        return False

    def data_timing(self, weights: Format, activations: Format) -> DataTiming | None:
        return None

    def fused_passes(self, weights: Format, activations: Format) -> Fraction:
        return Fraction(0)

    def vector_passes(self, weights: Format, activations: Format) -> Fraction:
        return Fraction(0)


class AccumulatingPE(PE):
    """A PE that holds its sum in one accumulator, and hands it on as it is."""

    accumulator: str = "int32"
    """See `simulator.pe.accumulator`."""
    sums_of: ClassVar[Literal["anything", "integers", "floats"]] = "anything"
    """What the family can add up."""

    @field_validator("accumulator")
    @classmethod
    def _known_accumulator(cls, name: str) -> str:
        found = accumulator(name)
        if cls.sums_of == "integers" and not found.integers_only:
            raise ValueError("its sums are integers; allowed: int8 to int64")
        if cls.sums_of == "floats" and found.float_format is None:
            raise ValueError("it normalises sums; allowed: floating-point accumulators such as fp32 or fp16")
        return name

    @property
    def sums(self) -> Accumulator:
        return accumulator(self.accumulator)

    @property
    def accumulator_bits(self) -> int:
        return self.sums.bits

    def partial_bits(self, weights: Format, activations: Format) -> int:
        return self.accumulator_bits

    def partial_adder(self) -> Part:
        """The PE's own accumulating adder once more."""
        return self.sums.adder("accumulate")


def pair_name(pair: Pair) -> str:
    """How events of a pair of formats are told apart: "int4 x int8"."""
    weights, activations = pair
    return f"{weights.element.name} x {activations.element.name}"
