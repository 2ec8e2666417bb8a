"""Arrays of equal area: how many PEs of each kind fit where so many of another kind do.

What counts is everything that an array needs to multiply in its formats: PEs with their operand and accumulator
registers, decoders and encoders at the edge, skew registers, adders of partial sums, the rescale unit. Buffers, the
vector unit and DRAM are not counted, because they are held fixed. Rows and columns are multiples of four, one at most
twice the other (the caller may say which), and take the largest area within the budget; what they leave of it is
reported, and so is on what the area rests (`Fit.quality_shares`): of arrays whose shares differ, sums of parts are
compared with synthesised units.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from simulator.arch import Accelerator, components, load_accelerator
from simulator.errors import InputError
from simulator.hardware import Technology, load_technology
from simulator.report.ledger import shares
from simulator.study.run import ArchLike
from simulator.units import ceil_div

HELD_FIXED = ("weights_buffer", "activations_buffer", "outputs_buffer", "vector", "dram")
"""Components that do not count."""
STEP = 4
"""Rows and columns are multiples of it."""
LONGEST_SIDE = 4096
"""Rows that are tried, at most."""


@dataclass(frozen=True)
class Fit:
    """The array of one kind that fits."""

    accelerator: Accelerator
    """With the rows and columns found."""
    area_um2: float
    budget_um2: float
    quality_shares: Mapping[str, float]
    """Shares of the area by quality, the firmest first."""

    @property
    def unused_share(self) -> float:
        """What the array leaves of the budget."""
        return 1 - self.area_um2 / self.budget_um2


def array_area_um2(arch: ArchLike, **changes: Any) -> float:
    """Area of what counts, um2. ``changes``: dotted keys of the accelerator."""
    accelerator = load_accelerator(arch, changes)
    return sum(area for _, area in _counted(accelerator, load_technology(accelerator.technology)))


def fit(
    arch: ArchLike, budget_um2: float, *, longer: Literal["rows", "cols"] | None = None, **changes: Any
) -> Fit:
    """The largest array of a kind within the budget; its rows and columns in ``arch`` count for nothing. ``longer``: of
    which there are at least as many as of the other. ``changes``: dotted keys of the accelerator. Raises InputError:
    the smallest array does not fit, or all that are tried do."""
    if longer not in (None, "rows", "cols"):
        raise InputError("no side of an array", key="longer", value=longer, allowed="rows, cols, or None")
    if not 0 < budget_um2 < math.inf:
        raise InputError("not an area", key="budget_um2", value=budget_um2, allowed="um2, above zero")
    accelerator = load_accelerator(arch, changes)
    technology = load_technology(accelerator.technology)

    def area(rows: int, cols: int) -> float:
        return sum(area for _, area in _counted(_sized(accelerator, rows, cols), technology))

    longest = area(LONGEST_SIDE, LONGEST_SIDE)
    if budget_um2 > longest:
        raise InputError(
            "more than any array that is tried",
            key="budget_um2",
            value=budget_um2,
            allowed=f"at most {longest:.6g} um2, {LONGEST_SIDE} x {LONGEST_SIDE} PEs",
        )
    largest = (0.0, 0, 0)
    for rows in range(STEP, LONGEST_SIDE + 1, STEP):
        least = rows if longer == "cols" else ceil_div(rows, 2 * STEP) * STEP
        widths = range(least, (rows if longer == "rows" else 2 * rows) + 1, STEP)
        fitting = bisect_right(widths, budget_um2, key=partial(area, rows))
        if not fitting:
            break
        largest = max(largest, (area(rows, widths[fitting - 1]), rows, widths[fitting - 1]))
    used, rows, cols = largest
    if not rows:
        smallest = area(STEP, STEP)
        raise InputError(
            f"the smallest array of {accelerator.name} takes {smallest:.6g} um2",
            key="budget_um2",
            value=budget_um2,
        )
    sized = _sized(accelerator, rows, cols)
    quality_shares = shares(_counted(sized, technology))
    return Fit(sized, used, budget_um2, quality_shares)


def _sized(accelerator: Accelerator, rows: int, cols: int) -> Accelerator:
    return load_accelerator(accelerator, {"array.rows": rows, "array.cols": cols})


def _counted(accelerator: Accelerator, technology: Technology) -> list[tuple[str, float]]:
    """(quality, area in um2) of every component that counts."""
    found = []
    for component in components(accelerator):
        if component.name not in HELD_FIXED:
            priced = technology.price(replace(component, count=1), accelerator.clock_ghz)
            found.append((priced.area_quality, priced.area_um2 * component.count))
    return found
