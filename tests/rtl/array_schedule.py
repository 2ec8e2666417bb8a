"""What a test bench sends into an array and expects back, by the rules of docs/concepts.md and nothing else.

Cycles count from the first word that enters. Of the package it uses a plan's list of folds (which rows, columns and K
each holds); when each begins is computed here, from the page.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from simulator.engine.fold import Fold, folds_in_order
from simulator.mapping import Plan

PORT_CYCLES = 2
"""From a port's cycle to the other port's, more than from the cycle in which a word enters to that in which its result
leaves: one at either side."""


@dataclass
class Timed:
    """A fold, and the cycles in which its stream and preload begin."""

    fold: Fold
    start: int
    load_start: int = 0


def interval(plan: Plan, fold: Fold) -> int:
    """s: cycles between steps of the array where no buffer is slow."""
    array = plan.array
    rescale = plan.demand.rescale_interval if fold.chunk.rescaled and array.dataflow.preloads else 1
    return max(array.initiation_interval, rescale)


def drain(plan: Plan, fold: Fold) -> int:
    """d: cycles between rows of results."""
    return 1 if plan.array.dataflow.preloads or not fold.chunk.rescaled else plan.demand.rescale_interval


def first_to_last(plan: Plan, fold: Fold) -> int:
    """I."""
    s, steps = interval(plan, fold), fold.steps
    return s * steps if plan.array.serial else s * (steps - 1) + 1


def held_ports(plan: Plan, fold: Fold) -> int:
    """T'."""
    slack = 0 if plan.array.serial else interval(plan, fold) - plan.array.initiation_interval
    return first_to_last(plan, fold) + slack


def used(plan: Plan, fold: Fold) -> tuple[int, int]:
    """r and c that time counts."""
    if plan.array.full_edge_folds:
        return plan.array.rows, plan.array.cols
    return fold.r, fold.c


def last_leaves(plan: Plan, fold: Fold) -> int:
    """Cycles from the first step until the last result has left, the table's formulas."""
    array, (r, c) = plan.array, used(plan, fold)
    issue, p, d = first_to_last(plan, fold), array.latency, drain(plan, fold)
    if array.dataflow.preloads:
        return issue - 1 + p * r + c - 1
    skewed = array.dataflow.skewed
    across = c - 1 if skewed else 0
    if array.shift_drain:
        return issue + (p - 1) + (r - 1 if skewed else 0) + across + r * d
    return issue + (p - 1) + (r - 1) * d + across


def schedule(plan: Plan) -> list[Timed]:
    """When every fold of an untiled operation begins."""
    timed: list[Timed] = []
    over = 0
    for fold in folds_in_order(plan):
        r, _ = used(plan, fold)
        before = timed[-1] if timed else None
        if plan.array.dataflow.preloads:
            load = 0 if before is None else before.start if plan.array.fold_overlap else over
            start = load + r
            if before is not None:
                start = max(start, before.start + held_ports(plan, before.fold))
        else:
            load, start = 0, 0
            if before is not None:
                f, r_before = before.fold, used(plan, before.fold)[0]
                start = before.start + held_ports(plan, f)
                bus = before.start + first_to_last(plan, f) + r_before * drain(plan, f)
                start = max(start, bus - first_to_last(plan, fold))
                if not plan.array.fold_overlap:
                    start = max(start, over)
        timed.append(Timed(fold, start, load))
        over = start + max(held_ports(plan, fold), last_leaves(plan, fold))
    return timed


def exits_of(plan: Plan, timed: list[Timed]) -> list[int]:
    """The exit that each fold takes: one for each number of used rows, where results leave below the last of them."""
    heights = [used(plan, t.fold)[0] for t in timed]
    if not (plan.array.shift_drain or plan.array.dataflow.preloads):
        return [0] * len(timed)
    return [sorted(set(heights), reverse=True).index(height) for height in heights]


def end(plan: Plan, timed: list[Timed]) -> int:
    """Cycles of the whole operation."""
    return max(t.start + max(held_ports(plan, t.fold), last_leaves(plan, t.fold)) for t in timed)


@dataclass(frozen=True)
class Codes:
    """What the array multiplies: (rows of the row operand, k), (rows of the column operand, k), and their widths."""

    row: np.ndarray
    col: np.ndarray
    row_bits: int
    col_bits: int
    sum_bits: int


def _word(values: np.ndarray, bits: int) -> int:
    """Integers side by side, the first lowest, two's complement."""
    return sum(
        (int(value) & ((1 << bits) - 1)) << (place * bits) for place, value in enumerate(values.ravel())
    )


