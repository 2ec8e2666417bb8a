"""The block-scaled dot product: formats whose neighbours along K share a scale, multiplied by one PE with the scale.

OCP Microscaling (MX) 1.0, NVFP4 and NVINT4 (NVIDIA, arXiv 2509.25149; Chen et al., "INT v.s. FP", arXiv 2510.25602),
block floating point (MSFP: Rouhani et al., NeurIPS 2020) and VS-Quant (Dai et al., MLSys 2021) differ in elements and
in how a scale is applied; FP8 units of one element format differ threefold in cost by how often they align and what
they accumulate in. Both are parameters here. What is computed, bit for bit, says `simulator.pe.dot_function`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import E8, E8M0, Element
from simulator.hardware.structure import Component, Param, Part
from simulator.pe.accumulator import Accumulator, accumulator, promotion
from simulator.pe.base import PE, pair_name
from simulator.pe.dot_function import SAFE_BITS, DotFunction, exact_sum_bits
from simulator.pe.elements import element_format
from simulator.pe.operands import held_bits, streamed_bits
from simulator.pe.protocol import Pair, Stationary, Timing
from simulator.units import ceil_div

_POWERS_OF_TWO = {element.name: element for element in (E8M0, E8)}

Uses = dict[tuple[str, str], int]


class BlockDotPE(PE):
    """Parameters of the block-scaled dot product."""

    family: Literal["block_dot"]
    lanes: Annotated[int, Field(ge=1, le=1024)] = 32
    """Products of one step: the width d of the dot product. A block may take several steps, but no step two blocks."""
    lanes_per_alignment: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Products that are aligned and added together before they meet the accumulator; a divisor of ``lanes``, which is
    also the default. 1: every product is added on its own."""
    align_window: Annotated[int, Field(ge=1, le=36)] | None = None
    """Bits that alignment keeps below the largest exponent; none: all, in exact fixed point."""
    fuse_accumulator: bool = False
    """The accumulator is aligned with the products of a cluster, and all are added in one tree."""
    sticky: bool = False
    """With a fused accumulator: what alignment drops is remembered in one bit for the rounding."""
    acc_format: str = "fp32"
    """See `simulator.pe.accumulator`."""
    acc_rounding: Literal["nearest", "truncate"] = "nearest"
    promote_every: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Steps after which the accumulator moves into an FP32 register; none: there is no second level."""
    scales: tuple[str, ...] = ()
    """Scale formats that are applied inside: e8m0, e8 (block floating point), fp8_e4m3, fp16, uint6, ... Groups with
    others are left to the array's rescale unit."""
    scale_product_bits: Annotated[int, Field(ge=1, le=32)] | None = None
    """Bits that are kept of the product of two integer scales; none: all."""
    pipeline_depth: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles from operands to accumulated sum, adder tree apart."""
    adder_tree_stages: Annotated[int, Field(ge=0, le=64)] = 0
    initiation_interval: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles between two steps."""

    @field_validator("weights", "activations")
    @classmethod
    def _have_significands(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            element = element_format(name).element
            if not (element.is_integer or element.kind == "float") or element.bits > 16:
                raise ValueError(f"its multipliers take integers and floats of up to 16 bits, not {name}")
        return names

    @field_validator("acc_format")
    @classmethod
    def _known_accumulator(cls, name: str) -> str:
        return accumulator(name).name

    @field_validator("scales", mode="before")
    @classmethod
    def _scale_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value

    @field_validator("scales")
    @classmethod
    def _known_scales(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _scale_element(name)
        return names

    @model_validator(mode="after")
    def _parts_fit(self) -> BlockDotPE:
        float_accumulator = self.accumulator.float_format is not None
        scales = [_scale_element(name) for name in self.scales]
        if self.lanes % self.cluster:
            raise InputError(
                "does not divide the lanes",
                key="lanes_per_alignment",
                value=self.cluster,
                allowed=f"a divisor of {self.lanes}",
            )
        needs = [
            ("fuse_accumulator", self.fuse_accumulator, self.align_window is not None, "an align_window"),
            (
                "sticky",
                self.sticky,
                self.fuse_accumulator and self.acc_rounding == "nearest",
                "a fused accumulator and acc_rounding nearest",
            ),
            ("align_window", self.align_window is not None, float_accumulator, "a floating-point acc_format"),
            (
                "align_window",
                self.align_window is not None,
                _exponent_bits([element for side in self._elements() for element in side]) > 0,
                "an element with exponents",
            ),
            (
                "acc_rounding",
                self.acc_rounding != "nearest",
                float_accumulator,
                "a floating-point acc_format",
            ),
            (
                "promote_every",
                self.promote_every is not None,
                float_accumulator,
                "a floating-point acc_format",
            ),
            (
                "scale_product_bits",
                self.scale_product_bits is not None,
                bool(scales) and all(scale.is_integer for scale in scales),
                "scales that are integers",
            ),
        ]
        for key, wanted, given, what in needs:
            if wanted and not given:
                raise InputError(f"needs {what}", key=key, value=getattr(self, key))
        return self

    @property
    def cluster(self) -> int:
        """Products that are aligned together."""
        return self.lanes_per_alignment or self.lanes

    @property
    def accumulator(self) -> Accumulator:
        return accumulator(self.acc_format)

    @property
    def outgoing(self) -> Accumulator:
        """What a partial sum leaves in: the second level where there is one."""
        return accumulator("fp32") if self.promote_every else self.accumulator

    @property
    def accumulator_bits(self) -> int:
        return self.outgoing.bits

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        if reason:
            return reason
        if self.accumulator.integers_only and not (weights.is_integer and activations.is_integer):
            return (
                f"products of {weights.element.name} and {activations.element.name} need a fixed-point or "
                f"floating-point accumulator, not {self.acc_format}"
            )
        if not self.scales_inside(weights, activations):
            return None
        for format in (weights, activations):
            if format.has_zero_point:
                return f"{format.name} has zero points, and the scales are applied before these could be corrected"
        for scale in self._inside(weights, activations):
            if self.accumulator.float_format is None and not scale.is_integer:
                return f"{self.acc_format} cannot hold sums scaled by {scale.name}"
            if self.fuse_accumulator and not self.promote_every and scale.name not in _POWERS_OF_TWO:
                return f"with a fused accumulator there is no multiplier for scales of {scale.name}"
        held, second = self.accumulator.float_format, self.promote_every
        scale_bits = sum(map(_scale_significand_bits, self._inside(weights, activations)))
        if held and second and held.precision + scale_bits > SAFE_BITS:
            return f"products of {self.acc_format} and two scales are wider than {SAFE_BITS} bits"
        return None

    def fits(self, dataflow: str) -> str | None:
        """None, or why not in this dataflow: a chain of PEs hands on one word, and one step spans blocks."""
        if dataflow in ("os", "broadcast"):
            return None
        if self.scales:
            return "it applies the scales of blocks (pe.scales), and one step of this dataflow spans several blocks"
        if self.promote_every:
            return "it has two levels of accumulators (pe.promote_every), and partial sums travel"
        return None

    def scales_inside(self, weights: Format, activations: Format) -> bool:
        """Every scale of a group or block is of a format listed in ``scales``."""
        grouped = [format.scale_element for format in (weights, activations) if format.group_size]
        return bool(grouped) and all(scale is not None and scale.name in self.scales for scale in grouped)

    def _inside(self, weights: Format, activations: Format) -> list[Element]:
        """Formats of the scales that are applied inside."""
        if not self.scales_inside(weights, activations):
            return []
        grouped = [format.scale_element for format in (weights, activations) if format.group_size]
        return [scale for scale in grouped if scale is not None]

    def timing(self, weights: Format, activations: Format) -> Timing:
        return Timing(self.lanes, self.pipeline_depth + self.adder_tree_stages, self.initiation_interval)

    def partial_bits(self, weights: Format, activations: Format) -> int:
        return self.accumulator_bits

    def partial_adder(self) -> Part:
        return self.outgoing.adder("accumulate")

    def function(self, weights: Format, activations: Format) -> DotFunction:
        """The arithmetic on element integers of the two formats."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the block-scaled dot product cannot multiply these: {reason}")
        scales = self._inside(weights, activations)
        full = sum(scale.bits for scale in scales)
        aligned = self._in_window(weights.element, activations.element)
        return DotFunction(
            weights.element,
            activations.element,
            self.accumulator,
            cluster=self.cluster,
            window=self.align_window if aligned else None,
            fused=self.fuse_accumulator,
            sticky=self.sticky,
            truncate=self.acc_rounding == "truncate",
            promote_every=self.promote_every or 0,
            sum_bits=self._sum_bits(weights.element, activations.element),
            scale_bits=sum(map(_scale_significand_bits, scales)),
            dropped_scale_bits=max(0, full - (self.scale_product_bits or full)),
        )

    # Structure

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """One component, "pe". Widths are those of the widest formats that it takes; a pair of narrower ones drives
        multipliers, exponent adders and operand registers at its own."""
        parts = self._datapath(stationary, doubled)
        idle = {(part.name, "clock"): part.count for part in parts if part.kind == "register"}
        events: dict[str, Uses] = {"idle": idle}
        for pair in {self._event_name(pair): pair for pair in pairs}.values():
            more, made = self._events(pair, parts, stationary)
            parts += more
            events |= made
        structural: dict[str, Param] = {}
        apart = {"family", "pipeline_depth", "adder_tree_stages"}
        for key, value in self.model_dump(exclude_none=True, exclude=apart).items():
            if value == ():  # a table's row cannot hold a parameter without a value
                continue
            text = " ".join(value) if isinstance(value, tuple) else value
            structural[key] = text if isinstance(text, str) else int(text)
        structural["stages"] = self.pipeline_depth + self.adder_tree_stages
        structural |= {"stationary": stationary, "doubled": int(doubled)}
        return (
            Component("pe", self.family, structural, weight_lines * activation_lines, tuple(parts), events),
        )

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """Promotions: one in ``promote_every`` steps and one a result; where they scale groups, those of each group."""
        name = self._event_name((weights, activations))
        counted = ["mac", "step"]
        counted += [] if stationary == "outputs" else ["preload"]
        inside = self.scales_inside(weights, activations)
        counted += ["group"] if inside else []
        made: dict[str, dict[tuple[str, str], int | Fraction]] = {"idle": {("pe", "idle"): 1}}
        made |= {what: {("pe", f"{what} {name}"): 1} for what in counted}
        if self.promote_every and inside:
            group = min(format.group_size for format in (weights, activations) if format.group_size)
            steps = ceil_div(group, self.lanes)
            made["group"]["pe", f"promote {name}"] = ceil_div(steps, self.promote_every)
        elif self.promote_every:
            made["step"]["pe", f"promote {name}"] = Fraction(1, self.promote_every)
            made["result"] = {("pe", f"promote {name}"): 1}
        return made

    def _event_name(self, pair: Pair) -> str:
        """The same elements in blocks, whose scales are applied inside, and without are two."""
        return pair_name(pair) + (" in blocks" if self.scales_inside(*pair) else "")

    def _elements(self) -> tuple[list[Element], list[Element]]:
        return (
            [element_format(name).element for name in self.weights],
            [element_format(name).element for name in self.activations],
        )

    def _datapath(self, stationary: Stationary, doubled: bool) -> list[Part]:
        """The parts, in the order in which data meets them."""
        weights, activations = self._elements()
        clusters, held = self.lanes // self.cluster, self.accumulator
        float_accumulator = held.float_format is not None
        pairs = [(w, a) for w in weights for a in activations]
        sum_bits = max(self._sum_bits(w, a) for w, a in pairs)
        terms = self.cluster + self.fuse_accumulator
        w_bits, a_bits = max(e.bits for e in weights), max(e.bits for e in activations)
        parts = [
            Part("operands", "register", {"bits": streamed_bits(w_bits, a_bits, stationary)}, self.lanes),
            _multiplier("multiplier", weights, activations, self.lanes),
        ]
        if stationary != "outputs":
            words = self.lanes * (2 if doubled else 1)
            parts.append(
                Part("stationary", "register", {"bits": held_bits(w_bits, a_bits, stationary)}, words)
            )
        exponents = _exponent_bits([*weights, *activations])
        if exponents:
            parts.append(Part("exponent_adder", "int_adder", {"bits": exponents}, self.lanes))
        if exponents and self.align_window is not None and terms > 1:
            compared = max(exponents, held.exponent_bits) if self.fuse_accumulator else exponents
            parts += [
                Part("exponent_max", "comparator", {"bits": compared}, clusters * (terms - 1)),
                Part("exponent_subtractor", "int_adder", {"bits": compared}, clusters * terms),
            ]
        if exponents and (terms > 1 or not float_accumulator):
            widths = [self._term_bits(w, a) for w, a in pairs if not (w.is_integer and a.is_integer)]
            parts.append(Part("aligner", "shifter", {"bits": max(widths)}, clusters * terms))
        if terms > 1:
            parts.append(Part("tree", "int_adder", {"bits": sum_bits}, clusters * (terms - 1)))
        scaled_bits = sum_bits
        if self.scales:
            more, scaled_bits = self._scaling(sum_bits)
            parts += more
        if float_accumulator and (terms > 1 or not exponents or scaled_bits > sum_bits):
            parts += [
                Part("leading_one", "comparator", {"bits": scaled_bits}, clusters),
                Part("normaliser", "shifter", {"bits": scaled_bits}, clusters),
            ]
        if self.fuse_accumulator:
            assert held.float_format is not None
            parts.append(Part("rounder", "int_adder", {"bits": held.float_format.precision}, clusters))
        else:
            parts.append(held.adder("accumulate", clusters))
        copies = 2 if doubled and stationary == "outputs" else 1
        parts.append(Part("accumulator", "register", {"bits": held.bits}, copies))
        if self.promote_every:
            parts += promotion(self.promote_every, copies)
        stages = self.pipeline_depth - 1 + self.adder_tree_stages
        if stages:
            parts.append(Part("pipeline", "register", {"bits": sum_bits}, stages * clusters))
        return parts

    def _scaling(self, sum_bits: int) -> tuple[list[Part], int]:
        """What applies scales, and the width of the sum that goes into the accumulator: scaled, unless scales wait for
        the second level."""
        scales = [_scale_element(name) for name in self.scales]
        held, at_promotion = self.accumulator.float_format, bool(self.promote_every)
        count = 1 if at_promotion else self.lanes // self.cluster
        multiplied = held.precision if held and at_promotion else sum_bits
        significand = max(map(_scale_significand_bits, scales))
        exponent = max((scale.exponent_bits for scale in scales), default=0)
        parts = [Part("scale_operands", "register", {"bits": 2 * max(scale.bits for scale in scales)})]
        register = 0
        if exponent:
            parts += [
                Part("scale_exponent_adder", "int_adder", {"bits": exponent + 1}),
                Part("exponent_scaler", "int_adder", {"bits": exponent + 2}, count),
            ]
            register = exponent + 1
        if significand > 1:
            product = max(self._scale_product_width(2 * significand, scales), 1)
            parts += [
                Part("scale_multiplier", "int_multiplier", {"a_bits": significand, "b_bits": significand}),
                Part("scaler", "int_multiplier", {"a_bits": multiplied, "b_bits": product}, count),
            ]
            if self.scale_product_bits:
                parts.append(Part("scale_rounder", "int_adder", {"bits": self.scale_product_bits}))
            register += product
            sum_bits += 0 if at_promotion else product
        parts.append(Part("scale", "register", {"bits": register}))
        return parts, sum_bits

    def _scale_product_width(self, full: int, scales: Sequence[Element]) -> int:
        if self.scale_product_bits and all(scale.is_integer for scale in scales):
            return min(full, self.scale_product_bits)
        return full

    def _events(
        self, pair: Pair, parts: Sequence[Part], stationary: Stationary
    ) -> tuple[list[Part], dict[str, Uses]]:
        """What the events of a pair of formats make the parts do; parts that work at a width of their own."""
        name = self._event_name(pair)
        weight, activation = pair[0].element, pair[1].element
        count = {part.name: part.count for part in parts}
        floats = not (weight.is_integer and activation.is_integer)
        operands = {"bits": streamed_bits(weight.bits, activation.bits, stationary)}
        own = [
            _multiplier(f"multiplier {name}", [weight], [activation], 0),
            Part(f"operands {name}", "register", operands, 0),
        ]
        mac: Uses = {(f"multiplier {name}", "operate"): 1}
        if floats:
            own.append(
                Part(f"exponent_adder {name}", "int_adder", {"bits": _exponent_bits([weight, activation])}, 0)
            )
            mac[f"exponent_adder {name}", "operate"] = 1
        step: Uses = {(f"operands {name}", "write"): self.lanes}
        working = ["tree", "leading_one", "normaliser", "rounder", "accumulate"]
        if floats or self.fuse_accumulator:
            working += ["exponent_max", "exponent_subtractor", "aligner"]
        inside, scaling = self.scales_inside(*pair), ["exponent_scaler", "scaler"]
        working += scaling if inside and not self.promote_every else []
        for part in working:
            if part in count:
                step[part, "operate"] = count[part]
        for register in ("accumulator", "promote_counter"):
            if register in count:
                step[register, "write"] = 1
        if "pipeline" in count:
            step["pipeline", "write"] = count["pipeline"]
        events = {f"mac {name}": mac, f"step {name}": step}
        if inside:
            group: Uses = {("scale_operands", "write"): 1, ("scale", "write"): 1}
            once = ["scale_exponent_adder", "scale_multiplier", "scale_rounder"]
            group |= {(part, "operate"): 1 for part in once if part in count}
            events[f"group {name}"] = group
        if self.promote_every:
            at_promotion = ["promote", *(scaling if inside else [])]
            promoted: Uses = {(part, "operate"): 1 for part in at_promotion if part in count}
            events[f"promote {name}"] = promoted | {("promoted", "write"): 1}
        if stationary != "outputs":
            word = {"bits": held_bits(weight.bits, activation.bits, stationary)}
            own.append(Part(f"stationary {name}", "register", word, 0))
            events[f"preload {name}"] = {(f"stationary {name}", "write"): 1}
        return own, events

    def _sum_bits(self, weight: Element, activation: Element) -> int:
        """Width of a cluster's sum (with a fused accumulator: of all terms), sign included."""
        if self._in_window(weight, activation):
            terms = self.cluster + self.fuse_accumulator
            return self._term_bits(weight, activation) + (terms - 1).bit_length()
        return exact_sum_bits(weight, activation, self.cluster)

    def _in_window(self, weight: Element, activation: Element) -> bool:
        """Products of these are aligned: integers among themselves need it not."""
        floats = not (weight.is_integer and activation.is_integer)
        return self.align_window is not None and (floats or self.fuse_accumulator)

    def _term_bits(self, weight: Element, activation: Element) -> int:
        """Width of an aligned product, sign included: magnitudes are below 4 * 2**e, in units of 2**(e - w)."""
        return (
            self.align_window + 3 if self.align_window is not None else exact_sum_bits(weight, activation, 1)
        )


def _scale_element(name: str) -> Element:
    return _POWERS_OF_TWO[name] if name in _POWERS_OF_TWO else element_format(name).element


def _scale_significand_bits(scale: Element) -> int:
    if scale.kind == "exponent":
        return 1
    return scale.bits if scale.is_integer else scale.mantissa_bits + 1


def _exponent_bits(elements: Sequence[Element]) -> int:
    """Width of the sum of two exponent fields; 0 among integers."""
    widest = max(element.exponent_bits for element in elements)
    return widest + 1 if widest else 0


def _multiplier(name: str, weights: Sequence[Element], activations: Sequence[Element], count: int) -> Part:
    """The multiplier of significands: integers in full, floats with their hidden bit."""
    widths = [
        max(element.bits if element.is_integer else element.mantissa_bits + 1 for element in elements)
        for elements in (activations, weights)
    ]
    return Part(name, "int_multiplier", {"a_bits": widths[0], "b_bits": widths[1]}, count)
