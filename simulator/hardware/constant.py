"""A number of the cost model with its provenance: an exact row of a table, or a curve through its rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from simulator.errors import InputError
from simulator.hardware.kinds import KINDS, Growth
from simulator.hardware.structure import Param
from simulator.hardware.table import (
    DELAY,
    ENERGY,
    UNITS,
    CostRow,
    CostTable,
    ParamKey,
    param_key,
    param_text,
    softest,
)

DEVICES = {"itrs-hp": "hp", "itrs-lop": "lp", "itrs-lstp": "lp"}
"""Memory cell type -> device class of the scaling equations; logic is hp."""


@dataclass(frozen=True)
class Constant:
    """A value, its quality, who says so and the arithmetic between what they say and the value."""

    kind: str
    params: ParamKey
    quantity: str
    event: str
    value: float
    quality: str
    source: str
    formula: str
    """Empty where the value is the source's own number."""
    origins: tuple[str, ...]
    """``file:line`` of each row."""
    node_nm: float | None
    vdd: float | None
    device: str

    @property
    def unit(self) -> str:
        return UNITS[self.quantity]

    def times(self, factor: float, how: str, quality: str) -> Constant:
        """The same constant multiplied, saying how; never of a better quality than before."""
        return replace(
            self,
            value=self.value * factor,
            quality=softest((self.quality, quality)),
            formula="; ".join(filter(None, (self.formula, how))),
        )


def from_rows(
    rows: Iterable[CostRow], kind: str, params: ParamKey, value: float, formula: str = "", quality: str = ""
) -> Constant:
    """A constant obtained from ``rows`` of one quantity; ``quality`` may soften theirs."""
    rows = tuple(rows)
    first = rows[0]
    sources = dict.fromkeys(f"{row.source} ({row.note})" if row.note else row.source for row in rows)
    cell = dict(first.params).get("cell")
    return Constant(
        kind=kind,
        params=params,
        quantity=first.quantity,
        event=first.event,
        value=value,
        quality=softest([row.quality for row in rows] + ([quality] if quality else [])),
        source="; ".join(sources),
        formula=formula,
        origins=tuple(row.origin for row in rows),
        node_nm=first.node_nm,
        vdd=first.vdd,
        device=DEVICES.get(str(cell), "hp"),
    )


def exact(
    table: CostTable, kind: str, params: Mapping[str, Param], quantity: str, event: str = ""
) -> Constant | None:
    """The constant of the row with exactly these parameters."""
    key = param_key(kind, params)
    row = table.select(kind, quantity, event).get(key)
    return None if row is None else from_rows((row,), kind, key, row.value)


def curve(
    table: CostTable, kind: str, params: Mapping[str, Param], quantity: str, event: str = ""
) -> Constant | None:
    """The constant read off the points of ``kind`` that are nearest; None without points.

    Of a kind with ``axes`` straight lines join the two sizes on either side along each. Else, and beyond such points,
    the growth curve over its size joins the nearest two; of several points of one size the one most alike counts.
    Below the lowest and above the highest the curve is continued, and the formula says so. Quality: ``fitted`` between
    synthesised or compiled points, otherwise ``estimated``; a whole number of identical single bits (register) is no
    estimate.
    """
    growth = KINDS[kind].growth if kind in KINDS else None
    if growth is None or quantity == DELAY:
        return None
    rows = tuple(table.select(kind, quantity, event).values())
    key = param_key(kind, params)
    on_axes = _on_axes(rows, growth.axes, kind, key)
    if on_axes is not None:
        return on_axes
    points = _most_alike(rows, growth, key)
    size = growth.size(_widths(key))
    if growth.curve == "proportional" and len(points) < 2:
        return _proportional(points, growth, size, kind, key)
    if len(points) < 2:
        return None
    low, high = _neighbours([at for at, _ in points], size)
    (x0, row0), (x1, row1) = points[low], points[high]
    y0, y1 = row0.value, row1.value
    if growth.curve == "power":
        exponent = math.log(y1 / y0) / math.log(x1 / x0)
        value = y0 * (size / x0) ** exponent
        how = f"{y0:g} * ({size:g}/{x0:g})^{exponent:.4f}"
        name = "power law"
    else:
        value, how = _between(x0, y0, x1, y1, size)
        name = "line"
    if not value > 0:
        raise InputError(
            f"{kind}: {name} through {row0.origin} and {row1.origin} is not above zero at {param_text(key)}",
            allowed="add a row for this width to a cost table",
        )
    inside = x0 <= size <= x1
    where = "" if inside else f", continued {'below' if size < x0 else 'above'} the nearest point"
    formula = (
        f"{name} in s = {growth.formula} through {param_text(row0.params)} ({y0:g}) and "
        f"{param_text(row1.params)} ({y1:g}){where}: {how} = {value:.6g} {UNITS[quantity]}"
    )
    surrounded = inside and not growth.axes
    return from_rows((row0, row1), kind, key, value, formula, _read_off((row0, row1), surrounded))


