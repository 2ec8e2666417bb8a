"""The tables of docs/reproduce.md. `PYTHONPATH=. python tests/study/reproduce/doc_tables.py` rewrites them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from simulator.study.reproduce import reproduce
from simulator.study.reproduce.claim import Claim

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reproduce.md"
BLOCK = re.compile(r"(<!-- table: ([^\n]*) -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL)


def rewritten(text: str) -> str:
    """The page with every table as it should be."""
    return BLOCK.sub(lambda found: found[1] + table(*found[2].split()) + found[4], text)


def table(kind: str, *words: str) -> str:
    """Markdown of one table, by the words of its marker."""
    if kind == "facts":
        return _markdown(["fact", "computed", "published", "from"], _facts())
    if kind == "bitmod-chain":
        return _bitmod_chain()
    assert kind == "claims", kind
    paper, *claims = words
    rows = [row for name in claims for row in _claims(paper) if row.claim == name]
    assert {row.claim for row in rows} == set(claims), claims
    return _markdown(
        ["claim", "case", "published", "ours", "ratio"],
        [
            [
                f"`{row.claim}`",
                ", ".join(str(value) for value in row.case.values()),
                _number(row.published),
                _number(row.ours),
                "" if row.ratio is None else f"{row.ratio:.3f}",
            ]
            for row in rows
        ],
    )


def _facts() -> list[list[str]]:
    rows = [
        [
            f"BitMoD's evaluation: speedup of {row.case.get('design', 'bitmod-lossy')} over "
            f"{row.case.get('over', 'fp16')}, {row.case['task']}",
            f"{row.ours:.2f} x",
            f"{row.published:.2f} x",
            "mean over six models",
        ]
        for row in _claims("bitmod")
        if row.claim.startswith("mean_speedup")
    ]
    rows += [
        [
            f"LUT Tensor Core: density of {row.case['config']}",
            f"{row.ours:.2f} TOPS/mm2",
            f"{row.published} TOPS/mm2",
            "peak / (area x multiprocessors)",
        ]
        for row in _claims("lut-tensor-core")
        if row.claim == "density_tops_per_mm2"
    ]
    (lookups,) = (row for row in _claims("figlut") if row.claim == "binary_macs_per_cycle")
    rows.append(
        [
            "FIGLUT's array",
            f"{lookups.ours} bit-MAC/cycle",
            f"{64 * 64 * 4}",
            "2 x 16 x 4 PEs x 32 readers x 4 bits",
        ]
    )
    binary_tops = 2 * 8 * 256 * 8 * 200e6 / 1e12
    rows.append(
        [
            "BISMO, 8 x 256 x 8 at 200 MHz",
            f"{binary_tops:.2f} binary TOPS",
            "6.5",
            "2 x 8 x 256 x 8 x 0.2 GHz",
        ]
    )
    rows.append(
        ["BISMO, p x q bits", f"{binary_tops / (4 * 2):.2f} TOPS at 4 x 2", "", "binary TOPS / (p q)"]
    )
    for weights, bits in ((5, 8), (3, 5)):
        fits = 3**weights <= 2**bits < 3 ** (weights + 1)
        assert fits
        rows.append(
            [
                f"{weights} ternary weights in {bits} bits",
                f"{bits / weights:.3f} bits a weight",
                f"{bits / weights:.2f}",
                f"3^{weights} = {3**weights} <= 2^{bits} = {2**bits}",
            ]
        )
    return rows


def _bitmod_chain() -> str:
    titles = ["case", "published = convention", "`cycles_attention_v2`", "ours", "ours / published"]
    found = {(row.claim, *row.case.values()): row for row in _claims("bitmod")}
    rows = []
    for own in ("full_model_cycles", "full_model_energy_onchip_uj", "full_model_energy_total_uj"):
        for row in _claims("bitmod"):
            if row.claim == own and row.published is not None:
                case = tuple(row.case.values())
                later = found["cycles_attention_v2", *case].ours if own == "full_model_cycles" else None
                label = f"`{own}`, {', '.join(map(str, case))}"
                rows.append(
                    [
                        label,
                        _number(row.published),
                        _number(later),
                        _number(round(row.ours)),
                        f"{row.ratio:.3f}",
                    ]
                )
    return _markdown(titles, rows)


@lru_cache(maxsize=16)
def _claims(paper: str) -> tuple[Claim, ...]:
    return tuple(reproduce(paper))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
