"""From a unit to gates: Amaranth writes RTLIL, Yosys and abc (in pyosys) map it to the cells of a library.

Full adders of the trees are placed as cells and kept (abc never finds them); flops are what ``dfflibmap`` picks; all
other logic is abc's, buffered and sized for ``target_ps`` with a small driver and load at the ports, wires without
capacitance. For the smallest area abc runs the passes that Yosys gives it. They begin with `dc2`, which shares logic
whatever its depth and makes chains of trees of carries: with it, 32 bits are added in 397 ps at best in ASAP7, in 291
without (Kogge-Stone). For a clock it is left out, and the time that flops take is taken off.

Yosys runs in a process of its own with a time limit, and is ended with everything it started: abc outlives a parent
that is only killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.rtl.cells import CellSet

RELAXED_PS = 30_000
"""A target that no unit misses: abc then recovers area."""
_FOR_A_CLOCK = (
    "strash; &get -n; &fraig -x; &put; scorr; strash; &get -n; &dch -f; &nf -D {D}; &put; "
    "buffer; upsize -D {D}; dnsize -D {D}; stime -p"
)
"""abc's passes, without those that lengthen paths."""
TIME_LIMIT_S = 900.0
_RUN = (
    "import sys; from pyosys import libyosys; libyosys.run_pass('script ' + sys.argv[1], libyosys.Design())"
)


@dataclass(frozen=True)
class Netlist:
    """Cells and nets as mapped. Nets are numbers; ``"0"`` and ``"1"`` are constants."""

    cells: tuple[tuple[str, str, Mapping[str, int | str]], ...]
    """(name, cell, {pin: net})"""
    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[int | str, ...]]
    rtl_hash: str
    """SHA-256 of the RTLIL that was synthesised."""


def tools() -> str:
    """Names and versions of what synthesises. Raises InputError: an extra is not installed."""
    for package in ("amaranth", "pyosys"):
        if find_spec(package) is None:
            raise InputError(
                f"{package} is not installed; synthesis needs it",
                allowed="pip install 'quantized-accelerator-simulator[rtl]'",
            )
    versions = (f"{name} {metadata.version(name)}" for name in ("amaranth", "pyosys"))
    return ", ".join(versions)


def rtlil(module: Any, name: str = "unit") -> str:
    """The module's RTLIL, without places in source files."""
    from amaranth.back import rtlil as back

    return str(back.convert(module, name=name, ports=module.ports, emit_src=False))


def synthesise(
    module: Any,
    cells: CellSet,
    *,
    target_ps: float = RELAXED_PS,
    load_ff: float = 1.0,
    time_limit_s: float = TIME_LIMIT_S,
    short_liberty: Path | None = None,
) -> Netlist:
    """The module in cells, for a clock of ``target_ps`` or, without a limit, of the smallest area. ``short_liberty``:
    `CellSet.short_liberty` written before. Raises InputError: Yosys fails or takes longer than the limit."""
    tools()
    source = rtlil(module)
    with tempfile.TemporaryDirectory(prefix="simulator-rtl-") as name:
        folder = Path(name)
        if short_liberty is None:
            short_liberty = folder / "cells.lib"
            short_liberty.write_text(cells.short_liberty())
        (folder / "unit.il").write_text(source)
        driver, _ = cells.drive
        (folder / "abc.constr").write_text(
            f"set_driving_cell {driver.name}\nset_load {load_ff:g} [all_outputs]\n"
        )
        script = ""
        if target_ps < RELAXED_PS:
            logic_ps = max(target_ps - cells.flop_ps(load_ff), 1.0)
            (folder / "abc.script").write_text(_FOR_A_CLOCK.replace("{D}", f"{logic_ps:g}"))
            script = "-script abc.script"
        (folder / "run.ys").write_text(_script(cells, short_liberty, target_ps, script))
        _run_yosys(folder, time_limit_s)
        written = json.loads((folder / "unit.json").read_text())
    netlist = _read(written["modules"]["unit"], hashlib.sha256(source.encode()).hexdigest())
    unknown = {cell for _, cell, _ in netlist.cells} - set(cells.library.cells)
    if unknown:
        raise InputError(
            f"synthesis left {', '.join(sorted(unknown))}, which the library has no cell for",
            file=", ".join(cells.library.files),
        )
    return netlist


def _script(cells: CellSet, liberty: Path, target_ps: float, script: str) -> str:
    ties = cells.ties
    hilomap = " ".join(
        f"-{'hi' if value else 'lo'}cell {cell} {pin}" for value, (cell, pin) in sorted(ties.items())
    )
    passes = [
        f"read_liberty -lib {liberty}",
        "read_rtlil unit.il",
        "synth -flatten -noabc -top unit",
        f"dfflibmap -liberty {liberty}",
        # Not `opt -full`: its opt_share adds multiplexers that are not gates, and nothing maps them any more.
        "opt",
        f"abc -liberty {liberty} -D {target_ps:g} -constr abc.constr {script}".rstrip(),
        "opt_clean -purge",
        "setundef -zero",
        f"hilomap -singleton {hilomap}" if hilomap else "",
        "clean -purge",
        "write_json unit.json",
    ]
    return "\n".join(filter(None, passes)) + "\n"


def _run_yosys(folder: Path, time_limit_s: float) -> None:
    log = folder / "yosys.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, "run.ys"],
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            raise InputError(
                f"synthesis took longer than {time_limit_s:g} s and was ended", allowed="a smaller unit"
            ) from None
        finally:
            _end(process)
    if code != 0 or not (folder / "unit.json").exists():
        lines = log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:]
        raise InputError(f"Yosys failed: {' '.join(errors) or f'exit code {code}'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and all of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(module: Mapping[str, Any], rtl_hash: str) -> Netlist:
    cells = []
    for name, cell in module["cells"].items():
        if cell["type"] == "$scopeinfo":
            continue
        cells.append(
            (
                name,
                cell["type"].lstrip("\\"),
                {pin: bits[0] for pin, bits in cell["connections"].items() if bits},
            )
        )
    ports: dict[str, dict[str, tuple[int | str, ...]]] = {"input": {}, "output": {}}
    for name, port in module["ports"].items():
        ports[port["direction"]][name] = tuple(port["bits"])
    return Netlist(tuple(cells), ports["input"], ports["output"], rtl_hash)
