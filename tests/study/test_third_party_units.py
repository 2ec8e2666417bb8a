"""A package of somebody else's brings a format and a PE, found through its entry points, and runs them from YAML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = '''
"""Powers of three, and a PE that adds them up digit by digit behind a decoder."""

from dataclasses import replace
from typing import Literal

from simulator.formats import Format, exact_integers, value_table
from simulator.formats.element import FP16, integer
from simulator.hardware import Component, Part
from simulator.pe.base import PE, pair_name
from simulator.pe.mac import MacPE
from simulator.pe.protocol import Timing

LEVELS = (0, 1, 3, 9, 0, -1, -3, -9)
formats = (Format("three3", value_table("three3", LEVELS), "tensor", scale_element=FP16),)
INT5 = integer(5)


class DigitPE(PE):
    """One digit of a weight a cycle; codes become integers of 5 bits at the edge."""

    family: Literal["digits"]
    digits: int = 3

    @property
    def mac(self):
        return MacPE(family="mac", weights=("int5",), activations=self.activations, accumulator="int32")

    @property
    def accumulator_bits(self):
        return self.mac.accumulator_bits

    def received(self, side, format):
        return format if side == "activations" else replace(format, name=f"{format.name}_decoded", element=INT5)

    def decode(self, side, tensor):
        if side == "activations":
            return tensor
        integers, _ = exact_integers(tensor)
        return replace(tensor, codes=integers.astype("int8"), format=self.received(side, tensor.format))

    def timing(self, weights, activations):
        return Timing(lanes=1, latency=2, initiation_interval=self.digits, serial=True)

    def partial_bits(self, weights, activations):
        return self.accumulator_bits

    def partial_adder(self):
        return self.mac.partial_adder()

    def function(self, weights, activations):
        return self.mac.function(self.received("weights", weights), activations)

    def hardware(self, *, weight_lines, activation_lines, stationary, doubled, pairs):
        adder = Part("digit_adder", "int_adder", {"bits": 13})
        accumulator = Part("accumulator", "register", {"bits": 32}, 1 + doubled)
        step = {("digit_adder", "operate"): self.digits, ("accumulator", "write"): 1}
        events = {"step": step, "idle": {("accumulator", "clock"): 1 + doubled}}
        table = Part("table", "register", {"bits": 8 * 5})
        pes = weight_lines * activation_lines
        decode = {"decode": {("table", "clock"): 1}}
        return (
            Component("pe", "digits", {"digits": self.digits}, pes, (adder, accumulator), events),
            Component("digit_decoder", "digit_decoder", {}, weight_lines, (table,), decode),
        )

    def activity(self, weights, activations, *, stationary):
        made = {"step": ("pe", "step"), "idle": ("pe", "idle"), "weight": ("digit_decoder", "decode")}
        return {counted: {event: 1} for counted, event in made.items()}
'''
ARCH = """
name: powers
clock_ghz: 1.0
array: {dataflow: os, rows: 4, cols: 4}
pe: {family: digits, weights: three3, activations: int8, digits: 2}
formats: {weights: three3_g32, activations: int8_token}
buffers:
  weights:     {kib: 8}
  activations: {kib: 8}
  outputs:     {kib: 8}
vector: {lanes: 4}
dram: {bandwidth_gb_per_s: 16}
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package as pip would leave it, and an accelerator's YAML."""
    (tmp_path / "powers_of_three").mkdir()
    (tmp_path / "powers_of_three" / "__init__.py").write_text(PACKAGE)
    info = tmp_path / "powers_of_three-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: powers-of-three\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[simulator.formats]\nthree3 = powers_of_three:formats\n[simulator.pe]\ndigits = powers_of_three:DigitPE\n"
    )
    (tmp_path / "powers.yaml").write_text(ARCH)
    return tmp_path


def simulator(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "simulator", *arguments],
        capture_output=True,
        text=True,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_pe_and_a_format_of_another_package_run_from_yaml(installed: Path, engine: str) -> None:
    done = simulator(installed, "gemm", "4", "64", "4", "--arch", "powers.yaml", "--engine", engine, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["formats"]["weights"] == "three3_g32"
    (layer,) = report["layers"]
    # Two groups of 32 steps of 2 cycles, results 1 cycle after; the second follows the first: 2 x 64 + 1 + r + c - 2.
    assert layer["compute_cycles"] == 2 * 64 + 1 + 4 + 4 - 2
    # 4 x 64 codes of 3 bits and two FP16 scales a row.
    assert layer["dram_read_bytes_by_operand"]["weights"] == 4 * (64 * 3 + 2 * 16) // 8
    assert min(report["energy_by_component_pj"][name] for name in ("pe", "digit_decoder")) > 0
    assert "rescale" in report["energy_by_component_pj"]


def test_their_formats_and_families_are_listed(installed: Path) -> None:
    assert "three3" in simulator(installed, "formats").stdout
    refused = simulator(
        installed, "gemm", "4", "64", "4", "--arch", "powers.yaml", "--set", "pe.family=digit"
    )
    assert refused.returncode == 2
    assert "digits" in refused.stderr
