"""A run with its costs: what ``simulator run`` returns, prints and writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.engine.record import STACK_KEYS, LayerRecord, Record
from simulator.hardware import Component, PricedComponent, Technology
from simulator.report import document, files, frames, text
from simulator.report.ledger import (
    Entry,
    bound,
    check_clock,
    check_layer,
    enter,
    shares,
    utilization,
)

if TYPE_CHECKING:
    import pandas as pd

META_KEYS = (
    "version",
    "workload",
    "arch",
    "engine",
    "phase",
    "formats",
    "weight_values",
    "seed",
    "config",
)
"""What a report passes through: who ran what on what, and the configuration that runs it again."""


@dataclass(frozen=True)
class LayerReport:
    """One layer: what the engine counted, and what it costs."""

    record: LayerRecord
    entries: tuple[Entry, ...]
    extras: Mapping[str, object]
    """Further columns that the caller knows (``weight_sqnr_db``)."""

    @cached_property
    def energy_pj(self) -> float:
        return math.fsum(entry.energy_pj for entry in self.entries)

    @cached_property
    def dequantization_pj(self) -> float:
        """Energy of what applies scales of groups and zero points or decodes operands, its leakage included."""
        return math.fsum(entry.energy_pj for entry in self.entries if entry.dequantizes)

    @property
    def utilization(self) -> float:
        return utilization(self.record, self.record.cycles)

    @property
    def compute_utilization(self) -> float:
        return utilization(self.record, self.record.compute_cycles)

    @property
    def bound(self) -> str | None:
        return bound(self.record)

    @property
    def dram_read_bytes(self) -> int:
        return sum(self.record.dram_read_bytes.values())

    @property
    def dram_write_bytes(self) -> int:
        return sum(self.record.dram_write_bytes.values())


@dataclass(frozen=True)
class ComponentReport:
    """One component: its costs and what the whole run used."""

    priced: PricedComponent
    energy_by_event_pj: Mapping[str, float]
    leakage_pj: float

    @property
    def area_um2(self) -> float:
        """All instances together."""
        return self.priced.count * self.priced.area_um2

    @cached_property
    def energy_pj(self) -> float:
        return math.fsum((*self.energy_by_event_pj.values(), self.leakage_pj))


@dataclass(frozen=True)
class Report:
    """Cycles, energy and area of a run; made by ``make_report``."""

    layer_reports: tuple[LayerReport, ...]
    component_reports: tuple[ComponentReport, ...]
    technology: Technology
    clock_ghz: float
    meta: Mapping[str, Any] = field(repr=False)

    @cached_property
    def cycles(self) -> int:
        return sum(layer.record.cycles for layer in self.layer_reports)

    @property
    def latency_s(self) -> float:
        return self.cycles / (self.clock_ghz * 1e9)

    @cached_property
    def energy_pj(self) -> float:
        return math.fsum(layer.energy_pj for layer in self.layer_reports)

    @property
    def dequantization_shares(self) -> dict[str, float]:
        """Share of dequantization in cycles, energy and area."""
        area = math.fsum(c.area_um2 for c in self.component_reports if c.priced.dequantizes)
        energy = math.fsum(layer.dequantization_pj for layer in self.layer_reports)
        cycles = self.cycles_by_cause.get("dequantization", 0)
        parts = {
            "cycles": (cycles, self.cycles),
            "energy": (energy, self.energy_pj),
            "area": (area, self.area_um2),
        }
        return {name: part / whole if whole else 0.0 for name, (part, whole) in parts.items()}

    @cached_property
    def area_um2(self) -> float:
        """Area of the accelerator; DRAM and its interface are outside."""
        return math.fsum(component.area_um2 for component in self.component_reports)

    @property
    def energy_by_component_pj(self) -> dict[str, float]:
        """Dynamic energy and leakage together."""
        return {c.priced.name: c.energy_pj for c in self.component_reports}

    @property
    def area_by_component_um2(self) -> dict[str, float]:
        return {c.priced.name: c.area_um2 for c in self.component_reports if c.priced.silicon}

    @cached_property
    def energy_share_by_quality(self) -> dict[str, float]:
        """Quality -> share of the energy that rests on it."""
        return shares(
            (entry.quality, entry.energy_pj) for layer in self.layer_reports for entry in layer.entries
        )

    @cached_property
    def area_share_by_quality(self) -> dict[str, float]:
        """Quality -> share of the area that rests on it."""
        return shares((c.priced.area_quality, c.area_um2) for c in self.component_reports if c.priced.silicon)

    @cached_property
    def cycles_by_cause(self) -> dict[str, int]:
        """The cycle stack of the run: cause -> cycles; causes that nothing models are absent."""
        stacks = [layer.record.cycle_stack for layer in self.layer_reports]
        return {
            cause: sum(stack.get(cause, 0) for stack in stacks)
            for cause in STACK_KEYS
            if any(cause in stack for stack in stacks)
        }

    @cached_property
    def utilization(self) -> float:
        """Real MACs over what the array could have done, in all cycles of the layers that have MACs."""
        busy = [layer.record for layer in self.layer_reports if layer.record.macs]
        peak = sum(record.peak_macs_per_cycle * record.cycles for record in busy)
        return sum(record.macs for record in busy) / peak if peak else 0.0

    @property
    def layers(self) -> pd.DataFrame:
        """A row a layer."""
        return frames.layers(self)

    @property
    def components(self) -> pd.DataFrame:
        """A row a component."""
        return frames.components(self)

    @property
    def cycle_stack(self) -> pd.DataFrame:
        """A row a cause: cycles and share."""
        return frames.cycle_stack(self)

    @property
    def energy(self) -> pd.DataFrame:
        """A row a layer, component and event: count and energy. The tidy form that figures are drawn from."""
        return frames.energy(self)

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON-ready object; equal runs give equal objects."""
        return document.to_json(self)

    def to_csv(self, path: str | Path) -> None:
        """Write the layers, a row each. Raises InputError where ``path`` cannot be written."""
        files.write_csv(path, [self])

    def to_parquet(self, path: str | Path) -> None:
        """Write the layers, a row each; the JSON is in the file's metadata (``simulator_reports``)."""
        files.write_parquet(path, [self])

    def text(self, *, width: int | None = 120, color: bool = False, fold: bool = False) -> str:
        """The report as the command line prints it; ``width`` None: as wide as its tables are.

        ``fold`` joins layers that repeat block by block, and vector operations of one kind.
        """
        return text.report_text(self, width=width, color=color, fold=fold)


