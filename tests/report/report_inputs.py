"""A small accelerator and runs on it, for the tests of the report."""

from __future__ import annotations

from typing import Any

from simulator.engine.record import LayerRecord, Record
from simulator.hardware import Component, Part

COMPONENTS = (
    Component(
        name="pe",
        kind="mac",
        count=256,
        params={"activations": "int8", "weights": "int4"},
        parts=(
            Part("multiplier", "int_multiplier", {"a_bits": 8, "b_bits": 4}),
            Part("accumulate", "int_adder", {"bits": 32}),
            Part("registers", "register", {"bits": 44}),
        ),
        events={
            "mac": {("multiplier", "operate"): 1, ("accumulate", "operate"): 1, ("registers", "write"): 1},
            "idle": {("registers", "clock"): 1},
        },
    ),
    Component("weights", "sram", {"bytes": 65536, "width_bits": 128, "banks": 2}),
    Component("outputs", "sram", {"bytes": 100_000, "width_bits": 96, "ports": "1r1w"}),
    Component("dram", "dram", {"part": "ddr4-3200", "channels": 1}),
)

EVENTS = (
    ("pe", "mac"),
    ("pe", "idle"),
    ("weights", "read"),
    ("weights", "write"),
    ("outputs", "read"),
    ("outputs", "write"),
    ("dram", "read_bit"),
    ("dram", "write_bit"),
)


def layer(name: str = "layers.0.q_proj", scale: int = 1, **changes: Any) -> LayerRecord:
    """A layer whose numbers grow with ``scale``; any field may be changed."""
    fields: dict[str, Any] = {
        "name": name,
        "op": "matmul",
        "m": 32,
        "k": 64,
        "n": 16 * scale,
        "batch": 1,
        "cycles": 400 * scale,
        "compute_cycles": 300 * scale,
        "macs": 32 * 64 * 16 * scale,
        "peak_macs_per_cycle": 256,
        "cycle_stack": {"compute": 250 * scale, "fill_drain": 50 * scale, "wait_weights": 100 * scale},
        "counts": {key: (index + 1) * 100 * scale for index, key in enumerate(EVENTS)},
        "dram_read_bytes": {"weights": 512 * scale, "activations": 2048},
        "dram_write_bytes": {"outputs": 1024 * scale},
        "resource_cycles": {"compute": 250 * scale, "dram": 320 * scale},
    }
    return LayerRecord(**(fields | changes))


def record(count: int = 3) -> Record:
    """Layers of growing size."""
    return Record("fast", tuple(layer(f"layers.{index}.q_proj", index + 1) for index in range(count)))


def meta(**changes: Any) -> dict[str, Any]:
    """Everything a report passes through."""
    return {
        "version": "0.1.0",
        "workload": "tiny",
        "arch": "systolic_os_16x16",
        "engine": "fast",
        "phase": {"prefill": 32, "decode": None, "batch": 1},
        "formats": {"weights": "int4_g128", "activations": "int8", "kv": "int8", "output": "fp16"},
        "weight_values": "synthetic",
        "seed": 0,
        "config": {"arch": {"name": "systolic_os_16x16"}},
    } | changes
