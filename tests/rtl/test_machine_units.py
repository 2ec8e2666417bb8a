"""Which units price an accelerator."""

import pytest

from simulator.arch import accelerator_names, components, load_accelerator
from simulator.hardware import load_technology
from simulator.rtl.machine import units_of


@pytest.mark.parametrize("name", accelerator_names())
def test_logic_is_units_or_made_of_parts(name):
    """Whole where the shipped table prices it whole, else of parts whose kinds are there."""
    machine = load_accelerator(name)
    units, rest = units_of(machine)
    of_parts = {unit.components()[0].kind for unit in units if unit.is_part}
    for component in components(machine):
        if component.kind in ("sram", "dram"):
            continue
        if component.name in rest:
            assert {part.kind for part in component.parts} <= of_parts
        else:
            priced = load_technology("asap7").price(component)
            assert priced.quality == "synthesised"
            assert any(each.kind == component.kind for unit in units for each in unit.components())


def test_a_change_of_the_pe_is_no_default_unit():
    units, rest = units_of(load_accelerator("systolic_os_8x8", {"pe.accumulator": "int29"}))
    assert "pe" in rest
    assert not any(unit.name.startswith("mac-") for unit in units)
    assert {"int_multiplier", "int_adder"} <= {unit.components()[0].kind for unit in units if unit.is_part}
