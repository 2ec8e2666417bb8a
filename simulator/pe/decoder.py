"""PEs behind a decoder: an operand becomes another format at the array's edge, then a bit-parallel MAC.

What such families share. One says which format a weight, or an activation, becomes (`decoded`), how (`decode_tensor`)
and of what circuits a decoder is made; multiplication, accumulation, their time and hardware are those of a MAC PE on
what is decoded.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Param, Part
from simulator.pe.elements import element_format
from simulator.pe.mac import MacFunction, MacPE
from simulator.pe.protocol import Pair, Side, Stationary, Timing

Uses = Mapping[tuple[str, str], int]


class DecodingPE(MacPE):
    """A MAC PE one of whose operands a decoder prepares. The list of elements of that operand is what is in memory; all
    other parameters are the MAC's."""

    side: ClassVar[Side] = "weights"
    """The operand that is decoded."""
    decoder_name: ClassVar[str] = "weight_decoder"
    """The component of the decoders."""

    decode_cycles: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles of a decoder for a vector of ``lanes`` values."""
    decode_ranks: Annotated[int, Field(ge=0, le=3)] = 0
    """Ranks of registers through a decoder, for its clock; it takes new values every ``decode_cycles`` whatever they
    are."""

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Elements that the decoder makes."""

    @abstractmethod
    def refusal(self, format: Format) -> str | None:
        """None, or why the decoder does not take this format."""

    @abstractmethod
    def decoded(self, format: Format) -> Format:
        """The format that the operand becomes."""

    @abstractmethod
    def decode_tensor(self, tensor: QuantizedTensor) -> QuantizedTensor:
        """The decoder, bit for bit."""

    @abstractmethod
    def decoder(self, formats: Sequence[Format]) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """Circuits that decode one value, the register that takes it apart, and what the events (`decode_event`) of
        these formats make them do."""

    def decode_event(self, format: Format) -> str:
        """The event of one value: formats that drive the decoder alike share it."""
        zero, scaled = self.subtracts(format), self.multiplies(format)
        return f"decode {format.element.name}" + " zero" * zero + " scaled" * scaled

    def subtracts(self, format: Format) -> bool:
        """The decoder takes off zero points of this format."""
        return False

    def multiplies(self, format: Format) -> bool:
        """The decoder applies the scales of groups of this format."""
        return False

    @property
    def decoder_params(self) -> dict[str, Param]:
        """What decides a decoder's hardware."""
        params: dict[str, Param] = {
            "before": " ".join(getattr(self, self.side)),
            "after": " ".join(self.targets),
        }
        return params | ({"ranks": self.decode_ranks} if self.decode_ranks else {})

    @property
    def mac(self) -> MacPE:
        """The PE behind the decoder."""
        own = {name: getattr(self, name) for name in MacPE.model_fields}
        return MacPE(**own | {"family": "mac", self.side: self.targets})

    def _behind(self, pair: Pair) -> Pair:
        """Formats as the MAC sees them."""
        return self.received("weights", pair[0]), self.received("activations", pair[1])

    def _decoded_of(self, pair: Pair) -> Format:
        """The one of a pair that is decoded."""
        return pair[0] if self.side == "weights" else pair[1]

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        pair = (weights, activations)
        before = self._decoded_of(pair)
        names: tuple[str, ...] = getattr(self, self.side)
        if before.element.name not in names:
            return f"it takes {self.side} of {', '.join(names)}, not {before.element.name}"
        return self.refusal(before) or self.mac.accepts(*self._behind(pair))

    def received(self, side: Side, format: Format) -> Format:
        return self.decoded(format) if side == self.side else format

    def word_bits(self, side: Side) -> int:
        return self.mac.word_bits(side)

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return self.decode_tensor(tensor) if side == self.side else tensor

    def timing(self, weights: Format, activations: Format) -> Timing:
        behind = self.mac.timing(*self._behind((weights, activations)))
        if self.side == "weights":
            return replace(behind, weight_decode=self.decode_cycles)
        return replace(behind, activation_decode=self.decode_cycles)

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """The MAC's, and a decoder for each lane of each row or column at which the operand enters."""
        formats = list({format.name: format for format in map(self._decoded_of, pairs)}.values())
        parts, events = self._registered(*self.decoder(formats))
        behind = [self._behind(pair) for pair in pairs]
        return (
            *self.mac.hardware(
                weight_lines=weight_lines,
                activation_lines=activation_lines,
                stationary=stationary,
                doubled=doubled,
                pairs=behind,
            ),
            Component(
                self.decoder_name,
                f"{self.family}_decoder",
                self.decoder_params,
                (weight_lines if self.side == "weights" else activation_lines) * self.lanes,
                parts,
                events,
                dequantizes=True,
            ),
        )

    def _registered(
        self, parts: tuple[Part, ...], events: dict[str, Uses]
    ) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """With the register of what is to be decoded, and the ranks, of its width, where there are any."""
        bits = max(element_format(name).code_bits for name in getattr(self, self.side))
        registers = [Part("value", "register", {"bits": bits})]
        if self.decode_ranks:
            registers.append(Part("ranks", "register", {"bits": bits}, self.decode_ranks))
        written = {(part.name, "write"): part.count for part in registers}
        return (*parts, *registers), {event: {**uses, **written} for event, uses in events.items()}

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        pair = (weights, activations)
        behind = self.mac.activity(*self._behind(pair), stationary=stationary)
        entering = "weight" if self.side == "weights" else "activation"
        return {**behind, entering: {(self.decoder_name, self.decode_event(self._decoded_of(pair))): 1}}

    def function(self, weights: Format, activations: Format) -> MacFunction:
        """The MAC's, on element integers of what arrives behind the decoder."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the {self.family} PE cannot multiply these: {reason}")
        return self.mac.function(*self._behind((weights, activations)))


class FloatDecodingPE(DecodingPE):
    """A decoder that makes floats of weights."""

    target: str
    """The float that weights become: fp16, bf16, fp8_e4m3, ..."""

    @field_validator("target")
    @classmethod
    def _is_float(cls, name: str) -> str:
        element = element_format(name).element
        if element.kind != "float" or element.bits > 16:
            raise ValueError("not a float of at most 16 bits, such as fp16, bf16 or fp8_e4m3")
        return element.name

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def _element(self) -> Element:
        return element_format(self.target).element
