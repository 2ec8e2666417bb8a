"""The tables of docs/fidelity.md: what papers say of hardware, beside what the shipped tables say.

`PYTHONPATH=. python tests/docs/fidelity.py` writes them anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fidelity_claims import (
    Claim,
    Silicon,
    Value,
    designs,
    first_pair,
    fp8_versus_int8,
    horowitz,
    int_versus_fp,
    lmul,
    relative_to_an_adder,
    seven_nm,
    work_pj,
)

from simulator.arch import components, load_accelerator
from simulator.arch.load import accelerator_names
from simulator.errors import InputError
from simulator.hardware import Component, load_technology
from simulator.hardware.table import AREA, ENERGY

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fidelity.md"
BLOCK = re.compile(r"(?<=<!-- table: )(\w+)( -->\n)(.*?)(?=<!-- end -->)", flags=re.DOTALL)
LIBRARIES = ("asap7", "sg13g2")
NEAR, SAME_SIZE = 1.25, 2.0
"""Ratios up to which a claim is supported, and a magnitude agrees."""
NO_HARDWARE = "no hardware yet"


def verdict(claim: Claim, value: Value) -> str:
    """What one library says of a claim, by the rule that the page states."""
    if value is None:
        return ""
    off = abs(math.log(value / claim.theirs))
    if off <= math.log(NEAR) or (claim.at_most and value <= claim.theirs):
        return "yes"
    if not claim.is_ratio:
        return "in magnitude" if off <= math.log(SAME_SIZE) else "no"
    if (value > 1) != (claim.theirs > 1):
        return "no"
    return "in direction" if off <= math.log(SAME_SIZE) else "in direction alone"


def verdicts(claim: Claim, ours: Sequence[Value]) -> str:
    """Of both libraries, once where they agree."""
    found = {
        name: verdict(claim, value) for name, value in zip(LIBRARIES, ours, strict=True) if value is not None
    }
    if not found:
        return NO_HARDWARE
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{name}: {said}" for name, said in found.items())


def rows_of(claims: Sequence[Claim], silicons: Sequence[Silicon]) -> str:
    head = ["claim", "theirs"]
    for name in LIBRARIES:
        head += [name, "ours / theirs"]
    rows = [[*head, "supported", "why they differ"]]
    for claim in claims:
        ours = [claim.ours(silicon) for silicon in silicons]
        cells = [claim.what, number(claim.theirs)]
        for value in ours:
            cells += ["", ""] if value is None else [number(value), f"{value / claim.theirs:.2f}"]
        rows.append([*cells, verdicts(claim, ours), claim.why])
    return table(rows)


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *body))


def estimates(silicons: Sequence[Silicon]) -> str:
    """Sums of parts over what was synthesised whole, of every component of a shipped accelerator that is both."""
    rows = [["component", "of"]]
    for name in LIBRARIES:
        rows[0] += [f"{name} area", "leakage", "energy"]
    seen: dict[str, tuple[Component, list[str]]] = {}
    for arch in accelerator_names():
        machine = load_accelerator(arch)
        for component in components(machine, first_pair(machine)):
            if component.parts:
                key = f"{component.kind} {sorted(component.params.items())}"
                seen.setdefault(key, (component, []))[1].append(arch)
    for component, archs in seen.values():
        cells = [estimate(silicon, component) for silicon in silicons]
        if any(cells):
            shown = ", ".join(f"`{arch}`" for arch in archs[:2]) + (
                f" and {len(archs) - 2} more" if archs[2:] else ""
            )
            rows.append(
                [
                    f"{component.name} (`{component.kind}`)",
                    shown,
                    *(text for cell in cells for text in cell or [""] * 3),
                ]
            )
    return table(rows)


def estimate(silicon: Silicon, component: Component) -> list[str] | None:
    """Ratios of area, leakage and energy of work; None where there is nothing to compare."""
    whole = silicon.whole(component)
    if whole is None or whole.events:
        return None
    try:
        parts = silicon.technology.price(replace(component, kind="sum of parts"))
    except InputError:
        return None
    lanes = int(component.params.get("lanes", 1))
    energy = work_pj(parts, lanes) / work_pj(whole, lanes) if whole.energy_pj else None
    ratios = [parts.area_um2 / whole.area_um2, parts.leakage_nw / whole.leakage_nw, energy]
    return ["" if value is None else f"{value:.2f}" for value in ratios]


TABLES: dict[str, Callable[[Sequence[Silicon]], str]] = {
    "horowitz": lambda silicons: rows_of([*horowitz(ENERGY), *horowitz(AREA)], silicons),
    "horowitz_relative": lambda silicons: rows_of(
        [*relative_to_an_adder(ENERGY), *relative_to_an_adder(AREA)], silicons
    ),
    "seven_nm": lambda silicons: rows_of(seven_nm(), silicons),
    "fp8_versus_int8": lambda silicons: rows_of(fp8_versus_int8(), silicons),
    "int_versus_fp": lambda silicons: rows_of(int_versus_fp(), silicons),
    "lmul": lambda silicons: rows_of(lmul(), silicons),
    "designs": lambda silicons: rows_of(designs(), silicons),
    "estimates": estimates,
}


def rewritten(text: str) -> str:
    """The page with its tables computed anew."""
    silicons = [Silicon(load_technology(name)) for name in LIBRARIES]
    return BLOCK.sub(lambda found: found[1] + found[2] + TABLES[found[1]](silicons), text)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
