"""From units and a cell library to a cost table.

For each unit: synthesis, area and leakage of its cells, shortest period, energy of a cycle on streams of operands, and,
before any figure counts, a proof that the gates put out what the unit's oracle says. Each is built for the smallest
area first; where that misses the clock that is asked for, once more for that clock, which its rows then name
(parameter ``target_ghz``).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.hardware.table import AREA, DELAY, ENERGY, LEAKAGE, TARGET, param_key, param_text
from simulator.rtl.cells import CellSet
from simulator.rtl.gates import simulate
from simulator.rtl.liberty import Library, read_library
from simulator.rtl.network import Conditions, Network
from simulator.rtl.synthesis import RELAXED_PS, TIME_LIMIT_S, synthesise, tools
from simulator.rtl.timing import shortest_period_ps
from simulator.rtl.unit import Energy, Unit, first_difference, words
from simulator.rtl.units import unit_of_name

CYCLES = 1536
"""Of a stimulus, for one lane; fewer for more lanes, whose energies average out."""
_FEWEST_CYCLES = 256
_FEWEST_OF_MANY = 48
"""Of each of more than ``_MANY`` stimuli: pairs of formats, whose lanes average out as well."""
_MANY = 16
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
    ("asap7sc7p5t", "_RVT_"): Known("ASAP7 7.5-track RVT", 7, "BSD-3-Clause", Conditions(20.0, 1.0)),
    ("sg13g2_stdcell",): Known("IHP SG13G2", 130, "Apache-2.0", Conditions(100.0, 5.0)),
}


@dataclass(frozen=True)
class Settings:
    """Of a characterisation; all of them are in the source of its rows."""

    liberty: tuple[str, ...]
    clock_ghz: float | None = None
    """What units are built for that miss it when built for the smallest area; None: no clock."""
    node_nm: float | None = None
    """Technology node of a library that is not known here."""
    dont_use: tuple[str, ...] = ()
    time_limit_s: float = TIME_LIMIT_S


@dataclass(frozen=True)
class Figures:
    """What a unit came to."""

    unit: str
    target_ghz: float | None
    """The clock that it was built for; None: smallest area."""
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
        name = self.library.name
        self.known = next(
            (known for words, known in _KNOWN.items() if all(word in name for word in words)), None
        )
        if self.known and settings.node_nm not in (None, self.known.node_nm):
            raise InputError(
                f"{self.known.technology} is a library of {self.known.node_nm:g} nm",
                key="--node-nm",
                value=settings.node_nm,
            )
        self.conditions = self.known.conditions if self.known else _fan_out_of_four(self.cells)
        self._short_liberty: str | None = None

    @property
    def node_nm(self) -> float | None:
        return self.known.node_nm if self.known else self.settings.node_nm

    def all_figures(self, unit: Unit) -> list[Figures]:
        """Built for the smallest area and, where that misses the clock, for the clock. Raises InputError, which names
        the unit."""
        clock = self.settings.clock_ghz
        try:
            relaxed = self.figures(unit)
            if clock is None or unit.is_part or relaxed.delay_ps * clock <= 1000:
                return [relaxed]
            return [relaxed, self.figures(unit, clock)]
        except InputError as error:
            raise error.within(f"unit {unit.name}" if error.file is None else error.file) from None

    def figures(self, unit: Unit, target_ghz: float | None = None) -> Figures:
        """Synthesise, prove and measure one unit. Raises InputError: it cannot be synthesised."""
        self._short_liberty = self._short_liberty or self.cells.short_liberty()
        with tempfile.TemporaryDirectory(prefix="simulator-rtl-") as folder:
            short = Path(folder) / "cells.lib"
            short.write_text(self._short_liberty)
            netlist = synthesise(
                unit.module(self.cells.full_adder, fast=target_ghz is not None),
                self.cells,
                target_ps=RELAXED_PS if target_ghz is None else 1000 / target_ghz,
                load_ff=self.conditions.output_load_ff,
                time_limit_s=self.settings.time_limit_s,
                short_liberty=short,
            )
        network = Network(netlist, self.cells, self.conditions_of(unit))
        # A constant that a part ties a pin to is driven once for many parts.
        counted = [cell for cell in network.all_cells if cell.inputs or not unit.is_part]
        prove(unit, network)
        return Figures(
            unit=unit.name,
            target_ghz=target_ghz,
            area_um2=sum(cell.area_um2 for cell in counted),
            register_area_um2=network.register_area_um2,
            leakage_nw=sum(cell.leakage_nw for cell in counted),
            delay_ps=shortest_period_ps(network),
            cells=len(counted),
            flops=len(network.registers),
            rtl_sha256=netlist.rtl_hash,
            energy={stimulus: measure(unit, network, stimulus) for stimulus in unit.stimuli},
        )

    def conditions_of(self, unit: Unit) -> Conditions:
        """Under which it is measured."""
        return replace(self.conditions, output_load_ff=0.0) if unit.is_part else self.conditions

    def source(self, unit: Unit, figures: Figures) -> str:
        """Where the figures of a unit come from, precisely enough to obtain them again."""
        names = (
            f"{self.known.technology} ({self.known.licence})" if self.known else ", ".join(self.library.files)
        )
        clock = "relaxed" if figures.target_ghz is None else f"{figures.target_ghz:g} GHz"
        without = f"; without {', '.join(self.settings.dont_use)}" if self.settings.dont_use else ""
        conditions = self.conditions_of(unit)
        return (
            f"simulator characterize: {names} at {self.library.corner}, Liberty SHA-256 {self.library.sha256[:12]}; "
            f"{tools()}; target {clock}; RTL {figures.rtl_sha256[:12]}; "
            f"slew {conditions.input_slew_ps:g} ps, output load {conditions.output_load_ff:g} fF, "
            f"no wires{without}"
        )

    def _energy_pj(self, unit: Unit, figures: Figures, event: str) -> tuple[float, str]:
        """(pJ, how it was measured) of an event of the unit's component."""
        energy_fj, how = unit.event_energy(event, figures.energy)
        if energy_fj <= 0:
            raise InputError(f"{unit.name}: event {event!r} came to {energy_fj:g} fJ, which cannot be")
        return energy_fj / 1000, f"{how}; {stimulus_cycles(unit)} cycles"

    def rows(self, unit: Unit, figures: Figures) -> Iterator[dict[str, str]]:
        """The unit's rows of a cost table."""
        about = (
            f"{figures.cells} cells; registers {figures.register_area_um2:.6g} um2 ({figures.flops} flops), "
            f"rest {figures.combinational_area_um2:.6g} um2"
        )
        mean = "mean over the states of each cell"
        period = "shortest clock period: longest path from flop to flop, setup included"
        quantities = [(AREA, "", figures.area_um2, about), (LEAKAGE, "", figures.leakage_nw, mean)]
        if not unit.is_part:
            quantities.append((DELAY, "", figures.delay_ps, period))
        for component in unit.components():
            events = [(ENERGY, event, *self._energy_pj(unit, figures, event)) for event in component.events]
            params = dict(component.params)
            if figures.target_ghz is not None:
                params[TARGET] = f"{figures.target_ghz:g}"
            for quantity, event, value, note in (*quantities, *events):
                yield {
                    "kind": component.kind,
                    "params": param_text(param_key(component.kind, params)),
                    "quantity": quantity,
                    "event": event,
                    "value": f"{value:.6g}",
                    "node_nm": "" if self.node_nm is None else f"{self.node_nm:g}",
                    "vdd": f"{self.library.vdd:g}",
                    "temperature_c": f"{self.library.temperature_c:g}",
                    "quality": "synthesised",
                    "source": self.source(unit, figures),
                    "note": f"{unit.name}: {note}",
                }


