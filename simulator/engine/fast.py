"""The fast engine: a layer's cycles, their causes and all counts, by a recurrence over tiles and closed forms inside them.

It gives the integers that the reference engine gives (`simulator.engine.reference`); a property test holds them equal.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from simulator.array.schedule import CAUSES, DEQUANTIZATION, FILL_DRAIN, WAIT_WRITEBACK, Block, gemm_block
from simulator.engine.accounts import Movements, account
from simulator.engine.record import LayerRecord, Run
from simulator.kernels import kernel
from simulator.mapping import Plan

WORTH_COMPILING = 4000
"""Tiles from which the compiled recurrence pays for loading it."""

Table = npt.NDArray[np.int64]

SPAN, END, LOAD, LOAD_BASE, FIRST_STREAM, STREAM, HOLD, TAIL = 0, 1, 2, 3, 4, 5, 6, 9
"""Columns of a block's row: `hold` and `tail` have three each, then come the causes."""
BLOCK_CAUSES = 12
FILL, WRITE, DEQUANTIZE = FILL_DRAIN, WAIT_WRITEBACK, DEQUANTIZATION


def simulate_gemm(plan: Plan, name: str, op: str, *, trace: bool = False) -> LayerRecord:
    """One mapped operation. ``trace``: record the busy intervals of DMA and array as well."""
    blocks = _blocks(plan)
    arguments = prepare(plan, blocks, trace=trace)
    mt, nt, kt = plan.counts
    recurrence = tile_recurrence.for_work(plan.batch * mt * nt * kt, WORTH_COMPILING)
    times, causes, loads = recurrence(*arguments)
    movements = Movements(
        weight_loads=loads[: 2 * kt].reshape(2, kt),
        activation_loads=loads[2 * kt : 4 * kt].reshape(2, kt),
        spill_loads=loads[4 * kt : 4 * kt + 4].reshape(2, 2),
        spills=loads[4 * kt + 4 : 4 * kt + 8].reshape(2, 2),
    )
    intervals = {}
    if trace:
        intervals = {"array": compress(arguments[-2]), "dma": compress(arguments[-1][: times[1]])}
    stack = {cause: int(cycles) for cause, cycles in zip(CAUSES, causes, strict=True)}
    return account(plan, name, op, int(times[0]), stack, _totals(plan, blocks), movements, intervals)


Blocks = list[list[list[Block]]]


def _blocks(plan: Plan) -> Blocks:
    """The folds of every kind of tile: [m is the last][n is the last][kind of K tile]."""
    mt, nt, _ = plan.counts
    known: dict[tuple[int, int, int], Block] = {}

    def block(m: int, n: int, kind: int) -> Block:
        key = (m, n, kind)
        if key not in known:
            known[key] = gemm_block(plan.array, plan.demand, m, n, plan.k_kinds[0][kind])
        return known[key]

    kinds = range(len(plan.k_kinds[0]))
    return [
        [[block(plan.rows_m(mi), plan.rows_n(ni), kind) for kind in kinds] for ni in (0, nt - 1)]
        for mi in (0, mt - 1)
    ]


def prepare(plan: Plan, blocks: Blocks | None = None, *, trace: bool = False) -> tuple[Table, ...]:
    """The arguments of `tile_recurrence` for a plan."""
    mt, nt, kt = plan.counts
    counts = {"m": mt, "n": nt, "k": kt}
    order = plan.tiling.order
    strides = {order[0]: counts[order[1]] * counts[order[2]], order[1]: counts[order[2]], order[2]: 1}
    loops = [plan.batch, mt, nt, kt, strides["m"], strides["n"], strides["k"]]
    flow = plan.array.dataflow
    machine = [
        flow.preloads,
        plan.array.fold_overlap,
        plan.dram.latency,
        *plan.slots,
        flow.col_operand == "weights",
    ]
    steps = plan.batch * mt * nt * kt
    return (
        np.array(loops, np.int64),
        np.array(machine, np.int64),
        np.array([_stays(plan, counts, strides, operand) for operand in range(3)], np.int64),
        np.array(plan.k_kinds[1], np.int64),
        _block_table(blocks or _blocks(plan)),
        _durations(plan),
        np.zeros((steps if trace else 0, 2), np.int64),
        np.zeros((4 * steps if trace else 0, 2), np.int64),
    )


def _stays(
    plan: Plan, counts: dict[str, int], strides: dict[str, int], operand: int
) -> tuple[int, int, int, int]:
    """When an operand's tiles are in use: tile s from step (s // d) * period + (s % d) * apart, for ``length`` more steps.

    Returns (d, period, apart, length). Operand 0 is weights, 1 activations, 2 outputs. An operand with no more tiles than
    slots keeps its d tiles for as long as batch entries share them; else every change of its indices is a new stay.
    """
    per_batch = counts["m"] * counts["n"] * counts["k"]
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


