"""A report as rows, and as tidy DataFrames; pandas is loaded when a frame is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from simulator.report.report import LayerReport, Report


def layers(report: Report) -> pd.DataFrame:
    """A row a layer."""
    return _frame(layer_rows(report))


def layer_rows(report: Report) -> list[dict[str, Any]]:
    """A row a layer, the same columns in every row: a cause or operand that a layer lacks counts 0 in it."""
    reads = _keys(layer.record.dram_read_bytes for layer in report.layer_reports)
    writes = _keys(layer.record.dram_write_bytes for layer in report.layer_reports)
    return [_layer_row(report, layer, reads, writes) for layer in report.layer_reports]


def _layer_row(report: Report, layer: LayerReport, reads: list[str], writes: list[str]) -> dict[str, Any]:
    record = layer.record
    row: dict[str, Any] = {
        "name": record.name,
        "op": record.op,
        "m": record.m,
        "k": record.k,
        "n": record.n,
        "batch": record.batch,
        "macs": record.macs,
        "cycles": record.cycles,
        "compute_cycles": record.compute_cycles,
        "utilization": layer.utilization,
        "compute_utilization": layer.compute_utilization,
        "bound": layer.bound,
        "energy_pj": layer.energy_pj,
        "dequantization_pj": layer.dequantization_pj,
        "dram_read_bytes": layer.dram_read_bytes,
        "dram_write_bytes": layer.dram_write_bytes,
    }
    row |= {f"dram_read_bytes_{operand}": record.dram_read_bytes.get(operand, 0) for operand in reads}
    row |= {f"dram_write_bytes_{operand}": record.dram_write_bytes.get(operand, 0) for operand in writes}
    row |= {f"cycles_{cause}": record.cycle_stack.get(cause, 0) for cause in report.cycles_by_cause}
    return row | dict(layer.extras)


def components(report: Report) -> pd.DataFrame:
    """A row a component; the energy of an event that a component does not have is missing."""
    events = _keys(component.energy_by_event_pj for component in report.component_reports)
    rows = []
    for component in report.component_reports:
        priced = component.priced
        row: dict[str, Any] = {
            "component": priced.name,
            "kind": priced.kind,
            "count": priced.count,
            "area_um2": component.area_um2 if priced.silicon else None,
            "energy_pj": component.energy_pj,
            "leakage_energy_pj": component.leakage_pj,
        }
        row |= {f"energy_pj_{event}": component.energy_by_event_pj.get(event) for event in events}
        rows.append(row | {"quality": priced.quality, "source": priced.source})
    return _frame(rows)


def cycle_stack(report: Report) -> pd.DataFrame:
    """A row a cause."""
    total = report.cycles
    return _frame(
        {"cause": cause, "cycles": cycles, "share": cycles / total if total else 0.0}
        for cause, cycles in report.cycles_by_cause.items()
    )


def energy(report: Report) -> pd.DataFrame:
    """A row a layer, component and event; leakage has no count."""
    frame = _frame(
        {
            "layer": layer.record.name,
            "component": entry.component,
            "event": entry.event,
            "count": entry.counted,
            "energy_pj": entry.energy_pj,
            "quality": entry.quality,
        }
        for layer in report.layer_reports
        for entry in layer.entries
    )
    return frame.astype({"count": "Int64"}) if len(frame) else frame


def _keys(mappings: Iterable[Any]) -> list[str]:
    """All keys, in the order in which they are first met."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows))
