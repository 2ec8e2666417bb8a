"""Processing elements: one module a family, each with function, timing and structure (`protocol`).

A family is its pydantic model. `pe_model(name)` finds it: here by module name, elsewhere by an entry point of the group
`simulator.pe`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from simulator.errors import InputError, nearest

FAMILIES = {
    "bit_plane": ("simulator.pe.bit_plane", "BitPlanePE"),
    "bitmod": ("simulator.pe.bitmod", "BitModPE"),
    "block_dot": ("simulator.pe.block_dot", "BlockDotPE"),
    "dequantize": ("simulator.pe.dequantize", "DequantizePE"),
    "figlut": ("simulator.pe.figlut", "FiglutPE"),
    "lut": ("simulator.pe.lut", "LutPE"),
    "figna": ("simulator.pe.figna", "FignaPE"),
    "mac": ("simulator.pe.mac", "MacPE"),
    "mixpe": ("simulator.pe.mixpe", "MixPE"),
    "shift_cast": ("simulator.pe.shift_cast", "ShiftCastPE"),
    "two_level": ("simulator.pe.two_level", "TwoLevelPE"),
}
"""Family -> (module, model); imported when asked for."""


def pe_model(family: object) -> Any:
    """The pydantic model of a family's parameters. Raises InputError: no such family."""
    if isinstance(family, str) and family in FAMILIES:
        module, name = FAMILIES[family]
        return getattr(import_module(module), name)
    others = {point.name: point for point in entry_points(group="simulator.pe")}
    if isinstance(family, str) and family in others:
        return others[family].load()
    raise InputError(
        "no PE of this family",
        key="family",
        value=family,
        allowed=nearest(str(family), [*FAMILIES, *others]),
    )
