"""What is put on the ports of BitMoD's blocks, and by the PE's own function what they must answer.

``gaussian``  normal weights: of BitMoD's types through their quantizer in groups of 128, of others as in
              `simulator.rtl.units.dot_operands`, like the activations; sums with a normal distribution, and the scales
              that the quantizer gave to groups of normal weights.
``uniform``   every code of a weight, special values included, every finite activation, every scale equally likely.
``model``     operands of a network (`simulator.rtl.units.model_operands`); weights of BitMoD's types in groups of 128.
``corners``   zeros of both signs, the largest and smallest activations and sums, subnormal ones; uniform weights.
``zero``      all operands zero.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simulator.formats import Format, get_format, quantize
from simulator.pe.accumulator import accumulator
from simulator.pe.arithmetic import BinaryFloat, round_reals, round_to_float
from simulator.pe.bitmod_function import BitModFunction
from simulator.pe.bitmod_terms import FIXED_POINT_BITS, SPECIAL_VALUES, cycles_of, terms
from simulator.pe.elements import element_format
from simulator.rtl.unit import Codes, Stream, port_bits
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.dot_operands import operand_codes
from simulator.rtl.units.model_operands import model_values

if TYPE_CHECKING:
    from simulator.rtl.units.bitmod import BitModUnit, DequantizerUnit, EncoderUnit, GroupAdderUnit

GROUP = 128
TERM_BITS = 4
BSIG_BITS = 3
_WORD_BITS = 8
_SUM_SIGMA = 1024.0
_OUTPUT_GROUPS = 16
"""Groups that an output adds up."""
_FP16_CORNERS = (
    0x0000,
    0x8000,
    0x0001,
    0x8001,
    0x03FF,
    0x0400,
    0x3C00,
    0xBC00,
    0x7BFF,
    0xFBFF,
    0x1400,
    0x2BFF,
)


@dataclass(frozen=True)
class Steps:
    """Weights of consecutive steps as the array sends them."""

    format: Format
    codes: Codes
    """(steps, lanes)"""
    selectors: Codes
    """(steps,)"""

    @property
    def integers(self) -> Codes:
        """(steps, lanes)"""
        element = self.format.element
        if element.kind == "table":
            return np.array(element.tables)[self.selectors[:, None], self.codes]
        codes = self.codes.astype(element.dtype)
        integers: Codes = self.format.element_integers(codes)[0].astype(np.int64)
        return integers

    def terms(self) -> tuple[Codes, Codes]:
        """Digits (cycles, lanes) and their significance in halves (cycles,)."""
        digits, significances = terms(self.integers, self.format.element)
        spread: Codes = np.moveaxis(digits, -1, 1).reshape(-1, digits.shape[1])
        return spread, np.tile(np.array(significances) + self._from_halves, len(digits))

    @property
    def _from_halves(self) -> int:
        """The integers of 4-bit floats count halves, which are the hardware's unit; all others ones."""
        element = self.format.element
        return 0 if not element.is_integer and element.bits == FIXED_POINT_BITS - 1 else 1


def weight_steps(name: str, kind: str, rng: np.random.Generator, steps: int, lanes: int) -> Steps:
    """Weights of an element format; selectors change every group."""
    format = element_format(name)
    element = format.element
    of_group = np.arange(steps) * lanes // GROUP
    groups = int(of_group[-1]) + 1
    if element.kind != "table":
        codes = operand_codes(element, "weights", kind, rng, (steps, lanes))
        return Steps(format, codes, np.zeros(steps, np.int64))
    if kind == "uniform":
        codes = rng.integers(0, 1 << element.bits, (steps, lanes))
        return Steps(format, codes, rng.integers(0, len(element.tables), groups)[of_group])
    if kind == "model":
        values = model_values("weights", (1, groups * GROUP))
    else:
        values = rng.normal(size=(1, groups * GROUP)).astype(np.float32)
    found = quantize(values, f"{name}_g{GROUP}")
    assert found.selectors is not None
    codes = found.codes.reshape(-1)[: steps * lanes].reshape(steps, lanes).astype(np.int64)
    return Steps(format, codes, found.selectors.reshape(-1).astype(np.int64)[of_group])


