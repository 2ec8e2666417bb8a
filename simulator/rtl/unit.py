"""What a piece of hardware tells the flow that builds, proves and measures it.

A `Unit` is one configuration of a circuit, exactly specified: its name, its description in Amaranth, streams of
operands for its ports, what must then be at its outputs, and which rows of a cost table its figures fill. Families of
units stand in `simulator.rtl.units`; `simulator.rtl.characterise` knows nothing else of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from simulator.hardware.structure import Component
from simulator.rtl.cells import FullAdder

Bits = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int64]
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Energy:
    """Of a mean cycle, in fJ."""

    combinational_glitch_free_fj: float
    combinational_timed_fj: float
    register_fj: float
    clock_fj: float

    @property
    def total_fj(self) -> float:
        """With timed gates."""
        return self.combinational_timed_fj + self.register_fj + self.clock_fj

    @property
    def split(self) -> str:
        """What the total is made of."""
        return (
            f"gates {self.combinational_timed_fj:.4g} fJ ({self.combinational_glitch_free_fj:.4g} without glitches), "
            f"registers {self.register_fj:.4g}, clock pins {self.clock_fj:.4g}"
        )


def on_other_operands(
    measured: Mapping[str, Measured], figure: Callable[[Measured], float], of: str = ""
) -> str:
    """For a note: what a row's figure, which is of Gaussian operands, is on the others that there are streams of.
    ``measured``: by stimulus; ``of``: what follows the kind in its name."""
    others = {"uniform": "uniform ones", "model": "those of MiniLM"}
    found = [
        f"{words}: {figure(measured[kind + of]):.4g} fJ"
        for kind, words in others.items()
        if kind + of in measured
    ]
    return f" ({', '.join(found)})" if found else ""


@dataclass(frozen=True)
class Stream:
    """Operands of consecutive cycles."""

    ports: Mapping[str, Bits]
    """{input port: (cycles, bits)}, lowest bit first."""
    expected: Callable[[], Sequence[Hashable]]
    """What `Unit.read` must find in cycle `Unit.latency` and after it, as far as the stream goes; from an oracle that
    is not this description (the PE's own function, a format's decoder), and computed only when asked for."""

    @property
    def cycles(self) -> int:
        return len(next(iter(self.ports.values())))


class Unit(ABC):
    """One circuit to be built, proved and measured."""

    lanes: int = 1
    """Copies of the same thing in it: wide units are simulated for fewer cycles, their energies average out."""

    @property
    def is_part(self) -> bool:
        """A circuit between bare ports. What it drives counts the charge of its own pins, so its outputs are measured
        without a load; no clock period is its own."""
        return False

    @property
    @abstractmethod
    def name(self) -> str:
        """What commands and tables call it; `simulator.rtl.units.unit_of_name` reads it."""

    @property
    @abstractmethod
    def latency(self) -> int:
        """Cycles from operands at the ports to the output that they decide."""

    @abstractmethod
    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        """The Amaranth module, with ``ports``, the clock ``clk`` among them; full adders of a library's cells, or of
        logic. ``fast``: for a tight clock, where adders and normalisers are built for speed."""

    @property
    @abstractmethod
    def stimuli(self) -> Sequence[str]:
        """Names of the streams on which energies are measured."""

    @property
    def proofs(self) -> Sequence[str]:
        """Names of the streams on which hardware and gates are held against ``expected``."""
        return self.stimuli

    @abstractmethod
    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        """The stream of a name; the same for the same arguments."""

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """What is compared with ``expected``, cycle by cycle, of the words at the output ports."""
        return list(zip(*outputs.values(), strict=True))

    @abstractmethod
    def components(self) -> list[Component]:
        """What its figures price: kind, parameters and events of components of accelerators. Several where these name
        one circuit differently."""

    @abstractmethod
    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """(fJ, how it was measured) of an event of its components, from the energies of the stimuli."""

    @abstractmethod
    def specification(self) -> dict[str, object]:
        """Everything that decides the hardware, for people who want to compare it with theirs: name, family, weights,
        activations, lanes, accumulator, alignment, scales, pipeline_cuts, latency_cycles, registers_counted, and what
        else there is to say."""


def port_bits(codes: Codes, width: int) -> Bits:
    """(cycles, lanes) or (cycles,) -> (cycles, lanes * width), lane 0 lowest; two's complement of negative codes."""
    spread = codes.astype(np.int64)[..., None] >> np.minimum(np.arange(width), 63) & 1
    return spread.reshape(len(codes), -1).astype(np.uint8)


def port_words(bits: Bits) -> list[int]:
    """(cycles, bits), lowest first -> unsigned numbers."""
    return [int("".join(map(str, row[::-1])), 2) for row in bits.tolist()]


def words(outputs: Mapping[str, Bits]) -> dict[str, list[int]]:
    """Output ports as unsigned numbers, cycle by cycle."""
    return {name: port_words(bits) for name, bits in outputs.items()}


def first_difference(
    got: Iterable[Hashable], wanted: Iterable[Hashable]
) -> tuple[int, Hashable, Hashable] | None:
    """(cycle, got, wanted) of the first cycle in which two outputs differ; None where they are equal."""
    for cycle, (is_, should_be) in enumerate(zip(got, wanted, strict=True)):
        if is_ != should_be:
            return cycle, is_, should_be
    return None
