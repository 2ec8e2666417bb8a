"""The passes that quantization makes over a tile of values: extremes of the groups, codes, squared errors.

Each pass stands here twice: a numpy function that says what it does, and a compiled kernel (`*_kernel`) that
does the same, bit for bit, at memory speed. Kernels take finite float32 values; a tile with Inf or NaN, or in
float64, takes the numpy functions.

Shapes: values and codes (rows, k); what belongs to a group (rows, groups), where group j of a row is its
elements j*group .. (j+1)*group - 1 and the last one may be short.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator.formats.element import Array, Element, Floats, encode, nearest_steps, table_integers, widen
from simulator.kernels import kernel

LANES = 16
"""Squared errors of a group are added in 16 interleaved partial sums, so that the sum is defined bit for
bit."""


def group_starts(k: int, group: int) -> npt.NDArray[np.intp]:
    """Index of the first element of each group."""
    return np.arange(0, k, group)


def extremes(values: Array, group: int) -> tuple[Floats, Floats]:
    """Smallest and largest value of each group, float64; NaN where the group has one."""
    starts = group_starts(values.shape[1], group)
    lowest = np.minimum.reduceat(values, starts, axis=1)
    highest = np.maximum.reduceat(values, starts, axis=1)
    return widen(lowest), widen(highest)


@kernel(nogil=True)
def extremes_kernel(values: Array, group: int, lowest: Array, highest: Array) -> None:
    """`extremes` as integers that are ordered as the floats are (see `floats_of_keys`); NaN lies beyond
    +-Inf."""
    bits = values.view(np.int32)
    for row in range(values.shape[0]):
        for j in range(lowest.shape[1]):
            low, high = np.int32(2**31 - 1), np.int32(-(2**31))
            patterns = bits[row, j * group : j * group + group]
            for i in range(patterns.size):
                pattern = patterns[i]
                key = pattern ^ ((pattern >> np.int32(31)) & np.int32(0x7FFFFFFF))
                low = key if key < low else low
                high = key if key > high else high
            lowest[row, j] = low
            highest[row, j] = high


def floats_of_keys(keys: npt.NDArray[np.int32]) -> Floats:
    """The float32 values, as float64, that `extremes_kernel` ordered as integers."""
    patterns = keys ^ ((keys >> 31) & np.int32(0x7FFFFFFF))
    return widen(patterns.view(np.float32))


def per_value(of_groups: Array, group: int, k: int) -> Array:
    """What belongs to each group, repeated for each of its elements: (..., groups) to (..., k)."""
    if of_groups.shape[-1] == 1:
        return np.broadcast_to(of_groups, (*of_groups.shape[:-1], k))
    return np.repeat(of_groups, group, axis=-1)[..., :k]


def integer_codes(
    values: Array, group: int, steps: Floats, zero_points: Array, code_range: tuple[int, int], dtype: np.dtype
) -> Array:
    """clip(rint(value / step) + zero point): the quotient in float64, ties to even before the zero point is
    added."""
    k = values.shape[1]
    zeros = per_value(zero_points, group, k).astype(np.float64)
    nearest = np.rint(widen(values) / per_value(steps, group, k))
    return np.clip(nearest + zeros, code_range[0], code_range[1]).astype(dtype)


@kernel(nogil=True, error_model="numpy")
def integer_codes_kernel(
    values: Array, group: int, steps: Floats, zero_points: Array, smallest: int, largest: int, codes: Array
) -> None:
    """`integer_codes`."""
    for row in range(values.shape[0]):
        for j in range(steps.shape[1]):
            step, zero = steps[row, j], np.int32(zero_points[row, j])
            low, high = np.float64(smallest - zero), np.float64(largest - zero)
            group_values = values[row, j * group : j * group + group]
            group_codes = codes[row, j * group : j * group + group]
            for i in range(group_values.size):
                quotient = np.float64(group_values[i]) / step
                quotient = low if quotient < low else quotient
                quotient = high if quotient > high else quotient
                group_codes[i] = np.int32(np.rint(quotient)) + zero


def float_codes(values: Array, group: int, scales: Floats, element: Element) -> Array:
    """The code nearest to value / scale, the quotient in float64."""
    return encode(element, widen(values) / per_value(scales, group, values.shape[1]))


@kernel(nogil=True, error_model="numpy")
def float_codes_kernel(
    values: Array,
    group: int,
    scales: Floats,
    mantissa_bits: int,
    emin: int,
    max_code: int,
    sign: int,
    codes: Array,
) -> None:
    """`float_codes` for mantissas of at most 22 bits; `sign` is the code's sign bit.

    Normal values: the float64 pattern without its low bits is the code with another bias, so adding just
    under half of what is cut off, plus the parity of the code, rounds to nearest even. Subnormal values:
    adding a float whose last place is worth one subnormal step rounds them, and leaves the code in the low
    bits.
    """
    k = values.shape[1]
    cut = np.int64(52 - mantissa_bits)
    half = (np.int64(1) << (cut - np.int64(1))) - np.int64(1)
    rebias = np.int64(emin - 1 + 1023) << np.int64(mantissa_bits)
    first_normal = np.int64(1) << np.int64(mantissa_bits)
    anchor = 2.0 ** (emin - mantissa_bits + 52)
    anchor_pattern = np.int64(emin - mantissa_bits + 52 + 1023) << np.int64(52)
    largest, sign_bit = np.int64(max_code), np.int64(sign)
    divisors = np.empty(min(k, 2048), np.float64)
    for row in range(values.shape[0]):
        for start in range(0, k, 2048):
            part = values[row, start : start + 2048]
            part_codes = codes[row, start : start + 2048]
            end = start + part.size
            for j in range(start // group, (end - 1) // group + 1):
                divisors[max(j * group - start, 0) : min(j * group + group, end) - start] = scales[row, j]
            for i in range(part.size):
                quotient = np.float64(part[i]) / divisors[i]
                pattern = np.float64(quotient).view(np.int64)
                magnitude = pattern & np.int64(0x7FFFFFFFFFFFFFFF)
                odd = ((magnitude >> cut) - rebias) & np.int64(1)
                normal = ((magnitude + half + odd) >> cut) - rebias
                subnormal = np.float64(abs(quotient) + anchor).view(np.int64) - anchor_pattern
                code = subnormal if normal < first_normal else normal
                code = largest if code > largest else code
                part_codes[i] = code | ((pattern >> np.int64(63)) & sign_bit)


def table_codes(
    values: Array, group: int, steps: Floats, element: Element, selectors: npt.NDArray[np.integer]
) -> Array:
    """The code nearest to value / step in the table that each group's selector names; the quotient in
    float64."""
    k = values.shape[1]
    quotients = widen(values) / per_value(steps, group, k)
    if len(element.tables) == 1:
        return nearest_steps(element, 0, quotients)
    codes = np.empty(values.shape, element.dtype)
    chosen = per_value(selectors, group, k)
    for table in np.unique(selectors):
        of_table = chosen == table
        codes[of_table] = nearest_steps(element, int(table), quotients[of_table])
    return codes


LARGEST_LOOKUP = 2**14
"""Tables of larger integers are searched, not looked up: no kernel."""


@lru_cache(maxsize=64)
def half_step_codes(element: Element) -> npt.NDArray[np.uint8] | None:
    """For each table the code of every half step from -`reach` to +`reach`, (tables, 4 * largest + 1).

    Values are integers, so midpoints are whole half steps: which value is nearest to x depends on ceil(2 x)
    alone where ties go to the lower one, on floor(2 x) where they go to the upper one. None for tables whose
    integers are too large.
    """
    reach = 2 * int(np.abs(table_integers(element)).max())
    if reach > LARGEST_LOOKUP or element.bits > 8:
        return None
    halves = np.arange(-reach, reach + 1) / 2
    return np.stack([nearest_steps(element, table, halves) for table in range(len(element.tables))])


@kernel(nogil=True, error_model="numpy")
def table_codes_kernel(
    values: Array, group: int, steps: Floats, by_half_step: Array, up: bool, selectors: Array, codes: Array
) -> None:
    """`table_codes`, with `half_step_codes`; `up`: ties go to the upper value. One loop of arithmetic and one of
    look-ups: the first then runs in vector registers."""
    reach = np.float64(by_half_step.shape[1] // 2)
    places = np.empty(min(group, values.shape[1]), np.int32)
    for row in range(values.shape[0]):
        for j in range(steps.shape[1]):
            step, table = steps[row, j], by_half_step[selectors[row, j]]
            group_values = values[row, j * group : j * group + group]
            group_codes = codes[row, j * group : j * group + group]
            if up:
                for i in range(group_values.size):
                    halves = np.float64(group_values[i]) / step * 2.0
                    halves = -reach if halves < -reach else halves
                    halves = reach if halves > reach else halves
                    places[i] = np.int32(np.floor(halves) + reach)
            else:
                for i in range(group_values.size):
                    halves = np.float64(group_values[i]) / step * 2.0
                    halves = -reach if halves < -reach else halves
                    halves = reach if halves > reach else halves
                    places[i] = np.int32(np.ceil(halves) + reach)
            for i in range(group_values.size):
                group_codes[i] = table[places[i]]


def squared_errors(
    values: Array, group: int, codes: Array, table: Floats, offsets: Array, steps: Floats, zero_points: Array
) -> Floats:
    """Sum over each group of (value - (table[code + offset] - zero point) * step)**2, (rows, groups) float64.

    `LANES` partial sums by position modulo LANES, each in ascending order, then added as a tree of halves.
    """
    rows, k = values.shape
    zeros = per_value(zero_points, group, k).astype(np.float64)
    places = codes.astype(np.int64) + per_value(offsets, group, k)
    decoded = (table[places] - zeros) * per_value(steps, group, k)
    squares = np.square(widen(values) - decoded)
    totals = np.empty((rows, steps.shape[1]))
    for j, start in enumerate(group_starts(k, group)):
        members = squares[:, start : start + group]
        lanes = np.zeros((rows, LANES))
        for column in range(0, members.shape[1], LANES):
            part = members[:, column : column + LANES]
            lanes[:, : part.shape[1]] += part
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        totals[:, j] = lanes[:, 0]
    return totals


@kernel(nogil=True)
def squared_errors_kernel(
    values: Array,
    group: int,
    codes: Array,
    table: Floats,
    offsets: npt.NDArray[np.int64],
    steps: Floats,
    zero_points: Array,
    totals: Floats,
) -> None:
    """`squared_errors`."""
    lanes = np.zeros(16)
    for row in range(values.shape[0]):
        for j in range(steps.shape[1]):
            step, zero, offset = steps[row, j], np.float64(zero_points[row, j]), offsets[row, j]
            group_values = values[row, j * group : j * group + group]
            group_codes = codes[row, j * group : j * group + group]
            whole = group_values.size // 16 * 16
            lanes[:] = 0.0
            for base in range(0, whole, 16):
                for lane in range(16):
                    decoded = (table[np.int64(group_codes[base + lane]) + offset] - zero) * step
                    error = np.float64(group_values[base + lane]) - decoded
                    lanes[lane] += error * error
            for i in range(whole, group_values.size):
                decoded = (table[np.int64(group_codes[i]) + offset] - zero) * step
                error = np.float64(group_values[i]) - decoded
                lanes[i - whole] += error * error
            width = 8
            while width:
                for lane in range(width):
                    lanes[lane] += lanes[lane + width]
                width //= 2
            totals[row, j] = lanes[0]
