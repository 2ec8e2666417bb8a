"""The words in which hardware is described to the cost model: parts, components, events.

A *component* is a place in the accelerator that has area and does things: the PEs, a buffer, the rescale
unit. It has ``count`` identical instances. A *part* is a circuit inside one instance (a multiplier, an adder,
a register), known to cost tables by ``kind`` and ``params`` (see ``kinds.py``). An *event* is what one
instance does at a time ("mac", "read"): it names the part events it causes. Engines count component events;
cost tables price part events, or the whole component where it was characterised as a unit.

Example: a MAC PE::

    Component(
        name="pe", kind="mac", count=256,
        params={"activations": "int8", "weights": "int4", "accumulator": "int32"},
        parts=(
            Part("multiplier", "int_multiplier", {"a_bits": 8, "b_bits": 4}),
            Part("accumulate", "int_adder", {"bits": 32}),
            Part("operands", "register", {"bits": 12}),
            Part("accumulator", "register", {"bits": 32}),
        ),
        events={"mac": {("multiplier", "operate"): 1, ("accumulate", "operate"): 1,
                        ("operands", "write"): 1, ("accumulator", "write"): 1},
                "idle": {("operands", "clock"): 1, ("accumulator", "clock"): 1}},
    )
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Param = int | str


@dataclass(frozen=True)
class Part:
    """A circuit inside a component; ``count`` of them in each instance."""

    name: str
    kind: str
    params: Mapping[str, Param]
    count: int = 1


@dataclass(frozen=True)
class Component:
    """A place in the accelerator that has area, leakage and events; ``count`` identical instances."""

    name: str
    kind: str
    params: Mapping[str, Param]
    count: int = 1
    parts: tuple[Part, ...] = ()
    events: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    """event -> {(part name, part event): how many}, all ``count`` circuits of the part together.

    Empty for a component whose kind cost tables know whole (sram, dram). An event of a unit that has no parts
    has an empty mapping.
    """
    dequantizes: bool = field(default=False, kw_only=True)
    """All that it does is to apply scales and zero points, or to decode operands: reports sum it up."""
    copies: int = field(default=1, kw_only=True)
    """Instances that do everything together, among ``count``: an event is counted once and costs the energy of all."""
