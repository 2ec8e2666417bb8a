"""A GEMM mapped to an accelerator: every number that its schedule and its counts depend on.

The loops over tiles run batch outermost, then m, n and k in `Tiling.order`. A tile of weights (tile_n, tile_k) or of
activations (tile_m, tile_k) is loaded when the loops come to it and it was not the one just used; an
operand with no more tiles than slots is loaded once. Outputs stay in the output buffer while k advances; when the loops
leave an output tile whose K is not complete, its partial sums are spilled to DRAM and loaded again later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.array import Array, Axis, Demand, KChunk, KRun, chunk_k
from simulator.formats import Format
from simulator.memory import FlatDram
from simulator.pe.protocol import Side
from simulator.units import ceil_div

SCALE_PASSES = 2
"""Multiplications of a result in the output stage, each a visit of a vector lane: by its row's scale and its
column's."""
Activity = tuple[tuple[str, tuple[tuple[tuple[str, str], int | Fraction], ...]], ...]
"""Counted thing -> ((component, event), times), as tuples, so that a plan can be hashed."""
ORDERS = ("nmk", "mnk", "nkm", "mkn", "knm", "kmn")


@dataclass(frozen=True)
class Tiling:
    """Tile sizes and the order of the loops over tiles, outermost first."""

    m: int
    n: int
    k: int
    order: str


@dataclass(frozen=True)
class Step:
    """One tile of work: its batch entry and its index along m, n and k."""

    batch: int
    mi: int
    ni: int
    ki: int


@dataclass(frozen=True)
class KTile:
    """A tile of K: its chunks, and the DRAM bits of one row of it of each operand."""

    runs: tuple[KRun, ...]
    weight_row_bits: int
    activation_row_bits: int


class KTiles(NamedTuple):
    """The different K tiles, the first K tile of each kind, and which kind each K tile is."""

    kinds: tuple[KTile, ...]
    first: tuple[int, ...]
    which: npt.NDArray[np.int64]


@dataclass(frozen=True)
class WindowedInput:
    """The feature map behind an im2col operand: output rows that lie in the same input lines share their bytes."""

    out_width: int
    out_height: int
    in_height: int
    stride: int
    reach: int
    """Input lines that one output line needs: dilation * (kernel - 1) + 1."""
    line_bits: int
    """Bits of one input line: width x channels of a group, with their scales."""

    def bits(self, outputs: int) -> int:
        """Most bits that ``outputs`` consecutive output positions can need, in whole input lines."""
        whole, rest = divmod(outputs, self.out_width)
        lines = whole if not rest else whole + 2
        images = ceil_div(lines, self.out_height) + (1 if lines % self.out_height else 0)
        return min((lines - 1) * self.stride + self.reach, images * self.in_height) * self.line_bits


