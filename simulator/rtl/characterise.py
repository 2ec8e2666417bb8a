"""From units and a cell library to a cost table.

For each unit: synthesis, area and leakage of its cells, shortest period, energy of a cycle on streams of operands, and,
before any figure counts, a proof that the gates put out what the PE's function says. How the measured cycle is spread
over the PE's events: ``mac`` is the combinational energy (timed) of a lane, ``step`` that of registers and clock,
``idle`` the clock alone while nothing changes, ``group`` what new scales add to such a cycle,
``preload`` what a new word of the stationary operand adds.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

from simulator.errors import InputError
from simulator.hardware.table import AREA, COLUMNS, DELAY, ENERGY, LEAKAGE, param_key, param_text
from simulator.pe.base import pair_name
from simulator.pe.protocol import Pair
from simulator.rtl.cells import CellSet
from simulator.rtl.gates import Activity, simulate
from simulator.rtl.liberty import Library, read_library
from simulator.rtl.network import Conditions, Network
from simulator.rtl.proof import codes_of_bits, expected_sums, sums_of_codes
from simulator.rtl.stimulus import STIMULI, operands
from simulator.rtl.synthesis import RELAXED_PS, TIME_LIMIT_S, synthesise, tools
from simulator.rtl.timing import shortest_period_ps
from simulator.rtl.unit import Unit

CYCLES = 1536
"""Of a stimulus, for one lane; fewer for more lanes, whose energies average out."""
_FEWEST_CYCLES = 256
_PROVED_CYCLES = 192

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Known:
    """What a Liberty file does not say of a library that tables are shipped of."""

    technology: str
    node_nm: float
    licence: str
    conditions: Conditions


_KNOWN = {
    "asap7sc7p5t": Known("ASAP7 7.5-track RVT", 7, "BSD-3-Clause", Conditions(20.0, 1.0)),
    "sg13g2_stdcell": Known("IHP SG13G2", 130, "Apache-2.0", Conditions(100.0, 5.0)),
}


@dataclass(frozen=True)
class Settings:
    """Of a characterisation; all of them are in the source of its rows."""

    liberty: tuple[str, ...]
    clock_ghz: float | None = None
    """What synthesis aims at; None: no limit, smallest area."""
    node_nm: float | None = None
    """Technology node of a library that is not known here."""
    dont_use: tuple[str, ...] = ()
    time_limit_s: float = TIME_LIMIT_S

    @property
    def target_ps(self) -> float:
        return RELAXED_PS if self.clock_ghz is None else 1000.0 / self.clock_ghz


@dataclass(frozen=True)
class Energy:
    """Of a mean cycle, in fJ."""

    combinational_glitch_free_fj: float
    combinational_timed_fj: float
    register_fj: float
    clock_fj: float

    @property
    def total_fj(self) -> float:
        return self.combinational_timed_fj + self.register_fj + self.clock_fj


@dataclass(frozen=True)
class Figures:
    """What a unit came to."""

    unit: str
    area_um2: float
    register_area_um2: float
    leakage_nw: float
    delay_ps: float
    cells: int
    flops: int
    rtl_sha256: str
    energy: Mapping[str, Energy] = field(default_factory=dict)
    """By stimulus."""

    @property
    def combinational_area_um2(self) -> float:
        return self.area_um2 - self.register_area_um2


class Characteriser:
    """A library, read and checked once, for many units."""

    def __init__(self, settings: Settings) -> None:
        tools()
        self.settings = settings
        self.library: Library = read_library(settings.liberty)
        self.cells = CellSet(self.library, settings.dont_use)
        self.known = next((known for name, known in _KNOWN.items() if name in self.library.name), None)
        self.conditions = self.known.conditions if self.known else _fan_out_of_four(self.cells)
        self._short_liberty: str | None = None

    @property
    def node_nm(self) -> float | None:
        return self.known.node_nm if self.known else self.settings.node_nm

    def figures(self, unit: Unit) -> Figures:
        """Synthesise, prove and measure one unit. Raises InputError: it cannot be synthesised."""
        from simulator.rtl.modules import UnitModule

        self._short_liberty = self._short_liberty or self.cells.short_liberty()
        with tempfile.TemporaryDirectory(prefix="simulator-rtl-") as folder:
            short = Path(folder) / "cells.lib"
            short.write_text(self._short_liberty)
            netlist = synthesise(
                UnitModule(unit, self.cells.full_adder),
                self.cells,
                target_ps=self.settings.target_ps,
                load_ff=self.conditions.output_load_ff,
                time_limit_s=self.settings.time_limit_s,
                short_liberty=short,
            )
        network = Network(netlist, self.cells, self.conditions)
        prove(unit, network)
        kinds = ["gaussian", "uniform", "zero"]
        kinds += ["rescale"] if unit.scale else []
        kinds += ["preload"] if unit.stationary != "outputs" else []
        return Figures(
            unit=unit.name,
            area_um2=network.area_um2,
            register_area_um2=network.register_area_um2,
            leakage_nw=network.leakage_nw,
            delay_ps=shortest_period_ps(network),
            cells=len(netlist.cells),
            flops=len(network.registers),
            rtl_sha256=netlist.rtl_hash,
            energy={
                _stimulus(unit, kind, pair): measure(unit, network, kind, pair)
                for pair in unit.pairs
                for kind in kinds
            },
        )

    def source(self, figures: Figures) -> str:
        """Where the figures of a unit come from, precisely enough to obtain them again."""
        names = (
            f"{self.known.technology} ({self.known.licence})" if self.known else ", ".join(self.library.files)
        )
        clock = f"{self.settings.clock_ghz:g} GHz" if self.settings.clock_ghz else "relaxed"
        without = f"; without {', '.join(self.settings.dont_use)}" if self.settings.dont_use else ""
        return (
            f"simulator characterize: {names} at {self.library.corner}, Liberty SHA-256 {self.library.sha256[:12]}; "
            f"{tools()}; target {clock}; RTL {figures.rtl_sha256[:12]}; "
            f"slew {self.conditions.input_slew_ps:g} ps, output load {self.conditions.output_load_ff:g} fF, "
            f"no wires{without}"
        )

    def _event(self, unit: Unit, figures: Figures, event: str) -> tuple[float, str]:
        """(fJ, note) of an event of the PE's component: its name is what is counted, then the pair of formats."""
        what, _, of = event.partition(" ")
        pair = next((pair for pair in unit.pairs if of.startswith(pair_name(pair))), unit.pairs[0])
        energy = {
            kind: figures.energy[name]
            for kind in STIMULI
            if (name := _stimulus(unit, kind, pair)) in figures.energy
        }
        gaussian, idle = energy["gaussian"], energy["zero"].clock_fj
        stimulus = f"Gaussian operands, {stimulus_cycles(unit)} cycles"
        without = gaussian.combinational_glitch_free_fj / unit.lanes
        found: dict[str, tuple[float, str]] = {
            "mac": (
                gaussian.combinational_timed_fj / unit.lanes,
                f"gates with glitches, of a lane ({without:.4g} fJ without); {stimulus}",
            ),
            "step": (gaussian.register_fj + gaussian.clock_fj, f"registers and clock pins; {stimulus}"),
            "idle": (idle, "clock pins while no operand changes"),
        }
        if "rescale" in energy:
            new = energy["rescale"].total_fj - idle
            found["group"] = (new, f"what new scales add to an idle cycle; {stimulus}")
        if "preload" in energy:
            loaded = (energy["preload"].total_fj - idle) / unit.lanes
            found["preload"] = (loaded, f"what a new word adds to an idle cycle; {stimulus}")
        if what not in found or found[what][0] <= 0:
            raise InputError(
                f"no energy was measured for event {event!r} of {unit.name}", allowed=", ".join(found)
            )
        return found[what]

    def rows(self, unit: Unit, figures: Figures) -> Iterator[dict[str, str]]:
        """The unit's rows of a cost table."""
        about = (
            f"{figures.cells} cells; registers {figures.register_area_um2:.6g} um2 ({figures.flops} flops), "
            f"rest {figures.combinational_area_um2:.6g} um2"
        )
        quantities = [
            (AREA, "", figures.area_um2, about),
            (LEAKAGE, "", figures.leakage_nw, "mean over the states of each cell"),
            (
                DELAY,
                "",
                figures.delay_ps,
                "shortest clock period: longest path from flop to flop, setup included",
            ),
        ]
        for component in unit.components():
            energies = ((event, *self._event(unit, figures, event)) for event in component.events)
            events = [(ENERGY, event, energy / 1000, note) for event, energy, note in energies]
            for quantity, event, value, note in (*quantities, *events):
                yield {
                    "kind": component.kind,
                    "params": param_text(param_key(component.kind, component.params)),
                    "quantity": quantity,
                    "event": event,
                    "value": f"{value:.6g}",
                    "node_nm": "" if self.node_nm is None else f"{self.node_nm:g}",
                    "vdd": f"{self.library.vdd:g}",
                    "temperature_c": f"{self.library.temperature_c:g}",
                    "quality": "synthesised",
                    "source": self.source(figures),
                    "note": f"{unit.name}: {note}",
                }


