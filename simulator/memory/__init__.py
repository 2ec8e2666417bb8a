"""Memory timing: the DRAM channel that DMA transfers go through, and the order in which they go."""

from simulator.memory.dram import Dram, FlatDram

__all__ = ["Dram", "FlatDram"]
