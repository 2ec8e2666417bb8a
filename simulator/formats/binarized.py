"""Ternary and binary weights: one scale, the mean magnitude, and codes of -1, 0, +1 or -1, +1.

Ternary: Ma et al., "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits", arXiv 2402.17764 (BitNet
b1.58; the paper was not at hand): W / mean|W| rounded and clipped to -1 .. 1. Its epsilon, which keeps a tensor of
zeros from being divided by zero, is here the smallest scale that FP16 holds. Binary: Rastegari et al., "XNOR-Net",
ECCV 2016: sign(W), with the same scale, which leaves the least squared error (the paper was not at hand).

Memory holds ternary codes in two bits. Denser words, three weights in 5 bits (27 <= 32; LUT Tensor Core, Mo et al.,
ISCA 2025) or five in 8 (243 <= 256), are `ternary_words`.
"""

from __future__ import annotations

from math import fsum

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats import passes
from simulator.formats.element import Array, Floats, widen
from simulator.formats.format import Format
from simulator.formats.scaling import stored
from simulator.formats.tensor import QuantizedTensor, row_slices

WORD_BITS = {1: 2, 3: 5, 5: 8}
"""Ternary values in a word, and bits of the word."""


def absmean(values: Array, format_: Format) -> QuantizedTensor:
    """The quantizer of `ternary` and `binary`: scale mean|w| of the tensor, row or group, then nearest."""
    rows, k = values.shape
    group = format_.group_size or max(k, 1)
    assert format_.scale_element is not None
    scales = stored(format_.scale_element, _means(values, format_, group))
    codes = np.empty((rows, k), format_.code_dtype)
    for tile in row_slices(rows, k):
        shape = (tile.stop - tile.start, format_.groups(k))
        of_groups = np.broadcast_to(scales[tile] if scales.ndim else scales, shape)
        none = np.zeros(shape, np.int32)
        if format_.is_integer:
            span = format_.code_range
            codes[tile] = passes.integer_codes(values[tile], group, of_groups, none, span, codes.dtype)
        else:
            codes[tile] = passes.table_codes(values[tile], group, of_groups, format_.element, none)
    return QuantizedTensor(codes, format_, scales.astype(np.float32))


def _means(values: Array, format_: Format, group: int) -> Floats:
    """Mean magnitude of the tensor, shape (), or of each group, (rows, groups); 0 of nothing."""
    rows, k = values.shape
    if format_.granularity == "tensor":
        sums = [fsum(np.abs(widen(values[tile])).sum(axis=1)) for tile in row_slices(rows, k)]
        return np.asarray(fsum(sums) / max(values.size, 1))
    if not k:
        return np.zeros((rows, format_.groups(k)))
    starts = passes.group_starts(k, group)
    totals = np.add.reduceat(np.abs(widen(values)), starts, axis=1)
    means: Floats = totals / np.diff(np.append(starts, k))
    return means


def ternary_words(codes: Array, per_word: int) -> npt.NDArray[np.uint8]:
    """Words of `per_word` (1, 3 or 5) ternary codes along the last axis: digits 0, 1, 2 for -1, 0, +1, the first
    value the lowest. A short last word is filled with 0 codes. Each takes `WORD_BITS` bits."""
    _check_words(per_word)
    codes = np.asarray(codes)
    if codes.size and not np.isin(codes, (-1, 0, 1)).all():
        raise InputError(
            "not a ternary code", value=int(codes[np.abs(codes) > 1].flat[0]), allowed="-1, 0, 1"
        )
    count = -(-codes.shape[-1] // per_word)
    missing = count * per_word - codes.shape[-1]
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    digits = padded.reshape(*codes.shape[:-1], count, per_word).astype(np.int64) + 1
    return (digits @ 3 ** np.arange(per_word)).astype(np.uint8)


def ternary_codes(words: Array, per_word: int, k: int) -> npt.NDArray[np.int8]:
    """Inverse of `ternary_words`: `k` codes along the last axis."""
    _check_words(per_word)
    digits = np.asarray(words).astype(np.int64)[..., None] // 3 ** np.arange(per_word) % 3
    return (digits.reshape(*np.shape(words)[:-1], -1)[..., :k] - 1).astype(np.int8)


def _check_words(per_word: int) -> None:
    if per_word not in WORD_BITS:
        raise InputError("ternary values in a word", value=per_word, allowed=", ".join(map(str, WORD_BITS)))
