"""The fast engine: a layer's cycles, their causes and all counts, by a recurrence over tiles and closed forms inside them.

It gives the integers that the reference engine gives (`simulator.engine.reference`); a property test holds them equal.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.array.schedule import CAUSES, DEQUANTIZATION, FILL_DRAIN, WAIT_WRITEBACK, Block, gemm_block
from simulator.engine.accounts import Movements, account
from simulator.engine.record import LayerRecord, Run
from simulator.kernels import kernel
from simulator.mapping import Plan

COMPILE_ABOVE = 2000
"""Tiles from which the compiled recurrence pays for itself; below, the plain function is quicker than loading it."""

Table = npt.NDArray[np.int64]

SPAN, END, LOAD, LOAD_BASE, FIRST_STREAM, STREAM, HOLD, TAIL = 0, 1, 2, 3, 4, 5, 6, 9
"""Columns of a block's row: `hold` and `tail` have three each, then come the causes."""
BLOCK_CAUSES = 12
FILL, WRITE, DEQUANTIZE = FILL_DRAIN, WAIT_WRITEBACK, DEQUANTIZATION


def simulate_gemm(plan: Plan, name: str, op: str, *, trace: bool = False) -> LayerRecord:
    """One mapped operation. ``trace``: record the busy intervals of DMA and array as well."""
    blocks = _blocks(plan)
    loops, machine, table, durations, traced, moved = prepare(plan, blocks, trace=trace)
    mt, nt, kt = plan.counts
    recurrence = tile_recurrence if plan.batch * mt * nt * kt > COMPILE_ABOVE else tile_recurrence.plain
    times, causes, loads = recurrence(loops, machine, table, durations, traced, moved)
    movements = Movements(
        weight_loads=loads[: 2 * kt].reshape(2, kt),
        activation_loads=loads[2 * kt : 4 * kt].reshape(2, kt),
        spill_loads=loads[4 * kt : 4 * kt + 4].reshape(2, 2),
        spills=loads[4 * kt + 4 : 4 * kt + 8].reshape(2, 2),
    )
    intervals = {}
    if trace:
        intervals = {"array": compress(traced), "dma": compress(moved[: times[1]])}
    stack = {cause: int(cycles) for cause, cycles in zip(CAUSES, causes, strict=True)}
    return account(plan, name, op, int(times[0]), stack, _totals(plan, blocks), movements, intervals)


Blocks = list[list[list[Block]]]


def _blocks(plan: Plan) -> Blocks:
    """The folds of every kind of tile: [m is the last][n is the last][k tile]."""
    mt, nt, _ = plan.counts
    known: dict[tuple[int, int, Any], Block] = {}

    def block(m: int, n: int, runs: Any) -> Block:
        key = (m, n, runs)
        if key not in known:
            known[key] = gemm_block(plan.array, plan.demand, m, n, runs)
        return known[key]

    return [
        [[block(plan.rows_m(mi), plan.rows_n(ni), runs) for runs in plan.k_runs] for ni in (0, nt - 1)]
        for mi in (0, mt - 1)
    ]


def prepare(
    plan: Plan, blocks: Blocks | None = None, *, trace: bool = False
) -> tuple[Table, Table, Table, Table, Table, Table]:
    """The arguments of `tile_recurrence` for a plan."""
    mt, nt, kt = plan.counts
    counts = {"m": mt, "n": nt, "k": kt}
    order = plan.tiling.order
    positions = [order.index(axis) for axis in "mnk"]
    loops = [plan.batch, *(counts[axis] for axis in order), *positions, plan.weight_reuse]
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
        _block_table(blocks or _blocks(plan)),
        _durations(plan),
        np.zeros((steps if trace else 0, 2), np.int64),
        np.zeros((4 * steps if trace else 0, 2), np.int64),
    )


def _block_table(blocks: Blocks) -> Table:
    """A row of integers for each block: its times, then its causes."""
    known: dict[int, list[int]] = {}
    rows = []
    for block in (block for m_tiles in blocks for n_tiles in m_tiles for block in n_tiles):
        row = known.get(id(block))
        if row is None:
            times = [block.span, block.end, block.load, block.load_base, block.first_stream, block.stream]
            row = known[id(block)] = [*times, *block.hold, *block.tail, *block.causes.tolist()]
        rows.append(row)
    return np.array(rows, np.int64).reshape(2, 2, len(blocks[0][0]), BLOCK_CAUSES + len(CAUSES))


