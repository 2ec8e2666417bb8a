"""The array, register by register: what every PE holds in every cycle. Slow, and meant to be read.

A word in flight carries a tag (fold, step), as the control bits that travel with operands in hardware do; -1 is a
bubble. Nothing here knows when a fold should take how long: results leave when they leave. Structural hazards (an
accumulator overwritten before its result left, a stationary word that is not there yet) raise `HazardError`: they would
mean that the schedule and the array disagree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.array import Array
from simulator.pe.arithmetic import Integers
from simulator.pe.protocol import Function, Scales

Words = Integers
Tags = npt.NDArray[np.int64]

BUBBLE = -1


class HazardError(RuntimeError):
    """Two things needed the same register or bus in one cycle."""


@dataclass
class FoldShape:
    """What the control bits say about a fold while it is in flight."""

    fold: int
    r: int
    c: int
    steps: int
    drain: int
    """Cycles the column bus or shift chain needs for a row of results."""


@dataclass(frozen=True)
class Departure:
    """Results that leave the array in one cycle: (fold, result row, column, value)."""

    fold: int
    row: int
    col: int
    value: object


@dataclass(frozen=True)
class _Shifting:
    """A result in a column's shift chain."""

    fold: int
    row: int
    value: object
    captured: int
    leaves: int
    interval: int

    def row_at(self, now: int) -> int:
        """The register that holds it."""
        return self.row + (now - self.captured) // self.interval


def word_type(function: Function | None) -> np.dtype[np.int64] | np.dtype[np.object_]:
    """What holds a word: the PE's own choice; in a run without values they are all zero."""
    return np.dtype(np.int64) if function is None else function.dtype


def state_words(function: Function | None) -> int:
    """Registers of a PE's state."""
    return 1 if function is None else function.words


def result_of(function: Function | None, state: Words) -> object:
    """The partial sum that a PE hands on."""
    return state[0] if function is None else function.result(state[None])[0]


class _Skew:
    """Registers at an edge: word i enters the array ``delay * i`` cycles after word 0."""

    def __init__(
        self, size: int, delay: int, lanes: int, dtype: np.dtype[np.int64] | np.dtype[np.object_]
    ) -> None:
        depth = delay * (size - 1) + 1
        self.words = np.zeros((depth, size, lanes), dtype)
        self.folds = np.full((depth, size), BUBBLE)
        self.steps = np.zeros((depth, size), np.int64)
        self._at = (delay * np.arange(size), np.arange(size))

    def shift(self, fold: int, step: int, words: Words | None, used: int) -> None:
        """One cycle: everything moves on, the new vector (its first ``used`` words) enters."""
        for registers in (self.words, self.folds, self.steps):
            registers[1:] = registers[:-1].copy()
        self.folds[0] = BUBBLE
        if fold != BUBBLE:
            self.folds[0, :used] = fold
            self.steps[0, :used] = step
            if words is not None:
                self.words[0, : len(words)] = words
                self.words[0, len(words) :] = 0

    @property
    def out(self) -> tuple[Words, Tags, Tags]:
        """Words, folds and steps that enter the array in this cycle."""
        return self.words[self._at], self.folds[self._at], self.steps[self._at]


