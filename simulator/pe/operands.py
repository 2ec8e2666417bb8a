"""Widths of the registers that hold a PE's operands."""

from __future__ import annotations

from simulator.pe.protocol import Stationary


def streamed_bits(weight_bits: int, activation_bits: int, stationary: Stationary) -> int:
    """Bits of the operand registers of a lane: of what does not stay."""
    weights = weight_bits if stationary != "weights" else 0
    return weights + (activation_bits if stationary != "activations" else 0)


def held_bits(weight_bits: int, activation_bits: int, stationary: Stationary) -> int:
    """Bits of a stationary word of a lane."""
    return weight_bits if stationary == "weights" else activation_bits
