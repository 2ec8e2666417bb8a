"""The rules of `simulator.pe.serial.sync` for whole tensors: same names, same results, about 1e9 values a second.

What makes them fast is the layout. Operands arrive with their lanes side by side; they are read as 64-bit words and
turned, a block of columns at a time (a column is one vector in one step), into bit planes: bit l of plane b is bit b of
lane l. A plane of 16 lanes is a 16-bit word, neighbouring columns are neighbouring words, and every rule is boolean
algebra on planes that says the same to all lanes of all columns at once: magnitudes, recoding, retiring terms. Lanes
are alike, so their order within a plane does not matter, only that it is one order. int8, uint8, int16 and uint16
operands are read as they are, wider ones are narrowed first; values of more than 16 bits and more than 64 lanes go
through the plain rules.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.kernels import kernel
from simulator.pe.arithmetic import Integers
from simulator.pe.serial import sync
from simulator.pe.serial.terms import Counts, Recoding, term_counts

Cycles = npt.NDArray[Any]
"""Counts in the narrowest type that holds them."""

_BLOCK = 512
"""Columns at a time: their planes and words stay in the first-level cache."""
_RECODINGS: dict[Recoding, int] = {"none": 0, "booth_like": 1, "naf": 2, "radix4_booth": 3}
_NARROW = tuple(np.dtype(name) for name in ("int8", "uint8", "int16", "uint16"))


def two_stage_cycles(
    integers: Integers, *, first_stage_bits: int = sync.WHOLE, recoding: Recoding = "none"
) -> Cycles:
    """`sync.two_stage_cycles`: (...) from (..., lanes)."""
    columns = _columns(integers)
    if columns is None:
        return sync.two_stage_cycles(integers, first_stage_bits=first_stage_bits, recoding=recoding)
    cycles = np.empty(len(columns.words), np.uint8)
    planes, words = columns.scratch(extra=2)
    two_stage_kernel(
        columns.words,
        columns.bits,
        columns.signed,
        _RECODINGS[recoding],
        1 << first_stage_bits,
        planes,
        words,
        cycles,
    )
    return cycles.reshape(integers.shape[:-1])


def bit_column_ones(integers: Integers, *, bits: int) -> Cycles:
    """`sync.bit_column_ones`: (bits, ...) from (..., lanes)."""
    columns = _columns(integers)
    if columns is None:
        return sync.bit_column_ones(integers, bits=bits)
    counts = np.zeros((bits, len(columns.words)), np.uint8)
    planes, words = columns.scratch()
    column_ones_kernel(columns.words, columns.bits, planes, words, counts)
    if columns.signed and bits > columns.bits:
        counts[columns.bits :] = counts[columns.bits - 1]
    return counts.reshape(bits, *integers.shape[:-1])


def bitlet_cycles(integers: Integers, *, bits: int) -> Cycles:
    """`sync.bitlet_cycles`: (...) from (..., lanes)."""
    return np.asarray(bit_column_ones(integers, bits=bits).max(axis=0))


def bit_column_cycles(integers: Integers, *, bits: int, multipliers: int) -> Cycles:
    """`sync.bit_column_cycles`: (...) from (..., lanes)."""
    ones = bit_column_ones(integers, bits=bits)
    cycles: Cycles = ((ones + (multipliers - 1)) // multipliers).sum(axis=0, dtype=np.uint16)
    return np.maximum(cycles, 1)


def group_widths(
    integers: Integers, *, signed: bool, vectors_per_group: int = 1, trim_zeros: bool = False
) -> Cycles:
    """`sync.group_widths`: (..., groups, steps) from (..., vectors, steps, lanes)."""
    columns = _columns(integers)
    if columns is None:
        return sync.group_widths(
            integers, signed=signed, vectors_per_group=vectors_per_group, trim_zeros=trim_zeros
        )
    union = _union(columns, magnitudes=False).reshape(integers.shape[:-1])
    if vectors_per_group > 1:
        starts = range(0, integers.shape[-3], vectors_per_group)
        union = np.bitwise_or.reduceat(union, starts, axis=-2)
    return np.take(_width_table(columns.bits, signed, trim_zeros), union)


def bitwave_cycles(integers: Integers) -> Cycles:
    """`sync.bitwave_cycles`: (...) from (..., lanes)."""
    columns = _columns(integers)
    if columns is None:
        return sync.bitwave_cycles(integers)
    ones = _term_table(f"u{columns.bits // 8}", "none")
    return np.take(ones, _union(columns, magnitudes=True)).reshape(integers.shape[:-1])


def lane_terms(integers: Integers, *, recoding: Recoding = "none") -> Cycles:
    """`sync.lane_terms`: (..., steps, lanes) from (..., vectors, steps, lanes)."""
    narrow = _narrow(integers)
    if narrow is None:
        return sync.lane_terms(integers, recoding=recoding)
    *outer, vectors, steps, lanes = narrow.shape
    codes = np.ascontiguousarray(narrow).view(f"u{narrow.itemsize}").reshape(-1, vectors, steps * lanes)
    most = np.zeros((len(codes), steps * lanes), np.uint8)
    most_terms_kernel(codes, _term_table(narrow.dtype.str[1:], recoding), most)
    return most.reshape(*outer, steps, lanes)


def value_terms(integers: Integers, *, recoding: Recoding = "none") -> Cycles:
    """`terms.term_counts`; same shape."""
    narrow = _narrow(integers)
    if narrow is None:
        return term_counts(integers, recoding)
    patterns = np.ascontiguousarray(narrow).view(f"u{narrow.itemsize}")
    return np.take(_term_table(narrow.dtype.str[1:], recoding), patterns)


def value_ones(integers: Integers, *, bits: int) -> Cycles:
    """Ones of each value's two's complement of up to 16 bits; same shape."""
    return np.take(_term_table("u2", "none"), integers.astype(np.int64) & (1 << bits) - 1)


def step_streams(cycles: Integers, bounds: Counts, floor: int) -> Counts:
    """Last of `sync.step_ends` for each fold and chunk: (folds, chunks) from (folds, steps). Chunk i is the steps
    bounds[i] to bounds[i + 1], at least one."""
    return np.add.reduceat(np.maximum(cycles, floor), bounds[:-1], axis=-1, dtype=np.int64)


def product_streams(activations: Integers, weights: Integers, bounds: Counts, floor: int) -> Counts:
    """The same of `sync.product_cycles`, every fold of one operand with every fold of the other: (activation folds,
    weight folds, chunks) from (folds, steps) or (folds, steps, lanes) of each."""
    a, w = (_lanes_first(operand) for operand in (activations, weights))
    streams = np.empty((len(a), len(w), len(bounds) - 1), np.int64)
    slowest = np.empty(a.shape[-1], np.float32)
    product_streams_kernel(a, w, bounds, floor, slowest, streams)
    return streams


def column_register_streams(cycles: Integers, registers: int, bounds: Counts, floor: int) -> Counts:
    """Last of `sync.column_register_ends` for each fold and chunk: (folds, chunks) from (folds, steps, vectors)."""
    streams = np.empty((len(cycles), len(bounds) - 1), np.int64)
    own, ends = np.empty(cycles.shape[-1], np.int64), np.empty(cycles.shape[-2], np.int64)
    column_register_kernel(cycles, registers, bounds, floor, own, ends, streams)
    return streams


class Columns(NamedTuple):
    """The lanes of each column as words of 8 bytes, and what a value in them is."""

    words: npt.NDArray[np.uint64]
    """(columns, words): 8 lanes a word, or 4 of 16 bits; what is missing in the last is zero."""
    bits: int
    signed: bool

    def scratch(self, extra: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint64]]:
        """Bit planes of a block, ``extra`` ones for what recoding adds above; words of a block."""
        lanes = self.words.shape[1] * 64 // self.bits
        dtype = np.uint16 if lanes <= 16 else np.uint32 if lanes <= 32 else np.uint64
        return np.empty((self.bits + extra, _BLOCK), dtype), np.empty((2, _BLOCK), np.uint64)


def _columns(integers: Integers) -> Columns | None:
    """None where values or lanes are too many bits for the kernels."""
    lanes = integers.shape[-1]
    narrow = _narrow(integers) if lanes <= 64 else None
    if narrow is None:
        return None
    if lanes % 8:
        padded = np.zeros((*narrow.shape[:-1], -(-lanes // 8) * 8), narrow.dtype)
        padded[..., :lanes] = narrow
        narrow = padded
    flat = np.ascontiguousarray(narrow).reshape(-1, narrow.shape[-1])
    return Columns(flat.view(np.uint64), 8 * narrow.dtype.itemsize, narrow.dtype.kind == "i")


def _narrow(integers: Integers) -> Integers | None:
    """The values in 8 or 16 bits; None where these are too few."""
    if integers.dtype in _NARROW:
        return integers
    low, high = (int(integers.min()), int(integers.max())) if integers.size else (0, 0)
    for dtype in _NARROW:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return integers.astype(dtype)
    return None


@lru_cache
def _term_table(dtype: str, recoding: Recoding) -> Cycles:
    """Terms of every value of a type, by the value's bit pattern."""
    patterns = np.arange(1 << 8 * np.dtype(dtype).itemsize).astype(f"u{np.dtype(dtype).itemsize}")
    return term_counts(patterns.view(dtype), recoding).astype(np.uint8)


