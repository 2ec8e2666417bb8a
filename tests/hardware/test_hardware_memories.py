"""Memories of processes that have a few macros of their own, memories made of flops, and wires."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arch import load_accelerator
from simulator.arch.components import BUFFERS
from simulator.errors import InputError
from simulator.hardware import Component, CostRow, PricedComponent, Technology, load_technology
from simulator.hardware.scaling import Scaling
from simulator.hardware.table import AREA, COLUMNS, DELAY, ENERGY, LEAKAGE
from simulator.shipped import shipped_names

HEADER = ",".join(COLUMNS) + "\n"


def sram(technology: str | Technology, **params: object) -> PricedComponent:
    loaded = load_technology(technology) if isinstance(technology, str) else technology
    return loaded.price(Component("buffer", "sram", params))


def references(technology: str) -> list[CostRow]:
    table = load_technology(technology).table
    assert table is not None
    return [row for row in table.rows if row.kind == "sram_reference"]


def ratio(technology: str, row: CostRow) -> float:
    """What we say of a reference's size over what its source says."""
    params = dict(row.params)
    words, width = int(params["words"]), int(params["width_bits"])
    memory = {"bytes": words * width // 8, "width_bits": width, "ports": params["ports"]}
    return load_technology(technology).constant("sram", memory, row.quantity, row.event).value / row.value


@pytest.mark.parametrize("technology", ["asap7", "sg13g2"])
def test_memories_are_right_on_average_where_the_process_has_macros(technology: str) -> None:
    groups: dict[tuple[str, str], list[float]] = {}
    for row in references(technology):
        groups.setdefault((row.quantity, row.event), []).append(ratio(technology, row))
    for ratios in groups.values():
        assert math.fsum(map(math.log, ratios)) == pytest.approx(0, abs=1e-9)
        # one factor for all sizes leaves this spread between CACTI's shape and the macros'
        assert 0.70 < min(ratios) < 1 + 1e-9
        assert 1 - 1e-9 < max(ratios) < 1.30
    assert set(groups) >= {(AREA, ""), (ENERGY, "read"), (DELAY, "")}


def test_the_macro_of_asap7_is_read_at_the_energy_it_was_laid_out_with() -> None:
    macro = sram("asap7", bytes=8192, width_bits=64)
    assert macro.energy_pj["read"] == pytest.approx(2.1455)
    # between the ratios of both sizes
    assert macro.delay_ps == pytest.approx(843.732 * math.sqrt(149.8 / 843.732 * 82.83 / 582.702), rel=1e-4)
    constants = {(used.constant.quantity, used.constant.event): used.constant for used in macro.constants}
    read, write = constants[ENERGY, "read"], constants[ENERGY, "write"]
    assert read.formula.endswith("scaled 32 to 7 nm, by 1 macro of this process (1024 x 64): x 0.6231")
    assert "as for a read" in write.formula
    assert write.value / read.value == pytest.approx(4.27156 / 3.44337, rel=1e-5)
    for words in ("CACTI", "itrs-lstp", "ASAP7 SRAM macro srambank_256x4x64_6t122"):
        assert words in read.source
    assert [origin.partition(":")[0] for origin in read.origins] == ["cacti_32nm_lstp.csv", "asap7_sram.csv"]
    assert (read.quality, read.node_nm, read.vdd) == ("scaled", 7, 0.7)
    leakage = constants[LEAKAGE, ""]
    assert leakage.quality == "estimated"
    assert leakage.value == pytest.approx(450.01 * 0.7 / 1.0 * constants[AREA, ""].value / 13287.2, rel=1e-5)


def test_every_quantity_of_sg13g2_is_that_of_its_macros() -> None:
    macro = sram("sg13g2", bytes=8192, width_bits=64, ports="1r1w")
    for used in macro.constants:
        assert "by 4 macros of this process" in used.constant.formula
        assert used.constant.quality == "scaled"
        assert "IHP Open PDK" in used.constant.source


def test_equations_for_logic_miss_an_access_by_an_order_of_magnitude() -> None:
    """Why references are worth having: Stillmaker & Baas on CACTI's macros, against macros of the processes."""
    table, expected = load_technology("asap7").bases[0].technology, {"asap7": (0.08, 0.14)}
    before = table.constant("sram", {"bytes": 8192, "width_bits": 64}, ENERGY, "read")
    factor, _ = Scaling(32, 7).factor(ENERGY, before.device, before.vdd or 0)
    low, high = expected["asap7"]
    assert low < before.value * factor / 2.1455 < high


@pytest.mark.parametrize("technology", ["asap7", "sg13g2"])
def test_every_buffer_of_every_shipped_accelerator_has_a_memory(technology: str) -> None:
    slowest = 0.0
    for name in shipped_names("arch_configs"):
        buffers = load_accelerator(name).buffers
        for buffer in (getattr(buffers, each) for each in BUFFERS):
            params = {"bytes": buffer.bytes, "width_bits": buffer.width_bits, "banks": buffer.banks}
            memory = sram(technology, **params, ports=buffer.ports)
            assert memory.area_quality == memory.energy_quality["read"] == "scaled"
            slowest = max(slowest, memory.delay_ps or math.inf)
    # the largest memories of asap7 fit a cycle of 1 GHz; those of sg13g2 take a few cycles of 250 MHz
    assert slowest < {"asap7": 1000, "sg13g2": 20000}[technology]


@pytest.mark.parametrize("technology", ["asap7", "sg13g2"])
def test_twice_the_memory_is_larger_and_leaks_more(technology: str) -> None:
    for width in (16, 64, 512, 2048):
        for ports in ("1rw", "1r1w"):
            # from 32 words up, where memories are no register files
            sizes = [1 << n for n in range(10, 25) if 1 << n >= 4 * width]
            memories = [sram(technology, bytes=size, width_bits=width, ports=ports) for size in sizes]
            for small, large in pairwise(memories):
                assert large.area_um2 > small.area_um2
                assert large.leakage_nw > small.leakage_nw


def rows(kind: str, params: str, values: dict[tuple[str, str], float], node: float) -> str:
    return "".join(
        f"{kind},{params},{quantity},{event},{value},{node},1,26.85,compiled,a source,\n"
        for (quantity, event), value in values.items()
    )


ALL = {(AREA, ""): 100.0, (LEAKAGE, ""): 8.0, (ENERGY, "read"): 2.0, (ENERGY, "write"): 3.0}
MACRO = "words=64 width_bits=32 ports=1rw cell=itrs-hp"


def test_the_first_base_that_can_answers_and_memories_come_from_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "macros.csv").write_text(HEADER + rows("sram_macro", MACRO, ALL, 45))
    technology = load_technology({"base": ["macros.csv", "published_45nm"]}, folder=tmp_path)
    assert technology.name == "macros+published_45nm"
    assert sram(technology, bytes=256, width_bits=32).area_um2 == 100
    assert technology.constant("int_adder", {"bits": 8}, ENERGY, "operate").value == 0.03
    with pytest.raises(InputError, match="no area_um2 of sram"):
        sram(technology, bytes=256, width_bits=32, ports="1r1w")
    behind = load_technology({"base": ["published_45nm", "macros.csv"]}, folder=tmp_path)
    assert sram(behind, bytes=256, width_bits=32, ports="1r1w").quality == "compiled"


