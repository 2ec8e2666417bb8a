"""Processing elements: one module a family, each with function, timing and structure (`protocol`).

A family is its pydantic model. `pe_model(name)` finds it: here by module name, elsewhere by an entry point of the group
`simulator.pe`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from simulator.errors import InputError, nearest

FAMILIES = {
    "bit_plane": ("simulator.pe.bit_plane", "BitPlanePE"),
    "bitlet": ("simulator.pe.bitlet", "BitletPE"),
    "bitmod": ("simulator.pe.bitmod", "BitModPE"),
    "bitvert": ("simulator.pe.bitvert", "BitVertPE"),
    "bitwave": ("simulator.pe.bitwave", "BitWavePE"),
    "block_dot": ("simulator.pe.block_dot", "BlockDotPE"),
    "dequantize": ("simulator.pe.dequantize", "DequantizePE"),
    "figlut": ("simulator.pe.figlut", "FiglutPE"),
    "laconic": ("simulator.pe.laconic", "LaconicPE"),
    "loom": ("simulator.pe.loom", "LoomPE"),
    "lut": ("simulator.pe.lut", "LutPE"),
    "figna": ("simulator.pe.figna", "FignaPE"),
    "mac": ("simulator.pe.mac", "MacPE"),
    "mixpe": ("simulator.pe.mixpe", "MixPE"),
    "pragmatic": ("simulator.pe.pragmatic", "PragmaticPE"),
    "shapeshifter": ("simulator.pe.shapeshifter", "ShapeShifterPE"),
    "shift_cast": ("simulator.pe.shift_cast", "ShiftCastPE"),
    "stripes": ("simulator.pe.stripes", "StripesPE"),
    "ternary": ("simulator.pe.ternary", "TernaryPE"),
    "two_level": ("simulator.pe.two_level", "TwoLevelPE"),
}
"""Family -> (module, model); imported when asked for."""
GROUP = "simulator.pe"
"""Entry points of other packages' families."""


def family_names() -> list[str]:
    """Families of this package and of others."""
    return [*FAMILIES, *(point.name for point in entry_points(group=GROUP))]


def pe_model(family: object) -> Any:
    """The pydantic model of a family's parameters. Raises InputError: no such family."""
    if isinstance(family, str) and family in FAMILIES:
        module, name = FAMILIES[family]
        return getattr(import_module(module), name)
    others = {point.name: point for point in entry_points(group=GROUP)}
    if isinstance(family, str) and family in others:
        return _loaded(others[family])
    raise InputError(
        "no PE of this family",
        key="family",
        value=family,
        allowed=nearest(str(family), [*FAMILIES, *others]),
    )


def _loaded(point: EntryPoint) -> Any:
    """The model behind an entry point. Raises InputError: it cannot be loaded, or lacks a member of the protocol."""
    from simulator.pe.protocol import PROTOCOL_VERSION, ProcessingElement

    what = f"entry point {point.name} of {GROUP} ({point.value})"
    try:
        model = point.load()
    except Exception as error:
        raise InputError(f"{what} cannot be loaded: {type(error).__name__}: {error}", key="family") from error
    members = {name for name in vars(ProcessingElement) if not name.startswith("_")}
    fields = set(getattr(model, "model_fields", ()))
    lacking = sorted(name for name in members - fields if not hasattr(model, name))
    if not isinstance(model, type) or lacking:
        raise InputError(
            f"{what} is no PE of protocol {PROTOCOL_VERSION}: it lacks {', '.join(lacking) or 'a class'}",
            key="family",
            value=point.name,
            allowed="a pydantic model with the members of simulator.pe.protocol.ProcessingElement",
        )
    return model
