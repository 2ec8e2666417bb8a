"""From what an engine tallied to the counts of a `LayerRecord`: which component did what, how many bytes moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.array import gemm_block
from simulator.array.schedule import COUNTERS, Vector, repeat
from simulator.engine.record import LayerRecord, Run, Sampling
from simulator.mapping import Plan
from simulator.mapping.plan import SCALE_PASSES
from simulator.units import BITS_PER_BYTE, ceil_div

Table = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Movements:
    """How often each kind of tile moved between DRAM and buffers."""

    weight_loads: Table
    """[is the last tile along n][kind of K tile]"""
    activation_loads: Table
    """[is the last tile along m][kind of K tile]"""
    spill_loads: Table
    """Partial sums read back, [is the last along m][is the last along n]."""
    spills: Table
    """Partial sums written, likewise."""


class DataCounts(NamedTuple):
    """What is counted by the codes, where time depends on them."""

    compute_cycles: int
    terms: int
    """Elementary operations that the codes made of the products."""
    sampling: Sampling


def account(
    plan: Plan,
    name: str,
    op: str,
    cycles: int,
    stack: dict[str, int],
    tally: Vector,
    moved: Movements,
    intervals: Mapping[str, tuple[Run, ...]],
    data: DataCounts | None = None,
) -> LayerRecord:
    """The record of one mapped operation. ``tally``: events in the order of COUNTERS."""
    events = dict(zip(COUNTERS, (int(value) for value in tally), strict=True))
    traffic = _traffic(plan, moved)
    if plan.vector_cycles:
        stack["vector"] = plan.vector_cycles
    array, demand = plan.array, plan.demand
    pes = array.rows * array.cols
    results = plan.m * plan.n * plan.batch
    macs = results * plan.k
    busy = events["busy"] if array.serial else events["steps"] * array.initiation_interval
    weights, activations = plan.received
    corrections = weights.has_zero_point + activations.has_zero_point
    scaled_twice = bool(weights.group_size and activations.group_size)
    counted = {
        "mac": macs,
        "step": events["steps"],
        "busy": busy,
        "idle": 0 if plan.clock_gating else max(0, pes * cycles - busy),
        "preload": events["preloads"],
        "weight": events["weights"],
        "activation": events["activations"],
        "group": events["groups"],
        "result": events["results"],
        "term": data.terms if data else 0,
    }
    counts: dict[tuple[str, str], int] = {}
    for what, made in plan.activity:
        for event, times in made:
            # An event of every so many words happens a fraction of a time a word; begun ones are whole.
            counts[event] = counts.get(event, 0) + ceil(times * counted[what])
    counts |= {
        ("skew", "shift_bit"): events["skew_bits"],
        ("rescale", "rescale"): events["rescales"],
        ("rescale", "scale_product"): events["rescales"] if scaled_twice else 0,
        ("rescale", "correct"): events["rescales"] * corrections if plan.rescaled else 0,
        ("output_adders", "add"): events["partial_adds"],
        ("vector", "operate"): plan.vector_visits + plan.fused_visits,
        ("vector", "correct"): 0 if plan.edges else results * corrections,
        ("vector", "scale"): SCALE_PASSES * results,
        ("weights_buffer", "read"): events["weights_reads"] + events["weights_scale_reads"],
        ("weights_buffer", "write"): traffic.weight_fills,
        ("activations_buffer", "read"): events["activations_reads"] + events["activations_scale_reads"],
        ("activations_buffer", "write"): traffic.activation_fills,
        ("outputs_buffer", "read"): events["outputs_reads"] + traffic.output_drains,
        ("outputs_buffer", "write"): events["outputs_writes"] + traffic.output_fills,
        ("dram", "read_bit"): traffic.read_bits,
        ("dram", "write_bit"): traffic.write_bits,
    }
    outputs_port = (events["outputs_reads"], events["outputs_writes"])
    array_ports = max(
        ceil_div(events["weights_reads"] * demand.weights.access_bits, demand.weights.read_bits),
        ceil_div(events["activations_reads"] * demand.activations.access_bits, demand.activations.read_bits),
        ceil_div(
            (sum if demand.outputs.shared else max)(outputs_port) * demand.outputs.access_bits,
            demand.outputs.read_bits,
        ),
    )
    return LayerRecord(
        name=name,
        op=op,
        m=plan.m,
        k=plan.k,
        n=plan.n,
        batch=plan.batch,
        cycles=cycles,
        compute_cycles=data.compute_cycles if data else compute_cycles(plan),
        macs=macs,
        peak_macs_per_cycle=pes * array.lanes / array.initiation_interval,
        cycle_stack=stack,
        counts={event: count for event, count in counts.items() if count},
        dram_read_bytes=traffic.read_bytes,
        dram_write_bytes=traffic.write_bytes,
        resource_cycles={
            "compute": stack["compute"],
            "dram": traffic.dram_cycles,
            "sram": max(array_ports, traffic.port_cycles),
            "fill": stack["fill_drain"],
            "vector": plan.vector_cycles + traffic.scale_cycles,
        },
        sampling=data.sampling if data else None,
        intervals=intervals,
    )


@lru_cache(maxsize=4096)
def compute_cycles(plan: Plan) -> int:
    """What the array takes when every operand is ready: the folds of the whole operation, untiled, without port limits.

    SCALE-Sim's demand lines; rescale stalls are in it.
    """
    demand = plan.demand.unlimited()
    block = gemm_block(plan.array, demand, plan.m, plan.n, plan.chunks(0, plan.k))
    all_batches = repeat(plan.array, block, plan.batch)
    return all_batches.load + all_batches.end


@dataclass(frozen=True)
class _Traffic:
    read_bytes: dict[str, int]
    write_bytes: dict[str, int]
    read_bits: int
    write_bits: int
    dram_cycles: int
    """DMA cycles if nothing but DRAM limited it."""
    port_cycles: int
    """If nothing but the buffers' ports did."""
    scale_cycles: int
    """If nothing but the output stage did."""
    weight_fills: int
    activation_fills: int
    output_fills: int
    output_drains: int