def test_bases_of_several_nodes_are_refused_unless_scaled_to_one(tmp_path: Path) -> None:
    (tmp_path / "macros.csv").write_text(HEADER + rows("sram_macro", MACRO, ALL, 32))
    with pytest.raises(InputError, match=r"bases are of several nodes .found '32 nm, 45 nm'"):
        load_technology({"base": ["macros.csv", "published_45nm"]}, folder=tmp_path)
    both = {"base": ["macros.csv", "published_45nm"], "scale_to_nm": 7}
    scaled = load_technology(both, folder=tmp_path)
    assert sram(scaled, bytes=256, width_bits=32).area_um2 == pytest.approx(100 * 0.13)
    assert scaled.constant("int_adder", {"bits": 8}, AREA).value == pytest.approx(36 * 0.059)
    with pytest.raises(InputError, match=r"scaled already .found 'asap7'"):
        load_technology({"base": ["macros.csv", "asap7"], "scale_to_nm": 7}, folder=tmp_path)


def test_a_reference_multiplies_what_it_is_known_of(tmp_path: Path) -> None:
    (tmp_path / "macros.csv").write_text(HEADER + rows("sram_macro", MACRO, ALL, 32))
    known = {(AREA, ""): 25.0, (ENERGY, "write"): 0.3}
    own = rows("sram_reference", "words=64 width_bits=32 ports=1rw", known, 7)
    (tmp_path / "own.csv").write_text(HEADER + own)
    technology = {"base": ["macros.csv"], "scale_to_nm": 7, "tables": ["own.csv"]}
    memory = sram(load_technology(technology, folder=tmp_path), bytes=256, width_bits=32)
    assert memory.area_um2 == pytest.approx(25)
    assert memory.energy_pj == pytest.approx({"write": 0.3, "read": 0.2})
    # current per area kept: a quarter of the area, 0.7 V (the nominal supply at 7 nm) for 1 V
    assert memory.leakage_nw == pytest.approx(8 * 0.25 * 0.7)
    (tmp_path / "own.csv").write_text(HEADER + own.replace("1rw", "1r1w"))
    with pytest.raises(InputError, match=r"own.csv:2.*no memory of the size of this reference"):
        sram(load_technology(technology, folder=tmp_path), bytes=256, width_bits=32)