class OutputStationaryArray:
    """Results accumulate in place; both operands travel (skewed) or are broadcast."""

    def __init__(
        self,
        array: Array,
        function: Function | None,
        scales: Callable[[int, int], Scales] | None = None,
    ) -> None:
        """``scales``: of a fold and step, of each of its rows and columns, where the PEs apply them."""
        self.array, self.function, self.scales = array, function, scales
        R, C, L = array.rows, array.cols, array.lanes
        dtype = word_type(function)
        delay = 1 if array.dataflow.skewed else 0
        self.row_edge, self.col_edge = _Skew(R, delay, L, dtype), _Skew(C, delay, L, dtype)
        self.row_words, self.col_words = np.zeros((R, C, L), dtype), np.zeros((R, C, L), dtype)
        self.row_folds, self.col_folds = np.full((R, C), BUBBLE), np.full((R, C), BUBBLE)
        self.steps = np.zeros((R, C), np.int64)
        self.pipeline: deque[tuple[Words, Words, Tags, Tags]] = deque()
        copies = 2 if array.fold_overlap else 1
        self.accumulators = np.zeros((copies, R, C, state_words(function)), dtype)
        self.owner = np.full((copies, R, C), BUBBLE)
        self.complete = np.zeros((copies, R, C), bool)
        self.shapes: dict[int, FoldShape] = {}
        # Column buses: the fold that each is draining, its next row, and when the bus is free again.
        self.draining: list[deque[int]] = [deque() for _ in range(C)]
        self.next_row = np.zeros(C, np.int64)
        self.bus_free = np.zeros(C, np.int64)
        self.chains: list[list[_Shifting]] = [[] for _ in range(C)]

    def begin(self, shape: FoldShape) -> None:
        """A fold's stream starts in this cycle."""
        self.shapes[shape.fold] = shape
        for column in range(shape.c):
            self.draining[column].append(shape.fold)

    def tick(self, now: int, fold: int, step: int, rows: Words | None, cols: Words | None) -> list[Departure]:
        """One cycle, in which a streamed step enters (or a bubble: fold -1)."""
        shape = self.shapes.get(fold)
        self.row_edge.shift(fold, step, rows, shape.r if shape else 0)
        self.col_edge.shift(fold, step, cols, shape.c if shape else 0)
        self._travel()
        live = (self.row_folds != BUBBLE) & (self.row_folds == self.col_folds)
        folds = np.where(live, self.row_folds, BUBBLE)
        self.pipeline.append((self.row_words.copy(), self.col_words.copy(), folds, self.steps.copy()))
        if len(self.pipeline) == self.array.latency:
            self._accumulate(*self.pipeline.popleft())
        return self._drain(now)

    def _travel(self) -> None:
        row_words, row_folds, row_steps = self.row_edge.out
        col_words, col_folds, _ = self.col_edge.out
        if not self.array.dataflow.skewed:
            self.row_words[:], self.row_folds[:], self.steps[:] = (
                row_words[:, None],
                row_folds[:, None],
                row_steps[:, None],
            )
            self.col_words[:], self.col_folds[:] = col_words[None], col_folds[None]
            return
        for registers, entering in (
            (self.row_words, row_words),
            (self.row_folds, row_folds),
            (self.steps, row_steps),
        ):
            registers[:, 1:] = registers[:, :-1].copy()
            registers[:, 0] = entering
        for registers, entering in ((self.col_words, col_words), (self.col_folds, col_folds)):
            registers[1:] = registers[:-1].copy()
            registers[0] = entering

    def _accumulate(self, row_words: Words, col_words: Words, folds: Tags, steps: Tags) -> None:
        """Products of the operands that entered the PEs ``latency - 1`` cycles ago reach their accumulators."""
        for fold in np.unique(folds[folds != BUBBLE]).tolist():
            mask = folds == fold
            copy = fold % len(self.accumulators)
            shape = self.shapes[fold]
            first = mask & (steps == 0)
            if (self.owner[copy][first] != BUBBLE).any():
                raise HazardError(f"fold {fold} overwrites a result that has not left")
            self.owner[copy][first] = fold
            self.accumulators[copy][first] = 0
            if self.function is not None and self.scales is None:
                self._step(copy, mask, row_words, col_words)
            elif self.scales is not None:
                for step in np.unique(steps[mask]).tolist():
                    here = mask & (steps == step)
                    self._step(copy, here, row_words, col_words, self.scales(fold, step))
            self.complete[copy][mask & (steps == shape.steps - 1)] = True

    def _step(
        self,
        copy: int,
        mask: npt.NDArray[np.bool_],
        row_words: Words,
        col_words: Words,
        of_step: Scales | None = None,
    ) -> None:
        """One step of the PEs in ``mask``."""
        assert self.function is not None
        rows, cols = np.nonzero(mask)
        state = self.accumulators[copy][mask]
        activations, weights = row_words[mask], col_words[mask]
        scales = None
        if of_step is not None:
            m, n = (cols, rows) if self.array.dataflow.row_operand == "weights" else (rows, cols)
            # PEs beyond the fold's own rows and columns run idle where edge folds take the time of full ones.
            m, n = np.minimum(m, len(of_step.activations) - 1), np.minimum(n, len(of_step.weights) - 1)
            zeros = of_step.weight_zeros[n], of_step.activation_zeros[m]
            scales = Scales(of_step.weights[n], of_step.activations[m], *zeros, of_step.ends_group)
        if self.array.dataflow.row_operand == "weights":
            activations, weights = weights, activations
        self.accumulators[copy][mask] = self.function.step(state, activations, weights, scales)

    def _drain(self, now: int) -> list[Departure]:
        departures = []
        for column, queue in enumerate(self.draining):
            if self.array.shift_drain:
                self._capture(now, column, queue)
                leaving = [shifting for shifting in self.chains[column] if shifting.leaves == now]
                departures += [Departure(word.fold, word.row, column, word.value) for word in leaving]
                self.chains[column] = [word for word in self.chains[column] if word.leaves > now]
            elif queue and now >= self.bus_free[column]:
                fold, row = queue[0], int(self.next_row[column])
                copy, shape = fold % len(self.accumulators), self.shapes[queue[0]]
                if self.complete[copy, row, column] and self.owner[copy, row, column] == fold:
                    departures.append(Departure(fold, row, column, self._release(copy, row, column)))
                    self.bus_free[column] = now + shape.drain
                    self.next_row[column] += 1
                    if self.next_row[column] == shape.r:
                        self.next_row[column] = 0
                        queue.popleft()
        return departures

    def _capture(self, now: int, column: int, queue: deque[int]) -> None:
        """When its last row is complete, a column's results move into the shift chain, bottom row first out.

        A fold of r rows leaves the chain below row r - 1, so it needs only the chain's first r registers to be empty: a
        shorter fold may be captured behind the last words of a longer one.
        """
        if not queue:
            return
        fold, shape = queue[0], self.shapes[queue[0]]
        copy = fold % len(self.accumulators)
        if not (
            self.complete[copy, : shape.r, column].all()
            and (self.owner[copy, : shape.r, column] == fold).all()
        ):
            return
        if any(word.leaves > now and word.row_at(now) < shape.r for word in self.chains[column]):
            raise HazardError(f"fold {fold} finds the shift chain of column {column} occupied")
        for row in range(shape.r):
            leaves = now + (shape.r - row) * shape.drain
            value = self._release(copy, row, column)
            self.chains[column].append(_Shifting(fold, row, value, now, leaves, shape.drain))
        queue.popleft()

    def _release(self, copy: int, row: int, column: int) -> object:
        self.owner[copy, row, column] = BUBBLE
        self.complete[copy, row, column] = False
        return result_of(self.function, self.accumulators[copy, row, column])


