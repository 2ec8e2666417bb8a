"""The time of a mapped operation, tile after tile: what the fast engine compiles.

The recurrence carries the state of DMA, buffers and array from one tile to the next. Where the state at the start of an
iteration of some loop equals that of the iteration before, every time moved by the same amount, so do all iterations
that follow until the loop's edge: they are skipped, and cost nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.array.schedule import DEQUANTIZATION, FILL_DRAIN, WAIT_WRITEBACK
from simulator.kernels import kernel

Table = npt.NDArray[np.int64]

SPAN, END, LOAD, LOAD_BASE, FIRST_ISSUE, STREAM, HOLD, TAIL = 0, 1, 2, 3, 4, 5, 6, 9
"""Columns of a block's row: `hold` and `tail` have three each, then come the causes."""
BLOCK_CAUSES = 12
FILL, WRITE, DEQUANTIZE = FILL_DRAIN, WAIT_WRITEBACK, DEQUANTIZATION

BUS, ARRAY_END, STREAM_END, LAST_START = 0, 1, 2, 3
"""Times of the state: DMA's bus is free; the last result has left; the last stream has ended; it began."""
ISSUED, OPENED, CLOSED, ISSUE_AT, OPEN_AT, CLOSE_AT = 0, 1, 2, 3, 4, 5
"""Rows of the state of each operand: the next tile to be loaded, to be used, to be given up, and the step at which it
is."""
REPEATS = 6
"""A loop with fewer iterations is not worth the look for a period."""


