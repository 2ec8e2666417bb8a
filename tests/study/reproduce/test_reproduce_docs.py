"""docs/reproduce.md shows what the command computes."""

from __future__ import annotations

from doc_tables import BLOCK, PAGE, rewritten, table

from simulator.study.reproduce import paper_names


def test_every_table_of_the_page_is_what_is_computed() -> None:
    text = PAGE.read_text("utf-8")
    assert len(BLOCK.findall(text)) >= 10
    assert rewritten(text) == text


def test_every_paper_has_its_table() -> None:
    text = PAGE.read_text("utf-8")
    shown = {found[1].split()[1] for found in BLOCK.findall(text) if found[1].startswith("claims ")}
    assert shown == set(paper_names())


def test_facts_of_arithmetic_are_all_there() -> None:
    facts = table("facts")
    for fact in (
        "over fp16, generative",
        "density of h100-lut-8x",
        "FIGLUT's array",
        "BISMO",
        "ternary weights",
    ):
        assert fact in facts
    assert "| 6.55 binary TOPS |" in facts
    assert "3^5 = 243 <= 2^8 = 256" in facts
