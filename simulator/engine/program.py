"""The DMA program of the reference engine: every transfer of a mapped operation, in the order in which it is served.

Each transfer has a step that releases it: the tile whose end frees the buffer slot that a load goes to, or completes
the results that are written. Transfers run sorted by that step; after the same step, loads come first (the one needed
soonest first, weights before activations), then the write-back, then partial sums that come back. A transfer never
overtakes another, so a faster DRAM can only make a run shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.mapping.plan import Plan, Step

START = -1
"""Released before the first tile."""
WEIGHTS, ACTIVATIONS, OUTPUTS = 0, 1, 2
_AXES = ("nk", "mk", "mn")


@dataclass(frozen=True)
class Visit:
    """A stay of one tile in a buffer: steps [opening, closing] use it."""

    operand: int
    serial: int
    opening: int
    closing: int
    tile: Step


@dataclass(frozen=True)
class Transfer:
    """One transfer of the program."""

    release: int
    """The step whose end allows it, or START."""
    kind: str
    """"load", "write" (finished results), "spill" or "restore" (partial sums)."""
    visit: Visit


def visits(plan: Plan, steps: list[Step], operand: int) -> list[Visit]:
    """The stays of an operand's tiles, in order of their first step."""
    mt, nt, kt = plan.counts
    tiles = {"m": mt, "n": nt, "k": kt}
    first, second = tuple(_AXES[operand])
    resident = tiles[first] * tiles[second] <= plan.slots[operand]
    share = plan.weight_reuse if operand == WEIGHTS else 1

    def tile_of(step: Step) -> tuple[int, int, int]:
        index = {"m": step.mi, "n": step.ni, "k": step.ki}
        batch = step.batch // share if resident else step.batch
        return batch, index[first], index[second]

    stays: list[list[int]] = []
    if resident:
        found: dict[tuple[int, int, int], list[int]] = {}
        for position, step in enumerate(steps):
            found.setdefault(tile_of(step), [position, position])[1] = position
        stays = list(found.values())
    else:
        for position, step in enumerate(steps):
            if position and tile_of(step) == tile_of(steps[position - 1]):
                stays[-1][1] = position
            else:
                stays.append([position, position])
    return [Visit(operand, serial, a, b, steps[a]) for serial, (a, b) in enumerate(stays)]


def program(plan: Plan, stays: list[list[Visit]], steps: list[Step]) -> list[Transfer]:
    """All transfers in the order in which DMA serves them."""
    kt = plan.counts[2]
    ordered: list[tuple[tuple[int, int, int, int], Transfer]] = []
    for operand in (WEIGHTS, ACTIVATIONS, OUTPUTS):
        for visit in stays[operand]:
            before = visit.serial - plan.slots[operand]
            release = stays[operand][before].closing if before >= 0 else START
            if operand != OUTPUTS:
                ordered.append(((release, 0, visit.opening, operand), Transfer(release, "load", visit)))
                continue
            if visit.tile.ki > 0:
                ordered.append(((release, 2, visit.opening, operand), Transfer(release, "restore", visit)))
            done = steps[visit.closing].ki == kt - 1
            ordered.append(
                ((visit.closing, 1, 0, operand), Transfer(visit.closing, "write" if done else "spill", visit))
            )
    return [transfer for _, transfer in sorted(ordered, key=lambda item: item[0])]
