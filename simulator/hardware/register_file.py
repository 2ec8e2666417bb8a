"""A small memory made of flops: words of registers, a clock gate a word, and a multiplexer that reads one of them.

A word is clocked only when it is written, by a gate that is taken as one more flop. Reading switches the whole
multiplexer. Control and the decoder of the write address are not counted: quality ``estimated``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from simulator.hardware.constant import Constant
from simulator.hardware.structure import Param
from simulator.hardware.table import AREA, ENERGY, LEAKAGE, UNITS, param_key

Find = Callable[[str, Mapping[str, Param], str, str], Constant | None]

FEWEST_WORDS = 2
"""One word is a register."""


def composed(params: Mapping[str, Param], quantity: str, event: str, find: Find) -> Constant | None:
    """One quantity of a register file of ``words`` x ``width_bits`` from its parts; None where a part has no price."""
    words, width = int(params["words"]), int(params["width_bits"])
    if words < FEWEST_WORDS:
        return None
    multiplexer = ("multiplexer", {"inputs": words, "bits": width})
    storage = ("register", {"bits": words * (width + 1)})
    asked = {
        (AREA, ""): [(*storage, ""), (*multiplexer, "")],
        (LEAKAGE, ""): [(*storage, ""), (*multiplexer, "")],
        (ENERGY, "read"): [(*multiplexer, "operate")],
        (ENERGY, "write"): [("register", {"bits": width + 1}, "write")],
    }.get((quantity, event), [])
    found = [find(kind, part, quantity, part_event) for kind, part, part_event in asked]
    parts = [constant for constant in found if constant is not None]
    if not parts or len(parts) < len(asked):
        return None
    value = math.fsum(constant.value for constant in parts)
    terms = " + ".join(f"{constant.value:.6g} ({constant.kind})" for constant in parts)
    return replace(
        parts[0],
        kind="register_file",
        params=param_key("register_file", params),
        event=event,
        value=value,
        quality="estimated",
        source="; ".join(dict.fromkeys(constant.source for constant in parts)),
        formula=f"{words} words of {width} flops and a clock gate: {terms} = {value:.6g} {UNITS[quantity]}",
        origins=tuple(dict.fromkeys(origin for constant in parts for origin in constant.origins)),
    )
