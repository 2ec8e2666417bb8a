"""What an engine produces: integer intervals per resource, integer counts per event. Reports are functions of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

STACK_KEYS = (
    "compute",
    "fill_drain",
    "wait_weights",
    "wait_activations",
    "wait_writeback",
    "dequantization",
    "vector",
    "refresh",
)


@dataclass(frozen=True)
class Run:
    """``count`` intervals of ``length`` cycles, the first at ``start``, the others ``period`` cycles apart."""

    start: int
    period: int
    count: int
    length: int


@dataclass(frozen=True)
class Sampling:
    """How sure a time is that follows from a sample of the codes."""

    weights: float
    """Share of the weights whose codes were taken; 1: all."""
    activations: float
    cycles_standard_error: float
    """Of the cycles in which the array streams; 0 where nothing was left out."""


@dataclass(frozen=True)
class LayerRecord:
    """One operation on one accelerator. Cycles count from the end of the previous layer's last event."""

    name: str
    op: str
    m: int
    k: int
    n: int
    batch: int
    cycles: int
    compute_cycles: int
    macs: int
    peak_macs_per_cycle: float
    cycle_stack: Mapping[str, int]
    """Cause -> cycles; sums to ``cycles``. A cause that nothing models is absent."""
    counts: Mapping[tuple[str, str], int]
    """(component name, event) -> how many, over all instances of the component."""
    dram_read_bytes: Mapping[str, int]
    """Operand ("weights", "activations", "partial_sums") -> bytes read from DRAM, metadata included."""
    dram_write_bytes: Mapping[str, int]
    resource_cycles: Mapping[str, int]
    """Lower bound that each resource alone sets: "compute", "dram", "sram", "fill"; the roofline's position."""
    sampling: Sampling | None = None
    """Where time depends on the codes."""
    intervals: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)
    """Resource -> its intervals in time order: each transfer of "dma", each tile of "array" from its first word's
    entry to its last result, the work of "vector"."""


@dataclass(frozen=True)
class Record:
    """All layers of a run, in order; ``cycles`` of the run is the sum of its layers'."""

    engine: str
    layers: tuple[LayerRecord, ...]

    @property
    def cycles(self) -> int:
        return sum(layer.cycles for layer in self.layers)


def expand(runs: tuple[Run, ...]) -> Iterator[tuple[int, int]]:
    """(start, end) of every interval, one at a time: engines are compared on this."""
    for run in runs:
        for index in range(run.count):
            start = run.start + index * run.period
            yield start, start + run.length
