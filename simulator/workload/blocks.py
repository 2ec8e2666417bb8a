"""Operands of a GEMM as an array holds them: blocks of consecutive rows with their whole K, as quantized codes.

The rows of an operand are those of its (batch * rows, K) matrix: weights (n, k), activations (m, k), for each
batch entry; attention's keys and values once for all heads that share them; a convolution's input as im2col
makes it, K ordered (kh, kw, cin), zeros where the window hangs over the edge. Blocks begin anew with every batch
entry and with every tile of the rows, so the last one of a tile may be short.

An operand of more values than the limit is sampled by whole blocks: a seeded choice among the full ones, without
replacement. Every block that was not chosen is stood for by a chosen one, taken in turn, so that each engine and
each worker sees the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError, nearest
from simulator.formats import Format, QuantizedTensor, get_format, quantize
from simulator.units import ceil_div
from simulator.workload.operations import Conv, Gemm, TensorRef, Workload
from simulator.workload.values import SAMPLE_LIMIT, find_tensor, generator, seed_of, values_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPERANDS = ("weights", "activations")
PIECE = 2**22
"""Values that iteration draws and quantizes at a time."""


@dataclass(frozen=True)
class BlockSample:
    """The blocks of an operand, and which of them are drawn."""

    entries: int
    """Batch entries with rows of their own."""
    rows: int
    """Rows of one entry."""
    tile_rows: int
    """Blocks begin anew after so many rows of an entry."""
    block_rows: int
    """Rows of a full block."""
    sampled: NDArray[np.intp]
    """Numbers of the blocks that are drawn, ascending: all of them, or a choice of full ones."""
    seed: int

    @cached_property
    def tile_blocks(self) -> int:
        """Blocks of a whole tile."""
        return ceil_div(self.tile_rows, self.block_rows)

    @cached_property
    def entry_blocks(self) -> int:
        """Blocks of one batch entry."""
        tiles, rest = divmod(self.rows, self.tile_rows)
        return tiles * self.tile_blocks + ceil_div(rest, self.block_rows)

    @property
    def blocks(self) -> int:
        """Blocks of the operand, numbered entry by entry."""
        return self.entries * self.entry_blocks

    @property
    def share(self) -> float:
        """Rows that are drawn / rows of the operand; 1.0: nothing was left out."""
        if self.sampled.size == self.blocks:
            return 1.0
        return self.sampled.size * self.block_rows / (self.entries * self.rows)

    def span(self, block: int) -> range:
        """Rows of a block in the operand's (entries * rows, K) matrix."""
        entry, inside = divmod(block, self.entry_blocks)
        tile, place = divmod(inside, self.tile_blocks)
        start = tile * self.tile_rows + place * self.block_rows
        stop = min(start + self.block_rows, (tile + 1) * self.tile_rows, self.rows)
        return range(entry * self.rows + start, entry * self.rows + stop)

    def stand_ins(self, blocks: NDArray[np.intp]) -> NDArray[np.intp]:
        """For each block the place in ``sampled`` of the one that stands for it: itself, or one in turn. A short block
        that was not drawn is the first rows of its stand-in."""
        import numpy as np

        place = np.searchsorted(self.sampled, blocks)
        itself = self.sampled[np.minimum(place, self.sampled.size - 1)] == blocks
        return np.where(itself, place, (blocks - place) % self.sampled.size)


