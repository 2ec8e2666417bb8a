"""Operand streams on which energy is measured.

``gaussian``  integers: normal, standard deviation a quarter of the range, rounded, saturated. Floats: normal values
              times 16, encoded (FP8 E4M3 then uses most of its exponents); of formats whose largest value is below
              64 the values have a standard deviation of a quarter of that. Scales are one, integers half of their
              range.
``uniform``   every finite code equally likely; scales as in gaussian.
``model``     those of a network (`simulator.rtl.units.model_operands`); lanes that share a scale are a block of their
              format. The scales at the ports are one, as what new ones cost is an event of its own.
``scales``    as gaussian, but every cycle with new scales around one.
``rescale``   new scales every cycle, all operands zero.
``preload``   a new stationary operand every cycle, the streamed one and the partial sums zero.
``zero``      all operands zero.
``often``     as gaussian, and the accumulator moves to the second level every second step: blocks end there, or, where
              no scales are applied inside, sums.

A new sum begins, or a new stationary operand counts, every 64th cycle. Partial sums that come from a neighbour are sums
of 16 products of such operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats import Format
from simulator.formats.element import FP16, Element, decode, encode, minifloat
from simulator.pe.protocol import Pair, Side
from simulator.rtl.unit import Bits, Codes, port_bits
from simulator.rtl.units.model_operands import model_codes, model_format

if TYPE_CHECKING:
    from simulator.rtl.units.dot import DotUnit

STIMULI = ("gaussian", "uniform", "model", "scales", "rescale", "preload", "zero", "often")
OFTEN = 2
SUM_LENGTH = 64
_PARTIAL_PRODUCTS = 16
_FLOAT_SIGMA = 16.0
_ONE = {"e8m0": 127, "e8": 127, "fp8_e4m3": 0x38, "fp16": 0x3C00}
_SPREAD = {"e8m0": 4, "e8": 4, "fp8_e4m3": 16, "fp16": 2048}
"""Codes to either side of one that scales take; integers take any but zero, and half of their range for one."""


@dataclass(frozen=True)
class Operands:
    """Codes of every cycle: (cycles, lanes); the others (cycles,), absent where the unit has none."""

    activations: Codes
    weights: Codes
    first: npt.NDArray[np.bool_]
    """A new sum begins, or another stationary operand counts."""
    activation_scales: Codes | None = None
    weight_scales: Codes | None = None
    ends: npt.NDArray[np.bool_] | None = None
    """These operands are the last of their blocks, where a second level applies the scales."""
    partials: Codes | None = None
    """Codes of the accumulator's format, to which the products of this cycle are added."""

    def ports(self, unit: DotUnit, pair: Pair | None = None) -> Mapping[str, Bits]:
        """{port: (cycles, bits)}, lane 0 lowest, of operands in the formats ``pair`` (the widest of the unit)."""
        pair = pair or unit.pairs[0]
        (of_w, of_a), (weight, activation) = unit.words, (format.element for format in pair)
        ports = {"a": of_a.words(activation, self.activations), "w": of_w.words(weight, self.weights)}
        settings = {
            "a_layout": (of_a.layout(activation), (len(of_a.layouts) - 1).bit_length()),
            "w_layout": (of_w.layout(weight), (len(of_w.layouts) - 1).bit_length()),
            "bias": (dict(unit.biases)[pair], unit.bias_bits),
            "drop": (unit.dropped(pair) - unit.dropped_bits[0], unit.drop_bits),
        }
        constant = {name: (value, bits) for name, (value, bits) in settings.items() if bits}
        ports |= {name: np.full(len(self.first), value, np.int64) for name, (value, _) in constant.items()}
        if self.activation_scales is not None and self.weight_scales is not None:
            left = unit.scale_bits if unit.scale_product_bits else 0
            for name, codes, format in zip(
                ("w_scale", "a_scale"),
                (self.weight_scales, self.activation_scales),
                unit.scale_pair(pair),
                strict=True,
            ):
                assert format.scale_element is not None
                ports[name] = codes << max(left - format.scale_element.bits, 0)
        if self.partials is None:
            ports["first"] = self.first.astype(np.int64)
            if self.ends is not None:
                ports["ends"] = self.ends.astype(np.int64)
        else:
            ports["partial"] = _later(self.partials, unit.latency - 1)
            ports["load"] = self.first.astype(np.int64)
            if unit.doubled:
                held = "w" if unit.stationary == "weights" else "a"
                ports["swap"] = ports["load"]
                ports |= {name: _later(ports[name], -1) for name in ("load", held)}
        widths = {"a": of_a.bits, "w": of_w.bits, "a_scale": unit.scale_bits, "w_scale": unit.scale_bits}
        widths |= {"partial": unit.held.bits, **{name: bits for name, (_, bits) in constant.items()}}
        return {name: port_bits(codes, widths.get(name, 1)) for name, codes in ports.items()}


