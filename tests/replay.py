"""Replay the compute cycles of two research simulators of bit-serial machines through the functions of this one.

    python tests/replay.py dnnsim --inputs inputs.npz --cases dnnsim_cases.csv
    python tests/replay.py bitsim --inputs inputs.npz --cases bitsim_cases.csv

prints one count for each row of the cases, in order, as a JSON list. The inputs hold, for each layer, int16 arrays
`network/layer/act`, `network/layer/wgt` and `network/layer/meta` = [stride, padding, activation bits, weight bits];
convolutions (1, C, X, Y) with (M, C, KX, KY), fully connected layers (1, C) with (M, C).

DNNsim (github.com/isakedo/DNNsim, commit 4748a60): Stripes, Loom, ShapeShifter, Bit-Pragmatic, Laconic beside
DaDianNao, and Bit-Tactical's weight scheduling. BitSim (github.com/yc2367/BitSim, commit 6845fad; the simulator of
Chen et al., BBS, MICRO 2024): Stripes, Pragmatic, Bitlet, BitWave, BitVert. What these two count and no hardware does
stands here, and nowhere in `simulator`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs in a checkout, installed or not

from replay_tactical import Schedule, schedule, search

from simulator.errors import InputError, nearest
from simulator.formats.pruning import prune
from simulator.pe.serial import kernels, sync
from simulator.pe.serial.terms import Recoding

Array = npt.NDArray[Any]
Row = Mapping[str, str]

LARGEST = 1 << 16
"""Parameters of a row are at most this: beyond is no machine, and layers padded to it do not fit memory."""


@dataclass(frozen=True, eq=False)
class Layer:
    activations: Array
    """(1, C, X, Y), padded; or (1, C)."""
    weights: Array
    """(M, C, KX, KY) or (M, C)."""
    stride: int
    activation_bits: int
    weight_bits: int

    @property
    def linear(self) -> bool:
        return self.weights.ndim == 2

    @property
    def outputs(self) -> tuple[int, int]:
        """Positions along the two spatial axes."""
        x, y = (
            (size - kernel) // self.stride + 1
            for size, kernel in zip(self.activations.shape[2:], self.weights.shape[2:], strict=True)
        )
        return x, y


class Options:
    """The parameters of one row; an empty cell is an absent one."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def number(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        text = self._text(name, None if default is None else str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not value.is_integer() or not least <= value <= LARGEST:
            raise InputError(
                "not a parameter", key=name, value=text, allowed=f"an integer, {least} to {LARGEST}"
            )
        return int(value)

    def fraction(self, name: str) -> float:
        text = self._text(name)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise InputError("not a fraction", key=name, value=text, allowed="0 to 1")
        return value

    def flag(self, name: str) -> bool:
        text = self._text(name, "False")
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        if text.lower() not in known:
            raise InputError("not a flag", key=name, value=text, allowed="True, False")
        return known[text.lower()]

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        text = self._text(name, default)
        if text not in allowed:
            raise InputError("no such choice", key=name, value=text, allowed=nearest(text, allowed))
        return text

    def _text(self, name: str, default: str | None = None) -> str:
        text = (self._row.get(name) or "").strip()
        if text in ("", "nan", "None"):
            if default is None:
                raise InputError("the row does not say it", key=name)
            return default
        return text


# DNNsim


