"""PEs of the engine tests: serial ones with every liberty of the protocol, on the MAC's arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

import simulator.pe
from simulator.formats import Format
from simulator.pe.mac import MacFunction, MacPE
from simulator.pe.protocol import Cycles, Scales, Side, Timing


@dataclass(frozen=True)
class ExactFunction:
    """Two accumulators without limit: of the group, and of the groups with their scales and without zero points."""

    product_exponent: int
    words: int = 2

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(object)

    @property
    def exponent(self) -> int:
        return self.product_exponent - 2 * 149

    def step(self, state, activations, weights, scales=None):  # type: ignore[no-untyped-def]
        if scales is None:
            scales = Scales(*(np.array(x, object) for x in (1 << 149, 1 << 149, 0, 0)), False)
        w_zero, a_zero = np.expand_dims(scales.weight_zeros, -1), np.expand_dims(scales.activation_zeros, -1)
        products = (weights * activations - w_zero * activations - a_zero * weights).sum(axis=-1)
        group = state[..., 0] + products
        total = state[..., 1]
        total = total + products * scales.weights * scales.activations
        return np.stack(np.broadcast_arrays(group, total), axis=-1)

    def result(self, state):  # type: ignore[no-untyped-def]
        return state[..., 1]

    def add(self, partial, other):  # type: ignore[no-untyped-def]
        return partial + other


class ToyPE(MacPE):
    """Serial; scales inside, slow decoders and work for the vector unit are parameters."""

    family: Literal["toy"]
    inside: bool = False
    group_cycles: int = 0
    weight_decode: int = 1
    activation_decode: int = 1
    passes: int = 0

    def fits(self, dataflow: str) -> str | None:
        return "scales need stationary outputs" if self.inside and dataflow in ("ws", "is") else None

    def scales_inside(self, weights: Format, activations: Format) -> bool:
        return self.inside

    def timing(self, weights: Format, activations: Format) -> Timing:
        return Timing(
            self.lanes,
            self.pipeline_depth,
            self.initiation_interval,
            serial=True,
            group_cycles=self.group_cycles,
            weight_decode=self.weight_decode,
            activation_decode=self.activation_decode,
        )

    def function(self, weights: Format, activations: Format) -> MacFunction | ExactFunction:
        mac = super().function(weights, activations)
        return ExactFunction(mac.product_exponent) if self.inside else mac

    def vector_passes(self, weights: Format, activations: Format) -> Fraction:
        return Fraction(self.passes, 3)

    def activity(self, weights, activations, *, stationary):  # type: ignore[no-untyped-def]
        """Everything that is counted, once each."""
        from simulator.pe.protocol import COUNTED

        return {counted: {("toy", counted): 1} for counted in COUNTED}


class BitsOfBoth:
    """A step takes the most bits of any activation times the most of any weight, as in Loom (Sharify et al., DAC
    2018)."""

    def __init__(self, depends_on: tuple[Side, ...]) -> None:
        self.depends_on = depends_on

    def bits(self, side: Side, integers: np.ndarray) -> np.ndarray:
        if side not in self.depends_on:
            return np.ones_like(integers)
        return np.array([max(1, int(abs(value)).bit_length()) for value in integers.reshape(-1)]).reshape(
            integers.shape
        )

    def ends(self, activations: np.ndarray, weights: np.ndarray, floor: int) -> Cycles:
        steps = self.bits("activations", activations).max(axis=(0, 2)) * self.bits("weights", weights).max(
            axis=(0, 2)
        )
        return np.cumsum(np.maximum(steps, floor))

    def profile(self, side: Side, integers: np.ndarray) -> np.ndarray:
        return self.bits(side, integers).max(axis=(1, 3))

    def streams(self, activations: np.ndarray, weights: np.ndarray, bounds: Cycles, floor: int) -> Cycles:
        steps = np.maximum(activations[:, None] * weights[None], floor)
        return np.add.reduceat(steps, bounds[:-1], axis=2)

    def terms(self, side: Side, integers: np.ndarray) -> Cycles:
        return self.bits(side, integers) + 1


class DataToyPE(ToyPE):
    """The same with time by the codes of one or both operands."""

    family: Literal["data_toy"]  # type: ignore[assignment]
    by_weights: bool = True
    by_activations: bool = True

    def fits(self, dataflow: str) -> str | None:
        return None if dataflow == "broadcast" else "its time depends on the codes"

    def data_timing(self, weights: Format, activations: Format) -> BitsOfBoth:
        sides: tuple[tuple[Side, bool], ...] = (
            ("weights", self.by_weights),
            ("activations", self.by_activations),
        )
        return BitsOfBoth(tuple(side for side, by in sides if by))


simulator.pe.FAMILIES |= {"toy": ("toy_pes", "ToyPE"), "data_toy": ("toy_pes", "DataToyPE")}