def _steps(unit: BitModUnit | EncoderUnit, name: str, kind: str, cycles: int, seed: int) -> Steps:
    rng = np.random.default_rng([seed, kind == "uniform", 1])
    of_weights = kind if kind in ("gaussian", "model") else "uniform"
    count = -(-cycles // cycles_of(element_format(name).element))
    return weight_steps(name, of_weights, rng, count, unit.lanes)


def pe_stream(unit: BitModUnit, kind: str, name: str, cycles: int, seed: int) -> Stream:
    """Activations held for the cycles of a step, terms of weights of ``name``."""
    if kind == "zero":
        activations = digits = np.zeros((cycles, unit.lanes), np.int64)
        bsig, first = np.zeros(cycles, np.int64), np.zeros(cycles, bool)
    else:
        rng = np.random.default_rng([seed, kind == "uniform"])
        steps = _steps(unit, name, kind, cycles, seed)
        per_step = cycles_of(steps.format.element)
        shape = (len(steps.codes), unit.lanes)
        if kind == "corners":
            activations = rng.choice(_FP16_CORNERS, shape).astype(np.int64)
        else:
            activations = operand_codes(element_format("fp16").element, "activations", kind, rng, shape)
        activations = np.repeat(activations, per_step, axis=0)[:cycles]
        digits, bsig = (values[:cycles] for values in steps.terms())
        first = np.arange(cycles) % (-(-GROUP // unit.lanes) * per_step) == 0
    ports = {
        "a": port_bits(activations, 16),
        "terms": port_bits(term_codes(digits), TERM_BITS),
        "bsig": port_bits(bsig, BSIG_BITS),
        "first": port_bits(first.astype(np.int64), 1),
    }
    return Stream(ports, lambda: partial_sums(unit, activations, digits, bsig, first)[: -unit.latency])


def term_codes(digits: Codes) -> Codes:
    """{sign, exponent, mantissa bit} of digits."""
    exponents = np.frexp(np.maximum(np.abs(digits), 1))[1].astype(np.int64) - 1
    codes: Codes = (digits < 0) << 3 | exponents << 1 | (digits != 0)
    return codes


def partial_sums(
    unit: BitModUnit, activations: Codes, digits: Codes, bsig: Codes, first: npt.NDArray[np.bool_]
) -> list[Hashable]:
    """The group's sum after each cycle, in the accumulator's smallest steps."""
    function: BitModFunction = unit.pe.function(element_format("int8"), element_format("fp16"))
    integers = element_format("fp16").element_integers(activations.astype(np.uint16))[0]
    held = np.zeros(1)
    sums: list[Hashable] = []
    for cycle in range(len(digits)):
        now = slice(cycle, cycle + 1)
        held = function.cycle(held * ~first[cycle], integers[now], digits[now], int(bsig[cycle]) - 1)
        sums.append(int(np.ldexp(held[0], -function.exponent)))
    return sums


def encoder_stream(unit: EncoderUnit, kind: str, name: str, cycles: int, seed: int) -> Stream:
    """Words held for the cycles of a step. The special values are loaded in the first cycles, in which no word has the
    code that stands for them."""
    steps = _steps(unit, name, kind, cycles, seed)
    element = steps.format.element
    floats, per_step = not element.is_integer, cycles_of(element)
    if kind == "zero":
        steps = replace(steps, codes=np.zeros_like(steps.codes), selectors=np.zeros_like(steps.selectors))
    codes, special = steps.codes.copy(), 1 << (element.bits - 1)
    if floats:
        codes[: SPECIAL_VALUES + 1][codes[: SPECIAL_VALUES + 1] == special] = 0
        steps = replace(steps, codes=codes)
        codes = codes << (FIXED_POINT_BITS - 1 - element.bits)
    number = np.arange(cycles)
    loads = number < SPECIAL_VALUES
    values = np.zeros(cycles, np.int64)
    values[: len(element.tables)] = [_special_value(table[special], element.bits) for table in element.tables]
    ports = {
        "w": port_bits(np.repeat(codes, per_step, axis=0)[:cycles], _WORD_BITS),
        "selector": port_bits(np.repeat(steps.selectors, per_step)[:cycles], 2),
        "floats": port_bits(np.full(cycles, int(floats)), 1),
        "cycle": port_bits(number % per_step, 2),
        "special": port_bits(values, FIXED_POINT_BITS + 1),
        "index": port_bits(np.where(loads, number, 0), 2),
        "load": port_bits(loads.astype(np.int64), 1),
    }

    def expected() -> list[Hashable]:
        digits, bsig = steps.terms()
        rows = zip(digits.tolist(), bsig.tolist(), strict=True)
        found: list[Hashable] = [(*row, significance) for row, significance in rows]
        return found[: cycles - unit.latency]

    return Stream(ports, expected)


def _special_value(integer: int, bits: int) -> int:
    """{S I3 I2 I1 I0 F0}: the integers of 4-bit types count halves, those of 3-bit types ones."""
    return (integer < 0) << FIXED_POINT_BITS | abs(integer) << (FIXED_POINT_BITS - 1 - bits)


def digits_of(code: int, lanes: int) -> list[int]:
    """Digits of the lanes' terms."""
    found = []
    for lane in range(lanes):
        term = code >> (lane * TERM_BITS) & 15
        magnitude = (term & 1) << (term >> 1 & 3)
        found.append(-magnitude if term >> 3 else magnitude)
    return found


def _sum_codes(
    unit: DequantizerUnit | GroupAdderUnit, kind: str, rng: np.random.Generator, shape: int
) -> Codes:
    """Codes of the accumulator's format."""
    to = _format_of(unit)
    mantissa = to.precision - 1
    fields = 1 << (to.bits - to.precision)
    if kind == "zero":
        return np.zeros(shape, np.int64)
    if kind == "gaussian":
        return _codes_of(rng.normal(0, min(_SUM_SIGMA, 2.0 ** (to.high - 12)), shape), to)
    signs = rng.integers(0, 2, shape) << (to.bits - 1)
    if kind == "corners":
        fraction = rng.choice([0, 1, (1 << mantissa) - 1], shape)
        field = rng.choice([0, 1, 2, fields // 2, fields // 2 + 1], shape)
    else:
        fraction = rng.integers(0, 1 << mantissa, shape)
        field = rng.integers(fields * 3 // 8, fields * 5 // 8, shape)
    codes: Codes = signs | field << mantissa | fraction
    return codes


def _codes_of(values: npt.NDArray[np.float64], to: BinaryFloat) -> Codes:
    """Of values rounded to the format."""
    rounded = round_reals(np.abs(values), to)
    steps = np.maximum(np.frexp(rounded)[1] - to.precision - to.low, 0).astype(np.int64)
    significands = np.ldexp(rounded, -(to.low + steps)).astype(np.int64)
    codes: Codes = (values < 0).astype(np.int64) << (to.bits - 1) | (
        steps << (to.precision - 1)
    ) + significands
    return codes


def _scale_codes(
    unit: DequantizerUnit | GroupAdderUnit, kind: str, rng: np.random.Generator, count: int
) -> Codes:
    """Integer scales of groups."""
    if kind == "zero":
        return np.zeros(count, np.int64)
    if kind == "corners":
        return rng.choice([0, 1, (1 << unit.bits) - 1, 1 << (unit.bits - 1)], count)
    if kind == "gaussian" and unit.bits == get_format("bitmod_fp4").scale_bits:
        weights = rng.normal(size=(-(-count // 32), 32 * GROUP)).astype(np.float32)
        scales = quantize(weights, f"bitmod_fp4_g{GROUP}").scales
        assert scales is not None
        return scales.reshape(-1)[:count].astype(np.int64)
    return rng.integers(1, 1 << unit.bits, count)


def _format_of(unit: DequantizerUnit | GroupAdderUnit) -> BinaryFloat:
    to = accumulator(unit.accumulator).float_format
    assert to is not None
    return to


def _product_codes(unit: GroupAdderUnit, sums: Codes, scales: Codes) -> list[int]:
    """{sign, field, magnitude} of sums times scales."""
    to = _format_of(unit)
    found = []
    for code, scale in zip(sums.tolist(), scales.tolist(), strict=True):
        field = code >> (to.precision - 1) & ((1 << (to.bits - to.precision)) - 1)
        significand = code & ((1 << (to.precision - 1)) - 1) | (field > 0) << (to.precision - 1)
        exponent = (code >> (to.bits - 1)) << (to.bits - to.precision) | max(field, 1)
        found.append(exponent << unit.pe.scaled_bits | significand * scale)
    return found


def dequantizer_stream(unit: DequantizerUnit, kind: str, cycles: int, seed: int) -> Stream:
    """A sum and a scale every as many cycles as a scale has bits."""
    rng = np.random.default_rng([seed, kind == "uniform"])
    number = np.arange(cycles)
    count = -(-cycles // unit.bits)
    sums, scales = _sum_codes(unit, kind, rng, count), _scale_codes(unit, kind, rng, count)
    loads = number % unit.bits == 0
    ports = {
        "sum": port_bits(np.repeat(sums, unit.bits)[:cycles], unit.pe.accumulator_bits),
        "scale": port_bits(np.repeat(scales, unit.bits)[:cycles], unit.bits),
        "load": port_bits(loads.astype(np.int64), 1),
        "shift": port_bits((~loads).astype(np.int64), 1),
    }

    def expected() -> list[Hashable]:
        values = sums_of_codes(unit.pe.sums, sums.tolist())
        products = [value * scale for value, scale in zip(values, scales.tolist(), strict=True)]
        found: list[Hashable] = [
            products[cycle // unit.bits] if cycle % unit.bits == 0 else None for cycle in range(cycles)
        ]
        return found[: cycles - unit.latency]

    return Stream(ports, expected)


def product_value(unit: DequantizerUnit, code: int) -> int:
    """Of {sign, field, magnitude}, in the accumulator's smallest steps."""
    scaled: int = unit.pe.scaled_bits
    field_bits: int = unit.pe.sums.exponent_bits
    field = code >> scaled & ((1 << field_bits) - 1)
    value = (code & ((1 << scaled) - 1)) << (field - 1)
    return -value if code >> (scaled + field_bits) else value


def adder_stream(unit: GroupAdderUnit, kind: str, cycles: int, seed: int) -> Stream:
    """A product a cycle, of one PE of the column after the other; the products of a group arrive together, those of the
    next as soon as they may. The outputs begin anew, on the other side where there are two, every `_OUTPUT_GROUPS`
    groups. Gaussian products: the port ``read`` rests, else it follows."""
    rng = np.random.default_rng([seed, kind == "uniform"])
    to, tile, number = _format_of(unit), unit.tile, np.arange(cycles)
    groups = -(-cycles // unit.burst)
    in_burst = number % unit.burst
    index, take = np.minimum(in_burst, tile - 1), (in_burst < tile) & (kind != "zero")
    sums, scales = _sum_codes(unit, kind, rng, groups * tile), _scale_codes(unit, kind, rng, groups * tile)
    width = 1 + unit.pe.sums.exponent_bits + unit.pe.scaled_bits
    products = port_bits(np.array(_product_codes(unit, sums, scales)), width).reshape(groups, -1)
    group = number // unit.burst
    first = group % _OUTPUT_GROUPS == 0
    side = (group // _OUTPUT_GROUPS) % (2 if unit.doubled else 1)
    place = side * tile + index
    read = np.zeros(cycles, np.int64)
    if kind not in ("gaussian", "zero"):
        read[unit.latency :] = place[: -unit.latency]
    index_bits = (tile - 1).bit_length()
    ports = {
        "products": products[group],
        "take": port_bits(take.astype(np.int64), 1),
        "first": port_bits(first.astype(np.int64), 1),
        "index": port_bits(index, index_bits),
        "read": port_bits(read, (unit.outputs - 1).bit_length()),
    }
    if unit.doubled:
        ports["side"] = port_bits(side, 1)
    ports = {name: bits for name, bits in ports.items() if bits.shape[1]}

    def expected() -> list[Hashable]:
        values = sums_of_codes(unit.pe.sums, sums.tolist())
        outputs = [0] * unit.outputs
        found: list[Hashable] = []
        for cycle in range(cycles - unit.latency):
            before = 0 if first[cycle] else outputs[place[cycle]]
            product = group[cycle] * tile + index[cycle]
            total = before + values[product] * int(scales[product])
            if take[cycle]:
                outputs[place[cycle]] = int(round_to_float(np.array([total], object), to.low, to)[0])
            found.append(outputs[read[cycle + unit.latency]])
        return found

    return Stream(ports, expected)


def read_terms(unit: EncoderUnit, terms: Sequence[int], bsig: Sequence[int]) -> list[Hashable]:
    return [(*digits_of(code, unit.lanes), int(s)) for code, s in zip(terms, bsig, strict=True)]
