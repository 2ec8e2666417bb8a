"""Cost tables: comma-separated files of cited constants, one constant a row.

Columns, all present, in any order:

==============  ============================================================================================
kind            what is priced: a part or memory of ``kinds.py``, or any other name for a whole unit
params          ``name=value`` pairs, separated by spaces; a value may hold spaces itself
quantity        ``energy_pj`` of an event, ``area_um2``, ``leakage_nw``, ``leakage_nw_per_um2``, ``delay_ps``
event           the event of an ``energy_pj``; empty otherwise
value           a number; of a whole unit zero where it has no leakage, or where the note says what contains it
node_nm         technology node of the source; empty where it has none (DRAM)
vdd             supply in V at the source; empty where the source does not say
temperature_c   the same for temperature
quality         ``synthesised``, ``compiled``, ``published``, ``fitted``, ``scaled`` or ``estimated``
source          who says so, precisely enough to be looked up or obtained again
note            what was computed from the source's own numbers, and what they leave out
==============  ============================================================================================
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import InputError, nearest
from simulator.hardware.kinds import KINDS, TEXT_PARAMS, Kind
from simulator.hardware.structure import Param

QUALITIES = ("synthesised", "compiled", "published", "fitted", "scaled", "estimated")
"""From the firmest to the softest: a number made of several has the quality of its softest."""

AREA = "area_um2"
LEAKAGE = "leakage_nw"
LEAKAGE_DENSITY = "leakage_nw_per_um2"
DELAY = "delay_ps"
ENERGY = "energy_pj"
UNITS = {AREA: "um2", LEAKAGE: "nW", LEAKAGE_DENSITY: "nW/um2", DELAY: "ps", ENERGY: "pJ"}

COLUMNS = (
    "kind",
    "params",
    "quantity",
    "event",
    "value",
    "node_nm",
    "vdd",
    "temperature_c",
    "quality",
    "source",
    "note",
)

LONGEST_NUMBER = 18
"""Digits of a parameter."""

_PAIRS = re.compile(r"\s+(?=[^\W\d]\w*=)")
"""The space before the next ``name=``."""

TARGET = "target_ghz"
"""Parameter of rows of a unit that was built for this clock; those without were built for the smallest area."""
ParamKey = tuple[tuple[str, Param], ...]
"""Parameters as a sorted tuple: what rows are found by."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """One cited constant."""

    kind: str
    params: ParamKey
    quantity: str
    event: str
    value: float
    node_nm: float | None
    vdd: float | None
    temperature_c: float | None
    quality: str
    source: str
    note: str
    origin: str
    """``file:line`` of the row."""


@dataclass(frozen=True)
class CostTable:
    """Rows by kind, quantity and event, then by parameters."""

    rows: tuple[CostRow, ...]
    index: Mapping[tuple[str, str, str], Mapping[ParamKey, CostRow]]
    macros: Mapping[tuple[str, str, str], Mapping[tuple[int, int], CostRow]]
    """SRAM macros by ports, quantity and event, then by words and width."""

    def select(self, kind: str, quantity: str, event: str = "") -> Mapping[ParamKey, CostRow]:
        """All rows of one quantity of one kind."""
        return self.index.get((kind, quantity, event), {})


def softest(qualities: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    """The quality of a number that is made of numbers of these qualities."""
    return max(qualities, key=QUALITIES.index)


def param_key(kind: str, params: Mapping[str, Param]) -> ParamKey:
    """The key of ``params``; exchangeable parameters in descending order."""
    known = KINDS.get(kind)
    if known is not None and known.commutative:
        ordered = sorted((params[name] for name in known.params), reverse=True, key=int)
        return tuple(sorted(zip(known.params, ordered, strict=True)))
    return tuple(sorted(params.items()))


def param_text(params: ParamKey) -> str:
    """``name=value name=value``, as tables write them."""
    return " ".join(f"{name}={value}" for name, value in params)


def read_table(path: Path) -> tuple[CostRow, ...]:
    """The rows of one file. Raises InputError naming file, line and column of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cost table cannot be opened: {error.strerror}", file=path) from None
    except UnicodeDecodeError:
        raise InputError("cost table is not UTF-8 text", file=path) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = tuple(reader.fieldnames or ())
        for column in COLUMNS:
            if column not in header:
                raise InputError(
                    "column is missing", file=f"{path}:1", key=column, allowed=", ".join(COLUMNS)
                )
        for column in header:
            if header.count(column) > 1:
                raise InputError("column occurs twice", file=f"{path}:1", key=column)
            if column not in COLUMNS:
                raise InputError(
                    "unknown column", file=f"{path}:1", key=column, allowed=nearest(column, COLUMNS)
                )
        rows = tuple(_row(fields, path, reader.line_num) for fields in reader)
    except csv.Error as error:
        raise InputError(f"not a comma-separated table: {error}", file=f"{path}:{reader.line_num}") from None
    if not rows:
        raise InputError("cost table has no rows", file=path)
    return rows