@lru_cache
def _width_table(bits: int, signed: bool, trim_zeros: bool) -> Cycles:
    """`sync.union_widths` of every union."""
    return sync.union_widths(np.arange(1 << bits), signed=signed, trim_zeros=trim_zeros).astype(np.uint8)


def _lanes_first(profile: Integers) -> npt.NDArray[np.float32]:
    """(folds, lanes, steps), one lane where there is no axis of lanes. Products of counts are far below 2**24, so that
    float32, which multiplies the most values at a time, is exact."""
    with_lanes = profile[..., None] if profile.ndim == 2 else profile
    return np.ascontiguousarray(with_lanes.swapaxes(1, 2), np.float32)


def _union(columns: Columns, *, magnitudes: bool) -> npt.NDArray[Any]:
    """(columns,) the values of all lanes or-ed: `terms.folded` ones, or magnitudes."""
    union = np.empty(len(columns.words), np.uint8 if columns.bits == 8 else np.uint16)
    union_kernel(columns.words, columns.bits, columns.signed, magnitudes, union)
    return union


_LOW_BYTES = np.uint64(0x00FF00FF00FF00FF)
_BYTE = np.uint64(0xFF)
_TRANSPOSE = (np.uint64(0x00AA00AA00AA00AA), np.uint64(0x0000CCCC0000CCCC), np.uint64(0x00000000F0F0F0F0))
_7, _14, _28 = np.uint64(7), np.uint64(14), np.uint64(28)
_1, _8, _16, _32 = np.uint64(1), np.uint64(8), np.uint64(16), np.uint64(32)
_SIGNS = (np.uint64(0x8080808080808080), np.uint64(0x8000800080008000))


