"""The bit-plane PE: products of p-bit and q-bit integers as p q dot products of bits.

Umuroglu et al., "BISMO: A Scalable Bit-Serial Matrix Multiplication Overlay for Reconfigurable Computing", FPL 2018: an
array of units that each take `lanes` bits of both operands a cycle (Dk), AND them, count the ones, and add the count,
shifted by the sum of the planes' positions, to an accumulator. In two's complement the top plane counts negative, and
the product of two top planes positive. `encoding: bipolar` (Ma et al., "APT-LLM", arXiv 2508.19087) makes all planes
alike: bits stand for -1 and +1, so that a value is an odd integer (`simulator.pe.tables`), XOR takes the place of AND,
and a dot product is K - 2 ones. Zero points of either operand are corrected outside, with sums of the other.

GPU kernels of 1-bit matrix instructions are such arrays: an instruction takes 8 rows x 8 columns x 128 bits, planes of
one value are rows or columns beside each other, and where they do not fill 8 they are padded
(`activation_plane_multiple`, `weight_plane_multiple`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import Integers, wrap
from simulator.pe.base import AccumulatingPE
from simulator.pe.protocol import Pair, Scales, Side, Stationary, Timing
from simulator.pe.tables import LARGEST_WEIGHT, as_odd_integers, odd_format, odd_planes
from simulator.units import ceil_div

Encoding = Literal["twos_complement", "bipolar"]
_INT64_BITS = 62
"""Accumulators up to this width are computed in int64."""


class BitPlanePE(AccumulatingPE):
    """Parameters of the bit-plane PE. Weights and activations: integers of up to 16 bits; in bipolar encoding of up to
    8 bits, and binary."""

    family: Literal["bit_plane"]
    sums_of: ClassVar[Literal["integers"]] = "integers"
    lanes: Annotated[int, Field(ge=2, le=1 << 16)] = 64
    """Bits of a 1-bit dot product (Dk); K of a step."""
    plane_pairs: Annotated[int, Field(ge=1, le=256)] = 1
    """1-bit dot products of a PE in a cycle."""
    encoding: Encoding = "twos_complement"
    activation_plane_multiple: Annotated[int, Field(ge=1, le=64)] = 1
    """Planes of an activation are padded to a multiple of this."""
    weight_plane_multiple: Annotated[int, Field(ge=1, le=64)] = 1
    """Planes of a weight are padded to a multiple of this."""
    pipeline_depth: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles from planes to the accumulated count."""

    def fits(self, dataflow: str) -> str | None:
        """None for arrays whose outputs are stationary: planes of one value meet in one accumulator."""
        if dataflow in ("broadcast", "os"):
            return None
        return "its planes are added up in place, in an array of dataflow broadcast or os"

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        for format in (weights, activations):
            if reason is None and not self._has_planes(format.element):
                widest = LARGEST_WEIGHT if self.encoding == "bipolar" else 16
                reason = (
                    f"its planes are those of integers of up to {widest} bits, not of {format.element.name}"
                )
        return reason

    def _has_planes(self, element: Element) -> bool:
        """In bipolar encoding a table of all odd integers has planes too: binary."""
        if self.encoding == "bipolar":
            return element.kind != "sign_magnitude" and odd_planes(element) == element.bits
        return element.kind in ("int", "uint") and element.bits <= 16

    def received(self, side: Side, format: Format) -> Format:
        """Bipolar: odd integers, which are the same bits."""
        return odd_format(format) if self.encoding == "bipolar" else format

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        return as_odd_integers(tensor) if self.encoding == "bipolar" else tensor

    def planes(self, weights: Element, activations: Element) -> int:
        """1-bit dot products of a step: p q, each padded."""
        p = ceil_div(activations.bits, self.activation_plane_multiple) * self.activation_plane_multiple
        q = ceil_div(weights.bits, self.weight_plane_multiple) * self.weight_plane_multiple
        return p * q

    def timing(self, weights: Format, activations: Format) -> Timing:
        cycles = ceil_div(self.planes(weights.element, activations.element), self.plane_pairs)
        return Timing(self.lanes, self.pipeline_depth, cycles, serial=True)

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """PEs of gates, a tree that counts ones, a shifter and an accumulator.

        A gate (AND, XOR) is counted as a multiplexer of two inputs, than which it is no larger. The tree has adders of
        its level's width; an odd number at a level goes on to the next.
        """
        count_bits = self.lanes.bit_length()
        each = [
            Part("gates", "multiplexer", {"inputs": 2, "bits": self.lanes}, self.plane_pairs),
            *_counter(self.lanes, self.plane_pairs),
            Part("shift", "shifter", {"bits": self.accumulator_bits}, self.plane_pairs),
            self.sums.adder("accumulate", self.plane_pairs),
            Part("planes", "register", {"bits": 2 * self.lanes}, self.plane_pairs),
        ]
        if self.encoding == "bipolar":
            each.append(Part("difference", "int_adder", {"bits": count_bits + 1}, self.plane_pairs))
        else:
            each.append(
                Part("negate", "multiplexer", {"inputs": 2, "bits": self.accumulator_bits}, self.plane_pairs)
            )
        if self.pipeline_depth > 1:
            stages = (self.pipeline_depth - 1) * self.plane_pairs
            each.append(Part("pipeline", "register", {"bits": count_bits}, stages))
        copies = 2 if doubled and stationary == "outputs" else 1
        sums = Part("accumulator", "register", {"bits": self.accumulator_bits}, copies)
        clocked = [part for part in (*each, sums) if part.kind == "register"]
        events: dict[str, Mapping[tuple[str, str], int]] = {
            "idle": {(part.name, "clock"): part.count for part in clocked},
            "cycle": {
                (part.name, "write" if part.kind == "register" else "operate"): part.count for part in each
            }
            | {("accumulator", "write"): 1},
        }
        structural: dict[str, int | str] = {
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "plane_pairs": self.plane_pairs,
            "encoding": self.encoding,
            "pipeline_depth": self.pipeline_depth,
            "doubled": int(doubled),
        }
        return (
            Component("pe", self.family, structural, weight_lines * activation_lines, (*each, sums), events),
        )

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int]]:
        """Every cycle is alike, whatever the formats: padded planes work too."""
        return {"busy": {("pe", "cycle"): 1}, "idle": {("pe", "idle"): 1}}

    def function(self, weights: Format, activations: Format) -> BitPlaneFunction:
        """The arithmetic on integers: odd ones in bipolar encoding."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the bit-plane PE cannot multiply these: {reason}")
        exponent = weights.element.quantum_exponent + activations.element.quantum_exponent
        return BitPlaneFunction(exponent, self.accumulator_bits)


def _counter(bits: int, copies: int) -> list[Part]:
    """The adders that count the ones among so many bits: level l adds numbers of l bits in pairs."""
    parts, numbers, level = [], bits, 1
    while numbers > 1:
        parts.append(Part(f"count_{level}", "int_adder", {"bits": level}, numbers // 2 * copies))
        numbers -= numbers // 2
        level += 1
    return parts


@dataclass(frozen=True)
class BitPlaneFunction:
    """Sums of products modulo 2**bits, equal to the counts of `by_planes`, shifted, added up and wrapped."""

    exponent: int
    bits: int
    words: int = 1

    @property
    def dtype(self) -> np.dtype[np.int64] | np.dtype[np.object_]:
        return np.dtype(np.int64 if self.bits <= _INT64_BITS else object)

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """Accumulators (..., 1) after one step on operands (..., lanes)."""
        products = activations.astype(self.dtype) * weights.astype(self.dtype)
        return wrap(state + products.sum(axis=-1, keepdims=True), self.bits)

    def result(self, state: Integers) -> Integers:
        return state[..., 0]

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two partial sums, as the adder of the output buffer does it."""
        return wrap(partial + other, self.bits)


