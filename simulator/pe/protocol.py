"""What a processing element is to the rest of the simulator: function, timing and structure.

Its activity is the events that arrays count, priced by what `Structure.events` says each makes its parts do.

A family is one module of this package with a pydantic model of its parameters that has these members, listed in
`simulator.pe.FAMILIES`; another package adds one through the entry point group `simulator.pe` (name = family, object =
the model). Arrays, engines and cost tables know no family by name. Version of the protocol: 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from simulator.formats import Format
from simulator.hardware.structure import Part
from simulator.pe.arithmetic import Integers

PROTOCOL_VERSION = 1

Stationary = Literal["outputs", "weights", "activations"]


@dataclass(frozen=True)
class Timing:
    """Steps of a PE: ``lanes`` MACs a step, a step every ``initiation_interval`` cycles, its sum ``latency`` cycles
    later."""

    lanes: int
    latency: int
    initiation_interval: int


@dataclass(frozen=True)
class Structure:
    """Parts of one PE and what each of its events makes them do (see `simulator.hardware.structure`).

    Events that arrays count: "mac" (one lane, one product accumulated), "step" (a step of the whole PE), "idle" (a
    cycle without a step), "preload" (a stationary word latched). A family may price any of them at nothing by an empty
    mapping.
    """

    params: Mapping[str, int | str]
    parts: tuple[Part, ...]
    events: Mapping[str, Mapping[tuple[str, str], int]]


class Function(Protocol):
    """The arithmetic of a PE on element integers: values are ``integer * 2**exponent``."""

    @property
    def exponent(self) -> int:
        """Of the partial sums."""
        ...

    @property
    def dtype(self) -> np.dtype[np.int64] | np.dtype[np.object_]:
        """int64 where operands and sums fit, else Python integers."""
        ...

    def step(self, partial: Integers, activations: Integers, weights: Integers) -> Integers:
        """Partial sums (...) after one step; operands (..., lanes) element integers of the two formats, broadcast."""
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
        """Names of the element formats on the weight side."""
        ...

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of the element formats on the activation side."""
        ...

    @property
    def partial_bits(self) -> int:
        """Width of a partial sum as it leaves the PE."""
        ...

    def accepts(self, weights: Format, activations: Format) -> str | None:
        """None, or why the PE does not take this pair."""
        ...

    def timing(self, weights: Format, activations: Format) -> Timing: ...

    def structure(self, *, stationary: Stationary, doubled: bool) -> Structure:
        """``stationary``: what stays in the PE. ``doubled``: accumulator or stationary word twice, for fold overlap."""
        ...

    def partial_adder(self) -> Part:
        """The part, named "accumulate", that adds two partial sums."""
        ...

    def function(self, weights: Format, activations: Format) -> Function: ...
