"""Choosing a tiling: every size that keeps the array's edges whole and fits the buffers, in every loop order,
estimated.

The estimate of a candidate's time is the larger of its array time and its DRAM time, plus what cannot overlap: the
first tiles' loads and the last tile's write-back. Of the candidates within `TOLERANCE` of the quickest, the one with
the least DRAM traffic is chosen, then the quickest, then the one with the fewest tiles, then the first of `ORDERS`. The
engines give the exact time of the chosen one. The search is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import ceil, lcm

import numpy as np
import numpy.typing as npt

from simulator.arch import Accelerator
from simulator.arch.accelerator import BufferSection
from simulator.array import Axis, Demand, scale_edges
from simulator.array.demand import Port
from simulator.errors import InputError
from simulator.formats import Format, get_format
from simulator.mapping.plan import ORDERS, SCALE_PASSES, Plan, Tiling, WindowedInput, row_bits
from simulator.memory import FlatDram
from simulator.pe.arithmetic import FP32
from simulator.units import BITS_PER_BYTE, KIB, ceil_div
from simulator.workload.operations import Gemm

TOLERANCE = 0.02
"""Share of the estimated time that may be given up for less DRAM traffic."""
MAX_TILES = 1 << 30
"""More tiles than this for one operation are refused: the buffers are far too small for it."""

Column = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


def plan_gemm(gemm: Gemm, accelerator: Accelerator) -> Plan:
    """Map one operation. Raises InputError: formats the PE does not take, or no tile that fits the buffers."""
    weights, activations = get_format(gemm.weights.format), get_format(gemm.activations.format)
    accelerator.check_formats(weights, activations, where=gemm.name)
    untiled = _untiled(gemm, accelerator, weights, activations)
    return replace(untiled, tiling=_chosen(untiled, accelerator, gemm.name))


def _untiled(gemm: Gemm, accelerator: Accelerator, weights: Format, activations: Format) -> Plan:
    """The plan with one tile that holds everything: what remains is to choose its tiling."""
    array = accelerator.array_for(weights, activations)
    buffers = accelerator.buffers
    spans = (gemm.weights.group_span or gemm.k, gemm.activations.group_span or gemm.k)
    numerator, denominator = accelerator.dram_bits_per_cycle
    slots = (buffers.weights.buffering, buffers.activations.buffering, buffers.outputs.buffering)
    pe = accelerator.element
    received = pe.received("weights", weights), pe.received("activations", activations)
    timing = pe.timing(weights, activations)
    values = gemm.m * gemm.k * gemm.batch
    edges = scale_edges(
        gemm.k, [(format.group_size, span) for format, span in zip(received, spans, strict=True)]
    )
    visits = ceil(values * pe.vector_passes(weights, activations))
    if not (array.scales_inside and edges):
        # A PE that applies the scales of groups sees to zero points too.
        visits += values if received[0].has_zero_point else 0
        if received[1].has_zero_point and not gemm.weights.static:
            visits += gemm.n * gemm.k * ceil_div(gemm.batch, gemm.weight_reuse)
    return Plan(
        m=gemm.m,
        k=gemm.k,
        n=gemm.n,
        batch=gemm.batch,
        weight_reuse=gemm.weight_reuse,
        tiling=Tiling(gemm.m, gemm.n, gemm.k, ORDERS[0]),
        array=array,
        demand=Demand(
            weights=_port(buffers.weights),
            activations=_port(buffers.activations),
            outputs=_port(buffers.outputs),
            weight_bits=weights.code_bits,
            activation_bits=activations.code_bits,
            partial_bits=pe.partial_bits(weights, activations),
            scaled_bits=FP32.bits,
            weight_scale_bits=weights.group_bits,
            activation_scale_bits=activations.group_bits,
            rescale_interval=accelerator.array.rescale_interval,
            weight_word_bits=received[0].code_bits,
            activation_word_bits=received[1].code_bits,
            weight_decode=timing.weight_decode,
            activation_decode=timing.activation_decode,
            weight_decoded_group=0 if received[0].group_size else weights.group_size,
            activation_decoded_group=0 if received[1].group_size else activations.group_size,
        ),
        weights=weights,
        activations=activations,
        output=get_format(gemm.output.format),
        received=received,
        edges=edges,
        spans=spans,
        dram=FlatDram(numerator, denominator, accelerator.dram_latency_cycles),
        fill_bits=(buffers.weights.port_bits, buffers.activations.port_bits, buffers.outputs.port_bits),
        slots=slots,
        vector_lanes=accelerator.vector.lanes,
        vector_visits=visits,
        fused_visits=ceil(values * pe.fused_passes(weights, activations)),
        by_codes=pe.data_timing(weights, activations) is not None,
        clock_gating=accelerator.array.clock_gating,
        activity=tuple(
            (counted, tuple(events.items()))
            for counted, events in pe.activity(
                weights, activations, stationary=array.dataflow.stationary
            ).items()
        ),
        windowed=_windowed(gemm, activations),
    )


def _port(buffer: BufferSection) -> Port:
    return Port(buffer.port_bits, buffer.port_bits, buffer.ports == "1rw", buffer.width_bits)


def _windowed(gemm: Gemm, activations: Format) -> WindowedInput | None:
    conv = gemm.conv
    if conv is None:
        return None
    channels = conv.in_channels // conv.groups
    pixel = row_bits(activations, 0, channels, channels)
    return WindowedInput(
        out_width=conv.out_width,
        out_height=conv.out_height,
        in_height=conv.in_height,
        stride=conv.stride[0],
        reach=conv.dilation[0] * (conv.kernel[0] - 1) + 1,
        line_bits=conv.in_width * pixel,
    )


def _chosen(plan: Plan, accelerator: Accelerator, name: str) -> Tiling:
    wanted = accelerator.mapping
    rooms = [
        getattr(accelerator.buffers, buffer).tile_bits for buffer in ("weights", "activations", "outputs")
    ]
    for whole_folds in (True,) if plan.by_codes else (True, False):
        sizes = (
            _sizes(plan, "m", wanted.tile_m, whole_folds),
            _sizes(plan, "n", wanted.tile_n, whole_folds),
            _k_sizes(plan, wanted.tile_k, name, whole_folds),
        )
        m, n, k = (np.array(column, np.int64) for column in zip(*product(*sizes), strict=True))
        needs = _needs(plan, m, n, k)
        tiles = plan.batch * -(-plan.m // m) * -(-plan.n // n) * -(-plan.k // k)
        fits = (needs[0] <= rooms[0]) & (needs[1] <= rooms[1]) & (needs[2] <= rooms[2]) & (tiles <= MAX_TILES)
        if fits.any():
            return _best(plan, m[fits], n[fits], k[fits], (wanted.order,) if wanted.order else ORDERS)
    raise _too_small(plan, accelerator, name, needs, rooms, (m, n, k))


def _best(plan: Plan, m: Column, n: Column, k: Column, orders: Sequence[str]) -> Tiling:
    candidates = _Candidates(plan, m, n, k)
    estimates = [candidates.estimate(order) for order in orders]
    time = np.concatenate([estimate[0] for estimate in estimates])
    traffic = np.concatenate([estimate[1] for estimate in estimates])
    tiles = np.tile(candidates.tiles["m"] * candidates.tiles["n"] * candidates.tiles["k"], len(orders))
    quick = np.flatnonzero(time <= time.min() * (1 + TOLERANCE))
    winner = int(quick[np.lexsort((tiles[quick], time[quick], traffic[quick]))[0]])
    order, index = divmod(winner, len(m))
    return Tiling(int(m[index]), int(n[index]), int(k[index]), orders[order])


def _sizes(plan: Plan, axis: Axis, wanted: int | None, whole_folds: bool) -> list[int]:
    """Tile sizes worth a look along m or n: whole folds; else parts of one."""
    total = plan.m if axis == "m" else plan.n
    unit = plan.array.held(axis)
    if wanted is not None:
        _check_whole(plan, f"tile_{axis}", wanted, unit, total)
        return [min(wanted, total)]
    return _parts(unit, total) if whole_folds else _parts(1, min(total, unit))


def _check_whole(plan: Plan, key: str, wanted: int, unit: int, total: int) -> None:
    """Raises InputError where time depends on the codes and a tile is no whole number of folds or steps."""
    if plan.by_codes and wanted < total and wanted % unit:
        raise InputError(
            "cuts what one fold of PEs with data-dependent time holds",
            key=f"mapping.{key}",
            value=wanted,
            allowed=f"multiples of {unit}",
        )


def _parts(unit: int, total: int) -> list[int]:
    """``total`` in 1, 2, 3, 4, 6, 8, 12, ... equal parts, each rounded up to whole units."""
    sizes = {total}
    parts = 2
    while parts < 2 * ceil_div(total, unit):
        for count in (parts, parts * 3 // 2):
            sizes.add(min(total, ceil_div(ceil_div(total, count), unit) * unit))
        parts *= 2
    return sorted(sizes)


def _k_sizes(plan: Plan, wanted: int | None, name: str, whole_folds: bool) -> list[int]:
    """Tile sizes along K: whole scale groups, and whole folds where rows hold K."""
    grouped = [(size, span) for size, span in plan.groups if size]
    starts = _group_starts(plan, grouped)

    def cuts_groups(size: int) -> bool:
        return bool(grouped) and any(cut not in starts for cut in range(size, plan.k, size))

    whole_groups = lcm(*(size for size, _ in grouped))
    if wanted is not None:
        size = min(wanted, plan.k)
        if not grouped:
            _check_whole(plan, "tile_k", wanted, plan.array.lanes, plan.k)
        if cuts_groups(size):
            raise InputError(
                f"{name}: tile_k cuts a scale group",
                key="mapping.tile_k",
                value=wanted,
                allowed=f"multiples of {whole_groups}, up to kernel positions of {min(plan.spans)} values"
                if min(plan.spans) < plan.k
                else f"multiples of {whole_groups}",
            )
        return [size]
    if grouped:
        units = {whole_groups, *plan.spans} - {plan.k}
        sizes = {plan.k, *(size for unit_size in units for size in _parts(unit_size, plan.k))}
        return sorted(size for size in sizes if not cuts_groups(size))
    unit = plan.k_limit or plan.array.lanes
    return _parts(unit, plan.k) if whole_folds else _parts(1, min(plan.k, unit))


def _group_starts(plan: Plan, grouped: Sequence[tuple[int, int]]) -> set[int]:
    """Positions where K may be cut: where a group of every grouped operand begins."""
    edges = scale_edges(plan.k, grouped)
    return {edge for edge in edges if all(edge % span % size == 0 for size, span in grouped)}


def _needs(plan: Plan, m: Column, n: Column, k: Column) -> tuple[Column, Column, Column]:
    """Bits of buffer that tiles of these sizes need: weights, activations, outputs."""
    lengths, inverse = np.unique(k, return_inverse=True)
    weight_rows = np.array(
        [row_bits(plan.weights, 0, int(size), plan.spans[0]) for size in lengths], np.int64
    )[inverse]
    activation_rows = np.array(
        [row_bits(plan.activations, 0, int(size), plan.spans[1]) for size in lengths], np.int64
    )[inverse]
    activations = m * activation_rows
    if plan.windowed is not None:
        heights, which = np.unique(m, return_inverse=True)
        lines = np.array([plan.windowed.bits(int(size)) for size in heights], np.int64)[which]
        activations = np.minimum(activations, lines)
    return n * weight_rows, activations, plan.output_tile_bits(m, n)


class _Candidates:
    """Tile sizes with what their estimates share: what they move, and how long the array and DMA take for it."""

    def __init__(self, plan: Plan, m: Column, n: Column, k: Column) -> None:
        self.plan = plan
        self.tiles = {"m": -(-plan.m // m), "n": -(-plan.n // n), "k": -(-plan.k // k)}
        _, activation_tile, _ = _needs(plan, m, n, k)
        # The last tile may be smaller: the mean makes what is moved in all exact.
        weights = plan.n * row_bits(plan.weights, 0, plan.k, plan.spans[0])
        self.weight_bits: Reals = weights / (self.tiles["n"] * self.tiles["k"])
        activations = plan.m * row_bits(plan.activations, 0, plan.k, plan.spans[1])
        self.activation_bits: Reals = activations / (self.tiles["m"] * self.tiles["k"])
        if plan.windowed is not None:
            self.activation_bits = activation_tile.astype(np.float64)
        self.per_cycle = plan.dram.numerator / plan.dram.denominator
        self.result_cycles = max(
            plan.output.code_bits / self.per_cycle,
            plan.partial_bits / plan.fill_bits[2],
            SCALE_PASSES / plan.vector_lanes,
        )
        self.results = m * n
        self.array, self.tail = _array_cycles(plan, m, n, k, self.tiles)

    def estimate(self, order: str) -> tuple[Reals, Reals]:
        """(cycles, DRAM bits) of each candidate in one loop order.

        The largest of the array's time, DMA's, and what the slots of an operand allow: with b slots a tile's load
        begins when the b-th tile before it is used up.
        """
        plan, tiles = self.plan, self.tiles
        shared = np.where(tiles["n"] * tiles["k"] <= plan.slots[0], plan.weight_reuse, 1)
        loads_w = _visits(tiles, order, "nk", plan.slots[0]) / shared
        loads_a = _visits(tiles, order, "mk", plan.slots[1])
        finished = tiles["m"] * tiles["n"]
        spills = _visits(tiles, order, "mn", plan.slots[2]) - finished
        load_w = self.weight_bits / min(self.per_cycle, plan.fill_bits[0])
        load_a = self.activation_bits / min(self.per_cycle, plan.fill_bits[1])
        spill = self.results * plan.partial_bits / min(self.per_cycle, plan.fill_bits[2])
        written = float(plan.m * plan.n)
        dma = loads_w * load_w + loads_a * load_a + 2 * spills * spill + written * self.result_cycles
        # Until a tile's slot is free again its last fold must have drained, even where the next already streams.
        latency = plan.dram.latency + (self.tail if plan.array.fold_overlap else 0)
        slots_w = np.where(
            tiles["n"] * tiles["k"] > plan.slots[0], loads_w * (load_w + latency) + self.array, 0
        )
        slots_a = np.where(
            tiles["m"] * tiles["k"] > plan.slots[1], loads_a * (load_a + latency) + self.array, 0
        )
        busy = np.maximum(
            np.maximum(self.array, dma), np.maximum(slots_w / plan.slots[0], slots_a / plan.slots[1])
        )
        ends = load_w + load_a + plan.dram.latency + self.results * self.result_cycles
        traffic = loads_w * self.weight_bits + loads_a * self.activation_bits
        traffic = traffic + 2 * spills * self.results * plan.partial_bits + written * plan.output.code_bits
        return plan.batch * busy + ends, plan.batch * traffic


def _visits(tiles: dict[str, Column], order: str, axes: str, slots: int) -> Column:
    """How often the loops come to a new tile of the operand with these axes; once each when all fit its slots."""
    distinct = tiles[axes[0]] * tiles[axes[1]]
    total = np.ones_like(distinct)
    inner_changes = np.zeros_like(distinct, bool)
    for axis in reversed(order):
        inner_changes |= (tiles[axis] > 1) if axis in axes else False
        total = np.where(inner_changes, total * tiles[axis], total)
    return np.where(distinct <= slots, distinct, total)


def _array_cycles(
    plan: Plan, m: Column, n: Column, k: Column, tiles: dict[str, Column]
) -> tuple[Reals, Column]:
    """Array time if every tile were a full one: folds times the time between their starts; and a fold's tail.

    Ports are included; a step is charged its whole interval, so that short streams gain nothing.
    """
    array, demand, flow = plan.array, plan.demand, plan.array.dataflow
    size = {"m": m, "n": n}
    col_folds = -(-size[flow.cols_hold] // array.cols)
    longest = (plan.rescaled and plan.longest_group) or plan.k
    if flow.preloads:
        chunk = np.minimum(np.minimum(k, longest), plan.k_limit)
        row_folds = -(-k // chunk)
        steps = size[flow.streams]
        r = np.minimum(array.rows, -(-chunk // array.lanes))
        row_words = chunk
    else:
        chunk = np.minimum(k, longest)
        row_folds = -(-size[flow.rows_hold] // array.rows) * -(-k // chunk)
        group = plan.longest_group or plan.k
        steps = -(-chunk // group) * -(-np.minimum(chunk, group) // array.lanes)
        r = np.minimum(array.rows, size[flow.rows_hold])
        row_words = r * np.minimum(array.lanes, chunk)
    c = np.minimum(array.cols, size[flow.cols_hold])
    words = {flow.row_operand: row_words, flow.col_operand: c * np.minimum(array.lanes, chunk)}
    port = {
        operand: np.maximum(
            -(-words[operand] * demand.code_bits(operand) // demand.port(operand).read_bits),
            demand.decode(operand),
        )
        for operand in words
    }
    written = -(-c * plan.partial_bits // demand.outputs.write_bits)
    split = -(-plan.k // chunk) > 1
    results = np.where(split & demand.outputs.shared, 2 * written, written)
    if plan.rescaled:
        results = np.maximum(results, demand.rescale_interval)
    stream = np.maximum(array.initiation_interval, port[flow.row_operand])
    if array.full_edge_folds:
        r, c = np.full_like(r, array.rows), np.full_like(c, array.cols)
    if flow.preloads:
        held, fixed = r * port[flow.col_operand], array.latency * r + c
        stream = np.maximum(stream, results)
        alone = held + stream * steps + fixed
    else:
        held = r * results
        fixed = array.latency + held + (c if flow.skewed else 0)
        stream = np.maximum(stream, port[flow.col_operand])
        alone = stream * steps + fixed
    fold = np.maximum(stream * steps, held) if array.fold_overlap else alone
    folds = tiles["m"] * tiles["n"] * tiles["k"] * col_folds * row_folds
    cycles: Reals = folds * fold.astype(np.float64) + fixed
    return cycles, fixed


def _too_small(
    plan: Plan,
    accelerator: Accelerator,
    name: str,
    needs: Sequence[Column],
    rooms: Sequence[int],
    sizes: Sequence[Column],
) -> InputError:
    """What lacks for the candidate that comes closest."""
    excess = np.maximum.reduce([need / room for need, room in zip(needs, rooms, strict=True)])
    index = int(np.argmin(excess))
    tile = ", ".join(f"{axis} {int(column[index])}" for axis, column in zip("mnk", sizes, strict=True))
    tile_counts = zip((plan.m, plan.n, plan.k), sizes, strict=True)
    lacking = [
        f"the {buffer} buffer needs {ceil_div(int(need[index]) * slots, BITS_PER_BYTE * KIB)} KiB "
        f"(buffering {slots}), has {getattr(accelerator.buffers, buffer).kib:g}"
        for buffer, need, room, slots in zip(
            ("weights", "activations", "outputs"), needs, rooms, plan.slots, strict=True
        )
        if need[index] > room
    ]
    if not lacking:
        most = int(min(plan.batch * np.prod([-(-total // size) for total, size in tile_counts], axis=0)))
        return InputError(
            f"{name}: takes at least {most} tiles on {accelerator.name}",
            key="buffers",
            allowed=f"up to {MAX_TILES} tiles; larger buffers or tiles hold more of it",
        )
    detail = "; ".join(lacking)
    explicit = any(getattr(accelerator.mapping, f"tile_{axis}") is not None for axis in "mnk")
    which = "the tile asked for" if explicit else "even the smallest tile"
    return InputError(f"{name}: {which} ({tile}) does not fit {accelerator.name}: {detail}", key="buffers")
