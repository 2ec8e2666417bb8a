"""The reference engine's run, seen at the edges of the array."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from array_schedule import Leaving

from simulator.engine import controller, reference
from simulator.engine.outputs import Operands
from simulator.engine.streams import DataRun
from simulator.mapping import Plan


@dataclass
class Observed:
    """What entered and left the reference engine's array; cycles from the first word."""

    words: list[tuple[int, int, int]]
    """(cycle, fold, step) of streamed steps."""
    loads: list[tuple[int, int, int]]
    leavings: list[Leaving]


def observe(plan: Plan, operands: Operands, data: DataRun | None = None) -> tuple[Observed, Any, Any]:
    """The reference engine's run, spied upon at the array's edges: what was seen, its record, its results. ``data``: of
    PEs whose time depends on the codes; cycles then count from somewhere before the first step's last."""
    seen = Observed([], [], [])
    ticks = [0]

    class SpiedOutput(controller.OutputStationaryArray):
        def tick(self, now: int, fold: int, step: int, rows: Any, cols: Any) -> Any:
            if fold >= 0:
                seen.words.append((ticks[0], fold, step))
            departures = super().tick(now, fold, step, rows, cols)
            seen.leavings += [Leaving(ticks[0], d.col, int(d.value)) for d in departures]
            ticks[0] += 1
            return departures

    class SpiedOperand(controller.OperandStationaryArray):
        def tick(self, fold: int, step: int, rows: Any, load: Any, begins: int) -> Any:
            if fold >= 0:
                seen.words.append((ticks[0], fold, step))
            if load[0] >= 0:
                seen.loads.append((ticks[0], load[0], load[1]))
            departures = super().tick(fold, step, rows, load, begins)
            seen.leavings += [Leaving(ticks[0], d.col, int(d.value)) for d in departures]
            ticks[0] += 1
            return departures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller, "OutputStationaryArray", SpiedOutput)
        patch.setattr(controller, "OperandStationaryArray", SpiedOperand)
        record, results = reference.simulate_gemm(plan, "x", "gemm", operands, data, trace=True)
    # A serial PE works on a step until the cycle in which the engine lets it enter.
    held = plan.array.initiation_interval if plan.array.serial else 1
    origin = min(cycle for cycle, _, _ in seen.words + seen.loads) - (held - 1)
    seen.words = [(cycle - origin, fold, step) for cycle, fold, step in seen.words]
    seen.loads = [(cycle - origin, fold, row) for cycle, fold, row in seen.loads]
    seen.leavings = sorted(replace(one, cycle=one.cycle - origin) for one in seen.leavings)
    return seen, record, results