@dataclass(frozen=True)
class Plan:
    """One GEMM (or ``batch`` of them) on one accelerator, mapped."""

    m: int
    k: int
    n: int
    batch: int
    weight_reuse: int
    """Consecutive batch entries that share one weight operand."""
    tiling: Tiling
    array: Array
    demand: Demand
    weights: Format
    """As they are in memory and buffers; `received` is what reaches the PEs."""
    activations: Format
    output: Format
    received: tuple[Format, Format]
    """Weights and activations behind the decoders at the array's edge."""
    edges: tuple[int, ...]
    """Where scale groups of what is received end along K (`scale_edges`)."""
    spans: tuple[int, int]
    """Scale groups of weights and activations begin anew after so many values of K (a kernel position of a
    convolution)."""
    dram: FlatDram
    fill_bits: tuple[int, int, int]
    """Bits a cycle that DMA moves into the weight and activation buffers, and out of (or into) the output buffer."""
    slots: tuple[int, int, int]
    """Tiles that the weight, activation and output buffers hold."""
    vector_lanes: int
    """Lanes of the vector unit, which scales and rounds results while they are written back."""
    vector_visits: int
    """Visits of vector lanes before the array starts: sums for zero points, what the PEs want prepared."""
    fused_visits: int
    """Visits that the operation before makes on its way: they cost energy and no time."""
    by_codes: bool
    """Time depends on the codes: tiles are whole blocks of what a fold holds, and whole steps."""
    clock_gating: bool
    """PEs without work pay no clock energy."""
    activity: Activity
    """What the counts of the engines make the components of the PE family do (`ProcessingElement.activity`)."""
    windowed: WindowedInput | None = None

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """Tiles along m, n and k."""
        t = self.tiling
        return ceil_div(self.m, t.m), ceil_div(self.n, t.n), ceil_div(self.k, t.k)

    @cached_property
    def k_tiles(self) -> KTiles:
        """The K tiles. Those between the first and the last are alike, unless groups begin anew at kernel positions."""
        step, count = self.tiling.k, self.counts[2]
        restart = any(size and span < self.k for size, span in self.groups)
        samples = range(count) if restart else sorted({0, min(1, count - 1), count - 1})
        kinds: dict[KTile, int] = {}
        first: list[int] = []
        found = []
        for index in samples:
            low, high = index * step, min((index + 1) * step, self.k)
            tile = KTile(
                self.chunks(low, high),
                row_bits(self.weights, low, high, self.spans[0]),
                row_bits(self.activations, low, high, self.spans[1]),
            )
            if tile not in kinds:
                first.append(index)
            found.append(kinds.setdefault(tile, len(kinds)))
        which = np.array(found, np.int64)
        if not restart:
            which = np.full(count, found[min(1, count - 1)], np.int64)
            which[0], which[-1] = found[0], found[-1]
        return KTiles(tuple(kinds), tuple(first), which)

    def chunks(self, low: int, high: int) -> tuple[KRun, ...]:
        """K in [low, high) as folds take it."""
        return chunk_k(low, high, self.edges, self.k_limit, inside=self.array.scales_inside)

    def chunk_list(self, ki: int | None) -> list[KChunk]:
        """The chunks of one K tile, or of all K in one, in order."""
        runs = self.chunks(0, self.k) if ki is None else self.k_tile(ki).runs
        return [chunk for run in runs for _ in range(run.count) for chunk in run.pattern]

    def held(self, side: Side) -> int:
        """Rows of an operand that one fold holds at most; outputs stationary."""
        return self.array.held("n" if side == "weights" else "m")

    def folds_m(self, mi: int) -> range:
        """Blocks of m (what a fold holds of it) that a tile covers; tiles are whole blocks where time is by codes."""
        return self._folds(mi, self.tiling.m, self.m, "m")

    def folds_n(self, ni: int) -> range:
        return self._folds(ni, self.tiling.n, self.n, "n")

    def _folds(self, index: int, tile: int, extent: int, axis: Axis) -> range:
        held = self.array.held(axis)
        return range(index * tile // held, ceil_div(min((index + 1) * tile, extent), held))

    def k_tile(self, ki: int) -> KTile:
        """The K tile with this index."""
        return self.k_tiles.kinds[int(self.k_tiles.which[ki])]

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """(group size, span) of weights and activations, in memory and as received: no tile of K cuts one."""
        formats = (self.weights, self.activations, *self.received)
        return tuple((format.group_size, span) for format, span in zip(formats, 2 * self.spans, strict=True))

    @property
    def rescaled(self) -> bool:
        """The array's rescale unit applies the scales of groups."""
        return bool(self.edges) and not self.array.scales_inside

    @property
    def k_limit(self) -> int:
        """Most of K that one fold holds; 0 where K is streamed."""
        return self.array.rows * self.array.lanes if self.array.dataflow.preloads else 0

    def steps(self) -> Iterator[Step]:
        """Tiles in the order in which the array works on them."""
        mt, nt, kt = self.counts
        ranges = {"m": range(mt), "n": range(nt), "k": range(kt)}
        first, second, third = tuple(self.tiling.order)
        for batch in range(self.batch):
            for x in ranges[first]:
                for y in ranges[second]:
                    for z in ranges[third]:
                        index = {first: x, second: y, third: z}
                        yield Step(batch, index["m"], index["n"], index["k"])

    def rows_m(self, mi: int) -> int:
        return min(self.tiling.m, self.m - mi * self.tiling.m)

    def rows_n(self, ni: int) -> int:
        return min(self.tiling.n, self.n - ni * self.tiling.n)

    def size_k(self, ki: int) -> int:
        return min(self.tiling.k, self.k - ki * self.tiling.k)

    def weight_bits(self, ni: int, ki: int) -> int:
        """DRAM bits of a weight tile, its scales included; per-row scales come with the first K tile."""
        return self.rows_n(ni) * self.k_tile(ki).weight_row_bits

    def activation_bits(self, mi: int, ki: int) -> int:
        """DRAM bits of an activation tile, likewise; for a convolution no more than the input lines it reads."""
        bits = self.rows_m(mi) * self.k_tile(ki).activation_row_bits
        return bits if self.windowed is None else min(bits, self.windowed.bits(self.rows_m(mi)))

    def output_bits(self, mi: int, ni: int) -> int:
        """DRAM bits of a finished output tile in the output format; per-row scales go with the last N tile."""
        n = self.rows_n(ni)
        groups = ceil_div(n, self.output.metadata_group) if self.output.metadata_group else 0
        metadata = groups * self.output.metadata_bits
        row_scales = self.output.row_bits if ni == self.counts[1] - 1 else 0
        return self.rows_m(mi) * (n * self.output.code_bits + metadata + row_scales)

    @property
    def partial_bits(self) -> int:
        """Bits of one partial sum between two K tiles: scaled where there are groups."""
        return self.demand.scaled_bits if self.rescaled else self.demand.partial_bits

    def load_cycles(self, operand: int, bits: int) -> int:
        """DMA cycles of a load (0 weights, 1 activations, 2 partial sums): the slower of DRAM and buffer port."""
        return max(self.dram.bus_cycles(bits), ceil_div(bits, self.fill_bits[operand]))

    def write_cycles(self, mi: int, ni: int) -> int:
        """DMA cycles of a finished tile: DRAM, output buffer port or the vector unit's scaling, whichever is
        slowest."""
        results = self.rows_m(mi) * self.rows_n(ni)
        return max(
            self.dram.bus_cycles(self.output_bits(mi, ni)),
            ceil_div(results * self.partial_bits, self.fill_bits[2]),
            ceil_div(SCALE_PASSES * results, self.vector_lanes),
        )

    def spill_bits(self, mi: int, ni: int) -> int:
        return self.rows_m(mi) * self.rows_n(ni) * self.partial_bits

    def output_tile_bits(self, m: npt.NDArray[np.int64], n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Output buffer bits of (m, n) tiles while they accumulate.

        Where a scale group takes several folds (its K is along the rows), the unscaled sums of one column fold wait
        beside the scaled ones.
        """
        bits = m * n * self.partial_bits
        if self.waiting_columns:
            flow = self.array.dataflow
            held = {"m": m, "n": n}
            columns = np.minimum(held[flow.cols_hold], self.waiting_columns)
            bits = bits + held[flow.streams] * columns * self.demand.partial_bits
        return bits

    @cached_property
    def longest_group(self) -> int:
        """Values of K in the longest stretch that shares all scales; 0 without groups."""
        return max((high - low for low, high in zip((0, *self.edges), self.edges, strict=False)), default=0)

    @property
    def waiting_columns(self) -> int:
        """Columns of unscaled sums that wait for the rest of their group; 0 where a group is one fold."""
        waits = self.array.dataflow.preloads and self.longest_group > self.k_limit
        return self.array.cols if waits else 0

    @property
    def vector_cycles(self) -> int:
        """Cycles of the vector unit before the array starts."""
        return ceil_div(self.vector_visits, self.vector_lanes)


def row_bits(format: Format, low: int, high: int, span: int) -> int:
    """Bits of K values [low, high) of one row: codes, the metadata of the groups that begin there and, at 0, the row's.

    Groups begin anew every ``span`` values.
    """

    def groups_before(position: int) -> int:
        spans, rest = divmod(position, span)
        return spans * ceil_div(span, format.metadata_group) + ceil_div(rest, format.metadata_group)

    groups = groups_before(high) - groups_before(low) if format.metadata_group else 0
    return (high - low) * format.code_bits + groups * format.metadata_bits + (0 if low else format.row_bits)
