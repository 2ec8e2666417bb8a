"""Which shipped accelerators take a pair of formats."""

from __future__ import annotations

from simulator.arch.load import accelerator_names, load_accelerator
from simulator.formats import Format


def accelerators_taking(weights: Format, activations: Format) -> list[str]:
    """Names of the shipped accelerators whose PEs, in their arrays, take this pair."""
    return [
        name for name in accelerator_names() if load_accelerator(name).refusal(weights, activations) is None
    ]
