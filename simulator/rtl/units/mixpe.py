"""MixPE as hardware (`simulator.pe.mixpe`): shift and add of a narrow integer weight, and an accumulator.

Yu Zhang et al., "MixPE: Quantization and Hardware Co-design for Efficient LLM Inference", arXiv 2411.16158, 2024.
`mixpe_hardware` builds a unit; what must come out says the PE's function.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats.element import Element, decode_integers
from simulator.hardware.structure import Component
from simulator.pe import pe_model
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.elements import element_format
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Codes, Energy, Stream, Unit, on_other_operands, port_bits
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.dot_operands import SUM_LENGTH, operand_codes
from simulator.rtl.units.naming import refused


@dataclass(frozen=True)
class MixUnit(Unit):
    """One PE."""

    weights: str
    """An integer of at most 8 bits."""
    activations: str
    """An integer, or a float."""
    accumulator: str
    doubled: bool = False
    """A second accumulator keeps a finished sum."""

    def __post_init__(self) -> None:
        reason = self.pe.accepts(element_format(self.weights), element_format(self.activations))
        if reason:
            raise InputError(reason, value=f"{self.weights} x {self.activations}")
        if self.activation.is_integer == (self.held.float_format is not None):
            raise InputError(
                "integers are added up in two's complement, floats in floating point",
                key="accumulator",
                value=self.accumulator,
            )

    @property
    def weight(self) -> Element:
        return element_format(self.weights).element

    @property
    def activation(self) -> Element:
        return element_format(self.activations).element

    @property
    def held(self) -> Accumulator:
        return accumulator(self.accumulator)

    @property
    def name(self) -> str:
        name = f"mixpe-{self.weights}x{self.activations}-{self.accumulator}"
        return name + ("-double" if self.doubled else "")

    @property
    def pe(self) -> Any:
        """The PE of the simulator that this is."""
        parameters = {"weights": self.weights, "activations": self.activations}
        return validate(pe_model("mixpe"), {"family": "mixpe", "accumulator": self.accumulator, **parameters})

    @property
    def latency(self) -> int:
        """From operands at the ports to the sum that holds their product."""
        return 2

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.mixpe_hardware import MixModule

        return MixModule(self, adder, fast=fast)

    @property
    def _holds_all(self) -> bool:
        """Sums of any activations are finite."""
        return self.activation.is_integer or self.held.exponent_bits > self.activation.exponent_bits

    @property
    def stimuli(self) -> Sequence[str]:
        return ("gaussian", *(("uniform", "model") if self._holds_all else ()), "zero")

    @property
    def proofs(self) -> Sequence[str]:
        return ("gaussian", "uniform", "model", "corners") if self._holds_all else ("gaussian",)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        """Operands of `simulator.rtl.units.dot_operands`; ``corners``: the largest and smallest of both signs, zeros
        and subnormal numbers. A new sum begins every 64th cycle."""
        rng = np.random.default_rng([seed, stimulus == "uniform"])
        if stimulus == "corners":
            weights, activations = (_corners(e, rng, cycles) for e in (self.weight, self.activation))
        else:
            activations = operand_codes(self.activation, "activations", stimulus, rng, (cycles,))
            weights = operand_codes(self.weight, "weights", stimulus, rng, (cycles,))
        first = np.arange(cycles) % SUM_LENGTH == 0
        ports = {
            "a": port_bits(activations, self.activation.bits),
            "w": port_bits(weights, self.weight.bits),
            "first": port_bits(first.astype(np.int64), 1),
        }
        return Stream(ports, lambda: self._sums(activations, weights, first)[: -self.latency])

    def _sums(self, activations: Codes, weights: Codes, first: Codes) -> list[Hashable]:
        """By the PE's function, after each cycle."""
        function = self.pe.function(element_format(self.weights), element_format(self.activations))
        a, w = (
            decode_integers(element, codes[:, None])[0]
            for element, codes in ((self.activation, activations), (self.weight, weights))
        )
        state = np.zeros((1, function.words), function.dtype)
        sums: list[int] = []
        finished = [0]
        for cycle, begins in enumerate(first):
            if begins:
                finished.append(sums[-1] if sums else 0)
                state = np.zeros((1, function.words), function.dtype)
            now = slice(cycle, cycle + 1)
            state = function.step(state, a[now], w[now])
            sums.append(int(function.result(state)[0]))
        return [finished[count] for count in np.cumsum(first)] if self.doubled else list(sums)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Sums as integers of the PE's function."""
        return list(sums_of_codes(self.held, list(outputs["out"])))

    def components(self) -> list[Component]:
        pair = (element_format(self.weights), element_format(self.activations))
        return list(
            self.pe.hardware(
                weight_lines=1, activation_lines=1, stationary="outputs", doubled=self.doubled, pairs=[pair]
            )
        )

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """As of a MAC: ``mac``: the gates; ``step``: registers and clock; ``idle``: the clock while nothing changes."""
        what = event.partition(" ")[0]
        gaussian = energy["gaussian"]
        if what == "mac":
            return gaussian.combinational_timed_fj, (
                f"gates with glitches ({gaussian.combinational_glitch_free_fj:.4g} fJ without); Gaussian operands"
                + on_other_operands(energy, lambda other: other.combinational_timed_fj)
            )
        if what == "step":
            return gaussian.register_fj + gaussian.clock_fj, (
                f"registers ({gaussian.register_fj:.4g} fJ) and clock pins; Gaussian operands"
                + on_other_operands(energy, lambda other: other.register_fj + other.clock_fj)
            )
        if what == "idle":
            return energy["zero"].clock_fj, "clock pins while no operand changes"
        raise InputError(f"no energy is measured for event {event!r} of {self.name}")

    def specification(self) -> dict[str, object]:
        floating = not self.activation.is_integer
        return {
            "name": self.name,
            "family": "mixpe",
            "weights": self.weights,
            "activations": self.activations,
            "lanes": 1,
            "accumulator": self.accumulator,
            "alignment": "product and accumulator, to the larger exponent" if floating else "none: integers",
            "scales": None,
            "pipeline_cuts": [],
            "latency_cycles": self.latency,
            "doubled": self.doubled,
            "registers_counted": f"operands, flag of a new sum, accumulator{' (twice)' if self.doubled else ''}",
        }


def _corners(element: Element, rng: np.random.Generator, cycles: int) -> Codes:
    top = element.max_code
    if element.kind == "int":
        return rng.choice([0, 1, -1, top, -top - 1], cycles)
    if element.kind == "uint":
        return rng.choice([0, 1, top], cycles)
    magnitudes = rng.choice([0, 1, (1 << element.mantissa_bits) - 1, 1 << element.mantissa_bits, top], cycles)
    codes: Codes = magnitudes | rng.integers(0, 2, cycles) << (element.bits - 1)
    return codes


FORM = "mixpe-<weights>x<activations>-<accumulator>[-double]"
WORDS = ("mixpe",)


def unit_of_name(name: str) -> MixUnit:
    """The unit of a name: ``mixpe-int4xint8-int32-double``. Raises InputError."""
    found = re.fullmatch(r"mixpe-(u?int\d+)x(\w+)-(\w+?)(-double)?", name)
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    try:
        unit = MixUnit(found[1], found[2], found[3], bool(found[4]))
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = "mixpe-int4xint8-int32-double mixpe-int4xfp16-fp32-double"
