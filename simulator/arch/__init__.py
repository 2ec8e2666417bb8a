"""Accelerators as validated configuration: `load_accelerator("systolic_ws_16x16")`, and what they are made of."""

from simulator.arch.accelerator import Accelerator
from simulator.arch.components import components
from simulator.arch.load import accelerator_names, load_accelerator

__all__ = ["Accelerator", "accelerator_names", "components", "load_accelerator"]