def _totals(plan: Plan, blocks: Blocks) -> Table:
    """Event counts of all tiles."""
    mt, nt, _ = plan.counts
    total = np.zeros_like(blocks[0][0][0].counts)
    for m_tiles, of_m in zip((mt - 1, 1), blocks, strict=True):
        for n_tiles, of_n in zip((nt - 1, 1), of_m, strict=True):
            for block, k_tiles in Counter(of_n).items():
                total += plan.batch * m_tiles * n_tiles * k_tiles * block.counts
    return total


def _durations(plan: Plan) -> Table:
    """DMA cycles: weights [2 * kt], activations [2 * kt], write-back [4], spill [4], first weight and activation load.

    Pairs and fours are indexed by "is the last tile along n, m".
    """
    mt, nt, kt = plan.counts
    firsts = ((0, mt - 1), (0, nt - 1))
    weights = [plan.load_cycles(0, plan.weight_bits(ni, ki)) for ni in firsts[1] for ki in range(kt)]
    activations = [plan.load_cycles(1, plan.activation_bits(mi, ki)) for mi in firsts[0] for ki in range(kt)]
    writes = [plan.write_cycles(mi, ni) for mi in firsts[0] for ni in firsts[1]]
    spills = [plan.load_cycles(2, plan.spill_bits(mi, ni)) for mi in firsts[0] for ni in firsts[1]]
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


