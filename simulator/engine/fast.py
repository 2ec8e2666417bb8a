"""The fast engine: a layer's cycles, their causes and all counts, by a recurrence over tiles and closed forms inside
them.

It gives the integers that the reference engine gives (`simulator.engine.reference`); a property test holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from simulator.array.schedule import (
    CAUSES,
    COUNTERS,
    Block,
    Vector,
    gemm_block,
    sequence_blocks,
)
from simulator.engine.accounts import Movements, account
from simulator.engine.record import LayerRecord, Run
from simulator.engine.recurrence import BLOCK_CAUSES, Table, tile_recurrence
from simulator.engine.streams import DataRun, Streams, data_counts, fold_shapes, in_order, streams
from simulator.mapping import Plan

WORTH_COMPILING = 4000
"""Tiles from which the compiled recurrence pays for loading it."""


def simulate_gemm(
    plan: Plan, name: str, op: str, data: DataRun | None = None, *, trace: bool = False
) -> LayerRecord:
    """One mapped operation; with ``data``, at the speed of its codes. ``trace``: record the busy intervals of DMA and
    array as well."""
    timed = None if data is None else streams(plan, data)
    blocks = _blocks(plan) if timed is None else timed_blocks(plan, timed)
    arguments = prepare(plan, blocks, trace=trace)
    mt, nt, kt = plan.counts
    recurrence = tile_recurrence.for_work(plan.batch * mt * nt * kt, WORTH_COMPILING)
    times, causes = recurrence(*arguments)
    intervals = {}
    if trace:
        intervals = {"array": compress(arguments[-2]), "dma": compress(arguments[-1][: times[1]])}
    stack = {cause: int(cycles) for cause, cycles in zip(CAUSES, causes, strict=True)}
    counts = _totals(plan, blocks)
    return account(
        plan,
        name,
        op,
        int(times[0]),
        stack,
        counts,
        movements(plan),
        intervals,
        data=None if timed is None else data_counts(plan, timed),
    )


@dataclass(frozen=True)
class Blocks:
    """The folds of every tile, those that are alike once."""

    blocks: list[list[list[list[Block]]]]
    """[batch entry][along m][along n][along k]"""
    which: tuple[Table, Table, Table, Table]
    """For each batch entry, tile along m, n and k, its place in ``blocks``."""
    alike: bool
    """Tiles of equal extents are alike."""


def _blocks(plan: Plan) -> Blocks:
    """Tiles of equal extents take equal times: [the last along m][along n][kind of K tile]."""
    mt, nt, _ = plan.counts
    known: dict[tuple[int, int, int], Block] = {}

    def block(m: int, n: int, kind: int) -> Block:
        key = (m, n, kind)
        if key not in known:
            known[key] = gemm_block(plan.array, plan.demand, m, n, plan.k_tiles.kinds[kind].runs)
        return known[key]

    kinds = range(len(plan.k_tiles.kinds))
    of_tiles = [
        [[block(plan.rows_m(mi), plan.rows_n(ni), kind) for kind in kinds] for ni in (0, nt - 1)]
        for mi in (0, mt - 1)
    ]
    which = (np.zeros(plan.batch, np.int64), _is_last(mt), _is_last(nt), plan.k_tiles.which)
    return Blocks([of_tiles], which, alike=True)


def _is_last(count: int) -> Table:
    last = np.zeros(count, np.int64)
    last[-1] = 1
    return last


def timed_blocks(plan: Plan, timed: Streams) -> Blocks:
    """Every tile by itself: its folds stream as long as their codes take. Tiles of equal extents are timed together."""
    mt, nt, kt = plan.counts
    uniform = _blocks(plan).blocks[0]
    k_chunks = [plan.chunk_list(ki) for ki in range(kt)]
    k_at = np.cumsum([0, *map(len, k_chunks)])
    blocks: list[Any] = [[[[None] * kt for _ in range(nt)] for _ in range(mt)] for _ in range(plan.batch)]
    kinds = range(len(plan.k_tiles.kinds))
    for m_tiles, n_tiles, kind in product(_by_extent(mt), _by_extent(nt), kinds):
        k_tiles = np.flatnonzero(plan.k_tiles.which == kind)
        chunks = k_chunks[k_tiles[0]]
        folds = [plan.folds_m(m_tiles[0]), plan.folds_n(n_tiles[0])]
        m_at = np.array([plan.folds_m(mi).start for mi in m_tiles])[:, None] + np.arange(len(folds[0]))
        n_at = np.array([plan.folds_n(ni).start for ni in n_tiles])[:, None] + np.arange(len(folds[1]))
        at = k_at[k_tiles][:, None] + np.arange(len(chunks))
        here = timed.lengths[
            :, :, m_at[:, None, None, :, None, None], n_at[None, :, None, None, :, None], at[:, None, None]
        ]
        extents = (plan.rows_m(m_tiles[0]), plan.rows_n(n_tiles[0]))
        found = sequence_blocks(
            plan.array,
            plan.demand,
            fold_shapes(plan, extents, chunks),
            in_order(plan, here),
            uniform[int(m_tiles[0] == mt - 1)][int(n_tiles[0] == nt - 1)][kind].counts,
        )
        places = product(range(plan.batch), m_tiles, n_tiles, k_tiles.tolist())
        for (batch, mi, ni, ki), block in zip(places, found, strict=True):
            blocks[batch][mi][ni][ki] = block
    which = (np.arange(plan.batch), np.arange(mt), np.arange(nt), np.arange(kt))
    return Blocks(blocks, which, alike=False)


def _by_extent(count: int) -> list[list[int]]:
    """Tiles along an axis: all but the last are alike."""
    return [list(range(count - 1)), [count - 1]] if count > 1 else [[0]]


def prepare(plan: Plan, blocks: Blocks | None = None, *, trace: bool = False) -> tuple[Table, ...]:
    """The arguments of `tile_recurrence` for a plan."""
    blocks = blocks or _blocks(plan)
    if max(plan.slots) > 2:
        raise ValueError(f"the recurrence keeps two tiles an operand, not {max(plan.slots)}")
    counts, strides = _loops(plan)
    axes = {"m": 0, "n": 1, "k": 2}
    levels = [
        [strides["batch"], plan.batch, -1],
        *([strides[a], counts[a], axes[a]] for a in plan.tiling.order),
    ]
    loops = [plan.batch, *(counts[axis] for axis in "mnk"), *(strides[axis] for axis in "mnk")]
    flow = plan.array.dataflow
    machine = [
        flow.preloads,
        plan.array.fold_overlap,
        plan.dram.latency,
        *plan.slots,
        flow.col_operand == "weights",
        blocks.alike,
        len(plan.k_tiles.kinds),
    ]
    traced = plan.batch * strides["batch"] if trace else 0
    return (
        np.array(levels, np.int64),
        np.array(loops, np.int64),
        np.array(machine, np.int64),
        np.array([_stays(plan, operand) for operand in range(3)], np.int64),
        plan.k_tiles.which,
        _k_same(plan.k_tiles.which),
        np.concatenate(blocks.which),
        _block_table(blocks),
        _durations(plan),
        np.zeros((traced, 2), np.int64),
        np.zeros((4 * traced, 2), np.int64),
    )


def _loops(plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Iterations of the loops over m, n and k, and the steps from one iteration to the next, of the batch too."""
    counts = dict(zip("mnk", plan.counts, strict=True))
    first, second, third = tuple(plan.tiling.order)
    inner = counts[second] * counts[third]
    return counts, {"batch": counts[first] * inner, first: inner, second: counts[third], third: 1}


