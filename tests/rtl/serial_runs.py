"""Arrays of bit-serial PEs as hardware, run on the folds of a GEMM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from simulator.engine.fold import folds_in_order
from simulator.formats.pruning import OFFSETS
from simulator.mapping import Plan
from simulator.pe.bitvert import BitVertPE
from simulator.pe.stripes import StripesPE
from simulator.rtl.serial_array import SerialArray
from simulator.rtl.units.serial import SerialUnit

IDLE = 24
"""Cycles after the last step in which its result must have come."""


@dataclass
class Step:
    """Words (lines, lanes) of a step, element integers."""

    weights: np.ndarray
    activations: np.ndarray
    first: bool
    selectors: np.ndarray | None = None
    """(weight lines,) of groups of pruned weights."""


@dataclass
class Seen:
    takes: list[int] = field(default_factory=list)
    """Cycles in which words were taken, step by step."""
    sums: list[dict[tuple[int, int], int]] = field(default_factory=list)
    """The PEs' outputs, cycle by cycle."""


def steps_of(
    plan: Plan, weights: np.ndarray, activations: np.ndarray, selectors: Any = None
) -> list[list[Step]]:
    """Of each fold. Operands (n, k) and (m, k); ``selectors`` (n, groups of 32)."""
    lanes, flow = plan.array.lanes, plan.array.dataflow
    found = []
    for fold in folds_in_order(plan):
        extents = {flow.rows_hold: fold.rows, flow.cols_hold: fold.cols}
        steps = []
        for low in range(fold.low, fold.low + fold.chunk.size, lanes):
            words = {}
            for name, operand, axis in (("weights", weights, "n"), ("activations", activations, "m")):
                held = plan.array.rows if flow.rows_hold == axis else plan.array.cols
                part = operand[extents[axis], low : min(low + lanes, fold.low + fold.chunk.size)]
                # A short fold's idle lines and a short step's idle lanes hold zeros.
                missing = ((0, held - part.shape[0]), (0, lanes - part.shape[1]))
                words[name] = np.pad(part, missing)
            own = None
            if selectors is not None:
                own = selectors[extents["n"], low // 32]
                own = np.pad(own, (0, len(words["weights"]) - len(own)))
            steps.append(Step(words["weights"], words["activations"], low == fold.low, own))
        found.append(steps)
    return found


def word(values: np.ndarray, bits: int) -> int:
    """Integers side by side, the first lowest, two's complement."""
    return sum(
        (int(value) & ((1 << bits) - 1)) << (place * bits) for place, value in enumerate(values.ravel())
    )


def stored(step: Step, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """BitVert: (lines, lanes) stored codes in two's complement, (lines,) lowest positions and constants, whether these
    are signed; undone from the weights by what the selectors mean (`simulator.formats.pruning`)."""
    if step.selectors is None:
        none = np.zeros(len(step.weights), np.int64)
        return step.weights, none, none, False
    columns, selectors = int(name[-1]), step.selectors.astype(np.int64)
    if name.startswith("bbs_avg"):
        cut = np.maximum(columns - (selectors & 3), 0)
        constants = (selectors >> 2) & ((1 << cut) - 1)
    else:
        cut = np.minimum(selectors & 7, columns)
        constants = -np.array([OFFSETS[number] for number in selectors >> 3])
    # Lanes that are idle have no activation, whatever their bits.
    return (step.weights - constants[:, None]) >> cut[:, None], cut, constants, name.startswith("bbs_zp")


def run(
    unit: SerialUnit, lines: tuple[int, int], formats: tuple[Any, Any], steps: list[Step], floor: int = 1
) -> Seen:
    """Hardware of so many (weight, activation) lines on steps whose words come as soon as they may, ``floor`` cycles
    after the last ones were taken. ``formats``: elements of weights and activations."""
    array, pe, seen = SerialArray(unit, *lines), unit.pe, Seen()
    weight, activation = formats
    counted = activation if isinstance(pe, StripesPE) else weight
    serial, parallel = array.serial_side, array.parallel_side
    kinds = {"weights": weight.kind, "activations": activation.kind}
    widths = {side: max(element.bits for element in pe.elements(side)) for side in (serial, parallel)}

    def columns(step: Step, index: int) -> dict[str, int]:
        codes, lowest, constants, is_signed = stored(step, weight.name)
        place = counted.bits - 1 - index
        digits = constants >> 3 * index & 7 if index < 2 else np.zeros_like(constants)
        return {
            "serial": word(codes >> place, 1),
            "position": word(lowest + place, 3),
            "digit": word(digits, 3),
            "digit_signed": word(np.full(len(digits), is_signed and index == 1), 1),
        }

    async def bench(context: Any) -> None:
        signals = {signal.name: signal for signal in array.ports}
        context.set(array.count, counted.bits)
        context.set(array.signed, int(kinds[serial] != "uint") | int(kinds[parallel] != "uint") << 1)
        second, column, idle = 0, 0, 0
        while idle < IDLE:
            cycle, given = len(seen.sums), len(seen.takes)
            ready = given < len(steps) and (not given or cycle >= seen.takes[-1] + floor)
            context.set(array.available, ready)
            context.set(array.first, ready and steps[given].first)
            if isinstance(pe, BitVertPE):
                own = (
                    (steps[given - 1], column)
                    if 0 < column < counted.bits
                    else (steps[given], 0)
                    if ready
                    else None
                )
                for name, value in columns(*own).items() if own else ():
                    context.set(signals[name], value)
            elif ready:
                context.set(array.serial, word(getattr(steps[given], serial), widths[serial]))
            if context.get(array.take_parallel):
                context.set(array.parallel, word(getattr(steps[second], parallel), widths[parallel]))
                second += 1
            seen.sums.append({at: context.get(out) for at, out in array.outs.items()})
            idle += 1
            column += 1
            if context.get(array.take):
                seen.takes.append(cycle)
                column, idle = 1, 0
            await context.tick()

    simulator = Simulator(array)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen
