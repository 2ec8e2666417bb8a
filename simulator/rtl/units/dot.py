"""Multiply-accumulate units and dot products: `simulator.pe.mac` and `simulator.pe.block_dot` as hardware.

A `DotUnit` is one configuration: operand registers, arithmetic and accumulator inside. `dot_hardware` builds it,
`dot_operands` makes its streams, `dot_function` says by the PE's own function what must come out.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.errors import InputError, nearest
from simulator.formats import Format, get_format
from simulator.formats.element import Element
from simulator.hardware.structure import Component
from simulator.pe import pe_model
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Stationary
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Energy, Stream, Unit
from simulator.rtl.units.dot_function import expected_sums, sums_of_codes
from simulator.rtl.units.dot_operands import operands

SCALES = ("e8m0", "fp8_e4m3")
"""Scale formats that units multiply by."""


@dataclass(frozen=True)
class DotUnit(Unit):
    """One PE to be built and characterised."""

    weights: str
    """Element format, as `simulator.pe.elements` names it; several integers with + between, the widest decides the
    hardware: int8+int4."""
    activations: str
    accumulator: str
    lanes: int = 1
    align_window: int | None = None
    """Bits kept below the largest exponent of the lanes' products; None: exact fixed point."""
    scale: str | None = None
    """Format of both operands' block scales, applied to the sum of the lanes."""
    cuts: int = 0
    """Ranks of registers through the data path; see `cut_places`."""
    stationary: Stationary = "outputs"
    """Weights or activations: that operand is held, and a partial sum comes from the neighbour."""
    doubled: bool = False
    """A second accumulator keeps a finished sum, or a second register the next stationary operand."""

    def __post_init__(self) -> None:
        allowed = len(self.cut_places)
        if not 0 <= self.cuts <= allowed:
            raise InputError(
                "pipeline cuts of this unit", key="cuts", value=self.cuts, allowed=f"0 to {allowed}"
            )
        if self.scale is not None and self.scale not in SCALES:
            raise InputError(
                "scales of this unit", key="scale", value=self.scale, allowed=nearest(self.scale, SCALES)
            )
        if (self.scale is not None or self.align_window is not None) and self.held.float_format is None:
            raise InputError(
                "scales and windows need a floating-point accumulator",
                key="accumulator",
                value=self.accumulator,
            )
        for element in (self.weight, self.activation):
            if element.kind not in ("int", "uint", "float") or element.kind != self.weight.kind:
                raise InputError(
                    "no hardware description of this pair of elements",
                    value=f"{self.weights} x {self.activations}",
                    allowed="two integers of one signedness, or two floats",
                )
            if element.kind == "float" and "+" in self.weights + self.activations:
                raise InputError("floats share no hardware", value=f"{self.weights} x {self.activations}")
        if self.stationary != "outputs" and self.scale is not None:
            raise InputError("scales need stationary outputs", key="stationary", value=self.stationary)
        if self.align_window is not None and self.is_integer:
            raise InputError("integers are not aligned", key="align_window", value=self.align_window)
        if self.held.integers_only and not self.is_integer:
            raise InputError("an accumulator of integers", key="accumulator", value=self.accumulator)

    @property
    def weight(self) -> Element:
        return self._widest(self.weights)

    @property
    def activation(self) -> Element:
        return self._widest(self.activations)

    def _widest(self, names: str) -> Element:
        return max(
            (self.format_of(name).element for name in names.split("+")), key=lambda element: element.bits
        )

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

    def format_of(self, element: str) -> Format:
        """A format with this element and the unit's scales, as the PE's ``function`` wants it."""
        if self.scale is None:
            return element_format(element)
        prefix = "mx" if self.scale == "e8m0" else "nv"
        return get_format(prefix + element)

    @property
    def held(self) -> Accumulator:
        return accumulator(self.accumulator)

    @property
    def is_integer(self) -> bool:
        return self.weight.is_integer

    @property
    def cut_places(self) -> tuple[str, ...]:
        """Where the data path may be cut, in the order in which ``cuts`` takes them."""
        floating = self.held.float_format is not None
        if self.lanes == 1:
            return ("multiply",) if floating or self.is_integer else ("multiply", "align")
        if self.is_integer:
            return ("tree", "multiply") if floating else ("multiply", "tree")
        exponent = () if self.align_window is None else ("exponent",)
        return ("tree", "align", "multiply", *exponent)

    @property
    def name(self) -> str:
        """What commands and tables call it; `unit_of_name` reads it."""
        pair = self.weights if self.weights == self.activations else f"{self.weights}x{self.activations}"
        align = []
        if not self.is_integer and self.held.float_format is not None and self.lanes > 1:
            align = ["fix" if self.align_window is None else f"al{self.align_window}"]
        fields = ["mac" if self.lanes == 1 else f"dot{self.lanes}", pair, *align]
        fields += [self.scale] if self.scale else []
        fields += [self.accumulator, *([f"cut{self.cuts}"] if self.cuts else [])]
        fields += [_FLOWS[self.stationary]] if self.stationary != "outputs" else []
        return "-".join([*fields, *(["double"] if self.doubled else [])])

    @property
    def pe(self) -> Any:
        """The PE of the simulator that this is. Whether its pipeline or its adder tree is said to have the stages makes
        no difference to its hardware."""
        common = {
            "weights": tuple(self.weights.split("+")),
            "activations": tuple(self.activations.split("+")),
            "lanes": self.lanes,
            "pipeline_depth": 1 + self.cuts,
        }
        if self.align_window is None and self.scale is None:
            return pe_model("mac")(family="mac", accumulator=self.accumulator, **common)
        return pe_model("block_dot")(
            family="block_dot",
            acc_format=self.accumulator,
            align_window=self.align_window,
            scales=() if self.scale is None else (self.scale,),
            **common,
        )

    def components(self) -> list[Component]:
        """The PE as cost tables know it: kind, parameters and events of one unit."""
        components: tuple[Component, ...] = self.pe.hardware(
            activation_lines=1,
            weight_lines=1,
            stationary=self.stationary,
            doubled=self.doubled,
            pairs=self.pairs,
        )
        return [component for component in components if component.name == "pe"]

    @property
    def latency(self) -> int:
        """Cycles from the port to the accumulator."""
        return 2 + self.cuts

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.dot_hardware import DotModule

        return DotModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> tuple[str, ...]:
        """Of every pair of formats: those of the widest first, those of others with their names behind."""
        kinds = ["gaussian", "uniform", "zero"]
        kinds += ["rescale"] if self.scale else []
        kinds += ["preload"] if self.stationary != "outputs" else []
        return tuple(self._stimulus(kind, pair) for pair in self.pairs for kind in kinds)

    @property
    def proofs(self) -> tuple[str, ...]:
        return tuple(self._stimulus("scales", pair) for pair in self.pairs)

    def _stimulus(self, kind: str, pair: Pair) -> str:
        return kind if pair == self.pairs[0] else f"{kind} {pair_name(pair)}"

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        kind, _, of = stimulus.partition(" ")
        pair = next((pair for pair in self.pairs if pair_name(pair) == of), self.pairs[0])
        stream = operands(self, kind, cycles, seed, pair)
        return Stream(stream.ports(self), lambda: expected_sums(self, stream, pair)[: -self.latency])

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Sums as integers of the PE's function."""
        return list(sums_of_codes(self.held, list(outputs["out"])))

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``mac``: the gates, of a lane; ``step``: registers and clock; ``idle``: the clock alone while nothing
        changes; ``group``, ``preload``: what new scales, or a new stationary word, add to an idle cycle."""
        what, _, of = event.partition(" ")
        pair = next((pair for pair in self.pairs if of.startswith(pair_name(pair))), self.pairs[0])
        gaussian, zero = (energy[self._stimulus(kind, pair)] for kind in ("gaussian", "zero"))
        if what == "mac":
            without = gaussian.combinational_glitch_free_fj / self.lanes
            return (
                gaussian.combinational_timed_fj / self.lanes,
                f"gates with glitches, of a lane ({without:.4g} fJ without); Gaussian operands",
            )
        if what == "step":
            return gaussian.register_fj + gaussian.clock_fj, "registers and clock pins; Gaussian operands"
        if what == "idle":
            return zero.clock_fj, "clock pins while no operand changes"
        if what == "group":
            new = energy[self._stimulus("rescale", pair)].total_fj - zero.clock_fj
            return new, "what new scales add to an idle cycle"
        if what == "preload":
            loaded = energy[self._stimulus("preload", pair)].total_fj - zero.clock_fj
            return loaded / self.lanes, "what a new word adds to an idle cycle; Gaussian operands"
        raise InputError(f"no energy is measured for event {event!r} of {self.name}")

    def specification(self) -> dict[str, object]:
        """Everything that decides the hardware, for people who want to compare it with theirs."""
        floating = self.held.float_format is not None
        if self.is_integer:
            alignment = "none: integers"
        elif self.lanes == 1 and floating:
            alignment = "product and accumulator, to the larger exponent"
        elif self.align_window is None:
            alignment = "exact fixed point"
        else:
            width = self.align_window + 2
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
FORM = "mac|dot<lanes>-<weights>[x<activations>][-fix|-al<window>][-<scale>]-<accumulator>[-cut<n>][-ws|-is][-double]"


def unit_of_name(name: str) -> DotUnit:
    """The unit of a name: ``mac-int4xint8-int32``, ``dot32-fp8_e4m3-al24-e8m0-fp32-cut3``. Raises InputError."""
    kind, *fields = name.split("-")
    lanes = re.fullmatch("mac|dot([1-9][0-9]{0,3})", kind)
    doubled = fields[-1:] == ["double"]
    fields = fields[:-1] if doubled else fields
    flows = {flow: stationary for stationary, flow in _FLOWS.items()}
    stationary = flows.get(fields[-1]) if fields else None
    fields = fields[:-1] if stationary else fields
    cut = re.fullmatch("cut([1-9])", fields[-1]) if fields else None
    fields = fields[:-1] if cut else fields
    pair, middle, last = fields[:1], fields[1:-1], fields[-1:]
    window = re.fullmatch("fix|al([1-9][0-9]?)", middle[0]) if middle else None
    scale = middle[1:] if window else middle
    if lanes is None or not last or len(fields) < 2 or len(scale) > 1:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    weights, _, activations = pair[0].partition("x")
    try:
        unit = DotUnit(
            weights=weights,
            activations=activations or weights,
            accumulator=last[0],
            lanes=int(lanes[1] or 1),
            align_window=int(window[1]) if window and window[1] else None,
            scale=scale[0] if scale else None,
            cuts=int(cut[1]) if cut else 0,
            stationary=stationary or "outputs",
            doubled=doubled,
        )
        unit.components()
    except ValueError as error:
        reason = error.problem if isinstance(error, InputError) else str(error).splitlines()[-1].strip()
        allowed = error.allowed if isinstance(error, InputError) else None
        raise InputError(f"no such unit: {reason}", key="--unit", value=name, allowed=allowed) from None
    if unit.name != name:
        raise InputError("not how the unit is called", key="--unit", value=name, allowed=unit.name)
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
dot32-fp8_e4m3-al22-e8m0-fp32 dot32-fp8_e4m3-al22-e8m0-fp32-cut3 dot32-fp8_e4m3-al24-e8m0-fp32
dot32-fp8_e4m3-al24-e8m0-fp32-cut3 dot32-fp8_e4m3-fix-e8m0-fp32 dot32-fp8_e5m2-al22-e8m0-fp32-cut3
dot32-fp6_e2m3-fix-e8m0-fp32-cut3 dot32-fp6_e3m2-fix-e8m0-fp32-cut3
dot32-fp4_e2m1-fix-e8m0-fp32 dot32-fp4_e2m1-fix-e8m0-fp32-cut3
dot16-fp4_e2m1-fix-fp8_e4m3-fp32 dot16-fp4_e2m1-fix-fp8_e4m3-fp32-cut2 dot16-int4-fp8_e4m3-fp32
dot16-int4-fp8_e4m3-fp32-cut2
"""
