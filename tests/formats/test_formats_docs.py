"""docs/formats.md says what the code does: its table, its example and its entry point."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from simulator.formats import Format, get_format

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
TABLE = re.findall(
    r"^\| `(\w+)` \| (\d+) \| ([^|]+) \| ([\d.]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE
)


def number(text: str) -> float:
    base, power, exponent = text.partition("^")
    return float(base) ** int(exponent) if power else float(base)


def test_the_table_is_there() -> None:
    assert len(TABLE) > 50


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_each_row_of_the_table_is_the_format(row: tuple[str, ...]) -> None:
    name, bits, metadata, per_value, largest, smallest, specials = row
    format_ = get_format(name)
    element = format_.element
    assert format_.name == name
    assert format_.code_bits == int(bits)
    assert format_.bits_per_value() == float(per_value)
    assert element.max_value == pytest.approx(number(largest), rel=1e-6)
    assert element.min_positive == number(smallest)
    assert specials == ("Inf, NaN" if element.has_inf else "NaN" if element.has_nan else "none")
    counted = {unit: int(count) for count, unit in re.findall(r"(\d+) (per \d+|a row|a tensor)", metadata)}
    stored = {
        f"per {format_.group_size}": format_.group_bits,
        f"per {format_.selector_group}": format_.selector_bits if format_.selector_group else 0,
        "a row": format_.row_bits,
        "a tensor": format_.tensor_bits,
    }
    assert counted == {unit: count for unit, count in stored.items() if count}


def test_every_name_in_the_page_is_a_format() -> None:
    """Names as examples; those with <N> and the like stand for many."""
    named = re.findall(r"`((?:int|uint|fp|bitmod|flint|pot|qserve|bbs|bitflip)[a-z0-9_]*\d[a-z0-9_]*)`", PAGE)
    assert len(named) > 30
    for name in set(named) - {"fp8"}:  # ambiguous, and said to be
        assert get_format(name).name


def test_the_examples_run() -> None:
    example, entry = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, object] = {}
    exec(example.replace("weights = ...", "import numpy; weights = numpy.ones((3, 128))"), found)
    np.testing.assert_allclose(found["restored"], 1, rtol=1e-3)
    exec(entry, found)
    assert all(isinstance(format_, Format) for format_ in found["formats"])  # type: ignore[attr-defined]