class OperandBlocks:
    """The sampled blocks of one operand of a GEMM, drawn and quantized when asked for.

    Scales of rows, groups and blocks are those of the whole tensor. A scale of the whole tensor (``int8``, the second
    level of ``nvfp4``) is found over what is drawn: exact unless ``sample.share`` is below 1, where it is the
    sample's (of a feature map, the whole map's while the map itself is within the limit).
    """

    def __init__(self, gemm: Gemm, operand: str, sample: BlockSample, *, limit: int) -> None:
        self.gemm = gemm
        self.tensor: TensorRef = getattr(gemm, operand)
        self.format: Format = get_format(self.tensor.format)
        self.sample = sample
        self.k = gemm.k
        self._shared_by = gemm.weight_reuse if operand == "weights" else 1
        self._window = gemm.conv if operand == "activations" else None
        self._fits = self.tensor.size <= limit

    def __len__(self) -> int:
        """Blocks that are drawn."""
        return int(self.sample.sampled.size)

    def stand_ins(self, batch: int) -> NDArray[np.intp]:
        """For each block of a batch entry of the GEMM, in order, the place in this sequence of the one that stands for
        it."""
        import numpy as np

        entry, count = batch // self._shared_by, self.sample.entry_blocks
        return self.sample.stand_ins(np.arange(entry * count, (entry + 1) * count))

    def __getitem__(self, index: int) -> QuantizedTensor:
        """One sampled block; see `rows`."""
        if not 0 <= index < len(self):
            raise IndexError(f"{len(self)} blocks of {self.tensor.name} are drawn")
        return self.rows(index, index + 1)

    def __iter__(self) -> Iterator[QuantizedTensor]:
        """The sampled blocks in order, drawn `PIECE` values at a time."""
        step = max(1, PIECE // (self.sample.block_rows * self.k))
        for first in range(0, len(self), step):
            stop = min(first + step, len(self))
            piece, done = self.rows(first, stop), 0
            for block in self.sample.sampled[first:stop]:
                size = len(self.sample.span(int(block)))
                yield _taken(piece, slice(done, done + size))
                done += size

    def rows(self, first: int, stop: int) -> QuantizedTensor:
        """The sampled blocks first .. stop - 1, one after the other: codes (rows, K) with their scales.

        Where the scale groups of a convolution end within kernel positions, codes are (rows, kh * kw, cin).
        """
        rows = self._rows(first, stop)
        if self._window is not None:
            return self._patches(self._window, rows)
        if self.format.tensor_bits:
            import numpy as np

            drawn, held = self._held_rows
            return _taken(held, np.searchsorted(drawn, rows))
        return self._quantized(values_of(self.tensor, rows))

    def _rows(self, first: int, stop: int) -> NDArray[np.intp]:
        import numpy as np

        spans = (self.sample.span(int(block)) for block in self.sample.sampled[first:stop])
        return np.concatenate([np.arange(span.start, span.stop) for span in spans])

    @cached_property
    def _held_rows(self) -> tuple[NDArray[np.intp], QuantizedTensor]:
        """All rows that are drawn, quantized together."""
        rows = self._rows(0, len(self))
        return rows, self._quantized(values_of(self.tensor, rows))

    def _quantized(self, values: NDArray[np.float32]) -> QuantizedTensor:
        """Rows of weights or of activations that are no feature map."""
        span = self.tensor.group_span
        if span and span % self.format.group_size:
            values = values.reshape(len(values), -1, span)
        return quantize(values, self.format)

    def _patches(self, window: Conv, rows: NDArray[np.intp]) -> QuantizedTensor:
        """Rows of the im2col matrix of a feature map, put together from its quantized pixels."""
        import numpy as np

        groups, rows = np.divmod(rows, self.gemm.m)
        pixels = window_pixels(window, rows)
        if self._fits or self.format.tensor_bits:
            numbers, held = self._held_pixels
        else:
            numbers = np.unique(pixels[pixels >= 0])
            held = self._quantized_pixels(numbers)
        places = np.where(pixels < 0, numbers.size, np.searchsorted(numbers, pixels))
        cin = window.in_channels // window.groups
        whole = _mapped(held, partial(_pixels_of_groups, places=places, groups=groups, count=window.groups))
        whole = replace(whole, k=cin)
        if cin % (self.format.group_size or 1) and places.shape[1] > 1:
            return whole
        return _joined(whole, len(rows))

    @cached_property
    def _held_pixels(self) -> tuple[NDArray[np.intp], QuantizedTensor]:
        """The whole feature map, or all of its pixels that sampled blocks reach."""
        import numpy as np

        if self._fits:
            numbers = np.arange(self.tensor.rows)
        else:
            window = self.gemm.conv
            assert window is not None, "only a convolution reads pixels"
            reached = window_pixels(window, self._rows(0, len(self)) % self.gemm.m)
            numbers = np.unique(reached[reached >= 0])
        return numbers, self._quantized_pixels(numbers)

    def _quantized_pixels(self, numbers: NDArray[np.intp]) -> QuantizedTensor:
        """Pixels (h * w, channels) and, behind them, one of zeros: what lies beyond the edge."""
        import numpy as np

        values = values_of(self.tensor, numbers)
        return quantize(
            np.concatenate([values, np.zeros_like(values, shape=(1, self.tensor.k))]), self.format
        )


def operand_blocks(
    workload: Workload,
    gemm: Gemm,
    operand: str,
    block_rows: int,
    *,
    tile_rows: int | None = None,
    limit: int = SAMPLE_LIMIT,
) -> OperandBlocks:
    """The operand ("weights" or "activations") of a GEMM in blocks of ``block_rows`` rows.

    ``tile_rows``: rows of a tile, after which blocks begin anew; one tile unless given. ``limit``: values of the
    operand's matrix up to which all blocks are drawn. Raises InputError: no operand of this name.
    """
    if operand not in OPERANDS:
        raise InputError(
            "no operand of this name", key=gemm.name, value=operand, allowed=nearest(operand, OPERANDS)
        )
    weights = operand == "weights"
    tensor = gemm.weights if weights else gemm.activations
    entries = gemm.batch // gemm.weight_reuse if weights else gemm.batch
    rows = gemm.n if weights else gemm.m
    sample = _sample(workload, tensor, entries, rows, gemm.k, block_rows, tile_rows, limit)
    return OperandBlocks(gemm, operand, sample, limit=limit)


def sample_blocks(
    workload: Workload,
    tensor: str,
    block_rows: int,
    *,
    tile_rows: int | None = None,
    limit: int = SAMPLE_LIMIT,
) -> BlockSample:
    """The blocks of a tensor taken as one matrix, all axes but the last as rows; see `operand_blocks`. Raises
    InputError: no tensor of this name."""
    ref = find_tensor(workload, tensor)
    return _sample(workload, ref, 1, ref.rows, ref.k, block_rows, tile_rows, limit)


def window_pixels(conv: Conv, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rows (images * oh * ow) of an im2col matrix -> the pixels (images * h * w) under their windows, (rows, kh * kw);
    -1 beyond the edge."""
    import numpy as np

    top, _, left, _ = conv.padding
    images, place = np.divmod(rows, conv.out_height * conv.out_width)
    y, x = np.divmod(place, conv.out_width)
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel, conv.stride, conv.dilation
    ky, kx = np.divmod(np.arange(kh * kw), kw)
    lines = (y * sh - top)[:, None] + ky * dh
    columns = (x * sw - left)[:, None] + kx * dw
    inside = (lines >= 0) & (lines < conv.in_height) & (columns >= 0) & (columns < conv.in_width)
    pixels = (images[:, None] * conv.in_height + lines) * conv.in_width + columns
    return np.where(inside, pixels, -1)


def _sample(
    workload: Workload,
    tensor: TensorRef,
    entries: int,
    rows: int,
    k: int,
    block_rows: int,
    tile_rows: int | None,
    limit: int,
) -> BlockSample:
    import numpy as np

    tile = min(tile_rows or rows, rows)
    size = min(block_rows, tile)
    seed = seed_of(workload, tensor)
    grid = BlockSample(entries, rows, tile, size, np.empty(0, np.intp), seed)
    if entries * rows * k <= limit:
        return replace(grid, sampled=np.arange(grid.blocks))
    tiles, rest = divmod(rows, tile)
    full_of_tile = tile // size
    full = entries * (tiles * full_of_tile + rest // size)
    count = min(full, max(1, limit // (size * k)))
    stream = f"blocks of {tensor.stream or tensor.name}"
    chosen = np.sort(generator(seed, stream).choice(full, count, replace=False)).astype(np.intp)
    entry, inside = np.divmod(chosen, full // entries)
    tile_number, place = np.divmod(inside, full_of_tile)
    return replace(grid, sampled=entry * grid.entry_blocks + tile_number * grid.tile_blocks + place)


def _taken(tensor: QuantizedTensor, index: Any) -> QuantizedTensor:
    """Rows of a quantized tensor of shape (rows, k), in the shape of ``index``."""
    return _mapped(tensor, lambda part: part[index])


def _pixels_of_groups(
    part: NDArray[Any], places: NDArray[np.intp], groups: NDArray[np.intp], count: int
) -> NDArray[Any]:
    """What belongs to pixels, (pixels, channels) or (pixels, scales), at ``places`` (rows, positions), and there of the
    ``count`` groups of its last axis the one of each row. What a pixel has once belongs to all groups."""
    import numpy as np

    if count == 1 or part.shape[-1] == 1:
        return part[places]
    width = part.shape[-1] // count
    columns = groups[:, None, None] * width + np.arange(width)
    chosen: NDArray[Any] = part[places[:, :, None], columns]
    return chosen


def _joined(tensor: QuantizedTensor, rows: int) -> QuantizedTensor:
    """Patches (rows, positions, cin) as (rows, positions * cin)."""
    flat = _mapped(tensor, lambda part: part.reshape(rows, -1))
    return replace(flat, k=flat.codes.shape[-1])


def _mapped(tensor: QuantizedTensor, change: Callable[[NDArray[Any]], NDArray[Any]]) -> QuantizedTensor:
    """A quantized tensor with its codes, and alike what belongs to its rows and groups, changed."""
    parts: dict[str, Any] = {part.name: getattr(tensor, part.name) for part in fields(tensor)}
    changed = {name: change(part) for name, part in parts.items() if getattr(part, "ndim", 0)}
    return QuantizedTensor(**(parts | changed))
