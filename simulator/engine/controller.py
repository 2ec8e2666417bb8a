"""The array's controller in the reference engine: what enters in each cycle, when folds begin, what a cycle was spent
on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Protocol

from simulator.engine.fold import Fold, FoldSource, Vector
from simulator.engine.registers import (
    BUBBLE,
    Departure,
    FoldShape,
    OperandStationaryArray,
    OutputStationaryArray,
)
from simulator.mapping import Plan
from simulator.pe.protocol import Function, Scales

WAITS = ("wait_weights", "wait_activations", "wait_writeback")
"""By operand: what the array waits for when this one's tile is the last to be ready."""


class System(FoldSource, Protocol):
    """What the controller asks of the rest of the machine."""

    plan: Plan

    def tile_ready(self, tile: int) -> tuple[int, int] | None:
        """(cycle, operand) of the last thing that a tile waits for; None while that is not known yet."""
        ...

    def step_scales(self, fold: int, step: int) -> Scales:
        """What the PEs scale by in a step: for its rows and for its columns."""
        ...

    def collect(self, fold: Fold, departure: Departure) -> None:
        """Keep a result that has left the array."""
        ...

    def finish(self, fold: Fold) -> None:
        """All results of a fold have left."""
        ...


class Controller:
    """What both kinds of array have in common: folds in order, results collected, causes told apart."""

    def __init__(self, system: System, stack: dict[str, int], tally: dict[str, int]) -> None:
        self.system, self.stack, self.tally = system, stack, tally
        self.plan, self.array = system.plan, system.plan.array
        self.folds: Iterator[Fold] = system.folds()
        self.upcoming: Fold | None = next(self.folds)
        self.streaming: Fold | None = None
        """The fold whose stream began last."""
        self.in_flight: dict[int, Fold] = {}
        self.complete: dict[int, Fold] = {}
        """Folds whose results have all left, but not those of every fold before them."""
        self.unexplained = 0
        """Cycles of an empty array; the tile that ends the wait says what it waited for."""
        self.begun: list[tuple[int, int]] = []
        self.ended: list[int] = []

    @property
    def finished(self) -> bool:
        return self.upcoming is None and not self.in_flight and not self.complete

    @property
    def stream_end(self) -> int:
        """The cycle after the last stream's."""
        return self.streaming.start + self.streaming.stream if self.streaming else 0

    def may_enter(self, fold: Fold, now: int) -> bool:
        """Its operands are in the buffers and, without overlap, the array is empty."""
        if (self.in_flight or self.complete) and not self.array.fold_overlap:
            return False
        if not fold.first_of_tile:
            return True
        ready = self.system.tile_ready(fold.tile)
        return ready is not None and ready[0] <= now

    def enter(self, fold: Fold, now: int) -> None:
        """The fold's first word goes in: what the array had waited for is now known."""
        if fold.first_of_tile:
            self.begun.append((fold.tile, now))
            ready = self.system.tile_ready(fold.tile)
            assert ready is not None
            self.stack[WAITS[ready[1]]] += self.unexplained
            self.unexplained = 0
        self.in_flight[fold.number] = fold
        self.upcoming = next(self.folds, None)
        self.tally["folds"] += 1
        self._count_scales(fold)

    def shape(self, fold: Fold) -> FoldShape:
        return FoldShape(fold.number, fold.timed_r, fold.timed_c, fold.steps, fold.speed.drain_full)

    def leave(self, departures: list[Departure], now: int) -> None:
        """Results have left the array in this cycle."""
        for departure in departures:
            fold = self.in_flight[departure.fold]
            fold.expected -= 1
            rows = fold.steps if self.array.dataflow.preloads else fold.r
            if departure.col < fold.c and departure.row < rows:
                self.system.collect(fold, departure)
                self._count_result(fold, departure.col)
            if fold.expected == 0:
                self.complete[fold.number] = self.in_flight.pop(fold.number)
        # With overlap a short fold's results may leave before those of a longer one ahead of it; sums are formed in
        # order.
        while self.complete:
            oldest = min(self.complete)
            fold = self.complete[oldest]
            if (self.in_flight and min(self.in_flight) < oldest) or now + 1 < fold.start + fold.stream:
                break
            del self.complete[oldest]
            self.system.finish(fold)
            if fold.last_of_tile:
                self.ended.append(fold.tile)

    def entering(self, now: int) -> int | None:
        """The step of the streaming fold that enters the PEs in this cycle."""
        if self.streaming is None:
            return None
        offset = now - self.streaming.start
        step = bisect_left(self.streaming.enters, offset)
        found = step < self.streaming.steps and self.streaming.enters[step] == offset
        return step if found else None

    def stream_cause(self, fold: Fold, offset: int) -> str:
        """The cause of cycle ``offset`` of a stream: between two steps, whoever needs longer than those before."""
        speed = fold.speed
        if fold.limits:
            limited = ("compute", "dequantization", "wait_weights", "wait_activations")
            return next(cause for limit, cause in zip(fold.limits, limited, strict=True) if offset < limit)
        if self.array.serial:
            step = bisect_left(fold.enters, offset)
            within = offset - (fold.enters[step - 1] + 1 if step else 0)
            if within >= speed.stream_full:
                return "dequantization"
        else:
            within = offset % speed.stream_full
        if not self.array.serial and offset >= fold.issue - 1:
            # The last step counts one cycle of the PEs' own interval.
            within = offset - (fold.issue - 1) + (speed.stream - 1 if offset >= fold.issue else 0)
        limits = (
            (speed.stream, "compute"),
            (speed.stream_rescaled, "dequantization"),
            (speed.stream_weights, "wait_weights"),
            (speed.stream_activations, "wait_activations"),
        )
        return next((cause for limit, cause in limits if within < limit), "wait_writeback")

    def spend(self, cause: str | None) -> None:
        if cause is None:
            self.unexplained += 1
        else:
            self.stack[cause] += 1

    def _count_scales(self, fold: Fold) -> None:
        """Scales of a group are read once for every vector that they apply to."""
        flow, demand = self.array.dataflow, self.plan.demand
        rows = fold.steps if flow.preloads else fold.r
        for operand, count in ((flow.row_operand, rows), (flow.col_operand, fold.c)):
            bits = count * demand.scale_bits(operand)
            vectors = demand.scale_vectors(operand, fold.chunk)
            self.tally[f"{operand}_scale_reads"] += vectors * demand.port(operand).accesses(bits)

    def _count_step(self, fold: Fold, words: int) -> None:
        """A streamed step: PEs that work, the vector read from the row buffer, its way through the skew registers."""
        flow, demand = self.array.dataflow, self.plan.demand
        operand, bits = flow.row_operand, demand.word_bits(flow.row_operand)
        self.tally["steps"] += fold.r * fold.c
        self.tally[operand] += words
        self.tally[f"{operand}_reads"] += demand.port(operand).accesses(words * demand.code_bits(operand))
        if flow.skewed:
            delay = self.array.latency if flow.preloads else 1
            self.tally["skew_bits"] += sum(delay * i * self.array.lanes * bits for i in range(fold.r))

    def _count_column_vector(self, fold: Fold, words: int) -> None:
        """A vector from the column buffer: a streamed step's, or a row of stationary words."""
        flow, demand = self.array.dataflow, self.plan.demand
        operand, bits = flow.col_operand, demand.word_bits(flow.col_operand)
        self.tally[operand] += words
        self.tally[f"{operand}_reads"] += demand.port(operand).accesses(words * demand.code_bits(operand))
        if flow.skewed:
            self.tally["skew_bits"] += sum(j * self.array.lanes * bits for j in range(fold.c))

    def _count_result(self, fold: Fold, col: int) -> None:
        demand, chunk = self.plan.demand, fold.chunk
        if col == 0:
            self.tally["outputs_reads"] += demand.outputs.accesses(demand.result_reads(fold.c, chunk))
            self.tally["outputs_writes"] += demand.outputs.accesses(demand.result_writes(fold.c, chunk))
        self.tally["results"] += 1
        self.tally["groups"] += chunk.scaled_groups
        self.tally["rescales"] += chunk.rescaled
        self.tally["partial_adds"] += chunk.reads_partial
        if self.array.dataflow.skewed:
            self.tally["skew_bits"] += col * demand.partial_bits


