"""PEs behind a decoder: weights of one format in memory become another at the array's edge, then a bit-parallel MAC.

What such families share. One says which format a weight becomes (`received`), how (`decode`) and of what circuits a
decoder is made; multiplication, accumulation, their time and hardware are those of a MAC PE on the decoded weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.hardware.structure import Component, Part
from simulator.pe.mac import MacFunction, MacPE
from simulator.pe.protocol import Pair, Side, Stationary, Timing

Uses = Mapping[tuple[str, str], int]


class DecodingPE(MacPE):
    """A MAC PE whose weights a decoder prepares. ``weights``: elements in memory, before the decoder; all other
    parameters are the MAC's."""

    decode_cycles: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles of a decoder for a vector of ``lanes`` weights."""

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Elements that the decoder makes."""

    @abstractmethod
    def refusal(self, weights: Format) -> str | None:
        """None, or why the decoder does not take weights of this format."""

    @abstractmethod
    def decoded(self, weights: Format) -> Format:
        """The format that weights become."""

    @abstractmethod
    def decode_weights(self, weights: QuantizedTensor) -> QuantizedTensor:
        """The decoder, bit for bit."""

    @abstractmethod
    def decoder(self, weights: Sequence[Format]) -> tuple[tuple[Part, ...], dict[str, Uses]]:
        """Circuits that decode one weight, and what decoding a weight of each format (by name) makes them do."""

    @property
    def mac(self) -> MacPE:
        """The PE behind the decoder."""
        own = {name: getattr(self, name) for name in MacPE.model_fields}
        return MacPE(**own | {"family": "mac", "weights": self.targets})

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        if weights.element.name not in self.weights:
            return f"it takes weights of {', '.join(self.weights)}, not {weights.element.name}"
        return self.refusal(weights) or self.mac.accepts(self.decoded(weights), activations)

    def received(self, side: Side, format: Format) -> Format:
        return self.decoded(format) if side == "weights" else format

    def word_bits(self, side: Side) -> int:
        return self.mac.word_bits(side)

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return self.decode_weights(tensor) if side == "weights" else tensor

    def timing(self, weights: Format, activations: Format) -> Timing:
        behind = self.mac.timing(self.decoded(weights), activations)
        return replace(behind, weight_decode=self.decode_cycles)

    def hardware(
        self, *, rows: int, cols: int, stationary: Stationary, doubled: bool, pairs: Sequence[Pair]
    ) -> tuple[Component, ...]:
        """The MAC's, and a decoder for each lane of each row or column at which weights enter."""
        behind = [(self.decoded(weights), activations) for weights, activations in pairs]
        formats = list({weights.name: weights for weights, _ in pairs}.values())
        parts, events = self.decoder(formats)
        edge = rows if stationary == "activations" else cols
        params = {"weights": " ".join(self.weights), "targets": " ".join(self.targets)}
        return (
            *self.mac.hardware(rows=rows, cols=cols, stationary=stationary, doubled=doubled, pairs=behind),
            Component("weight_decoder", f"{self.family}_decoder", params, edge * self.lanes, parts, events),
        )

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int]]:
        behind = self.mac.activity(self.decoded(weights), activations, stationary=stationary)
        return {**behind, "weight": {("weight_decoder", f"decode {weights.name}"): 1}}

    def function(self, weights: Format, activations: Format) -> MacFunction:
        """The MAC's, on element integers of what the decoder makes."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the {self.family} PE cannot multiply these: {reason}")
        return self.mac.function(self.decoded(weights), activations)
