"""Parts: the circuits of `simulator.hardware.kinds`, one operation of one width each.

They price what is not synthesised whole, as the sum of its parts in the same library. Between bare ports, without
registers: area and leakage are those of the gates, and "operate" is what an operation spends in them and at their input
pins, glitches included, all operands arriving at once; what the outputs drive is the next part's. The one with a
register is the register itself.

=============== ====================================================================== ===================
kind            circuit                                                                name
=============== ====================================================================== ===================
int_multiplier  two's complement in full; by one bit: AND gates                         part-int_multiplier-8x4
int_adder       two numbers of so many bits, the carry kept                            part-int_adder-32
fp_multiplier   one rounding to nearest even, subnormals exact (`float_parts`)         part-fp_multiplier-e4m3
fp_adder        the same                                                               part-fp_adder-e8m23
register        one bit                                                                part-register-1
comparator      a > b, unsigned                                                        part-comparator-8
shifter         right by 0 to bits - 1 and more, a rank of multiplexers a bit of the   part-shifter-32
                amount
multiplexer     one of so many words                                                   part-multiplexer-8x11
=============== ====================================================================== ===================

``gaussian`` operands: integers with a standard deviation of a quarter of their range, one bit and the choices of
shifters and multiplexers uniform; floats as `dot_operands` has them, redrawn where the result overflows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.errors import InputError, nearest
from simulator.formats.element import Element, Floats, decode, minifloat
from simulator.hardware.kinds import KINDS
from simulator.hardware.structure import Component
from simulator.pe.arithmetic import BinaryFloat, round_to_float
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Bits, Codes, Energy, Stream, Unit, on_other_operands, port_bits, port_words
from simulator.rtl.units.dot_operands import element_codes

STIMULI = ("gaussian", "uniform", "zero")
_GAUSSIAN_BITS = 32
"""Below so many bits from the top those of a Gaussian integer are as good as random."""


@dataclass(frozen=True)
class PartUnit(Unit):
    """A circuit between bare ports."""

    kind: str
    sizes: tuple[int, ...]
    """In the order of the kind's parameters."""

    @property
    def params(self) -> dict[str, int]:
        return dict(zip(KINDS[self.kind].params, self.sizes, strict=True))

    @property
    def name(self) -> str:
        if self.is_float:
            exponent_bits, significand_bits = self.sizes
            return f"part-{self.kind}-e{exponent_bits}m{significand_bits - 1}"
        return f"part-{self.kind}-" + "x".join(map(str, self.sizes))

    @property
    def is_part(self) -> bool:
        return True

    @property
    def is_float(self) -> bool:
        return self.kind.startswith("fp_")

    @property
    def latency(self) -> int:
        return 0

    @property
    def stimuli(self) -> Sequence[str]:
        return STIMULI

    @property
    def proofs(self) -> Sequence[str]:
        return ("gaussian", "uniform", "corners")

    @property
    def port_widths(self) -> dict[str, int]:
        """Of the operands."""
        if self.is_float:
            return {"a": sum(self.sizes), "b": sum(self.sizes)}
        if self.kind == "int_multiplier":
            return {"a": self.sizes[0], "b": self.sizes[1]}
        if self.kind == "shifter":
            return {"a": self.sizes[0], "amount": (self.sizes[0] - 1).bit_length()}
        if self.kind == "multiplexer":
            words = {f"a{i}": self.sizes[1] for i in range(self.sizes[0])}
            return {**words, "select": (self.sizes[0] - 1).bit_length()}
        return {"a": self.sizes[0], "b": self.sizes[0]}

    @property
    def out_width(self) -> int:
        if self.kind == "int_multiplier":
            return sum(self.sizes)
        if self.kind == "int_adder":
            return self.sizes[0] + 1
        if self.kind == "comparator":
            return 1
        return self.port_widths["a0" if self.kind == "multiplexer" else "a"]

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        """Built for area whatever the clock: a part has no period."""
        from simulator.rtl.units.part_hardware import PartModule

        return PartModule(self, adder)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        rng = np.random.default_rng([seed, stimulus == "uniform"])
        if self.is_float:
            ports = self._floats(stimulus, rng, cycles)
        else:
            ports = {
                name: self._words(name, width, stimulus, rng, cycles)
                for name, width in self.port_widths.items()
            }
        return Stream(ports, lambda: self._expected(ports))

    def _words(self, port: str, width: int, stimulus: str, rng: np.random.Generator, cycles: int) -> Bits:
        if port == "select":
            choices = 1 if stimulus == "zero" else self.sizes[0]
            return port_bits(rng.integers(0, choices, cycles), width)
        if stimulus == "gaussian" and width > 1 and port != "amount":
            return _gaussian(width, rng, cycles)
        if stimulus == "corners":
            top = 1 << (width - 1)
            corners = np.array([0, 1, top - 1, top, top | 1, 2 * top - 1], object) % (2 * top)
            words = corners[rng.integers(0, len(corners), cycles)]
            return np.array([[int(word) >> bit & 1 for bit in range(width)] for word in words], np.uint8)
        return rng.integers(0, 1 if stimulus == "zero" else 2, (cycles, width), np.uint8)

    def _floats(self, stimulus: str, rng: np.random.Generator, cycles: int) -> Mapping[str, Bits]:
        operands = [_float_codes(self.element, stimulus, rng, cycles) for _ in "ab"]
        while True:
            a, b = (_decode(self.element, codes) for codes in operands)
            largest = (2 - 2.0**-self.element.mantissa_bits) * 2.0 ** (self.float_format.high - 1)
            over = np.abs(a * b if self.kind == "fp_multiplier" else a + b) > largest
            if not over.any():
                break
            for codes in operands:
                codes[over] = _float_codes(self.element, stimulus, rng, int(over.sum()))
        return {port: port_bits(codes, self.element.bits) for port, codes in zip("ab", operands, strict=True)}

    @property
    def element(self) -> Element:
        """Of floats: all codes finite."""
        exponent_bits, significand_bits = self.sizes
        return minifloat(exponent_bits, significand_bits - 1)

    @property
    def float_format(self) -> BinaryFloat:
        element = self.element
        high = element.emin + (1 << element.exponent_bits) - 1
        return BinaryFloat(element.name, element.bits, self.sizes[1], element.quantum_exponent, high)

    def _expected(self, ports: Mapping[str, Bits]) -> list[Hashable]:
        """By Python's integers, and of floats the rounding of the PEs' functions."""
        words = [port_words(bits) for bits in ports.values()]
        return [self._result(*operands) for operands in zip(*words, strict=True)]

    def _result(self, *operands: int) -> int:
        if self.is_float:
            to = self.float_format
            a, b = (_integer(to, code) for code in operands)
            total, exponent = (a * b, 2 * to.low) if self.kind == "fp_multiplier" else (a + b, to.low)
            return int(round_to_float(np.array([total], object), exponent, to)[0])
        return _RESULTS[self.kind](self.sizes, *operands)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Numbers; floats as multiples of the smallest one, so that both zeros are one."""
        if self.is_float:
            return [_integer(self.float_format, code) for code in outputs["out"]]
        return list(outputs["out"])

    def components(self) -> list[Component]:
        """The part on its own."""
        return [
            Component("part", self.kind, self.params, events={event: {} for event in KINDS[self.kind].events})
        ]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``operate``: gates and input pins."""
        of = energy["gaussian"]
        return (
            of.combinational_timed_fj + of.register_fj,
            f"gates with glitches ({of.combinational_glitch_free_fj:.4g} fJ without) and input pins "
            f"({of.register_fj:.4g} fJ); Gaussian operands"
            + on_other_operands(energy, lambda other: other.combinational_timed_fj + other.register_fj),
        )

    def specification(self) -> dict[str, object]:
        """As every unit's; ``params`` are those of the kind."""
        words = {name: f"{width} bits" for name, width in self.port_widths.items()}
        return {
            "name": self.name,
            "family": f"part: {self.kind}",
            "weights": words.get("b"),
            "activations": words.get("a"),
            "lanes": 1,
            "accumulator": None,
            "alignment": "to the larger magnitude" if self.kind == "fp_adder" else None,
            "scales": None,
            "pipeline_cuts": [],
            "latency_cycles": self.latency,
            "registers_counted": "the bit" if self.kind == "register" else "none",
            "params": self.params,
            "rounding": "nearest even, subnormals exact" if self.is_float else None,
        }


