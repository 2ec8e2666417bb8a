"""Pruning of bit columns: groups of INT8 weights that are written in 8 - N columns.

A group's weights, one below the other, form columns of bits. Columns that say nothing (all zero, or all equal to the
sign) cost nothing; what else must go to leave 8 - N is rounded away. Memory holds the columns that are left and 8 bits
a group that say what the rest is, so that any weight is known from its bits and its group's: a code and a selector.

Shi et al., "BitWave: Exploiting Column-Based Bit-Level Sparsity for Deep Learning Acceleration", HPCA 2024 (bit
flip); Chen et al., "BBS: Bi-directional Bit-level Sparsity for Deep Learning Acceleration", MICRO 2024 (rounded
averaging, zero-point shifting). The rounding rules, ties included, are those of the simulator released with BBS,
whose pruned weights we reproduce. Its constant has 5 bits where the paper says 6; 3 bits for the columns make it the
paper's 8 a group.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.element import FP16, Array, Element, value_table, widen
from simulator.formats.format import Format
from simulator.formats.scaling import stored
from simulator.formats.tensor import QuantizedTensor
from simulator.kernels import kernel

Method = Literal["bitflip", "bbs_avg", "bbs_zp"]
Integers = npt.NDArray[np.int64]

GROUP = 32
SELECTOR_BITS = 8
COLUMNS = range(1, 7)
"""Columns that can be pruned."""
MOST_REDUNDANT = 3
"""Columns equal to the sign that rounded averaging counts (2 bits)."""
OFFSETS = range(-16, 16)
"""Constants that zero-point shifting tries, in order (5 bits)."""
COMPILED_FROM = 2**17
"""At least so many weights are shifted by the compiled search."""


class Pruned(NamedTuple):
    """Groups after pruning, int64: (rows, k) weights and codes, (rows, groups) selectors."""

    weights: Integers
    codes: Integers
    selectors: Integers


def prune(int8: Array, method: Method, columns: int, group: int = GROUP) -> Pruned:
    """Prune N = `columns` columns of each group of `group` INT8 weights (-127 .. 127) along the last axis (rows, k).

    bitflip: in sign and magnitude, the lowest columns are rounded away, as many as zero columns do not make up for.
    bbs_avg: in two's complement, the low bits of all weights are replaced by their rounded mean.
    bbs_zp:  weights are shifted by the constant that leaves the least squared error once their low bits are rounded
    away. Pruned weights may then lie beyond INT8 (up to +-143).
    """
    wide = np.asarray(int8).astype(np.int64)
    if columns not in COLUMNS:
        raise InputError("bit columns to prune", value=columns, allowed="1 to 6")
    if wide.size and int(np.abs(wide).max()) > 127:
        raise InputError("weights to prune", value=int(np.abs(wide).max()), allowed="-127 to 127")
    rows, k = wide.shape
    if not wide.size:
        return Pruned(wide, wide, np.zeros((rows, -(-k // group)), np.int64))
    whole = k // group * group
    cuts = [(0, whole, group), (whole, k, k - whole)]
    parts = [
        _METHODS[method](wide[:, low:high].reshape(rows, -1, size), columns)
        for low, high, size in cuts
        if low < high
    ]
    weights, codes = (np.concatenate([part[i].reshape(rows, -1) for part in parts], axis=1) for i in (0, 1))
    return Pruned(weights, codes, np.concatenate([part.selectors for part in parts], axis=1))


def _bit_flip(weights: Integers, columns: int) -> Pruned:
    """Groups (rows, groups, members). Selector: a bit for each column that is kept, the sign's highest."""
    magnitudes = np.abs(weights)
    used = np.bitwise_or.reduce(magnitudes, axis=2)
    kept = np.full(used.shape, 8 - columns)
    first_open = np.ones(used.shape, np.int64)
    """One column after the last empty one among those kept: from here on bits may change."""
    mask = np.full(used.shape, 1 << 7)
    for column in range(1, 8):
        bit = 1 << (7 - column)
        reached, empty = kept > column, used & bit == 0
        kept += reached & empty
        first_open = np.where(reached & empty, column + 1, first_open)
        mask |= np.where(reached & ~empty, bit, 0)
    cut, open_bits = np.maximum(8 - kept, 0)[:, :, None], (8 - first_open)[:, :, None]
    low = magnitudes & ((1 << open_bits) - 1)
    largest = (1 << open_bits) - (1 << cut)
    pruned = magnitudes - low + np.minimum(_round_down_ties(low, cut), largest)
    pruned = np.where(weights < 0, -pruned, pruned)
    patterns = np.abs(pruned) | np.where(weights < 0, 1 << 7, 0)
    return Pruned(pruned, _gather(patterns, mask[:, :, None], 8 - columns), mask)


