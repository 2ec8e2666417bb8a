"""BitMoD as hardware (`simulator.pe.bitmod`): its PE, and what stands beside the PEs of a tile.

Yuzong Chen et al., "BitMoD: Bit-serial Mixture-of-Datatype LLM Acceleration", HPCA 2025, section IV. Four units, as the
cost model counts them: the PE with its three pipeline stages; the encoder of a row, decoder and Booth encoder in one;
the unit that multiplies a group's sum by its scale; the adder of a tile's column with the outputs. `bitmod_hardware`
builds them, `bitmod_operands` makes their streams and says by the PE's function what must come out.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from simulator.config import validate
from simulator.errors import InputError
from simulator.hardware.structure import Component
from simulator.pe import pe_model
from simulator.pe.accumulator import accumulator
from simulator.pe.arithmetic import FP16
from simulator.pe.bitmod_terms import cycles_of
from simulator.pe.elements import element_format
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Energy, Stream, Unit, on_other_operands
from simulator.rtl.units import bitmod_operands as operands
from simulator.rtl.units.bitmod_operands import BSIG_BITS, TERM_BITS
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.naming import refused

__all__ = [
    "BSIG_BITS",
    "TERM_BITS",
    "BitModUnit",
    "DequantizerUnit",
    "EncoderUnit",
    "GroupAdderUnit",
    "unit_of_name",
]

ELEMENTS = (
    "bitmod_fp4",
    "bitmod_fp3",
    "fp4_e2m1",
    "e2m0",
    *(f"int{bits}" for bits in range(8, 1, -1)),
)
"""All elements that the encoder takes."""


class _BitModPart(Unit):
    """What the four units share: the PE that they belong to, and the component of it that they price."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def pe(self) -> Any:
        """The PE of the simulator."""

    def _pe(self, **parameters: Any) -> Any:
        elements = {"weights": ELEMENTS, "activations": "fp16"}
        return validate(pe_model("bitmod"), {"family": "bitmod", **elements, **parameters})

    def _component(self, doubled: bool = False) -> list[Component]:
        pairs = [(element_format(name), element_format("fp16")) for name in ELEMENTS]
        found = self.pe.hardware(
            weight_lines=1, activation_lines=1, stationary="outputs", doubled=doubled, pairs=pairs
        )
        return [component for component in found if component.kind == self.kind]

    def components(self) -> list[Component]:
        return self._component()

    def _specified(self, registers: str, **more: object) -> dict[str, object]:
        common: dict[str, object] = {
            "name": self.name,
            "family": self.kind,
            "weights": " ".join(ELEMENTS),
            "activations": "fp16",
            "lanes": self.lanes,
            "accumulator": "none",
            "alignment": "none",
            "scales": None,
            "pipeline_cuts": [],
            "latency_cycles": self.latency,
            "registers_counted": registers,
        }
        return common | more


