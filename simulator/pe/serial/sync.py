"""Who waits for whom in bit-serial and term-serial arrays: the rules, plain to read.

Operands are element integers (..., vectors, steps, lanes): vectors are the rows (filters) or columns (windows) that an
array works on side by side, lanes the pairs of one step of a PE. The rule of a PE gives the cycles of each vector and
step (..., vectors, steps): what its lanes wait for. An array whose PEs go from step to step together takes the maximum
over vectors; column registers let vectors run ahead. A step costs at least `floor` cycles, those that the slowest
buffer port needs to deliver it: rules may answer 0.

Rules are read from the machines' simulators: Pragmatic, Loom, ShapeShifter and Laconic from DNNsim, Bitlet, BitWave and
BitVert from BitSim (docs/bit-serial.md; where these count what hardware does not, the rule here is the hardware's). Of
the papers only BBS's full text was at hand.

`simulator.pe.serial.kernels` has the same functions for bulk.
"""

from __future__ import annotations

import numpy as np

from simulator.pe.arithmetic import Integers
from simulator.pe.serial.terms import Counts, Recoding, bit_length, folded, ones, term_counts, term_masks

WHOLE = 5
"""``first_stage_bits`` of a first stage that covers all positions of a value: there are fewer than 2**5."""


def two_stage_cycles(
    integers: Integers, *, first_stage_bits: int = WHOLE, recoding: Recoding = "none"
) -> Counts:
    """Bit-Pragmatic (Albericio et al., MICRO 2017): cycles (...) of a PE on the lanes of one step, (..., lanes).

    A lane retires one term a cycle, the lowest first. Its shifter is split in two: the second stage shifts the sum of
    all lanes by the lowest position that any lane still has, the first shifts each lane's by up to 2**first_stage_bits
    - 1 more. Lanes whose next term is beyond that wait. A step without terms takes 1 cycle. With the WHOLE shifter in
    the first stage: the most terms of any lane.
    """
    masks = term_masks(integers, recoding)
    cycles = np.zeros(masks.shape[:-1], np.int64)
    reach = 2 ** min(first_stage_bits, WHOLE) - 1
    absent = np.int64(1) << 62
    while masks.any():
        lowest = masks & -masks
        base = np.where(lowest > 0, lowest, absent).min(axis=-1, keepdims=True)
        within = lowest >> reach <= base
        cycles += masks.any(axis=-1)
        masks = masks ^ np.where(within, lowest, 0)
    return np.maximum(cycles, 1)


def group_widths(
    integers: Integers, *, signed: bool, vectors_per_group: int = 1, trim_zeros: bool = False
) -> Counts:
    """Loom (Sharify et al., DAC 2018) and ShapeShifter (Lascorz et al., MICRO 2019): width (..., groups, steps) of the
    values of a group, which share one: all lanes of ``vectors_per_group`` neighbouring vectors; a last group may be
    short. Operands (..., vectors, steps, lanes).

    The width is that of the widest value (`terms.widths`). ``trim_zeros``: columns of zeros below the lowest one of the
    group are not read either, negative values being sent as a sign and their one's complement; a group of zeros then
    costs 1, or 2 if signed, as it does without.
    """
    starts = range(0, integers.shape[-3], vectors_per_group)
    union = np.bitwise_or.reduceat(np.bitwise_or.reduce(folded(integers), axis=-1), starts, axis=-2)
    return union_widths(union, signed=signed, trim_zeros=trim_zeros)


def union_widths(union: Integers, *, signed: bool, trim_zeros: bool) -> Counts:
    """Width of a group whose `folded` values, or-ed, are ``union``; same shape."""
    lowest = union & -union
    below = np.where(union > 0, bit_length(lowest) - 1, 0) if trim_zeros else 0
    significant: Counts = np.maximum(bit_length(union) - below, 1)
    return significant + signed