def _traffic(plan: Plan, moved: Movements) -> _Traffic:
    """Bytes, bits, buffer accesses and bus cycles of all transfers, each rounded up on its own."""
    mt, nt, _ = plan.counts
    demand = plan.demand

    def load(operand: int, bits: int) -> Vector:
        """Bytes, bits, accesses, DRAM cycles and port cycles of one transfer."""
        port = (demand.weights, demand.activations, demand.outputs)[operand]
        cycles = (plan.dram.bus_cycles(bits), ceil_div(bits, plan.fill_bits[operand]))
        return np.array([ceil_div(bits, BITS_PER_BYTE), bits, port.accesses(bits), *cycles], object)

    def first(operand: int, bits: int, tensor_bits: int) -> Vector:
        """What the scale of the whole tensor, carried by the first load, adds to it."""
        extra: Vector = load(operand, bits + tensor_bits) - load(operand, bits)
        return extra

    weights = first(0, plan.weight_bits(0, 0), plan.weights.tensor_bits)
    activations = first(1, plan.activation_bits(0, 0), plan.activations.tensor_bits)
    for edge, (mi, ni) in enumerate(((0, 0), (mt - 1, nt - 1))):
        for kind, ki in enumerate(plan.k_tiles.first):
            weights += int(moved.weight_loads[edge, kind]) * load(0, plan.weight_bits(ni, ki))
            activations += int(moved.activation_loads[edge, kind]) * load(1, plan.activation_bits(mi, ki))
    restored, spilled, written = np.zeros((3, 5), object)
    for i, (mi, m_tiles) in enumerate(((0, mt - 1), (mt - 1, 1))):
        for j, (ni, n_tiles) in enumerate(((0, nt - 1), (nt - 1, 1))):
            partial = load(2, plan.spill_bits(mi, ni))
            finished = load(2, plan.output_bits(mi, ni))
            # What leaves the output buffer for the output stage has the accumulator's width still.
            finished[2], finished[4] = partial[2], partial[4]
            restored += int(moved.spill_loads[i, j]) * partial
            spilled += int(moved.spills[i, j]) * partial
            written += plan.batch * m_tiles * n_tiles * finished
    total = weights + activations + restored + spilled + written
    read = {"weights": int(weights[0]), "activations": int(activations[0]), "partial_sums": int(restored[0])}
    write = {"outputs": int(written[0]), "partial_sums": int(spilled[0])}
    return _Traffic(
        read_bytes={kind: value for kind, value in read.items() if value},
        write_bytes={kind: value for kind, value in write.items() if value},
        read_bits=int((weights + activations + restored)[1]),
        write_bits=int((spilled + written)[1]),
        dram_cycles=int(total[3]),
        port_cycles=int(total[4]),
        scale_cycles=ceil_div(SCALE_PASSES * plan.m * plan.n * plan.batch, plan.vector_lanes),
        weight_fills=int(weights[2]),
        activation_fills=int(activations[2]),
        output_fills=int(restored[2]),
        output_drains=int((spilled + written)[2]),
    )
