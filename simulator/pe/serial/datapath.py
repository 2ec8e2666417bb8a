"""What a serial PE is built of, and which of it works when: every cycle, once a step, or once a term.

Widths follow from those of the operands. A PE has the widths of the widest formats that it takes; at narrower ones a
part works at theirs, and is listed again at that width, with count 0, for the events of the pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.base import pair_name
from simulator.pe.protocol import Pair

When = Literal["cycle", "step", "term"]
MOMENTS: tuple[When, ...] = ("cycle", "step", "term")


class Use(NamedTuple):
    """A part, and how many of it work at a time."""

    part: Part
    when: When
    times: int


Datapath = Callable[[int, int], Sequence[Use]]
"""From the widths of weights and activations."""


def all_of(part: Part, when: When = "cycle") -> Use:
    """All of a part work at a time."""
    return Use(part, when, part.count)


def pe_component(
    family: str,
    params: Mapping[str, int | str],
    count: int,
    datapath: Datapath,
    elements: tuple[Sequence[Element], Sequence[Element]],
    pairs: Sequence[Pair],
) -> Component:
    """The component "pe". ``elements``: all that it takes, of weights and of activations."""
    full = datapath(*(max(element.bits for element in side) for side in elements))
    parts = {use.part.name: use.part for use in full}
    registers = [part for part in parts.values() if part.kind == "register"]
    events: dict[str, Mapping[tuple[str, str], int]] = {
        "idle": {(part.name, "clock"): part.count for part in registers}
    }
    for name, (weights, activations) in {pair_name(pair): pair for pair in pairs}.items():
        made: dict[When, dict[tuple[str, str], int]] = {}
        for part, when, times in datapath(weights.element.bits, activations.element.bits):
            at_width = part.name
            if part.name not in parts or parts[part.name].params != part.params:
                at_width = f"{part.name} {name}"
                parts[at_width] = Part(at_width, part.kind, part.params, 0)
            if times:
                made.setdefault(when, {})[at_width, _does(part)] = times
        events |= {f"{when} {name}": work for when, work in made.items()}
    return Component("pe", family, dict(params), count, tuple(parts.values()), events)


def edge_component(
    name: str,
    kind: str,
    count: int,
    parts_of: Callable[[int], Sequence[Use]],
    widest: int,
    elements: Sequence[Element],
    params: Mapping[str, int | str] | None = None,
) -> Component:
    """What stands before the lanes of a row or column: an event "word <element>" for each word that enters there.
    ``params``: what decides its structure beside the width of its words."""
    parts = {use.part.name: use.part for use in parts_of(widest)}
    events: dict[str, Mapping[tuple[str, str], int]] = {}
    for element in elements:
        work: dict[tuple[str, str], int] = {}
        for part, _, times in parts_of(element.bits):
            at_width = part.name
            if part.name not in parts or parts[part.name].params != part.params:
                at_width = f"{part.name} {element.name}"
                parts[at_width] = Part(at_width, part.kind, part.params, 0)
            work[at_width, _does(part)] = times
        events[word(element)] = work
    return Component(name, kind, {"bits": widest, **(params or {})}, count, tuple(parts.values()), events)


def word(element: Element) -> str:
    """The event of a word of an element."""
    return f"word {element.name}"


def adder_tree(inputs: int, bits: int, copies: int = 1, name: str = "tree") -> list[Part]:
    """The adders that sum so many numbers of so many bits: level l adds pairs of numbers of ``bits`` + l bits; an odd
    number goes on to the next level."""
    parts, level = [], 0
    while inputs > 1:
        parts.append(Part(f"{name}_{level + 1}", "int_adder", {"bits": bits + level}, inputs // 2 * copies))
        inputs -= inputs // 2
        level += 1
    return parts


def sum_bits(inputs: int, bits: int) -> int:
    """Width of that sum."""
    return bits + ceil_log2(inputs)


def and_row(bits: int, lanes: int) -> Part:
    """Gates that let a word of each lane through or not: a multiplier by one bit."""
    return Part("and", "int_multiplier", {"a_bits": bits, "b_bits": 1}, lanes)


def either(name: str, bits: int, count: int = 1) -> Part:
    """A row of multiplexers of two inputs: a word or its complement, a word or the word shifted."""
    return Part(name, "multiplexer", {"inputs": 2, "bits": bits}, count)


def register(name: str, bits: int, count: int = 1) -> Part:
    return Part(name, "register", {"bits": bits}, count)


def shift_ranks(name: str, bits: int, positions: int, lanes: int = 1) -> list[Part]:
    """A shifter to one of so many positions, for numbers that become ``bits`` wide: a rank of multiplexers for each bit
    of the distance."""
    ranks = ceil_log2(positions)
    return [either(name, bits, ranks * lanes)] if ranks else []


def ceil_log2(value: int) -> int:
    return (value - 1).bit_length()


def _does(part: Part) -> str:
    return "write" if part.kind == "register" else "operate"
