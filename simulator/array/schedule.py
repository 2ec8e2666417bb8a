"""The time of a sequence of folds, in closed form, with the cause of every cycle and the count of every event.

A `Block` summarises folds that follow each other while all operands are in the buffers. Blocks join (one after the
other) and repeat; the algebra is exact, so a GEMM of a million folds costs as much as one of three. When the next fold
may start is the rule of docs/concepts.md:

- without overlap: when the last result of the one before has left (and, with a stationary operand, after its preload);
- with overlap, outputs stationary: when the stream before it has ended;
- outputs stationary, with or without: late enough that its results find the column bus or shift chain free: the one
  before occupies it for r * drain cycles. With overlap, for equal streams: max(T', r) apart;
- with overlap, an operand stationary: the preload fills the shadow register from the moment the stream before it
  begins: max(T', r of the next) apart.

Cause of a cycle, the first that applies: the array streams (`compute`); it fills, drains or preloads at full speed
(`fill_drain`); the rescale unit holds it (`dequantization`); a buffer port holds it (`wait_weights`,
`wait_activations`, `wait_writeback`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.array.dataflow import Array, stream_cycles
from simulator.array.demand import Demand, Intervals
from simulator.array.folds import KChunk, KRun, fold_edges
from simulator.units import ceil_div

CAUSES = ("compute", "fill_drain", "wait_weights", "wait_activations", "wait_writeback", "dequantization")
COMPUTE, FILL_DRAIN, WAIT_WEIGHTS, WAIT_ACTIVATIONS, WAIT_WRITEBACK, DEQUANTIZATION = range(6)

COUNTERS = (
    "folds",
    "steps",
    "weights_reads",
    "activations_reads",
    "weights_scale_reads",
    "activations_scale_reads",
    "outputs_reads",
    "outputs_writes",
    "rescales",
    "partial_adds",
    "preloads",
    "skew_bits",
    "busy",
    "weights",
    "activations",
    "groups",
    "results",
)
"""folds; PE-steps; buffer accesses by the array, those for scales apart; results rescaled; results added to an unscaled
partial sum in the output buffer; stationary words written into PEs; bits shifted through the skew registers at the
array's edges; PE-cycles of streams; words of weights and activations that enter the array; groups scaled in the PEs;
results that leave the array."""

Vector = npt.NDArray[np.object_]
"""Python integers: a count may exceed 64 bits where its cycles do not."""


@dataclass(frozen=True, eq=False)
class Block:
    """Folds in a row. Cycle 0 is the first streamed step (S) of the first fold; its preload lies before."""

    span: int
    """S of the last fold."""
    end: int
    """Cycle after the last result of any fold has left."""
    load: int
    """Preload of the first fold, cycles; 0 with outputs stationary."""
    load_base: int
    """The same with a buffer that keeps up."""
    first_issue: int
    """Cycles from the first fold's first step to its last, both included."""
    stream: int
    """T' of the last fold."""
    hold: tuple[int, int, int]
    """Cycles after the last fold's stream for which a step may not be a fold's last, were that fold of no length: the
    column bus or chain belongs to the results before. At full speed, with rescale, with buffers."""
    tail: tuple[int, int, int]
    """Cycles from the end of the last fold's stream to its last result, likewise."""
    causes: Vector
    """Cycles from 0 to the end of the last stream, by CAUSES."""
    counts: Vector
    """Events, by COUNTERS."""


def gap(array: Array, before: Block, after: Block) -> tuple[int, int, int]:
    """Cycles between the streams of two blocks whose operands are ready: at full speed, with rescale, with buffers."""
    if array.dataflow.preloads:
        if array.fold_overlap:
            base, full = max(0, after.load_base - before.stream), max(0, after.load - before.stream)
        else:
            base, full = before.tail[0] + after.load_base, before.tail[0] + after.load
        return base, base, full
    leaving = (0, 0, 0) if array.fold_overlap else before.tail
    base, rescaled, full = (
        max(tail, hold - after.first_issue) for tail, hold in zip(leaving, before.hold, strict=True)
    )
    return base, rescaled, full


