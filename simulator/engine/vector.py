"""The vector unit's operations: each element visited so many times, `lanes` elements a cycle, the array idle
meanwhile."""

from __future__ import annotations

from simulator.arch import Accelerator
from simulator.engine.record import LayerRecord, Run
from simulator.units import ceil_div
from simulator.workload import VectorOp


def simulate_vector(operation: VectorOp, accelerator: Accelerator) -> LayerRecord:
    """ceil(elements * passes / lanes) cycles. Operands stay on chip: what GEMMs read and write is counted with them."""
    visits = operation.elements * operation.passes
    cycles = ceil_div(visits, accelerator.vector.lanes)
    pes = accelerator.array.rows * accelerator.array.cols
    counts = {("vector", "operate"): visits}
    if not accelerator.array.clock_gating:
        counts["pe", "idle"] = pes * cycles
    return LayerRecord(
        name=operation.name,
        op=operation.op,
        m=operation.elements,
        k=1,
        n=1,
        batch=1,
        cycles=cycles,
        compute_cycles=0,
        macs=0,
        peak_macs_per_cycle=pes,
        cycle_stack={"vector": cycles},
        counts=counts,
        dram_read_bytes={},
        dram_write_bytes={},
        resource_cycles={"vector": cycles},
        intervals={"vector": (Run(0, 0, 1, cycles),)},
    )
