"""Text tables: every number whole, whatever the width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from report_inputs import COMPONENTS, layer, meta

from simulator.engine.record import Record
from simulator.hardware import load_technology
from simulator.report import make_report
from simulator.report.table import SHORTEST_NAME, Column, shortened, text_table

COLUMNS = [Column("name", left=True), Column("cycles"), Column("bound", left=True, leave_out=1)]


def test_columns_are_as_wide_as_what_they_hold() -> None:
    lines = text_table(COLUMNS, [[["a", "1,234,567", "dram"], ["bcd", "1"]], [["total", "1,234,568"]]])
    assert lines == [
        "name      cycles  bound",
        "───────────────────────",
        "a      1,234,567  dram",
        "bcd            1",
        "───────────────────────",
        "total  1,234,568",
    ]


@given(st.integers(0, 120), st.text(max_size=60), st.integers(0, 10**30))
def test_a_number_is_never_cut(width: int, name: str, cycles: int) -> None:
    lines = text_table(COLUMNS, [[[name, f"{cycles:,}", "activations"]]], width=width)
    assert len(lines) == 3
    assert f"{cycles:,}" in lines[2]
    assert len(lines[1]) <= max(width, SHORTEST_NAME + 2 + max(len("cycles"), len(f"{cycles:,}")))


def test_what_may_be_left_out_is_left_out_only_where_space_is_short() -> None:
    row = ["n" * SHORTEST_NAME, "12", "activations"]
    wide = text_table(COLUMNS, [[row]], width=SHORTEST_NAME + 8 + 13)
    narrow = text_table(COLUMNS, [[row]], width=SHORTEST_NAME + 8 + 12)
    assert "activations" in wide[2]
    assert "activations" not in narrow[2]


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in "".join(text_table(COLUMNS, [[["\x1b[31mred\n", "1", ""]]]))


def test_a_shortened_name_keeps_both_ends() -> None:
    assert shortened("layers.0.attention.query", 11) == "layer…query"
    assert shortened("short", 5) == "short"


def report(*layers):
    record = Record("fast", layers)
    return make_report(record, COMPONENTS, load_technology("published_45nm"), clock_ghz=1.0, meta=meta())


def test_blocks_stand_under_a_heading_and_other_layers_do_not() -> None:
    names = [f"layers.{i}.{name}" for i in range(3) for name in ("up", "down")]
    text = report(layer("stem"), *map(layer, names), layer("head", n=8)).text(fold=True)
    rows = [line.split("  ")[0].rstrip() or line[:6].rstrip() for line in text.splitlines()]
    at = rows.index("layers.* x3")
    assert rows[at - 1] == "stem"
    assert rows[at + 1 : at + 4] == ["  up", "  down", "head"]


def test_folded_rows_add_up_to_the_total() -> None:
    names = [f"layers.{i}.{name}" for i in range(3) for name in ("up", "down")]
    vectors = [layer(f"layers.{i}.norm", op="norm", macs=0, peak_macs_per_cycle=0) for i in range(3)]
    one = report(*map(layer, names), *vectors)
    lines = one.text(fold=True).splitlines()
    counts = [line.split()[6] for line in lines if line.startswith(("  up", "  down"))]
    counts += [line.split()[3] for line in lines if line.startswith("norm x3")]
    assert len(counts) == 3
    assert sum(int(count.replace(",", "")) for count in counts) == one.cycles
