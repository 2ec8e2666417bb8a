"""What PEs of parallel multipliers compute, bit for bit: the MAC (`simulator.pe.mac`) and, with more options, the
block-scaled dot product (`simulator.pe.block_dot`), whose parameters are meant here.

One step multiplies ``lanes`` pairs of elements, where scales are applied of one pair of blocks. The exponent of a float
is that of its exponent field (the smallest normal's for subnormals), of an integer that of the largest value; the
exponent of a product is the sum of its factors', of the accumulator its own. The lanes are cut into clusters of
``lanes_per_alignment``, which are added to the accumulator one after the other, lowest lanes first. For each:

1. Products are exact. With ``align_window`` w, and unless both elements are integers and the accumulator is not fused,
   they are aligned: e is the largest exponent of those that are not zero; of each magnitude the bits below 2**(e - w)
   are dropped, then it takes its sign.
2. The sum of the cluster is exact.
3. Where the scales are applied inside, the sum is multiplied by the product of both blocks' scales: exactly, except
   that a product of integer scales longer than ``scale_product_bits`` keeps so many of its upper bits, rounded to
   nearest, ties to even. (A power of two only adds to exponents.)
4. The accumulator takes the sum, rounded once: to nearest, ties to even, or towards zero (``acc_rounding: truncate``).
   Integer and fixed-point accumulators wrap.

With ``fuse_accumulator`` the accumulator is one more term of 1, e the largest of its and the scaled products'
exponents, and the sum of all is rounded; with ``sticky`` a bit below the window that says whether anything was dropped
takes part in that rounding. So aligns the openly synthesised unit of 32 lanes in the repository SiHeonOh/FormatScope
(2026): window 24, sticky; its rule for the accumulator's exponent was not at hand, ours is that of products.

With ``promote_every`` n the accumulator is added to an FP32 register, rounded to nearest, and cleared after every n
steps, and once more when the result leaves: two-level accumulation, as kernels for FP8 tensor cores do it because these
keep 13 bits below the largest exponent and truncate (DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv 2412.19437,
section 3.3.2; the paper was not at hand). Scales inside then wait for that addition: the accumulator also moves at the
end of every group, and it is what moves that 3 multiplies.

Inf and NaN codes and NaN scales (E8M0's 0xFF) are refused where a tensor becomes integers, before a run: every result
that one of them enters is NaN (or Inf), which needs no simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.formats.element import Element
from simulator.pe.accumulator import Accumulator
from simulator.pe.arithmetic import (
    FP32,
    BinaryFloat,
    Integers,
    Reals,
    add_and_round,
    integers_of,
    reals_of,
    round_reals,
    round_to_float,
    wrap,
)
from simulator.pe.protocol import SCALE_EXPONENT, Scales

SAFE_BITS = 53
"""Sums up to this width are exact in float64; wider ones are Python integers."""


@dataclass(frozen=True)
class DotFunction:
    """The arithmetic of the module's text, bit for bit.

    State: accumulator; with a second level also the FP32 register and the steps since it was added to.
    """

    weight: Element
    activation: Element
    accumulator: Accumulator
    cluster: int
    sum_bits: int
    """Width of a cluster's sum."""
    promote_every: int = 0
    window: int | None = None
    fused: bool = False
    sticky: bool = False
    truncate: bool = False
    scale_bits: int = 0
    """Significant bits of a product of scales; 0: none are applied."""
    dropped_scale_bits: int = 0
    """Lower bits by which a product of integer scales is rounded off."""

    @property
    def product_exponent(self) -> int:
        """Products are integers times 2**product_exponent."""
        return self.weight.quantum_exponent + self.activation.quantum_exponent

    @property
    def held_exponent(self) -> int:
        """Accumulators are integers times 2**held_exponent."""
        held = self.accumulator.float_format
        return held.low if held else self.product_exponent

    @property
    def exponent(self) -> int:
        return FP32.low if self.promote_every else self.held_exponent

    @property
    def words(self) -> int:
        return 3 if self.promote_every else 1

    @property
    def dtype(self) -> np.dtype[np.int64] | np.dtype[np.object_]:
        widest = max(self.accumulator.bits, self.sum_bits + self.scale_bits)
        whole = self.accumulator.float_format is None and widest <= 62
        return np.dtype(np.int64 if whole else object)

    @property
    def in_float64(self) -> bool:
        """Scaled sums have no more significant bits than float64, in which they are then computed."""
        sum_bits = self.sum_bits
        if self.cluster == 1:
            sum_bits = min(sum_bits, _significand_bits(self.weight) + _significand_bits(self.activation))
        scale_bits = 0 if self.promote_every else self.scale_bits
        return self.fused or sum_bits + scale_bits + 2 <= SAFE_BITS

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """State (..., words) after one step on operands (..., lanes)."""
        lanes = activations.shape[-1]
        held = state[..., 0]
        for low in range(0, lanes, self.cluster):
            part = slice(low, low + self.cluster)
            at_once = None if self.promote_every else scales
            held = self._accumulate(held, activations[..., part], weights[..., part], at_once)
        if not self.promote_every:
            return held[..., None]
        return self._promoted(held, state[..., 1], state[..., 2] + 1, scales)

    def result(self, state: Integers) -> Integers:
        if not self.promote_every:
            return state[..., 0]
        return _into_fp32(state[..., 1], state[..., 0], self.held_exponent)

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two partial sums, as the adder of the output buffer does it."""
        if self.promote_every:
            return _into_fp32(partial, other, self.exponent)
        held = self.accumulator.float_format
        if held is None:
            return wrap(partial + other, self.accumulator.bits)
        total = add_and_round(
            reals_of(partial, held.low), reals_of(other, held.low), held, truncate=self.truncate
        )
        return integers_of(total, held.low)

    def _promoted(
        self, held: Integers, promoted: Integers, count: Integers, scales: Scales | None
    ) -> Integers:
        """State after a step, the ``count``-th since the last promotion."""
        ends_group = scales is not None and self.scale_bits > 0 and scales.ends_group
        full = (count == self.promote_every) | ends_group
        added = reals_of(np.where(full, held, 0), self.held_exponent) * self._scale(scales)
        moved = integers_of(add_and_round(reals_of(promoted, FP32.low), added, FP32), FP32.low)
        words = np.broadcast_arrays(np.where(full, 0, held), moved, np.where(full, 0, count))
        return np.stack(words, axis=-1).astype(object)

    def _accumulate(
        self, held: Integers, activations: Integers, weights: Integers, scales: Scales | None
    ) -> Integers:
        """A cluster's products (..., cluster) and the accumulator (...)."""
        to = self.accumulator.float_format
        if to is None:
            return self._accumulate_integers(held, activations, weights, scales)
        if not self.in_float64:
            return self._accumulate_wide(held, activations, weights, scales, to)
        before = reals_of(held, to.low)
        scale = self._scale(scales)
        if self.fused:
            sums = self._fused(before, activations, weights, scale, to)
        else:
            terms = self._sums(activations, weights) * scale
            sums = add_and_round(before, terms, to, truncate=self.truncate)
        return integers_of(sums, to.low)

    def _products(self, activations: Integers, weights: Integers) -> Reals:
        activation_values = reals_of(activations, self.activation.quantum_exponent)
        return activation_values * reals_of(weights, self.weight.quantum_exponent)

    def _sums(self, activations: Integers, weights: Integers) -> Reals:
        """Sums of products, as they leave the adder tree."""
        products = self._products(activations, weights)
        if self.window is None:
            return np.asarray(products.sum(axis=-1))
        _, kept, unit = _aligned(products, self._exponents(activations, weights), self.window)
        sums: Reals = np.ldexp(kept.sum(axis=-1), unit)
        return sums

    def _fused(
        self,
        before: Reals,
        activations: Integers,
        weights: Integers,
        scale: Reals,
        to: BinaryFloat,
    ) -> Reals:
        """Products and accumulator aligned, added and rounded together; ``scale`` is a power of two."""
        assert self.window is not None
        products = self._products(activations, weights)
        shape = np.broadcast_shapes(products.shape[:-1], before.shape, scale.shape)
        terms = np.empty((*shape, self.cluster + 1))
        terms[..., :-1], terms[..., -1] = products * scale[..., None], before
        exponents = np.empty(terms.shape, np.int64)
        exponents[..., :-1] = self._exponents(activations, weights) + np.frexp(scale)[1][..., None] - 1
        exponents[..., -1] = np.maximum(np.frexp(before)[1] - 1, to.low + to.precision - 1)
        scaled, kept, unit = _aligned(terms, exponents, self.window)
        total = np.ldexp(kept.sum(axis=-1), unit)
        if self.sticky:
            # Bits of the sum that rounding drops end in the sticky bit: a quarter of the window's last, so never a tie.
            rounds = (total != 0) & (np.maximum(np.frexp(total)[1] - to.precision, to.low) > unit)
            lost = (kept != scaled).any(axis=-1) & rounds
            total += np.where(lost, np.copysign(np.ldexp(0.25, unit), total), 0.0)
        return round_reals(total, to, truncate=self.truncate)

    def _exponents(self, activations: Integers, weights: Integers) -> Integers:
        """Exponents of products: the sums of their factors'."""
        return _field_exponents(self.activation, activations) + _field_exponents(self.weight, weights)

    def _scale(self, scales: Scales | None) -> Reals:
        """The product of both scales as it is multiplied by."""
        if scales is None or not self.scale_bits:
            return np.ones(())
        product = reals_of(scales.weights, SCALE_EXPONENT) * reals_of(scales.activations, SCALE_EXPONENT)
        unit = 2.0**self.dropped_scale_bits
        rounded: Reals = np.rint(product / unit) * unit if self.dropped_scale_bits else product
        return rounded

    def _accumulate_integers(
        self, held: Integers, activations: Integers, weights: Integers, scales: Scales | None
    ) -> Integers:
        sums = (activations.astype(self.dtype) * weights.astype(self.dtype)).sum(axis=-1)
        scale = integers_of(np.asarray(self._scale(scales)), 0).astype(self.dtype)
        return wrap(held + sums * scale, self.accumulator.bits)

    def _accumulate_wide(
        self,
        held: Integers,
        activations: Integers,
        weights: Integers,
        scales: Scales | None,
        to: BinaryFloat,
    ) -> Integers:
        """The same in Python integers, for scaled sums that are wider than float64's significand."""
        if self.window is None:
            sums = (activations.astype(object) * weights.astype(object)).sum(axis=-1)
        else:
            sums = integers_of(self._sums(activations, weights), self.product_exponent)
        scale = integers_of(np.asarray(self._scale(scales)), 2 * SCALE_EXPONENT)
        exponent = self.product_exponent + 2 * SCALE_EXPONENT
        common = min(exponent, to.low)
        total = held * 2 ** (to.low - common) + sums * scale * 2 ** (exponent - common)
        return round_to_float(np.asarray(total, object), common, to, truncate=self.truncate)


