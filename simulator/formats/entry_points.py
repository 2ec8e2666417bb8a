"""Formats of other packages, from the entry point group `simulator.formats`, each checked as it is loaded.

Protocol version 2 (docs/formats.md): an entry point is a `Format` or an iterable of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from simulator.errors import InputError
from simulator.formats.element import Element
from simulator.formats.format import Format

ENTRY_POINT_GROUP = "simulator.formats"
PROTOCOL_VERSION = 2

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass
class ThirdParty:
    """What the entry points gave."""

    formats: dict[str, Format] = field(default_factory=dict)
    """By name."""
    origins: dict[str, str] = field(default_factory=dict)
    """For each format's name that of its entry point."""
    elements: dict[str, Element] = field(default_factory=dict)
    """By name; every format that names an element means the same one."""


def load_entry_points(
    is_ours: Callable[[str], bool], our_element: Callable[[Element], Element | None]
) -> ThirdParty:
    """All formats of the group. `is_ours`: a name that is taken; `our_element`: our element of the same name.

    InputError, naming the entry point: it cannot be loaded, or what it gives is no format that could be used.
    """
    from importlib.metadata import entry_points

    found = ThirdParty()
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        where = f"entry point {entry.name} of {ENTRY_POINT_GROUP}"
        try:
            loaded = entry.load()
            formats = list(loaded) if isinstance(loaded, Iterable) else [loaded]
        except Exception as error:  # whatever a stranger's module raises
            raise InputError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        for format_ in formats:
            if not isinstance(format_, Format):
                raise InputError(f"{where} gives no Format", value=format_)
            name = format_.name
            if name in found.formats or is_ours(name):
                raise InputError(f"{where}: name taken", value=name)
            if not _NAME.fullmatch(name):
                raise InputError(f"{where}: not the name of a format", value=name, allowed="a-z, 0-9 and _")
            if format_.quantizer is not None and not callable(format_.quantizer):
                raise InputError(f"{where}: the quantizer of {name} cannot be called")
            scales = (format_.scale_element, format_.row_scale_element, format_.tensor_scale_element)
            for element in (format_.element, *filter(None, scales)):
                # The worth of a step may differ, as it does between INT8 and MX INT8.
                ours = our_element(element) or element
                known = found.elements.setdefault(element.name, replace(ours, step_exponent=0))
                if known != replace(element, step_exponent=0):
                    raise InputError(f"{where}: the element {element.name} of {name} is known as another one")
            found.formats[name], found.origins[name] = format_, entry.name
    return found