@kernel(nogil=True)
def union_kernel(words: Any, bits: int, signed: bool, magnitudes: bool, union: Any) -> None:
    """Or of all lanes of a column; negative values complemented, or negated."""
    signs = _SIGNS[0] if bits == 8 else _SIGNS[1]
    top = np.uint64(bits - 1)
    width = np.uint64(bits)
    for column in range(words.shape[0]):
        joined = np.uint64(0)
        for w in range(words.shape[1]):
            word = words[column, w]
            if signed:
                negative = (word & signs) >> top
                word ^= (negative << width) - negative
                if magnitudes:
                    word += negative
            joined |= word
        joined |= joined >> _32
        joined |= joined >> _16
        if bits == 8:
            joined |= joined >> _8
        union[column] = joined


@kernel(nogil=True)
def transpose(word: Any) -> Any:
    """8 x 8 bits: bit l of byte b of the result is bit b of byte l (Warren, Hacker's Delight, 2012, section 7-3)."""
    change = (word ^ word >> _7) & _TRANSPOSE[0]
    word ^= change ^ change << _7
    change = (word ^ word >> _14) & _TRANSPOSE[1]
    word ^= change ^ change << _14
    change = (word ^ word >> _28) & _TRANSPOSE[2]
    return word ^ change ^ change << _28