Codes = npt.NDArray[np.int64]


def by_planes(
    activations: Codes, weights: Codes, elements: tuple[Element, Element], encoding: Encoding
) -> Codes:
    """Dot products (...) of codes (..., K) by counting ones, plane by plane: what the hardware does.

    ``elements``: of activations and weights. In bipolar encoding the codes' bits are the digits of odd integers, once
    the sign bit of two's complement has been inverted.
    """
    planes, signs = [], []
    for codes, element in zip((activations, weights), elements, strict=True):
        signed = element.kind == "int"
        stored = codes ^ (1 << element.bits - 1) if signed and encoding == "bipolar" else codes
        planes.append([stored >> i & 1 for i in range(element.bits)])
        top = -1 if signed and encoding == "twos_complement" else 1
        signs.append([1] * (element.bits - 1) + [top])
    total = np.zeros(np.broadcast_shapes(activations.shape, weights.shape)[:-1], np.int64)
    for (i, a), (j, w) in product(enumerate(planes[0]), enumerate(planes[1])):
        bipolar = encoding == "bipolar"
        count = a.shape[-1] - 2 * (a ^ w).sum(axis=-1) if bipolar else (a & w).sum(axis=-1)
        total += signs[0][i] * signs[1][j] * (count << i + j)
    return total