def gap_causes(array: Array, cycles: tuple[int, int, int]) -> Vector:
    """The causes of a `gap`."""
    base, rescaled, full = cycles
    causes = np.zeros(len(CAUSES), object)
    causes[FILL_DRAIN] = base
    causes[DEQUANTIZATION] = rescaled - base
    if array.dataflow.preloads:
        causes[WAIT_WEIGHTS if array.dataflow.col_operand == "weights" else WAIT_ACTIVATIONS] = (
            full - rescaled
        )
    else:
        causes[WAIT_WRITEBACK] = full - rescaled
    return causes


def join(array: Array, a: Block, b: Block) -> Block:
    """``a`` followed by ``b``."""
    between = gap(array, a, b)
    start = a.span + a.stream + between[2]
    return replace(
        b,
        span=start + b.span,
        end=max(a.end, start + b.end),
        load=a.load,
        load_base=a.load_base,
        first_issue=a.first_issue,
        causes=a.causes + b.causes + gap_causes(array, between),
        counts=a.counts + b.counts,
    )


def repeat(array: Array, a: Block, count: int) -> Block:
    """``a``, ``count`` times."""
    if count == 1:
        return a
    between = gap(array, a, a)
    before_last = (count - 1) * (a.span + a.stream + between[2])
    return replace(
        a,
        span=before_last + a.span,
        end=before_last + a.end,
        causes=count * a.causes + (count - 1) * gap_causes(array, between),
        counts=count * a.counts,
    )


def chain(array: Array, blocks: Sequence[tuple[Block, int]]) -> Block:
    """Blocks one after the other, each repeated so many times."""
    result: Block | None = None
    for block, count in blocks:
        repeated = repeat(array, block, count)
        result = repeated if result is None else join(array, result, repeated)
    assert result is not None
    return result


@lru_cache(maxsize=65536)
def fold_block(array: Array, demand: Demand, r: int, c: int, chunk: KChunk, extent: int) -> Block:
    """One fold of r rows and c columns. ``extent``: length of the streamed axis where it is not K."""
    flow = array.dataflow
    steps = extent if flow.preloads else chunk.steps(array.lanes)
    speed = demand.intervals(array, r, c, chunk)
    timed_r, timed_c = array.timed(r, c)
    stream, slack = fold_stream(array, speed, steps, chunk)
    issue = stream - slack
    drains = (1, speed.drain_rescaled, speed.drain_full)
    tail = (
        max(0, array.tail_cycles(timed_r, timed_c, drains[0]) - slack),
        max(0, array.tail_cycles(timed_r, timed_c, drains[1]) - slack),
        max(0, array.tail_cycles(timed_r, timed_c, drains[2]) - slack),
    )
    causes = np.zeros(len(CAUSES), object)
    causes[COMPUTE] = steps * speed.stream if array.serial else stream_cycles(steps, speed.stream)
    stalls = group_stalls(array, speed.stream_full, chunk)
    causes[DEQUANTIZATION] = steps * (speed.stream_rescaled - speed.stream) + stalls
    causes[WAIT_WEIGHTS] = steps * (speed.stream_weights - speed.stream_rescaled)
    causes[WAIT_ACTIVATIONS] = steps * (speed.stream_activations - speed.stream_weights)
    causes[WAIT_WRITEBACK] = steps * (speed.stream_full - speed.stream_activations)
    return Block(
        span=0,
        end=stream + tail[2],
        load=timed_r * speed.preload if flow.preloads else 0,
        load_base=timed_r if flow.preloads else 0,
        first_issue=issue,
        stream=stream,
        hold=(timed_r * drains[0] - slack, timed_r * drains[1] - slack, timed_r * drains[2] - slack),
        tail=tail,
        causes=causes,
        counts=_fold_counts(array, demand, r, c, chunk, steps, stream),
    )


