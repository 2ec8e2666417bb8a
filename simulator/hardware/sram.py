"""An on-chip memory, built of the macros that a table has.

A memory has ``bytes`` in ``banks``; one access reads or writes ``width_bits`` in one bank. It is built as
designers build it, and the report says which of these steps were taken:

1. A bank wider than the widest tabulated macro is several equal macros side by side; an access goes to all
   of them.
2. A bank deeper than the deepest tabulated macro is several equal macros on top of each other; an access
   goes to one.
3. A macro shallower or narrower than the smallest tabulated one is that smallest one: the rest of it is paid
   and unused. Quality ``estimated``. Where a register file of flops is smaller, a technology takes that instead.
4. A macro between tabulated ones is interpolated between its two neighbours in words and its two in width,
   each as a straight line on logarithmic axes. Quality ``fitted``.

Address and data wires between macros and banks are not counted. Leakage and area count every macro of every
bank.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.errors import InputError
from simulator.hardware.constant import Constant, from_rows
from simulator.hardware.structure import Param
from simulator.hardware.table import AREA, DELAY, ENERGY, UNITS, CostRow, CostTable, ParamKey
from simulator.units import BITS_PER_BYTE

PORTS = ("1rw", "1r1w")
"""One port that reads or writes; or one that reads and one that writes at the same time."""


@dataclass(frozen=True)
class Build:
    """How a memory is composed: ``banks`` x ``stacked`` x ``abreast`` macros of ``words`` x ``width``."""

    banks: int
    abreast: int
    stacked: int
    words: float
    width: float
    steps: tuple[str, ...]
    """What was done to the memory as the user wrote it, in words."""
    padded: bool
    """The macro was rounded up to the smallest tabulated one."""


def memory_constant(
    table: CostTable, params: Mapping[str, Param], quantity: str, event: str = ""
) -> Constant | None:
    """One quantity of a memory; None where the table has no macros with these ports."""
    memory = with_defaults(params)
    macros = table.macros.get((str(memory["ports"]), quantity, event))
    if not macros:
        return None
    build = plan(memory, macros)
    value, rows, interpolation = _interpolate(macros, build.words, build.width, UNITS[quantity])
    quality = "estimated" if build.padded else "fitted" if interpolation else ""
    macro = f"macro {build.words:g} words x {build.width:g} bits {memory['ports']}"
    steps = [
        *build.steps,
        macro + (f", {interpolation}" if interpolation else f" = {value:.6g} {UNITS[quantity]}"),
    ]
    count = build.abreast * {ENERGY: 1, DELAY: 0}.get(quantity, build.banks * build.stacked)
    if count > 1:
        steps.append(f"x {count} macros = {value * count:.6g} {UNITS[quantity]}")
    key: ParamKey = tuple(sorted(memory.items()))
    return from_rows(rows, "sram", key, value * max(count, 1), "; ".join(steps), quality)


def register_file(table: CostTable, params: Mapping[str, Param]) -> dict[str, Param] | None:
    """The register file that one bank could be, where it is shallower or narrower than the smallest macro."""
    memory = with_defaults(params)
    macros = table.macros.get((str(memory["ports"]), AREA, ""))
    if not macros or not plan(memory, macros).padded:
        return None
    width = int(memory["width_bits"])
    return {
        "words": math.ceil(int(memory["bytes"]) * BITS_PER_BYTE / int(memory["banks"]) / width),
        "width_bits": width,
    }


def with_defaults(params: Mapping[str, Param]) -> dict[str, Param]:
    """One bank and one read-write port, unless the memory says otherwise."""
    memory: dict[str, Param] = {"banks": 1, "ports": "1rw", **params}
    if memory["ports"] not in PORTS:
        raise InputError(
            "not the ports of an SRAM", key="ports", value=memory["ports"], allowed=", ".join(PORTS)
        )
    return memory


def plan(memory: Mapping[str, Param], macros: Mapping[tuple[int, int], CostRow]) -> Build:
    """How ``memory`` is built of ``macros``, given as (words, width in bits)."""
    size_bits, width, banks = (int(memory[name]) for name in ("bytes", "width_bits", "banks"))
    size_bits *= BITS_PER_BYTE
    widths = sorted({macro_width for _, macro_width in macros})
    fewest_words = min(words for words, _ in macros)
    steps = []
    if banks > 1:
        steps.append(f"{banks} banks of {size_bits / banks / BITS_PER_BYTE:g} bytes")
    abreast = math.ceil(width / widths[-1])
    if abreast > 1:
        steps.append(f"{abreast} macros side by side for {width} bits")
    macro_width: float = width / abreast
    words = size_bits / banks / width
    padded = False
    if macro_width < widths[0]:
        steps.append(f"{macro_width:g} bits wide: the narrowest macro has {widths[0]}, the rest is unused")
        macro_width, padded = widths[0], True
    if words < fewest_words:
        steps.append(f"{words:g} words deep: the shallowest macro has {fewest_words}, the rest is unused")
        words, padded = fewest_words, True
    stacked = math.ceil(words / max(depth for depth, _ in macros))
    while words / stacked > fewest_words and _corners(macros, words / stacked, macro_width) is None:
        stacked += 1
    if stacked > 1:
        steps.append(f"{stacked} macros on top of each other")
    return Build(banks, abreast, stacked, words / stacked, macro_width, tuple(steps), padded)


def _interpolate(
    macros: Mapping[tuple[int, int], CostRow], words: float, width: float, unit: str
) -> tuple[float, list[CostRow], str]:
    """(value, rows used, how it was interpolated or nothing); bilinear in the logarithms."""
    corners = _corners(macros, words, width)
    if corners is None:
        raise InputError(
            f"the table has no SRAM macros around {words:g} words x {width:g} bits",
            allowed="add rows of this size to a cost table",
        )
    rows = [row for row, _ in corners]
    if len(rows) == 1:
        return rows[0].value, rows, ""
    value = math.exp(math.fsum(share * math.log(row.value) for row, share in corners))
    terms = " * ".join(f"{row.value:g}^{share:.3f} ({size_text(row)})" for row, share in corners)
    return value, rows, f"log-interpolated: {terms} = {value:.6g} {unit}"


def _corners(
    macros: Mapping[tuple[int, int], CostRow], words: float, width: float
) -> list[tuple[CostRow, float]] | None:
    """The one, two or four macros around a size, with their weights; None where one is not tabulated."""
    depths, widths = (sorted({size[axis] for size in macros}) for axis in (0, 1))
    corners = []
    for near_width, width_share in _bracket(widths, width):
        for near_words, words_share in _bracket(depths, words):
            if (near_words, near_width) not in macros:
                return None
            corners.append((macros[near_words, near_width], width_share * words_share))
    return corners or None


def _bracket(ticks: list[int], at: float) -> list[tuple[int, float]]:
    """The one or two ticks around ``at`` with their weights on a logarithmic axis; none outside."""
    if at in ticks:
        return [(int(at), 1.0)]
    high = bisect(ticks, at)
    if high in (0, len(ticks)):
        return []
    share = math.log(at / ticks[high - 1]) / math.log(ticks[high] / ticks[high - 1])
    return [(ticks[high - 1], 1.0 - share), (ticks[high], share)]


def size_text(row: CostRow) -> str:
    """'1024 x 64', words by bits."""
    params = dict(row.params)
    return f"{params['words']} x {params['width_bits']}"