def operands(unit: DotUnit, kind: str, cycles: int, seed: int = 0, pair: Pair | None = None) -> Operands:
    """A stream of one of `STIMULI`, in the formats of ``pair`` (the widest of the unit); the same for the same
    arguments."""
    rng = np.random.default_rng([seed, kind == "uniform"])
    w_format, a_format = unit.scale_pair(pair or unit.pairs[0])
    formats: dict[Side, Format] = {"activations": a_format, "weights": w_format}
    shape = (cycles, unit.lanes)
    drawn = "zero" if kind in ("zero", "rescale") else kind
    sides = {side: _side_codes(unit, format, side, drawn, rng, shape) for side, format in formats.items()}
    first = np.arange(cycles) % (OFTEN if kind == "often" and unit.scale is None else SUM_LENGTH) == 0
    if unit.stationary != "outputs":
        if kind == "preload":
            first[:] = True
            streamed: Side = "activations" if unit.stationary == "weights" else "weights"
            sides[streamed] = np.zeros(shape, np.int64)
        held = sides[unit.stationary][np.maximum.accumulate(np.where(first, np.arange(cycles), 0))]
        if unit.doubled:
            # What counts in the first cycle would have to be loaded before it.
            held = np.where(np.cumsum(first)[:, None] > 1, held, 0)
        sides[unit.stationary] = held
        partials = np.zeros(cycles, np.int64)
        if kind not in ("zero", "rescale", "preload"):
            partials = _partials(unit, formats, kind, rng, cycles)
        return Operands(sides["activations"], sides["weights"], first=first, partials=partials)
    if unit.scale is None:
        return Operands(sides["activations"], sides["weights"], first=first)
    changing = kind in ("scales", "rescale")
    w_scales, a_scales = (
        _scale_codes(format.scale_element, changing, rng, cycles) for format in (w_format, a_format)
    )
    ends = None
    if unit.ends_groups:
        # The end of a sum is that of its last block.
        ends = np.append(first[1:], True)
        ends |= np.arange(cycles) % OFTEN == OFTEN - 1 if kind == "often" else False
        ends |= rng.integers(0, 4, cycles) == 0 if changing else False
    return Operands(
        sides["activations"],
        sides["weights"],
        first=first,
        activation_scales=a_scales,
        weight_scales=w_scales,
        ends=ends,
    )


def _scale_codes(scale: Element | None, changing: bool, rng: np.random.Generator, cycles: int) -> Codes:
    assert scale is not None
    one = _ONE.get(scale.name, 1 << (scale.bits - 1))
    spread = _SPREAD.get(scale.name, one - 1) if changing else 0
    return one + rng.integers(-spread, spread + 1, cycles)


def _partials(
    unit: DotUnit, formats: Mapping[Side, Format], kind: str, rng: np.random.Generator, cycles: int
) -> Codes:
    shape = (cycles, _PARTIAL_PRODUCTS)
    values = [
        decode(formats[side].element, _side_codes(unit, formats[side], side, kind, rng, shape))
        for side in ("weights", "activations")
    ]
    sums = (values[0] * values[1]).sum(axis=1)
    to = unit.held.float_format
    if to is not None:
        held = minifloat(unit.held.exponent_bits, to.precision - 1, "ieee")
        codes: Codes = encode(held, sums).astype(np.int64)
        return codes
    exponent = sum(format.element.quantum_exponent for format in formats.values())
    integers = np.ldexp(sums, -exponent)
    if np.abs(integers).max() >= 2.0 ** min(unit.held.bits - 1, 62):
        raise InputError(
            f"sums of {_PARTIAL_PRODUCTS} products do not fit", key="accumulator", value=unit.accumulator
        )
    whole: Codes = integers.astype(np.int64)
    return whole


def _later(codes: Codes, cycles: int) -> Codes:
    """The same that many cycles later (earlier where negative), zeros where there is nothing."""
    moved = np.roll(codes, cycles, axis=0)
    nothing = slice(None, cycles) if cycles > 0 else slice(len(codes) + cycles, None)
    moved[nothing] = 0
    return moved


def _side_codes(
    unit: DotUnit, format: Format, side: Side, kind: str, rng: np.random.Generator, shape: tuple[int, ...]
) -> Codes:
    if kind == "model" and format.scale_element is not None:
        return model_codes(in_blocks_of(unit.lanes, format), side, shape)
    return operand_codes(format.element, side, kind, rng, shape)


def in_blocks_of(lanes: int, format: Format) -> Format:
    """A scaled format of a unit, one scale for all lanes; integer scales stand under one a row, as in VS-Quant, codes
    without a sign get a zero point."""
    scale = format.scale_element
    assert scale is not None
    whole = replace(format, group_size=lanes, has_zero_point=format.element.kind == "uint")
    if scale.kind == "exponent":
        return replace(whole, granularity="block")
    return replace(whole, row_scale_element=FP16 if scale.is_integer else None)


def operand_codes(
    element: Element, side: Side, kind: str, rng: np.random.Generator, shape: tuple[int, ...]
) -> Codes:
    """`element_codes`, and those of ``model``, which are of a side."""
    if kind == "model":
        return model_codes(model_format(element, side), side, shape)
    return element_codes(element, kind, rng, shape)


def element_codes(element: Element, kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Codes:
    """Codes of one of the distributions above, of a format's elements: two's complement integers, or bit patterns."""
    if kind == "zero":
        return np.zeros(shape, np.int64)
    if kind == "uniform":
        top = element.max_code
        if element.kind in ("int", "sign_magnitude"):
            return rng.integers(-top - (element.kind == "int"), top + 1, shape)
        magnitudes = rng.integers(0, top + 1, shape)
        if element.kind == "uint":
            return magnitudes
        return magnitudes | rng.integers(0, 2, shape) << (element.bits - 1)
    sigma = 2.0**element.bits / 4 * 2.0**element.step_exponent if element.is_integer else _FLOAT_SIGMA
    if not element.is_integer:
        sigma = min(sigma, element.max_value / 4)
    values = rng.normal(0.0, sigma, shape)
    return encode(element, np.abs(values) if element.kind == "uint" else values).astype(np.int64)
