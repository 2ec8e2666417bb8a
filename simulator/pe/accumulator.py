"""Accumulators by name: what a partial sum is held in, how it is rounded, and the adder that it takes.

=================== ==========================================================================================
int<8..64>          two's complement of so many bits, products of integers only; wraps
fixed<8..1024>      the same for products of any elements, in units of the smallest product: exact fixed point
                    (Kulisch), where it is wide enough
fp32, fp16, bf16    IEEE 754 binary formats (bf16: FP32 with 8 significand bits)
e<X>m<Y>            a binary format of X exponent (2 to 8) and Y mantissa bits (1 to 23), subnormals included: e8m13
=================== ==========================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from simulator.hardware.structure import Part
from simulator.pe.arithmetic import FP16, FP32, BinaryFloat

BF16 = BinaryFloat("bf16", 16, 8, -133, 128)
_NAMED = {"fp32": FP32, "fp16": FP16, "bf16": BF16}
ALLOWED = "int8 to int64, fixed8 to fixed1024, fp32, fp16, bf16, e<2..8>m<1..23>"


@dataclass(frozen=True)
class Accumulator:
    """Where a PE's sum is held."""

    name: str
    bits: int
    float_format: BinaryFloat | None
    """None: two's complement."""
    integers_only: bool
    """It takes products of integers only."""

    @property
    def exponent_bits(self) -> int:
        """Of a floating-point accumulator."""
        return self.float_format.bits - self.float_format.precision if self.float_format else 0

    def adder(self, name: str, count: int = 1) -> Part:
        """The adder of two such sums."""
        if self.float_format is None:
            return Part(name, "int_adder", {"bits": self.bits}, count)
        params = {"exponent_bits": self.exponent_bits, "significand_bits": self.float_format.precision}
        return Part(name, "fp_adder", params, count)


@lru_cache(maxsize=256)
def accumulator(name: str) -> Accumulator:
    """The accumulator of this name. Raises ValueError: there is none."""
    if name in _NAMED:
        return Accumulator(name, _NAMED[name].bits, _NAMED[name], False)
    whole = re.fullmatch("(int|fixed)([1-9][0-9]{0,3})", name)
    if whole:
        bits, integers_only = int(whole[2]), whole[1] == "int"
        if 8 <= bits <= (64 if integers_only else 1024):
            return Accumulator(name, bits, None, integers_only)
    layout = re.fullmatch("e([2-8])m([1-9][0-9]?)", name)
    if layout and int(layout[2]) <= 23:
        return Accumulator(name, *_layout(name, int(layout[1]), int(layout[2])), False)
    raise ValueError(f"not an accumulator; allowed: {ALLOWED}")


def _layout(name: str, exponent_bits: int, mantissa_bits: int) -> tuple[int, BinaryFloat]:
    half = 1 << (exponent_bits - 1)
    bits = 1 + exponent_bits + mantissa_bits
    return bits, BinaryFloat(name, bits, mantissa_bits + 1, 2 - half - mantissa_bits, half)


def promotion(every: int, copies: int) -> list[Part]:
    """The second level of accumulators: an FP32 register (``copies`` of it), its adder, and a counter of steps."""
    return [
        accumulator("fp32").adder("promote"),
        Part("promoted", "register", {"bits": FP32.bits}, copies),
        Part("promote_counter", "register", {"bits": every.bit_length()}),
    ]