@dataclass(frozen=True)
class BitModUnit(_BitModPart):
    """The PE."""

    lanes: int = 4
    guard_bits: int = 3
    accumulator: str = "fp32"
    stages: int = 3
    """Four: the sum of the lanes is normalised in a stage of its own."""
    kind = "bitmod"

    @property
    def name(self) -> str:
        name = f"bitmod-l{self.lanes}-guard{self.guard_bits}-{self.accumulator}"
        return name + (f"-stages{self.stages}" if self.stages != 3 else "")

    @property
    def pe(self) -> Any:
        return self._pe(
            lanes=self.lanes,
            guard_bits=self.guard_bits,
            accumulator=self.accumulator,
            stages=self.stages,
        )

    @property
    def latency(self) -> int:
        """From terms at the port to the group's sum."""
        return 1 + self.stages

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.bitmod_hardware import BitModModule

        return BitModModule(self, adder, fast=fast)

    @property
    def _holds_all(self) -> bool:
        """Sums of any FP16 activations are finite."""
        return accumulator(self.accumulator).exponent_bits > FP16.bits - FP16.precision

    @property
    def stimuli(self) -> Sequence[str]:
        kinds = ("gaussian", *(("uniform",) if self._holds_all else ()), "model")
        return (*(f"{kind} {name}" for name in ELEMENTS for kind in kinds), "zero")

    @property
    def proofs(self) -> Sequence[str]:
        kinds = ("uniform", "corners") if self._holds_all else ("gaussian",)
        return tuple(f"{kind} {name}" for name in ("bitmod_fp4", "int8") for kind in kinds)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        kind, _, name = stimulus.partition(" ")
        return operands.pe_stream(self, kind, name, cycles, seed)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        return list(sums_of_codes(self.pe.sums, list(outputs["out"])))

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``step``: all of the PE in the cycles of a step; ``idle``: the clock alone while nothing changes."""
        what, _, name = event.partition(" ")
        if what == "idle":
            return energy["zero"].clock_fj, "clock pins while no operand changes"
        cycles = cycles_of(element_format(name).element)
        gaussian = energy[f"gaussian {name}"]
        without = gaussian.total_fj - gaussian.combinational_timed_fj + gaussian.combinational_glitch_free_fj
        return cycles * gaussian.total_fj, (
            f"{cycles} cycles of {gaussian.total_fj:.4g} fJ with clock and glitches ({without:.4g} fJ without); "
            "Gaussian weights and activations"
            + on_other_operands(energy, lambda of: cycles * of.total_fj, f" {name}")
        )

    def specification(self) -> dict[str, object]:
        return self._specified(
            "activations, terms, ranks between the stages, sum of the group",
            accumulator=self.accumulator,
            alignment=f"all lanes once a cycle, {self.guard_bits} bits below FP16's last, to nearest even",
            pipeline_cuts=["exponent", "tree", *(["normalise"] if self.stages > 3 else [])],
            guard_bits=self.guard_bits,
            cycles_of_a_step={name: cycles_of(element_format(name).element) for name in ELEMENTS},
        )


@dataclass(frozen=True)
class EncoderUnit(_BitModPart):
    """The encoder of the weights of one row of PEs."""

    lanes: int = 4
    kind = "bitmod_encoder"

    @property
    def name(self) -> str:
        return f"bitmod_encoder-l{self.lanes}"

    @property
    def pe(self) -> Any:
        return self._pe(lanes=self.lanes)

    @property
    def latency(self) -> int:
        return 2

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.bitmod_hardware import EncoderModule

        return EncoderModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        return (
            *(f"{kind} {name}" for name in ELEMENTS for kind in ("gaussian", "model")),
            f"zero {ELEMENTS[0]}",
        )

    @property
    def proofs(self) -> Sequence[str]:
        return tuple(f"uniform {name}" for name in ELEMENTS)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        kind, _, name = stimulus.partition(" ")
        return operands.encoder_stream(self, kind, name, cycles, seed)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        return operands.read_terms(self, outputs["terms"], outputs["bsig"])

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``encode``: one lane's share of the cycles of a step."""
        name = event.partition(" ")[2]
        cycles, mean = cycles_of(element_format(name).element), energy[f"gaussian {name}"].total_fj
        return cycles * mean / self.lanes, (
            f"a lane's share of {cycles} cycles of {mean:.4g} fJ, clock included; Gaussian weights"
            + on_other_operands(energy, lambda of: cycles * of.total_fj / self.lanes, f" {name}")
        )

    def specification(self) -> dict[str, object]:
        return self._specified("weights, selector, mode, special values, terms, bsig")


@dataclass(frozen=True)
class DequantizerUnit(_BitModPart):
    """The unit that multiplies the sum of a group by its integer scale, a bit a cycle."""

    bits: int = 8
    accumulator: str = "fp32"
    kind = "bitmod_dequantizer"

    @property
    def name(self) -> str:
        return f"bitmod_dequantizer-scale{self.bits}-{self.accumulator}"

    @property
    def pe(self) -> Any:
        return self._pe(scale_bits=self.bits, accumulator=self.accumulator)

    @property
    def latency(self) -> int:
        """From a sum at the port to its product."""
        return self.bits

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.bitmod_hardware import DequantizerModule

        return DequantizerModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        return ("gaussian", "uniform", "zero")

    @property
    def proofs(self) -> Sequence[str]:
        return ("gaussian", "uniform", "corners")

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        return operands.dequantizer_stream(self, stimulus, cycles, seed)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Products in the cycles in which they are complete."""
        return [
            operands.product_value(self, code) if cycle % self.bits == 0 else None
            for cycle, code in enumerate(outputs["product"])
        ]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``scale``: one group."""
        mean, uniform = energy["gaussian"].total_fj, energy["uniform"].total_fj
        return self.bits * mean, (
            f"{self.bits} cycles of {mean:.4g} fJ, clock included; Gaussian sums, scales of Gaussian weights "
            f"(uniform scales: {uniform:.4g} fJ)"
        )

    def specification(self) -> dict[str, object]:
        return self._specified(
            "sum, product with what is left of the scale",
            accumulator=self.accumulator,
            scales=f"integers of {self.bits} bits, one bit a cycle",
        )