def _read_off(rows: tuple[CostRow, ...], inside: bool) -> str:
    """Quality of what lies between rows."""
    measured = all(row.quality in ("synthesised", "compiled") for row in rows)
    return "fitted" if inside and measured else "estimated"


def _between(x0: float, y0: float, x1: float, y1: float, x: float) -> tuple[float, str]:
    slope = (y1 - y0) / (x1 - x0)
    return y0 + slope * (x - x0), f"{y0:g} + {slope:.6g} * ({x:g} - {x0:g})"


def _most_alike(rows: tuple[CostRow, ...], growth: Growth, key: ParamKey) -> list[tuple[float, CostRow]]:
    """(size, row), ascending, one of each size: the one whose parameters have the nearest ratios to those asked for."""
    wanted = _widths(key)

    def unlike(row: CostRow) -> float:
        return sum(abs(math.log(value / wanted[name])) for name, value in _widths(row.params).items())

    found: dict[float, CostRow] = {}
    for row in sorted(rows, key=unlike):
        found.setdefault(growth.size(_widths(row.params)), row)
    return sorted(found.items(), key=lambda point: point[0])


def _on_axes(rows: tuple[CostRow, ...], axes: tuple[str, ...], kind: str, key: ParamKey) -> Constant | None:
    """Between four points, first along one axis, then along the other; None where they do not surround ``key``."""
    if not axes:
        return None
    first, second = axes
    grid: dict[int, dict[int, CostRow]] = {}
    for row in rows:
        widths = _widths(row.params)
        places = [(widths[first], widths[second])]
        places += [places[0][::-1]] if KINDS[kind].commutative else []
        for x, y in places:
            grid.setdefault(y, {})[x] = row
    x, y = (_widths(key)[name] for name in axes)
    lines = {at: near for at, line in grid.items() if (near := _around(line, x)) is not None}
    ends = _around(lines, y)
    if ends is None:
        return None
    used: list[CostRow] = []
    told, values = [], []
    for at in ends:
        (x0, x1), line = lines[at], grid[at]
        used += [line[x0], line[x1]]
        value, how = line[x0].value, f"{line[x0].value:g}"
        if x0 != x1:
            value, how = _between(x0, line[x0].value, x1, line[x1].value, x)
        values.append(value)
        told.append(f"at {second}={at}: {how} = {value:.6g}")
    value = values[0]
    if ends[0] != ends[1]:
        value, how = _between(ends[0], values[0], ends[1], values[1], y)
        told.append(f"between: {how} = {value:.6g}")
    rows_used = tuple({row.origin: row for row in used}.values())
    points = ", ".join(f"{param_text(row.params)} ({row.value:g})" for row in rows_used)
    unit = UNITS[rows_used[0].quantity]
    formula = f"lines in {first}, then in {second}, through {points}: {'; '.join(dict.fromkeys(told))} {unit}"
    return from_rows(rows_used, kind, key, value, formula, _read_off(rows_used, True))


def _around(places: Mapping[int, object], at: int) -> tuple[int, int] | None:
    """The nearest places on either side, twice the same where it is one of them; None beyond the last."""
    if not places or not min(places) <= at <= max(places):
        return None
    return max(place for place in places if place <= at), min(place for place in places if place >= at)


def _proportional(
    points: list[tuple[float, CostRow]], growth: Growth, size: float, kind: str, key: ParamKey
) -> Constant | None:
    if not points:
        return None
    ((at, row),) = points
    if at <= 0 or size <= 0:
        raise InputError(f"{kind}: size {growth.formula} is 0, which gives no curve", file=row.origin)
    value = row.value * size / at
    formula = f"{row.value:g} x {size:g}/{at:g} ({growth.formula}) = {value:.6g} {UNITS[row.quantity]}"
    single_bits = dict(row.params) == {"bits": 1}
    return from_rows((row,), kind, key, value, formula, "" if single_bits else "estimated")


def _neighbours(sizes: list[float], size: float) -> tuple[int, int]:
    """Indices of the two points that bracket ``size``, or of the nearest two where none do."""
    high = next((i for i, at in enumerate(sizes) if at >= size), len(sizes) - 1)
    high = max(high, 1)
    return high - 1, high


def _widths(params: ParamKey) -> dict[str, int]:
    return {name: int(value) for name, value in params}


def describe(kind: str, params: Mapping[str, Param], quantity: str, event: str) -> str:
    """'energy_pj of event "operate" of int_multiplier (a_bits=8 b_bits=4)', for messages."""
    what = f'{quantity} of event "{event}"' if quantity == ENERGY else quantity
    inside = param_text(param_key(kind, params))
    return f"{what} of {kind}" + (f" ({inside})" if inside else "")
