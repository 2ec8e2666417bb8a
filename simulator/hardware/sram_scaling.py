"""Memories of another node, brought to a process by macros of that process.

A table of macros from a memory compiler of another node says how cost grows with depth and width. How much a memory
costs here is said by macros that were laid out in the process itself, rows of kind ``sram_reference``: each value of
the table is multiplied by the geometric mean, over these macros, of (the macro here) / (the same size in the table).

Inverter chains, from which scaling equations of logic come, are a poor guide to memories: bit cells shrink less than
logic, and most of an access is charge on long wires. An event without a reference takes the factor of the others;
leakage without one keeps its current per area, as in ``scaling``; an access time without one is scaled like logic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from simulator.errors import InputError
from simulator.hardware.constant import Constant
from simulator.hardware.kinds import KINDS
from simulator.hardware.scaling import KEPT_LEAKAGE
from simulator.hardware.sram import size_text
from simulator.hardware.structure import Param
from simulator.hardware.table import AREA, ENERGY, LEAKAGE, CostRow, CostTable
from simulator.units import BITS_PER_BYTE

Find = Callable[[str, Mapping[str, Param], str, str], Constant | None]


@dataclass(frozen=True)
class _Factor:
    value: float
    how: str
    rows: tuple[CostRow, ...]


def scaled_by_references(
    constant: Constant, table: CostTable, compiled: Find, target_vdd: float
) -> Constant | None:
    """A ``constant`` of a memory at the node of ``table``, which has the references; None where none applies.

    ``compiled`` finds constants of the table that is scaled, ``target_vdd`` is the supply of its cells here.
    """
    factor = _factor(constant.quantity, constant.event, table, compiled)
    quality = "scaled"
    if factor is None and constant.quantity == LEAKAGE and constant.vdd is not None:
        area = _factor(AREA, "", table, compiled)
        if area is not None:
            how = f"{KEPT_LEAKAGE}, {constant.vdd:g} to {target_vdd:g} V; area {area.how}"
            factor = replace(area, value=area.value * target_vdd / constant.vdd, how=how)
            quality = "estimated"
    if factor is None:
        return None
    node = f"{constant.node_nm:g} to {factor.rows[0].node_nm:g} nm"
    scaled = constant.times(factor.value, f"scaled {node}, {factor.how}: x {factor.value:.4g}", quality)
    sources = dict.fromkeys([constant.source, *(row.source for row in factor.rows)])
    return replace(
        scaled,
        source="; ".join(sources),
        origins=(*constant.origins, *(row.origin for row in factor.rows)),
        node_nm=factor.rows[0].node_nm,
        vdd=factor.rows[0].vdd,
    )


def _factor(quantity: str, event: str, table: CostTable, compiled: Find) -> _Factor | None:
    """Geometric mean over the references; an energy of an event without any takes those of the other events."""
    rows = tuple(table.select("sram_reference", quantity, event).values())
    borrowed = ""
    if not rows and quantity == ENERGY:
        events = KINDS["sram_reference"].events
        rows = tuple(row for each in events for row in table.select("sram_reference", ENERGY, each).values())
        borrowed = f"as for a {' and a '.join(sorted({row.event for row in rows}))}, "
    if not rows:
        return None
    ratios = [row.value / _same(row, compiled).value for row in rows]
    sizes = ", ".join(map(size_text, rows))
    spread = f"geometric mean of {min(ratios):.3g} to {max(ratios):.3g}, " if len(rows) > 1 else ""
    how = f"{borrowed}{spread}by {len(rows)} macro{'s' * (len(rows) > 1)} of this process ({sizes})"
    return _Factor(math.exp(math.fsum(map(math.log, ratios)) / len(ratios)), how, rows)


def _same(row: CostRow, compiled: Find) -> Constant:
    """What the table has for the size of a reference."""
    params = dict(row.params)
    words, width = int(params["words"]), int(params["width_bits"])
    memory = {"bytes": words * width // BITS_PER_BYTE, "width_bits": width, "ports": params["ports"]}
    found = compiled("sram", memory, row.quantity, row.event)
    if found is None:
        raise InputError("the scaled table has no memory of the size of this reference", file=row.origin)
    return found