def _rounded_average(weights: Integers, columns: int) -> Pruned:
    """Selector: redundant columns (2 bits), then the mean of the low bits (6)."""
    span = np.bitwise_or.reduce(weights ^ (weights >> 8), axis=2)
    redundant = np.zeros(span.shape, np.int64)
    for column in range(1, MOST_REDUNDANT + 1):
        redundant += (redundant == column - 1) & (span < 1 << (7 - column))
    cut = np.maximum(columns - redundant, 0)
    low = weights & ((1 << cut) - 1)[:, :, None]
    mean = np.rint(low.mean(axis=2)).astype(np.int64)
    kept = weights >> cut[:, :, None]
    pruned = (kept << cut[:, :, None]) + mean[:, :, None]
    return Pruned(pruned, kept & ((1 << (8 - columns)) - 1), redundant | mean << 2)


def _zero_point_shift(weights: Integers, columns: int) -> Pruned:
    """Selector: columns rounded away (3 bits), then the constant, counted from -16 (5)."""
    numbers = np.empty(weights.shape[:2], np.int64)
    if weights.size >= COMPILED_FROM:
        best_offset_kernel(weights, columns, OFFSETS.start, OFFSETS.stop, numbers)
    else:
        numbers[:] = best_offset(weights, columns)
    return _shift(weights, columns, numbers)


def best_offset(weights: Integers, columns: int) -> Integers:
    """(rows, groups) numbers of the constants with the least squared error, the first of equals."""
    every = [np.full(weights.shape[:2], number) for number in range(len(OFFSETS))]
    errors = [np.square(_shift(weights, columns, number).weights - weights).sum(axis=2) for number in every]
    numbers: Integers = np.argmin(errors, axis=0).astype(np.int64)
    return numbers


@kernel(nogil=True)
def best_offset_kernel(weights: Integers, columns: int, first: int, end: int, numbers: Integers) -> None:
    """`best_offset`."""
    for row in range(weights.shape[0]):
        for group in range(weights.shape[1]):
            members = weights[row, group]
            least = np.int64(2**62)
            for offset in range(first, end):
                used = np.int64(0)
                for i in range(members.size):
                    used |= min(abs(members[i] + offset), 127)
                bits = 0
                while used >> bits:
                    bits += 1
                cut = max(columns - (7 - bits), 0)
                half = max(((1 << cut) >> 1) - 1, 0)
                largest = (1 << bits) - (1 << cut)
                error = np.int64(0)
                for i in range(members.size):
                    shifted = members[i] + offset
                    rounded = min((min(abs(shifted), 127) + half) >> cut << cut, largest)
                    difference = (-rounded if shifted < 0 else rounded) - offset - members[i]
                    error += difference * difference
                if error < least:
                    least = error
                    numbers[row, group] = offset - first


def _shift(weights: Integers, columns: int, numbers: Integers) -> Pruned:
    """Weights shifted by the constants of these numbers (rows, groups), rounded and shifted back."""
    offset = numbers[:, :, None] + OFFSETS.start
    shifted = np.clip(weights + offset, -127, 127)
    magnitudes = np.abs(shifted)
    used = np.bitwise_or.reduce(magnitudes, axis=2)
    bits = np.frexp(used.astype(np.float64))[1].astype(np.int64)
    cut = np.maximum(columns - (7 - bits), 0)
    largest = ((1 << bits) - (1 << cut))[:, :, None]
    rounded = np.minimum(_round_down_ties(magnitudes, cut[:, :, None]), largest)
    sign = np.where(shifted < 0, 1 << (7 - columns), 0)
    codes = (rounded >> cut[:, :, None]) | sign
    return Pruned(np.where(shifted < 0, -rounded, rounded) - offset, codes, cut | numbers << 3)