def _block_table(blocks: Blocks) -> Table:
    """A row of integers for each block: its times, then its causes."""
    rows = [
        [block.span, block.end, block.load, block.load_base, block.first_stream, block.stream]
        + [*block.hold, *block.tail, *block.causes.tolist()]
        for of_m in blocks
        for of_n in of_m
        for block in of_n
    ]
    return np.array(rows, np.int64).reshape(2, 2, len(blocks[0][0]), BLOCK_CAUSES + len(CAUSES))


def _totals(plan: Plan, blocks: Blocks) -> Table:
    """Event counts of all tiles."""
    mt, nt, _ = plan.counts
    total = np.zeros_like(blocks[0][0][0].counts)
    for m_tiles, of_m in zip((mt - 1, 1), blocks, strict=True):
        for n_tiles, of_n in zip((nt - 1, 1), of_m, strict=True):
            for kind, k_tiles in Counter(plan.k_kinds[1]).items():
                total += plan.batch * m_tiles * n_tiles * k_tiles * of_n[kind].counts
    return total


def _durations(plan: Plan) -> Table:
    """DMA cycles: weights [2 * kt], activations [2 * kt], write-back [4], spill [4], first weight and activation load.

    Pairs and fours are indexed by "is the last tile along n, m"; the last entry is when everything starts.
    """
    mt, nt, kt = plan.counts
    ends = ((0, mt - 1), (0, nt - 1))
    weights = _each_load(plan, 0, [plan.weight_bits(ni, ki) for ni in ends[1] for ki in range(kt)])
    activations = _each_load(plan, 1, [plan.activation_bits(mi, ki) for mi in ends[0] for ki in range(kt)])
    writes = [plan.write_cycles(mi, ni) for mi in ends[0] for ni in ends[1]]
    spills = [plan.load_cycles(2, plan.spill_bits(mi, ni)) for mi in ends[0] for ni in ends[1]]
    first = [
        plan.load_cycles(0, plan.weight_bits(0, 0) + plan.weights.tensor_bits),
        plan.load_cycles(1, plan.activation_bits(0, 0) + plan.activations.tensor_bits),
        plan.vector_cycles,
    ]
    return np.array(weights + activations + writes + spills + first, np.int64)


def _each_load(plan: Plan, operand: int, bits: list[int]) -> list[int]:
    cycles = {size: plan.load_cycles(operand, size) for size in set(bits)}
    return [cycles[size] for size in bits]


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