def _k_same(which: Table) -> Table:
    """For each K tile the last of its kind that follow it without a gap."""
    changes = np.flatnonzero(which[1:] != which[:-1])
    ends = np.append(changes, len(which) - 1)
    same: Table = np.repeat(ends, np.diff(ends, prepend=-1))
    return same


def _tiles_of_kind(plan: Plan) -> list[int]:
    """How many K tiles are of each kind."""
    tiles: list[int] = np.bincount(plan.k_tiles.which, minlength=len(plan.k_tiles.kinds)).tolist()
    return tiles


def _stays(plan: Plan, operand: int) -> tuple[int, int, int, int]:
    """When an operand's tiles are in use: tile s from step (s // d) * period + (s % d) * apart, for ``length`` more
    steps.

    Returns (d, period, apart, length). Operand 0 is weights, 1 activations, 2 outputs. An operand with no more tiles
    than slots keeps its d tiles for as long as batch entries share them; else every change of its indices is a new
    stay.
    """
    counts, strides = _loops(plan)
    per_batch = strides["batch"]
    free = "mnk"[operand]
    axes = [axis for axis in "mnk" if axis != free]
    distinct = counts[axes[0]] * counts[axes[1]]
    if distinct <= plan.slots[operand]:
        shared = plan.weight_reuse if operand == 0 else 1
        apart = max((strides[axis] for axis in axes if counts[axis] > 1), default=0)
        return (
            distinct,
            shared * per_batch,
            apart,
            (shared - 1) * per_batch + (counts[free] - 1) * strides[free],
        )
    stride = min(strides[axis] for axis in axes if counts[axis] > 1)
    return 1, stride, 0, stride - 1