FLOP_UM2, MUX_UM2 = 5.981433, 1.560288


def test_a_register_file_is_flops_clock_gates_and_a_multiplexer() -> None:
    technology = load_technology("published_45nm")
    priced = technology.price(Component("fifo", "register_file", {"words": 8, "width_bits": 16}))
    assert priced.area_um2 == pytest.approx(8 * 17 * FLOP_UM2 + 7 * 16 * MUX_UM2)
    assert priced.energy_pj["write"] == pytest.approx(17 * 0.008999495)
    assert priced.energy_pj["read"] == pytest.approx(7 * 16 * 0.002611464)
    assert (priced.delay_ps, priced.quality) == (None, "estimated")
    with pytest.raises(InputError, match=r"no area_um2 of register_file \(width_bits=16 words=1\)"):
        technology.price(Component("fifo", "register_file", {"words": 1, "width_bits": 16}))


def test_a_memory_too_small_for_a_macro_is_a_register_file_where_that_is_smaller() -> None:
    macro = sram("published_45nm", bytes=2 * 64, width_bits=16, banks=2)
    eight_words = sram("published_45nm", bytes=2 * 16, width_bits=16, banks=2)
    assert eight_words.area_um2 == macro.area_um2 < 2 * (8 * 17 * FLOP_UM2 + 7 * 16 * MUX_UM2)
    tiny = sram("published_45nm", bytes=2 * 4, width_bits=16, banks=2)
    assert tiny.area_um2 == pytest.approx(2 * (2 * 17 * FLOP_UM2 + 16 * MUX_UM2))
    assert tiny.energy_pj["write"] == pytest.approx(17 * 0.008999495)
    assert tiny.delay_ps is None
    formula = tiny.constants[0].constant.formula
    assert "register files, smaller than macros of" in formula
    assert formula.endswith("x 2 banks")
    assert sram("published_45nm", bytes=64, width_bits=16).delay_ps is not None
    assert sram("published_45nm", bytes=2, width_bits=16).delay_ps is not None


@given(st.integers(1, 32), st.integers(1, 16))
@settings(deadline=None, max_examples=40)
def test_a_small_memory_never_takes_more_area_than_the_smallest_macro(words: int, width: int) -> None:
    small = sram("published_45nm", bytes=math.ceil(words * width / 8), width_bits=width)
    assert small.area_um2 <= sram("published_45nm", bytes=64, width_bits=16).area_um2


def test_a_synthesised_register_file_wins_over_its_parts(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(HEADER + rows("register_file", "words=4 width_bits=16", ALL, 45))
    technology = load_technology({"base": "published_45nm", "tables": ["own.csv"]}, folder=tmp_path)
    assert sram(technology, bytes=8, width_bits=16).energy_pj == {"read": 2.0, "write": 3.0}
    assert (
        technology.price(Component("f", "register_file", {"words": 4, "width_bits": 16})).quality
        == "compiled"
    )


def test_wires_cost_by_bit_and_length_and_keep_their_capacitance_between_nodes() -> None:
    for name, vdd in (("published_45nm", 0.9), ("asap7", 0.7), ("sg13g2", 1.2)):
        wire = load_technology(name).constant("wire", {"bits": 64, "length_um": 500}, ENERGY, "transfer")
        assert wire.value == pytest.approx(310 / 256 / 10 * 64 * 0.5 * (vdd / 0.9) ** 2)
        assert "IEEE Micro" in wire.source
        priced = load_technology(name).price(Component("bus", "wire", {"bits": 64, "length_um": 500}))
        assert (priced.area_um2, priced.silicon) == (0, False)