@kernel()
def tile_recurrence(
    loops: Table,
    machine: Table,
    stays: Table,
    k_kinds: Table,
    blocks: Table,
    durations: Table,
    traced: Table,
    moved: Table,
) -> tuple[Table, Table, Table]:
    """Times of all tiles, one after the other: when operands arrive, when the array starts and ends, when results are written.

    ``loops``: batch, tiles along m, n, k, and how many steps apart neighbours along m, n and k are. ``machine``: preloads,
    fold overlap, DRAM latency, slots of weights, activations and outputs, column operand is weights. ``stays``: `_stays` of
    each operand; ``k_kinds``: which kind each K tile is; ``blocks``: `_block_table`; ``durations``: `_durations`; ``traced``
    and ``moved`` take (start, end) of array and DMA when not empty.

    Returns (end, number of DMA transfers), cycles by cause, and how often each load and spill happened:
    weights [2 * kt], activations [2 * kt], partial sums loaded [4] and spilled [4].
    """
    mt, nt, kt = loops[1], loops[2], loops[3]
    steps = loops[0] * mt * nt * kt
    preloads, overlap, latency = machine[0] == 1, machine[1] == 1, machine[2]
    wait_stationary = 2 if machine[6] == 1 else 3
    write_at, spill_at, first_at = 4 * kt, 4 * kt + 4, 4 * kt + 8

    causes = np.zeros(6, np.int64)
    loads = np.zeros(4 * kt + 8, np.int64)
    slots = machine[3:6]
    # The next tile of each operand to be issued to DMA, to be used, and to be given up, and the step at which it is.
    issued, opened, closed = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64)
    issue_at, open_at = np.zeros(3, np.int64), np.zeros(3, np.int64)
    close_at = stays[:, 3].copy()
    waiting = slots.copy()

    begin = durations[first_at + 2]
    bus = begin
    transfers = 0
    ready = np.full((3, 2), begin)
    freed = np.full(2, begin)
    array_end = stream_end = last_start = release = begin
    previous = blocks[0, 0, 0]
    for step in range(-1, steps):
        if step >= 0:
            here_k = (step // loops[6]) % kt
            m_edge = 1 if (step // loops[4]) % mt == mt - 1 else 0
            n_edge = 1 if (step // loops[5]) % nt == nt - 1 else 0
            block = blocks[m_edge, n_edge, k_kinds[here_k]]
            available, waited = begin, 2
            for operand in range(3):
                if open_at[operand] == step:
                    moment = ready[operand, opened[operand] % slots[operand]]
                    opened[operand] += 1
                    serial, d = opened[operand], stays[operand, 0]
                    open_at[operand] = serial // d * stays[operand, 1] + serial % d * stays[operand, 2]
                    if moment > available:
                        available, waited = moment, 2 + operand

            # The gap between the previous tile's last stream and this tile's first, cause by cause.
            if preloads:
                load_start = max(last_start if overlap else array_end, available)
                start = max(load_start + block[LOAD], stream_end)
                shown = max(load_start, stream_end)
                causes[FILL] += max(0, min(load_start, array_end) - stream_end)
                causes[waited] += max(0, load_start - max(array_end, stream_end))
                full_speed = max(0, min(start, load_start + block[LOAD_BASE]) - shown)
                causes[FILL] += full_speed
                causes[wait_stationary] += start - shown - full_speed
            else:
                held, rescaled, base = 0, 0, 0
                if step > 0:
                    base = max(0 if overlap else previous[TAIL], previous[HOLD] - block[FIRST_STREAM])
                    rescaled = max(
                        0 if overlap else previous[TAIL + 1], previous[HOLD + 1] - block[FIRST_STREAM]
                    )
                    held = max(0 if overlap else previous[TAIL + 2], previous[HOLD + 2] - block[FIRST_STREAM])
                start = max(stream_end + held, available)
                load_start = start
                causes[FILL] += base
                causes[DEQUANTIZE] += rescaled - base
                causes[WRITE] += held - rescaled
                causes[FILL] += max(0, min(start, array_end) - stream_end - held)
                causes[waited] += max(0, start - max(array_end, stream_end + held))
            for cause in range(6):
                causes[cause] += block[BLOCK_CAUSES + cause]
            last_start = start + block[SPAN]
            stream_end = last_start + block[STREAM]
            array_end = max(array_end, start + block[END])
            release = array_end
            previous = block
            if traced.shape[0]:
                traced[step, 0] = load_start
                traced[step, 1] = release

            for operand in range(3):
                waiting[operand] = 1 if close_at[operand] == step else 0
                if waiting[operand] == 1:
                    serial, d = closed[operand] + 1, stays[operand, 0]
                    close_at[operand] = (
                        serial // d * stays[operand, 1] + serial % d * stays[operand, 2] + stays[operand, 3]
                    )
                    closed[operand] = serial

        # DMA serves, in this order, what the end of this tile allows: loads by need, then the write-back, then partial sums.
        while True:
            operand = 0
            need = issue_at[0] if waiting[0] > 0 else steps
            if waiting[1] > 0 and issue_at[1] < need:
                operand, need = 1, issue_at[1]
            if need >= steps:
                break
            if operand == 0:
                last = (need // loops[5]) % nt == nt - 1
            else:
                last = (need // loops[4]) % mt == mt - 1
            entry = operand * 2 * kt + (kt if last else 0) + (need // loops[6]) % kt
            loads[entry] += 1
            moment = max(bus, release)
            bus = moment + (durations[entry] if issued[operand] > 0 else durations[first_at + operand])
            if moved.shape[0]:
                moved[transfers, 0] = moment
                moved[transfers, 1] = bus
            transfers += 1
            ready[operand, issued[operand] % slots[operand]] = bus + latency
            waiting[operand] -= 1
            issued[operand] += 1
            serial, d = issued[operand], stays[operand, 0]
            issue_at[operand] = serial // d * stays[operand, 1] + serial % d * stays[operand, 2]
        if step >= 0 and waiting[2] > 0:
            kind = 2 * m_edge + n_edge
            moment = max(bus, release)
            if here_k == kt - 1:
                bus = moment + durations[write_at + kind]
            else:
                bus = moment + durations[spill_at + kind]
                loads[4 * kt + 4 + kind] += 1
            if moved.shape[0]:
                moved[transfers, 0] = moment
                moved[transfers, 1] = bus
            transfers += 1
            freed[(closed[2] - 1) % slots[2]] = bus
        while waiting[2] > 0 and issue_at[2] < steps:
            # The next output tile of this slot: free once its predecessor is written; its partial sums come back first.
            need = issue_at[2]
            slot = issued[2] % slots[2]
            ready[2, slot] = freed[slot]
            if (need // loops[6]) % kt > 0:
                kind = 2 if (need // loops[4]) % mt == mt - 1 else 0
                kind += 1 if (need // loops[5]) % nt == nt - 1 else 0
                loads[4 * kt + kind] += 1
                moment = max(bus, release)
                bus = moment + durations[spill_at + kind]
                if moved.shape[0]:
                    moved[transfers, 0] = moment
                    moved[transfers, 1] = bus
                transfers += 1
                ready[2, slot] = bus + latency
            waiting[2] -= 1
            issued[2] += 1
            serial, d = issued[2], stays[2, 0]
            issue_at[2] = serial // d * stays[2, 1] + serial % d * stays[2, 2]

    # The last tile drains; then its results are written back.
    if preloads:
        causes[FILL] += array_end - stream_end
    else:
        causes[FILL] += previous[TAIL] + array_end - stream_end - previous[TAIL + 2]
        causes[DEQUANTIZE] += previous[TAIL + 1] - previous[TAIL]
        causes[WRITE] += previous[TAIL + 2] - previous[TAIL + 1]
    end = max(array_end, bus)
    causes[WRITE] += end - array_end
    return np.array([end, transfers]), causes, loads