class OutputController(Controller):
    """Outputs stationary: both operands stream, results drain."""

    def __init__(
        self, system: System, stack: dict[str, int], tally: dict[str, int], function: Function | None
    ) -> None:
        super().__init__(system, stack, tally)
        scales = system.step_scales if self.array.scales_inside and function is not None else None
        self.registers = OutputStationaryArray(self.array, function, scales)

    def cycle(self, now: int) -> None:
        busy = bool(self.in_flight or self.complete)
        fold = self.upcoming
        if fold is not None and now >= self.stream_end + self.held(fold)[2] and self.may_enter(fold, now):
            fold.start = now
            fold.expected = fold.timed_r * fold.timed_c
            self.enter(fold, now)
            self.streaming = fold
            self.registers.begin(self.shape(fold))
            self.tally["busy"] += fold.r * fold.c * fold.stream
        number, step, rows, cols = self.next_vectors(now)
        self.spend(self.cause(now, busy))
        self.leave(self.registers.tick(now, number, step, rows, cols), now)

    def held(self, upcoming: Fold | None) -> tuple[int, int, int]:
        """Cycles after the last stream before the next may begin, at full speed, as rescaled, as buffers allow.

        Its results must not meet those before them on the bus; without overlap, these must have left.
        """
        last = self.streaming
        if last is None:
            return 0, 0, 0
        drains = (1, last.speed.drain_rescaled, last.speed.drain_full)
        held = []
        for drain in drains:
            leaves = self.array.tail_cycles(last.timed_r, last.timed_c, drain) - last.slack
            bus_is_free = last.timed_r * drain - last.slack - upcoming.issue if upcoming is not None else 0
            overlaps = self.array.fold_overlap and upcoming is not None
            held.append(max(0, 0 if overlaps else leaves, bus_is_free))
        return held[0], held[1], held[2]

    def next_vectors(self, now: int) -> tuple[int, int, Vector | None, Vector | None]:
        """What enters in this cycle: (fold, step, row words, column words), or a bubble."""
        fold, step = self.streaming, self.entering(now)
        if fold is None or step is None:
            return BUBBLE, 0, None, None
        _, lanes = fold.pieces[step]
        self._count_step(fold, fold.r * lanes)
        self._count_column_vector(fold, fold.c * lanes)
        return fold.number, step, self.system.row_vector(fold, step), self.system.col_vector(fold, step)

    def cause(self, now: int, busy: bool) -> str | None:
        if self.streaming is None:
            return None
        if now < self.stream_end:
            return self.stream_cause(self.streaming, now - self.streaming.start)
        for cycles, cause in zip(
            self.held(self.upcoming), ("fill_drain", "dequantization", "wait_writeback"), strict=True
        ):
            if now - self.stream_end < cycles:
                return cause
        return "fill_drain" if busy else None