def _stimulus(unit: Unit, kind: str, pair: Pair) -> str:
    """The name of a stimulus; of pairs that are not the widest with theirs."""
    return kind if pair == unit.pairs[0] else f"{kind} {pair_name(pair)}"


def stimulus_cycles(unit: Unit) -> int:
    return max(CYCLES // unit.lanes, _FEWEST_CYCLES)


def measure(unit: Unit, network: Network, kind: str, pair: Pair | None = None) -> Energy:
    """Energy of a mean cycle on a stimulus; the cycles until the accumulator sees operands are not counted."""
    stream = operands(unit, kind, stimulus_cycles(unit), pair=pair)
    activity: Activity = simulate(network, stream.ports(unit), skip=unit.latency)
    return Energy(
        activity.combinational_fj,
        activity.combinational_timed_fj,
        activity.register_fj,
        activity.clock_fj,
    )


def prove(unit: Unit, network: Network) -> None:
    """The gates against the PE's function on Gaussian operands. An AssertionError is a bug of this room."""
    for pair in unit.pairs:
        _prove_pair(unit, network, pair)


def _prove_pair(unit: Unit, network: Network, pair: Pair) -> None:
    stream = operands(unit, "scales", _PROVED_CYCLES, seed=1, pair=pair)
    settled = simulate(network, stream.ports(unit), timed=False).outputs["out"]
    got = sums_of_codes(unit.held, codes_of_bits(settled))[unit.latency :]
    wanted = expected_sums(unit, stream, pair)[: len(got)]
    if got != wanted:
        cycle = next(cycle for cycle, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
        raise AssertionError(f"{unit.name}: gates give {got[cycle]}, not {wanted[cycle]}, in cycle {cycle}")


def characterise(
    units: Sequence[Unit],
    settings: Settings,
    partial: Path | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Iterator[tuple[Unit, Figures]]:
    """Units with their figures, in the order given. ``partial``: a folder that keeps what is done, unit by unit; what
    is there from the same library, tools, settings and hardware descriptions is not done again."""
    kept = None if partial is None else _Kept(partial, settings)
    done: dict[str, Figures] = {}
    if kept is not None:
        done = {unit.name: figures for unit in units if (figures := kept.load(unit)) is not None}
    for unit, figures in _work([unit for unit in units if unit.name not in done], settings, jobs):
        done[unit.name] = figures
        if kept is not None:
            kept.save(unit, figures)
        if progress is not None:
            progress(unit.name, len(done), len(units))
    for unit in units:
        yield unit, done[unit.name]


def _work(units: Sequence[Unit], settings: Settings, jobs: int) -> Iterator[tuple[Unit, Figures]]:
    if jobs <= 1 or len(units) <= 1:
        worker = Characteriser(settings) if units else None
        for unit in units:
            assert worker is not None
            yield unit, worker.figures(unit)
        return
    pool = ProcessPoolExecutor(min(jobs, len(units)), initializer=_start_worker, initargs=(settings,))
    try:
        running = {pool.submit(_one, unit): unit for unit in units}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker: list[Characteriser] = []


def _start_worker(settings: Settings) -> None:
    _worker[:] = [Characteriser(settings)]


def _one(unit: Unit) -> Figures:
    return _worker[0].figures(unit)


class _Kept:
    """Figures of units in files of a folder; their names hold everything that decides them."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        digest = hashlib.sha256(f"{settings} {tools()}".encode())
        for path in (*map(Path, settings.liberty), *sorted(Path(__file__).parent.glob("*.py"))):
            if path.is_file():
                digest.update(path.read_bytes())
        self._key = digest.hexdigest()[:16]

    def _path(self, unit: Unit) -> Path:
        return self._folder / f"{unit.name}.{self._key}.json"

    def load(self, unit: Unit) -> Figures | None:
        try:
            written = json.loads(self._path(unit).read_text())
            energy = {kind: Energy(**values) for kind, values in written.pop("energy").items()}
            return Figures(**written, energy=energy)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, unit: Unit, figures: Figures) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(unit)
        path.with_suffix(".new").write_text(json.dumps(asdict(figures)))
        path.with_suffix(".new").replace(path)


def write_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows as the text of a cost table."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def remove_partial(partial: Path) -> None:
    """Once the table is written."""
    shutil.rmtree(partial, ignore_errors=True)


def _fan_out_of_four(cells: CellSet) -> Conditions:
    """Of any other library: the load of four smallest inverters, and the slew of one that drives it."""
    inverter, pins = cells.gates("!a")[0]
    pin, output = next(iter(pins)), inverter.outputs[0]
    load = 4 * inverter.pins[pin].capacitance_ff
    tables = [arc.tables for arc in inverter.pins[output].arcs if "rise_transition" in arc.tables]
    slew = 0.0
    for _ in range(8):
        slew = max((table["rise_transition"].at(slew, load) for table in tables), default=0.0)
    return Conditions(round(slew, 3), round(load, 4))
