"""The list of what is synthesised is that of the shipped accelerators and tables."""

from hardware_table import BLOCK, PAGE, table


def test_what_is_synthesised_is_what_the_tables_hold() -> None:
    shown = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == table(), "PYTHONPATH=. python tests/docs/hardware_table.py writes it anew"