def serial_width(widths: Integers, bits_per_cycle: int) -> Counts:
    """Cycles of a serial operand of which ``bits_per_cycle`` bits (Loom: 1, 2 or 4) are taken at a time."""
    return -(-widths.astype(np.int64) // bits_per_cycle)


def lane_terms(integers: Integers, *, recoding: Recoding = "none") -> Counts:
    """Laconic (Sharify et al., ISCA 2019): most terms in each lane over the vectors, (..., steps, lanes) from (...,
    vectors, steps, lanes).

    A product takes terms(a) * terms(w) cycles, and all PEs wait for the slowest product of a step. Every vector of one
    operand meets every vector of the other in the same lane, so the slowest product of a lane is the product of both
    operands' most terms, and a step the maximum over lanes (`product_cycles`).
    """
    most: Counts = term_counts(integers, recoding).max(axis=-3)
    return most


def bit_column_ones(integers: Integers, *, bits: int) -> Counts:
    """Ones of each bit column over the lanes: (bits, ...) from (..., lanes), two's complement, sign column last."""
    values = integers.astype(np.int64)
    return np.stack([(values >> bit & 1).sum(axis=-1) for bit in range(bits)])


def bitlet_cycles(integers: Integers, *, bits: int) -> Counts:
    """Bitlet (Lu et al., MICRO 2021): cycles (...) on the weights (..., lanes) of one window.

    Each significance has a lane of its own, which takes one essential bit of the window a cycle; the window ends with
    the fullest bit column. A window without ones takes 0.
    """
    fullest: Counts = bit_column_ones(integers, bits=bits).max(axis=0)
    return fullest


def bitwave_cycles(integers: Integers) -> Counts:
    """BitWave (Shi et al., HPCA 2024): cycles (...) on a group of weights (..., lanes): its magnitude columns that are
    not all zero. The sign column is read beside them. A group of zeros takes 0."""
    return ones(np.bitwise_or.reduce(np.abs(integers.astype(np.int64)), axis=-1))


def bit_column_cycles(integers: Integers, *, bits: int, multipliers: int) -> Counts:
    """BitVert's PE (Chen et al., BBS, MICRO 2024) without bi-directional sparsity: cycles (...) on weights (..., lanes)
    of which ``multipliers`` ones of a bit column are taken a cycle, a column after the other; at least 1.

    With it a column of more ones than zeros is inverted, so that half as many multipliers as lanes always do with one
    cycle: `stored_columns`.
    """
    cycles: Counts = (-(-bit_column_ones(integers, bits=bits) // multipliers)).sum(axis=0)
    return np.maximum(cycles, 1)


def stored_columns(bits: int, pruned: int) -> int:
    """BitVert: cycles of a step, one for each bit column that binary pruning has left of ``bits``."""
    return bits - pruned


def product_cycles(activations: Integers, weights: Integers) -> Counts:
    """(steps,) cycles where both operands are serial, from what each needs.

    (steps,) each: widths, multiplied (Loom). (steps, lanes) each: terms, the slowest product of a lane (Laconic).
    """
    product = activations.astype(np.int64) * weights
    return product if product.ndim == 1 else product.max(axis=-1)


def step_ends(cycles: Integers, floor: int) -> Counts:
    """(steps,) cycles from the beginning of the stream to the end of each step, all vectors together."""
    return np.maximum(cycles, floor).cumsum(dtype=np.int64)


def column_register_ends(cycles: Integers, registers: int, floor: int) -> Counts:
    """(steps,) the same where vectors run ahead of each other, from the cycles (steps, vectors) of each.

    Bit-Pragmatic's column registers (Albericio et al., MICRO 2017) keep the operand that all vectors share for those
    behind. A step is issued when all vectors have ended the step ``registers`` + 1 before it, and ``floor`` cycles
    after the one before; a vector begins it then, or when it has ended its own last one. A step has ended when all
    vectors have, and its delivery. With 0 registers: `step_ends` of the slowest.
    """
    steps, vectors = cycles.shape
    ends = np.zeros(steps, np.int64)
    own = np.zeros(vectors, np.int64)
    issued = -floor
    for step in range(steps):
        released = ends[step - registers - 1] if step > registers else 0
        issued = max(released, issued + floor)
        own = np.maximum(own, issued) + cycles[step]
        ends[step] = max(own.max(), issued + floor)
    return ends