@kernel(nogil=True)
def spread(block: Any, count: int, shift: int, planes: Any) -> None:
    """Adds 8 lanes, from bit ``shift`` on, to 8 planes."""
    for column in range(count):
        block[column] = transpose(block[column])
    for b in range(8):
        plane = planes[b]
        byte = np.uint64(8 * b)
        lanes = np.uint64(shift)
        for column in range(count):
            plane[column] |= (block[column] >> byte & _BYTE) << lanes


@kernel(nogil=True)
def to_planes(words: Any, start: int, count: int, bits: int, block: Any, planes: Any) -> None:
    """Bit planes of ``count`` columns from ``start`` on."""
    planes[:bits, :count] = 0
    if bits == 8:
        for w in range(words.shape[1]):
            for column in range(count):
                block[0, column] = words[start + column, w]
            spread(block[0], count, 8 * w, planes)
        return
    for w in range(0, words.shape[1], 2):
        for column in range(count):
            one, other = words[start + column, w], words[start + column, w + 1]
            block[0, column] = one & _LOW_BYTES | (other & _LOW_BYTES) << _8
            block[1, column] = one >> _8 & _LOW_BYTES | other & ~_LOW_BYTES
        spread(block[0], count, 4 * w, planes)
        spread(block[1], count, 4 * w, planes[8:])


@kernel(nogil=True)
def two_stage_kernel(
    words: Any, bits: int, signed: bool, recoding: int, window: int, planes: Any, block: Any, cycles: Any
) -> None:
    """Terms of each block as planes, then retired position by position.

    When all lower positions are done, all terms of this position retire in one cycle, if there is one in any lane; each
    lane without one retires in that cycle its next term within the window.
    """
    size = block.shape[1]
    held = np.empty_like(planes[0])
    for start in range(0, words.shape[0], size):
        count = min(size, words.shape[0] - start)
        to_planes(words, start, count, bits, block, planes)
        positions = recode_planes(planes.view(np.uint64), bits, signed, recoding)
        taken = cycles[start : start + count]
        taken[:] = 0
        for low in range(positions):
            plane = planes[low]
            for column in range(count):
                done = plane[column] == 0
                taken[column] += not done
                held[column] = plane[column] - done
            for position in range(low + 1, min(low + window, positions)):
                plane = planes[position]
                for column in range(count):
                    term = plane[column]
                    plane[column] = term & held[column]
                    held[column] |= term
        for column in range(count):
            taken[column] = max(taken[column], 1)


@kernel(nogil=True)
def recode_planes(planes: Any, bits: int, signed: bool, recoding: int) -> int:
    """Planes of values to planes of terms, in place (`terms.term_masks`); how many there are.

    Lanes are recoded each for itself, so planes are taken 64 lanes at a time, across columns.
    """
    planes[bits:] = 0
    if recoding == 3:
        radix4_planes(planes, bits, signed)
        return bits + 1
    if signed:
        magnitude_planes(planes, bits)
    if recoding == 1:
        booth_like_planes(planes, bits)
    elif recoding == 2:
        naf_planes(planes, bits)
    return bits if recoding == 0 else bits + 1


@kernel(nogil=True)
def magnitude_planes(planes: Any, bits: int) -> None:
    """Two's complement to magnitude: lanes with the sign bit are complemented, and one is added."""
    for lanes in range(planes.shape[1]):
        carry = sign = planes[bits - 1, lanes]
        for b in range(bits):
            flipped = planes[b, lanes] ^ sign
            planes[b, lanes] = flipped ^ carry
            carry &= flipped


@kernel(nogil=True)
def radix4_planes(planes: Any, bits: int, signed: bool) -> None:
    for lanes in range(planes.shape[1]):
        if signed:
            planes[bits, lanes] = planes[bits - 1, lanes]
        for b in range(bits, 0, -1):
            planes[b, lanes] ^= planes[b - 1, lanes]
        for b in range(1, bits + 1, 2):
            planes[b, lanes] &= ~planes[b - 1, lanes]


