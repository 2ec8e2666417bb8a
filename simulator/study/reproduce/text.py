"""Reproductions as text: a row a claim, what explains it below."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.report.table import Column, text_table
from simulator.study.reproduce.claim import Claim
from simulator.study.reproduce.figures import Value


def papers_text(
    papers: Sequence[tuple[str, str, str]], *, width: int | None = None, color: bool = False
) -> str:
    """A row a paper: name, source, what is shown."""
    columns = [
        Column("paper", left=True),
        Column("source", left=True),
        Column("shows", left=True, leave_out=1),
    ]
    return "\n".join(text_table(columns, [papers], width=width, color=color)) + "\n"


def claims_text(claims: Sequence[Claim], *, width: int | None = None, color: bool = False) -> str:
    """A row a claim, a rule between claims of different kinds, and the notes by number below."""
    notes = list(dict.fromkeys(claim.note for claim in claims))
    sections: dict[str, list[list[str]]] = {}
    for claim in claims:
        ratio = claim.ratio
        row = [
            claim.claim,
            " ".join(str(value) for value in claim.case.values()),
            _number(claim.published),
            _number(claim.ours),
            "" if ratio is None else f"{ratio:.4f}",
            claim.unit,
            f"[{notes.index(claim.note) + 1}]",
        ]
        sections.setdefault(claim.claim, []).append(row)
    columns = [
        Column("claim", left=True),
        Column("case", left=True),
        Column("published"),
        Column("ours"),
        Column("ratio"),
        Column("unit", left=True, leave_out=1),
        Column("note"),
    ]
    lines = text_table(columns, list(sections.values()), width=width, color=color)
    lines += ["", *(f"[{number}] {note}." for number, note in enumerate(notes, start=1))]
    return "\n".join(lines) + "\n"


def _number(value: Value | None) -> str:
    if value is None:
        return "-"
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.1f}"
    )
