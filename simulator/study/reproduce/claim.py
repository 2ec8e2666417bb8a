"""A published figure beside ours, and one sentence about the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.study.reproduce.figures import Case, Figure, Value


@dataclass(frozen=True)
class Claim:
    """One line of a reproduction."""

    paper: str
    claim: str
    case: Case
    published: Value | None
    """None: the paper does not print it."""
    ours: Value | None
    """None: cannot be derived from what the paper tells."""
    unit: str
    note: str

    @property
    def ratio(self) -> float | None:
        """Ours over published; None where either is missing."""
        if self.published is None or self.ours is None or not self.published:
            return None
        return self.ours / self.published

    def to_json(self) -> dict[str, object]:
        return {
            "paper": self.paper,
            "claim": self.claim,
            "case": dict(self.case),
            "published": self.published,
            "ours": self.ours,
            "unit": self.unit,
            "ratio": self.ratio,
            "note": self.note,
        }


def compare(paper: str, figure: Figure, ours: Value | None, reason: str) -> Claim:
    """``ours`` beside a published figure; the note begins with how near they are, which is computed, not told."""
    note = f"{verdict(figure, ours)}: {reason}"
    if figure.note:
        note = f"{note}; {figure.note}"
    return Claim(paper, figure.name, figure.case, figure.value, ours, figure.unit, note)


def unpublished(paper: str, claim: str, case: Case, ours: Value, unit: str, reason: str) -> Claim:
    """A number of ours that the paper does not print."""
    return Claim(paper, claim, case, None, ours, unit, f"Nothing published to compare with: {reason}")


def verdict(figure: Figure, ours: Value | None) -> str:
    """How near ``ours`` is to the figure, by the digits that were printed."""
    if ours is None:
        return "Not computed"
    off = abs(ours - figure.value) / figure.last_digit
    if off <= 0.5 * (1 + 1e-9):
        return "Equal as printed"
    if off <= 1:
        return "Equal within one in the last printed digit"
    if not figure.value or not math.isfinite(ours):
        return "Differs"
    off = ours / figure.value - 1
    return f"Differs by {off:+.1%}" if abs(off) >= 0.001 else f"Differs by {off:+.2%}"