@dataclass(frozen=True)
class GroupAdderUnit(_BitModPart):
    """The adder of scaled sums of a tile's column, with the column's outputs."""

    bits: int = 8
    tile: int = 8
    accumulator: str = "fp32"
    cuts: int = 4
    """Ranks of registers through the adder."""
    doubled: bool = False
    """A second set of outputs keeps finished ones."""
    kind = "bitmod_group_adder"
    cut_places: ClassVar[tuple[str, ...]] = ("align", "add", "round", "normalise", "compare")
    """Of `simulator.rtl.staged_add`, in the order in which ``cuts`` takes them."""

    def __post_init__(self) -> None:
        if self.cuts > len(self.cut_places):
            raise InputError("cuts of this adder", value=self.cuts, allowed=f"0 to {len(self.cut_places)}")

    @property
    def name(self) -> str:
        fields = ["bitmod_group_adder", f"scale{self.bits}", f"tile{self.tile}", self.accumulator]
        fields += [f"cut{self.cuts}"] if self.cuts else []
        return "-".join([*fields, *(["double"] if self.doubled else [])])

    @property
    def pe(self) -> Any:
        return self._pe(
            scale_bits=self.bits, tile=self.tile, accumulator=self.accumulator, adder_stages=1 + self.cuts
        )

    @property
    def outputs(self) -> int:
        return self.tile * (2 if self.doubled else 1)

    @property
    def burst(self) -> int:
        """Cycles from the products of a group to those of the next, at the least."""
        return max(self.tile, 1 + self.cuts)

    @property
    def latency(self) -> int:
        """From a product at the port to the output that holds it."""
        return 2 + self.cuts

    def components(self) -> list[Component]:
        return self._component(self.doubled)

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.bitmod_hardware import GroupAdderModule

        return GroupAdderModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        return ("gaussian", "zero")

    @property
    def proofs(self) -> Sequence[str]:
        return ("gaussian", "uniform", "corners")

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        return operands.adder_stream(self, stimulus, cycles, seed)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        return list(sums_of_codes(self.pe.sums, list(outputs["out"])))

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``add``: a cycle with an addition."""
        mean = energy["gaussian"]
        adding = (mean.total_fj - mean.clock_fj) * self.burst / self.tile
        return adding + mean.clock_fj, (
            f"a cycle, clock included ({mean.clock_fj:.4g} fJ); products of Gaussian sums and scales of Gaussian "
            "weights"
        )

    def specification(self) -> dict[str, object]:
        return self._specified(
            f"product taken, {self.outputs} outputs",
            accumulator=self.accumulator,
            scales=f"products with integers of {self.bits} bits",
            pipeline_cuts=list(self.cut_places[: self.cuts]),
            doubled=self.doubled,
            products=self.tile,
        )


def _pe_of(lanes: str, guard_bits: str, accumulator: str, stages: str | None) -> Unit:
    return BitModUnit(int(lanes), int(guard_bits), accumulator, int(stages or 3))


def _encoder_of(lanes: str) -> Unit:
    return EncoderUnit(int(lanes))


def _dequantizer_of(bits: str, accumulator: str) -> Unit:
    return DequantizerUnit(int(bits), accumulator)


def _group_adder_of(bits: str, tile: str, accumulator: str, cuts: str | None, double: str | None) -> Unit:
    return GroupAdderUnit(int(bits), int(tile), accumulator, int(cuts or 0), double is not None)


_FORMS: Mapping[str, Callable[..., Unit]] = {
    r"bitmod-l([1-9]\d?)-guard(\d{1,2})-(\w+)(?:-stages(\d))?": _pe_of,
    r"bitmod_encoder-l([1-9]\d?)": _encoder_of,
    r"bitmod_dequantizer-scale([1-9]\d?)-(\w+)": _dequantizer_of,
    r"bitmod_group_adder-scale([1-9]\d?)-tile([1-9]\d{0,2})-(\w+)(?:-cut([1-9]\d?))?(-double)?": _group_adder_of,
}
FORM = (
    "bitmod-l<lanes>-guard<bits>-<accumulator>[-stages4], bitmod_encoder-l<lanes>, "
    "bitmod_dequantizer-scale<bits>-<accumulator>, "
    "bitmod_group_adder-scale<bits>-tile<PEs>-<accumulator>[-cut<n>][-double]"
)
WORDS = ("bitmod", "bitmod_encoder", "bitmod_dequantizer", "bitmod_group_adder")


def unit_of_name(name: str) -> Unit:
    """The unit of a name: ``bitmod-l4-guard3-fp32``. Raises InputError."""
    for form, build in _FORMS.items():
        found = re.fullmatch(form, name)
        if found is None:
            continue
        try:
            unit = build(*found.groups())
            unit.components()
        except ValueError as error:
            raise refused(error, name) from None
        return unit
    raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)


DEFAULT = """
bitmod-l4-guard3-fp32 bitmod-l4-guard3-fp32-stages4
bitmod_encoder-l4 bitmod_dequantizer-scale8-fp32 bitmod_group_adder-scale8-tile8-fp32-cut4-double
"""