def movements(plan: Plan) -> Movements:
    """How often each kind of tile moves: the loops come to every tile of an operand equally often."""
    mt, nt, kt = plan.counts
    steps = plan.batch * mt * nt * kt
    weights, activations, outputs = (_stays(plan, operand) for operand in range(3))
    ends = (np.array([nt - 1, 1]), np.array([mt - 1, 1]))
    each_weight = steps * weights[0] // (weights[1] * nt * kt)
    each_activation = steps * activations[0] // (activations[1] * mt * kt)
    each_output = steps * outputs[0] // (outputs[1] * mt * nt)
    # Stays of an output tile that do not complete it are spilled, and restored for the next one.
    spills = (each_output - plan.batch) * np.outer(ends[1], ends[0])
    return Movements(
        weight_loads=each_weight * np.outer(ends[0], _tiles_of_kind(plan)),
        activation_loads=each_activation * np.outer(ends[1], _tiles_of_kind(plan)),
        spill_loads=spills,
        spills=spills,
    )


def _block_table(blocks: Blocks) -> Table:
    """A row of integers for each block: its times, then its causes."""
    rows = [
        [
            *(block.span, block.end, block.load, block.load_base, block.first_issue, block.stream),
            *block.hold,
            *block.tail,
            *block.causes.tolist(),
        ]
        for of_batch in blocks.blocks
        for of_m in of_batch
        for of_n in of_m
        for block in of_n
    ]
    sizes = (int(which.max()) + 1 for which in blocks.which)
    return np.array(rows, np.int64).reshape(*sizes, BLOCK_CAUSES + len(CAUSES))


def _totals(plan: Plan, blocks: Blocks) -> Vector:
    """Event counts of all tiles."""
    times = [np.bincount(which).tolist() for which in blocks.which]
    total = np.zeros(len(COUNTERS), object)
    for (b, of_batch), (i, of_m), (j, of_n), (k, of_k) in product(*(enumerate(each) for each in times)):
        tiles = of_batch * of_m * of_n * of_k
        if tiles:
            total += tiles * blocks.blocks[b][i][j][k].counts
    return total


def _durations(plan: Plan) -> Table:
    """DMA cycles: loads of weights, of activations [is last][kind of K tile], write-back [4], spill [4], first loads.

    The fours are indexed by "is the last tile along m, n"; the last entry is when everything starts.
    """
    mt, nt, _ = plan.counts
    ends = ((0, mt - 1), (0, nt - 1))
    kinds = plan.k_tiles.first
    weights = [plan.load_cycles(0, plan.weight_bits(ni, ki)) for ni in ends[1] for ki in kinds]
    activations = [plan.load_cycles(1, plan.activation_bits(mi, ki)) for mi in ends[0] for ki in kinds]
    writes = [plan.write_cycles(mi, ni) for mi in ends[0] for ni in ends[1]]
    spills = [plan.load_cycles(2, plan.spill_bits(mi, ni)) for mi in ends[0] for ni in ends[1]]
    first = [
        plan.load_cycles(0, plan.weight_bits(0, 0) + plan.weights.tensor_bits),
        plan.load_cycles(1, plan.activation_bits(0, 0) + plan.activations.tensor_bits),
        plan.vector_cycles,
    ]
    return np.array(weights + activations + writes + spills + first, np.int64)


def compress(intervals: Table) -> tuple[Run, ...]:
    """(start, end) rows in time order as runs of equal lengths and distances."""
    if not len(intervals):
        return ()
    starts, lengths = intervals[:, 0], intervals[:, 1] - intervals[:, 0]
    runs: list[Run] = []
    first, total = 0, len(starts)
    while first < total:
        last = first
        period = int(starts[first + 1] - starts[first]) if first + 1 < total else 0
        while (
            last + 1 < total
            and starts[last + 1] - starts[last] == period
            and lengths[last + 1] == lengths[first]
        ):
            last += 1
        runs.append(
            Run(int(starts[first]), period if last > first else 0, last - first + 1, int(lengths[first]))
        )
        first = last + 1
    return tuple(runs)
