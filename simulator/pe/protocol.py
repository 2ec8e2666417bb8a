"""What a processing element is to the rest of the simulator: function, timing, activity and structure.

A family is one module of this package with a pydantic model of its parameters (`simulator.pe.base.PE` has defaults for
what most families share), listed in `simulator.pe.FAMILIES`; another package adds one through the entry point group
`simulator.pe` (name = family, object = the model). Arrays, engines and cost tables know no family by name.

Operands go this way::

    codes in memory --buffer--> decode (at the array's edge) --> PE function --> rescale unit --> output stage

`received` is the format that reaches the PEs after the decoder. Scales that it still has per group are applied inside
the PE (`scales_inside`) or by the array's rescale unit; scales per row or tensor by the output stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from simulator.formats import Format, QuantizedTensor
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import Integers

PROTOCOL_VERSION = 2

Stationary = Literal["outputs", "weights", "activations"]
Side = Literal["weights", "activations"]
Pair = tuple[Format, Format]
"""Formats of weights and activations, as they are in memory."""
Cycles = npt.NDArray[np.int64]

COUNTED = (
    "mac",
    "step",
    "busy",
    "idle",
    "preload",
    "weight",
    "activation",
    "group",
    "result",
    "term",
)
"""What engines count, and `activity` maps to events. mac: products of real operands. step: steps of PEs in use. busy:
cycles of PEs in use while a fold streams. idle: PE-cycles without a step (none with clock gating). preload: stationary
words latched in PEs. weight, activation: words that enter the array at its edge. group: ends of scale groups inside
PEs. result: results that leave the array. term: elementary operations that the codes made of the products
(`DataTiming`)."""


@dataclass(frozen=True)
class Timing:
    """Steps of a PE: ``lanes`` MACs a step, a step every ``initiation_interval`` cycles, its sum ``latency`` cycles
    after its last cycle began (1: at the end of that cycle), the scaling of a last group inside the PE included."""

    lanes: int
    latency: int
    initiation_interval: int = 1
    serial: bool = False
    """A step occupies the PE for its whole interval, the last of a stream too: T steps take T * interval cycles. False:
    a pipelined PE, whose last step is counted with one cycle."""
    group_cycles: int = 0
    """Where scales are applied inside: cycles that a group's scaling takes beside the accumulation of the next group; a
    group of fewer cycles stalls by the difference."""
    weight_decode: int = 1
    """Cycles that a decoder at the edge (one a row or column of the array) takes for the lanes of one weight vector."""
    activation_decode: int = 1


class DataTiming(Protocol):
    """Steps whose time depends on the codes. For arrays with stationary outputs and broadcast operands, which advance
    from step to step together; serial."""

    @property
    def depends_on(self) -> tuple[Side, ...]:
        """The operands whose codes decide the time."""
        ...

    def ends(self, activations: Integers, weights: Integers, floor: int) -> Cycles:
        """(steps,) cycles from the beginning of a fold's stream to the end of each step; strictly increasing.

        Operands (vectors, steps, lanes): element integers of the rows and columns in use, zeros where a short last step
        has no lanes. ``floor``: cycles that the slowest buffer port takes to deliver a step. The reference: plain to
        read.
        """
        ...

    def profile(self, side: Side, integers: Integers) -> npt.NDArray[np.generic]:
        """What the time of folds needs to know of one operand, (folds, steps, ...), from (folds, vectors, steps,
        lanes)."""
        ...

    def streams(
        self,
        activations: npt.NDArray[np.generic],
        weights: npt.NDArray[np.generic],
        bounds: Cycles,
        floor: int,
    ) -> Cycles:
        """(activation folds, weight folds, chunks) cycles of the streams of all folds, from the operands' profiles.

        Chunk i is steps bounds[i] to bounds[i + 1]. An operand that time does not depend on has a profile of one fold
        (and the result one entry on its axis). Equal to the last entry of `ends` for each fold and chunk.
        """
        ...

    def terms(self, side: Side, integers: Integers) -> Cycles:
        """Elementary operations that each value takes part in (same shape); a product takes those of both factors
        multiplied. Ones for a side that is bit-parallel."""
        ...


SCALE_EXPONENT = -149
"""Scales are integers times 2**SCALE_EXPONENT: FP32's smallest step, of which every stored scale is a multiple."""


