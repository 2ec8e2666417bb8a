"""The page on bit-serial machines: its examples print what it says, its counts are those of the tests' data."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bit-serial.md"


def test_examples_print_what_the_page_says() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


def test_all_replayed_cases_are_counted() -> None:
    files = re.findall(r"tests/data/bitserial/\w+_cases\.csv", PAGE.read_text(encoding="utf-8"))
    rows = sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) - 1 for file in files)
    assert f"all {rows} cases" in PAGE.read_text(encoding="utf-8").replace("\n", " ")
