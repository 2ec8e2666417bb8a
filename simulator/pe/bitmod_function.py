"""What BitMoD's PE computes, bit for bit: alignment of products, accumulation, scaling of groups.

The stages are those of `simulator.pe.bitmod`. Registers are float64 arrays of integers, which float64 holds exactly: of
a sum no more than 53 bits differ from zero. `aligned_sums` is what a cycle does, to read; `cycles_kernel` does all
cycles of a step, for many PEs.
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
from simulator.pe.protocol import Scales

WORTH_COMPILING = 1 << 14
"""PEs from which the compiled kernel pays for loading it."""
_LONGEST_SHIFT = 40
"""Of which nothing is left."""
_SCALE_EXPONENT = -149
"""Of the integers in `Scales`."""


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
        registers = reals_of(state, self.exponent)
        partial = self._cycles(registers[..., 0], exponents, significands, digits, significances)
        after = np.empty((*partial.shape, self.words))
        after[..., 0] = partial
        if self.words > 1:
            after[..., 1] = registers[..., 1]
        if scales is not None and scales.ends_group:
            after[..., 1] = self._scaled(registers[..., 1], partial, scales)
            after[..., 0] = 0
        integers: Integers = np.ldexp(after, -self.exponent)
        return integers

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
            lanes = (*partial.shape, digits.shape[-2])
            found = partial.copy()
            cycles_kernel.compiled(
                found,
                np.broadcast_to(exponents, lanes),
                np.broadcast_to(significands, lanes),
                np.broadcast_to(digits, (*lanes, digits.shape[-1])),
                np.array(significances),
                self.product_exponent,
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
        scale = reals_of(scales.weights, _SCALE_EXPONENT) * reals_of(scales.activations, _SCALE_EXPONENT)
        return add_and_round(output, partial * scale, self.sum_format)

    def result(self, state: Integers) -> Integers:
        """The output, or the partial sum where nothing is scaled, as Python integers."""
        return integers_of(np.asarray(state[..., -1]), 0)

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two results, as the adder of the output buffer does it."""
        reals = reals_of(partial, self.exponent), reals_of(other, self.exponent)
        return integers_of(add_and_round(*reals, self.sum_format), self.exponent)


def aligned_sums(
    exponents: Integers, significands: Integers, digits: Integers, guard_bits: int
) -> tuple[Integers, Integers]:
    """Stages 1 and 2 on lanes ``significands * 2**exponents * digits`` (..., lanes): sums (...) and the exponents (...)
    of their last places."""
    _, length = np.frexp(np.abs(digits))
    product_exponents = exponents + length - 1
    real = (significands != 0) & (digits != 0)
    largest = np.where(real, product_exponents, 0).max(axis=-1, keepdims=True)
    distance = np.where(real, largest - product_exponents, 0)
    aligned = _shifted(np.abs(significands) << guard_bits, distance)
    sums = (np.sign(significands) * np.sign(digits) * aligned).sum(axis=-1)
    return sums, largest[..., 0] - guard_bits


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
    digits: Integers,
    significances: Integers,
    product_exponent: int,
    guard_bits: int,
    precision: int,
    low: int,
) -> None:
    """Partial sums (m, n), in place, after the cycles of a step: `aligned_sums`, added and rounded.

    ``exponents``, ``significands`` (m, n, lanes); ``digits`` (m, n, lanes, cycles). A sum in float64 is on the same
    side of every midpoint of the narrower format as the exact one, or on it: there the error of the sum decides.
    """
    m, n, lanes, cycles = digits.shape
    for i in range(m):
        for j in range(n):
            held = partial[i, j]
            for cycle in range(cycles):
                largest = -1
                for lane in range(lanes):
                    digit = abs(digits[i, j, lane, cycle])
                    if digit != 0 and significands[i, j, lane] != 0:
                        exponent = exponents[i, j, lane]
                        while digit > 1:
                            digit >>= 1
                            exponent += 1
                        largest = max(largest, exponent)
                if largest < 0:
                    continue
                total = 0
                for lane in range(lanes):
                    digit = digits[i, j, lane, cycle]
                    significand = significands[i, j, lane]
                    if digit != 0 and significand != 0:
                        distance = largest - exponents[i, j, lane]
                        size = abs(digit)
                        while size > 1:
                            size >>= 1
                            distance -= 1
                        value = abs(significand) << guard_bits
                        by = min(distance, 40)
                        quotient = value >> by
                        twice = (value - (quotient << by)) << 1
                        if twice > (1 << by) or (twice == (1 << by) and quotient & 1 == 1):
                            quotient += 1
                        total += quotient if (digit > 0) == (significand > 0) else -quotient
                if total == 0:
                    continue
                last_place = largest - guard_bits + significances[cycle] + product_exponent
                addend = math.ldexp(float(total), last_place)
                whole = held + addend
                part = whole - held
                error = (held - (whole - part)) + (addend - part)
                unit = max(math.frexp(whole)[1] - precision, low)
                steps = math.ldexp(whole, -unit)
                down = np.floor(steps)
                rest = steps - down
                if rest > 0.5 or (rest == 0.5 and (error > 0 or (error == 0 and down % 2.0 == 1.0))):
                    down += 1.0
                held = math.ldexp(down, unit)
            partial[i, j] = held