def stimulus_cycles(unit: Unit) -> int:
    fewest = _FEWEST_CYCLES if len(unit.stimuli) <= _MANY else _FEWEST_OF_MANY
    return max(CYCLES // unit.lanes, fewest)


def measure(unit: Unit, network: Network, stimulus: str) -> Energy:
    """Energy of a mean cycle on a stimulus; the cycles until the outputs see operands are not counted."""
    stream = unit.stream(stimulus, stimulus_cycles(unit))
    return simulate(network, stream.ports, skip=unit.latency)[0]


def prove(unit: Unit, network: Network) -> None:
    """The gates against the unit's oracle. An AssertionError is a bug of this room."""
    for stimulus in unit.proofs:
        stream = unit.stream(stimulus, _PROVED_CYCLES, seed=1)
        _, settled = simulate(network, stream.ports, timed=False)
        got = unit.read(words(settled))[unit.latency :]
        differ = first_difference(got, stream.expected())
        if differ is not None:
            cycle, is_, should_be = differ
            raise AssertionError(
                f"{unit.name} on {stimulus}: gates give {is_}, not {should_be}, in cycle {cycle + unit.latency}"
            )


def characterise(
    units: Sequence[Unit],
    settings: Settings,
    partial: Path | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Iterator[tuple[Unit, list[Figures]]]:
    """Units with their figures (`Characteriser.all_figures`), in the order given. ``partial``: a folder that keeps what
    is done, unit by unit; what is there from the same library, tools, settings and hardware descriptions is not done
    again."""
    kept = None if partial is None else _Kept(partial, settings)
    done: dict[str, list[Figures]] = {}
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


def _work(units: Sequence[Unit], settings: Settings, jobs: int) -> Iterator[tuple[Unit, list[Figures]]]:
    if jobs <= 1 or len(units) <= 1:
        worker = Characteriser(settings) if units else None
        for unit in units:
            assert worker is not None
            yield unit, worker.all_figures(unit)
        return
    pool = ProcessPoolExecutor(min(jobs, len(units)), initializer=_start_worker, initargs=(settings,))
    try:
        running = {pool.submit(_one, unit.name): unit for unit in units}
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker was killed, as one is that runs out of memory; what is done is kept",
            key="--jobs",
            value=jobs,
            allowed="fewer",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_worker: list[Characteriser] = []


def _start_worker(settings: Settings) -> None:
    _worker[:] = [Characteriser(settings)]


def _one(name: str) -> list[Figures]:
    return _worker[0].all_figures(unit_of_name(name))


class _Kept:
    """Figures of units in files of a folder; their names hold everything that decides them."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        digest = hashlib.sha256(f"{settings} {tools()}".encode())
        package = Path(__file__).parents[1]
        described = [package / room for room in ("formats", "pe", "rtl")]
        data = [
            path for room in described for path in sorted(room.rglob("*")) if path.suffix in (".py", ".npz")
        ]
        for path in (*map(Path, settings.liberty), *data):
            if path.is_file():
                digest.update(path.read_bytes())
        self._key = digest.hexdigest()[:16]

    def _path(self, unit: Unit) -> Path:
        return self._folder / f"{unit.name}.{self._key}.json"

    def load(self, unit: Unit) -> list[Figures] | None:
        try:
            return [_figures(written) for written in json.loads(self._path(unit).read_text())] or None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def save(self, unit: Unit, figures: list[Figures]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(unit)
        path.with_suffix(".new").write_text(json.dumps([asdict(each) for each in figures]))
        path.with_suffix(".new").replace(path)


def _figures(written: dict[str, Any]) -> Figures:
    energy = {stimulus: Energy(**values) for stimulus, values in written.pop("energy").items()}
    return Figures(**written, energy=energy)


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