def _lanes(rows: np.ndarray, lanes: int) -> np.ndarray:
    """(rows, k) as (rows, steps of k, lanes), filled up with zeros."""
    steps = -(-rows.shape[1] // lanes)
    padded = np.zeros((len(rows), steps * lanes), np.int64)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(len(rows), steps, lanes)


def stimulus(
    plan: Plan,
    timed: list[Timed],
    codes: Codes,
    exits: list[int],
    cycles: int,
    *,
    later_wins: bool = False,
) -> list[dict[str, int]]:
    """The input ports in every cycle; one of reset before the first. ``exits``: of each fold. ``later_wins``: a word
    takes the port from one that should still be there."""
    array, lanes = plan.array, plan.array.lanes
    ports: list[dict[str, int]] = [{} for _ in range(cycles + 1)]

    def put(cycle: int, **values: int) -> None:
        assert later_wins or not values.keys() & ports[cycle + 1].keys(), "two words at one port"
        ports[cycle + 1].update(values)

    for number, t in enumerate(timed):
        fold, (r, c) = t.fold, used(plan, t.fold)
        here = slice(fold.low, fold.low + fold.chunk.size)
        s, ii = interval(plan, fold), array.initiation_interval
        col = _lanes(codes.col[fold.cols, here], lanes)
        if array.dataflow.preloads:
            for row in range(r):
                word = _word(col[:, row], codes.col_bits) if row < col.shape[1] else 0
                put(t.load_start + row, cols=word, load_valid=(1 << c) - 1, load_row=row)
            row_words = _lanes(codes.row[:, here], lanes)
            words = [row_words[step] for step in range(fold.steps)]
        else:
            row = _lanes(codes.row[fold.rows, here], lanes)
            words = [row[:, step] for step in range(fold.steps)]
        for step, word in enumerate(words):
            for phase in range(ii if array.serial else 1):
                begins = step == 0 and phase == 0
                ends = step == fold.steps - 1 and phase == (ii - 1 if array.serial else 0)
                common = {
                    "rows": _word(word, codes.row_bits),
                    "row_valid": (1 << r) - 1,
                    "first": int(begins),
                    "last": int(ends),
                    "last_row": r - 1,
                    "exit": exits[number],
                }
                if not array.dataflow.preloads:
                    common |= {"cols": _word(col[:, step], codes.col_bits), "col_valid": (1 << c) - 1}
                    common |= {"phase": phase}
                put(t.start + step * s + phase, **common)
    return ports


@dataclass(frozen=True, order=True)
class Leaving:
    """A result at an exit: in which cycle, of which column, its value."""

    cycle: int
    col: int
    value: int


def leavings(outputs: list[tuple[int, int]], exits: int, sum_bits: int) -> dict[int, list[Leaving]]:
    """By exit, in order: what the hardware's output ports showed, as cycles in which results left."""
    found: dict[int, list[Leaving]] = {q: [] for q in range(exits)}
    for cycle, (valid, out) in enumerate(outputs):
        place = 0
        while valid >> place:
            if valid >> place & 1:
                value = out >> (place * sum_bits) & ((1 << sum_bits) - 1)
                value -= (value >> (sum_bits - 1)) << sum_bits
                found[place % exits].append(Leaving(cycle - 1 - PORT_CYCLES, place // exits, value))
            place += 1
    return found


def expected_leavings(
    plan: Plan, timed: list[Timed], codes: Codes, exits: list[int]
) -> dict[int, list[Leaving]]:
    """By exit: when each result leaves its column by the page, and the exact sum that it must be."""
    array = plan.array
    found: dict[int, list[Leaving]] = {q: [] for q in range(max(exits) + 1)}
    for number, t in enumerate(timed):
        r, c = used(plan, t.fold)
        p, d, s, skewed = array.latency, drain(plan, t.fold), interval(plan, t.fold), array.dataflow.skewed
        sums = partial_sums(plan, t.fold, codes)
        for j in range(c):
            for i in range(t.fold.steps if array.dataflow.preloads else r):
                value = int(sums[i, j]) if i < sums.shape[0] and j < sums.shape[1] else 0
                if array.dataflow.preloads:
                    cycle = t.start + i * s + p * r - 1 + j
                else:
                    across = j if skewed else 0
                    done = t.start + first_to_last(plan, t.fold) - 1 + p - 1 + across
                    last_row = r - 1 if skewed else 0
                    cycle = done + (last_row + (r - i) * d if array.shift_drain else i * d)
                found[exits[number]].append(Leaving(cycle, j, value))
    return {q: sorted(of_exit) for q, of_exit in found.items()}


def partial_sums(plan: Plan, fold: Fold, codes: Codes) -> np.ndarray:
    """(result rows, columns) of a fold: exact, wrapped to the accumulator."""
    here = slice(fold.low, fold.low + fold.chunk.size)
    rows = codes.row if plan.array.dataflow.preloads else codes.row[fold.rows]
    exact = rows[:, here].astype(object) @ codes.col[fold.cols, here].astype(object).T
    half = 1 << (codes.sum_bits - 1)
    return (exact + half) % (2 * half) - half


def most_at_once(leaving: dict[int, list[Leaving]]) -> int:
    """Results that leave one column in one cycle, at most."""
    at = Counter((result.cycle, result.col) for results in leaving.values() for result in results)
    return max(at.values())