@dataclass(frozen=True)
class RegisterUnit(PartUnit):
    """One bit of a register."""

    @property
    def latency(self) -> int:
        return 1

    @property
    def port_widths(self) -> dict[str, int]:
        return {"a": self.sizes[0]}

    @property
    def stimuli(self) -> Sequence[str]:
        return ("uniform", "zero", "one")

    @property
    def proofs(self) -> Sequence[str]:
        return ("uniform",)

    def _words(self, port: str, width: int, stimulus: str, rng: np.random.Generator, cycles: int) -> Bits:
        if stimulus == "one":
            return np.ones((cycles, width), np.uint8)
        return super()._words(port, width, stimulus, rng, cycles)

    def _expected(self, ports: Mapping[str, Bits]) -> list[Hashable]:
        return list(port_words(ports["a"])[: -self.latency])

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``write``: a cycle that stores a random bit, its clock edges included; ``clock``: one that stores what it
        holds."""
        if event == "write":
            written = energy["uniform"]
            return written.register_fj + written.clock_fj, "data, outputs and clock pin; random bits"
        held = (energy["zero"].clock_fj + energy["one"].clock_fj) / 2
        return held, "clock pin alone; mean over a held 0 and a held 1"


def _multiplied(sizes: Sequence[int], a: int, b: int) -> int:
    """Of two's complement words, unsigned ones where one of them has a single bit."""
    if min(sizes) > 1:
        a, b = (x - (x >> (bits - 1) << bits) for x, bits in zip((a, b), sizes, strict=True))
    return a * b & ((1 << sum(sizes)) - 1)


