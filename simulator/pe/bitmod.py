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

The PEs of a tile's column end a group together and share the adder of step 4: a product waits in its unit until the
adder takes it, and until then the unit takes no other sum. So a group's scaling is over `_scaling` cycles after its
sum was complete; the last product is then in the register before the adder, and in the output ``adder_stages`` later.

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
from simulator.pe.bitmod_terms import FIXED_POINT_BITS, SPECIAL_VALUES, WIDEST_INTEGER, cycles_of, refusal
from simulator.pe.protocol import Pair, Stationary, Timing
from simulator.units import ceil_div

_EXPONENT_BITS = 6
"""Of the sum of FP16's exponent (5 bits) and a digit's (2 bits)."""
_TERM_BITS = 4
"""Sign, exponent (2 bits) and mantissa of a term."""
_SIGNIFICANCE_BITS = 3
_SELECTOR_BITS, _MODE_BITS = 2, 3
"""That the encoder keeps with the weights: the group's special value; integers or floats, and the cycle of the step."""
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

    stages: Annotated[int, Field(ge=3, le=4)] = 3
    """Pipeline stages from operands to the partial sum; with four the sum of the lanes is normalised in one of its own,
    which the paper's has not."""
    adder_stages: Annotated[int, Field(ge=1, le=6)] = 5
    """Pipeline stages of that adder."""

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
        inside = weights.group_size > 0
        return Timing(
            self.lanes,
            self.stages + (self._scaling + 1 + self.adder_stages if inside else 0),
            cycles_of(weights.element),
            serial=True,
            group_cycles=self._scaling if inside else 0,
        )

    @property
    def _scaling(self) -> int:
        """Cycles from the sums of a group to those of the next that units for scales can take: one bit a cycle, PE by
        PE, and one product a cycle to the adder of a column, which must be done with an output before it is added to
        again."""
        in_units = self.scale_bits * self.dequant_shared_by + ceil_div(self.tile, self.dequant_shared_by)
        return max(in_units - 1, self.scale_bits + self.tile - 1, self.adder_stages)

    @property
    def aligned_bits(self) -> int:
        """Width of an aligned significand."""
        return FP16.precision + self.guard_bits

    @property
    def distance_bits(self) -> int:
        """Of the distance to the largest exponent, no farther than leaves nothing."""
        return min((self.aligned_bits + 1).bit_length(), _EXPONENT_BITS)

    @property
    def scaled_bits(self) -> int:
        """Of a sum's significand times a scale, exactly."""
        return self._sum_format.precision + self.scale_bits

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
        comparators of the bits that they look at; gates that apply signs or choose between the two are not counted, nor
        are the bits that round aligned significands: they enter the tree beside them.
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
        """Its events are steps, told apart by the weights' element."""
        lanes, exponent = self.lanes, {"bits": _EXPONENT_BITS}
        datapath = [
            Part("exponent_adder", "int_adder", exponent, lanes),
            Part("distance", "int_adder", exponent, lanes),
            Part("product", "int_multiplier", {"a_bits": FP16.precision, "b_bits": 1}, lanes),
            Part("aligner", "shifter", {"bits": self.aligned_bits}, lanes),
            Part("magnitude", "int_adder", {"bits": self.sum_bits}),
            Part("significance", "int_adder", {"bits": self.sums.exponent_bits}),
            self.partial_adder(),
        ]
        if lanes > 1:
            datapath.append(Part("maximum", "comparator", exponent, lanes - 1))
            datapath.append(Part("tree", "int_adder", {"bits": self.sum_bits}, lanes - 1))
        along = _SIGNIFICANCE_BITS + 1  # the flag of a new group
        each_cycle = [
            Part("terms", "register", {"bits": lanes * _TERM_BITS + along}),
            Part(
                "stage_1",
                "register",
                {"bits": lanes * (self.distance_bits + 1 + FP16.precision) + _EXPONENT_BITS + along},
            ),
            Part("stage_2", "register", {"bits": self.sum_bits + _EXPONENT_BITS + along}),
            Part("group_sum", "register", {"bits": self.accumulator_bits}),
        ]
        if self.stages > 3:
            normalised = self.sum_bits + self.sums.exponent_bits + 1
            each_cycle.append(Part("normalised", "register", {"bits": normalised}))
        operands = Part("activations", "register", {"bits": FP16.bits}, lanes)
        events: dict[str, Uses] = {
            "idle": {(part.name, "clock"): part.count for part in (*each_cycle, operands)}
        }
        for element in elements:
            cycles = cycles_of(element)
            step = {(part.name, "operate"): cycles * part.count for part in datapath}
            step |= {(part.name, "write"): cycles * part.count for part in each_cycle}
            events[_step(element)] = step | {(operands.name, "write"): lanes}
        params: dict[str, int | str] = {
            "lanes": lanes,
            "guard_bits": self.guard_bits,
            "stages": self.stages,
            "accumulator": self.accumulator,
        }
        return Component("pe", self.family, params, count, (*datapath, *each_cycle, operands), events)

    def _encoder(self, rows: int, copies: int, elements: Iterable[Element]) -> Component:
        """A row of PEs that spans several tiles has a copy in each, and all of them encode what enters the row."""
        control = {"bits": _SELECTOR_BITS + _MODE_BITS}
        parts = [
            Part("weights", "register", {"bits": WIDEST_INTEGER}, self.lanes),
            Part("special_values", "register", {"bits": FIXED_POINT_BITS + 1}, SPECIAL_VALUES),
            Part("control", "register", control),
            Part("special_value", "multiplexer", {"inputs": SPECIAL_VALUES, "bits": FIXED_POINT_BITS + 1}),
            Part("leading_one", "comparator", {"bits": FIXED_POINT_BITS - 1}, 2 * self.lanes),
            Part("booth", "comparator", {"bits": 3}, self.lanes),
            Part("terms", "register", {"bits": _TERM_BITS}, self.lanes),
            Part("significance", "register", {"bits": _SIGNIFICANCE_BITS}),
        ]
        events: dict[str, Uses] = {}
        for element in elements:
            cycles = cycles_of(element)
            found = {("booth", "operate"): cycles} if element.is_integer else {("leading_one", "operate"): 2}
            at_width = Part(f"weights {element.name}", "register", {"bits": element.bits}, 0)
            parts.append(at_width)
            events[_encode(element)] = {**found, (at_width.name, "write"): 1, ("terms", "write"): cycles}
        return Component(
            "weight_encoder",
            "bitmod_encoder",
            {"lanes": self.lanes},
            rows * copies,
            tuple(parts),
            events,
            copies=copies,
        )

    def _dequantizer(self, count: int) -> Component:
        """A shift-and-add multiplier: what is left of the scale stands in the low bits of the product."""
        precision, sharing = self._sum_format.precision, self.dequant_shared_by
        parts = [
            Part("adder", "int_adder", {"bits": precision}),
            Part("sum", "register", {"bits": self.accumulator_bits}, sharing),
            Part("product", "register", {"bits": self.scaled_bits}),
        ]
        if sharing > 1:
            parts.append(Part("inputs", "multiplexer", {"inputs": sharing, "bits": self.accumulator_bits}))
        a_bit = {("adder", "operate"): self.scale_bits, ("product", "write"): self.scale_bits}
        events = {"scale": a_bit | {("sum", "write"): 1}}
        params: dict[str, int | str] = {"bits": self.scale_bits, "accumulator": self.accumulator}
        if sharing > 1:
            params["shared_by"] = sharing
        return Component(
            "dequantizer", "bitmod_dequantizer", params, count, tuple(parts), events, dequantizes=True
        )

    def _group_adder(self, count: int, doubled: bool) -> Component:
        copies = self.tile * (2 if doubled else 1)
        product = 1 + self.sums.exponent_bits + self.scaled_bits
        parts = [
            self.partial_adder(),
            Part("product", "register", {"bits": product}),
            Part("outputs", "register", {"bits": self.accumulator_bits}, copies),
        ]
        if self.tile > 1:
            parts.append(Part("column", "multiplexer", {"inputs": self.tile, "bits": product}))
        if copies > 1:
            parts.append(Part("read", "multiplexer", {"inputs": copies, "bits": self.accumulator_bits}))
        events: dict[str, Uses] = {
            "add": {(part.name, "operate"): 1 for part in parts if part.kind != "register"}
        }
        events["add"] |= {("product", "write"): 1, ("outputs", "write"): 1}
        params: dict[str, int | str] = {
            "outputs": copies,
            "tile": self.tile,
            "bits": self.scale_bits,
            "stages": self.adder_stages,
            "accumulator": self.accumulator,
        }
        return Component("group_adder", "bitmod_group_adder", params, count, tuple(parts), events)

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int]]:
        return {
            "step": {("pe", _step(weights.element)): 1},
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


def _step(element: Element) -> str:
    return f"step {element.name}"


def _encode(element: Element) -> str:
    return f"encode {element.name}"
