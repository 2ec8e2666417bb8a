"""Operand streams on which energy is measured.

``gaussian``  integers: normal, standard deviation a quarter of the range, rounded, saturated. Floats: normal values
              times 16, encoded (FP8 E4M3 then uses most of its exponents); of formats whose largest value is below
              64 the values have a standard deviation of a quarter of that. Scales are one.
``uniform``   every finite code equally likely; exponents of scales around one.
``scales``    as gaussian, but every cycle with new scales around one.
``zero``      all operands zero.

The accumulator begins a new sum every 64th cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.formats.element import Element, encode, patterns
from simulator.rtl.unit import Unit

Codes = npt.NDArray[np.int64]

STIMULI = ("gaussian", "uniform", "scales", "zero")
SUM_LENGTH = 64
_FLOAT_SIGMA = 16.0
_ONE = {"e8m0": 127, "fp8_e4m3": 0x38}
_SPREAD = {"e8m0": 4, "fp8_e4m3": 16}
"""Codes to either side of one that scales take."""


@dataclass(frozen=True)
class Operands:
    """Codes of every cycle: (cycles, lanes); scales (cycles,), absent where the unit has none."""

    activations: Codes
    weights: Codes
    activation_scales: Codes | None
    weight_scales: Codes | None
    first: npt.NDArray[np.bool_]

    def ports(self, unit: Unit) -> Mapping[str, npt.NDArray[np.uint8]]:
        """{port: (cycles, bits)}, lane 0 lowest."""
        ports = {
            "a": _bits(patterns(unit.activation, self.activations), unit.activation.bits),
            "w": _bits(patterns(unit.weight, self.weights), unit.weight.bits),
            "first": self.first[:, None].astype(np.uint8),
        }
        if self.activation_scales is not None and self.weight_scales is not None:
            ports["a_scale"] = _bits(self.activation_scales[:, None], 8)
            ports["w_scale"] = _bits(self.weight_scales[:, None], 8)
        return ports


def operands(unit: Unit, kind: str, cycles: int, seed: int = 0) -> Operands:
    """A stream of one of `STIMULI`; the same for the same arguments."""
    rng = np.random.default_rng([seed, kind == "uniform"])
    activations, weights = (
        _element_codes(element, kind, rng, (cycles, unit.lanes)) for element in (unit.activation, unit.weight)
    )
    first = np.arange(cycles) % SUM_LENGTH == 0
    if unit.scale is None:
        return Operands(activations, weights, None, None, first)
    one, spread = _ONE[unit.scale], _SPREAD[unit.scale] if kind in ("uniform", "scales") else 0
    a_scales, w_scales = (one + rng.integers(-spread, spread + 1, cycles) for _ in range(2))
    return Operands(activations, weights, a_scales, w_scales, first)


def _element_codes(element: Element, kind: str, rng: np.random.Generator, shape: tuple[int, int]) -> Codes:
    if kind == "zero":
        return np.zeros(shape, np.int64)
    if kind == "uniform":
        top = element.max_code
        if element.kind == "int":
            return rng.integers(-top - 1, top + 1, shape)
        magnitudes = rng.integers(0, top + 1, shape)
        if element.kind == "uint":
            return magnitudes
        return magnitudes | rng.integers(0, 2, shape) << (element.bits - 1)
    sigma = 2.0**element.bits / 4 * 2.0**element.step_exponent if element.is_integer else _FLOAT_SIGMA
    if not element.is_integer:
        sigma = min(sigma, element.max_value / 4)
    values = rng.normal(0.0, sigma, shape)
    return encode(element, np.abs(values) if element.kind == "uint" else values).astype(np.int64)


def _bits(codes: npt.NDArray[np.integer], width: int) -> npt.NDArray[np.uint8]:
    """(cycles, lanes) -> (cycles, lanes * width)"""
    places = np.arange(width, dtype=np.uint64)
    spread = codes.astype(np.uint64)[..., None] >> places & np.uint64(1)
    return spread.reshape(len(codes), -1).astype(np.uint8)
