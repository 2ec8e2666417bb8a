"""Multiply-accumulate units and dot products: `simulator.pe.mac` and `simulator.pe.block_dot` as hardware.

A `DotUnit` is one configuration: operand registers, arithmetic and accumulator inside. `dot_hardware` builds it,
`dot_operands` makes its streams, `dot_function` says by the PE's own function what must come out.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from simulator.errors import InputError, nearest
from simulator.formats import Format, get_format
from simulator.formats.element import E8, E8M0, FP16, Element
from simulator.hardware.structure import Component
from simulator.pe import pe_model
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Stationary
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Energy, Stream, Unit, on_other_operands
from simulator.rtl.units.dot_function import expected_sums, sums_of_codes
from simulator.rtl.units.dot_operands import OFTEN, SUM_LENGTH, Operands, operands
from simulator.rtl.units.dot_words import Word, words
from simulator.rtl.units.naming import refused

SCALES = ("e8m0", "e8", "fp8_e4m3", "fp16", "uint<n>")
"""Scale formats that units multiply by; of unsigned integers several."""
_POWERS_OF_TWO = {element.name: element for element in (E8M0, E8)}
_LOWEST_SUM = 2
"""Of the exponent fields of two floats."""
_IN_BLOCKS = " in blocks"
"""What names of events have behind the pair where scales are applied inside (`simulator.pe.block_dot`)."""


@dataclass(frozen=True)
class DotUnit(Unit):
    """One PE to be built and characterised."""

    weights: str
    """Element format, as `simulator.pe.elements` names it; several with + between share the hardware as `dot_words`
    says: int8+int4."""
    activations: str
    accumulator: str
    lanes: int = 1
    align_window: int | None = None
    """Bits kept below the largest exponent of the lanes' products; None: exact fixed point."""
    scale: str | None = None
    """Format of both operands' block scales, applied to the sum of the lanes; of unsigned integers several with +."""
    scale_product_bits: int | None = None
    """Bits that are kept of a product of two integer scales; None: all."""
    fused: bool = False
    """The accumulator is aligned with the products, one tree adds all."""
    truncate: bool = False
    """The accumulator is rounded towards zero."""
    promote_every: int | None = None
    """Steps after which the accumulator moves into an FP32 register."""
    cuts: int = 0
    """Ranks of registers through the data path; see `cut_places`."""
    stationary: Stationary = "outputs"
    """Weights or activations: that operand is held, and a partial sum comes from the neighbour."""
    doubled: bool = False
    """A second accumulator keeps a finished sum, or a second register the next stationary operand."""

    def __post_init__(self) -> None:
        self._check_scales()
        elements = [*self._elements(self.weights), *self._elements(self.activations)]
        for name, element in zip(
            [*self.weights.split("+"), *self.activations.split("+")], elements, strict=True
        ):
            if not (element.is_integer or element.kind == "float") or element.bits > 16:
                raise InputError(
                    "no hardware description of this element",
                    value=name,
                    allowed="integers, sign and magnitude, and floats of up to 16 bits",
                )
        for side in (self._elements(self.weights), self._elements(self.activations)):
            kinds = {element.kind for element in side if element.is_integer}
            if len(kinds) > 1:
                raise InputError(
                    "integers of several kinds share no hardware",
                    value=f"{self.weights} x {self.activations}",
                )
        if self.scale is not None and self.stationary != "outputs":
            raise InputError("scales need stationary outputs", key="stationary", value=self.stationary)
        if self.align_window is not None:
            self._check_window()
        self._check_levels()
        if self.held.integers_only and not self.is_integer:
            raise InputError("an accumulator of integers", key="accumulator", value=self.accumulator)
        quanta = {w.element.quantum_exponent + a.element.quantum_exponent for w, a in self.pairs}
        if not self.is_floating_sum and quanta != {self.exponent}:
            raise InputError(
                "integers and fixed point count in one unit; these formats have several",
                key="accumulator",
                value=self.accumulator,
                allowed="a floating-point accumulator",
            )
        allowed = len(self.cut_places)
        if not 0 <= self.cuts <= allowed:
            raise InputError(
                "pipeline cuts of this unit", key="cuts", value=self.cuts, allowed=f"0 to {allowed}"
            )

    def _check_scales(self) -> None:
        integers = bool(re.fullmatch(r"uint[1-9][0-9]?(\+uint[1-9][0-9]?)*", self.scale or ""))
        if self.scale is not None and not integers and self.scale not in SCALES:
            raise InputError(
                "scales of this unit", key="scale", value=self.scale, allowed=nearest(self.scale, SCALES)
            )
        if self.scale_product_bits is not None and not (integers and self.dropped_bits[0] >= 0):
            raise InputError(
                "products of integer scales are rounded, to no more bits than the narrowest have",
                key="scale",
                value=self.scale,
            )
        if self.scale is not None and integers == self.is_floating_sum:
            raise InputError(
                "integer scales need an accumulator of integers, others one of floats",
                key="accumulator",
                value=self.accumulator,
            )

    def _check_levels(self) -> None:
        if self.fused and (self.align_window is None or self.stationary != "outputs" or self.lanes == 1):
            raise InputError("the accumulator is aligned in a window, with several lanes", key="fused")
        if self.fused and self.scale is not None and not self.promote_every:
            raise InputError(
                "scales of a fused accumulator wait for a second level", key="scale", value=self.scale
            )
        if self.truncate and not self.fused:
            raise InputError("truncates only where it is fused", key="accumulator", value=self.accumulator)
        if self.promote_every is not None and not (
            self.is_floating_sum and self.doubled and self.stationary == "outputs" and self.cuts
        ):
            raise InputError(
                "a second level needs a floating-point accumulator with stationary outputs, -double, and a cut",
                key="promote_every",
                value=self.promote_every,
            )
        if self.promote_every is not None and self.promote_every <= OFTEN:
            raise InputError(
                "is too often to be told from a step",
                key="promote_every",
                value=self.promote_every,
                allowed=f"{OFTEN + 1} or more",
            )
        if self.fused and _LOWEST_SUM + self.exponent_field - (self.align_window or 0) < 1:
            raise InputError("its sums could be subnormal", key="accumulator", value=self.accumulator)

    def _check_window(self) -> None:
        if not self.is_floating_sum:
            raise InputError(
                "windows need a floating-point accumulator", key="accumulator", value=self.accumulator
            )
        if self.is_integer:
            raise InputError("integers are not aligned", key="align_window", value=self.align_window)
        exact = [
            w.element.significand_bits + a.element.significand_bits
            for w, a in self.pairs
            if w.element.is_integer and a.element.is_integer
        ]
        if (self.align_window or 0) < max(exact, default=0):
            raise InputError(
                "products of integers are exact",
                key="align_window",
                value=self.align_window,
                allowed=f"{max(exact)} or more",
            )

    def _elements(self, names: str) -> tuple[Element, ...]:
        return tuple(self.format_of(name).element for name in names.split("+"))

    @property
    def pairs(self) -> list[Pair]:
        """Formats of weights and activations that it multiplies, the widest first."""
        return sorted(
            (
                (self.format_of(w), self.format_of(a))
                for w in self.weights.split("+")
                for a in self.activations.split("+")
            ),
            key=lambda pair: -pair[0].element.bits - pair[1].element.bits,
        )

    def format_of(self, element: str, scale: str | None = None) -> Format:
        """A format with this element and the unit's scales (of several the first, or ``scale``), as the PE's
        ``function`` wants it."""
        if self.scale is None:
            return element_format(element)
        if self.scale in ("e8m0", "fp8_e4m3"):
            return get_format(("mx" if self.scale == "e8m0" else "nv") + element)
        scale_element = self.scale_element(scale or self.scale.split("+")[0])
        name = f"{element} with scales of {scale_element.name}"
        return Format(name, element_format(element).element, "group", 16, scale_element=scale_element)

    @staticmethod
    def scale_element(name: str) -> Element:
        return _POWERS_OF_TWO.get(name) or element_format(name).element

    def scale_pair(self, pair: Pair) -> Pair:
        """The same with the scale formats that streams of this pair have: each pair another choice."""
        names = (self.scale or "").split("+")
        if len(names) == 1:
            return pair
        index = self.pairs.index(pair)
        chosen = names[index % len(names)], names[index // len(names) % len(names)]
        weight, activation = (
            self.format_of(format.element.name, scale) for format, scale in zip(pair, chosen, strict=True)
        )
        return weight, activation

    @cached_property
    def words(self) -> tuple[Word, Word]:
        """Of weights and activations."""
        sides = self._elements(self.weights), self._elements(self.activations)
        return words(*sides, exact=self.align_window is None)

    @property
    def biases(self) -> list[tuple[Pair, int]]:
        """For each pair what its sums' last bit is worth more than that of the smallest, as an exponent."""
        exponents = [
            sum(word.exponent(format.element) for word, format in zip(self.words, pair, strict=True))
            for pair in self.pairs
        ]
        return [(pair, own - min(exponents)) for pair, own in zip(self.pairs, exponents, strict=True)]

    @property
    def exponent(self) -> int:
        """Of what the last bit of a product is worth, with the smallest exponent fields and no bias."""
        weight, activation = self.pairs[0]
        own = self.words[0].exponent(weight.element) + self.words[1].exponent(activation.element)
        return own - self.biases[0][1]

    @property
    def held(self) -> Accumulator:
        return accumulator(self.accumulator)

    @property
    def outgoing(self) -> Accumulator:
        """What a finished sum leaves in."""
        return accumulator("fp32") if self.promote_every else self.held

    @property
    def ends_groups(self) -> bool:
        """A port says where blocks end."""
        return self.promote_every is not None and self.scale is not None

    @property
    def exponent_field(self) -> int:
        """Of the accumulator, where its leading one is worth that of a product, less the sum of the fields of that."""
        to = self.held.float_format
        assert to is not None
        lowest = sum(word.exponent_bits > 0 for word in self.words)
        return self.exponent + self.fraction_bits - lowest - (to.low + to.precision - 1) + 1

    @property
    def is_floating_sum(self) -> bool:
        return self.held.float_format is not None

    @property
    def is_integer(self) -> bool:
        return all(
            element.is_integer
            for names in (self.weights, self.activations)
            for element in self._elements(names)
        )

    @property
    def is_aligned(self) -> bool:
        """Products have exponents of their own, which lanes and fixed point must agree on."""
        return self.words[0].form == "floating"

    @property
    def fraction_bits(self) -> int:
        """Below the leading ones' place of a product of significands."""
        return sum(word.fraction_bits for word in self.words)

    @property
    def product_bits(self) -> int:
        """Of a product of magnitudes or significands; two's complement has -2 times -2."""
        if not self.is_aligned:
            return (self.words[0].largest * self.words[1].largest).bit_length()
        both = all(any(layout.kind == "int" for layout in word.layouts) for word in self.words)
        return self.fraction_bits + 2 + both

    @property
    def term_bits(self) -> int:
        """Of the magnitudes that the lanes' tree adds."""
        if not self.is_aligned:
            return self.product_bits
        if self.align_window is not None:
            return self.align_window + self.product_bits - self.fraction_bits
        fields = (
            sum(word.last_field(format.element) - 1 for word, format in zip(self.words, pair, strict=True))
            for pair in self.pairs
        )
        return self.product_bits + max(fields)

    @property
    def sum_bits(self) -> int:
        """Of the sum of the lanes (and the accumulator, where it is fused), its sign included; unsigned integers have
        none."""
        if self.is_aligned:
            return self.term_bits + 1 + (self.lanes + self.fused - 1).bit_length()
        largest = self.lanes * self.words[0].largest * self.words[1].largest
        return largest.bit_length() + self.is_signed

    @property
    def is_signed(self) -> bool:
        return any(word.form != "unsigned" for word in self.words)

    @property
    def bias_bits(self) -> int:
        return max(bias for _, bias in self.biases).bit_length()

    @property
    def scale_bits(self) -> int:
        """Of a scale's port."""
        return max(
            (self.scale_element(name).bits for name in (self.scale or "").split("+") if name), default=0
        )

    @property
    def dropped_bits(self) -> tuple[int, ...]:
        """By which a product of the scales may be rounded off, of narrow to wide ones."""
        if self.scale_product_bits is None:
            return (0,)
        widths = [self.scale_element(name).bits for name in (self.scale or "").split("+")]
        return tuple(sorted({a + b - self.scale_product_bits for a in widths for b in widths}))

    @property
    def drop_bits(self) -> int:
        """Of the port that says by how much more than the least a product of scales is rounded off."""
        return (self.dropped_bits[-1] - self.dropped_bits[0]).bit_length()

    def dropped(self, pair: Pair) -> int:
        """Bits by which the product of a pair's scales is rounded off."""
        if self.scale_product_bits is None:
            return 0
        bits = (format.scale_element.bits for format in self.scale_pair(pair) if format.scale_element)
        return sum(bits) - self.scale_product_bits

    @property
    def cut_places(self) -> tuple[str, ...]:
        """Where the data path may be cut, in the order in which ``cuts`` takes them."""
        scale = () if self.scale in (None, *_POWERS_OF_TWO) else ("scale",)
        tree: tuple[str, ...]
        if self.fused:
            second = ("accumulate", *scale) if self.promote_every else ()
            return (*second, "align", "exponent", "multiply")
        if self.promote_every:
            tree = ("compress",) if self.lanes > 1 else ()
            return ("accumulate", *scale, "normalise", *tree, "multiply")
        if self.lanes == 1:
            if self.is_floating_sum:
                return ("multiply", "normalise")
            return ("multiply", "align") if self.is_aligned else ("multiply",)
        if not self.is_floating_sum:
            tree = ("scale", "compress", "tree") if scale else ("tree", "compress")
            return (*tree, "multiply", *(("align",) if self.is_aligned else ()))
        if not self.is_aligned:
            return ("normalise", "tree", *scale, "compress", "multiply")
        if self.align_window is not None:
            return ("normalise", "compress", "exponent", "tree", "multiply", "align")
        return ("normalise", "compress", "multiply", "tree", "align")

    @property
    def name(self) -> str:
        """What commands and tables call it; `unit_of_name` reads it."""
        pair = self.weights if self.weights == self.activations else f"{self.weights}x{self.activations}"
        align = []
        if not self.is_integer and self.is_floating_sum and self.lanes > 1:
            align = ["fix" if self.align_window is None else f"al{self.align_window}{'acc' * self.fused}"]
        fields = ["mac" if self.lanes == 1 else f"dot{self.lanes}", pair, *align]
        rounded = "" if self.scale_product_bits is None else f"to{self.scale_product_bits}"
        fields += [self.scale + rounded] if self.scale else []
        fields += [self.accumulator + "trunc" * self.truncate]
        fields += [f"every{self.promote_every}"] if self.promote_every else []
        fields += [f"cut{self.cuts}"] if self.cuts else []
        fields += [_FLOWS[self.stationary]] if self.stationary != "outputs" else []
        return "-".join([*fields, *(["double"] if self.doubled else [])])

    @property
    def pe(self) -> Any:
        """The PE of the simulator that this is. Whether its pipeline or its adder tree is said to have the stages makes
        no difference to its hardware."""
        common: dict[str, Any] = {
            "weights": tuple(self.weights.split("+")),
            "activations": tuple(self.activations.split("+")),
            "lanes": self.lanes,
            "pipeline_depth": 1 + self.cuts,
        }
        if self.promote_every:
            common["promote_every"] = self.promote_every
        if self.align_window is None and self.scale is None:
            return pe_model("mac")(family="mac", accumulator=self.accumulator, **common)
        return pe_model("block_dot")(
            family="block_dot",
            acc_format=self.accumulator,
            align_window=self.align_window,
            scales=tuple((self.scale or "").split("+")) if self.scale else (),
            scale_product_bits=self.scale_product_bits,
            fuse_accumulator=self.fused,
            acc_rounding="truncate" if self.truncate else "nearest",
            **common,
        )

    def components(self) -> list[Component]:
        """The PE as cost tables know it: kind, parameters and events of one unit. Where it applies scales there are
        events of formats with them and, at scales of one, without."""
        bare = [
            (element_format(w), element_format(a))
            for w in self.weights.split("+")
            for a in self.activations.split("+")
        ]
        components: tuple[Component, ...] = self.pe.hardware(
            activation_lines=1,
            weight_lines=1,
            stationary=self.stationary,
            doubled=self.doubled,
            pairs=[*self.pairs, *(bare if self.scale else [])],
        )
        return [component for component in components if component.name == "pe"]

    @property
    def latency(self) -> int:
        """Cycles from the port to the accumulator; to a second level from the step that moves the sum there, which is
        the one behind its last."""
        return 2 + self.cuts - bool(self.promote_every)

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.dot_hardware import DotModule

        return DotModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> tuple[str, ...]:
        """Gaussian operands and a network's of every pair of formats; of the widest, which stand first, also others."""
        of_first = ["zero", *(["rescale"] if self.scale else [])]
        of_first += ["uniform"] if self._holds_all and not self.promote_every else []
        names = [self._stimulus(kind, self.pairs[0]) for kind in of_first]
        for pair in self.pairs:
            kinds = [
                "gaussian",
                *(["often"] if self.promote_every else ["model"] if self._holds(pair) else []),
            ]
            names += [self._stimulus(kind, pair) for kind in kinds]
        if self.stationary != "outputs":
            names += [self._stimulus("preload", pair) for pair in self.pairs]
        return tuple(names)

    def _holds(self, pair: Pair) -> bool:
        """Sums of a network's operands are finite, which come scaled to the largest value unless they are cast."""
        wide = all(format.element.kind == "float" and format.element.bits >= FP16.bits for format in pair)
        return self._holds_all or (wide and self.scale is None)

    @cached_property
    def _holds_all(self) -> bool:
        """Sums of any operands of any formats are finite."""
        to = self.held.float_format
        largest = max(float(w.element.max_value) * float(a.element.max_value) for w, a in self.pairs)
        return to is None or self.lanes * SUM_LENGTH * largest < 2.0**to.high

    @property
    def proofs(self) -> tuple[str, ...]:
        """``formats``: all pairs, one after the other."""
        if self.stationary != "outputs":
            return tuple(self._stimulus("scales", pair) for pair in self.pairs)
        return ("scales", "formats") if len(self.pairs) > 1 else ("scales",)

    def _stimulus(self, kind: str, pair: Pair) -> str:
        return kind if pair == self.pairs[0] else f"{kind} {pair_name(pair)}"

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        if stimulus == "formats":
            parts = [
                operands(self, "scales", max(cycles // len(self.pairs), 6), seed, pair) for pair in self.pairs
            ]
            return self._stream(list(zip(parts, self.pairs, strict=True)))
        kind, _, of = stimulus.partition(" ")
        pair = next((pair for pair in self.pairs if pair_name(pair) == of), self.pairs[0])
        return self._stream([(operands(self, kind, cycles, seed, pair), pair)])

    def _stream(self, parts: list[tuple[Operands, Pair]]) -> Stream:
        """Operands of one pair of formats after those of another."""
        of_parts = [part.ports(self, pair) for part, pair in parts]
        ports = {name: np.concatenate([ports[name] for ports in of_parts]) for name in of_parts[0]}
        return Stream(ports, lambda: expected_sums(self, parts)[: -self.latency])

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Sums as integers of the PE's function."""
        return list(sums_of_codes(self.outgoing, list(outputs["out"])))

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``mac``: the gates, of a lane; ``step``: registers and clock; ``idle``: the clock alone while nothing
        changes; ``group``, ``preload``: what new scales, or a new stationary word, add to an idle cycle."""
        what, _, of = event.removesuffix(_IN_BLOCKS).partition(" ")
        pair = next((pair for pair in self.pairs if pair_name(pair) == of), self.pairs[0])
        suffix = self._stimulus("", pair)
        gaussian, zero = energy["gaussian" + suffix], energy["zero"]
        if self.promote_every and what in ("mac", "step", "promote"):
            return self._two_level_energy(what, gaussian, energy[self._stimulus("often", pair)])
        if what == "mac":
            without = gaussian.combinational_glitch_free_fj / self.lanes
            how = f"gates with glitches, of a lane ({without:.4g} fJ without); Gaussian operands"
            how += on_other_operands(energy, lambda other: other.combinational_timed_fj / self.lanes, suffix)
            return gaussian.combinational_timed_fj / self.lanes, how
        if what == "step":
            how = f"registers ({gaussian.register_fj:.4g} fJ) and clock pins; Gaussian operands"
            how += on_other_operands(energy, lambda other: other.register_fj + other.clock_fj, suffix)
            return gaussian.register_fj + gaussian.clock_fj, how
        if what == "idle":
            return zero.clock_fj, "clock pins while no operand changes"
        if what == "group":
            new = energy["rescale"].total_fj - zero.clock_fj
            return new, "what new scales add to an idle cycle"
        if what == "preload":
            loaded = energy[self._stimulus("preload", pair)].total_fj - zero.clock_fj
            return loaded / self.lanes, "what a new word adds to an idle cycle; Gaussian operands"
        raise InputError(f"no energy is measured for event {event!r} of {self.name}")

    def _two_level_energy(self, what: str, usual: Energy, often: Energy) -> tuple[float, str]:
        """From streams whose accumulator moves every ``promote_every`` steps, and every second: a promotion is what the
        more of them cost in switching without glitches, and everything else is a step's at the usual rate. Glitches are
        no part of it because an accumulator that begins anew more often saves some in the first level."""
        assert self.promote_every is not None
        rates = 1 / self.promote_every, 1 / OFTEN
        more = rates[1] - rates[0]
        gates = (often.combinational_glitch_free_fj - usual.combinational_glitch_free_fj) / more
        rest = (often.register_fj + often.clock_fj - usual.register_fj - usual.clock_fj) / more
        how = f"Gaussian operands, promotions every {self.promote_every} steps less those every {OFTEN}"
        if what == "promote":
            return gates + rest, f"what a promotion adds without glitches; {how}"
        if what == "mac":
            return (usual.combinational_timed_fj - rates[0] * gates) / self.lanes, f"gates, of a lane; {how}"
        return usual.register_fj + usual.clock_fj - rates[0] * rest, f"registers and clock pins; {how}"

    def specification(self) -> dict[str, object]:
        """Everything that decides the hardware, for people who want to compare it with theirs."""
        if not self.is_aligned:
            alignment = "none: integers"
        elif self.lanes == 1 and self.is_floating_sum:
            alignment = "product and accumulator, to the larger exponent"
        elif self.align_window is None:
            alignment = "exact fixed point"
        else:
            width = self.align_window + self.product_bits - self.fraction_bits
            alignment = (
                f"all products once, {self.align_window} bits below the largest exponent, {width} a product"
            )
        return {
            "name": self.name,
            "family": "mac" if self.lanes == 1 else "dot product",
            "weights": self.weights,
            "activations": self.activations,
            "lanes": self.lanes,
            "accumulator": self.accumulator,
            "alignment": alignment,
            "align_window": self.align_window,
            "scales": self.scale,
            "scale_product_bits": self.scale_product_bits,
            "accumulator_aligned_with_products": self.fused,
            "rounding": "towards zero" if self.truncate else "nearest even",
            "promoted_to_fp32_every": self.promote_every,
            "operand_words": {
                side: f"{word.form}, {len(word.layouts)} layout{'s' * word.is_mixed} in {word.bits} bits"
                for side, word in zip(("weights", "activations"), self.words, strict=True)
            },
            "pipeline_cuts": list(self.cut_places[: self.cuts]),
            "latency_cycles": self.latency,
            "stationary": self.stationary,
            "doubled": self.doubled,
            "registers_counted": self._registers(),
        }

    def _registers(self) -> str:
        twice = " (twice)" if self.doubled else ""
        if self.stationary == "outputs":
            scales = ", scales" if self.scale else ""
            return f"operands{scales}, flag of a new sum, cuts, accumulator{twice}"
        return f"streamed operand, stationary operand{twice}, cuts, partial sum"


_FLOWS: dict[Stationary, str] = {"outputs": "os", "weights": "ws", "activations": "is"}
FORM = (
    "mac|dot<lanes>-<weights>[x<activations>][-fix|-al<window>[acc]][-<scale>[to<bits>]]-<accumulator>[trunc]"
    "[-every<n>][-cut<n>][-ws|-is][-double]"
)


def unit_of_name(name: str) -> DotUnit:
    """The unit of a name: ``mac-int4xint8-int32``, ``dot32-fp8_e4m3-al24-e8m0-fp32-cut3``. Raises InputError."""
    kind, *fields = name.split("-")
    lanes = re.fullmatch("mac|dot([1-9][0-9]{0,3})", kind)
    doubled = fields[-1:] == ["double"]
    fields = fields[:-1] if doubled else fields
    flows = {flow: stationary for stationary, flow in _FLOWS.items()}
    stationary = flows.get(fields[-1]) if fields else None
    fields = fields[:-1] if stationary else fields
    cut = re.fullmatch("cut([1-9][0-9]?)", fields[-1]) if fields else None
    fields = fields[:-1] if cut else fields
    every = re.fullmatch("every([1-9][0-9]{0,4})", fields[-1]) if fields else None
    fields = fields[:-1] if every else fields
    truncate = fields[-1:] != [] and fields[-1].endswith("trunc")
    fields = [*fields[:-1], fields[-1].removesuffix("trunc")] if fields else fields
    pair, middle, last = fields[:1], fields[1:-1], fields[-1:]
    window = re.fullmatch("fix|al([1-9][0-9]?)(acc)?", middle[0]) if middle else None
    scale = middle[1:] if window else middle
    if lanes is None or not last or len(fields) < 2 or len(scale) > 1:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    weights, _, activations = pair[0].partition("x")
    rounded = re.fullmatch("(.*[0-9])to([1-9][0-9]?)", scale[0]) if scale else None
    try:
        unit = DotUnit(
            weights=weights,
            activations=activations or weights,
            accumulator=last[0],
            lanes=int(lanes[1] or 1),
            align_window=int(window[1]) if window and window[1] else None,
            scale=rounded[1] if rounded else scale[0] if scale else None,
            scale_product_bits=int(rounded[2]) if rounded else None,
            fused=bool(window and window[2]),
            truncate=truncate,
            promote_every=int(every[1]) if every else None,
            cuts=int(cut[1]) if cut else 0,
            stationary=stationary or "outputs",
            doubled=doubled,
        )
        unit.components()
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
mac-int8-int32 mac-int8-int32-double mac-int8-int32-ws mac-int8-int32-ws-double mac-int8-int32-cut1
mac-int8+int4xint8-int32 mac-int8+int4xint8-int32-double
mac-int8+int4xint8-int32-ws mac-int8+int4xint8-int32-ws-double
mac-int8+int4xint8-int32-is mac-int8+int4xint8-int32-is-double
mac-int4xint8-int32 mac-int2xint8-int32 mac-int4-int32 mac-int4-int16 mac-int16-int48
mac-fp8_e4m3-fixed42 mac-fp8_e4m3-fixed48 mac-fp8_e4m3-fp32 mac-fp8_e4m3-fp32-double mac-fp8_e4m3-fp32-ws
mac-fp8_e4m3-fp32-cut1 mac-fp8_e4m3-fp16 mac-fp8_e5m2-fixed70 mac-fp8_e5m2-fp32
mac-fp6_e3m2-fixed24 mac-fp6_e3m2-fp32 mac-fp6_e2m3-fixed18 mac-fp6_e2m3-fp32
mac-fp4_e2m1-fixed14 mac-fp4_e2m1-fp32 mac-fp16-fp32 mac-fp16-fp32-double mac-fp16-fp32-cut1 mac-bf16-fp32
dot32-int8-int32 dot16-int8+int4-int32-cut2-double dot64-int4-int32-cut2-double dot32-int8-e8m0-fp32
dot32-int8-e8m0-fp32-cut2 dot32-int4-e8m0-fp32-cut2
dot32-fp8_e4m3-al22-e8m0-fp32 dot32-fp8_e4m3-al22-e8m0-fp32-cut3 dot32-fp8_e4m3-fix-e8m0-fp32
dot32-fp8_e4m3-al24-e8m0-fp32 dot32-fp8_e4m3-al24-e8m0-fp32-cut3
dot32-fp8_e5m2-al22-e8m0-fp32-cut3
dot32-fp6_e2m3-fix-e8m0-fp32-cut3 dot32-fp6_e3m2-fix-e8m0-fp32-cut3
dot32-fp4_e2m1-fix-e8m0-fp32 dot32-fp4_e2m1-fix-e8m0-fp32-cut3
dot16-fp4_e2m1-fix-fp8_e4m3-fp32 dot16-fp4_e2m1-fix-fp8_e4m3-fp32-cut2 dot16-int4-fp8_e4m3-fp32
dot16-int4-fp8_e4m3-fp32-cut2
dot32-fp8_e4m3+fp8_e5m2-al13acc-fp16-e8m13trunc-every4-cut5-double
mac-fp16-fp32-cut1-double mac-int4+int8xs14-int32-ws-double mac-int4xfp16-fp32
dot32-int8-int32-cut2-double dot16-fp16-fix-fp32-cut2-double dot64-fp8_e4m3-fix-fp32-cut2-double
dot16-fp8_e4m3+fp8_e5m2+fp6_e2m3+fp6_e3m2+fp4_e2m1-fix-fp32-cut2-double
dot16-fp4_e2m1+int4-fix-fp8_e4m3-fp32-cut4-double dot16-s7+s6+s5+s4+s3+s2-e8-fp32-cut3-double
dot16-int8+int6+int4+int3-uint4+uint6to6-int32-cut2-double
dot32-fp8_e4m3+fp8_e5m2+fp6_e3m2+fp6_e2m3+fp4_e2m1+int8+int6+int4-al22-e8m0-fp32-cut4-double
dot32-fp8_e4m3-al22-fp32-cut4-double dot32-fp8_e4m3-al22-e8m0-fp32-cut4-double dot32-int8-e8m0-fp32-cut3-double
dot32-fp4_e2m1-fix-e8m0-fp32-cut3-double dot16-fp4_e2m1-fix-fp8_e4m3-fp32-cut3-double
dot16-int4-fp8_e4m3-fp32-cut3-double
"""