def table_text(rows: Iterable[Mapping[str, str]]) -> str:
    """Rows, each a text for every column, as the text of a cost table."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def make_table(rows: tuple[CostRow, ...]) -> CostTable:
    """An indexed table. Raises InputError where two rows price the same thing or SRAM cells are mixed."""
    index: dict[tuple[str, str, str], dict[ParamKey, CostRow]] = {}
    for row in rows:
        group = index.setdefault((row.kind, row.quantity, row.event), {})
        if row.params in group:
            raise InputError(
                f"the same constant as in {group[row.params].origin}",
                file=row.origin,
                key="params",
                value=param_text(row.params),
            )
        group[row.params] = row
    _refuse_mixed_cells(rows)
    macros: dict[tuple[str, str, str], dict[tuple[int, int], CostRow]] = {}
    for row in rows:
        if row.kind == "sram_macro":
            params = dict(row.params)
            size = int(params["words"]), int(params["width_bits"])
            macros.setdefault((str(params["ports"]), row.quantity, row.event), {})[size] = row
    return CostTable(rows, index, macros)


def _refuse_mixed_cells(rows: tuple[CostRow, ...]) -> None:
    first: CostRow | None = None
    for row in rows:
        if row.kind != "sram_macro":
            continue
        if first is None:
            first = row
        here, there = memory_condition(row), memory_condition(first)
        if here != there:
            raise InputError(
                f"SRAM rows mix memory cells or conditions: {here} here, {there} in {first.origin}",
                file=row.origin,
                key="params",
                allowed="one cell type, supply and temperature in a technology",
            )


def memory_condition(row: CostRow) -> str:
    """Cell type, supply and temperature of an SRAM macro."""
    return f"{dict(row.params)['cell']} at {row.vdd} V and {row.temperature_c} C"


def _row(fields: Mapping[str, str | None], path: Path, line: int) -> CostRow:
    where = f"{path}:{line}"
    if None in fields.values() or None in fields:
        raise InputError(f"row does not have {len(COLUMNS)} fields", file=where)
    cell = {name: (value or "").strip() for name, value in fields.items()}

    def number(column: str) -> float:
        try:
            value = float(cell[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError("not a number", file=where, key=column, value=cell[column])
        return value

    def condition(column: str) -> float | None:
        return number(column) if cell[column] else None

    def one_of(column: str, allowed: tuple[str, ...]) -> str:
        if cell[column] not in allowed:
            raise InputError(
                f"not a {column}", file=where, key=column, value=cell[column], allowed=", ".join(allowed)
            )
        return cell[column]

    for column in ("kind", "source"):
        if not cell[column]:
            raise InputError("must not be empty", file=where, key=column)
    kind = cell["kind"]
    quantity = one_of("quantity", tuple(UNITS))
    known = KINDS.get(kind)
    value = number("value")
    counted_elsewhere = cell["note"] and cell["quality"] != "synthesised"
    if value < 0 or (value == 0 and (known or (quantity != LEAKAGE and not counted_elsewhere))):
        raise InputError(
            "must be above zero",
            file=where,
            key="value",
            value=cell["value"],
            allowed="zero only for a unit whose note says where it is counted instead",
        )
    if (quantity == ENERGY) != bool(cell["event"]):
        raise InputError(
            "an energy needs an event, nothing else has one", file=where, key="event", value=cell["event"]
        )
    if known and cell["event"]:
        one_of("event", known.events)
    params = _params(cell["params"], kind, known, where)
    if known and quantity == LEAKAGE_DENSITY and params:
        raise InputError("a density holds for every width", file=where, key="params", value=cell["params"])
    if known and quantity != LEAKAGE_DENSITY:
        _complete(params, known, where, cell["params"])
    return CostRow(
        kind=kind,
        params=param_key(kind, params) if quantity != LEAKAGE_DENSITY else (),
        quantity=quantity,
        event=cell["event"],
        value=value,
        node_nm=condition("node_nm"),
        vdd=condition("vdd"),
        temperature_c=condition("temperature_c"),
        quality=one_of("quality", QUALITIES),
        source=cell["source"],
        note=cell["note"],
        origin=f"{path.name}:{line}",
    )


def _params(text: str, kind: str, known: Kind | None, where: str) -> dict[str, Param]:
    params: dict[str, Param] = {}
    for pair in _PAIRS.split(text) if text else ():
        name, equals, value = pair.partition("=")
        if not (name and equals and value) or name in params:
            raise InputError("not a name=value pair", file=where, key="params", value=pair)
        whole = value.isascii() and value.isdigit() and len(value) <= LONGEST_NUMBER
        if known is not None:
            allowed = known.params + known.optional
            if name not in allowed:
                raise InputError(
                    f"{kind} has no such parameter",
                    file=where,
                    key="params",
                    value=name,
                    allowed=", ".join(allowed),
                )
            if name not in TEXT_PARAMS and not (whole and value.strip("0")):
                raise InputError("must be a whole number from 1", file=where, key="params", value=pair)
        params[name] = int(value) if whole and name not in TEXT_PARAMS else value
    return params


def _complete(params: Mapping[str, Param], known: Kind, where: str, text: str) -> None:
    for name in known.params:
        if name not in params:
            raise InputError(f"parameter {name} is missing", file=where, key="params", value=text)
