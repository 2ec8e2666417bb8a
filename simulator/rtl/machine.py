"""Which units price an accelerator."""

from __future__ import annotations

from simulator.arch import Accelerator, components
from simulator.hardware.structure import Component
from simulator.hardware.table import ParamKey, param_key
from simulator.rtl.unit import Unit
from simulator.rtl.units import default_units


def units_of(accelerator: Accelerator) -> tuple[list[Unit], list[str]]:
    """The default units that its components are, and those parts of circuits that its other components are made of,
    whose names come second. Memories are neither."""
    defaults = {unit: {_key(each) for each in unit.components()} for unit in default_units()}
    wanted = {_key(component): component for component in components(accelerator)}
    units = [unit for unit, keys in defaults.items() if keys & wanted.keys()]
    whole = set().union(*(defaults[unit] for unit in units))
    rest = [component for key, component in wanted.items() if key not in whole and component.parts]
    kinds = {part.kind for component in rest for part in component.parts}
    parts = [unit for unit, keys in defaults.items() if unit.is_part and kinds & {kind for kind, _ in keys}]
    return [*units, *parts], [component.name for component in rest]


def _key(component: Component) -> tuple[str, ParamKey]:
    return component.kind, param_key(component.kind, component.params)
