"""L-Mul: floats multiplied by adding their codes, on its own and in dot products.

Luo and Sun, "Addition is All You Need for Energy-efficient Language Models", arXiv 2410.00907. With mantissas of m
bits, values (1 + x) 2**p and (1 + y) 2**q are multiplied to

    (1 + x + y + 2**-l(m)) 2**(p + q)        l(m) = m up to 3, 3 for m = 4, 4 above

as one addition of exponents and mantissas: where the fractions sum to one or more, the carry goes into the exponent and
the rest stays, unhalved (as in Mitchell's logarithmic multiplier, IRE Trans. Electronic Computers 1962, which this is
without the constant). The paper was not at hand; this is how independent implementations of it read.

Operands without a leading one count as zero. An element-wise result below the normal numbers is zero, one above the
largest is not handled; within a dot product the exponent has no ends.

``lmul-bf16`` is the multiplier between bare ports, measured as the parts are (`part`); ``lmul-bf16-fp32`` with operand
registers and an accumulator, ``lmul32-fp8_e4m3-al22-fp32`` a dot product of 32 that aligns as `dot` does: to be
compared with ``mac-bf16-fp32`` and ``dot32-fp8_e4m3-al22-fp32``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from simulator.errors import InputError, nearest
from simulator.formats.element import Element
from simulator.hardware.structure import Component
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.arithmetic import round_to_float
from simulator.pe.elements import element_format
from simulator.pe.protocol import Side
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Codes, Energy, Stream, Unit, on_other_operands, port_bits
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.dot_operands import SUM_LENGTH, operand_codes
from simulator.rtl.units.naming import refused

SIDES: tuple[Side, Side] = ("activations", "weights")
FORMATS = ("fp8_e4m3", "fp8_e5m2", "fp16", "bf16", "fp32")


def offset_exponent(mantissa_bits: int) -> int:
    """l(m): the constant is 2**-l(m)."""
    return min(mantissa_bits, 4 if mantissa_bits > 4 else 3)


def approximate_product(element: Element, a: int, b: int) -> Fraction:
    """The value that L-Mul gives two codes, by the formula above; exponents without ends."""
    (sign, p, x), (other, q, y) = (_parts(element, code) for code in (a, b))
    if p is None or q is None:
        return Fraction(0)
    fraction = x + y + Fraction(1, 1 << offset_exponent(element.mantissa_bits))
    carry = int(fraction)
    magnitude = (1 + fraction - carry) * _power(p + q + carry)
    return -magnitude if sign ^ other else magnitude


def _power(exponent: int) -> Fraction:
    """2**exponent, exactly."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def _parts(element: Element, code: int) -> tuple[int, int | None, Fraction]:
    """(sign, exponent, None of zero and subnormal numbers, fraction)."""
    scale = 1 << element.mantissa_bits
    field = code >> element.mantissa_bits & ((1 << element.exponent_bits) - 1)
    exponent = field - 1 + element.emin if field else None
    return code >> (element.bits - 1), exponent, Fraction(code % scale, scale)