def make_report(
    record: Record,
    components: Sequence[Component],
    technology: Technology,
    *,
    clock_ghz: float,
    meta: Mapping[str, Any],
    layer_columns: Mapping[str, Sequence[object]] | None = None,
) -> Report:
    """Price ``components`` and enter the counts of ``record``.

    ``meta`` has the keys of ``META_KEYS``; ``layer_columns`` adds columns, one value a layer. Raises
    InputError where the technology lacks a price or a unit is too slow for the clock; ValueError where the
    record is at fault: a cycle stack that does not sum to its layer, a count without a component or event.
    """
    if set(meta) != set(META_KEYS):
        raise ValueError(f"meta must have exactly the keys {META_KEYS}, not {tuple(meta)}")
    columns = dict(layer_columns or {})
    for name, values in columns.items():
        if len(values) != len(record.layers):
            raise ValueError(f"column {name} has {len(values)} values for {len(record.layers)} layers")
    priced = {component.name: technology.price(component, clock_ghz) for component in components}
    if len(priced) != len(components):
        raise ValueError("two components of one name")
    check_clock(priced.values(), clock_ghz)
    layers = []
    for index, layer in enumerate(record.layers):
        check_layer(layer)
        entries = tuple(enter(layer, priced, 1.0 / clock_ghz))
        layers.append(LayerReport(layer, entries, {name: values[index] for name, values in columns.items()}))
    return Report(
        layer_reports=tuple(layers),
        component_reports=_by_component(layers, priced),
        technology=technology,
        clock_ghz=clock_ghz,
        meta={key: meta[key] for key in META_KEYS} | {"engine": meta["engine"] or record.engine},
    )


def _by_component(
    layers: Sequence[LayerReport], priced: Mapping[str, PricedComponent]
) -> tuple[ComponentReport, ...]:
    energies: dict[tuple[str, str], list[float]] = {}
    for layer in layers:
        for entry in layer.entries:
            energies.setdefault((entry.component, entry.event), []).append(entry.energy_pj)
    return tuple(
        ComponentReport(
            component,
            {event: math.fsum(energies.get((name, event), ())) for event in component.energy_pj},
            math.fsum(energies.get((name, "leakage"), ())),
        )
        for name, component in priced.items()
    )