def _aligned(values: Reals, exponents: Integers, window: int) -> tuple[Reals, Reals, Integers]:
    """Values (..., terms) in units of the bit ``window`` below the largest exponent, that without its fraction, and the
    unit's exponent (...)."""
    far_below = np.iinfo(np.int32).min // 2
    largest = np.where(values != 0, exponents, far_below).max(axis=-1)
    unit = np.where(largest == far_below, 0, largest - window).astype(np.int32)
    scaled = values * np.ldexp(1.0, -unit)[..., None]
    return scaled, np.trunc(scaled), unit


def _field_exponents(element: Element, integers: Integers) -> Integers:
    if element.is_integer:
        return np.full(integers.shape, element.emax)
    widths = np.frexp(integers.astype(np.float64))[1].astype(np.int64)
    return np.maximum(widths - 1 + element.quantum_exponent, element.emin)


def _into_fp32(sums: Integers, added: Integers, exponent: int) -> Integers:
    """FP32 sums (integers times 2**-149) and what is added to them (times 2**exponent)."""
    total = add_and_round(reals_of(np.asarray(sums), FP32.low), reals_of(np.asarray(added), exponent), FP32)
    return integers_of(total, FP32.low)


def exact_sum_bits(weight: Element, activation: Element, products: int) -> int:
    """Bits, sign included, of every sum of so many products, in units of the smallest one."""
    return (_largest_integer(weight) * _largest_integer(activation) * products).bit_length() + 1


def _largest_integer(element: Element) -> int:
    """Largest magnitude of the element's integers; two's complement has one more below zero."""
    if element.kind == "int":
        return 1 << (element.bits - 1)
    if element.is_integer:
        return element.max_code
    return int(np.ldexp(element.max_value, -element.quantum_exponent))


def _significand_bits(element: Element) -> int:
    return element.mantissa_bits + 1 if element.kind == "float" else _largest_integer(element).bit_length()
