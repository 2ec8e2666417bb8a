"""Figures. Each is drawn by one function from a tidy DataFrame and comes back as a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from simulator.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = ("machine", "block", "cycles", "energy_pj", "sqnr_db")
EQUAL_AREA_COLUMNS = ("machine", "technology", "phase", "cycles", "energy_pj")
MARKERS = "osD^vP*X<>hd"
HUES = (*range(0, 20, 2), *range(1, 20, 2))
"""Of matplotlib's tab20: the ten strong colours first."""


def network_figure(table: pd.DataFrame) -> Figure:
    """What number formats cost a network: error by layer, and error of the output against cycles and energy.

    ``table`` has a row a machine and block: ``machine``, ``block`` (in the network's order, the last one ``output``,
    with the totals), ``cycles``, ``energy_pj``, ``sqnr_db``. Raises InputError: matplotlib or a column is missing.
    """
    _check(table, COLUMNS)
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    by_layer, by_cycles, by_energy = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    for index, (machine, rows) in enumerate(table.groupby("machine", sort=False)):
        color = colormaps["tab20"](HUES[index % len(HUES)])
        style = {"marker": MARKERS[index % len(MARKERS)], "color": color, "label": str(machine)}
        by_layer.plot(rows["block"], rows["sqnr_db"], markersize=5, linewidth=1, **style)
        output = rows[rows["block"] == "output"]
        by_cycles.plot(output["cycles"], output["sqnr_db"], linestyle="none", markersize=8, **style)
        by_energy.plot(
            output["energy_pj"] * 1e-12, output["sqnr_db"], linestyle="none", markersize=8, **style
        )
    by_layer.set(xlabel="written by", ylabel="SQNR (dB)", title="error, layer by layer")
    by_layer.tick_params(axis="x", rotation=40)
    for axes, unit, label in ((by_cycles, "", "cycles"), (by_energy, "J", "energy")):
        axes.set(xlabel=label, ylabel="SQNR of the output (dB)", title=f"error and {label}")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(unit))
    for axes in (by_layer, by_cycles, by_energy):
        axes.grid(alpha=0.3)
    figure.legend(*by_layer.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    return figure


def equal_area_figure(table: pd.DataFrame) -> Figure:
    """Time and energy of machines of equal area, against the first machine, one bar a technology.

    ``table`` has a row a machine, technology and phase: ``machine``, ``technology``, ``phase``, ``cycles``,
    ``energy_pj``; machines in the order in which they are drawn, from the top. Raises InputError: matplotlib or a
    column is missing.
    """
    _check(table, EQUAL_AREA_COLUMNS)
    from matplotlib.figure import Figure

    machines = list(dict.fromkeys(table["machine"]))
    technologies, phases = (list(dict.fromkeys(table[column])) for column in ("technology", "phase"))
    figure = Figure(figsize=(12, 1.5 + 0.33 * len(machines)), layout="constrained")
    panels = figure.subplots(1, 2 * len(phases), sharey=True, squeeze=False)[0]
    height = 0.8 / len(technologies)
    for index, (phase, quantity, what) in enumerate(
        (phase, *quantity) for phase in phases for quantity in (("cycles", "time"), ("energy_pj", "energy"))
    ):
        axes = panels[index]
        for place, technology in enumerate(technologies):
            rows = table[(table["technology"] == technology) & (table["phase"] == phase)].set_index("machine")
            ratios = rows[quantity] / rows[quantity][machines[0]]
            at = [machines.index(machine) + (place + 0.5) * height - 0.4 for machine in ratios.index]
            bars = axes.barh(at, ratios, height, color=f"C{place}", label=technology)
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7, bbox=behind)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(title=f"{phase}: {what}", xlabel=f"{what} / {what} of {machines[0]}")
        axes.margins(x=0.18)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(machines)), machines)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(technologies))
    return figure


def _check(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises InputError: matplotlib or a column is missing."""
    try:
        import_module("matplotlib")
    except ImportError:
        raise InputError("figures need matplotlib", allowed="pip install matplotlib") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError("the table lacks a column", value=missing[0], allowed=", ".join(columns))
