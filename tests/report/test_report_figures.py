"""Figures: drawn from a tidy table, one mark a row."""

import io
import sys

import pandas as pd
import pytest

from simulator.errors import InputError
from simulator.report.figures import equal_area_figure, network_figure

TABLE = pd.DataFrame(
    [
        (machine, block, cycles * (1 + index), 1e6 * cycles, 30.0 - cycles - index)
        for index, machine in enumerate(("INT8", "FP8", *(f"M{number}" for number in range(22))))
        for block, cycles in (("layers.0", 4), ("layers.1", 5), ("output", 12))
    ],
    columns=["machine", "block", "cycles", "energy_pj", "sqnr_db"],
)


def test_every_machine_is_a_line_and_a_point_in_each_panel():
    by_layer, by_cycles, by_energy = network_figure(TABLE).axes
    assert [line.get_label() for line in by_layer.get_lines()] == list(TABLE["machine"].unique())
    assert list(by_layer.get_lines()[1].get_ydata()) == [25.0, 24.0, 17.0]
    assert [tuple(line.get_xydata()[0]) for line in by_cycles.get_lines()[:2]] == [(12, 18), (24, 17)]
    assert [tuple(line.get_xydata()[0]) for line in by_energy.get_lines()[:2]] == [(12e-6, 18), (12e-6, 17)]


def test_machines_look_different_from_each_other():
    lines = network_figure(TABLE).axes[0].get_lines()
    assert len({(line.get_marker(), line.get_color()) for line in lines}) == len(lines)


def test_a_figure_can_be_written_without_a_screen():
    file = io.BytesIO()
    network_figure(TABLE).savefig(file, format="svg")
    assert b"<svg" in file.getvalue()


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"lacks a column \(found 'energy_pj'\)"):
        network_figure(TABLE.drop(columns="energy_pj"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        network_figure(TABLE)


RACE = pd.DataFrame(
    [
        (machine, technology, phase, cycles * (1 + place), 10.0 * cycles / (1 + place))
        for place, technology in enumerate(("asap7", "sg13g2"))
        for phase in ("prefill", "decode")
        for machine, cycles in (("INT8", 8), ("FP8", 12), ("NVFP4", 6))
    ],
    columns=["machine", "technology", "phase", "cycles", "energy_pj"],
)


def test_a_race_is_drawn_against_its_first_machine():
    figure = equal_area_figure(RACE)
    assert [axes.get_title() for axes in figure.axes] == [
        "prefill: time",
        "prefill: energy",
        "decode: time",
        "decode: energy",
    ]
    for axes in figure.axes:
        assert [container.get_label() for container in axes.containers] == ["asap7", "sg13g2"]
        for bars in axes.containers:
            assert [bar.get_width() for bar in bars] == [1, 1.5, 0.75]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["INT8", "FP8", "NVFP4"]


def test_a_race_without_a_column_is_refused():
    with pytest.raises(InputError, match=r"lacks a column \(found 'phase'\)"):
        equal_area_figure(RACE.drop(columns="phase"))
