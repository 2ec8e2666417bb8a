"""Time that depends on codes: how long every fold of an operation streams.

For PEs with `data_timing`, in arrays with stationary outputs and broadcast operands. A block is what one fold holds
along m or n; the time of a fold follows from one block of activations and one of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.array import KChunk, fold_edges
from simulator.array.schedule import COUNTERS, Block, FoldShape, join, sequence_blocks
from simulator.engine.accounts import DataCounts
from simulator.engine.record import Sampling
from simulator.mapping import Plan
from simulator.pe.arithmetic import Integers
from simulator.pe.protocol import Cycles, DataTiming, Side

LEVELS = 4
"""Limits of a step, one on top of the other: the PEs, decoders at the edge, the weights' port, the activations'."""
Pieces = list[tuple[int, int]]


class Codes(Protocol):
    """Element integers of an operation's operands as they reach the PEs, block by block."""

    def which(self, side: Side) -> npt.NDArray[np.intp]:
        """(batch entries * blocks of each,) -> the block whose values stand for it: itself unless the tensor is
        sampled. Weights that batch entries share have one batch entry."""
        ...

    def integers(self, side: Side, block: int) -> Integers:
        """(rows, k) of one block."""
        ...

    def share(self, side: Side) -> float:
        """Share of the operand's values that are drawn; 1: all."""
        ...


@dataclass(frozen=True)
class DataRun:
    """What an engine needs to time an operation by its codes."""

    timing: DataTiming
    codes: Codes


@dataclass(frozen=True, eq=False)
class Streams:
    """Cycles of all folds' streams, and what the codes made the PEs do."""

    lengths: npt.NDArray[np.int64]
    """(LEVELS, batch, m blocks, n blocks, K chunks)"""
    untiled: npt.NDArray[np.int64]
    """(batch, m blocks, n blocks, K chunks) at full speed, K cut by scale groups alone."""
    terms: int
    sampling: Sampling


def pieces_of(chunk: KChunk, low: int, lanes: int) -> Pieces:
    """(begin, size) of the K of each step of a chunk that begins at ``low``."""
    if not chunk.groups:
        return [(low + at, min(lanes, chunk.size - at)) for at in range(0, chunk.size, lanes)]
    pieces = []
    for size, count in chunk.groups:
        for _ in range(count):
            pieces += [(low + at, min(lanes, size - at)) for at in range(0, size, lanes)]
            low += size
    return pieces


def step_words(rows: Integers, pieces: Pieces, lanes: int) -> Integers:
    """(rows, k) as (rows, steps, lanes); the lanes that a short step leaves empty hold zeros."""
    begin, count = pieces[0][0], len(pieces)
    if all(size == lanes for _, size in pieces[:-1]):
        flat = rows[:, begin : pieces[-1][0] + pieces[-1][1]]
        missing = count * lanes - flat.shape[1]
        return np.pad(flat, ((0, 0), (0, missing))).reshape(len(rows), count, lanes)
    words = np.zeros((len(rows), count, lanes), rows.dtype)
    for step, (low, size) in enumerate(pieces):
        words[:, step, :size] = rows[:, low : low + size]
    return words


