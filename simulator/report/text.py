"""A report for the eye: what the command line prints, into a terminal or into a pipe."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from simulator.errors import one_line
from simulator.report.table import Column, text_table

if TYPE_CHECKING:
    from simulator.report.report import LayerReport, Report

_PROSE_WIDTH = 120
_TITLES = {"weight_sqnr_db": "SQNR dB"}
"""Short titles of the columns that a caller adds."""


def report_text(report: Report, *, width: int | None = 120, color: bool = False, fold: bool = False) -> str:
    """Heading, a row a layer, the cycle stack, a row a component, shares by quality, the technology, notes.

    ``width`` None: as wide as the tables are. ``fold``: blocks that repeat are told once, with how often, and
    vector operations have one row a kind.
    """
    lines = [
        *_heading(report),
        "",
        *_layer_table(report, fold, width, color),
        "",
        *_labelled("cycle stack", _shares(_stack_shares(report)), width),
        "",
        *_component_table(report, width, color),
        "",
        *_labelled("dequantization", _shares(report.dequantization_shares), width),
        *_labelled("energy rests on", _shares(report.energy_share_by_quality), width),
        *_labelled("area rests on", _shares(report.area_share_by_quality), width),
        *_labelled("technology", _technology(report), width),
        *_notes([report], width),
    ]
    return "\n".join(lines) + "\n"


def compare_text(reports: Sequence[Report], *, width: int | None = 120, color: bool = False) -> str:
    """Several reports side by side, a row each; ratios are to the first. "estimated": share of the energy."""
    workloads = dict.fromkeys(str(report.meta["workload"]) for report in reports)
    first = one_line(str(reports[0].meta["arch"]))
    technologies = {report.technology.name: report for report in reports}
    lines = [
        f"{one_line(', '.join(workloads))}, {len(reports)} accelerators; ratios to {first}",
        *dict.fromkeys(_run_line(report) for report in reports),
        "",
        *_comparison_table(reports, width, color),
        "",
    ]
    if len(technologies) > 1:
        lines.append("Different technologies: the energies and areas above do not compare.")
    for report in technologies.values():
        lines += _labelled("technology", _technology(report), width)
    return "\n".join([*lines, *_notes(reports, width)]) + "\n"


def _heading(report: Report) -> list[str]:
    meta = report.meta
    phase = ", ".join(f"{name} {value}" for name, value in meta["phase"].items() if value is not None)
    seconds = report.latency_s
    power = f", {quantity(report.energy_pj * 1e-12 / seconds, 'W')} on average" if seconds else ""
    return [
        one_line(f"{meta['workload']} on {meta['arch']}" + (f" ({phase})" if phase else "")),
        _run_line(report),
        f"{report.cycles:,} cycles = {quantity(seconds, 's')} at {report.clock_ghz:g} GHz, "
        f"{quantity(report.energy_pj * 1e-12, 'J')}{power}, {report.area_um2 / 1e6:#.4g} mm2, "
        f"utilization {report.utilization:.1%}",
    ]


def _run_line(report: Report) -> str:
    meta = report.meta
    formats = ", ".join(f"{name} {value}" for name, value in meta["formats"].items() if value is not None)
    return f"{formats}; weight values {meta['weight_values']}; {meta['engine']} engine"


class _Row(NamedTuple):
    """A line of the table of layers; a heading has no layers."""

    name: str
    op: str = ""
    layers: Sequence[LayerReport] = ()
    shape: bool = True


def _layer_table(report: Report, fold: bool, width: int | None, color: bool) -> list[str]:
    extras = list(dict.fromkeys(name for layer in report.layer_reports for name in layer.extras))
    columns = [
        Column("layer", left=True),
        Column("op", left=True, leave_out=1),
        Column("m"),
        *(Column(size, gap=1) for size in ("k", "n", "batch")),
        Column("cycles"),
        Column("share", leave_out=3),
        Column("util"),
        Column("DRAM"),
        Column("energy"),
        Column("bound", left=True, leave_out=2),
        *(Column(_TITLES.get(name, name)) for name in extras),
    ]
    total = [
        f"total of {len(report.layer_reports)}",
        *[""] * 5,
        f"{report.cycles:,}",
        "100.0%" if report.cycles else "-",
        f"{report.utilization:.1%}",
        quantity(_moved(report.layer_reports), "B"),
        quantity(report.energy_pj * 1e-12, "J"),
    ]
    products, vectors = _rows(report, fold)
    sections = [[_cells(row, report, extras) for row in rows] for rows in (products, vectors) if rows]
    return text_table(columns, [*sections, [total]], width=width, color=color)


def _cells(row: _Row, report: Report, extras: Sequence[str]) -> list[str]:
    layers = row.layers
    if not layers:
        return [row.name]
    cycles = sum(layer.record.cycles for layer in layers)
    first = layers[0].record
    return [
        row.name,
        row.op,
        *(str(size) if row.shape else "" for size in (first.m, first.k, first.n, first.batch)),
        f"{cycles:,}",
        _percent(cycles, report.cycles),
        _joint_utilization(layers),
        quantity(_moved(layers), "B"),
        quantity(sum(layer.energy_pj for layer in layers) * 1e-12, "J"),
        "/".join(dict.fromkeys(layer.bound or "-" for layer in layers)),
        *(_range([layer.extras.get(name) for layer in layers], name) for name in extras),
    ]


def _rows(report: Report, fold: bool) -> tuple[list[_Row], list[_Row]]:
    """Rows of matrix products, and of vector operations where these stand apart."""
    if not fold:
        return [_Row(one.record.name, one.record.op, [one]) for one in report.layer_reports], []
    products: dict[tuple[object, ...], list[LayerReport]] = {}
    vectors: dict[str, list[LayerReport]] = {}
    for layer in report.layer_reports:
        record = layer.record
        if record.macs:
            pattern = re.sub(r"\d+", "*", record.name, count=1)
            key = (pattern, record.op, record.m, record.k, record.n, record.batch)
            products.setdefault(key, []).append(layer)
        else:
            vectors.setdefault(record.op, []).append(layer)
    return _blocks(products), [
        _Row(f"{op} x{len(layers)}" if len(layers) > 1 else layers[0].record.name, "vector", layers, False)
        for op, layers in vectors.items()
    ]


def _blocks(products: Mapping[tuple[object, ...], list[LayerReport]]) -> list[_Row]:
    """Products that occur in every block stand under a heading such as ``layers.* x6``."""
    rows = []
    heading = ""
    for (pattern, *_), layers in products.items():
        record = layers[0].record
        head, _, tail = str(pattern).partition("*.")
        block = f"{head}* x{len(layers)}" if len(layers) > 1 and tail else ""
        if block and block != heading:
            rows.append(_Row(block))
        heading = block
        alone = record.name if len(layers) == 1 else f"{pattern} x{len(layers)}"
        rows.append(_Row(f"  {tail}" if block else alone, record.op, layers))
    return rows


def _moved(layers: Iterable[LayerReport]) -> int:
    """Bytes to and from DRAM."""
    return sum(layer.dram_read_bytes + layer.dram_write_bytes for layer in layers)


def _joint_utilization(layers: Sequence[LayerReport]) -> str:
    macs = sum(layer.record.macs for layer in layers)
    peak = sum(layer.record.peak_macs_per_cycle * layer.record.cycles for layer in layers)
    return f"{macs / peak:.1%}" if macs else "-"


def _range(values: Sequence[object], name: str) -> str:
    """One value, or the lowest and the highest of several: ``16.4..17.9``."""
    known = [value for value in values if value is not None]
    numbers = [value for value in known if isinstance(value, int | float)]
    if not known:
        return "-"
    ends = [min(numbers), max(numbers)] if len(numbers) == len(known) else known
    digits = ".1f" if name.endswith("_db") else ".4g"
    texts = list(dict.fromkeys(format(end, digits) if isinstance(end, float) else str(end) for end in ends))
    return "..".join([texts[0], *texts[1:][-1:]])


def _stack_shares(report: Report) -> dict[str, float]:
    total = report.cycles
    return {cause: cycles / total for cause, cycles in report.cycles_by_cause.items()} if total else {}


def _component_table(report: Report, width: int | None, color: bool) -> list[str]:
    columns = [
        Column("component", left=True),
        Column("kind", left=True, leave_out=1),
        *(Column(title) for title in ("count", "area", "share", "dynamic", "leakage", "energy", "share")),
        Column("quality", left=True),
    ]
    rows = []
    for component in report.component_reports:
        priced = component.priced
        dynamic = component.energy_pj - component.leakage_pj
        rows.append(
            [
                priced.name,
                priced.kind,
                f"{priced.count:,}",
                f"{component.area_um2 / 1e6:#.4g} mm2" if priced.silicon else "outside",
                _percent(component.area_um2, report.area_um2) if priced.silicon else "",
                quantity(dynamic * 1e-12, "J"),
                quantity(component.leakage_pj * 1e-12, "J") if priced.silicon else "outside",
                quantity(component.energy_pj * 1e-12, "J"),
                _percent(component.energy_pj, report.energy_pj),
                priced.quality,
            ]
        )
    return text_table(columns, [rows], width=width, color=color)


def _comparison_table(reports: Sequence[Report], width: int | None, color: bool) -> list[str]:
    titles = ["cycles", "latency", "speed", "energy", "ratio", "estimated", "area", "ratio", "util", "DRAM"]
    base = reports[0]
    rows = [
        [
            str(report.meta["arch"]),
            str(report.meta["formats"].get("weights")),
            f"{report.cycles:,}",
            quantity(report.latency_s, "s"),
            _ratio(base.latency_s, report.latency_s),
            quantity(report.energy_pj * 1e-12, "J"),
            _ratio(report.energy_pj, base.energy_pj),
            f"{report.energy_share_by_quality.get('estimated', 0.0):.0%}",
            f"{report.area_um2 / 1e6:#.4g} mm2",
            _ratio(report.area_um2, base.area_um2),
            f"{report.utilization:.1%}",
            quantity(_moved(report.layer_reports), "B"),
        ]
        for report in reports
    ]
    columns = [
        Column("arch", left=True),
        Column("weights", left=True, leave_out=1),
        *(Column(title) for title in titles),
    ]
    return text_table(columns, [rows], width=width, color=color)


def _technology(report: Report) -> str:
    return f"{report.technology.name}: {report.technology.description}".rstrip(": ")


def _notes(reports: Sequence[Report], width: int | None) -> list[str]:
    notes = dict.fromkeys(note for report in reports for note in report.meta["config"].get("notes", ()))
    return [line for note in notes for line in _labelled("note", note, width)]


def _shares(shares: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_percent(share, 1.0)}" for name, share in shares.items()) or "nothing"


def _labelled(label: str, text: str, width: int | None) -> list[str]:
    """``label`` and a text that may take several lines, all indented alike."""
    return textwrap.wrap(
        one_line(text),
        width=max(60, _PROSE_WIDTH if width is None else width),
        initial_indent=f"{label:<17}",
        subsequent_indent=" " * 17,
        break_long_words=False,
        break_on_hyphens=False,
    )


_PREFIXES = {12: "T", 9: "G", 6: "M", 3: "k", 0: "", -3: "m", -6: "u", -9: "n", -12: "p"}


def quantity(value: float, unit: str) -> str:
    """Four digits and a decimal prefix: ``12.35 mJ``, ``1.049 MB`` (MB is 1e6 bytes)."""
    if value == 0:
        return f"0 {unit}"
    # Half a unit in the fourth digit below a power of 1000 is printed as that power: 1.000 k, not 1000.
    power = next((power for power in _PREFIXES if abs(value) >= 0.99995 * 10.0**power), -12)
    digits = f"{value / 10.0**power:#.4g}".rstrip(".")
    if unit == "B" and power == 0:
        digits = f"{value:g}"
    return f"{digits} {_PREFIXES[power]}{unit}"


def _percent(part: float, whole: float) -> str:
    if not whole:
        return "-"
    return "<0.1%" if 0 < part / whole < 0.0005 else f"{part / whole:.1%}"


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3g}x" if base else "-"
