"""On-chip memories: the macros of CACTI as CACTI gives them, and memories built of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.hardware import Component, PricedComponent, load_technology

# CACTI 7 through PyPI hwcomponents-cacti, run apart from the rows that are shipped: 45 nm, ITRS
# low-standby-power cells at 300 K, one read-write port, one bank, no ECC, optimised for leakage; energies per
# access of full width.
GOLDEN = Path(__file__).parent / "data" / "cacti_45nm.csv"


def sram(**params: object) -> PricedComponent:
    return load_technology("published_45nm").price(Component("buffer", "sram", params))


def test_single_macros_are_what_cacti_says() -> None:
    with open(GOLDEN, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    for row in rows:
        priced = sram(bytes=int(row["bytes"]), width_bits=int(row["width_bits"]))
        assert priced.area_um2 == pytest.approx(float(row["area_um2"]), rel=1e-8)
        assert priced.leakage_nw == pytest.approx(float(row["leak_mW"]) * 1e6, rel=1e-8)
        assert priced.energy_pj["read"] == pytest.approx(float(row["read_pJ"]), rel=1e-8)
        assert priced.energy_pj["write"] == pytest.approx(float(row["write_pJ"]), rel=1e-8)
        assert priced.delay_ps == pytest.approx(float(row["access_ns"]) * 1e3, rel=1e-8)
        assert priced.quality == "compiled"


def test_banks_multiply_area_and_leakage_and_an_access_goes_to_one() -> None:
    bank, memory = sram(bytes=65536, width_bits=512), sram(bytes=8 * 65536, width_bits=512, banks=8)
    assert memory.area_um2 == pytest.approx(8 * bank.area_um2)
    assert memory.leakage_nw == pytest.approx(8 * bank.leakage_nw)
    assert memory.energy_pj == bank.energy_pj
    assert memory.delay_ps == bank.delay_ps
    assert memory.quality == "compiled"


def test_wide_memory_is_macros_side_by_side_and_an_access_goes_to_all() -> None:
    macro, memory = sram(bytes=8192, width_bits=512), sram(bytes=8 * 8192, width_bits=4096)
    assert memory.area_um2 == pytest.approx(8 * macro.area_um2)
    assert memory.energy_pj["read"] == pytest.approx(8 * macro.energy_pj["read"])
    assert memory.delay_ps == macro.delay_ps
    assert "8 macros side by side" in memory.constants[0].constant.formula


def test_memory_above_the_largest_macro_is_stacked_and_an_access_goes_to_one() -> None:
    macro, memory = sram(bytes=16 << 20, width_bits=256), sram(bytes=64 << 20, width_bits=256)
    assert memory.area_um2 == pytest.approx(4 * macro.area_um2)
    assert memory.energy_pj == macro.energy_pj
    assert "4 macros on top of each other" in memory.constants[0].constant.formula


def test_memory_shallower_than_the_smallest_macro_pays_for_all_of_it() -> None:
    smallest, memory = sram(bytes=2048, width_bits=512), sram(bytes=1536, width_bits=512)
    assert memory.area_um2 == smallest.area_um2
    assert memory.energy_pj == smallest.energy_pj
    assert memory.quality == "estimated"
    assert "shallowest macro has 32, the rest is unused" in memory.constants[0].constant.formula


def test_memory_narrower_than_the_smallest_macro_pays_for_all_of_it() -> None:
    smallest, memory = sram(bytes=2048, width_bits=16), sram(bytes=1024, width_bits=8)
    assert memory.area_um2 == smallest.area_um2
    assert memory.quality == "estimated"
    assert "narrowest macro has 16" in memory.constants[0].constant.formula


def test_memory_between_two_macros_is_their_geometric_interpolation() -> None:
    low, high = sram(bytes=8192, width_bits=64), sram(bytes=16384, width_bits=64)
    middle = sram(bytes=round(8192 * 1.5), width_bits=64)
    # log2(1.5) of the way on a logarithmic axis.
    share = 0.5849625007211562
    assert middle.area_um2 == pytest.approx(low.area_um2 ** (1 - share) * high.area_um2**share)
    assert middle.quality == "fitted"
    formula = middle.constants[0].constant.formula
    assert "(1024 x 64)" in formula
    assert "(2048 x 64)" in formula
    assert len(middle.constants[0].constant.origins) == 2


@given(st.integers(2048, 1 << 22), st.integers(16, 512), st.sampled_from(["1rw", "1r1w"]))
@settings(deadline=None)
def test_any_memory_lies_between_its_neighbouring_macros(size: int, width: int, ports: str) -> None:
    memory = sram(bytes=size, width_bits=width, ports=ports)
    for used in memory.constants:
        table = load_technology("published_45nm").table
        rows = {row.origin: row.value for row in table.rows if row.kind == "sram_macro"}
        near = [rows[origin] for origin in used.constant.origins]
        assert min(near) * (1 - 1e-9) <= used.constant.value <= max(near) * (1 + 1e-9)
        assert len(near) in (1, 2, 4)


@given(st.integers(10, 22), st.sampled_from([16, 32, 64, 128, 256]))
@settings(deadline=None)
def test_two_ports_cost_more_than_one(log_size: int, width: int) -> None:
    one, two = (sram(bytes=1 << log_size, width_bits=width, ports=ports) for ports in ("1rw", "1r1w"))
    assert two.area_um2 > one.area_um2
    assert two.leakage_nw > one.leakage_nw


@given(
    st.sampled_from(["published_45nm", "asap7", "sg13g2"]),
    st.integers(1, 1 << 26),
    st.integers(1, 4096),
    st.integers(1, 16),
    st.sampled_from(["1rw", "1r1w"]),
)
@settings(deadline=None)
def test_every_size_has_a_price(technology: str, size: int, width: int, banks: int, ports: str) -> None:
    params = {"bytes": size, "width_bits": width, "banks": banks, "ports": ports}
    memory = load_technology(technology).price(Component("buffer", "sram", params))
    assert min(memory.area_um2, memory.leakage_nw, *memory.energy_pj.values()) > 0


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"bytes": 1024}, "width_bits"),
        ({"bytes": 0, "width_bits": 8}, "whole number from 1"),
        ({"bytes": 1024, "width_bits": 32, "ports": "2rw"}, "1rw, 1r1w"),
        ({"bytes": 1024, "width_bits": 32, "kib": 1}, "kib"),
    ],
)
def test_memory_that_cannot_be_is_refused(params: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sram(**params)