@dataclass(frozen=True)
class Work:
    """A layer as DNNsim's output-stationary schedule cuts it: window sets, in each filter sets, in each steps."""

    layer: Layer
    options: Options
    windows: Array
    """(windows, steps, lanes); the one row of activations of a linear layer."""
    filters: Array
    """(filters, steps, lanes)."""
    columns: int
    """Windows side by side."""
    rows: int
    """Filters side by side in one tile."""
    tiles: int
    pe_width: int
    schedules: list[list[Schedule]] | None = None
    """Bit-Tactical: of each filter set that of each tile."""

    @property
    def steps(self) -> int:
        return int(self.filters.shape[1])

    @property
    def window_sets(self) -> list[Array]:
        return [self.windows[i : i + self.columns] for i in range(0, len(self.windows), self.columns)]

    @property
    def filter_sets(self) -> list[Array]:
        """Tiles take neighbouring filters and wait for each other: one set of all of theirs."""
        rows = self.rows * self.tiles
        return [self.filters[i : i + rows] for i in range(0, len(self.filters), rows)]

    @property
    def activation_blocks(self) -> int:
        return -(-self.layer.activation_bits // self.pe_width)

    @property
    def weight_blocks(self) -> int:
        return -(-self.layer.weight_bits // self.pe_width)

    def blocks(self, vectors: Array, count: int, *, signed: bool) -> Array:
        """(count * vectors, steps, lanes): values wider than a PE as pieces of its width, low piece first, each in a
        column or row of its own. ``signed``: every piece counts as two's complement, the lower ones too."""
        pieces = vectors.astype(np.int32)[:, None] >> (self.pe_width * np.arange(count))[:, None, None]
        pieces &= (1 << self.pe_width) - 1
        if signed:
            half = 1 << (self.pe_width - 1)
            pieces = (pieces ^ half) - half
        return pieces.reshape(-1, *vectors.shape[1:])

    def magnitudes(self, vectors: Array, count: int) -> Array:
        return self.blocks(np.abs(vectors.astype(np.int32)), count, signed=False)

    def column_cycles(self, vectors: Array, cycles: Callable[[Array, Array], Array]) -> Iterator[Array]:
        """(steps, columns) for each filter set.

        ``cycles`` gives the cycles (columns, steps) of the activations that the filters of a column take, (vectors,
        steps, filters, lanes) with one filter for all if there is no schedule, and of a flag (steps,): they take none.
        """
        if self.schedules is None:
            each = cycles(vectors[:, :, None], np.zeros(self.steps, bool)).T
            yield from (each for _ in self.filter_sets)
            return
        for tiles in self.schedules:
            found = [cycles(tile.select(vectors), tile.away.all(axis=(1, 2))).T for tile in tiles]
            slowest = np.zeros((max(map(len, found)), found[0].shape[1]), np.int64)
            for each in found:
                slowest[: len(each)] = np.maximum(slowest[: len(each)], each)
            yield slowest

    def scheduled_linear_steps(self, vectors: Array, cycles: Callable[[Array, Array], Array]) -> Array:
        """`linear_steps` of a Bit-Tactical schedule, in the terms of `column_cycles`: each activation lies in the
        column of its own step, and is read from that of the step counted."""
        own = np.arange(self.steps) % self.columns
        counted, found = 0, []
        assert self.schedules is not None
        for tiles in self.schedules:
            rows = max(len(tile.steps) for tile in tiles)
            slowest = np.zeros(rows, np.int64)
            for tile in tiles:
                columns = (counted + np.arange(len(tile.steps))) % self.columns
                there = own[tile.steps] == columns[:, None, None]
                each = cycles(tile.select(vectors) * there, tile.away.all(axis=(1, 2))).max(axis=0)
                slowest[: len(each)] = np.maximum(slowest[: len(each)], each)
            counted += rows
            found.append(slowest)
        return np.concatenate(found)

    def linear_steps(self, step_cycles: Callable[[Array, Array], Array]) -> Array:
        """(filter sets * steps,) from the cycles (steps,) of (activations, filters of the set).

        Step t of the activations lies in column t modulo columns. A PE reads the column of the step counted through all
        filter sets: where the two differ, it finds zeros.
        """
        present, absent = self.windows, np.zeros_like(self.windows)
        return np.concatenate(
            [
                step_cycles(present if index * self.steps % self.columns == 0 else absent, filters)
                for index, filters in enumerate(self.filter_sets)
            ]
        )


def staggered(cycles: Array, columns: int) -> int:
    """Cycles of a linear layer: steps go to columns in turn, one a cycle at most, a column busy for its step."""
    now = 0
    ends = [0] * columns
    for step, busy in enumerate(cycles.tolist()):
        now = max(now, ends[step % columns])
        ends[step % columns] = now + busy
        now += 1
    return max(ends)


def column_time(streams: list[Array], registers: int) -> int:
    """Cycles of all sets in order, each (steps, columns), with column registers or without."""
    if not registers or not any(map(len, streams)):
        return sum(int(cycles.max(axis=1).sum(dtype=np.int64)) for cycles in streams)
    stream = np.concatenate(streams)[None]
    return int(kernels.column_register_streams(stream, registers, np.array([0, stream.shape[1]]), 0)[0, 0])


def dadiannao(work: Work) -> int:
    sets = 1 if work.layer.linear else len(work.window_sets)
    if work.schedules is None:
        return sets * len(work.filter_sets) * work.steps
    return sets * sum(max(len(tile.steps) for tile in tiles) for tiles in work.schedules)


def stripes(work: Work) -> int:
    bits = min(work.layer.activation_bits, work.pe_width)
    if work.layer.linear:
        return staggered(np.full(dadiannao(work), bits), work.columns)
    return dadiannao(work) * bits


def loom(work: Work) -> int:
    bits = work.options.number("pe_serial_bits", 1)
    trim = work.options.flag("minor_bit")
    group = work.options.number("group_size", 1)
    dynamic = work.options.flag("dynamic_weights")
    signed_activations = bool(work.layer.activations.min() < 0)
    signed_weights = bool(work.layer.weights.min() < 0)

    def group_widths(vectors: Array, count: int, signed: bool) -> Array:
        pieces = work.blocks(vectors, count, signed=signed)
        return kernels.group_widths(pieces, signed=signed, vectors_per_group=group, trim_zeros=trim)

    def weight_cycles(filters: Array) -> Array:
        if not dynamic:
            return np.full(work.steps, work.layer.weight_bits)
        tiles = [filters[i : i + work.rows] for i in range(0, len(filters), work.rows)]
        widths = [group_widths(tile, work.weight_blocks, signed_weights) for tile in tiles]
        return np.concatenate(widths).max(axis=0)

    def linear(activations: Array, filters: Array) -> Array:
        widths = group_widths(activations, work.activation_blocks, signed_activations)
        # the width of a group that is not full is not kept, and counts as 0
        written = widths[: work.activation_blocks // group]
        slowest = written.max(axis=0, initial=0)
        return sync.serial_width(slowest, bits) * weight_cycles(filters)

    if work.layer.linear:
        return staggered(work.linear_steps(linear), work.columns)
    activations = np.stack(
        [
            group_widths(windows, work.activation_blocks, signed_activations).max(axis=0)
            for windows in work.window_sets
        ]
    )
    weights = np.stack([weight_cycles(filters) for filters in work.filter_sets])
    bounds = np.array([0, work.steps])
    return int(kernels.product_streams(sync.serial_width(activations, bits), weights, bounds, 0).sum())


def shapeshifter(work: Work) -> int:
    trim = work.options.flag("minor_bit")
    group = work.options.number("group_size", 1)
    signed = bool(work.layer.activations.min() < 0)
    nothing = 1 + (trim and signed)  # the width of a group without any activation
    groups = -(-work.columns * work.activation_blocks // group)

    def pieces(vectors: Array) -> Array:
        return work.blocks(vectors, work.activation_blocks, signed=signed)

    def widths(taken: Array, empty: Array) -> Array:
        """All filters of a column share the width."""
        lanes = taken.reshape(*taken.shape[:2], taken.shape[2] * taken.shape[3])
        found = kernels.group_widths(lanes, signed=signed, vectors_per_group=group, trim_zeros=trim)
        return np.where(empty, nothing, found)

    def column_widths(taken: Array, empty: Array) -> Array:
        found = widths(taken, empty)
        every = np.zeros((groups, found.shape[1]), np.int64)
        every[: len(found)] = found
        if len(found) < groups and len(taken) % group == 0:
            every[len(found)] = nothing  # the group begun after the last window counts
        return every

    if work.layer.linear:
        activations = pieces(work.windows)
        if work.schedules is not None:
            return staggered(work.scheduled_linear_steps(activations, widths), work.columns)
        none = np.zeros(work.steps, bool)
        return staggered(
            work.linear_steps(lambda vectors, _: widths(pieces(vectors)[:, :, None], none).max(axis=0)),
            work.columns,
        )
    streams = [
        cycles
        for windows in work.window_sets
        for cycles in work.column_cycles(pieces(windows), column_widths)
    ]
    return column_time(streams, work.options.number("column_registers", 0, least=0))


def bit_pragmatic(work: Work) -> int:
    recoding: Recoding = "booth_like" if work.options.flag("booth_encoding") else "none"
    first_stage_bits = work.options.number("bits_first_stage", least=0)

    def cycles(taken: Array, _: Array) -> Array:
        """The slowest filter of each column."""
        each = kernels.two_stage_cycles(taken, first_stage_bits=first_stage_bits, recoding=recoding)
        return each.max(axis=2)

    def column_cycles(taken: Array, empty: Array) -> Array:
        found = cycles(taken, empty)
        return np.pad(found, ((0, work.columns * work.activation_blocks - len(found)), (0, 0)))

    def pieces(vectors: Array) -> Array:
        return work.magnitudes(vectors, work.activation_blocks)

    if work.layer.linear:
        if work.schedules is not None:
            return staggered(work.scheduled_linear_steps(pieces(work.windows), cycles), work.columns)
        none = np.zeros(work.steps, bool)
        return staggered(
            work.linear_steps(lambda vectors, _: cycles(pieces(vectors)[:, :, None], none).max(axis=0)),
            work.columns,
        )
    streams = [
        each for windows in work.window_sets for each in work.column_cycles(pieces(windows), column_cycles)
    ]
    return column_time(streams, work.options.number("column_registers", 0, least=0))


def laconic(work: Work) -> int:
    recoding: Recoding = "booth_like" if work.options.flag("booth_encoding") else "none"

    def terms(vectors: Array, count: int) -> Array:
        return kernels.lane_terms(work.magnitudes(vectors, count), recoding=recoding)

    def linear(activations: Array, filters: Array) -> Array:
        a, w = terms(activations, work.activation_blocks), terms(filters, work.weight_blocks)
        return np.maximum(sync.product_cycles(a, w), 1)

    if work.layer.linear:
        return staggered(work.linear_steps(linear), work.columns)
    activations = np.stack([terms(windows, work.activation_blocks) for windows in work.window_sets])
    weights = np.stack([terms(filters, work.weight_blocks) for filters in work.filter_sets])
    return int(kernels.product_streams(activations, weights, np.array([0, work.steps]), 1).sum())


DNNSIM = {
    "DaDianNao": dadiannao,
    "Stripes": stripes,
    "Loom": loom,
    "ShapeShifter": shapeshifter,
    "BitPragmatic": bit_pragmatic,
    "Laconic": laconic,
}


def dnnsim(row: Row, layer: Layer) -> int:
    """Compute cycles of one row."""
    options = Options(row)
    machine = DNNSIM[options.choice("architecture", tuple(DNNSIM))]
    lanes = options.number("lanes", 16)
    pe_width = options.number("pe_width", 16)
    columns = options.number("columns") // -(-layer.activation_bits // pe_width)
    rows = options.number("rows") // -(-layer.weight_bits // pe_width)
    if not columns or not rows:
        raise InputError("too few columns or rows for values wider than a PE", key="pe_width", value=pe_width)
    work = Work(
        layer,
        options,
        windows=_windows(layer, lanes),
        filters=_filters(layer, lanes),
        columns=columns,
        rows=rows,
        tiles=options.number("tiles", 1),
        pe_width=pe_width,
    )
    if options.flag("tactical"):
        if machine not in (dadiannao, shapeshifter, bit_pragmatic):
            raise InputError("this machine takes no weight schedule", key="tactical", value=True)
        schedules = _schedules(
            layer,
            lanes,
            rows,
            options.choice("search_shape", ("T", "L")),
            options.number("lookahead_h", least=0),
            options.number("lookaside_d", least=0),
        )
        tiles = work.tiles
        grouped = [schedules[i : i + tiles] for i in range(0, len(schedules), tiles)]
        work = replace(work, schedules=grouped)
    return machine(work)


@lru_cache
def _schedules(
    layer: Layer, lanes: int, rows: int, shape: str, lookahead: int, lookaside: int
) -> list[Schedule]:
    """Of each tile's filters in turn."""
    filters = _filters(layer, lanes)
    present = _filters(replace(layer, weights=np.ones_like(layer.weights[:1])), lanes)[0] > 0
    offsets = search(shape, lookahead, lookaside)
    return [
        schedule(filters[i : i + rows], present, offsets, lookahead) for i in range(0, len(filters), rows)
    ]


@lru_cache
def _filters(layer: Layer, lanes: int) -> Array:
    """(filters, steps, lanes): steps run over the second kernel axis, the first, blocks of channels."""
    weights = layer.weights if not layer.linear else layer.weights[..., None, None]
    return _steps(weights.transpose(0, 3, 2, 1), lanes)


@lru_cache
def _windows(layer: Layer, lanes: int) -> Array:
    """(windows, steps, lanes), in the order of `_filters`. Window w begins at x = w mod outputs along x, and at y = w
    div outputs along *y*, which is right for square outputs only."""
    if layer.linear:
        return _steps(layer.activations[:, None, None], lanes)
    along_x, along_y = layer.outputs
    kernel_x, kernel_y = layer.weights.shape[2:]
    window = np.arange(along_x * along_y)
    x, y = window % along_x * layer.stride, window // along_y * layer.stride
    if y.max() + kernel_y > layer.activations.shape[3]:
        raise InputError("DNNsim reads beyond the activations where outputs are wider than they are high")
    columns = x[:, None, None] + np.arange(kernel_x)
    rows = y[:, None, None] + np.arange(kernel_y)[:, None]
    return _steps(layer.activations[0][:, columns, rows].transpose(1, 2, 3, 0), lanes)


def _steps(vectors: Array, lanes: int) -> Array:
    """(vectors, steps, lanes) from (vectors, ..., channels): blocks of channels, the last one filled with zeros."""
    missing = -vectors.shape[-1] % lanes
    padded = np.pad(vectors, [(0, 0)] * (vectors.ndim - 1) + [(0, missing)])
    return padded.reshape(len(vectors), -1, lanes)


# BitSim


@dataclass(frozen=True)
class Tiling:
    """A layer cut into tiles of rows (output channels) x a group of weights, each passed ``repeats`` times: once for
    each set of columns (positions of one output row, or tokens)."""

    layer: Layer
    group: int
    rows: int
    repeats: int

    @property
    def tiles(self) -> int:
        sets = -(-len(self.layer.weights) // self.rows)
        return sets * self.groups(self.layer.weights).shape[1] * self.repeats

    def groups(self, weights: Array) -> Array:
        """(M, steps, group): along the channels of each kernel position; where there are fewer of them than of kernel
        positions, along these, for each channel."""
        flat = weights.reshape(*weights.shape[:2], -1)
        positions_last = flat.shape[2] > flat.shape[1]
        return _steps(flat if positions_last else flat.swapaxes(1, 2), self.group)

    def slowest(self, cycles: Callable[[Array], Array], weights: Array) -> int:
        """Sum over tiles of the cycles of their slowest row."""
        each = cycles(self.groups(weights))
        slowest = np.maximum.reduceat(each, range(0, len(each), self.rows), axis=0)
        return int(slowest.sum(dtype=np.int64)) * self.repeats


def bitsim(row: Row, layer: Layer) -> int | float:
    """Compute cycles of one row."""
    options = Options(row)
    machine = options.choice("arch", tuple(BITSIM))
    dataflow = tuple(options.number(name) for name in ("group", "rows", "cols"))
    if machine == "BitWave" and options.flag("config_dataflow"):
        chosen = re.findall("[0-9]+", row.get("best_dataflow") or "")
        if chosen and (len(chosen) != len(dataflow) or "0" in chosen):
            raise InputError(
                "not a dataflow", key="best_dataflow", value=chosen, allowed="group, rows and columns"
            )
        dataflows = [tuple(int(number) for number in chosen)] if chosen else BITWAVE_DATAFLOWS
        return min(bitsim_bitwave(_tiling(layer, options, *each), options) for each in dataflows)
    return BITSIM[machine](_tiling(layer, options, *dataflow), options)


def bitsim_stripes(tiling: Tiling, options: Options) -> int:
    return 8 * tiling.tiles


def bitsim_pragmatic(tiling: Tiling, options: Options) -> int:
    """The weights are serial; their sign bit is a term like others, and a tile of zeros takes no time."""
    weights = _sign_magnitude(tiling.layer.weights)
    codes = np.abs(weights) | (weights < 0).astype(np.int16) << 7
    return tiling.slowest(lambda tile: kernels.two_stage_cycles(tile) * tile.any(axis=-1), codes)


def bitsim_bitlet(tiling: Tiling, options: Options) -> int:
    return tiling.slowest(lambda tile: kernels.bitlet_cycles(tile, bits=8), tiling.layer.weights)


def bitsim_bitwave(tiling: Tiling, options: Options) -> int:
    """One column less than the columns that are not zero, the sign among them: where no weight is negative a column of
    magnitudes is lost, and zeros take -1."""
    bits = options.number("w_prec", 8)
    if not options.flag("en_bitflip"):
        return (bits - 1) * tiling.tiles
    weights = _sign_magnitude(tiling.layer.weights)
    if bits < 8:
        weights = _flipped(weights, 8 - bits)

    def cycles(tile: Array) -> Array:
        return kernels.bitwave_cycles(tile) + (tile < 0).any(axis=-1) - np.int64(1)

    return tiling.slowest(cycles, weights)


def bitsim_bitvert(tiling: Tiling, options: Options) -> int | float:
    """Data decide only without bi-directional sparsity; elsewhere cycles follow from assumed precisions, and are
    fractions where a fraction of the channels keeps 8 bits."""
    mode = options.choice("mode", ("no_bbs", "bbs", "lsb", "ol_eager", "ol_cons"))
    if mode == "no_bbs":
        if tiling.group % 2:
            raise InputError(
                "half of a group's lanes are multipliers", key="group", value=tiling.group, allowed="even"
            )
        return tiling.slowest(
            lambda tile: kernels.bit_column_cycles(tile, bits=8, multipliers=tiling.group // 2),
            tiling.layer.weights,
        )
    if mode in ("bbs", "lsb"):
        return tiling.tiles * sync.stored_columns(8, {"bbs": 0, "lsb": 2}[mode])
    sensitive = options.fraction("outlier_frac")
    others = sync.stored_columns(8, {"ol_eager": 4, "ol_cons": 2}[mode])
    return tiling.tiles * sensitive * 8 + tiling.tiles * (1 - sensitive) * others


BITSIM: dict[str, Callable[[Tiling, Options], int | float]] = {
    "Stripes": bitsim_stripes,
    "Pragmatic": bitsim_pragmatic,
    "Bitlet": bitsim_bitlet,
    "BitWave": bitsim_bitwave,
    "BitVert": bitsim_bitvert,
}
BITWAVE_DATAFLOWS: list[tuple[int, ...]] = [
    (8, 32, 16),
    (16, 32, 8),
    (32, 32, 4),
    (128, 8, 1),
    (16, 64, 1),
    (32, 32, 1),
    (16, 1, 16),
]
"""(group, rows, columns) that a reconfigured array may have."""


def _tiling(layer: Layer, options: Options, group: int, rows: int, columns: int) -> Tiling:
    if layer.linear:
        return Tiling(layer, group, rows, -(-options.number("tokens", 1) // columns))
    height, width = layer.outputs
    return Tiling(layer, group, rows, height * -(-width // columns))


def _sign_magnitude(weights: Array) -> Array:
    """As 8 bits of sign and magnitude hold them: -128 becomes -127."""
    return np.maximum(weights.astype(np.int16), -127)


def _flipped(weights: Array, columns: int) -> Array:
    """BitWave's bit flip to at least ``columns`` zero columns, in groups of 32 weights (or as many as there are
    channels) of the array flattened with channels last."""
    channels_last = np.moveaxis(weights, 1, -1)
    pruned = prune(channels_last.reshape(1, -1), "bitflip", columns, min(32, weights.shape[1])).weights
    return np.moveaxis(pruned.reshape(channels_last.shape), -1, 1)


# Files


def read_layers(file: Path) -> dict[tuple[str, str], Layer]:
    """Layers by (network, layer)."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError("no inputs can be read", file=file, allowed="an .npz file of arrays") from error
    layers = {}
    for name in arrays:
        network, _, rest = name.partition("/")
        layer, _, kind = rest.rpartition("/")
        if kind != "wgt":
            continue
        prefix = f"{network}/{layer}/"
        missing = [part for part in ("act", "meta") if prefix + part not in arrays]
        if missing:
            raise InputError("an array is missing", file=file, key=prefix + missing[0])
        try:
            layers[network, layer] = _layer(*(arrays[prefix + part] for part in ("act", "wgt", "meta")))
        except InputError as error:
            raise InputError(error.problem, file=file, key=prefix[:-1], value=error.value) from error
    return layers


def _layer(activations: Array, weights: Array, meta: Array) -> Layer:
    if meta.shape != (4,):
        raise InputError("meta does not hold stride, padding and the bits of both operands", value=meta.shape)
    if not all(np.issubdtype(array.dtype, np.integer) for array in (activations, weights, meta)):
        raise InputError("the arrays are not integers")
    stride, padding, activation_bits, weight_bits = (int(number) for number in meta)
    if min(stride, activation_bits, weight_bits) < 1 or not 0 <= padding <= max(weights.shape):
        raise InputError("no stride, no bits, or a padding that no layer has", value=meta.tolist())
    if weights.ndim == 2:
        if activations.size != weights.shape[1]:
            raise InputError("a linear layer takes one row of as many activations as it has inputs")
        return Layer(activations.reshape(1, -1), weights, 1, activation_bits, weight_bits)
    if activations.ndim != 4 or weights.ndim != 4 or activations.shape[1] != weights.shape[1]:
        raise InputError(
            "not a convolution of one group",
            value=f"activations {activations.shape}, weights {weights.shape}",
        )
    padded = np.pad(activations, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    layer = Layer(padded, weights, stride, activation_bits, weight_bits)
    if min(layer.outputs) < 1:
        raise InputError("the layer has no outputs", value=meta.tolist())
    return layer


def replay(simulator: str, inputs: Path, cases: Path) -> Iterator[int | float]:
    """One count a row of ``cases``."""
    layers = read_layers(inputs)
    try:
        with cases.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("no cases can be read", file=cases, allowed="a .csv file") from error
    count = {"dnnsim": dnnsim, "bitsim": bitsim}[simulator]
    for number, row in enumerate(rows, 2):
        where = f"{cases}, line {number}"
        network, layer = row.get("network") or "", row.get("layer") or ""
        if (network, layer) not in layers:
            networks = sorted({known for known, _ in layers})
            problem, key, value, known = "no such network", "network", network, networks
            if network in networks:
                known = [name for of, name in layers if of == network]
                problem, key, value = f"{network} has no such layer", "layer", layer
            raise InputError(problem, file=where, key=key, value=value, allowed=nearest(value, known))
        try:
            yield count(row, layers[network, layer])
        except InputError as error:
            raise error.within(where) from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Replay compute cycles of DNNsim or BitSim, as a JSON list.")
    parser.add_argument("simulator", choices=("dnnsim", "bitsim"))
    parser.add_argument("--inputs", type=Path, required=True, help="layers, .npz")
    parser.add_argument("--cases", type=Path, required=True, help="rows of parameters, .csv")
    given = parser.parse_args(arguments)
    try:
        counts = list(replay(given.simulator, given.inputs, given.cases))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
