"""The ledger: counted events times priced events, and leakage over time. Nothing here knows files or tables.

Energy of a layer = sum over components and events of count x energy of the event
                  + sum over components of leakage x instances x the layer's cycles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from simulator.engine.record import STACK_KEYS, LayerRecord
from simulator.errors import InputError
from simulator.hardware import QUALITIES, PricedComponent
from simulator.hardware.kinds import KINDS

BOUNDS = ("compute", "dram", "sram", "fill", "vector")
"""Resources that can bound a layer; of two that set the same lower bound the first is named."""

NW_NS_IN_PJ = 1e-6
"""1 nW for 1 ns is 1e-18 J."""


class Entry(NamedTuple):
    """Energy that one event of one component used in one layer; leakage is not counted."""

    component: str
    event: str
    counted: int | None
    energy_pj: float
    quality: str
    dequantizes: bool = False
    """It applies scales of groups or zero points, or decodes operands."""


def enter(layer: LayerRecord, priced: Mapping[str, PricedComponent], period_ns: float) -> list[Entry]:
    """All entries of a layer: the counted events, then the leakage of every component.

    Raises ValueError (a fault of the engine or the design, not of the user) where an event has no price.
    """
    entries = []
    for (name, event), count in layer.counts.items():
        component = priced.get(name)
        if component is None or event not in component.energy_pj:
            raise ValueError(f"layer {layer.name}: no price for event {event!r} of component {name!r}")
        energy = count * component.energy_pj[event]
        dequantizes = component.dequantizes or (name, event) == ("vector", "correct")
        entries.append(Entry(name, event, count, energy, component.energy_quality[event], dequantizes))
    for component in priced.values():
        if component.silicon:
            leakage = component.count * component.leakage_nw * layer.cycles * period_ns * NW_NS_IN_PJ
            quality, dequantizes = component.leakage_quality, component.dequantizes
            entries.append(Entry(component.name, "leakage", None, leakage, quality, dequantizes))
    return entries


def check_layer(layer: LayerRecord) -> None:
    """Raises ValueError where a cycle stack has an unknown cause or does not sum to the layer's cycles."""
    for cause, cycles in layer.cycle_stack.items():
        if cause not in STACK_KEYS:
            raise ValueError(f"layer {layer.name}: {cause!r} is no cause of a cycle stack")
        if cycles < 0:
            raise ValueError(f"layer {layer.name}: {cycles} cycles of {cause}")
    total = sum(layer.cycle_stack.values())
    if total != layer.cycles:
        raise ValueError(f"layer {layer.name}: cycle stack sums to {total}, the layer takes {layer.cycles}")


def check_clock(priced: Iterable[PricedComponent], clock_ghz: float) -> None:
    """Raises InputError, naming the slowest, where a unit is slower than the clock; memories may take more cycles."""
    delays = [
        (component.delay_ps, component.name)
        for component in priced
        if component.delay_ps is not None and component.kind not in KINDS
    ]
    delay, name = max(delays, default=(0.0, ""))
    if delay * clock_ghz > 1000:
        raise InputError(
            f"component {name} takes {delay:g} ps, longer than a cycle",
            key="clock_ghz",
            value=clock_ghz,
            allowed=f"at most {_below(1000 / delay):.4g} GHz with this technology",
        )


def _below(value: float) -> float:
    """Four digits of a positive number, not rounded up: what is said to be met must be."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return math.floor(value / step) * step


def bound(layer: LayerRecord) -> str | None:
    """The resource that sets the highest lower bound: the layer's roofline; None where none is known."""
    known = [name for name in BOUNDS if name in layer.resource_cycles]
    return max(known, key=lambda name: layer.resource_cycles[name], default=None)


def utilization(layer: LayerRecord, cycles: int) -> float:
    """Real MACs over the MACs that the array could do in ``cycles``; 0 for a layer without MACs."""
    if layer.macs == 0:
        return 0.0
    return layer.macs / (layer.peak_macs_per_cycle * cycles)


def shares(amounts: Iterable[tuple[str, float]]) -> dict[str, float]:
    """(quality, amount) pairs -> share of each quality in the total, firmest first; empty for nothing."""
    by_quality: dict[str, list[float]] = {}
    for quality, amount in amounts:
        by_quality.setdefault(quality, []).append(amount)
    sums = {quality: math.fsum(by_quality[quality]) for quality in QUALITIES if quality in by_quality}
    total = math.fsum(sums.values())
    return {quality: amount / total for quality, amount in sums.items() if amount} if total else {}
