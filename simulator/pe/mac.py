"""The bit-parallel multiply-accumulate PE: every other family is compared with it.

One step multiplies ``lanes`` pairs of operands exactly, integers or floats, adds the products exactly in an adder tree
and adds the sum to the accumulator: modulo 2**bits for an integer or fixed-point accumulator, rounded once to nearest
even for a floating-point one (a fused dot product), which ``promote_every`` moves into an FP32 register now and then
(`simulator.pe.dot_function`). Pipelined over ``pipeline_depth`` + ``adder_tree_stages`` cycles; a step every
``initiation_interval`` cycles. Operands are element codes; scales are applied outside (`simulator.array.rescale`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.accumulator import Accumulator, accumulator, promotion
from simulator.pe.base import PE, pair_name
from simulator.pe.dot_function import DotFunction, exact_sum_bits
from simulator.pe.elements import element_format
from simulator.pe.operands import held_bits, streamed_bits
from simulator.pe.protocol import Pair, Stationary, Timing


class MacPE(PE):
    """Parameters of the MAC PE, as the ``pe:`` section of an accelerator's YAML. Every pair of the two lists of
    elements is taken, at one MAC a lane and step."""

    family: Literal["mac"]
    accumulator: str = "int32"
    """See `simulator.pe.accumulator`."""
    promote_every: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Steps after which a floating-point accumulator moves into an FP32 register; none: there is no second level."""
    lanes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Products of one step (the width d of a dot-product PE)."""
    pipeline_depth: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles from operands to accumulated sum, adder tree apart."""
    adder_tree_stages: Annotated[int, Field(ge=0, le=64)] = 0
    """Pipeline stages of the adder tree over the lanes."""
    initiation_interval: Annotated[int, Field(ge=1, le=64)] = 1
    """Cycles between two steps."""

    @field_validator("accumulator")
    @classmethod
    def _known_accumulator(cls, name: str) -> str:
        return accumulator(name).name

    @model_validator(mode="after")
    def _has_no_decoder(self) -> MacPE:
        """Codes that a table gives a meaning need a PE with a decoder; families built on this one may have it."""
        for name in (*self.weights, *self.activations):
            if self.family == "mac" and element_format(name).element.kind == "table":
                raise InputError(
                    "is looked up in a table, and a MAC has no decoder", key="weights", value=name
                )
        return self

    @model_validator(mode="after")
    def _elements_have_significands(self) -> MacPE:
        # Families behind a decoder share these parameters, and take tables.
        tables = [
            name
            for name in (*self.weights, *self.activations)
            if element_format(name).element.kind == "table"
        ]
        if self.family == "mac" and tables:
            raise InputError(
                f"codes of {tables[0]} are looked up in a table; PEs behind a decoder take them",
                allowed="integers and floats, or family dequantize",
            )
        return self

    @model_validator(mode="after")
    def _second_level_has_a_first(self) -> MacPE:
        if self.promote_every and self.held.float_format is None:
            raise InputError(
                "needs a floating-point accumulator", key="promote_every", value=self.promote_every
            )
        return self

    @property
    def held(self) -> Accumulator:
        return accumulator(self.accumulator)

    @property
    def outgoing(self) -> Accumulator:
        """What a partial sum leaves in: the second level where there is one."""
        return accumulator("fp32") if self.promote_every else self.held

    @property
    def accumulator_bits(self) -> int:
        return self.outgoing.bits

    def partial_bits(self, weights: Format, activations: Format) -> int:
        """Width of a partial sum as it leaves the PE."""
        return self.accumulator_bits

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why this pair of formats is not taken."""
        reason = super().accepts(weights, activations)
        integers = weights.element.is_integer and activations.element.is_integer
        if reason is None and not integers and self.held.integers_only:
            return (
                f"products of {weights.element.name} and {activations.element.name} need a floating-point or "
                f"fixed-point accumulator (fp32, fixed64, ...), not {self.accumulator}"
            )
        return reason

    def fits(self, dataflow: str) -> str | None:
        """None, or why not in this dataflow: partial sums that travel are one word."""
        if self.promote_every and dataflow not in ("os", "broadcast"):
            return "it has two levels of accumulators (pe.promote_every), and partial sums travel"
        return None

    def timing(self, weights: Format, activations: Format) -> Timing:
        return Timing(self.lanes, self.pipeline_depth + self.adder_tree_stages, self.initiation_interval)

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """One component, "pe": multipliers and operand registers per lane, adder tree, accumulator, pipeline registers.

        Widths are those of the widest formats the PE takes. An integer product of n x m bits has n + m. The products of
        several float lanes, and of one for a fixed-point accumulator, are aligned to the fixed-point range that holds
        every one of them exactly, and the tree adds integers of that width: wide exponent ranges are paid for here. All
        adders of the tree are counted at its final width. Events of a pair of narrower formats drive the multiplier,
        the operand registers and the stationary word at the width of that pair: what the operands do not fill does not
        toggle.
        """
        weights = [element_format(name).element for name in self.weights]
        activations = [element_format(name).element for name in self.activations]
        w_bits, a_bits = max(e.bits for e in weights), max(e.bits for e in activations)
        sum_bits = self._sum_bits(weights, activations)
        accumulator_copies = 2 if doubled and stationary == "outputs" else 1
        stages = self.pipeline_depth - 1 + self.adder_tree_stages
        parts = [
            self._multiplier("multiplier", weights, activations, self.lanes),
            self.held.adder("accumulate"),
            Part("operands", "register", {"bits": streamed_bits(w_bits, a_bits, stationary)}, self.lanes),
            Part("accumulator", "register", {"bits": self.held.bits}, accumulator_copies),
        ]
        idle = {("operands", "clock"): self.lanes, ("accumulator", "clock"): accumulator_copies}
        if self.promote_every:
            parts += promotion(self.promote_every, accumulator_copies)
            idle |= {("promoted", "clock"): accumulator_copies, ("promote_counter", "clock"): 1}
        if stationary != "outputs":
            words = self.lanes * (2 if doubled else 1)
            parts.append(
                Part("stationary", "register", {"bits": held_bits(w_bits, a_bits, stationary)}, words)
            )
            idle["stationary", "clock"] = words
        if self.lanes > 1:
            parts.append(Part("tree", "int_adder", {"bits": sum_bits}, self.lanes - 1))
        if self._aligns and not _all_integers(weights + activations):
            parts.append(Part("align", "shifter", {"bits": sum_bits}, self.lanes))
        if stages:
            parts.append(Part("pipeline", "register", {"bits": sum_bits}, stages))
            idle["pipeline", "clock"] = stages
        events: dict[str, Mapping[tuple[str, str], int]] = {"idle": idle}
        for pair in {pair_name(pair): pair for pair in pairs}.values():
            more, made = self._events(pair, parts, stationary)
            parts += more
            events |= made
        structural: dict[str, int | str] = {
            "weights": " ".join(self.weights),
            "activations": " ".join(self.activations),
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "stages": self.pipeline_depth + self.adder_tree_stages,
            "initiation_interval": self.initiation_interval,
            "stationary": stationary,
            "doubled": int(doubled),
        }
        if self.promote_every:
            structural["promote_every"] = self.promote_every
        return (
            Component("pe", self.family, structural, weight_lines * activation_lines, tuple(parts), events),
        )

    def _events(
        self, pair: Pair, parts: Sequence[Part], stationary: Stationary
    ) -> tuple[list[Part], dict[str, dict[tuple[str, str], int]]]:
        """What the events of a pair of formats make the parts do; parts that work at a width of their own."""
        name = pair_name(pair)
        weight, activation = pair[0].element, pair[1].element
        at_width = [
            self._multiplier(f"multiplier {name}", [weight], [activation], 0),
            Part(
                f"operands {name}",
                "register",
                {"bits": streamed_bits(weight.bits, activation.bits, stationary)},
                0,
            ),
        ]
        present = {part.name for part in parts}
        step = {
            ("accumulate", "operate"): 1,
            (at_width[1].name, "write"): self.lanes,
            ("accumulator", "write"): 1,
        }
        if "tree" in present:
            step["tree", "operate"] = self.lanes - 1
        if "align" in present:
            step["align", "operate"] = self.lanes
        if self.promote_every:
            step["promote_counter", "write"] = 1
        stages = self.pipeline_depth - 1 + self.adder_tree_stages
        if stages:
            step["pipeline", "write"] = stages
        events = {f"mac {name}": {(at_width[0].name, "operate"): 1}, f"step {name}": step}
        if self.promote_every:
            events["promote"] = {("promote", "operate"): 1, ("promoted", "write"): 1}
        if stationary != "outputs":
            held = Part(
                f"stationary {name}",
                "register",
                {"bits": held_bits(weight.bits, activation.bits, stationary)},
                0,
            )
            at_width.append(held)
            events[f"preload {name}"] = {(held.name, "write"): 1}
        return at_width, events

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """Promotions: one in ``promote_every`` steps, and one a result."""
        name = pair_name((weights, activations))
        counted = ["mac", "step"] + ([] if stationary == "outputs" else ["preload"])
        made: dict[str, dict[tuple[str, str], int | Fraction]] = {"idle": {("pe", "idle"): 1}}
        made |= {what: {("pe", f"{what} {name}"): 1} for what in counted}
        if self.promote_every:
            made["step"]["pe", "promote"] = Fraction(1, self.promote_every)
            made["result"] = {("pe", "promote"): 1}
        return made

    @property
    def _aligns(self) -> bool:
        """Float products become fixed-point integers: to be added in a tree, or to a fixed-point accumulator."""
        return self.lanes > 1 or self.held.float_format is None

    def _sum_bits(self, weights: Sequence[Element], activations: Sequence[Element]) -> int:
        """Width of the adder tree's result."""
        elements = [*weights, *activations]
        if _all_integers(elements):
            product = max(e.bits for e in weights) + max(e.bits for e in activations)
        elif not self._aligns:
            exponent = max(element.exponent_bits for element in elements)
            product = 1 + (exponent + 1) + 2 * max(map(_significand_bits, elements))
        else:
            product = max(map(_integer_bits, weights)) + max(map(_integer_bits, activations))
        return product + ceil_log2(self.lanes)

    @staticmethod
    def _multiplier(
        name: str, weights: Sequence[Element], activations: Sequence[Element], count: int
    ) -> Part:
        """The multiplier that takes all of these elements."""
        elements = [*weights, *activations]
        if _all_integers(elements):
            params = {"a_bits": max(e.bits for e in activations), "b_bits": max(e.bits for e in weights)}
            return Part(name, "int_multiplier", params, count)
        params = {
            "exponent_bits": max(element.exponent_bits for element in elements),
            "significand_bits": max(map(_significand_bits, elements)),
        }
        return Part(name, "fp_multiplier", params, count)

    def partial_adder(self) -> Part:
        """The adder that joins partial sums in the output buffer."""
        return self.outgoing.adder("accumulate")

    def function(self, weights: Format, activations: Format) -> DotFunction:
        """The arithmetic on element integers of the two formats."""
        reason = self.accepts(weights, activations)
        if reason:
            raise InputError(f"the MAC PE cannot multiply these: {reason}")
        return DotFunction(
            weights.element,
            activations.element,
            self.held,
            cluster=self.lanes,
            sum_bits=exact_sum_bits(weights.element, activations.element, self.lanes),
            promote_every=self.promote_every or 0,
        )


MacFunction = DotFunction
"""All lanes of a step are one cluster, summed exactly."""


def ceil_log2(value: int) -> int:
    return (value - 1).bit_length()


def _significand_bits(element: Element) -> int:
    """Bits of a significand, hidden one included; an integer's magnitude."""
    return element.bits - 1 if element.is_integer else element.mantissa_bits + 1


def _integer_bits(element: Element) -> int:
    """Bits of the element's integers (`Element.decode_integers`), sign included."""
    return element.bits if element.is_integer else element.emax + 2 - element.quantum_exponent


def _all_integers(elements: Sequence[Element]) -> bool:
    return all(element.is_integer for element in elements)