class OperandStationaryArray:
    """One operand is loaded and stays; the other streams past it; partial sums travel down and leave below the last
    row."""

    def __init__(self, array: Array, function: Function | None) -> None:
        self.array, self.function = array, function
        R, C, L, p = array.rows, array.cols, array.lanes, array.latency
        dtype = word_type(function)
        self.row_edge = _Skew(R, p, L, dtype)
        self.begin_edge = _Skew(R, p, 0, dtype)
        """A stream's beginning travels ahead of its steps: PEs take their next stationary word."""
        self.beginning = np.full((R, C), BUBBLE)
        self.load_edge = _Skew(C, 1, L, dtype)
        # Stationary words travel p cycles a row; (depth, column), row i listens at depth p * i.
        depth = p * (R - 1) + 1
        self.chain_words = np.zeros((depth, C, L), dtype)
        self.chain_folds = np.full((depth, C), BUBBLE)
        self.chain_rows = np.zeros((depth, C), np.int64)
        self.shadow, self.active = np.zeros((R, C, L), dtype), np.zeros((R, C, L), dtype)
        self.shadow_folds, self.active_folds = np.full((R, C), BUBBLE), np.full((R, C), BUBBLE)
        self.words = np.zeros((R, C, L), dtype)
        self.folds, self.steps = np.full((R, C), BUBBLE), np.zeros((R, C), np.int64)
        states = np.zeros((R, C, state_words(function)), dtype)
        empty = (states, np.full((R, C), BUBBLE), np.zeros((R, C), np.int64))
        self.partials: deque[tuple[Words, Tags, Tags]] = deque([empty] * p, maxlen=p)
        """Partial sums computed in the last p cycles, the newest last."""
        self.shapes: dict[int, FoldShape] = {}

    def begin(self, shape: FoldShape) -> None:
        """A fold's preload starts in this cycle."""
        self.shapes[shape.fold] = shape

    def tick(
        self, fold: int, step: int, rows: Words | None, load: tuple[int, int, Words | None], begins: int
    ) -> list[Departure]:
        """One cycle, in which a streamed step enters, and a stationary word row: (fold, row, words); bubbles are -1.

        ``begins``: the fold whose stream begins in this cycle.
        """
        shape = self.shapes.get(fold)
        self.row_edge.shift(fold, step, rows, shape.r if shape else 0)
        self.begin_edge.shift(begins, 0, None, self.shapes[begins].r if begins != BUBBLE else 0)
        self.beginning[:, 1:] = self.beginning[:, :-1].copy()
        self.beginning[:, 0] = self.begin_edge.out[1]
        for registers, entering in zip((self.words, self.folds, self.steps), self.row_edge.out, strict=True):
            registers[:, 1:] = registers[:, :-1].copy()
            registers[:, 0] = entering
        columns = np.arange(self.array.cols)[None, :]
        live = (self.folds != BUBBLE) & (columns < self._by_fold(self.folds, "c"))
        starting = (self.beginning != BUBBLE) & (columns < self._by_fold(self.beginning, "c"))
        if (self.shadow_folds[starting] != self.beginning[starting]).any():
            raise HazardError("a stream reaches a PE before its stationary word")
        self.active[starting] = self.shadow[starting]
        self.active_folds[starting] = self.beginning[starting]
        if (self.active_folds[live] != self.folds[live]).any():
            raise HazardError("a PE holds the stationary word of another fold")
        self._compute(live)
        # The next fold's word may arrive in the cycle in which this fold's is taken: it is latched at the cycle's end.
        self._load(*load)
        return self._leave()

    def _load(self, fold: int, row: int, words: Words | None) -> None:
        shape = self.shapes.get(fold)
        self.load_edge.shift(fold, row, words, shape.c if shape else 0)
        entering, new_folds, new_rows = self.load_edge.out
        for registers, new in (
            (self.chain_words, entering),
            (self.chain_folds, new_folds),
            (self.chain_rows, new_rows),
        ):
            registers[1:] = registers[:-1].copy()
            registers[0] = new
        at_row = self.array.latency * np.arange(self.array.rows)
        folds, rows = self.chain_folds[at_row], self.chain_rows[at_row]
        here = (folds != BUBBLE) & (rows == np.arange(self.array.rows)[:, None])
        self.shadow[here] = self.chain_words[at_row][here]
        self.shadow_folds[here] = folds[here]

    def _by_fold(self, folds: Tags, what: str) -> Tags:
        """A fact about the fold of each register; 0 for bubbles."""
        facts = np.zeros_like(folds)
        for fold in np.unique(folds[folds != BUBBLE]).tolist():
            facts[folds == fold] = getattr(self.shapes[fold], what)
        return facts

    def _compute(self, live: npt.NDArray[np.bool_]) -> None:
        above_words, above_folds, above_steps = self.partials[0]
        partial = np.zeros_like(above_words)
        partial[1:] = above_words[:-1]
        below = live.copy()
        below[0] = False
        if ((above_folds[:-1] != self.folds[1:]) | (above_steps[:-1] != self.steps[1:]))[below[1:]].any():
            raise HazardError("a partial sum meets another step's operand")
        sums = np.zeros_like(above_words)
        if self.function is not None and live.any():
            a, w = self.words[live], self.active[live]
            if self.array.dataflow.row_operand == "weights":
                a, w = w, a
            sums[live] = self.function.step(partial[live], a, w)
        self.partials.append((sums, np.where(live, self.folds, BUBBLE), self.steps.copy()))

    def _leave(self) -> list[Departure]:
        """Partial sums that finish their last used row in this cycle, ``latency`` cycles after they entered it."""
        words, folds, steps = self.partials[0]
        last = (folds != BUBBLE) & (np.arange(self.array.rows)[:, None] == self._by_fold(folds, "r") - 1)
        return [
            Departure(int(folds[i, j]), int(steps[i, j]), int(j), result_of(self.function, words[i, j]))
            for i, j in zip(*np.nonzero(last), strict=True)
        ]
