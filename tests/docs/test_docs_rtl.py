"""What docs/rtl.md says in figures is what the shipped accelerators and tables hold."""

from hardware_table import BLOCK, PAGE, TABLES


def test_tables_of_the_page_are_those_of_the_shipped_figures() -> None:
    shown = {name: body for name, _, body in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}
    assert shown == {name: made() for name, made in TABLES.items()}, (
        "PYTHONPATH=. python tests/docs/hardware_table.py writes them anew"
    )
