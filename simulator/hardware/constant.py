"""A number of the cost model with its provenance: an exact row of a table, or a curve through its rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from simulator.errors import InputError
from simulator.hardware.kinds import KINDS, Growth
from simulator.hardware.structure import Param
from simulator.hardware.table import (
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
    """The constant read off the growth curve of ``kind`` through the nearest points; None without points.

    Between two points the curve joins these two. Below the lowest and above the highest point the curve of
    the nearest two is continued, and the formula says so. Quality: ``estimated``; a whole number of
    identical single bits (register) is no estimate.
    """
    growth = KINDS[kind].growth if kind in KINDS else None
    if growth is None:
        return None
    rows = table.select(kind, quantity, event).values()
    points = sorted(((growth.size(_widths(row.params)), row) for row in rows), key=lambda point: point[0])
    key = param_key(kind, params)
    size = growth.size(_widths(key))
    if growth.curve == "proportional":
        return _proportional(points, growth, size, kind, key)
    if len(points) < 2:
        return None
    low, high = _neighbours([at for at, _ in points], size)
    (x0, row0), (x1, row1) = points[low], points[high]
    if x0 == x1:
        raise InputError(
            f"{kind}: two points of the same size {x0:g} ({growth.formula}) give no curve", file=row1.origin
        )
    y0, y1 = row0.value, row1.value
    if growth.curve == "power":
        exponent = math.log(y1 / y0) / math.log(x1 / x0)
        value = y0 * (size / x0) ** exponent
        how = f"{y0:g} * ({size:g}/{x0:g})^{exponent:.4f}"
        name = "power law"
    else:
        slope = (y1 - y0) / (x1 - x0)
        value = y0 + slope * (size - x0)
        how = f"{y0:g} + {slope:.6g} * ({size:g} - {x0:g})"
        name = "line"
    if not value > 0:
        raise InputError(
            f"{kind}: {name} through {row0.origin} and {row1.origin} is not above zero at {param_text(key)}",
            allowed="add a row for this width to a cost table",
        )
    where = "" if x0 <= size <= x1 else f", continued {'below' if size < x0 else 'above'} the nearest point"
    formula = (
        f"{name} in s = {growth.formula} through {param_text(row0.params)} ({y0:g}) and "
        f"{param_text(row1.params)} ({y1:g}){where}: {how} = {value:.6g} {UNITS[quantity]}"
    )
    return from_rows((row0, row1), kind, key, value, formula, "estimated")


def _proportional(
    points: list[tuple[float, CostRow]], growth: Growth, size: float, kind: str, key: ParamKey
) -> Constant | None:
    if not points:
        return None
    # From the nearest tabulated size at or below: a table with several widths is used as far as it goes.
    below = [point for point in points if point[0] <= size] or points[:1]
    at, row = below[-1]
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
