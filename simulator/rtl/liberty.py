"""Cell libraries in the Liberty format: areas, functions, delays, energies and leakage of standard cells.

``read_library`` takes one file or several that belong together (ASAP7 comes in five), plain or gzipped. Numbers leave
this module in ps, fF, fJ, nW and um2 (Liberty states no unit of area; libraries of today mean um2). A cell is parsed
when it is first asked for: a library of 45 MB opens in about a second.

Source: Synopsys, Liberty User Guide, vol. 1 (groups, simple and complex attributes; look-up tables; ``internal_power``
is an energy per transition in capacitance unit times voltage unit squared).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.rtl.boolean import BooleanError, truth_table
from simulator.rtl.liberty_syntax import Group, parse_group, read_text, split_cells

Floats = npt.NDArray[np.float64]

_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18}
_SLEW_AXES = ("input_net_transition", "input_transition_time", "constrained_pin_transition")
_LOAD_AXES = ("total_output_net_capacitance", "related_pin_transition")


@dataclass(frozen=True)
class Table:
    """Values over (slew in ps, load in fF): delays and slews in ps, energies in fJ. Constraint tables have the slew
    of the clock as second axis, in ps."""

    slew_ps: Floats
    load_ff: Floats
    values: Floats
    """(slews, loads)"""

    def at(self, slew_ps: float, load_ff: float) -> float:
        """Linear between the points, the outer pieces continued beyond them."""
        i, s = _place(self.slew_ps, slew_ps)
        j, t = _place(self.load_ff, load_ff)
        values = self.values
        if values.size == 1:
            return float(values[0, 0])
        upper_i, upper_j = min(i + 1, len(values) - 1), min(j + 1, values.shape[1] - 1)
        low = values[i, j] * (1 - t) + values[i, upper_j] * t
        high = values[upper_i, j] * (1 - t) + values[upper_i, upper_j] * t
        return float(low * (1 - s) + high * s)


def mean_table(tables: Sequence[Table]) -> Table:
    """The mean of tables over the same quantity, on the finest of their axes."""
    slews = max((table.slew_ps for table in tables), key=len)
    loads = max((table.load_ff for table in tables), key=len)
    if all(np.array_equal(table.slew_ps, slews) and np.array_equal(table.load_ff, loads) for table in tables):
        return Table(slews, loads, np.mean([table.values for table in tables], axis=0))
    values = [[np.mean([table.at(slew, load) for table in tables]) for load in loads] for slew in slews]
    return Table(slews, loads, np.array(values, np.float64))


def _place(axis: Floats, x: float) -> tuple[int, float]:
    """(index of the piece, position in it): 0 to 1 inside the table."""
    if len(axis) < 2:
        return 0, 0.0
    i = min(max(int(np.searchsorted(axis, x)) - 1, 0), len(axis) - 2)
    return i, float((x - axis[i]) / (axis[i + 1] - axis[i]))


@dataclass(frozen=True)
class Arc:
    """Delay from an input to an output, or a constraint between two inputs (``setup_rising``, ...)."""

    related: str
    kind: str
    """``timing_type``; ``combinational`` where the file says none."""
    sense: str
    when: str
    tables: Mapping[str, Table]
    """cell_rise, cell_fall, rise_transition, fall_transition; or rise_constraint, fall_constraint."""


@dataclass(frozen=True)
class Power:
    """Energy of one transition of a pin beside the charge of its net; ``related``: by a transition of that input."""

    related: tuple[str, ...]
    when: str
    rise: Table | None
    fall: Table | None


@dataclass(frozen=True, eq=False)
class Pin:
    """A signal pin. ``rise_ff``, ``fall_ff``: capacitance that a rising or falling edge at it charges."""

    name: str
    direction: str
    rise_ff: float
    fall_ff: float
    function: str
    three_state: bool
    _group: Group
    _file: _File

    @property
    def capacitance_ff(self) -> float:
        return (self.rise_ff + self.fall_ff) / 2

    @cached_property
    def arcs(self) -> tuple[Arc, ...]:
        """Delays to an output, constraints at an input."""
        return tuple(self._file.arcs(self._group, self.name))

    @cached_property
    def powers(self) -> tuple[Power, ...]:
        """Internal energies, the rails' tables averaged: a library that has one a rail states the energy of a cycle in
        each of them."""
        return tuple(self._file.powers(self._group, self.name))


@dataclass(frozen=True)
class Flop:
    """An edge-triggered register: it takes ``data`` at the rising edge of ``clock``."""

    clock: str
    data: str
    outputs: Mapping[str, bool]
    """{output pin: the data leaves it inverted}"""
    inactive: Mapping[str, bool]
    """Values of other inputs (set, reset) at which they do nothing."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A standard cell."""

    name: str
    area_um2: float
    leakage_nw: float
    """Without a condition where the file has such a figure, else the mean over the states that it lists."""
    pins: Mapping[str, Pin]
    state: Group | None
    """The ``ff``, ``latch`` or ``statetable`` group of a sequential cell."""
    clock_gate: bool
    usable: bool
    """False where the library says ``dont_use``."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name, pin in self.pins.items() if pin.direction == "input")

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name, pin in self.pins.items() if pin.direction == "output")

    def truth(self, output: str) -> tuple[bool, ...]:
        """Value of ``output`` for every state of `inputs`, the first of them the lowest bit. Raises InputError."""
        pin = self.pins[output]
        try:
            return truth_table(pin.function, self.inputs)
        except BooleanError as error:
            raise InputError(
                f"function of pin {output} of cell {self.name}: {error}",
                file=pin._file.path,
                value=pin.function,
            ) from None

    @property
    def is_combinational(self) -> bool:
        """Has a function for every output and keeps nothing."""
        return (
            self.state is None
            and not self.clock_gate
            and bool(self.outputs)
            and all(self.pins[name].function for name in self.outputs)
            and all(
                pin.direction in ("input", "output") and not pin.three_state for pin in self.pins.values()
            )
        )

    @cached_property
    def flop(self) -> Flop | None:
        """Set for a rising-edge flop whose next state is one of its inputs, perhaps inverted."""
        if self.state is None or self.state.kind != "ff":
            return None
        attributes = self.state.attributes
        data = attributes.get("next_state", "").strip("() ")
        clock = attributes.get("clocked_on", "").strip("() ")
        if data.lstrip("!") not in self.inputs or clock not in self.inputs:
            return None
        stored = self.state.arguments
        functions = {output: self.pins[output].function.strip("() ") for output in self.outputs}
        if not functions or not set(functions.values()) <= set(stored):
            return None
        outputs = {
            output: (function != stored[0]) != data.startswith("!") for output, function in functions.items()
        }
        return Flop(clock, data.lstrip("!"), outputs, self._inactive(data.lstrip("!"), clock))

    def _inactive(self, data: str, clock: str) -> dict[str, bool]:
        assert self.state is not None
        others = tuple(name for name in self.inputs if name not in (data, clock))
        active = " + ".join(
            f"({self.state.attributes[key]})" for key in ("clear", "preset") if key in self.state.attributes
        )
        try:
            table = truth_table(active or "0", others)
        except BooleanError as error:
            raise InputError(f"set or reset of cell {self.name}: {error}", value=active) from None
        quiet = next((state for state, value in enumerate(table) if not value), 0)
        return {name: bool(quiet >> place & 1) for place, name in enumerate(others)}


class Cells(Mapping[str, Cell]):
    """Cells by name, parsed when asked for."""

    def __init__(self, sources: Mapping[str, tuple[str, _File]]) -> None:
        self._sources = sources
        self._parsed: dict[str, Cell] = {}

    def __getitem__(self, name: str) -> Cell:
        if name not in self._parsed:
            text, file = self._sources[name]
            self._parsed[name] = file.cell(name, text)
        return self._parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@dataclass(frozen=True)
class Library:
    """A cell library at one corner; ``sha256`` over the text of its files in the order of their names."""

    name: str
    files: tuple[str, ...]
    sha256: str
    vdd: float
    temperature_c: float
    cells: Mapping[str, Cell]

    @property
    def corner(self) -> str:
        return f"{self.vdd:g} V, {self.temperature_c:g} C"


def read_library(paths: Sequence[str | Path]) -> Library:
    """The cells of all ``paths``, one library. Raises InputError: unreadable, damaged, truncated or no Liberty files;
    files of different corners or units; a cell that two files define."""
    if not paths:
        raise InputError("a Liberty file is needed", key="liberty")
    files = [_File(Path(path)) for path in sorted(map(str, paths), key=lambda path: Path(path).name)]
    first = files[0]
    sources: dict[str, tuple[str, _File]] = {}
    for file in files:
        if (file.units, file.vdd, file.temperature_c) != (first.units, first.vdd, first.temperature_c):
            raise InputError(
                f"of another corner or in other units than {first.path.name}",
                file=file.path,
                value=f"{file.vdd:g} V, {file.temperature_c:g} C",
                allowed=f"{first.vdd:g} V, {first.temperature_c:g} C, and the same units",
            )
        for name, text in file.cell_texts.items():
            if name in sources:
                raise InputError(
                    f"cell is defined in {sources[name][1].path.name} too", file=file.path, value=name
                )
            sources[name] = text, file
    if not sources:
        raise InputError("a Liberty file without a cell", file=first.path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.text.encode())
    return Library(
        name="+".join(file.name for file in files),
        files=tuple(file.path.name for file in files),
        sha256=digest.hexdigest(),
        vdd=first.vdd,
        temperature_c=first.temperature_c,
        cells=Cells(sources),
    )


@dataclass(frozen=True)
class _Units:
    """Factors from the file's units to ps, fF, V and nW."""

    time: float
    capacitance: float
    voltage: float
    leakage: float

    @property
    def energy(self) -> float:
        """To fJ: capacitance unit times voltage unit squared."""
        return self.capacitance * self.voltage**2