class Scales(NamedTuple):
    """Scales that a PE applies in one step, integers times 2**SCALE_EXPONENT, and zero points, broadcast against the
    state.

    Lanes that a short step leaves empty hold the integer 0 on both sides, whatever the zero points.
    """

    weights: npt.NDArray[np.object_]
    activations: npt.NDArray[np.object_]
    weight_zeros: npt.NDArray[np.object_]
    activation_zeros: npt.NDArray[np.object_]
    ends_group: bool
    """The step is the last of its group."""


class Function(Protocol):
    """The arithmetic of a PE on element integers of the formats received: values are ``integer * 2**exponent``."""

    @property
    def exponent(self) -> int:
        """Of the partial sums."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of operands and state: int64 where all fit, float64 where it holds every value exactly, else object (Python
        integers). Results are integers whatever it is."""
        ...

    @property
    def words(self) -> int:
        """Registers of the state: 1 for an accumulator alone."""
        ...

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """State (..., words) after one step; zeros to begin with. Operands (..., lanes), broadcast. ``scales`` where
        the PE applies them."""
        ...

    def result(self, state: Integers) -> Integers:
        """Partial sums (...) of the state (..., words)."""
        ...

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two partial sums, as the adder of the output buffer does it."""
        ...


class ProcessingElement(Protocol):
    """A PE family's parameters, and everything that follows from them."""

    @property
    def family(self) -> str: ...

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of what it takes on the weight side."""
        ...

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of what it takes on the activation side."""
        ...

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why the PE does not take this pair."""
        ...

    def fits(self, dataflow: str) -> str | None:
        """None, or why the PE does not work in an array of this dataflow."""
        ...

    def received(self, side: Side, format: Format) -> Format:
        """The format in which an operand reaches the PEs."""
        ...

    def word_bits(self, side: Side) -> int:
        """Bits of the widest element that travels to the PEs on this side."""
        ...

    def decode(self, side: Side, tensor: QuantizedTensor) -> QuantizedTensor:
        """The decoder at the array's edge, bit for bit: a tensor in the format `received`."""
        ...

    def scales_inside(self, weights: Format, activations: Format) -> bool:
        """Group scales are applied in the PE, so that a fold runs over group edges and the array needs no rescale
        unit."""
        ...

    def timing(self, weights: Format, activations: Format) -> Timing: ...

    def data_timing(self, weights: Format, activations: Format) -> DataTiming | None:
        """Time that depends on the codes; None: `timing` says all."""
        ...

    def vector_passes(self, weights: Format, activations: Format) -> Fraction:
        """Visits of a vector lane per activation value before the array starts (tables, alignment); 0: none."""
        ...

    def fused_passes(self, weights: Format, activations: Format) -> Fraction:
        """The same where the operation before does them on its way: energy, but no time of their own."""
        ...

    def partial_bits(self, weights: Format, activations: Format) -> int:
        """Width of a partial sum as it leaves the PE."""
        ...

    @property
    def accumulator_bits(self) -> int:
        """Width of the widest partial sum."""
        ...

    def partial_adder(self) -> Part:
        """The part, named "accumulate", that adds two partial sums."""
        ...

    def hardware(
        self,
        *,
        weight_lines: int,
        activation_lines: int,
        stationary: Stationary,
        doubled: bool,
        pairs: Sequence[Pair],
    ) -> tuple[Component, ...]:
        """The PEs (a component "pe") and what of this family stands beside them.

        ``weight_lines``, ``activation_lines``: rows and columns of the array, or columns and rows: the lines at which
        weights and activations enter. ``stationary``: what stays in the PE. ``doubled``: accumulator or stationary word
        twice, for fold overlap. ``pairs``: pairs of formats in memory whose events are wanted; area and leakage do not
        depend on them.
        """
        ...

    def activity(
        self, weights: Format, activations: Format, *, stationary: Stationary
    ) -> Mapping[str, Mapping[tuple[str, str], int | Fraction]]:
        """For each of `COUNTED` the events that it makes: {(component, event): times}. Events are those of `hardware`
        for this pair; what is left out costs nothing. A fraction is an event that happens once in so many."""
        ...

    def function(self, weights: Format, activations: Format) -> Function:
        """The arithmetic on element integers of `received` formats."""
        ...