@kernel()
def opening(stays: Table, operand: int, serial: int) -> int:
    """The step at which an operand's tile ``serial`` comes into use."""
    d = stays[operand, 0]
    return int(serial // d * stays[operand, 1] + serial % d * stays[operand, 2])


@kernel()
def skip(
    step: int,
    level: int,
    period: int,
    levels: Table,
    k_same: Table,
    slots: Table,
    times: Table,
    tiles: Table,
    ready: Table,
    causes: Table,
    kind: int,
    memory: Table,
) -> int:
    """Skip the iterations of a loop that repeat the last ``period`` ones; returns the step from which to go on.

    ``levels``: (steps of an iteration, iterations, axis 0 m, 1 n, 2 k or -1 batch) of each loop. ``memory``: the state
    at the start of the last two iterations of each loop: step, kind of tile, then times, tiles, ready and causes.
    """
    stride, count, axis = levels[level, 0], levels[level, 1], levels[level, 2]
    index = (step // stride) % count
    old = memory[level, (index - period) % 2]
    now = times[LAST_START]
    shift = now - old[2 + LAST_START]
    # The first iteration differs from all others: it carries tensors' scales, and its K has nothing to add to.
    repeats = old[0] == step - period * stride and index > period and old[1] == kind
    repeats = repeats and times[ARRAY_END] - old[2 + ARRAY_END] == shift
    repeats = repeats and times[STREAM_END] - old[2 + STREAM_END] == shift
    # What lies before the last stream began can delay nothing any more.
    repeats = repeats and max(times[BUS] - now, 0) == max(old[2 + BUS] - (now - shift), 0)
    ahead = 0
    jump = count
    if repeats:
        for operand in range(3):
            moved = tiles[OPENED, operand] - old[6 + 3 * OPENED + operand]
            for row in range(3):
                repeats = repeats and tiles[row, operand] - old[6 + 3 * row + operand] == moved
            for row in range(3, 6):
                advance = tiles[row, operand] - old[6 + 3 * row + operand]
                repeats = repeats and advance == (period * stride if moved > 0 else 0)
                if moved > 0:
                    ahead = max(ahead, (tiles[row, operand] - step + stride - 1) // stride + 1)
                else:
                    jump = min(jump, (tiles[row, operand] - step) // (period * stride))
            for tile in range(tiles[OPENED, operand], tiles[ISSUED, operand]):
                slot, old_slot = tile % slots[operand], (tile - moved) % slots[operand]
                before = old[24 + 2 * operand + old_slot] - (now - shift)
                repeats = repeats and max(ready[operand, slot] - now, 0) == max(before, 0)
        last = count - 1 - ahead if axis < 0 else count - 2 - ahead
        if axis == 2:
            last = min(last, k_same[index - period] - ahead)
        jump = min(jump, (last - index) // period)
    if not repeats or jump <= 0:
        return step
    for operand in range(3):
        moved = (tiles[OPENED, operand] - old[6 + 3 * OPENED + operand]) * jump
        first, second = ready[operand, 0], ready[operand, 1]
        for tile in range(tiles[OPENED, operand], tiles[ISSUED, operand]):
            moment = first if tile % slots[operand] == 0 else second
            later = moment + shift * jump if moment > now else moment
            ready[operand, (tile + moved) % slots[operand]] = later
        if moved > 0:
            for row in range(3):
                tiles[row, operand] += moved
                tiles[row + 3, operand] += period * stride * jump
    for cause in range(6):
        causes[cause] += jump * (causes[cause] - old[30 + cause])
    if times[BUS] > now:
        times[BUS] += shift * jump
    times[ARRAY_END] += shift * jump
    times[STREAM_END] += shift * jump
    times[LAST_START] += shift * jump
    return int(step + period * stride * jump)


@kernel()
def tile_recurrence(
    levels: Table,
    loops: Table,
    machine: Table,
    stays: Table,
    k_kinds: Table,
    k_same: Table,
    places: Table,
    blocks: Table,
    durations: Table,
    traced: Table,
    moved: Table,
) -> tuple[Table, Table]:
    """Times of all tiles: when operands arrive, when the array starts and ends, when results are written.

    ``levels``: loops from the outermost, see `skip`. ``loops``: batch, tiles along m, n, k, and how many steps apart
    neighbours along m, n and k are. ``machine``: preloads, fold overlap, DRAM latency, slots of weights, activations
    and outputs, column operand is weights, tiles of equal extents are alike, kinds of K tiles. ``stays``: when each
    operand's tiles are in use; ``k_kinds``: which kind each K tile is, ``k_same``: the last of the K tiles like it that
    follow; ``blocks``: times and causes of the folds of each kind of tile, ``places``: where in it each batch entry,
    tile along m, n and k is; ``durations``: of DMA transfers. ``traced`` and ``moved`` take (start, end) of array and
    DMA; when they are empty and tiles are alike, iterations that repeat are skipped.

    Returns (end, number of DMA transfers traced) and cycles by cause.
    """
    mt, nt, kt = loops[1], loops[2], loops[3]
    steps = loops[0] * mt * nt * kt
    preloads, overlap, latency = machine[0] == 1, machine[1] == 1, machine[2]
    wait_stationary = 2 if machine[6] == 1 else 3
    kinds = machine[8]
    write_at, spill_at, first_at = 4 * kinds, 4 * kinds + 4, 4 * kinds + 8
    tracing = traced.shape[0] > 0
    skipping = not tracing and machine[7] == 1
    m_places, n_places, k_places = loops[0], loops[0] + mt, loops[0] + mt + nt

    slots = machine[3:6]
    begin = durations[first_at + 2]
    times = np.full(4, begin)
    tiles = np.zeros((6, 3), np.int64)
    tiles[CLOSE_AT] = stays[:, 3]
    ready = np.full((3, 2), begin)
    causes = np.zeros(6, np.int64)
    memory = np.full((4, 2, 36), -1)
    free = slots.copy()
    transfers = 0
    m_edge, n_edge, here_k, kind = 0, 0, 0, 0
    previous = blocks[0, 0, 0, 0]
    step = -1
    while step < steps:
        if step >= 0:
            if skipping:
                for level in range(4):
                    stride, count = levels[level, 0], levels[level, 1]
                    if count < REPEATS or step % stride != 0:
                        continue
                    here = step
                    for period in (1, 2):
                        if step == here:
                            step = skip(
                                step,
                                level,
                                period,
                                levels,
                                k_same,
                                slots,
                                times,
                                tiles,
                                ready,
                                causes,
                                kind,
                                memory,
                            )
                    if step == here:
                        state = memory[level, (step // stride) % count % 2]
                        state[0], state[1] = step, kind
                        state[2:6] = times
                        state[6:24] = tiles.reshape(18)
                        state[24:30] = ready.reshape(6)
                        state[30:36] = causes
            here_k = (step // loops[6]) % kt
            here_m, here_n = (step // loops[4]) % mt, (step // loops[5]) % nt
            m_edge = 1 if here_m == mt - 1 else 0
            n_edge = 1 if here_n == nt - 1 else 0
            kind = (2 * m_edge + n_edge) * kinds + k_kinds[here_k]
            block = blocks[
                places[step // (mt * nt * kt)],
                places[m_places + here_m],
                places[n_places + here_n],
                places[k_places + here_k],
            ]
            available, waited = begin, 2
            for operand in range(3):
                if tiles[OPEN_AT, operand] == step:
                    moment = ready[operand, tiles[OPENED, operand] % slots[operand]]
                    tiles[OPENED, operand] += 1
                    tiles[OPEN_AT, operand] = opening(stays, operand, tiles[OPENED, operand])
                    if moment > available:
                        available, waited = moment, 2 + operand

            # The gap between the previous tile's last stream and this tile's first, cause by cause.
            stream_end, array_end = times[STREAM_END], times[ARRAY_END]
            if preloads:
                load_start = max(times[LAST_START] if overlap else array_end, available)
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
                    base = max(0 if overlap else previous[TAIL], previous[HOLD] - block[FIRST_ISSUE])
                    rescaled = max(
                        0 if overlap else previous[TAIL + 1], previous[HOLD + 1] - block[FIRST_ISSUE]
                    )
                    held = max(0 if overlap else previous[TAIL + 2], previous[HOLD + 2] - block[FIRST_ISSUE])
                start = max(stream_end + held, available)
                load_start = start
                causes[FILL] += base
                causes[DEQUANTIZE] += rescaled - base
                causes[WRITE] += held - rescaled
                causes[FILL] += max(0, min(start, array_end) - stream_end - held)
                causes[waited] += max(0, start - max(array_end, stream_end + held))
            for cause in range(6):
                causes[cause] += block[BLOCK_CAUSES + cause]
            times[LAST_START] = start + block[SPAN]
            times[STREAM_END] = times[LAST_START] + block[STREAM]
            times[ARRAY_END] = max(array_end, start + block[END])
            previous = block
            if tracing:
                traced[step, 0] = load_start
                traced[step, 1] = times[ARRAY_END]
            for operand in range(3):
                free[operand] = 0
                if tiles[CLOSE_AT, operand] == step:
                    free[operand] = 1
                    tiles[CLOSED, operand] += 1
                    closing = opening(stays, operand, tiles[CLOSED, operand]) + stays[operand, 3]
                    tiles[CLOSE_AT, operand] = closing

        # DMA serves what the end of this tile allows: loads by need, then the write-back, then partial sums.
        release = times[ARRAY_END]
        while True:
            operand = 0
            need = tiles[ISSUE_AT, 0] if free[0] > 0 else steps
            if free[1] > 0 and tiles[ISSUE_AT, 1] < need:
                operand, need = 1, tiles[ISSUE_AT, 1]
            if need >= steps:
                break
            last_n, last_m = (need // loops[5]) % nt == nt - 1, (need // loops[4]) % mt == mt - 1
            last = last_n if operand == 0 else last_m
            duration = durations[
                (2 * operand + (1 if last else 0)) * kinds + k_kinds[(need // loops[6]) % kt]
            ]
            if tiles[ISSUED, operand] == 0:
                duration = durations[first_at + operand]
            moment = max(times[BUS], release)
            times[BUS] = moment + duration
            if tracing:
                moved[transfers, 0] = moment
                moved[transfers, 1] = times[BUS]
                transfers += 1
            ready[operand, tiles[ISSUED, operand] % slots[operand]] = times[BUS] + latency
            free[operand] -= 1
            tiles[ISSUED, operand] += 1
            tiles[ISSUE_AT, operand] = opening(stays, operand, tiles[ISSUED, operand])
        if step >= 0 and free[2] > 0:
            moment = max(times[BUS], release)
            done = here_k == kt - 1
            times[BUS] = moment + durations[(write_at if done else spill_at) + 2 * m_edge + n_edge]
            if tracing:
                moved[transfers, 0] = moment
                moved[transfers, 1] = times[BUS]
                transfers += 1
        while free[2] > 0 and tiles[ISSUE_AT, 2] < steps:
            # The next output tile of this slot: free when its predecessor is written; its partial sums come back first.
            need = tiles[ISSUE_AT, 2]
            slot = tiles[ISSUED, 2] % slots[2]
            ready[2, slot] = times[BUS] if step >= 0 else begin
            if (need // loops[6]) % kt > 0:
                corner = 2 if (need // loops[4]) % mt == mt - 1 else 0
                corner += 1 if (need // loops[5]) % nt == nt - 1 else 0
                moment = max(times[BUS], release)
                times[BUS] = moment + durations[spill_at + corner]
                if tracing:
                    moved[transfers, 0] = moment
                    moved[transfers, 1] = times[BUS]
                    transfers += 1
                ready[2, slot] = times[BUS] + latency
            free[2] -= 1
            tiles[ISSUED, 2] += 1
            tiles[ISSUE_AT, 2] = opening(stays, 2, tiles[ISSUED, 2])
        step += 1

    # The last tile drains; then its results are written back.
    if preloads:
        causes[FILL] += times[ARRAY_END] - times[STREAM_END]
    else:
        causes[FILL] += previous[TAIL] + times[ARRAY_END] - times[STREAM_END] - previous[TAIL + 2]
        causes[DEQUANTIZE] += previous[TAIL + 1] - previous[TAIL]
        causes[WRITE] += previous[TAIL + 2] - previous[TAIL + 1]
    end = max(times[ARRAY_END], times[BUS])
    causes[WRITE] += end - times[ARRAY_END]
    return np.array([end, transfers]), causes