_METHODS: dict[Method, Callable[[Integers, int], Pruned]] = {
    "bitflip": _bit_flip,
    "bbs_avg": _rounded_average,
    "bbs_zp": _zero_point_shift,
}


def _round_down_ties(magnitudes: Integers, cut: Integers) -> Integers:
    """The nearest multiple of 2**cut, the lower one of two."""
    half = (1 << cut) >> 1
    rounded: Integers = (magnitudes + np.maximum(half - 1, 0)) >> cut << cut
    return rounded


def _gather(patterns: Integers, mask: Integers, bits: int) -> Integers:
    """The bits of 8-bit patterns that a mask keeps, together, the highest first in `bits` bits."""
    gathered = np.zeros(patterns.shape, np.int64)
    place = np.full(mask.shape, bits - 1)
    for bit in range(7, -1, -1):
        is_kept = mask >> bit & 1
        gathered |= (patterns >> bit & is_kept) << np.maximum(place, 0)
        place = place - is_kept
    return gathered


@lru_cache(maxsize=32)
def element_of(method: Method, columns: int) -> Element:
    """Codes of 8 - N bits, and for each selector the weights that they stand for."""
    count = 1 << (8 - columns)
    table_of = {"bitflip": _flip_table, "bbs_avg": _average_table, "bbs_zp": _shift_table}[method]
    return value_table(
        f"{method}{columns}", *(table_of(selector, columns, count) for selector in range(1 << SELECTOR_BITS))
    )


def _flip_table(mask: int, columns: int, count: int) -> tuple[int, ...]:
    places = [bit for bit in range(7, -1, -1) if (mask | 1 << 7) >> bit & 1][: 8 - columns]
    table = []
    for code in range(count):
        pattern = sum(1 << bit for i, bit in enumerate(places) if code >> (7 - columns - i) & 1)
        table.append(-(pattern & 127) if pattern >> 7 else pattern)
    return tuple(table)


def _average_table(selector: int, columns: int, count: int) -> tuple[int, ...]:
    cut = max(columns - (selector & 3), 0)
    constant = (selector >> 2) & ((1 << cut) - 1)
    return tuple(((code - count if code >= count // 2 else code) << cut) + constant for code in range(count))


def _shift_table(selector: int, columns: int, count: int) -> tuple[int, ...]:
    cut, offset = min(selector & 7, columns), OFFSETS[selector >> 3]
    magnitudes = [(code & (count // 2 - 1)) << cut for code in range(count)]
    signed = (-m if code >= count // 2 else m for code, m in enumerate(magnitudes))
    return tuple(value - offset for value in signed)


def format_of(method: Method, columns: int, group: int = GROUP) -> Format:
    """INT8 with an FP16 scale a row, pruned in groups: 8 - N + 8 / group bits a weight."""
    return Format(
        f"{method}{columns}_g{group}",
        element_of(method, columns),
        "channel",
        scale_element=FP16,
        selector_bits=SELECTOR_BITS,
        selector_group=group,
        quantizer=partial(_quantize, method=method, columns=columns),
    )


def _quantize(values: Array, format_: Format, *, method: Method, columns: int) -> QuantizedTensor:
    """Max-abs INT8 of each row, then `prune`."""
    reals = widen(values)
    scales = stored(FP16, np.abs(reals).max(axis=1, keepdims=True, initial=0.0) / 127)
    whole = np.clip(np.rint(reals / scales), -127, 127).astype(np.int64)
    pruned = prune(whole, method, columns, format_.selector_group)
    return QuantizedTensor(
        pruned.codes.astype(format_.code_dtype),
        format_,
        scales.astype(np.float32),
        selectors=pruned.selectors.astype(np.uint8),
    )