def fold_stream(array: Array, speed: Intervals, steps: int, chunk: KChunk) -> tuple[int, int]:
    """T', and how much of it lies behind the last step."""
    if array.serial:
        return steps * speed.stream_full + group_stalls(array, speed.stream_full, chunk), 0
    slack = speed.stream_full - speed.stream
    return stream_cycles(steps, speed.stream_full) + slack, slack


def group_stalls(array: Array, interval: int, chunk: KChunk) -> int:
    """Cycles in which steps wait because the scaling of a group takes longer than the steps of one."""
    stalls = (
        count * max(0, array.group_cycles - interval * ceil_div(size, array.lanes))
        for size, count in chunk.groups
    )
    return sum(stalls)


def _fold_counts(
    array: Array, demand: Demand, r: int, c: int, chunk: KChunk, steps: int, stream: int
) -> Vector:
    """Events of one fold, in the order of COUNTERS."""
    flow = array.dataflow
    row_port, col_port = demand.port(flow.row_operand), demand.port(flow.col_operand)
    row_bits, col_bits = demand.code_bits(flow.row_operand), demand.code_bits(flow.col_operand)
    result_rows = steps if flow.preloads else r
    results = result_rows * c
    if flow.preloads:
        whole, rest = divmod(chunk.size, array.lanes)
        row_reads = steps * row_port.accesses(chunk.size * row_bits)
        col_reads = whole * col_port.accesses(c * array.lanes * col_bits)
        col_reads += col_port.accesses(c * rest * col_bits) if rest else 0
        row_scales = steps
        words = {flow.row_operand: steps * chunk.size, flow.col_operand: c * chunk.size}
    else:
        row_reads = col_reads = 0
        for lanes, count in step_sizes(chunk, array.lanes):
            row_reads += count * row_port.accesses(r * lanes * row_bits)
            col_reads += count * col_port.accesses(c * lanes * col_bits)
        row_scales = r
        words = {flow.row_operand: r * chunk.size, flow.col_operand: c * chunk.size}
    reads = {flow.row_operand: row_reads, flow.col_operand: col_reads}
    scale_reads = {
        operand: demand.scale_vectors(operand, chunk) * port.accesses(rows * demand.scale_bits(operand))
        for operand, port, rows in (
            (flow.row_operand, row_port, row_scales),
            (flow.col_operand, col_port, c),
        )
    }
    skew = 0
    if flow.skewed:
        before_row, before_col = r * (r - 1) // 2, c * (c - 1) // 2
        row_delay = array.latency if flow.preloads else 1
        col_words = r if flow.preloads else steps
        row_bits, col_bits = demand.word_bits(flow.row_operand), demand.word_bits(flow.col_operand)
        skew = (
            steps * row_delay * before_row * array.lanes * row_bits
            + col_words * before_col * array.lanes * col_bits
            + result_rows * before_col * demand.partial_bits
        )
    return np.array(
        [
            1,
            r * c * steps,
            reads["weights"],
            reads["activations"],
            scale_reads["weights"],
            scale_reads["activations"],
            result_rows * demand.outputs.accesses(demand.result_reads(c, chunk)),
            result_rows * demand.outputs.accesses(demand.result_writes(c, chunk)),
            results if chunk.rescaled else 0,
            results if chunk.reads_partial else 0,
            c * chunk.size if flow.preloads else 0,
            skew,
            r * c * stream,
            words["weights"],
            words["activations"],
            results * chunk.scaled_groups,
            results,
        ],
        object,
    )


def step_sizes(chunk: KChunk, lanes: int) -> list[tuple[int, int]]:
    """Runs of (values of K, steps) in a chunk that streams: no step crosses the edge of a group inside the PEs."""
    sizes = []
    for size, count in chunk.groups or ((chunk.size, 1),):
        full, rest = divmod(size, lanes)
        sizes += [(lanes, full * count)] if full else []
        sizes += [(rest, count)] if rest else []
    return sizes


