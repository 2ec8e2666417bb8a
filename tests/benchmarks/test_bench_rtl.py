"""How long a cell library and the gates of a MAC take."""

from pathlib import Path

import pytest

pytest.importorskip("amaranth")
pytest.importorskip("pyosys")

from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.gates import simulate
from simulator.rtl.liberty import read_library
from simulator.rtl.network import Network
from simulator.rtl.synthesis import synthesise
from simulator.rtl.units import unit_of_name

TOY = Path(__file__).parents[1] / "rtl" / "toy.lib"
UNIT = unit_of_name("mac-int8-int32")


@pytest.fixture(scope="module")
def worker():
    return Characteriser(Settings((str(TOY),)))


def test_reading_a_library(benchmark):
    library = benchmark(read_library, [TOY])
    assert len(library.cells) == 9


def test_synthesising_a_mac(benchmark, worker):
    netlist = benchmark.pedantic(
        lambda: synthesise(UNIT.module(worker.cells.full_adder), worker.cells), rounds=1, iterations=1
    )
    assert len(netlist.cells) > 100


@pytest.mark.parametrize("timed", [False, True])
def test_simulating_the_gates_of_a_mac(benchmark, worker, timed):
    """500 cycles."""
    netlist = synthesise(UNIT.module(worker.cells.full_adder), worker.cells)
    network = Network(netlist, worker.cells, worker.conditions)
    ports = UNIT.stream("gaussian", 500).ports
    simulate(network, ports, timed=timed)
    energy, _ = benchmark(simulate, network, ports, timed=timed)
    assert energy.clock_fj > 0
