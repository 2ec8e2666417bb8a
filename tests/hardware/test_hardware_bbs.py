"""The published costs of bit-serial PEs: the table of BBS."""

from __future__ import annotations

import pytest

import simulator as sim
from simulator.arch import load_accelerator
from simulator.formats import get_format
from simulator.hardware import load_technology

PUBLISHED = {
    "stripes": (532.8, 0.37),
    "pragmatic": (923.1, 0.51),
    "bitlet": (1665.6, 0.57),
    "bitwave": (702.4, 0.49),
    "bitvert": (739.6, 0.45),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_pes_have_the_published_area_and_power(name: str) -> None:
    accelerator = load_accelerator(name)
    pe, technology = accelerator.element, load_technology("bbs_28nm")
    pairs = [(get_format(w), get_format(a)) for w in pe.weights for a in pe.activations]
    cost = technology.price(
        pe.hardware(weight_lines=32, activation_lines=16, stationary="outputs", doubled=True, pairs=pairs)[0]
    )
    area, power = PUBLISHED[name]
    assert cost.area_um2 == area
    for pair in pairs:
        made = pe.activity(*pair, stationary="outputs")
        busy = [cost.energy_pj[event] for component, event in made["busy"] if component == "pe"]
        assert sum(busy) * accelerator.clock_ghz == pytest.approx(power)


def test_other_parameters_than_the_published_are_sums_of_parts() -> None:
    found = load_accelerator("stripes", {"pe.lanes": 16}).element.hardware(
        weight_lines=1, activation_lines=1, stationary="outputs", doubled=True, pairs=[]
    )
    assert load_technology("bbs_28nm").price(found[0]).area_quality == "estimated"


def test_a_run_pays_a_pe_its_published_power_for_every_busy_cycle() -> None:
    """2 x 4 folds of 32 steps of 6 columns; waiting and idle PEs cost nothing."""
    report = sim.gemm(64, 512, 64, arch="bitvert", technology="bbs_28nm")
    busy = 2 * 4 * 32 * 6 * 32 * 16
    assert report.layer_reports[0].record.counts["pe", "cycle bbs_avg2 x int8"] == busy
    assert report.energy_by_component_pj["pe"] == pytest.approx(busy * 0.45 / 0.8)
