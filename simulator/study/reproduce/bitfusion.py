"""The analytic array that ANT's and MixPE's released simulators derive from BitFusion's: steps of one product a PE.

Guo et al., "ANT: Exploiting Adaptive Numerical Data Type for Low-bit Deep Neural Network Quantization", MICRO 2022;
Sharma et al., "Bit Fusion", ISCA 2018. A PE that multiplies operands of ``widest`` bits holds several narrower ones:
``floor(widest / max(bits, narrowest))`` along rows and as many along columns. Output-stationary; nothing
fills, drains or is skewed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class FusionArray:
    """``rows`` (of the im2col matrix) x ``cols`` (output channels) PEs."""

    rows: int
    cols: int
    widest_bits: int
    narrowest_bits: int

    def operands_per_pe(self, bits: int) -> int:
        """Operands of ``bits`` that a PE holds along one axis."""
        return self.widest_bits // max(bits, self.narrowest_bits)

    def cycles(self, m: int, k: int, n: int, *, weight_bits: int, activation_bits: int) -> int:
        """Array cycles of (m, k) x (k, n) held whole: no tiles, no memory."""
        rows = self.rows * self.operands_per_pe(activation_bits)
        cols = self.cols * self.operands_per_pe(weight_bits)
        return ceil(m / rows) * ceil(n / cols) * k
