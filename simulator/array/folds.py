"""Which folds a GEMM is cut into.

K is cut at the edges of scale groups (a PE accumulates within one scale group only) and, where rows hold K, every
R x lanes elements. Folds run columns outer, rows inner; where K is streamed, the K slices of one (rows, cols) fold
follow each other innermost, ascending.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from simulator.units import ceil_div


@dataclass(frozen=True)
class KChunk:
    """A piece of K that one fold accumulates in its PEs."""

    size: int
    rescaled: bool
    """It ends a scale group: its sums pass the rescale unit."""
    reads_partial: bool
    """An earlier chunk of the same group (or, without groups, of K) left partial sums that are read and added."""
    reads_scaled: bool
    """It ends a group that is not the first: the scaled accumulator is read and added to."""
    groups: tuple[tuple[int, int], ...] = ()
    """Runs of (size, count) of the scale groups that the PEs see in it, where they apply the scales themselves."""

    def steps(self, lanes: int) -> int:
        """Steps of ``lanes`` values that its K takes; none crosses the edge of a group."""
        if not self.groups:
            return ceil_div(self.size, lanes)
        return sum(count * ceil_div(size, lanes) for size, count in self.groups)

    @property
    def scaled_groups(self) -> int:
        """Ends of groups inside the PEs."""
        return sum(count for _, count in self.groups)


@dataclass(frozen=True)
class KRun:
    """A pattern of chunks that repeats ``count`` times."""

    pattern: tuple[KChunk, ...]
    count: int


def scale_edges(k: int, groups: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Positions 0 < e <= k at which a scale group of some operand ends; empty when there are no groups.

    ``groups``: (group size, span) of each operand; size 0 for none. Groups begin anew every ``span`` values of K (the
    input channels at one kernel position of a convolution; k for a plain GEMM).
    """
    edges: set[int] = set()
    for size, span in groups:
        if not size:
            continue
        for start in range(0, k, span):
            stop = min(start + span, k)
            edges.update(range(start + size, stop, size))
            edges.add(stop)
    return tuple(sorted(edges))


def chunk_k(
    begin: int, end: int, edges: Sequence[int], limit: int = 0, *, inside: bool = False
) -> tuple[KRun, ...]:
    """Chunks of K in [begin, end), cut at ``edges`` (see `scale_edges`) and every ``limit`` elements (0: no limit).

    ``begin`` is 0 or, with groups, an edge; partial sums of what came before ``begin`` are read back. ``inside``: PEs
    apply the scales of groups, so that one chunk holds them all.
    """
    if not edges:
        return _plain_runs(begin, end, limit)
    if inside:
        within = edges[bisect_right(edges, begin) : bisect_right(edges, end)]
        sizes = (high - low for low, high in pairwise((begin, *within)))
        groups = tuple((size, sum(1 for _ in same)) for size, same in groupby(sizes))
        return (KRun((KChunk(end - begin, False, begin > 0, False, groups),), 1),)
    pieces: list[tuple[KChunk, ...]] = []
    low = begin
    for edge in edges[bisect_right(edges, begin) : bisect_right(edges, end)]:
        cuts = [*range(low, edge, limit), edge] if limit else [low, edge]
        pieces.append(
            tuple(KChunk(hi - lo, hi == edge, lo > low, hi == edge and low > 0) for lo, hi in pairwise(cuts))
        )
        low = edge
    return tuple(KRun(pattern, sum(1 for _ in same)) for pattern, same in groupby(pieces))


def _plain_runs(begin: int, end: int, limit: int) -> tuple[KRun, ...]:
    """K without groups: full chunks, the first of all K apart (it has nothing to add to), and the rest."""
    full, rest = divmod(end - begin, limit or end - begin)
    size = limit or end - begin
    sizes = [(size, 1), (size, full - 1), (rest, 1)] if full else [(rest, 1)]
    runs: list[KRun] = []
    for length, count in sizes:
        if length and count:
            run = KRun((KChunk(length, False, begin > 0 or bool(runs), False),), count)
            if runs and runs[-1].pattern == run.pattern:
                run = KRun(run.pattern, runs.pop().count + count)
            runs.append(run)
    return tuple(runs)


def fold_edges(extent: int, size: int) -> tuple[tuple[int, int], ...]:
    """(used, count) of the folds that cover ``extent`` with ``size`` rows or columns: the full ones, then the rest."""
    full, rest = divmod(extent, size)
    return (*(((size, full),) if full else ()), *(((rest, 1),) if rest else ()))