@kernel(nogil=True)
def naf_planes(planes: Any, bits: int) -> None:
    """Bit b of the result is bit b + 1 of m ^ 3 m, that is of 2 m and the carry of m + 2 m."""
    for lanes in range(planes.shape[1]):
        carry = np.uint64(0)
        for b in range(bits + 1):
            once, twice = planes[b + 1, lanes], planes[b, lanes]
            planes[b, lanes] = twice ^ carry
            carry = once & twice | carry & (once | twice)


@kernel(nogil=True)
def booth_like_planes(planes: Any, bits: int) -> None:
    inside = np.zeros_like(planes[0])
    zeros = np.zeros_like(planes[0])
    for b in range(bits - 1, -1, -1):
        above, plane = planes[b + 1], planes[b]
        second = planes[b - 1] if b > 0 else zeros
        third = planes[b - 2] if b > 1 else zeros
        for lanes in range(planes.shape[1]):
            run, one = inside[lanes], plane[lanes]
            opens = ~run & one & second[lanes] & third[lanes]
            closes = run & one & ~(second[lanes] | third[lanes])
            plane[lanes] = (run ^ one) & ~opens | closes
            above[lanes] |= opens
            inside[lanes] = (run | opens) & ~closes


@kernel(nogil=True)
def column_ones_kernel(words: Any, bits: int, planes: Any, block: Any, counts: Any) -> None:
    """Ones of each plane, by halves: pairs of bits, nibbles, bytes, words (Warren, Hacker's Delight, section 5-1)."""
    size = block.shape[1]
    for start in range(0, words.shape[0], size):
        count = min(size, words.shape[0] - start)
        to_planes(words, start, count, bits, block, planes)
        for b in range(min(bits, counts.shape[0])):
            plane, into = planes[b], counts[b]
            for column in range(count):
                ones = np.uint64(plane[column])
                ones = (ones & np.uint64(0x5555555555555555)) + (ones >> _1 & np.uint64(0x5555555555555555))
                ones = (ones & np.uint64(0x3333333333333333)) + (
                    ones >> np.uint64(2) & np.uint64(0x3333333333333333)
                )
                ones = ones + (ones >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
                ones += ones >> _8
                ones += ones >> _16
                ones += ones >> _32
                into[start + column] = ones & np.uint64(0x7F)


@kernel(nogil=True)
def most_terms_kernel(codes: Any, terms: Any, most: Any) -> None:
    """Largest over the vectors of the terms of each code, which a table knows."""
    for outer in range(codes.shape[0]):
        for vector in range(codes.shape[1]):
            for place in range(codes.shape[2]):
                count = terms[codes[outer, vector, place]]
                if count > most[outer, place]:
                    most[outer, place] = count


@kernel(nogil=True)
def product_streams_kernel(a: Any, w: Any, bounds: Any, floor: int, slowest: Any, streams: Any) -> None:
    """Operands (folds, lanes, steps); steps innermost, so that many are multiplied at a time."""
    for i in range(a.shape[0]):
        for j in range(w.shape[0]):
            slowest[:] = floor
            for lane in range(a.shape[1]):
                one, other = a[i, lane], w[j, lane]
                for step in range(slowest.shape[0]):
                    slowest[step] = max(slowest[step], one[step] * other[step])
            for chunk in range(streams.shape[2]):
                total = 0
                for step in range(bounds[chunk], bounds[chunk + 1]):
                    total += int(slowest[step])
                streams[i, j, chunk] = total


@kernel(nogil=True)
def column_register_kernel(
    cycles: Any, registers: int, bounds: Any, floor: int, own: Any, ends: Any, streams: Any
) -> None:
    for fold in range(cycles.shape[0]):
        for chunk in range(streams.shape[1]):
            own[:] = 0
            issued = -floor
            steps = bounds[chunk + 1] - bounds[chunk]
            for step in range(steps):
                released = ends[step - registers - 1] if step > registers else 0
                issued = max(released, issued + floor)
                end = issued + floor
                for vector in range(own.shape[0]):
                    own[vector] = max(own[vector], issued) + cycles[fold, bounds[chunk] + step, vector]
                    end = max(end, own[vector])
                ends[step] = end
            streams[fold, chunk] = ends[steps - 1]
