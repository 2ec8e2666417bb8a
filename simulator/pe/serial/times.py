"""Time by codes (`simulator.pe.protocol.DataTiming`): rules of `sync` for a stepped array, of `kernels` for bulk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.pe.arithmetic import Integers
from simulator.pe.protocol import Cycles, Side
from simulator.pe.serial import kernels, sync

Rule = Callable[[Integers], npt.NDArray[Any]]


@dataclass(frozen=True)
class OneSerial:
    """One operand's codes decide: each vector of it takes its own time over a step, and all wait for the slowest, or
    run ahead of each other by column registers."""

    side: Side
    rule: Rule
    """(..., vectors, steps) cycles from (..., vectors, steps, lanes), of `sync`."""
    bulk: Rule
    """The same of `kernels`."""
    value_terms: Rule | None = None
    """Terms of each value; None: the family does not price them."""
    registers: int = 0

    @property
    def depends_on(self) -> tuple[Side, ...]:
        return (self.side,)

    def ends(self, activations: Integers, weights: Integers, floor: int) -> Cycles:
        cycles = self.rule(weights if self.side == "weights" else activations)
        if self.registers:
            return sync.column_register_ends(cycles.swapaxes(0, 1), self.registers, floor)
        return sync.step_ends(cycles.max(axis=0), floor)

    def profile(self, side: Side, integers: Integers) -> npt.NDArray[np.generic]:
        """(folds, steps) of the slowest vector; (folds, steps, vectors) with registers."""
        if side != self.side:
            return np.zeros((1, 1), np.uint8)
        cycles = self.bulk(integers)
        if self.registers:
            return np.ascontiguousarray(cycles.swapaxes(1, 2))
        return np.asarray(cycles.max(axis=1))

    def streams(
        self,
        activations: npt.NDArray[np.generic],
        weights: npt.NDArray[np.generic],
        bounds: Cycles,
        floor: int,
    ) -> Cycles:
        profile = weights if self.side == "weights" else activations
        if self.registers:
            found = kernels.column_register_streams(profile, self.registers, bounds, floor)
        else:
            found = kernels.step_streams(profile, bounds, floor)
        return found[None] if self.side == "weights" else found[:, None]

    def terms(self, side: Side, integers: Integers) -> Cycles:
        return _terms(self.value_terms if side == self.side else None, integers)


@dataclass(frozen=True)
class BothSerial:
    """A step costs what its activations need times what its weights need; see `sync.product_cycles`."""

    rules: tuple[Rule, Rule]
    """Of activations and weights, of `sync`: (..., steps) or (..., steps, lanes) from (..., vectors, steps, lanes)."""
    bulk: tuple[Rule, Rule]
    """The same of `kernels`."""
    depends_on: tuple[Side, ...] = ("activations", "weights")
    """A side that is left out has a rule that looks at no value."""
    value_terms: Rule | None = None

    def ends(self, activations: Integers, weights: Integers, floor: int) -> Cycles:
        own = sync.product_cycles(self.rules[0](activations), self.rules[1](weights))
        return sync.step_ends(own, floor)

    def profile(self, side: Side, integers: Integers) -> npt.NDArray[np.generic]:
        return self.bulk[side == "weights"](integers)

    def streams(
        self,
        activations: npt.NDArray[np.generic],
        weights: npt.NDArray[np.generic],
        bounds: Cycles,
        floor: int,
    ) -> Cycles:
        return kernels.product_streams(activations, weights, bounds, floor)

    def terms(self, side: Side, integers: Integers) -> Cycles:
        return _terms(self.value_terms, integers)


def _terms(rule: Rule | None, integers: Integers) -> Cycles:
    return np.ones(integers.shape, np.uint8) if rule is None else rule(integers)