@dataclass(frozen=True)
class LMulUnit(Unit):
    """The multiplier alone, without an accumulator; else a dot product of it."""

    format: str
    accumulator: str | None = None
    lanes: int = 1
    align_window: int | None = None
    """Of several lanes: bits kept below the largest exponent."""
    cuts: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError("formats of L-Mul", value=self.format, allowed=nearest(self.format, FORMATS))
        if self.accumulator is not None and self.held.float_format is None:
            raise InputError(
                "a floating-point accumulator", value=self.accumulator, allowed="fp32, fp16, ..."
            )
        if (self.lanes > 1) != (self.align_window is not None) or (self.lanes > 1 and not self.accumulator):
            raise InputError("several lanes, a window to align them and an accumulator go together")
        if not 0 <= self.cuts <= len(self.cut_places):
            raise InputError("pipeline cuts", value=self.cuts, allowed=f"0 to {len(self.cut_places)}")

    @property
    def is_part(self) -> bool:
        return self.accumulator is None

    @property
    def element(self) -> Element:
        return element_format(self.format).element

    @property
    def held(self) -> Accumulator:
        """Raises ValueError: there is no such accumulator."""
        return accumulator(self.accumulator or "fp32")

    @property
    def cut_places(self) -> tuple[str, ...]:
        """Where the data path may be cut, in the order in which ``cuts`` takes them."""
        if self.accumulator is None:
            return ()
        return ("multiply", "normalise") if self.lanes == 1 else ("tree", "align", "multiply", "normalise")

    @property
    def taken_cuts(self) -> tuple[str, ...]:
        return self.cut_places[: self.cuts]

    @property
    def name(self) -> str:
        fields = ["lmul" if self.lanes == 1 else f"lmul{self.lanes}", self.format]
        fields += [f"al{self.align_window}"] if self.align_window is not None else []
        fields += [self.accumulator] if self.accumulator else []
        return "-".join([*fields, *([f"cut{self.cuts}"] if self.cuts else [])])

    @property
    def latency(self) -> int:
        return 0 if self.accumulator is None else 2 + self.cuts

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.lmul_hardware import LMulModule

        return LMulModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        """A network's FP8 operands, scaled to the largest value, overflow without a wide accumulator; its FP32 operands
        would be the FP16 that are kept."""
        kinds = ["uniform"] if self._holds_fp8 else []
        kinds += ["model"] if self.element.bits == 16 or (self._holds_fp8 and self.accumulator) else []
        return ("gaussian", *kinds, "zero")

    @property
    def _holds_fp8(self) -> bool:
        """Operands are FP8, and their sums finite whatever they are; products alone are drawn until they are."""
        wide = self.accumulator is None or self.held.exponent_bits > self.element.exponent_bits + 1
        return self.element.bits <= 8 and wide

    @property
    def proofs(self) -> Sequence[str]:
        return ("gaussian", *(("uniform",) if self._holds_fp8 else ()), "corners")

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        rng = np.random.default_rng([seed, stimulus == "uniform"])
        shape = (cycles, self.lanes)
        a, w = (self._codes(stimulus, side, rng, shape) for side in SIDES)
        magnitude = (1 << (self.element.bits - 1)) - 1
        while self.accumulator is None and stimulus != "model":
            total = (a & magnitude) + (w & magnitude) - self.offset
            over = np.flatnonzero((total > self.element.max_code).any(axis=1))
            if not len(over):
                break
            for codes, side in zip((a, w), SIDES, strict=True):
                codes[over] = self._codes(stimulus, side, rng, (len(over), self.lanes))
        first = np.arange(cycles) % SUM_LENGTH == 0
        ports = {name: port_bits(side, self.element.bits) for name, side in (("a", a), ("w", w))}
        if self.accumulator is None:
            return Stream(ports, lambda: self._products(a, w))
        return Stream(
            {**ports, "first": port_bits(first.astype(np.int64), 1)},
            lambda: self._sums(a, w, first)[: -self.latency],
        )

    def _codes(self, stimulus: str, side: Side, rng: np.random.Generator, shape: tuple[int, ...]) -> Codes:
        element = self.element
        if stimulus != "corners":
            return operand_codes(element, side, stimulus, rng, shape)
        normal = 1 << element.mantissa_bits
        one = ((1 << (element.exponent_bits - 1)) - 1) << element.mantissa_bits
        corners = [0, 1, normal - 1, normal, one - 1, one, one + 1, one + normal // 2, one + normal - 1]
        corners += [] if self.accumulator else [element.max_code]
        codes: Codes = rng.choice(corners, shape) | rng.integers(0, 2, shape) << (element.bits - 1)
        return codes

    @property
    def offset(self) -> int:
        """What the sum of two codes without their signs exceeds the code of their product by."""
        mantissa_bits = self.element.mantissa_bits
        return ((1 - self.element.emin) << mantissa_bits) - self.rounding

    @property
    def rounding(self) -> int:
        """The constant 2**-l(m), in units of the mantissa's last bit."""
        mantissa_bits = self.element.mantissa_bits
        return 1 << (mantissa_bits - offset_exponent(mantissa_bits))

    def _products(self, a: Codes, w: Codes) -> list[Hashable]:
        """In units of the smallest subnormal; below the normal numbers zero."""
        unit, smallest = _power(self.element.quantum_exponent), _power(self.element.emin)
        products = (
            approximate_product(self.element, int(x), int(y)) for x, y in zip(a[:, 0], w[:, 0], strict=True)
        )
        return [int(value / unit) if abs(value) >= smallest else 0 for value in products]

    def _sums(self, a: Codes, w: Codes, first: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Hashable]:
        """The accumulator after each cycle's operands, in units of its smallest subnormal."""
        to = self.held.float_format
        assert to is not None
        sums: list[Hashable] = []
        before, exponent = 0, 2 * self.element.emin - max(self.align_window or 0, self.element.mantissa_bits)
        exponent = min(exponent, to.low)
        for cycle, begins in enumerate(first):
            products = [
                approximate_product(self.element, int(x), int(y))
                for x, y in zip(a[cycle], w[cycle], strict=True)
            ]
            total = self._aligned(products) + (0 if begins else before * _power(to.low))
            exact = total / _power(exponent)
            assert exact.denominator == 1
            (before,) = map(int, round_to_float(np.array([exact.numerator], object), exponent, to))
            sums.append(before)
        return sums

    def _aligned(self, products: Sequence[Fraction]) -> Fraction:
        """Their sum, each without what lies further below the largest exponent than the window."""
        if self.align_window is None or not any(products):
            return sum(products, Fraction(0))
        largest = max(_exponent(product) for product in products if product)
        unit = _power(largest - self.align_window)
        return sum((int(product / unit) for product in products), 0) * unit

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        held = self.held if self.accumulator else _as_held(self.element)
        return list(sums_of_codes(held, list(outputs["out"])))

    def components(self) -> list[Component]:
        """Of no shipped accelerator: for tables, and for what is compared with them."""
        if self.accumulator is None:
            return [Component("multiplier", "lmul", {"format": self.format}, events={"operate": {}})]
        params: dict[str, int | str] = {
            "format": self.format,
            "accumulator": self.accumulator,
            "lanes": self.lanes,
            "pipeline_depth": 1 + self.cuts,
        }
        if self.align_window is not None:
            params["align_window"] = self.align_window
        return [Component("pe", "lmul_dot", params, events={event: {} for event in ("mac", "step", "idle")})]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``operate`` as of parts; ``mac``, ``step``, ``idle`` as of `dot`."""
        of = energy["gaussian"]
        if event == "operate":
            return (
                of.combinational_timed_fj + of.register_fj,
                f"gates with glitches ({of.combinational_glitch_free_fj:.4g} fJ without) and input pins "
                f"({of.register_fj:.4g} fJ); Gaussian operands"
                + on_other_operands(energy, lambda other: other.combinational_timed_fj + other.register_fj),
            )
        if event == "mac":
            without = of.combinational_glitch_free_fj / self.lanes
            note = f"gates with glitches, of a lane ({without:.4g} fJ without); Gaussian operands"
            note += on_other_operands(energy, lambda other: other.combinational_timed_fj / self.lanes)
            return of.combinational_timed_fj / self.lanes, note
        if event == "step":
            note = f"registers ({of.register_fj:.4g} fJ) and clock pins; Gaussian operands"
            note += on_other_operands(energy, lambda other: other.register_fj + other.clock_fj)
            return of.register_fj + of.clock_fj, note
        return energy["zero"].clock_fj, "clock pins while no operand changes"

    def specification(self) -> dict[str, object]:
        """As every unit's."""
        window = f"{self.align_window} bits below the largest exponent"
        return {
            "name": self.name,
            "family": "L-Mul",
            "weights": self.format,
            "activations": self.format,
            "lanes": self.lanes,
            "accumulator": self.accumulator,
            "alignment": window if self.align_window is not None else None,
            "align_window": self.align_window,
            "scales": None,
            "pipeline_cuts": list(self.taken_cuts),
            "latency_cycles": self.latency,
            "offset_exponent": offset_exponent(self.element.mantissa_bits),
            "registers_counted": "operands, flag of a new sum, cuts, accumulator"
            if self.accumulator
            else "none",
        }


def _exponent(value: Fraction) -> int:
    """floor(log2(abs(value))) of a dyadic fraction."""
    return abs(value.numerator).bit_length() - value.denominator.bit_length()


def _as_held(element: Element) -> Accumulator:
    """The element's codes as an accumulator's."""
    return accumulator(f"e{element.exponent_bits}m{element.mantissa_bits}")


FORM = "lmul-<format> or lmul[<lanes>]-<format>[-al<window>]-<accumulator>[-cut<n>]"


def unit_of_name(name: str) -> LMulUnit:
    """The unit of a name: ``lmul-bf16``, ``lmul32-fp8_e4m3-al22-fp32-cut3``. Raises InputError."""
    found = re.fullmatch(
        r"lmul([1-9][0-9]{0,3})?-([a-z0-9_]+)(?:-al([1-9][0-9]?))?(?:-(fp\w+|bf16|e\w+))?(?:-cut([1-9][0-9]?))?",
        name,
    )
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    lanes, format_, window, accumulate, cuts = found.groups()
    try:
        unit = LMulUnit(
            format_, accumulate, int(lanes or 1), int(window) if window else None, int(cuts) if cuts else 0
        )
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
lmul-fp8_e4m3 lmul-fp8_e5m2 lmul-fp16 lmul-bf16 lmul-fp32
lmul-fp8_e4m3-fp32 lmul-fp8_e4m3-fp32-cut1 lmul-fp16-fp32 lmul-bf16-fp32
lmul32-fp8_e4m3-al22-fp32-cut3 dot32-fp8_e4m3-al22-fp32-cut3
"""
"""With a dot product of multiplication to compare with."""
