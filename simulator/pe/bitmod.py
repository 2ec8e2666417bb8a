"""BitMoD: a dot-product PE of FP16 activations and bit-serial weights whose data type may change by group.

Yuzong Chen et al., "BitMoD: Bit-serial Mixture-of-Datatype LLM Acceleration", HPCA 2025, section IV.

A weight is a sum of terms ``digit * 2**bsig``, one a cycle, ``bsig`` common to all lanes (`simulator.pe.bitmod_terms`).
In a cycle the PE

1. adds the exponents of each lane's activation and digit, and finds the largest of these sums;
2. shifts each activation's 11-bit significand right by its distance from that, with ``guard_bits`` more bits kept and
   the rest rounded to nearest even, and adds the lanes in a tree;
3. multiplies the sum by 2**bsig, adds it to the partial sum of the group and normalises that;
4. after the last cycle of a group multiplies the partial sum by the group's integer scale, a bit of it a cycle, and
   adds the product to the output, while the next group begins.

Where the paper is silent we compute this: lanes whose product is zero take no part in the maximum; a rounded
significand may carry into one more bit; partial sum and output are in the format of ``accumulator``, each addition
exact and rounded once to nearest even; the product with the group's scale is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import FP16, BinaryFloat
from simulator.pe.base import AccumulatingPE
from simulator.pe.bitmod_function import BitModFunction
from simulator.pe.bitmod_terms import FIXED_POINT_BITS, WIDEST_INTEGER, cycles_of, refusal
from simulator.pe.protocol import Pair, Stationary, Timing
from simulator.units import ceil_div

_EXPONENT_BITS = 6
"""Of the sum of FP16's exponent (5 bits) and a digit's (2 bits)."""
_TERM_BITS = 4
"""Sign, exponent (2 bits) and mantissa of a term."""
_SIGNIFICANCE_BITS = 3
_SPECIAL_VALUES = 4
"""Entries of the register file that a group's selector points into."""
_STAGES = 3
"""Pipeline stages from operands to the group's partial sum."""
Uses = dict[tuple[str, str], int]


