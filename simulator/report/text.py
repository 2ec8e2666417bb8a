"""A report for the eye: what the command line prints, in a terminal of 120 columns or into a pipe."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

    from simulator.report.report import LayerReport, Report


def report_text(report: Report, *, width: int = 120, color: bool = False, fold: bool = False) -> str:
    """Heading, a row a layer, the cycle stack, a row a component, shares by quality, the technology."""

    def write(console: Console) -> None:
        for line in _heading(report):
            console.print(line)
        console.print()
        console.print(_layer_table(report, fold))
        console.print("\ncycle stack  " + _stack_line(report) + "\n")
        console.print(_component_table(report))
        console.print("\nenergy rests on  " + _shares_line(report.energy_share_by_quality))
        console.print("area rests on    " + _shares_line(report.area_share_by_quality))
        console.print(
            f"technology       {report.technology.name}: {report.technology.description}".rstrip(": ")
        )

    return _render(write, width, color)


def compare_text(reports: Sequence[Report], *, width: int = 120, color: bool = False) -> str:
    """Several reports side by side, a row each; ratios are to the first. "estimated": share of the energy."""

    def write(console: Console) -> None:
        first = reports[0].meta
        workloads = dict.fromkeys(str(report.meta["workload"]) for report in reports)
        console.print(f"{', '.join(workloads)}, {len(reports)} accelerators; ratios to {first['arch']}\n")
        console.print(_comparison_table(reports))
        console.print()
        technologies = {report.technology.name: report.technology for report in reports}
        if len(technologies) > 1:
            console.print("Different technologies: the energies and areas above do not compare.")
        for technology in technologies.values():
            console.print(f"technology  {technology.name}: {technology.description}".rstrip(": "))

    return _render(write, width, color)


def _heading(report: Report) -> list[str]:
    meta = report.meta
    formats = ", ".join(f"{name} {value}" for name, value in meta["formats"].items() if value is not None)
    phase = ", ".join(f"{name} {value}" for name, value in meta["phase"].items() if value is not None)
    seconds = report.latency_s
    power = f", {quantity(report.energy_pj * 1e-12 / seconds, 'W')} on average" if seconds else ""
    return [
        f"{meta['workload']} on {meta['arch']}" + (f" ({phase})" if phase else ""),
        f"{formats}; weight values {meta['weight_values']}; {meta['engine']} engine",
        f"{report.cycles:,} cycles = {quantity(seconds, 's')} at {report.clock_ghz:g} GHz, "
        f"{quantity(report.energy_pj * 1e-12, 'J')}{power}, {report.area_um2 / 1e6:#.4g} mm2, "
        f"utilization {report.utilization:.1%}",
    ]


def _layer_table(report: Report, fold: bool) -> Table:
    extras = list(dict.fromkeys(name for layer in report.layer_reports for name in layer.extras))
    batched = any(layer.record.batch != 1 for layer in report.layer_reports)
    sizes = ("m", "k", "n", "batch") if batched else ("m", "k", "n")
    numbers = _right(*sizes, "cycles", "util", "DRAM", "energy")
    columns: list[Column | str] = ["layer", "op", *numbers, "bound", *_right(*extras)]
    rows = _rows(report, fold)
    table = _table(columns, widest=max((len(name) for name, _ in rows), default=0))
    for name, layers in rows:
        first = layers[0].record
        table.add_row(
            name,
            first.op,
            *(str(getattr(first, size)) for size in sizes),
            f"{sum(layer.record.cycles for layer in layers):,}",
            _joint_utilization(layers),
            quantity(_moved(layers), "B"),
            quantity(sum(layer.energy_pj for layer in layers) * 1e-12, "J"),
            "/".join(dict.fromkeys(layer.bound or "-" for layer in layers)),
            *(_joint_extra(layers, extra) for extra in extras),
        )
    table.add_section()
    table.add_row(
        f"total of {len(report.layer_reports)}",
        *[""] * (1 + len(sizes)),
        f"{report.cycles:,}",
        f"{report.utilization:.1%}",
        quantity(_moved(report.layer_reports), "B"),
        quantity(report.energy_pj * 1e-12, "J"),
        style="bold",
    )
    return table


def _rows(report: Report, fold: bool) -> list[tuple[str, list[LayerReport]]]:
    """(name, layers) of each row: one layer, or all that differ in nothing but a number in the name."""
    if not fold:
        return [(layer.record.name, [layer]) for layer in report.layer_reports]
    groups: dict[object, list[LayerReport]] = {}
    for layer in report.layer_reports:
        record = layer.record
        pattern = re.sub(r"\d+", "*", record.name, count=1)
        groups.setdefault((pattern, record.op, record.m, record.k, record.n, record.batch), []).append(layer)
    rows = []
    for layers in groups.values():
        name = layers[0].record.name
        if len(layers) > 1:
            name = re.sub(r"\d+", "*", name, count=1) + f" x{len(layers)}"
        rows.append((name, layers))
    return rows


def _moved(layers: Iterable[LayerReport]) -> int:
    """Bytes to and from DRAM."""
    return sum(layer.dram_read_bytes + layer.dram_write_bytes for layer in layers)


def _joint_utilization(layers: list[LayerReport]) -> str:
    macs = sum(layer.record.macs for layer in layers)
    peak = sum(layer.record.peak_macs_per_cycle * layer.record.cycles for layer in layers)
    return f"{macs / peak:.1%}" if macs else "-"


def _joint_extra(layers: list[LayerReport], name: str) -> str:
    values = list(dict.fromkeys(layer.extras.get(name) for layer in layers))
    return "/".join(_value(value) for value in values[:2]) + ("/..." if len(values) > 2 else "")


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stack_line(report: Report) -> str:
    total = report.cycles
    return "  ".join(
        f"{cause} {cycles / total:.1%}" for cause, cycles in report.cycles_by_cause.items() if total
    )


def _component_table(report: Report) -> Table:
    numbers = _right("count", "area", "share", "dynamic", "leakage", "energy", "share")
    table = _table(["component", "kind", *numbers, "quality"])
    for component in report.component_reports:
        priced = component.priced
        dynamic = component.energy_pj - component.leakage_pj
        table.add_row(
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
        )
    return table


def _comparison_table(reports: Sequence[Report]) -> Table:
    weights = [str(report.meta["formats"].get("weights")) for report in reports]
    differ = len(set(weights)) > 1
    base = reports[0]
    table = _table(
        [
            "arch",
            *(["weights"] if differ else []),
            *_right("cycles", "latency", "speed", "energy", "ratio", "estimated"),
            *_right("area", "ratio", "util", "DRAM"),
        ],
        widest=max(len(str(report.meta["arch"])) for report in reports),
    )
    for report, weight in zip(reports, weights, strict=True):
        table.add_row(
            str(report.meta["arch"]),
            *([weight] if differ else []),
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
        )
    return table


def _shares_line(shares: dict[str, float]) -> str:
    return "  ".join(f"{quality} {share:.1%}" for quality, share in shares.items())


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
    return f"{part / whole:.1%}" if whole else "-"


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.3g}x" if base else "-"


def _right(*names: str) -> tuple[Column, ...]:
    from rich.table import Column

    return tuple(Column(name, justify="right") for name in names)


def _table(columns: list[Column | str], widest: int = 0) -> Table:
    """An open table; its first column, names, keeps ``widest`` characters when space is short."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in table.columns:
        column.no_wrap = True
    table.columns[0].min_width = widest
    return table


def _render(write: Callable[[Console], None], width: int, color: bool) -> str:
    """What ``write`` prints. Names of layers are text, not markup."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    write(console)
    return _without_trailing_spaces(buffer.getvalue().split("\n"))


def _without_trailing_spaces(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)