@kernel()
def digits(loops: Table, step: int, into: Table) -> None:
    """Batch entry and m, n, k tile of a step, into ``into`` (4)."""
    second, third = loops[2], loops[3]
    into[0] = step // (loops[1] * second * third)
    rest = step % (loops[1] * second * third)
    for position in range(3):
        digit = rest // (second * third)
        if position == 1:
            digit = (rest // third) % second
        elif position == 2:
            digit = rest % third
        for axis in range(3):
            if loops[4 + axis] == position:
                into[1 + axis] = digit


@kernel()
def turns(
    loops: Table, resident: bool, operand: int, here: Table, there: Table, edge: bool, opening: bool
) -> bool:
    """Whether the tile of an operand is new at ``here`` (opening; ``there`` is the step before), or used up (the step after).

    Operand 0 (weights) does not depend on m, 1 (activations) on n, 2 (outputs) on k: its free axis. ``edge``: there is no
    step before or after. A resident operand's tiles stay while the free axis and the batch entries that share it go on.
    """
    share = loops[7] if operand == 0 else 1
    if resident:
        if opening:
            return bool(here[1 + operand] == 0 and here[0] % share == 0)
        last = loops[1 + loops[4 + operand]] - 1
        return bool(here[1 + operand] == last and (here[0] % share == share - 1 or here[0] == loops[0] - 1))
    if edge or here[0] != there[0]:
        return True
    for axis in range(3):
        if axis != operand and here[1 + axis] != there[1 + axis]:
            return True
    return False


@kernel()
def next_opening(loops: Table, resident: bool, operand: int, step: int, here: Table, there: Table) -> int:
    """First step from ``step`` on that needs a new tile of the operand, its digits left in ``here``; or the step count."""
    steps = loops[0] * loops[1] * loops[2] * loops[3]
    while step < steps:
        digits(loops, step, here)
        if step > 0:
            digits(loops, step - 1, there)
        if turns(loops, resident, operand, here, there, step == 0, True):
            return step
        step += 1
    return steps


@kernel()
def tile_recurrence(
    loops: Table, machine: Table, blocks: Table, durations: Table, traced: Table, moved: Table
) -> tuple[Table, Table, Table]:
    """Times of all tiles, one after the other: when operands arrive, when the array starts and ends, when results are written.

    ``loops``: batch, counts of the three loops, positions of m, n, k among them, weight reuse. ``machine``: preloads,
    fold overlap, DRAM latency, slots of weights, activations and outputs, column operand is weights. ``blocks``:
    `_blocks`; ``durations``: `_durations`; ``traced`` and ``moved`` take (start, end) of array and DMA when not empty.

    Returns (end, number of DMA transfers), cycles by cause, and how often each load and spill happened:
    weights [2 * kt], activations [2 * kt], partial sums loaded [4] and spilled [4].
    """
    steps = loops[0] * loops[1] * loops[2] * loops[3]
    mt, nt, kt = loops[1 + loops[4]], loops[1 + loops[5]], loops[1 + loops[6]]
    preloads, overlap, latency = machine[0] == 1, machine[1] == 1, machine[2]
    wait_stationary = 2 if machine[6] == 1 else 3
    write_at, spill_at, first_at = 4 * kt, 4 * kt + 4, 4 * kt + 8

    causes = np.zeros(6, np.int64)
    loads = np.zeros(4 * kt + 8, np.int64)
    slots = machine[3:6]
    resident = np.array([nt * kt <= slots[0], mt * kt <= slots[1], mt * nt <= slots[2]])
    here, there, ahead = np.zeros(4, np.int64), np.zeros(4, np.int64), np.zeros(4, np.int64)

    begin = durations[first_at + 2]
    bus = begin
    transfers = 0
    ready = np.full((3, 2), begin)
    freed = np.full(2, begin)
    opened, closed, issued, pointer = (
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
    )
    for operand in range(3):
        pointer[operand] = next_opening(loops, resident[operand], operand, 0, ahead, there)

    array_end = stream_end = last_start = release = begin
    previous = blocks[0, 0, 0]
    for step in range(-1, steps):
        if step >= 0:
            digits(loops, step, here)
            if step > 0:
                digits(loops, step - 1, there)
            available, waited = begin, 2
            for operand in range(3):
                if turns(loops, resident[operand], operand, here, there, step == 0, True):
                    moment = ready[operand, opened[operand] % slots[operand]]
                    opened[operand] += 1
                    if moment > available:
                        available, waited = moment, 2 + operand
            block = blocks[1 if here[1] == mt - 1 else 0, 1 if here[2] == nt - 1 else 0, here[3]]

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
                    rescaled = max(0 if overlap else previous[TAIL + 1], previous[HOLD + 1] - block[FIRST_STREAM])
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
            release = start + block[END]
            array_end = max(array_end, release)
            previous = block
            if traced.shape[0]:
                traced[step, 0] = load_start
                traced[step, 1] = release

            edge = step + 1 == steps
            if not edge:
                digits(loops, step + 1, there)
        for operand in range(2):
            closed[operand] = (
                slots[operand]
                if step < 0
                else turns(loops, resident[operand], operand, here, there, edge, False)
            )

        # DMA serves, in this order, what the end of this tile allows: loads by need, then the write-back, then partial sums.
        while True:
            operand = 0
            need = pointer[0] if closed[0] > 0 else steps
            if closed[1] > 0 and pointer[1] < need:
                operand, need = 1, pointer[1]
            if need >= steps:
                break
            digits(loops, need, ahead)
            last = ahead[2] == nt - 1 if operand == 0 else ahead[1] == mt - 1
            entry = operand * 2 * kt + (kt if last else 0) + ahead[3]
            loads[entry] += 1
            moment = max(bus, release)
            bus = moment + (durations[entry] if issued[operand] > 0 else durations[first_at + operand])
            if moved.shape[0]:
                moved[transfers, 0] = moment
                moved[transfers, 1] = bus
            transfers += 1
            ready[operand, issued[operand] % slots[operand]] = bus + latency
            issued[operand] += 1
            closed[operand] -= 1
            pointer[operand] = next_opening(loops, resident[operand], operand, need + 1, ahead, there)
            if step >= 0 and not edge:
                digits(loops, step + 1, there)
        if step >= 0:
            free_slots = 1 if turns(loops, resident[2], 2, here, there, edge, False) else 0
            if free_slots:
                kind = (2 if here[1] == mt - 1 else 0) + (1 if here[2] == nt - 1 else 0)
                moment = max(bus, release)
                if here[3] == kt - 1:
                    bus = moment + durations[write_at + kind]
                else:
                    bus = moment + durations[spill_at + kind]
                    loads[4 * kt + 4 + kind] += 1
                if moved.shape[0]:
                    moved[transfers, 0] = moment
                    moved[transfers, 1] = bus
                transfers += 1
                freed[closed[2] % slots[2]] = bus
                closed[2] += 1
        else:
            free_slots = slots[2]
        while free_slots > 0 and pointer[2] < steps:
            # The next output tile of this slot: free once its predecessor is written; its partial sums come back first.
            digits(loops, pointer[2], ahead)
            slot = issued[2] % slots[2]
            ready[2, slot] = freed[slot]
            if ahead[3] > 0:
                kind = (2 if ahead[1] == mt - 1 else 0) + (1 if ahead[2] == nt - 1 else 0)
                loads[4 * kt + kind] += 1
                moment = max(bus, release)
                bus = moment + durations[spill_at + kind]
                if moved.shape[0]:
                    moved[transfers, 0] = moment
                    moved[transfers, 1] = bus
                transfers += 1
                ready[2, slot] = bus + latency
            issued[2] += 1
            free_slots -= 1
            pointer[2] = next_opening(loops, resident[2], 2, pointer[2] + 1, ahead, there)

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
