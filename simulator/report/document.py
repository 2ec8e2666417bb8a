"""A report as one JSON object: ``simulator run --json``.

The keys are those of the command's documentation; ``schema_version`` changes when their meaning does.
``costs`` has every constant that the run was priced with: ``simulator explain`` needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simulator.hardware import PricedComponent, Technology

if TYPE_CHECKING:
    from simulator.report.report import LayerReport, Report

SCHEMA_VERSION = 1


def to_json(report: Report) -> dict[str, Any]:
    """The whole report in plain dicts, lists, strings and numbers."""
    meta = report.meta
    return {
        "schema_version": SCHEMA_VERSION,
        "version": meta["version"],
        "workload": meta["workload"],
        "arch": meta["arch"],
        "technology": report.technology.name,
        "engine": meta["engine"],
        "clock_ghz": report.clock_ghz,
        "phase": meta["phase"],
        "formats": meta["formats"],
        "weight_values": meta["weight_values"],
        "seed": meta["seed"],
        "cycles": int(report.cycles),
        "latency_s": report.latency_s,
        "energy_pj": report.energy_pj,
        "area_um2": report.area_um2,
        "energy_by_component_pj": report.energy_by_component_pj,
        "area_by_component_um2": report.area_by_component_um2,
        "energy_share_by_quality": report.energy_share_by_quality,
        "area_share_by_quality": report.area_share_by_quality,
        "cycle_stack": _whole(report.cycles_by_cause),
        "utilization": report.utilization,
        "layers": [_layer(layer) for layer in report.layer_reports],
        "config": meta["config"],
        "costs": costs(report.technology, [c.priced for c in report.component_reports]),
    }


def _layer(layer: LayerReport) -> dict[str, Any]:
    record = layer.record
    return {
        "name": record.name,
        "op": record.op,
        "m": int(record.m),
        "k": int(record.k),
        "n": int(record.n),
        "batch": int(record.batch),
        "macs": int(record.macs),
        "cycles": int(record.cycles),
        "compute_cycles": int(record.compute_cycles),
        "utilization": layer.utilization,
        "compute_utilization": layer.compute_utilization,
        "bound": layer.bound,
        "dram_read_bytes": int(layer.dram_read_bytes),
        "dram_write_bytes": int(layer.dram_write_bytes),
        "dram_read_bytes_by_operand": _whole(record.dram_read_bytes),
        "dram_write_bytes_by_operand": _whole(record.dram_write_bytes),
        "energy_pj": layer.energy_pj,
        "dequantization_pj": layer.dequantization_pj,
        "cycle_stack": _whole(record.cycle_stack),
        **{name: _finite(value) for name, value in layer.extras.items()},
    }


def _whole(counts: Mapping[str, int]) -> dict[str, int]:
    """Plain integers, whatever kind of integer the engine counted with."""
    return {name: int(count) for name, count in counts.items()}


def _finite(value: object) -> object:
    """JSON has no infinity and no NaN: an error of exactly zero has no ratio, which is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def costs(technology: Technology, priced: list[PricedComponent]) -> dict[str, Any]:
    """Every constant with its provenance, component by component."""
    return {
        "technology": {
            "name": technology.name,
            "description": technology.description,
            "node_nm": technology.node_nm,
            "vdd": technology.vdd,
        },
        "components": [_component(component) for component in priced],
    }


def _component(priced: PricedComponent) -> dict[str, Any]:
    return {
        "component": priced.name,
        "kind": priced.kind,
        "count": priced.count,
        "copies": priced.copies,
        "quality": priced.quality,
        "area_um2": priced.area_um2 if priced.silicon else None,
        "leakage_nw": priced.leakage_nw if priced.silicon else None,
        "delay_ps": priced.delay_ps,
        "events": {
            event: {
                "energy_pj": energy,
                "quality": priced.energy_quality[event],
                "sum_of": [
                    {"part": part, "event": part_event, "times": times}
                    for (part, part_event), times in priced.events.get(event, {}).items()
                ],
            }
            for event, energy in priced.energy_pj.items()
        },
        "constants": [
            {
                "part": used.part,
                "count": used.count,
                "kind": used.constant.kind,
                "params": dict(used.constant.params),
                "quantity": used.constant.quantity,
                "event": used.constant.event,
                "value": used.constant.value,
                "unit": used.constant.unit,
                "quality": used.constant.quality,
                "source": used.constant.source,
                "formula": used.constant.formula,
                "rows": list(used.constant.origins),
            }
            for used in priced.constants
        ],
    }
