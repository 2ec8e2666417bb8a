"""Libraries that the tests of hardware read: a small one made up here, and the real ones where they are at hand."""

import os
from pathlib import Path

import pytest

from simulator.rtl.cells import CellSet
from simulator.rtl.liberty import read_library

TOY = Path(__file__).with_name("toy.lib")
LIBERTY = Path(
    os.environ.get("SIMULATOR_LIBERTY", Path(__file__).resolve().parents[3] / "shared" / "liberty")
)
"""Folder of the ASAP7 and SG13G2 files, which are not part of the project (see docs/rtl.md)."""


def liberty_files(pattern):
    files = sorted(LIBERTY.glob(pattern))
    if not files:
        pytest.skip(f"no {pattern} in {LIBERTY}; set SIMULATOR_LIBERTY to the folder that has it")
    return files


@pytest.fixture(scope="session")
def toy_file():
    return TOY


@pytest.fixture(scope="session")
def toy():
    return CellSet(read_library([TOY]))


@pytest.fixture(scope="session")
def asap7_files():
    return liberty_files("asap7sc7p5t_*_RVT_TT_nldm.lib.gz")


@pytest.fixture(scope="session")
def asap7(asap7_files):
    return CellSet(read_library(asap7_files))


@pytest.fixture(scope="session")
def sg13g2_files():
    return liberty_files("sg13g2_stdcell_typ_1p20V_25C.lib.gz")


@pytest.fixture(scope="session")
def sg13g2(sg13g2_files):
    return CellSet(read_library(sg13g2_files))
