"""The reference engine: simpy processes for DMA and array, the array stepped register by register, results bit for bit.

DMA serves the program (`simulator.engine.program`) one transfer after the other. The array process is its controller:
in every cycle it decides whether a preload or a stream may begin, sends one vector into the edges, lets the registers
move, collects what leaves, and says what the cycle was spent on. The registers decide when results leave; when a fold
may enter is the rule of docs/concepts.md, stated here a second time. The fast engine's formulas are held to this.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from simulator.array.folds import KChunk
from simulator.array.rescale import Operand
from simulator.array.schedule import CAUSES, COUNTERS
from simulator.engine.accounts import Movements, account
from simulator.engine.controller import controller_for
from simulator.engine.fold import Fold, Vector, folds_in_order
from simulator.engine.outputs import Operands, Outputs
from simulator.engine.program import ACTIVATIONS, OUTPUTS, START, WEIGHTS, Transfer, Visit, program, visits
from simulator.engine.record import LayerRecord, Run
from simulator.engine.registers import Departure
from simulator.engine.streams import (
    DataRun,
    counts_terms,
    data_counts,
    pieces_of,
    step_floors,
    step_words,
    streams,
)
from simulator.mapping.plan import Plan, Step
from simulator.pe.protocol import Scales, Side
from simulator.units import ceil_div


def simulate_gemm(
    plan: Plan,
    name: str,
    op: str,
    operands: Operands | None = None,
    data: DataRun | None = None,
    *,
    trace: bool = False,
) -> tuple[LayerRecord, npt.NDArray[np.float32] | None]:
    """One mapped operation, cycle by cycle; with ``operands`` also its results, FP32 (batch, m, n).

    The results are what the output stage hands to the output format's quantizer. ``data``: for PEs whose time depends
    on the codes.
    """
    return _Machine(plan, operands, data).run(name, op, trace)


class _Machine:
    """State of one run: what is in the buffers when, what is in the array, what has been counted."""

    def __init__(self, plan: Plan, operands: Operands | None, data: DataRun | None) -> None:
        self.plan, self.operands, self.data = plan, operands, data
        self.terms = 0
        self.steps = list(plan.steps())
        self.stays = [visits(plan, self.steps, operand) for operand in (WEIGHTS, ACTIVATIONS, OUTPUTS)]
        self.openings: dict[int, list[Visit]] = {}
        for stay in (visit for stays in self.stays for visit in stays):
            self.openings.setdefault(stay.opening, []).append(stay)
        self.environment = simpy.Environment(initial_time=plan.vector_cycles)
        self.tile_done = [self.environment.event() for _ in self.steps]
        self.ready: dict[tuple[int, int], int] = {}
        """(operand, serial) -> the cycle from which the tile can be used."""
        self.freed: dict[int, int] = {}
        """Output visit -> the cycle from which its slot is free."""
        self.stack = dict.fromkeys(CAUSES, 0)
        self.tally = dict.fromkeys(COUNTERS, 0)
        self.transfers: list[tuple[int, int]] = []
        self.begins: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        kinds = len(plan.k_tiles.kinds)
        shapes = ((2, kinds), (2, kinds), (2, 2), (2, 2))
        self.moved = Movements(*(np.zeros(shape, np.int64) for shape in shapes))
        self.outputs = Outputs(plan, operands) if operands else None
        self.scaled_folds: dict[int, Fold] = {}
        """Folds in flight by number, whose steps ask for scales."""

    def run(self, name: str, op: str, trace: bool) -> tuple[LayerRecord, npt.NDArray[np.float32] | None]:
        array = self.environment.process(self.array_process())
        dma = self.environment.process(self.dma_process())
        self.environment.run(until=array)
        array_end = self.now
        self.environment.run(until=dma)
        end = max(array_end, self.transfers[-1][1])
        self.stack["wait_writeback"] += end - array_end
        intervals = {}
        if trace:
            intervals = {
                "array": _as_runs([(self.begins[tile], self.ends[tile]) for tile in self.ends]),
                "dma": _as_runs(self.transfers),
            }
        tally = np.array([self.tally[counter] for counter in COUNTERS], object)
        by_codes = None
        if self.data is not None:
            by_codes = data_counts(self.plan, streams(self.plan, self.data))._replace(terms=self.terms)
        record = account(self.plan, name, op, end, self.stack, tally, self.moved, intervals, data=by_codes)
        return record, self.outputs.results() if self.outputs else None

    @property
    def now(self) -> int:
        return int(self.environment.now)

    # DMA

    def dma_process(self) -> Generator[simpy.Event, Any, None]:
        """Serve the program: each transfer when it is released and the bus is free, in order."""
        for transfer in program(self.plan, self.stays, self.steps):
            if transfer.release != START:
                yield self.tile_done[transfer.release]
            cycles = self.begin_transfer(transfer)
            start = self.now
            self.transfers.append((start, start + cycles))
            yield self.environment.timeout(cycles)

    def begin_transfer(self, transfer: Transfer) -> int:
        """Count a transfer, say when what it brings can be used; returns its cycles on the bus."""
        plan, visit = self.plan, transfer.visit
        tile = visit.tile
        edge = (int(tile.mi == plan.counts[0] - 1), int(tile.ni == plan.counts[1] - 1))
        if transfer.kind == "load":
            first = visit.serial == 0
            if visit.operand == WEIGHTS:
                bits = plan.weight_bits(tile.ni, tile.ki) + (plan.weights.tensor_bits if first else 0)
                self.moved.weight_loads[edge[1], plan.k_tiles.which[tile.ki]] += 1
            else:
                bits = plan.activation_bits(tile.mi, tile.ki) + (plan.activations.tensor_bits if first else 0)
                self.moved.activation_loads[edge[0], plan.k_tiles.which[tile.ki]] += 1
            cycles = plan.load_cycles(visit.operand, bits)
        elif transfer.kind == "write":
            cycles = plan.write_cycles(tile.mi, tile.ni)
        else:
            (self.moved.spill_loads if transfer.kind == "restore" else self.moved.spills)[edge] += 1
            cycles = plan.load_cycles(OUTPUTS, plan.spill_bits(tile.mi, tile.ni))
        end = self.now + cycles
        if transfer.kind in ("load", "restore"):
            self.ready[visit.operand, visit.serial] = end + plan.dram.latency
        else:
            self.freed[visit.serial] = end
        return cycles

    def tile_ready(self, tile: int) -> tuple[int, int] | None:
        """(cycle, operand) of the last thing that a tile waits for; None while that is not known yet."""
        latest, last = self.plan.vector_cycles, WEIGHTS
        for visit in self.openings.get(tile, ()):
            moment = self.visit_ready(visit)
            if moment is None:
                return None
            if moment > latest:
                latest, last = moment, visit.operand
        return latest, last

    def visit_ready(self, visit: Visit) -> int | None:
        """From when a tile is in its buffer (or, for outputs, its slot free); None while not known."""
        if visit.operand != OUTPUTS or visit.tile.ki > 0:
            return self.ready.get((visit.operand, visit.serial))
        before = visit.serial - self.plan.slots[OUTPUTS]
        return self.plan.vector_cycles if before < 0 else self.freed.get(before)

    # The array

    def array_process(self) -> Generator[simpy.Event, Any, None]:
        """Cycle after cycle until the last result has left."""
        function = self.operands.function if self.operands else None
        controller = controller_for(self, self.stack, self.tally, function)
        while not controller.finished:
            controller.cycle(self.now)
            yield self.environment.timeout(1)
            for tile in controller.ended:
                self.ends[tile] = self.now
                self.tile_done[tile].succeed()
            controller.ended.clear()
        self.begins = dict(controller.begun)

    def folds(self) -> Iterator[Fold]:
        for fold in folds_in_order(self.plan, self.data_times if self.data else None):
            self.scaled_folds[fold.number] = fold
            yield fold

    def data_times(
        self, step: Step, rows: slice, cols: slice, chunk: KChunk, low: int
    ) -> tuple[list[int], list[int]]:
        """When the steps of a fold enter the PEs, and how long its stream is at each limit, from its codes."""
        assert self.data is not None
        plan = self.plan
        pieces = pieces_of(chunk, low, plan.array.lanes)
        timing, flow = self.data.timing, plan.array.dataflow
        codes = {
            side: self.block(side, held, step.batch)
            for side, held in ((flow.row_operand, rows), (flow.col_operand, cols))
        }
        if counts_terms(plan):
            weights, activations = (
                timing.terms(side, codes[side][:, low : low + chunk.size]).sum(axis=0).astype(object)
                for side in ("weights", "activations")
            )
            self.terms += int((weights * activations).sum())
        sides = {side: step_words(of_side, pieces, plan.array.lanes) for side, of_side in codes.items()}
        limits = []
        for floor in step_floors(plan, rows.stop - rows.start, cols.stop - cols.start, chunk):
            ends = timing.ends(sides["activations"], sides["weights"], floor)
            limits.append(int(ends[-1]))
        return [int(end) - 1 for end in ends], limits

    def block(self, side: Side, held: slice, batch: int) -> Vector:
        """The codes that stand for what a fold holds of one operand."""
        assert self.data is not None
        plan = self.plan
        size = plan.held(side)
        extent, entry = (plan.m, batch) if side == "activations" else (plan.n, batch // plan.weight_reuse)
        which = self.data.codes.which(side)
        return self.data.codes.integers(side, int(which[entry * ceil_div(extent, size) + held.start // size]))

    def row_vector(self, fold: Fold, step: int) -> Vector | None:
        if self.operands is None:
            return None
        flow, lanes = self.plan.array.dataflow, self.plan.array.lanes
        operand, batch = self.operand(flow.row_operand, fold)
        if not flow.preloads:
            return _over_lanes(operand.integers[batch, fold.rows], fold, fold.pieces[step], lanes)
        values = operand.integers[
            batch, self.streamed(fold).start + step, fold.low : fold.low + fold.chunk.size
        ]
        words = np.zeros((fold.r, lanes), operand.integers.dtype)
        words.reshape(-1)[: len(values)] = values
        return words

    def col_vector(self, fold: Fold, step: int) -> Vector | None:
        if self.operands is None:
            return None
        flow, lanes = self.plan.array.dataflow, self.plan.array.lanes
        operand, batch = self.operand(flow.col_operand, fold)
        piece = (
            (step * lanes, min(lanes, fold.chunk.size - step * lanes)) if flow.preloads else fold.pieces[step]
        )
        return _over_lanes(operand.integers[batch, fold.cols], fold, piece, lanes)

    def step_scales(self, fold: int, step: int) -> Scales:
        """Scales and zero points of the rows and columns of a fold in flight that apply in a step."""
        assert self.operands is not None
        here = self.scaled_folds[fold]
        flow = self.plan.array.dataflow
        offset, size = here.pieces[step]
        m, n = (here.rows, here.cols) if flow.rows_hold == "m" else (here.cols, here.rows)
        low = here.low + offset
        return self.operands.scales(self.plan, here.step.batch, m, n, low, low + size)

    def operand(self, name: str, fold: Fold) -> tuple[Operand, int]:
        """An operand's values and the batch entry that a fold uses."""
        assert self.operands is not None
        if name == "weights":
            return self.operands.weights, fold.step.batch // self.plan.weight_reuse
        return self.operands.activations, fold.step.batch

    def streamed(self, fold: Fold) -> slice:
        """What streams past a stationary operand, in the whole operation."""
        tiling, step = self.plan.tiling, fold.step
        begin = step.mi * tiling.m if self.plan.array.dataflow.streams == "m" else step.ni * tiling.n
        return slice(begin, begin + fold.steps)

    def collect(self, fold: Fold, departure: Departure) -> None:
        fold.results[departure.row, departure.col] = departure.value

    def finish(self, fold: Fold) -> None:
        """Add a fold's results to what the output buffer holds."""
        self.scaled_folds.pop(fold.number)
        if self.outputs is None:
            return
        flow = self.plan.array.dataflow
        rows = self.streamed(fold) if flow.preloads else fold.rows
        values = np.empty((rows.stop - rows.start, fold.c), object)
        for (row, col), value in fold.results.items():
            values[row, col] = int(value)
        m, n = (rows, fold.cols) if flow.cols_hold == "n" else (fold.cols, rows)
        if flow.cols_hold == "m":
            values = values.T
        high = fold.low + fold.chunk.size
        self.outputs.take(values, fold.chunk, (fold.step.batch, m, n), fold.group_low, high)


def _over_lanes(rows: Vector, fold: Fold, piece: tuple[int, int], lanes: int) -> Vector:
    """A piece (offset, size) of a fold's K for each row, (rows, lanes); a short one is filled with zeros."""
    low, size = piece
    words = np.zeros((len(rows), lanes), rows.dtype)
    words[:, :size] = rows[:, fold.low + low : fold.low + low + size]
    return words


def _as_runs(intervals: list[tuple[int, int]]) -> tuple[Run, ...]:
    return tuple(Run(start, 0, 1, end - start) for start, end in intervals)
