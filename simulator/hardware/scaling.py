"""Scaling between technology nodes after Stillmaker & Baas.

A. Stillmaker and B. Baas, "Scaling equations for the accurate prediction of CMOS device performance from 180
nm to 7 nm", Integration, the VLSI Journal 58, 2017. Area: their table of factors, node to node. Energy and
delay: their polynomials in the supply voltage,

    E(V) = e2 V^2 + e1 V + e0        D(V) = d3 V^3 + d2 V^2 + d1 V + d0

fitted to an inverter chain at each node, for high-performance (hp) and low-power (lp) devices where both
exist; a value is multiplied by F_to(V_to) / F_from(V_from). The coefficients stand in ``tables/``, as the
paper prints them.

The paper has no factor for leakage. Ours is an assumption: the leakage current per area stays, so leakage
goes with area and supply voltage; the quality of a scaled leakage is ``estimated``. The factors were
measured on logic; how memories of another node come to a process is in ``sram_scaling``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from simulator.errors import InputError
from simulator.hardware.table import AREA, DELAY, ENERGY, LEAKAGE

_TABLES = Path(__file__).parent / "tables"

LOWEST_VDD = 0.5
HIGHEST_VDD = 1.2
"""Below 65 nm the polynomials hold between these; a node whose nominal supply is higher goes up to that."""


KEPT_LEAKAGE = "leakage current per area kept (assumption; the scaling tables have none)"


@dataclass(frozen=True)
class Polynomials:
    """Delay and energy factors of one node and device, highest power of V first."""

    nominal_vdd: float
    delay: tuple[float, ...]
    energy: tuple[float, ...]


@dataclass(frozen=True)
class Scaling:
    """From one node to another; ``vdd`` of the target, or its nominal supply."""

    from_nm: float
    to_nm: float
    vdd: float | None = None

    def __post_init__(self) -> None:
        nodes = sorted({node for node, _ in polynomials()}, reverse=True)
        for key, node in (("node_nm", self.from_nm), ("scale_to_nm", self.to_nm)):
            if node not in nodes:
                raise InputError(
                    "the scaling tables do not have this node",
                    key=key,
                    value=node,
                    allowed=", ".join(f"{node:g}" for node in nodes),
                )
        for device in ("hp", "lp"):
            check_vdd(self.to_nm, device, self.target_vdd(device))

    def target_vdd(self, device: str) -> float:
        """Supply of the target in V."""
        return polynomials()[self.to_nm, device].nominal_vdd if self.vdd is None else self.vdd

    def wire_factor(self, from_vdd: float) -> tuple[float, str]:
        """The same for the energy of a wire of given length: half C V^2 with the capacitance per length kept, which
        hardly changes from node to node (Keckler et al., IEEE Micro 31(5), 2011)."""
        to_vdd = self.target_vdd("hp")
        factor = (to_vdd / from_vdd) ** 2
        nodes = f"{self.from_nm:g} to {self.to_nm:g} nm"
        return (
            factor,
            f"scaled {nodes}, {from_vdd:g} to {to_vdd:g} V, capacitance of wires kept: x {factor:.4g}",
        )

    def factor(self, quantity: str, device: str, from_vdd: float) -> tuple[float, str]:
        """(multiplier, how it was obtained) for a circuit of ``device`` whose value holds at ``from_vdd``."""
        to_vdd = self.target_vdd(device)
        area = area_factors()[self.from_nm, self.to_nm]
        paper = "Stillmaker & Baas 2017"
        nodes = f"{self.from_nm:g} to {self.to_nm:g} nm"
        if quantity == AREA:
            return area, f"scaled {nodes} ({paper}, area table): x {area:g}"
        if quantity == LEAKAGE:
            factor = to_vdd / from_vdd * area
            return factor, f"scaled {nodes}, {from_vdd:g} to {to_vdd:g} V, {KEPT_LEAKAGE}: x {factor:.4g}"
        check_vdd(self.from_nm, device, from_vdd)
        source, target = polynomials()[self.from_nm, device], polynomials()[self.to_nm, device]
        if quantity == ENERGY:
            factor = _value(target.energy, to_vdd) / _value(source.energy, from_vdd)
        elif quantity == DELAY:
            factor = _value(target.delay, to_vdd) / _value(source.delay, from_vdd)
        else:
            raise ValueError(f"no scaling rule for {quantity}")
        name = "energy" if quantity == ENERGY else "delay"
        return factor, (
            f"scaled {nodes}, {from_vdd:g} to {to_vdd:g} V ({paper}, {name}, {device}): x {factor:.4g}"
        )


def check_vdd(node: float, device: str, vdd: float) -> None:
    """Raises InputError where the polynomials of a node do not hold."""
    node_polynomials = polynomials()[node, device]
    highest = max(HIGHEST_VDD, node_polynomials.nominal_vdd)
    usable = _value(node_polynomials.energy, vdd) > 0 and _value(node_polynomials.delay, vdd) > 0
    if not (LOWEST_VDD <= vdd <= highest and usable):
        raise InputError(
            f"outside the supply range of the scaling equations at {node:g} nm",
            key="vdd",
            value=vdd,
            allowed=f"{LOWEST_VDD} to {highest} V",
        )


@cache
def area_factors() -> dict[tuple[float, float], float]:
    """(from node, to node) -> area multiplier."""
    with open(_TABLES / "stillmaker_baas_2017_area.csv", encoding="utf-8") as file:
        return {(int(r["from_nm"]), int(r["to_nm"])): float(r["factor"]) for r in csv.DictReader(file)}


@cache
def polynomials() -> dict[tuple[float, str], Polynomials]:
    """(node, device) -> polynomials; from 65 nm up the paper has one device, which both names mean."""
    found: dict[tuple[float, str], Polynomials] = {}
    with open(_TABLES / "stillmaker_baas_2017_factors.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[int(row["node_nm"]), row["device"]] = Polynomials(
                nominal_vdd=float(row["nominal_vdd"]),
                delay=tuple(float(row[name]) for name in ("d3", "d2", "d1", "d0")),
                energy=tuple(float(row[name]) for name in ("e2", "e1", "e0")),
            )
    return found


def _value(coefficients: tuple[float, ...], vdd: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = value * vdd + coefficient
    return value
