"""What BitMoD's PE computes, bit for bit: alignment of products, accumulation, scaling of groups.

The stages are those of `simulator.pe.bitmod`. Registers hold values in float64, which is wide enough for all of them
and much faster than Python integers. `aligned_sums` is what a cycle does, to read; `cycles_kernel` does all cycles of a
step, for many PEs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulator.formats.element import Element
from simulator.kernels import kernel
from simulator.pe.arithmetic import (
    FP16,
    BinaryFloat,
    Integers,
    Reals,
    add_and_round,
    integers_of,
    reals_of,
    round_reals,
)
from simulator.pe.bitmod_terms import terms
from simulator.pe.protocol import SCALE_EXPONENT, Scales

WORTH_COMPILING = 1 << 14
"""PEs from which the compiled kernel pays for loading it."""
_LONGEST_SHIFT = 40
"""Of which nothing is left."""
_EXPONENTS = np.arange(40)
"""Of all products of an FP16 significand and a digit."""


@dataclass(frozen=True)
class BitModFunction:
    """The PE's datapath. State: the partial sum, and, where groups are scaled, the output."""

    weights: Element
    product_exponent: int
    guard_bits: int
    sum_format: BinaryFloat
    words: int

    @property
    def exponent(self) -> int:
        return self.sum_format.low

    @property
    def dtype(self) -> np.dtype[np.float64]:
        return np.dtype(np.float64)

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """State (..., words) after the cycles of one step on operands (..., lanes)."""
        digits, significances = terms(weights.astype(np.int64), self.weights)
        exponents, significands = _unpacked(activations.astype(np.int64))
        partial = self._cycles(state[..., 0], exponents, significands, digits, significances)
        after = np.empty((*partial.shape, self.words))
        after[..., 0] = partial
        if self.words > 1:
            after[..., 1] = state[..., 1]
        if scales is not None and scales.ends_group:
            after[..., 1] = self._scaled(state[..., 1], partial, scales)
            after[..., 0] = 0
        return after

    def cycle(self, partial: Reals, activations: Integers, digits: Integers, bsig: int) -> Reals:
        """Partial sums (...) after one cycle of a step, on activations and digits (..., lanes)."""
        exponents, significands = _unpacked(activations.astype(np.int64))
        return self._cycles(partial, exponents, significands, digits[..., None], (bsig,))

    def _cycles(
        self,
        partial: Reals,
        exponents: Integers,
        significands: Integers,
        digits: Integers,
        significances: tuple[int, ...],
    ) -> Reals:
        """Partial sums (...) after a cycle for each digit of (..., lanes, cycles)."""
        if partial.ndim == 2 and partial.size >= WORTH_COMPILING:
            found, every = partial.copy(), (*partial.shape, *digits.shape[-2:])
            cycles_kernel.compiled(
                found,
                np.broadcast_to(exponents, every[:-1]),
                np.broadcast_to(significands, every[:-1]),
                np.broadcast_to(np.sign(digits), every),
                np.broadcast_to(_log2(digits), every),
                np.ldexp(
                    1.0, self.product_exponent - self.guard_bits + np.add.outer(significances, _EXPONENTS)
                ),
                self.guard_bits,
                self.sum_format.precision,
                self.sum_format.low,
            )
            return round_reals(found, self.sum_format)
        for cycle, bsig in enumerate(significances):
            sums, last_places = aligned_sums(exponents, significands, digits[..., cycle], self.guard_bits)
            addend = np.ldexp(sums.astype(np.float64), last_places + (bsig + self.product_exponent))
            partial = add_and_round(partial, addend, self.sum_format)
        return partial

    def _scaled(self, output: Reals, partial: Reals, scales: Scales) -> Reals:
        """Stage 4: output + partial * scale, whose product is exact: FP16 activations have no scale of their own."""
        scale = reals_of(scales.weights, SCALE_EXPONENT) * reals_of(scales.activations, SCALE_EXPONENT)
        return add_and_round(output, partial * scale, self.sum_format)

    def result(self, state: Integers) -> Integers:
        """The output, or the partial sum where nothing is scaled, as Python integers."""
        return integers_of(np.asarray(state[..., -1]), self.exponent)

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two results, as the adder of the output buffer does it."""
        reals = reals_of(partial, self.exponent), reals_of(other, self.exponent)
        return integers_of(add_and_round(*reals, self.sum_format), self.exponent)


def aligned_sums(
    exponents: Integers, significands: Integers, digits: Integers, guard_bits: int
) -> tuple[Integers, Integers]:
    """Stages 1 and 2 on lanes ``significands * 2**exponents * digits`` (..., lanes): sums (...) and the exponents (...)
    of their last places."""
    product_exponents = exponents + _log2(digits)
    real = (significands != 0) & (digits != 0)
    largest = np.where(real, product_exponents, 0).max(axis=-1, keepdims=True)
    distance = np.where(real, largest - product_exponents, 0)
    aligned = _shifted(np.abs(significands) << guard_bits, distance)
    sums = (np.sign(significands) * np.sign(digits) * aligned).sum(axis=-1)
    return sums, largest[..., 0] - guard_bits


def _log2(digits: Integers) -> Integers:
    """Of the magnitudes; -1 of zeros."""
    return np.frexp(np.abs(digits))[1].astype(np.int64) - 1


def _unpacked(activations: Integers) -> tuple[Integers, Integers]:
    """FP16 integers (times 2**-24) as exponents and signed significands of 11 bits; subnormals have exponent 0."""
    magnitudes = np.abs(activations)
    _, length = np.frexp(magnitudes.astype(np.float64))
    exponents = np.maximum(length - FP16.precision, 0).astype(np.int64)
    return exponents, np.sign(activations) * (magnitudes >> exponents)


def _shifted(values: Integers, by: Integers) -> Integers:
    """Non-negative ``values / 2**by`` to the nearest integer, ties to even."""
    by = np.minimum(by, _LONGEST_SHIFT)
    quotient, half = values >> by, (np.int64(1) << by) >> 1
    rest = values - (quotient << by)
    up: Integers = (rest > half) | ((rest == half) & (by > 0) & (quotient & 1 == 1))
    return quotient + up


@kernel(nogil=True)
def cycles_kernel(
    partial: Reals,
    exponents: Integers,
    significands: Integers,
    signs: Integers,
    shifts: Integers,
    places: Reals,
    guard_bits: int,
    precision: int,
    low: int,
) -> None:
    """Partial sums (m, n), in place, after the cycles of a step: `aligned_sums`, added and rounded.

    ``exponents``, ``significands`` (m, n, lanes); digits are ``signs * 2**shifts`` (m, n, lanes, cycles); ``places``
    (cycles, exponents): what the last bit of an aligned sum is worth. A sum in float64 is on the same side of every
    midpoint of the narrower format as the exact one, or on it: there its error decides. That is added before FP32 is
    rounded to by a cast.
    """
    m, n, lanes, cycles = signs.shape
    for i in range(m):
        for j in range(n):
            held = partial[i, j]
            for cycle in range(cycles):
                largest = -1
                for lane in range(lanes):
                    if signs[i, j, lane, cycle] != 0 and significands[i, j, lane] != 0:
                        largest = max(largest, exponents[i, j, lane] + shifts[i, j, lane, cycle])
                if largest < 0:
                    continue
                total = 0
                for lane in range(lanes):
                    signed = signs[i, j, lane, cycle] * significands[i, j, lane]
                    if signed != 0:
                        value = abs(signed) << guard_bits
                        by = min(largest - exponents[i, j, lane] - shifts[i, j, lane, cycle], 40)
                        quotient = value >> by
                        twice = (value - (quotient << by)) << 1
                        if twice > (1 << by) or (twice == (1 << by) and quotient & 1 == 1):
                            quotient += 1
                        total += quotient if signed > 0 else -quotient
                if total == 0:
                    continue
                addend = total * places[cycle, largest]
                whole = held + addend
                part = whole - held
                error = (held - (whole - part)) + (addend - part)
                if precision == 24 and low == -149:
                    if error != 0:
                        whole += math.copysign(whole * 2.0**-52, error)
                    held = float(np.float32(whole))
                    continue
                unit = max(math.frexp(whole)[1] - precision, low)
                steps = math.ldexp(whole, -unit)
                down = np.floor(steps)
                rest = steps - down
                if rest > 0.5 or (rest == 0.5 and (error > 0 or (error == 0 and down % 2.0 == 1.0))):
                    down += 1.0
                held = math.ldexp(down, unit)
            partial[i, j] = held
