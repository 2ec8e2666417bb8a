"""The table of what is synthesised in docs/rtl.md.

`PYTHONPATH=. python tests/docs/hardware_table.py` writes it anew from the shipped accelerators and tables.
"""

from __future__ import annotations

import re
from pathlib import Path

from simulator.arch import Accelerator, accelerator_names, components, load_accelerator
from simulator.errors import InputError
from simulator.hardware import load_technology
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rtl.md"
BLOCK = re.compile(r"(?<=<!-- table: synthesised -->\n)(.*?)(?=<!-- end -->)", flags=re.DOTALL)
TECHNOLOGIES = ("asap7", "sg13g2")
MEMORY = ("sram", "dram")
"""Kinds of components that no cell library has."""
HEAD = ["accelerator", "synthesised", "sum of synthesised parts", *(f"{name}, GHz" for name in TECHNOLOGIES)]


def table() -> str:
    """Markdown: a row an accelerator; the highest clock is that of its slowest synthesised unit."""
    rows = [HEAD, ["---"] * len(HEAD)]
    for name in accelerator_names():
        machine = load_accelerator(name)
        whole, parts = sorted_out(machine, TECHNOLOGIES[0])
        clocks = [highest_clock(machine, technology) for technology in TECHNOLOGIES]
        rows.append([f"`{name}`", ", ".join(whole), ", ".join(parts), *clocks])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def sorted_out(machine: Accelerator, technology: str) -> tuple[list[str], list[str]]:
    """Names of components that are priced whole, and of those that are sums of parts."""
    prices = load_technology(technology)
    whole, parts = [], []
    for component in components(machine, pairs_of(machine)):
        if component.kind not in MEMORY:
            quality = prices.price(component, machine.clock_ghz).area_quality
            (whole if quality == "synthesised" else parts).append(component.name)
    return whole, parts


def highest_clock(machine: Accelerator, technology: str) -> str:
    """GHz of the slowest unit, each as built for the fastest clock that the table has; nothing where none is known."""
    prices = load_technology(technology)
    delays = []
    for component in components(machine, pairs_of(machine)):
        if component.kind not in MEMORY:
            delay = prices.price(component, 1e9).delay_ps
            delays += [delay] if delay is not None else []
    return f"{1000 / max(delays):.2f}" if delays else ""


def pairs_of(machine: Accelerator) -> list[Pair]:
    """Every pair of its elements that the PE takes."""
    pe = machine.element
    pairs = [(element_format(w), element_format(a)) for w in pe.weights for a in pe.activations]
    return [pair for pair in pairs if pe.accepts(*pair) is None]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if BLOCK.search(text) is None:
        raise InputError("has no block for the table", file=PAGE)
    PAGE.write_text(BLOCK.sub(lambda _: table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
