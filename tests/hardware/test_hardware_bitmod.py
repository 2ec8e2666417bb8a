"""The published costs of BitMoD's PE: Table X of the paper, tile by tile."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.arch import load_accelerator
from simulator.errors import InputError
from simulator.formats import get_format
from simulator.hardware import load_technology
from simulator.hardware.cost import PricedComponent

FP16 = get_format("fp16")
PAIRS = [
    (get_format(name), FP16)
    for name in ("bitmod_fp4_g128", "bitmod_fp3_g128", "int6_g128_si8", "int8_g128_si8")
]


def priced() -> dict[str, PricedComponent]:
    pe = load_accelerator("bitmod").element
    technology = load_technology("bitmod_28nm")
    parts = pe.hardware(weight_lines=32, activation_lines=32, stationary="outputs", doubled=True, pairs=PAIRS)
    return {component.name: technology.price(component) for component in parts}


def test_sixteen_tiles_have_the_published_area() -> None:
    """97,090 + 2,419 um2 each."""
    costs = priced()
    area = sum(cost.count * cost.area_um2 for cost in costs.values())
    assert area == pytest.approx(16 * (97_090 + 2_419))


@pytest.mark.parametrize(("weights", "cycles"), [("bitmod_fp4", 2), ("int6", 3), ("int8", 4)])
def test_a_busy_tile_has_the_published_power(weights: str, cycles: int) -> None:
    """37.5 + 1.86 mW at 1 GHz: a step of 64 PEs, and what enters a quarter of a row's four tiles in it."""
    costs = priced()
    steps = 64 * costs["pe"].energy_pj[f"step {weights}"]
    encoded = 8 * 4 * costs["weight_encoder"].energy_pj[f"encode {weights}"] / 4
    assert (steps + encoded) / cycles == pytest.approx(37.5 + 1.86)


def test_other_parameters_than_the_published_are_sums_of_parts() -> None:
    pe = load_accelerator("bitmod", {"pe.guard_bits": 4}).element
    (found, *_) = pe.hardware(
        weight_lines=32, activation_lines=32, stationary="outputs", doubled=True, pairs=PAIRS
    )
    assert load_technology("bitmod_28nm").price(found).area_quality == "estimated"


def test_a_row_of_zero_says_where_its_unit_is_counted(tmp_path: Path) -> None:
    header = "kind,params,quantity,event,value,node_nm,vdd,temperature_c,quality,source,note\n"
    table = tmp_path / "unit.csv"
    table.write_text(f"{header}unit,,area_um2,,0,45,,,published,a paper,in the row of another unit\n")
    assert load_technology(table).constant("unit", {}, "area_um2").value == 0
    for said in ("published,a paper,", "synthesised,gates,unit: 0 cells"):
        table.write_text(f"{header}unit,,area_um2,,0,45,,,{said}\n")
        with pytest.raises(InputError, match="above zero"):
            load_technology(table)
