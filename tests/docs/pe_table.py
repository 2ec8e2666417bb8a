"""The table of accelerators in docs/processing-elements/README.md.

`PYTHONPATH=. python tests/docs/pe_table.py` writes it anew from `pe.timing` and `Accelerator.refusal`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

from simulator.arch import Accelerator, load_accelerator
from simulator.arch.load import accelerator_names
from simulator.errors import InputError
from simulator.formats import Format, get_format
from simulator.pe import FAMILIES
from simulator.pe.elements import element_format

PAGE = Path(__file__).resolve().parents[2] / "docs" / "processing-elements" / "README.md"
BLOCK = re.compile(r"(?<=<!-- table: accelerators -->\n)(.*?)(?=<!-- end -->)", flags=re.DOTALL)
HEAD = ["family", "accelerators", "weights", "activations", "MACs a cycle and PE", "time by", "group scales"]

Rates = dict[tuple[str, str], Fraction]


def table() -> str:
    """Markdown: accelerators whose PEs are alike share a row; families in the order of `FAMILIES`."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in accelerator_names():
        machine = load_accelerator(name)
        rates = pair_rates(machine)
        alike[
            machine.element.family,
            ", ".join(machine.element.weights),
            ", ".join(machine.element.activations),
            told(rates),
            deciding_codes(machine),
            who_scales(machine),
        ].append(f"`{name}`")
    order = list(FAMILIES)
    rows = [HEAD, ["---"] * len(HEAD)]
    for (family, *cells), names in sorted(alike.items(), key=lambda row: (order.index(row[0][0]), row[1])):
        rows.append([f"`{family}`", ", ".join(names), *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def pair_rates(machine: Accelerator) -> Rates:
    """(weights, activations) of the PE's lists that it takes -> its MACs a cycle."""
    pe = machine.element
    rates = {}
    for weights in pe.weights:
        for activations in pe.activations:
            pair = element_format(weights), element_format(activations)
            if pe.accepts(*pair) is None:
                timing = pe.timing(*pair)
                rates[weights, activations] = Fraction(timing.lanes, timing.initiation_interval)
    return rates


def told(rates: Rates) -> str:
    """The rates in as few words as say them all."""
    if len(set(rates.values())) == 1:
        return str(next(iter(rates.values())))
    for side in (0, 1):
        by_element: dict[str, set[Fraction]] = defaultdict(set)
        for pair, rate in rates.items():
            by_element[pair[side]].add(rate)
        if all(len(found) == 1 for found in by_element.values()):
            named: dict[Fraction, list[str]] = defaultdict(list)
            for element, found in by_element.items():
                named[next(iter(found))].append(element)
            return "; ".join(f"{', '.join(elements)}: {rate}" for rate, elements in named.items())
    products = {rate * bits(pair[0]) * bits(pair[1]) for pair, rate in rates.items()}
    if len(products) == 1:
        return f"{next(iter(products))} / (bits of weights x bits of activations)"
    return "; ".join(f"{weights} x {activations}: {rate}" for (weights, activations), rate in rates.items())


def bits(element: str) -> int:
    return element_format(element).element.bits


def deciding_codes(machine: Accelerator) -> str:
    """Operands whose codes decide the time, beside which the rate is only the one at nominal width."""
    pe = machine.element
    timings = {pair: pe.data_timing(*map(element_format, pair)) for pair in pair_rates(machine)}
    sides = {side for timing in timings.values() if timing is not None for side in timing.depends_on}
    return ", ".join(f"{side}' codes" for side in ("weights", "activations") if side in sides) or "formats"


def who_scales(machine: Accelerator) -> str:
    """Who multiplies by the scales of weight groups: of the machine's own format, and of its elements in groups of
    128."""
    pe = machine.element
    activations = get_format(machine.formats.activations or f"{pe.activations[0]}_token")
    answers: dict[str, list[str]] = defaultdict(list)
    for weights in weight_groups(machine):
        if machine.refusal(weights, activations) is None:
            inside = pe.scales_inside(weights, activations)
            behind = "rescale unit" if pe.received("weights", weights).group_size else "decoder"
            answers["PE" if inside else behind].append(weights.name)
    if len(answers) < 2:
        return next(iter(answers), "none taken")
    return "; ".join(f"{', '.join(names)}: {who}" for who, names in answers.items())


def weight_groups(machine: Accelerator) -> list[Format]:
    """Formats with scales of groups that the machine's weights may have."""
    names = [f"{element}_g128" for element in machine.element.weights]
    formats = []
    for name in filter(None, dict.fromkeys([machine.formats.weights, *names])):
        try:
            formats.append(get_format(name))
        except InputError:  # block floating point has blocks of its own
            continue
    return [format for format in formats if format.group_size]


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(lambda _: table(), PAGE.read_text("utf-8"), count=1), "utf-8")
