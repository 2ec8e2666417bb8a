"""A fold on its way through the array, and the order in which a plan's folds come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from simulator.array import Array, KChunk, fold_edges
from simulator.array.demand import Intervals
from simulator.engine.streams import pieces_of
from simulator.mapping.plan import Plan, Step
from simulator.pe.arithmetic import Integers
from simulator.units import ceil_div

Vector = Integers
"""(words, lanes)"""


@dataclass
class Fold:
    """A fold and, once it is in the array, what became of it."""

    number: int
    tile: int
    """Index of its tile in the order of the plan's steps."""
    step: Step
    chunk: KChunk
    low: int
    """Where its K begins."""
    group_low: int
    """Where the scale group that it belongs to begins."""
    rows: slice
    """What its rows hold, in the whole operation; K is counted from ``low``."""
    cols: slice
    steps: int
    """Streamed steps."""
    speed: Intervals
    pieces: Sequence[tuple[int, int]]
    """Where the K of each step begins, counted from ``low``, and how much it is; empty where K does not stream."""
    enters: Sequence[int]
    """Cycle of the stream in which each step enters the PEs: its first, or its last for serial PEs, which work on it
    until then."""
    stream: int
    """T': cycles of its stream, the ports' last words included."""
    limits: Sequence[int]
    """Where time depends on the codes: what the stream would take with the PEs alone, then decoders too, then the
    weights' port, then the activations'."""
    timed_r: int
    timed_c: int
    first_of_tile: bool = False
    last_of_tile: bool = False
    start: int = 0
    """Cycle of the first streamed step."""
    load_start: int = 0
    """Cycle of the first preloaded row."""
    expected: int = 0
    """Results that have not left."""
    results: dict[tuple[int, int], Any] = field(default_factory=dict)
    """(result row, column) -> value."""

    @property
    def r(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def c(self) -> int:
        return int(self.cols.stop - self.cols.start)

    @property
    def issue(self) -> int:
        """Cycles of its stream until its last step has entered."""
        return self.enters[-1] + 1

    @property
    def slack(self) -> int:
        """Cycles that the ports or the rescale unit still need for the last step."""
        return self.stream - self.issue


class FoldSource(Protocol):
    """Folds in order, and the vectors that enter the array for them."""

    def folds(self) -> Iterator[Fold]: ...

    def row_vector(self, fold: Fold, step: int) -> Vector | None:
        """(words, lanes) that enter at the rows with a streamed step; None in a run without values."""
        ...

    def col_vector(self, fold: Fold, step: int) -> Vector | None:
        """(words, lanes) that enter at the columns: with a streamed step, or the row ``step`` of a preload."""
        ...


Times = Callable[[Step, slice, slice, KChunk, int], tuple[list[int], list[int]]]
"""When the steps of a fold enter its PEs, and T' at each limit, by codes: from the tile's step, the fold's rows and
columns, its chunk and where its K begins."""


def folds_in_order(plan: Plan, times: Times | None = None) -> Iterator[Fold]:
    """All folds: tile by tile, columns outer, rows inner, K slices innermost where K streams.

    ``times``: for PEs whose time depends on the codes.
    """
    number = 0
    for tile, step in enumerate(plan.steps()):
        of_tile = list(_folds_of_tile(plan, tile, step, times))
        of_tile[0].first_of_tile = of_tile[-1].last_of_tile = True
        for fold in of_tile:
            fold.number = number
            number += 1
            yield fold


def _folds_of_tile(plan: Plan, tile: int, step: Step, times: Times | None) -> Iterator[Fold]:
    array, flow = plan.array, plan.array.dataflow
    begin = {"m": step.mi * plan.tiling.m, "n": step.ni * plan.tiling.n, "k": step.ki * plan.tiling.k}
    size = {"m": plan.rows_m(step.mi), "n": plan.rows_n(step.ni), "k": plan.size_k(step.ki)}
    chunks = [chunk for run in plan.k_tile(step.ki).runs for _ in range(run.count) for chunk in run.pattern]
    for cols in _pieces(begin[flow.cols_hold], size[flow.cols_hold], array.cols):
        c = cols.stop - cols.start
        row_pieces = (
            [slice(0, 0)]
            if flow.preloads
            else _pieces(begin[flow.rows_hold], size[flow.rows_hold], array.rows)
        )
        for rows in row_pieces:
            low = group_low = begin["k"]
            for chunk in chunks:
                held = slice(0, ceil_div(chunk.size, array.lanes)) if flow.preloads else rows
                timed_r, timed_c = array.timed(held.stop - held.start, c)
                pieces = [] if flow.preloads else pieces_of(chunk, 0, array.lanes)
                steps = size[flow.streams] if flow.preloads else len(pieces)
                speed = plan.demand.intervals(array, held.stop - held.start, c, chunk)
                limits: list[int] = []
                if times is None:
                    enters, stream = _times(plan.array, speed.stream, speed.stream_full, steps, chunk)
                else:
                    enters, limits = times(step, held, cols, chunk, low)
                    stream = limits[-1]
                yield Fold(
                    number=0,
                    tile=tile,
                    step=step,
                    chunk=chunk,
                    low=low,
                    group_low=group_low,
                    rows=held,
                    cols=cols,
                    steps=steps,
                    speed=speed,
                    pieces=pieces,
                    enters=enters,
                    stream=stream,
                    limits=limits,
                    timed_r=timed_r,
                    timed_c=timed_c,
                )
                low += chunk.size
                if chunk.rescaled:
                    group_low = low


def _times(array: Array, own: int, interval: int, steps: int, chunk: KChunk) -> tuple[list[int], int]:
    """When steps enter the PEs that follow each other every ``interval`` cycles (PEs alone: ``own``), and T'."""
    if not array.serial:
        enters = [step * interval for step in range(steps)]
        return enters, enters[-1] + 1 + interval - own
    if not chunk.groups:
        return [(step + 1) * interval - 1 for step in range(steps)], steps * interval
    enters, now = [], 0
    for size, count in chunk.groups:
        of_group = ceil_div(size, array.lanes)
        for _ in range(count):
            begin = now
            for _ in range(of_group):
                now += interval
                enters.append(now - 1)
            # The last step of a group is held until the scaling of the one before is done.
            now = max(now, begin + array.group_cycles)
            enters[-1] = now - 1
    return enters, now


def _pieces(begin: int, extent: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``extent`` values from ``begin``."""
    cuts = [begin]
    for used, count in fold_edges(extent, size):
        for _ in range(count):
            cuts.append(cuts[-1] + used)
    return [slice(low, high) for low, high in pairwise(cuts)]