class _File:
    """One Liberty file: its header parsed, its cells as text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = read_text(path)
        self.name, self.cell_texts, header = split_cells(self.text, path)
        self.header = parse_group(header, path, f"library {self.name}")
        self.templates = {
            group.arguments[0]: group
            for group in self.header.groups
            if group.kind in ("lu_table_template", "power_lut_template") and group.arguments
        }
        self.units = self._read_units()
        self.vdd, self.temperature_c = self._read_conditions()

    def _read_units(self) -> _Units:
        attributes = self.header.attributes
        load = self.header.first("capacitive_load_unit")
        try:
            if load is None:
                raise ValueError("capacitive_load_unit is missing")
            capacitance = _unit("".join(load.arguments[:2]), "f") / 1e-15
            return _Units(
                time=_unit(attributes.get("time_unit", "1ns"), "s") / 1e-12,
                capacitance=capacitance,
                voltage=_unit(attributes.get("voltage_unit", "1V"), "v"),
                leakage=_unit(attributes.get("leakage_power_unit", "1nW"), "w") / 1e-9,
            )
        except (ValueError, IndexError) as error:
            raise InputError(f"units of the library: {error}", file=self.path) from None

    def _read_conditions(self) -> tuple[float, float]:
        attributes = dict(self.header.attributes)
        name = attributes.get("default_operating_conditions")
        for group in self.header.all("operating_conditions"):
            if name is None or name in group.arguments:
                attributes |= {f"nom_{key}": value for key, value in group.attributes.items()}
                break
        vdd = self.number(attributes.get("nom_voltage"), "nom_voltage") * self.units.voltage
        if vdd <= 0:
            raise InputError("must be above zero", file=self.path, key="nom_voltage", value=vdd)
        return vdd, self.number(attributes.get("nom_temperature"), "nom_temperature")

    def number(self, text: str | None, key: str, least: float = -math.inf) -> float:
        if text is None:
            raise InputError("is missing", file=self.path, key=key)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError("not a number", file=self.path, key=key, value=text)
        if value < least:
            raise InputError(f"must be at least {least:g}", file=self.path, key=key, value=text)
        return value

    def cell(self, name: str, text: str) -> Cell:
        group = parse_group(text, self.path, f"cell {name}")
        attributes = group.attributes
        pins = {}
        for pin in itertools.chain(group.all("pin"), *(bus.all("pin") for bus in group.all("bus"))):
            for pin_name in pin.arguments:
                pins[pin_name] = self._pin(pin_name, pin, f"cell {name}")
        state = next(
            (g for g in group.groups if g.kind in ("ff", "latch", "statetable", "ff_bank", "latch_bank")),
            None,
        )
        return Cell(
            name=name,
            area_um2=self.number(attributes.get("area"), f"cell {name}: area", least=0),
            leakage_nw=self._leakage(group, f"cell {name}"),
            pins=pins,
            state=state,
            clock_gate="clock_gating_integrated_cell" in attributes,
            usable=attributes.get("dont_use", "false").lower() != "true",
        )

    def _leakage(self, cell: Group, where: str) -> float:
        """Rails added for each state."""
        states: dict[str, float] = {}
        for group in cell.all("leakage_power"):
            value = self.number(group.attributes.get("value"), f"{where}: leakage_power")
            when = group.attributes.get("when", "")
            states[when] = states.get(when, 0.0) + value
        if "" in states:
            value = states[""]
        elif "cell_leakage_power" in cell.attributes:
            value = self.number(cell.attributes["cell_leakage_power"], f"{where}: cell_leakage_power")
        elif states:
            value = sum(states.values()) / len(states)
        else:
            value = self.number(self.header.attributes.get("default_cell_leakage_power", "0"), "leakage")
        return value * self.units.leakage

    def _pin(self, name: str, group: Group, where: str) -> Pin:
        attributes = group.attributes
        where = f"{where}: pin {name}"
        default = attributes.get("capacitance", "0")
        rise, fall = (
            self.number(attributes.get(f"{edge}_capacitance", default), f"{where}: capacitance", least=0)
            * self.units.capacitance
            for edge in ("rise", "fall")
        )
        return Pin(
            name=name,
            direction=attributes.get("direction", "input").lower(),
            rise_ff=rise,
            fall_ff=fall,
            function=attributes.get("function", ""),
            three_state="three_state" in attributes,
            _group=group,
            _file=self,
        )

    def arcs(self, pin: Group, name: str) -> Iterator[Arc]:
        for timing in pin.all("timing"):
            attributes = timing.attributes
            tables = {
                table.kind: self._table(table, self.units.time, f"pin {name}")
                for table in timing.groups
                if table.kind in _TABLES
            }
            for related in attributes.get("related_pin", "").split():
                yield Arc(
                    related=related,
                    kind=attributes.get("timing_type", "combinational"),
                    sense=attributes.get("timing_sense", "non_unate"),
                    when=attributes.get("when", ""),
                    tables=tables,
                )

    def powers(self, pin: Group, name: str) -> Iterator[Power]:
        rails: dict[tuple[str, str], list[Group]] = {}
        for power in pin.all("internal_power"):
            key = power.attributes.get("related_pin", ""), power.attributes.get("when", "")
            rails.setdefault(key, []).append(power)
        for (related, when), groups in rails.items():
            rise, fall = (self._mean(groups, f"{edge}_power", f"pin {name}") for edge in ("rise", "fall"))
            yield Power(tuple(related.split()), when, rise, fall)

    def _mean(self, groups: list[Group], kind: str, where: str) -> Table | None:
        """The mean of the rails' tables: each rail of a cycle carries the whole energy once."""
        found = [group.first(kind) or group.first("power") for group in groups]
        tables = [self._table(group, self.units.energy, where) for group in found if group is not None]
        if not tables:
            return None
        return mean_table(tables)

    def _table(self, group: Group, scale: float, where: str) -> Table:
        template = self.templates.get(group.arguments[0] if group.arguments else "")
        axes: dict[str, Floats] = {}
        for number in ("1", "2"):
            index = group.first(f"index_{number}")
            if index is None and template is not None:
                index = template.first(f"index_{number}")
            if index is not None:
                variable = template.attributes.get(f"variable_{number}", "") if template else ""
                axes[variable or number] = self._numbers(index, where)
        content = group.first("values")
        if content is None:
            raise InputError(f"table {group.kind} has no values", file=self.path, key=where)
        values = self._numbers(content, where)
        slew = next((axes[name] for name in (*_SLEW_AXES, "1") if name in axes), np.zeros(1))
        load = next((axes[name] for name in (*_LOAD_AXES, "2") if name in axes), np.zeros(1))
        if values.size == 1:
            return Table(np.zeros(1), np.zeros(1), values.reshape(1, 1) * scale)
        if values.size != len(slew) * len(load):
            raise InputError(
                f"table {group.kind} has {values.size} values for {len(slew)} x {len(load)} points",
                file=self.path,
                key=where,
            )
        load_first = bool(axes) and next(iter(axes)) in _LOAD_AXES
        grid = values.reshape(len(load), len(slew)).T if load_first else values.reshape(len(slew), len(load))
        second = self.units.time if "related_pin_transition" in axes else self.units.capacitance
        return Table(slew * self.units.time, load * second, grid * scale)

    def _numbers(self, group: Group, where: str) -> Floats:
        text = " ".join(group.arguments)
        try:
            numbers = np.array([float(word) for word in text.replace(",", " ").split()], np.float64)
        except ValueError:
            numbers = np.array([np.nan])
        if not np.isfinite(numbers).all():
            raise InputError(
                f"{group.kind} is not a list of numbers", file=self.path, key=where, value=text
            ) from None
        if group.kind.startswith("index_") and (np.diff(numbers) <= 0).any():
            raise InputError(f"{group.kind} does not increase", file=self.path, key=where, value=text)
        return numbers


_TABLES = (
    "cell_rise",
    "cell_fall",
    "rise_transition",
    "fall_transition",
    "rise_constraint",
    "fall_constraint",
)


def _unit(text: str, symbol: str) -> float:
    """'1ps' -> 1e-12. Raises ValueError."""
    match = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*([munpfa]?)([a-zA-Z]+)\s*", text)
    if match is None or match.group(3).lower()[0] != symbol:
        raise ValueError(f"{text!r} is not a unit of {symbol}")
    factor = float(match.group(1)) * _PREFIXES[match.group(2).lower()]
    if not 0 < factor < math.inf:
        raise ValueError(f"{text!r} is not above zero")
    return factor