class BitModPE(AccumulatingPE):
    """Parameters of the BitMoD PE, by default the paper's. Weights: int2 to int8, floats of 3 and 4 bits, BitMoD's
    types; activations: fp16."""

    family: Literal["bitmod"]
    sums_of: ClassVar[Literal["floats"]] = "floats"
    lanes: Annotated[int, Field(ge=1, le=64)] = 4
    """Products of one step."""
    guard_bits: Annotated[int, Field(ge=0, le=16)] = 3
    """Bits that an aligned significand keeps below its last."""
    accumulator: str = "fp32"
    """Of partial sum and output: fp32, fp16, bf16 or e<X>m<Y>."""
    scale_bits: Annotated[int, Field(ge=1, le=16)] = 8
    """Width of a group's scale, and cycles of the multiplication by it."""
    dequant_shared_by: Annotated[int, Field(ge=1, le=64)] = 1
    """PEs that share a unit for this multiplication, and are served one after the other."""
    tile: Annotated[int, Field(ge=1, le=256)] = 8
    """PEs along an edge of a tile: those of a column share the adder of scaled sums, one sum a cycle; those of a row
    share an encoder of weights."""

    @property
    def _sum_format(self) -> BinaryFloat:
        found = self.sums.float_format
        assert found is not None
        return found

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations) or refusal(weights.element)
        if reason:
            return reason
        if activations.element.name != "fp16":
            return f"its lanes align significands of fp16, not of {activations.element.name}"
        if weights.has_zero_point:
            return f"it has no datapath for the zero points of {weights.name}"
        scale = weights.scale_element
        if weights.group_size and not (scale and scale.is_integer and scale.bits <= self.scale_bits):
            return (
                f"it multiplies the sums of groups by integer scales of at most {self.scale_bits} bits, and the scales "
                f"of {weights.name} are {scale.name if scale else 'none'}"
            )
        return None

    def fits(self, dataflow: str) -> str | None:
        return (
            None if dataflow in ("os", "broadcast") else "it keeps outputs, as dataflows os and broadcast do"
        )

    def scales_inside(self, weights: Format, activations: Format) -> bool:
        return weights.group_size > 0

    def timing(self, weights: Format, activations: Format) -> Timing:
        """A cycle for each term of a weight, zeros too; a group's scaling beside the next group."""
        scaling = max(self.scale_bits * self.dequant_shared_by, self.tile) if weights.group_size else 0
        return Timing(
            self.lanes, _STAGES + scaling, cycles_of(weights.element), serial=True, group_cycles=scaling
        )

    @property
    def aligned_bits(self) -> int:
        """Width of an aligned significand."""
        return FP16.precision + self.guard_bits

    @property
    def sum_bits(self) -> int:
        """Width of the tree's sum: the carry of rounding, the lanes, a sign."""
        return self.aligned_bits + 1 + (self.lanes - 1).bit_length() + 1

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """PEs; encoders of weights, one for each row of each tile; multipliers by group scales; adders of scaled sums.

        The AND gates of a mantissa bit are a multiplier of 11 x 1 bits, leading-one detectors and Booth recoders
        comparators of the bits that they look at; gates that apply signs or choose between the two are not counted.
        """
        elements = {pair[0].element.name: pair[0].element for pair in pairs}.values()
        count = weight_lines * activation_lines
        return (
            self._pe(count, elements),
            self._encoder(weight_lines, ceil_div(activation_lines, self.tile), elements),
            self._dequantizer(ceil_div(count, self.dequant_shared_by)),
            self._group_adder(ceil_div(count, self.tile), doubled),
        )

    def _pe(self, count: int, elements: Iterable[Element]) -> Component:
        """Its events are steps, told apart by their cycles."""
        lanes, exponent = self.lanes, {"bits": _EXPONENT_BITS}
        datapath = [
            Part("exponent_adder", "int_adder", exponent, lanes),
            Part("distance", "int_adder", exponent, lanes),
            Part("product", "int_multiplier", {"a_bits": FP16.precision, "b_bits": 1}, lanes),
            Part("aligner", "shifter", {"bits": self.aligned_bits}, lanes),
            Part("rounding", "int_adder", {"bits": self.aligned_bits}, lanes),
            Part("significance", "int_adder", {"bits": self.sums.exponent_bits}),
            self.partial_adder(),
        ]
        if lanes > 1:
            datapath.append(Part("maximum", "comparator", exponent, lanes - 1))
            datapath.append(Part("tree", "int_adder", {"bits": self.sum_bits}, lanes - 1))
        each_cycle = [
            Part("terms", "register", {"bits": lanes * _TERM_BITS + _SIGNIFICANCE_BITS}),
            Part(
                "stage_1",
                "register",
                {"bits": lanes * (_EXPONENT_BITS + 1 + FP16.precision) + _EXPONENT_BITS},
            ),
            Part("stage_2", "register", {"bits": self.sum_bits + _EXPONENT_BITS + _SIGNIFICANCE_BITS}),
            Part("group_sum", "register", {"bits": self.accumulator_bits}),
        ]
        operands = Part("activations", "register", {"bits": FP16.bits}, lanes)
        events: dict[str, Uses] = {
            "idle": {(part.name, "clock"): part.count for part in (*each_cycle, operands)}
        }
        for cycles in sorted({cycles_of(element) for element in elements}):
            step = {(part.name, "operate"): cycles * part.count for part in datapath}
            step |= {(part.name, "write"): cycles * part.count for part in each_cycle}
            events[_step(cycles)] = step | {(operands.name, "write"): lanes}
        params: dict[str, int | str] = {
            "lanes": lanes,
            "guard_bits": self.guard_bits,
            "accumulator": self.accumulator,
        }
        return Component("pe", self.family, params, count, (*datapath, *each_cycle, operands), events)

    def _encoder(self, rows: int, copies: int, elements: Iterable[Element]) -> Component:
        """A row of PEs that spans several tiles has a copy in each, and all of them encode what enters the row."""
        parts = [
            Part("weights", "register", {"bits": WIDEST_INTEGER}, self.lanes),
            Part("special_values", "register", {"bits": FIXED_POINT_BITS + 1}, _SPECIAL_VALUES),
            Part("leading_one", "comparator", {"bits": FIXED_POINT_BITS - 1}, 2 * self.lanes),
            Part("booth", "comparator", {"bits": 3}, self.lanes),
            Part("terms", "register", {"bits": _TERM_BITS}, self.lanes),
        ]
        events: dict[str, Uses] = {}
        for element in elements:
            found = {("booth", "operate"): copies * cycles_of(element)}
            if not element.is_integer:
                found = {("leading_one", "operate"): 2 * copies}
            at_width = Part(f"weights {element.name}", "register", {"bits": element.bits}, 0)
            parts.append(at_width)
            written = {(at_width.name, "write"): copies, ("terms", "write"): copies * cycles_of(element)}
            events[_encode(element)] = found | written
        params = {"lanes": self.lanes, "tile": self.tile, "copies": copies}
        return Component("weight_encoder", "bitmod_encoder", params, rows * copies, tuple(parts), events)

    def _dequantizer(self, count: int) -> Component:
        bits = self._sum_format.precision + self.scale_bits
        parts = (
            Part("adder", "int_adder", {"bits": bits}),
            Part("product", "register", {"bits": bits}),
            Part("scale", "register", {"bits": self.scale_bits}),
        )
        a_bit = {("adder", "operate"): self.scale_bits, ("product", "write"): self.scale_bits}
        events = {"scale": a_bit | {("scale", "write"): 1}}
        return Component(
            "dequantizer",
            "bitmod_dequantizer",
            {"bits": self.scale_bits},
            count,
            parts,
            events,
            dequantizes=True,
        )

    def _group_adder(self, count: int, doubled: bool) -> Component:
        copies = self.tile * (2 if doubled else 1)
        parts = (self.partial_adder(), Part("outputs", "register", {"bits": self.accumulator_bits}, copies))
        events = {"add": {("accumulate", "operate"): 1, ("outputs", "write"): 1}}
        return Component("group_adder", "bitmod_group_adder", {"outputs": copies}, count, parts, events)

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int]]:
        return {
            "step": {("pe", _step(cycles_of(weights.element))): 1},
            "idle": {("pe", "idle"): 1},
            "weight": {("weight_encoder", _encode(weights.element)): 1},
            "group": {("dequantizer", "scale"): 1, ("group_adder", "add"): 1},
        }

    def function(self, weights: Format, activations: Format) -> BitModFunction:
        """The arithmetic on element integers of weights and FP16 activations."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the BitMoD PE cannot multiply these: {reason}")
        return BitModFunction(
            weights.element,
            weights.element.quantum_exponent + activations.element.quantum_exponent,
            self.guard_bits,
            self._sum_format,
            words=2 if self.scales_inside(weights, activations) else 1,
        )


def _step(cycles: int) -> str:
    return f"step of {cycles} cycles" if cycles > 1 else "step of 1 cycle"


def _encode(element: Element) -> str:
    return f"encode {element.name}"