class PreloadController(Controller):
    """One operand is preloaded and stays; the other streams."""

    def __init__(
        self, system: System, stack: dict[str, int], tally: dict[str, int], function: Function | None
    ) -> None:
        super().__init__(system, stack, tally)
        self.registers = OperandStationaryArray(self.array, function)
        self.loading: Fold | None = None
        """The fold whose stationary words are entering, or have entered and wait for the stream before."""

    def cycle(self, now: int) -> None:
        busy = bool(self.in_flight or self.complete)
        fold = self.loading
        if fold is not None and now >= max(fold.load_start + self.load_cycles(fold), self.stream_end):
            fold.start = now
            self.tally["busy"] += fold.r * fold.c * fold.stream
            self.streaming, self.loading = fold, None
        if self.loading is None and self.upcoming is not None and self.may_enter(self.upcoming, now):
            fold = self.loading = self.upcoming
            fold.load_start = now
            fold.expected = fold.steps * fold.timed_c
            self.enter(fold, now)
            self.registers.begin(self.shape(fold))
            self.tally["preloads"] += fold.c * fold.chunk.size
        load = self.next_load(now)
        number, step, rows = self.next_vector(now)
        self.spend(self.cause(now, busy))
        fold = self.streaming
        begins = fold.number if fold is not None and fold.start == now else BUBBLE
        self.leave(self.registers.tick(number, step, rows, load, begins), now)

    def load_cycles(self, fold: Fold) -> int:
        return fold.timed_r * fold.speed.preload

    def next_load(self, now: int) -> tuple[int, int, Vector | None]:
        """The row of stationary words that enters in this cycle: (fold, row, words), or a bubble."""
        fold = self.loading
        if fold is None:
            return BUBBLE, 0, None
        row, within = divmod(now - fold.load_start, fold.speed.preload)
        if within or row >= fold.timed_r:
            return BUBBLE, 0, None
        if row >= fold.r:
            return fold.number, row, None
        lanes = min(self.array.lanes, fold.chunk.size - row * self.array.lanes)
        self._count_column_vector(fold, fold.c * lanes)
        return fold.number, row, self.system.col_vector(fold, row)

    def next_vector(self, now: int) -> tuple[int, int, Vector | None]:
        """The streamed step that enters in this cycle: (fold, step, words), or a bubble."""
        fold, step = self.streaming, self.entering(now)
        if fold is None or step is None:
            return BUBBLE, 0, None
        self._count_step(fold, fold.chunk.size)
        return fold.number, step, self.system.row_vector(fold, step)

    def cause(self, now: int, busy: bool) -> str | None:
        if self.streaming is not None and now < self.stream_end:
            return self.stream_cause(self.streaming, now - self.streaming.start)
        if self.loading is not None:
            if now - self.loading.load_start < self.loading.timed_r:
                return "fill_drain"
            return "wait_weights" if self.array.dataflow.col_operand == "weights" else "wait_activations"
        return "fill_drain" if busy else None


def controller_for(
    system: System, stack: dict[str, int], tally: dict[str, int], function: Function | None
) -> OutputController | PreloadController:
    kind = PreloadController if system.plan.array.dataflow.preloads else OutputController
    return kind(system, stack, tally, function)