def streams(plan: Plan, data: DataRun) -> Streams:
    """The streams of every fold of a mapped operation."""
    tiled = placed([chunk for ki in range(plan.counts[2]) for chunk in plan.chunk_list(ki)])
    whole = placed(plan.chunk_list(None))
    lanes = plan.array.lanes
    pieces = [piece for chunk, low in tiled for piece in pieces_of(chunk, low, lanes)]
    profiles: dict[Side, npt.NDArray[np.generic]] = {}
    indices: dict[Side, npt.NDArray[np.intp]] = {}
    terms: dict[Side, npt.NDArray[np.object_]] = {}
    sides: tuple[Side, Side] = ("activations", "weights")
    shared_by: dict[Side, int] = {"activations": 1, "weights": plan.weight_reuse}
    for side in sides:
        used, found = np.unique(data.codes.which(side), return_inverse=True)
        of_batch = found.reshape(plan.batch // shared_by[side], -1).repeat(shared_by[side], axis=0)
        if counts_terms(plan):
            terms[side] = _terms(data, side, used, of_batch)
        if side in data.timing.depends_on:
            indices[side] = of_batch
            blocks: Iterable[Integers] = (
                _block_words(plan, data, side, block, pieces) for block in used.tolist()
            )
        else:
            # Whatever the codes are: they are not read.
            indices[side] = np.zeros_like(of_batch)
            blocks = [np.zeros((plan.held(side), len(pieces), lanes), np.int8)]
        profiles[side] = np.concatenate([data.timing.profile(side, block[None]) for block in blocks])
    bounds = _bounds([len(pieces_of(chunk, low, lanes)) for chunk, low in tiled])
    lengths = _expanded(data, profiles, indices, bounds, _floors(plan, [chunk for chunk, _ in tiled]))
    untiled = lengths[0]
    if plan.counts[2] > 1:
        bounds = _bounds([len(pieces_of(chunk, low, lanes)) for chunk, low in whole])
        none = np.ones((1, *lengths.shape[2:4], len(whole)), np.int64)
        untiled = _expanded(data, profiles, indices, bounds, none)[0]
    error = np.sqrt(sum(_variance(lengths[-1], indices[side], side, shared_by[side]) for side in sides))
    shares = (data.codes.share("weights"), data.codes.share("activations"))
    total = int((terms["activations"] * terms["weights"]).sum()) if terms else 0
    return Streams(lengths, untiled, total, Sampling(*shares, float(error)))


def fold_shapes(plan: Plan, extents: tuple[int, int], chunks: Sequence[KChunk]) -> list[FoldShape]:
    """Folds of an (m, n) tile in their order: columns outer, rows inner, chunks of K innermost."""
    flow, array = plan.array.dataflow, plan.array
    size = {"m": extents[0], "n": extents[1]}
    rows, cols = (
        [used for used, count in fold_edges(size[axis], held) for _ in range(count)]
        for axis, held in ((flow.rows_hold, array.rows), (flow.cols_hold, array.cols))
    )
    return [FoldShape(r, c, chunk) for c, r, chunk in product(cols, rows, chunks)]


def in_order(plan: Plan, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(levels, batch, tiles of m, n and k, folds of m and n, chunks) cycles as (tiles, folds, levels), in the order of
    `fold_shapes`."""
    if plan.array.dataflow.rows_hold == "m":
        lengths = lengths.swapaxes(5, 6)
    levels, folds = lengths.shape[0], lengths.shape[5] * lengths.shape[6] * lengths.shape[7]
    return np.ascontiguousarray(lengths.reshape(levels, -1, folds).transpose(1, 2, 0))


def data_counts(plan: Plan, timed: Streams) -> DataCounts:
    """What both engines count by the codes. `compute_cycles`: the folds of the whole operation at full speed."""
    demand = plan.demand.unlimited()
    lengths = timed.untiled[None, :, None, None, None]
    alike = np.broadcast_to(lengths, (LEVELS, *lengths.shape[1:]))
    blocks = sequence_blocks(
        plan.array,
        demand,
        fold_shapes(plan, (plan.m, plan.n), plan.chunk_list(None)),
        in_order(plan, alike),
        np.zeros(len(COUNTERS), object),
    )
    total: Block | None = None
    for block in blocks:
        total = block if total is None else join(plan.array, total, block)
    assert total is not None
    return DataCounts(total.end, timed.terms, timed.sampling)


def _variance(
    lengths: npt.NDArray[np.int64], indices: npt.NDArray[np.intp], side: Side, shared_by: int
) -> float:
    """Variance of the sum of all streams, as far as blocks of one operand stand for others: N^2 s^2 / n (1 - n / N)
    for n of N blocks drawn without replacement, s^2 the variance of a block's streams over those drawn. A block's
    streams are those of all ``shared_by`` batch entries that have it."""
    by_block = lengths.sum(axis=-1).sum(axis=2 if side == "activations" else 1, dtype=np.float64)
    by_block = by_block.reshape(-1, shared_by, by_block.shape[-1]).sum(axis=1)
    indices = indices[::shared_by]
    drawn, first = np.unique(indices, return_index=True)
    blocks, sampled = indices.size, len(drawn)
    if sampled == blocks or sampled < 2:
        return 0.0
    spread = float(by_block.reshape(-1)[first].var(ddof=1))
    return blocks**2 * spread / sampled * (1 - sampled / blocks)


def _block_words(plan: Plan, data: DataRun, side: Side, block: int, pieces: Pieces) -> Integers:
    """(vectors, steps, lanes) of a block; a short block is filled with zeros, which are never the slowest."""
    words = step_words(data.codes.integers(side, block), pieces, plan.array.lanes)
    return np.pad(words, ((0, plan.held(side) - len(words)), (0, 0), (0, 0)))


def counts_terms(plan: Plan) -> bool:
    """The PE family prices what the codes make of the products."""
    return any(counted == "term" for counted, _ in plan.activity)


def _terms(
    data: DataRun, side: Side, blocks: npt.NDArray[np.intp], of_batch: npt.NDArray[np.intp]
) -> npt.NDArray[np.object_]:
    """(batch, k): terms of all rows of each batch entry. ``of_batch``: its blocks' places in ``blocks``."""
    found = np.stack(
        [
            data.timing.terms(side, data.codes.integers(side, block)).sum(axis=0, dtype=np.int64)
            for block in blocks.tolist()
        ]
    )
    return np.stack([found[places].sum(axis=0) for places in of_batch]).astype(object)


def placed(chunks: list[KChunk]) -> list[tuple[KChunk, int]]:
    """Chunks of K that follow each other, and where they begin."""
    begins = np.cumsum([0, *(chunk.size for chunk in chunks)]).tolist()
    return list(zip(chunks, begins[:-1], strict=True))


def _bounds(steps: list[int]) -> Cycles:
    return np.concatenate(([0], np.cumsum(steps))).astype(np.int64)


def step_floors(plan: Plan, r: int, c: int, chunk: KChunk) -> tuple[int, int, int, int]:
    """By limit, the cycles that a step of a fold of r rows and c columns takes at least, whatever its codes."""
    by_port = plan.demand.intervals(replace(plan.array, initiation_interval=1), r, c, chunk)
    return 1, by_port.stream_rescaled, by_port.stream_weights, by_port.stream_full


def _floors(plan: Plan, chunks: list[KChunk]) -> Cycles:
    """(LEVELS, m blocks, n blocks, chunks): cycles that a step takes at least."""
    flow, array = plan.array.dataflow, plan.array
    rows, cols = (
        fold_edges(getattr(plan, axis), held)
        for axis, held in ((flow.rows_hold, array.rows), (flow.cols_hold, array.cols))
    )
    kinds = list(dict.fromkeys(chunks))
    different = np.array(
        [[[step_floors(plan, r, c, chunk) for chunk in kinds] for c, _ in cols] for r, _ in rows], np.int64
    )
    place = {chunk: number for number, chunk in enumerate(kinds)}
    which = np.ix_(
        np.repeat(np.arange(len(rows)), [count for _, count in rows]),
        np.repeat(np.arange(len(cols)), [count for _, count in cols]),
        np.array([place[chunk] for chunk in chunks]),
    )
    floors: Cycles = np.moveaxis(different[which], -1, 0)
    return floors if flow.rows_hold == "m" else np.swapaxes(floors, 1, 2)


def _expanded(
    data: DataRun,
    profiles: dict[Side, npt.NDArray[np.generic]],
    indices: dict[Side, npt.NDArray[np.intp]],
    bounds: Cycles,
    floors: Cycles,
) -> npt.NDArray[np.int64]:
    """(levels, batch, m blocks, n blocks, chunks): the streams of the different blocks, put where they apply."""
    found = np.empty((len(floors), len(indices["weights"]), *floors.shape[1:]), np.int64)
    for floor in np.unique(floors).tolist():
        table = data.timing.streams(profiles["activations"], profiles["weights"], bounds, floor)
        for batch in range(found.shape[1]):
            here = table[np.ix_(indices["activations"][batch], indices["weights"][batch])]
            for level in range(len(floors)):
                np.copyto(found[level, batch], here, where=floors[level] == floor)
    return found
