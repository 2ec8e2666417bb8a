"""Bit-Tactical's weight schedule (Delmas Lascorz et al., ASPLOS 2019), as DNNsim makes it.

Weights of a filter move into empty places: of earlier steps (lookahead) and other lanes (lookaside). A moved weight
takes the activation of its own step and lane along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError

Array = npt.NDArray[Any]

T_2_5 = [(1, -1), (1, 0), (1, 1), (1, 3), (2, -2), (2, 0), (2, 2)]
"""(steps ahead, lanes aside), in the order in which candidates are tried."""


def search(shape: str, lookahead: int, lookaside: int) -> list[tuple[int, int]]:
    """Where an empty place looks for weights."""
    if shape == "T":
        if (lookahead, lookaside) != (2, 5):
            raise InputError("the search shape T is 2 steps ahead, 5 aside", key="search_shape", value=shape)
        return T_2_5
    ahead = [(step, 0) for step in range(1, lookahead + 1)]
    return sorted(ahead + [(1, -lane) for lane in range(1, lookaside + 1)])


@dataclass(frozen=True)
class Schedule:
    """The rows that a tile executes, each with the places (filters, lanes) of the weights' activations."""

    steps: Array
    """(rows, filters, lanes)"""
    lanes: Array
    """(rows, filters, lanes)"""
    away: Array
    """(rows, filters, lanes): the weight was moved to an earlier row, and the place takes no activation."""

    def select(self, vectors: Array) -> Array:
        """(vectors, rows, filters, lanes) from (vectors, steps, lanes); zeros where there is no activation."""
        return np.where(self.away, 0, vectors[:, self.steps, self.lanes])


def schedule(weights: Array, present: Array, offsets: list[tuple[int, int]], lookahead: int) -> Schedule:
    """Weights (filters, steps, lanes); ``present`` (steps, lanes) is False in lanes beyond the last channel.

    Row by row: of all empty places of a filter, the one with the most candidates (the first of these lanes) takes its
    first candidate, until none has any. A row of zeros is passed over, but not more than ``lookahead`` in a row; when
    rows are executed, the same again.
    """
    weights = weights.copy()
    filters, steps, lanes = weights.shape
    # places without a channel are zeros that say step 0, lane 0
    step = np.where(present, np.arange(steps)[:, None], 0) + np.zeros_like(weights)
    lane = np.where(present, np.arange(lanes), 0) + np.zeros_like(weights)
    each = np.arange(filters)
    for now in _executed(weights, lookahead):
        reach = [(ahead, aside) for ahead, aside in offsets if now + ahead < steps]
        rows = now + np.array([ahead for ahead, _ in reach], int)
        aside = (np.arange(lanes)[:, None] + np.array([aside for _, aside in reach], int)) % lanes
        while reach:
            candidates = weights[:, rows, aside] != 0
            count = candidates.sum(axis=-1) * (weights[:, now] == 0)
            place = count.argmax(axis=-1)
            moving = each[count[each, place] > 0]
            if not moving.size:
                break
            place = place[moving]
            first = candidates[moving, place].argmax(axis=-1)
            to, source = (moving, now, place), (moving, rows[first], aside[place, first])
            for field in (weights, step, lane):
                field[to], field[source] = field[source], field[to]
    executed = list(_executed(weights, lookahead))
    away = step < np.arange(steps)[:, None]
    return Schedule(*(field[:, executed].swapaxes(0, 1) for field in (step, lane, away)))


def _executed(weights: Array, lookahead: int) -> Any:
    """Rows that are not passed over, as the weights are when their turn comes."""
    passed = 0
    for row in range(weights.shape[1]):
        if passed < lookahead and not weights[:, row].any():
            passed += 1
        else:
            passed = 0
            yield row
