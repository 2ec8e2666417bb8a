"""What a component costs: a unit that was characterised whole, else the sum of its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from simulator.errors import InputError
from simulator.hardware.constant import Constant
from simulator.hardware.kinds import KINDS
from simulator.hardware.structure import Component, Param, Part
from simulator.hardware.table import AREA, DELAY, ENERGY, LEAKAGE, TARGET, softest


class Prices(Protocol):
    """What pricing needs of a technology."""

    @property
    def name(self) -> str: ...

    def constant(
        self, kind: str, params: Mapping[str, Param], quantity: str, event: str = ""
    ) -> Constant: ...

    def find(
        self, kind: str, params: Mapping[str, Param], quantity: str, event: str = ""
    ) -> Constant | None: ...

    def targets(self, kind: str, params: Mapping[str, Param]) -> Sequence[Param]: ...


@dataclass(frozen=True)
class Used:
    """A constant at its place: ``count`` circuits ``part`` in an instance; no name where priced whole."""

    part: str
    count: int
    constant: Constant


@dataclass(frozen=True)
class PricedComponent:
    """Costs of one instance of a component; ``count`` instances exist."""

    name: str
    kind: str
    count: int
    area_um2: float
    leakage_nw: float
    energy_pj: Mapping[str, float]
    """Component event -> energy, of all ``copies``."""
    delay_ps: float | None
    area_quality: str
    leakage_quality: str
    energy_quality: Mapping[str, str]
    constants: tuple[Used, ...]
    events: Mapping[str, Mapping[tuple[str, str], int]]
    """Component event -> {(part, part event): how many}; empty for a component priced whole."""
    silicon: bool = True
    """False for DRAM, whose area and standby power are outside the model."""
    dequantizes: bool = False
    """See `Component`."""
    copies: int = 1
    """See `Component`."""

    @property
    def quality(self) -> str:
        """The softest of all its constants."""
        return softest([self.area_quality, self.leakage_quality, *self.energy_quality.values()])

    @property
    def source(self) -> str:
        """All sources, each once."""
        return "; ".join(dict.fromkeys(used.constant.source for used in self.constants))


def price(component: Component, prices: Prices, clock_ghz: float | None = None) -> PricedComponent:
    """Costs of ``component``: its own rows (exact parameters), its circuit kind, or the sum of its parts.

    Of a unit that was built for several clocks the smallest is taken that meets ``clock_ghz``, else the fastest;
    without a clock the smallest. Raises InputError naming the component and whatever has no row.
    """
    try:
        if _is_unit(component, prices):
            whole = _price_whole(_built(component, prices, clock_ghz), prices, tuple(component.events))
            return _together(whole, component.copies)
        if component.parts:
            return _together(_price_parts(component, prices), component.copies)
        if component.kind in KINDS:
            return _price_whole(component, prices, KINDS[component.kind].events)
        raise InputError(
            f"technology {prices.name} has no row for a {component.kind} with exactly these parameters, "
            "and the component names no parts to add up",
            value=dict(component.params),
        )
    except InputError as error:
        raise InputError(
            error.problem,
            file=error.file,
            key=f"component {component.name}" + (f", {error.key}" if error.key else ""),
            value=error.value,
            allowed=error.allowed,
        ) from None


def _together(priced: PricedComponent, copies: int) -> PricedComponent:
    """With the energies of all copies that an event is counted once for."""
    return replace(
        priced,
        copies=copies,
        energy_pj={event: copies * energy for event, energy in priced.energy_pj.items()},
        events={
            event: {part: copies * times for part, times in parts.items()}
            for event, parts in priced.events.items()
        },
    )


def _is_unit(component: Component, prices: Prices) -> bool:
    """True for a component that has exact rows of its own: they decide, and none of them may be missing."""
    if component.kind in KINDS:
        return False
    asked = [(AREA, ""), (LEAKAGE, ""), (DELAY, ""), *((ENERGY, event) for event in component.events)]
    rows_are_there = any(prices.find(component.kind, component.params, *what) is not None for what in asked)
    return rows_are_there or bool(prices.targets(component.kind, component.params))


def _built(component: Component, prices: Prices, clock_ghz: float | None) -> Component:
    """The unit as built for one of the clocks that it was built for."""
    params = [component.params]
    params += [
        {**component.params, TARGET: target} for target in prices.targets(component.kind, component.params)
    ]
    if len(params) == 1:
        return component
    built = []
    for each in params:
        area, delay = (prices.find(component.kind, each, quantity) for quantity in (AREA, DELAY))
        if area is not None and delay is not None:
            late = clock_ghz is not None and delay.value * clock_ghz > 1000
            built.append((late, delay.value if late else area.value, each))
    return replace(component, params=min(built, key=lambda entry: entry[:2])[2]) if built else component


def _price_whole(component: Component, prices: Prices, events: tuple[str, ...]) -> PricedComponent:
    kind = KINDS.get(component.kind)
    silicon = kind.silicon if kind else True
    params = _cost_params(component)
    area = prices.constant(component.kind, params, AREA) if silicon else None
    leakage = prices.constant(component.kind, params, LEAKAGE) if silicon else None
    energy = {event: prices.constant(component.kind, params, ENERGY, event) for event in events}
    delay = prices.find(component.kind, params, DELAY)
    constants = [*filter(None, (area, leakage)), *energy.values(), *filter(None, (delay,))]
    outside = softest([constant.quality for constant in energy.values()]) if not silicon else ""
    return PricedComponent(
        name=component.name,
        kind=component.kind,
        count=component.count,
        dequantizes=component.dequantizes,
        area_um2=area.value if area else 0.0,
        leakage_nw=leakage.value if leakage else 0.0,
        energy_pj={event: constant.value for event, constant in energy.items()},
        delay_ps=delay.value if delay else None,
        area_quality=area.quality if area else outside,
        leakage_quality=leakage.quality if leakage else outside,
        energy_quality={event: constant.quality for event, constant in energy.items()},
        constants=tuple(Used("", 1, constant) for constant in constants),
        events={},
        silicon=silicon,
    )


def _price_parts(component: Component, prices: Prices) -> PricedComponent:
    parts = {part.name: part for part in component.parts}
    if len(parts) != len(component.parts):
        raise ValueError(f"component {component.name}: two parts of one name")
    used: list[Used] = []
    area = leakage = 0.0
    for part in component.parts:
        part_area = prices.constant(part.kind, part.params, AREA)
        part_leakage = prices.constant(part.kind, part.params, LEAKAGE)
        used += [Used(part.name, part.count, part_area), Used(part.name, part.count, part_leakage)]
        area += part.count * part_area.value
        leakage += part.count * part_leakage.value
    part_events: dict[tuple[str, str], Constant] = {}
    energy: dict[str, float] = {}
    for event, caused in component.events.items():
        for name, part_event in caused:
            if (name, part_event) not in part_events:
                constant = _part_energy(component, parts, name, part_event, prices)
                part_events[name, part_event] = constant
                used.append(Used(name, parts[name].count, constant))
        energy[event] = math.fsum(times * part_events[key].value for key, times in caused.items())
    # Between the parts synthesis would find more to share, or need buffers; registers alone are what they are.
    of_parts = "estimated"
    if all(part.kind == "register" for part in component.parts):
        of_parts = softest([each.constant.quality for each in used])
    return PricedComponent(
        name=component.name,
        kind=component.kind,
        count=component.count,
        dequantizes=component.dequantizes,
        area_um2=area,
        leakage_nw=leakage,
        energy_pj=energy,
        delay_ps=None,
        area_quality=of_parts,
        leakage_quality=of_parts,
        energy_quality=dict.fromkeys(energy, of_parts),
        constants=tuple(used),
        events={event: dict(caused) for event, caused in component.events.items()},
    )


def _part_energy(
    component: Component, parts: Mapping[str, Part], name: str, part_event: str, prices: Prices
) -> Constant:
    if name not in parts:
        raise ValueError(f"component {component.name}: an event names part {name!r}, which it does not have")
    part = parts[name]
    return prices.constant(part.kind, part.params, ENERGY, part_event)


def _cost_params(component: Component) -> dict[str, Param]:
    """What cost depends on: all parameters; of DRAM the device alone ("ddr4", also of part ddr4-3200)."""
    if component.kind != "dram":
        return dict(component.params)
    device = component.params.get("device", str(component.params.get("part", "")).partition("-")[0])
    return {"device": str(device).lower()} if device else {}