class FoldShape(NamedTuple):
    """A fold of r rows and c columns with stationary outputs."""

    r: int
    c: int
    chunk: KChunk


def sequence_blocks(
    array: Array, demand: Demand, shapes: Sequence[FoldShape], streams: npt.NDArray[np.int64], counts: Vector
) -> list[Block]:
    """Sequences of folds of these shapes, one after the other, whose streams take times of their own.

    ``streams``: (sequences, folds, limits) cycles by limit: the PEs, decoders, the weights' port, the activations'
    (each on top of the ones before). ``counts``: of a sequence, "busy" apart.
    """
    known = {shape: fold_block(array, demand, *shape, extent=0) for shape in set(shapes)}
    hold, tail = (
        np.array([getattr(known[shape], name) for shape in shapes], np.int64) for name in ("hold", "tail")
    )
    last = streams[:, :, -1]
    leaving = np.zeros_like(tail) if array.fold_overlap else tail
    gaps = np.maximum(leaving[:-1], hold[:-1] - last[:, 1:, None])
    starts = np.zeros_like(last)
    np.cumsum(last[:, :-1] + gaps[:, :, 2], axis=1, out=starts[:, 1:])
    ends = (starts + last + tail[:, 2]).max(axis=1)
    causes = np.zeros((len(streams), len(CAUSES)), np.int64)
    causes[:, [COMPUTE, DEQUANTIZATION, WAIT_WEIGHTS, WAIT_ACTIVATIONS]] = np.diff(
        streams.sum(axis=1), axis=1, prepend=0
    )
    causes[:, [FILL_DRAIN, DEQUANTIZATION, WAIT_WRITEBACK]] += np.diff(gaps.sum(axis=1), axis=1, prepend=0)
    busy = last @ np.array([shape.r * shape.c for shape in shapes], np.int64)
    of_last = known[shapes[-1]]
    return [
        Block(
            span=span,
            end=end,
            load=0,
            load_base=0,
            first_issue=first,
            stream=stream,
            hold=of_last.hold,
            tail=of_last.tail,
            causes=of_causes,
            counts=_with_busy(counts, cycles),
        )
        for span, end, first, stream, of_causes, cycles in zip(
            starts[:, -1].tolist(),
            ends.tolist(),
            last[:, 0].tolist(),
            last[:, -1].tolist(),
            causes.astype(object),
            busy.tolist(),
            strict=True,
        )
    ]


def _with_busy(counts: Vector, cycles: int) -> Vector:
    found = counts.copy()
    found[COUNTERS.index("busy")] = cycles
    return found


def gemm_block(array: Array, demand: Demand, m: int, n: int, runs: Sequence[KRun]) -> Block:
    """All folds of an (m, k) x (n, k) GEMM or tile: columns outer, rows inner, K slices innermost where K streams.

    ``runs`` are the K chunks (`chunk_k`). Every fold is timed as if its operands were in the buffers.
    """
    flow = array.dataflow
    extent = {"m": m, "n": n}

    def column(c: int) -> Block:
        if flow.preloads:
            streamed = extent[flow.streams]
            return _k_chain(
                array,
                runs,
                lambda chunk: fold_block(
                    array, demand, ceil_div(chunk.size, array.lanes), c, chunk, streamed
                ),
            )
        rows = []
        for r, count in fold_edges(extent[flow.rows_hold], array.rows):
            slices = partial(fold_block, array, demand, r, c, extent=0)
            rows.append((_k_chain(array, runs, slices), count))
        return chain(array, rows)

    return chain(array, [(column(c), count) for c, count in fold_edges(extent[flow.cols_hold], array.cols)])


def _k_chain(array: Array, runs: Sequence[KRun], fold: Callable[[KChunk], Block]) -> Block:
    """The folds of consecutive K chunks."""
    return chain(
        array, [(chain(array, [(fold(chunk), 1) for chunk in run.pattern]), run.count) for run in runs]
    )