_RESULTS: dict[str, Callable[..., int]] = {
    "int_multiplier": _multiplied,
    "int_adder": lambda sizes, a, b: a + b,
    "comparator": lambda sizes, a, b: int(a > b),
    "shifter": lambda sizes, word, amount: word >> amount,
    "multiplexer": lambda sizes, *words: words[words[-1]],
}
_FLOATING = ("fp_multiplier", "fp_adder")
PART_KINDS = (*_RESULTS, *_FLOATING, "register")


def _gaussian(width: int, rng: np.random.Generator, cycles: int) -> Bits:
    """Two's complement bits of normal integers, standard deviation a quarter of the range, saturated."""
    top = min(width, _GAUSSIAN_BITS)
    limit = 1 << (top - 1)
    values = np.clip(np.rint(rng.normal(0.0, limit / 2, cycles)), -limit, limit - 1).astype(np.int64)
    below = rng.integers(0, 2, (cycles, width - top), np.uint8)
    return np.concatenate([below, port_bits(values, top)], axis=1)


def _float_codes(element: Element, stimulus: str, rng: np.random.Generator, cycles: int) -> Codes:
    """Codes of the format; of wider ones than 16 bits those of FP32, shortened."""
    sign = element.bits - 1
    if stimulus == "corners":
        top = (1 << sign) - 1
        one = ((1 << (element.exponent_bits - 1)) - 1) << element.mantissa_bits
        normal = 1 << element.mantissa_bits
        corners = [0, 1, normal - 1, normal, normal + 1, one - 1, one, one + 1, top // 2, top - 1, top]
        chosen: Codes = rng.choice(corners, cycles) | rng.integers(0, 2, cycles) << sign
        return chosen
    if element.bits <= 16 or stimulus != "gaussian":
        return element_codes(element, stimulus, rng, (cycles,))
    codes = element_codes(minifloat(8, 23, "ieee", "fp32"), stimulus, rng, (cycles,))
    return codes >> (23 - element.mantissa_bits)


def _decode(element: Element, codes: Codes) -> Floats:
    if element.bits <= 16:
        return decode(element, codes)
    magnitude = codes & ((1 << (element.bits - 1)) - 1)
    field, fraction = magnitude >> element.mantissa_bits, magnitude & ((1 << element.mantissa_bits) - 1)
    significand = fraction + (np.minimum(field, 1) << element.mantissa_bits)
    values = np.ldexp(significand.astype(np.float64), np.maximum(field, 1) - 1 + element.quantum_exponent)
    signed: Floats = np.where(codes >> (element.bits - 1), -values, values)
    return signed


def _integer(to: BinaryFloat, code: int) -> int:
    """The value of a code in units of the smallest subnormal."""
    field = code >> (to.precision - 1) & ((1 << (to.bits - to.precision)) - 1)
    fraction = code & ((1 << (to.precision - 1)) - 1)
    magnitude = fraction + (min(field, 1) << (to.precision - 1)) << (max(field, 1) - 1)
    return -magnitude if code >> (to.bits - 1) else magnitude


FORM = "part-<kind>-<bits> or <bits>x<bits> or, of floats, e<exponent bits>m<mantissa bits>"
LARGEST = 1024


def unit_of_name(name: str) -> PartUnit:
    """The unit of a name: ``part-int_multiplier-8x4``. Raises InputError."""
    fields = name.split("-")
    if len(fields) != 3:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    _, kind, size = fields
    if kind not in PART_KINDS:
        raise InputError("no such part", key="--unit", value=name, allowed=nearest(kind, PART_KINDS))
    sizes: tuple[int, ...]
    if kind in _FLOATING:
        found = re.fullmatch("e([2-8])m([1-9]|1[0-9]|2[0-3])", size)
        sizes = (int(found[1]), int(found[2]) + 1) if found else ()
    else:
        found = re.fullmatch("[1-9][0-9]*(x[1-9][0-9]*)*", size)
        sizes = tuple(map(int, size.split("x"))) if found else ()
    if len(sizes) != len(KINDS[kind].params) or max(sizes) > LARGEST:
        words = " ".join(KINDS[kind].params)
        raise InputError(f"sizes of a part: {words}", key="--unit", value=name, allowed=FORM)
    if kind == "register" and sizes != (1,):
        raise InputError(
            "registers of many bits are many of one", key="--unit", value=name, allowed="part-register-1"
        )
    if (kind == "multiplexer" and sizes[0] < 2) or (kind == "shifter" and sizes[0] < 2):
        raise InputError(f"a {kind} of one is a wire", key="--unit", value=name, allowed="2 and more")
    if kind == "int_multiplier" and sizes[0] < sizes[1]:
        sizes = sizes[::-1]
    return RegisterUnit(kind, sizes) if kind == "register" else PartUnit(kind, sizes)


def _default() -> str:
    """Of every kind so many widths that those between them lie on lines (see docs/rtl.md)."""
    factors = (1, 2, 3, 4, 6, 8, 11, 16, 24, 32)
    sizes = {
        "register": ["1"],
        "int_adder": [*range(1, 9), 10, 12, 16, 20, 24, 32, 48, 64, 96],
        "comparator": [*range(1, 9), 12, 16, 24, 32, 64],
        "shifter": [2, 3, 4, 6, 8, 11, 14, 16, 20, 24, 32, 44, 64, 96],
        "multiplexer": [
            *(f"{n}x{bits}" for n in (2, 3, 4, 5, 8, 16) for bits in (1, 8, 64)),
            *(f"{n}x{bits}" for n in (32, 64) for bits in (1, 8, 32)),
            "2x256",
        ],
        "int_multiplier": [f"{a}x{b}" for a in factors for b in factors if a >= b],
    }
    floats = ["e2m1", "e2m3", "e3m2", "e4m3", "e5m2", "e5m3", "e5m10", "e8m7", "e8m10", "e8m13", "e8m23"]
    sizes |= dict.fromkeys(_FLOATING, floats)
    return " ".join(f"part-{kind}-{size}" for kind, found in sizes.items() for size in found)


DEFAULT = _default()
