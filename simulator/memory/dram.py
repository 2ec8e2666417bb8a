"""DRAM behind one interface: when a transfer leaves the bus, and when its data can be used.

Core clock cycles throughout; a rate that is not a whole number of bits a cycle is an exact ratio, and a transfer's time
is rounded up once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from simulator.units import ceil_div


class Dram(Protocol):
    """A channel that serves one transfer after the other."""

    def bus_cycles(self, bits: int) -> int:
        """Cycles for which a transfer of ``bits`` occupies the bus."""
        ...

    @property
    def latency(self) -> int:
        """Cycles from the end of a read's time on the bus to its data in the buffer; other transfers go on behind
        it."""
        ...


@dataclass(frozen=True)
class FlatDram:
    """A fixed latency and a bandwidth of ``numerator / denominator`` bits a cycle, shared by reads and writes."""

    numerator: int
    denominator: int
    latency: int

    def bus_cycles(self, bits: int) -> int:
        return ceil_div(bits * self.denominator, self.numerator)
