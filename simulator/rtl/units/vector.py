"""What stands between the array and the outputs: a lane of the vector unit, and the output adder.

A lane of the vector unit is a multiplier and an adder fused, of FP32, with one rounding, which takes integers as well::

    out = a * b + c              floats: FP32 codes
    out = a * b + c              ``sum``: a is a sum of the PEs, two's complement; b, c, out FP32
    out = a * b + c              ``integer``: a, c, out sums of the PEs; b a sign and 23 bits

The last serves zero points: c a sum, a the sum of the other operand's codes, b a zero point turned. An output stage's
two visits are the product of both scales, exact where their significands have 24 bits together (FP16 x FP16), and the
sum times it: one rounding, as `simulator.array.rescale.finish` has it. Longer scales are rounded twice.

The output adder adds a result that leaves the array to the sum in the output buffer.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.arch.components import output_adder, vector_component
from simulator.errors import InputError
from simulator.formats.element import FP32 as FP32_ELEMENT
from simulator.formats.element import encode, minifloat
from simulator.hardware.structure import Component
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.arithmetic import FP32, round_to_float, wrap
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Codes, Energy, Stream, Unit, on_other_operands, port_bits
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.naming import refused
from simulator.rtl.units.rescale import fp32_integers

MODES = ("operate", "scales", "sums", "correct")
"""What a lane does: a multiplication and addition; the product of two scales; a sum times it; a zero point's share."""
INTEGER_BITS = 24
"""Of the factor of an integer product: a sign and a magnitude in the bits of a significand."""


@dataclass(frozen=True)
class VectorUnit(Unit):
    """One lane."""

    sums: str
    """Two's complement that it takes: int32."""
    cuts: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.cuts <= len(self.cut_places):
            raise InputError("ranks of a lane", value=self.cuts, allowed=f"0 to {len(self.cut_places)}")
        if not 24 <= self.bits <= 64 or self.held.float_format is not None:
            raise InputError("sums of a lane", value=self.sums, allowed="int24 to int64")

    @property
    def held(self) -> Accumulator:
        return accumulator(self.sums)

    @property
    def bits(self) -> int:
        return self.held.bits

    @property
    def cut_places(self) -> tuple[str, ...]:
        """In the order in which ``cuts`` takes them."""
        return ("product", "compare", "add", "split", "normalise", "round", "operand", "align")

    @property
    def taken(self) -> tuple[str, ...]:
        return self.cut_places[: self.cuts]

    @property
    def name(self) -> str:
        return "-".join(["vector", "fp32", self.sums, *([f"cut{self.cuts}"] if self.cuts else [])])

    @property
    def latency(self) -> int:
        return 2 + self.cuts

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.vector_hardware import VectorModule

        return VectorModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        return MODES

    @property
    def proofs(self) -> Sequence[str]:
        return (*MODES, "mixed")

    @property
    def widths(self) -> dict[str, int]:
        return {"a": self.bits, "b": FP32.bits, "c": self.bits, "sum": 1, "integer": 1}

    def operands(self, stimulus: str, cycles: int, seed: int = 0) -> dict[str, Codes]:
        """``operate``: normal values. ``scales``: two FP16 numbers. ``sums``: sums of 1024 products of INT8 operands
        (a standard deviation of a quarter of their range) times the product of two FP16 numbers. ``correct``: such sums
        and sums of 1024 codes, times zero points of 8 bits. ``mixed``: all of them in turn, of every size."""
        rng = np.random.default_rng([seed, *stimulus.encode()])
        spread: Any = np.zeros(cycles)
        kinds = np.full(cycles, MODES.index(stimulus) if stimulus in MODES else 0)
        if stimulus == "mixed":
            kinds, spread = rng.integers(0, len(MODES), cycles), rng.integers(-60, 40, cycles)
        floats: list[Any] = [
            rng.normal(0.0, 1.0, cycles) * np.ldexp(1.0, (spread / 2).astype(int)) for _ in range(3)
        ]
        halves = [np.abs(rng.normal(0.0, 2.0**-7, cycles)).astype(np.float16).astype(float) for _ in range(3)]
        partial = np.rint(rng.normal(0.0, 64 * 64 * 32.0, cycles)).astype(np.int64)
        total = np.rint(rng.normal(0.0, 64 * 32.0, cycles)).astype(np.int64)
        if stimulus == "mixed":
            low = -(1 << (self.bits - 1))
            partial = np.where(
                rng.random(cycles) < 0.3, rng.choice([0, 1, -1, low, low + 1], cycles), partial
            )
        zero = rng.integers(-128, 128, cycles)
        is_sum, is_integer = kinds == MODES.index("sums"), kinds == MODES.index("correct")
        is_scale = kinds == MODES.index("scales")
        a = encode(FP32_ELEMENT, np.where(is_scale, halves[0], floats[0])).astype(np.int64)
        b_values = np.where(is_scale, halves[1], np.where(is_sum, halves[1] * halves[2], floats[1]))
        b = encode(FP32_ELEMENT, b_values).astype(np.int64)
        signed_zero = np.where(zero < 0, 1 << 31 | -zero, zero)
        nothing = is_scale | (is_sum if stimulus != "mixed" else False)
        c = encode(FP32_ELEMENT, np.where(nothing, 0.0, floats[2])).astype(np.int64)
        return {
            "a": np.where(is_sum, partial, np.where(is_integer, total, a)),
            "b": np.where(is_integer, signed_zero, b),
            "c": np.where(is_integer, partial, c),
            "sum": is_sum.astype(np.int64),
            "integer": is_integer.astype(np.int64),
        }

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        codes = self.operands(stimulus, cycles, seed)
        ports = {name: port_bits(code, self.widths[name]) for name, code in codes.items()}
        return Stream(ports, lambda: self.expected(codes)[: -self.latency])

    def expected(self, codes: Mapping[str, Codes]) -> list[Hashable]:
        """(is an integer, its value, or that of a float in units of 2**-149), exact and rounded once."""
        rows = zip(*(codes[name].tolist() for name in ("a", "b", "c", "sum", "integer")), strict=True)
        return [self._result(*row) for row in rows]

    def _result(self, a: int, b: int, c: int, is_sum: int, is_integer: int) -> tuple[bool, int]:
        if is_integer:
            factor = (b & (1 << (INTEGER_BITS - 1)) - 1) * (-1 if b >> 31 & 1 else 1)
            return True, int(wrap(np.array([c + a * factor], object), self.bits)[0])
        left, exponent = (a, 0) if is_sum else (_float(a), FP32.low)
        exponent += FP32.low
        low = min(exponent, FP32.low)
        total = (left * _float(b) << (exponent - low)) + (_float(c) << (FP32.low - low))
        return False, int(round_to_float(np.array([total], object), low, FP32)[0])

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        found: list[Hashable] = []
        for code, is_integer in zip(outputs["out"], outputs["out_integer"], strict=True):
            (value,) = sums_of_codes(self.held, [code]) if is_integer else [_float(code & 0xFFFFFFFF)]
            found.append((bool(is_integer), value))
        return found

    def components(self) -> list[Component]:
        return [vector_component(1, self.sums, self.cuts)]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        if event == "operate":
            cycle = energy["operate"]
            return cycle.total_fj, f"a cycle of a * b + c on normal FP32 values: {cycle.split}"
        if event == "scale":
            mean = (energy["scales"].total_fj + energy["sums"].total_fj) / 2
            return mean, "mean of a product of two FP16 scales and of a sum times such a product"
        if event == "correct":
            return energy[
                "correct"
            ].total_fj, "a sum plus a zero point of 8 bits times a sum of codes, in integers"
        raise InputError(f"no energy is measured for event {event!r} of {self.name}")

    def specification(self) -> dict[str, object]:
        return {
            "name": self.name,
            "family": "vector lane",
            "weights": None,
            "activations": None,
            "lanes": 1,
            "accumulator": "fp32",
            "integers": self.sums,
            "alignment": "product and addend, to the larger exponent",
            "scales": None,
            "pipeline_cuts": list(self.taken),
            "latency_cycles": self.latency,
            "registers_counted": "three operands, modes, cuts, result",
        }


def _float(code: int) -> int:
    return int(fp32_integers([code])[0])


@dataclass(frozen=True)
class OutputAdderUnit(Unit):
    """The adder of partial sums behind a column."""

    sums: str
    """What it adds: int32, fp32, ..."""
    cuts: int = 0

    def __post_init__(self) -> None:
        allowed = 0 if self.held.float_format is None else len(self.cut_places)
        if not 0 <= self.cuts <= allowed:
            raise InputError("ranks of an output adder", value=self.cuts, allowed=f"0 to {allowed}")

    @property
    def held(self) -> Accumulator:
        return accumulator(self.sums)

    @property
    def taken(self) -> tuple[str, ...]:
        return self.cut_places[: self.cuts]

    @property
    def cut_places(self) -> tuple[str, ...]:
        """Of floating-point sums, in the order in which ``cuts`` takes them."""
        return ("add", "compare", "round", "align")

    @property
    def name(self) -> str:
        return "-".join(["output_adder", self.sums, *([f"cut{self.cuts}"] if self.cuts else [])])

    @property
    def latency(self) -> int:
        return 2 + self.cuts

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.vector_hardware import OutputAdderModule

        return OutputAdderModule(self, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        return ("gaussian", "uniform", "zero")

    @property
    def proofs(self) -> Sequence[str]:
        return (*self.stimuli, "corners")

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        """``gaussian``: sums of 1024 products of INT8 operands, two of them; floats as large. ``uniform``: any codes,
        of floats between 2**-16 and 2**16."""
        rng = np.random.default_rng([seed, *stimulus.encode()])
        bits, to = self.held.bits, self.held.float_format
        sigma = min(64 * 64 * 32.0, 2.0 ** (bits - 4))
        values = rng.normal(0.0, sigma, (2, cycles))
        if stimulus == "uniform":
            values = rng.choice([-1, 1], values.shape) * np.exp2(rng.uniform(-16, 16, values.shape))
        if stimulus == "corners":
            values *= np.ldexp(1.0, rng.integers(-60, 2, values.shape))
            values[1, ::3] = -values[0, ::3]
        if stimulus == "zero":
            values[:] = 0
        if to is None:
            codes = np.rint(values).astype(np.int64)
            if stimulus == "uniform":
                codes = rng.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, values.shape)
        else:
            element = minifloat(self.held.exponent_bits, to.precision - 1, "ieee")
            codes = encode(element, values * (2.0 ** (to.low + 20) if stimulus == "corners" else 1)).astype(
                np.int64
            )
        ports = {name: port_bits(row, bits) for name, row in zip(("a", "b"), codes, strict=True)}

        def expected() -> list[Hashable]:
            a, b = (
                np.array(sums_of_codes(self.held, [code & (1 << bits) - 1 for code in row.tolist()]), object)
                for row in codes
            )
            total = wrap(a + b, bits) if to is None else round_to_float(a + b, to.low, to)
            return [int(value) for value in total[: -self.latency]]

        return Stream(ports, expected)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        return list(sums_of_codes(self.held, list(outputs["out"])))

    def components(self) -> list[Component]:
        return [output_adder(1, self.held.adder("accumulate"), self.cuts)]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        if event == "add":
            cycle = energy["gaussian"]
            others = on_other_operands(energy, lambda other: other.total_fj)
            how = f"a cycle with two new sums of 1024 products of INT8's size{others}: {cycle.split}"
            return cycle.total_fj, how
        raise InputError(f"no energy is measured for event {event!r} of {self.name}")

    def specification(self) -> dict[str, object]:
        return {
            "name": self.name,
            "family": "output adder",
            "weights": None,
            "activations": None,
            "lanes": 1,
            "accumulator": self.sums,
            "alignment": None if self.held.float_format is None else "to the larger exponent",
            "scales": None,
            "pipeline_cuts": list(self.taken),
            "latency_cycles": self.latency,
            "registers_counted": "both operands, cuts, result",
        }


FORMS = ("vector-fp32-<sums>[-cut<n>]", "output_adder-<sums>[-cut<n>]")


def unit_of_name(name: str) -> VectorUnit | OutputAdderUnit:
    """The unit of a name: ``vector-fp32-int32-cut4``, ``output_adder-int48``. Raises InputError."""
    found = re.fullmatch(r"(vector-fp32|output_adder)-([a-z0-9]+)(?:-cut(\d{1,2}))?", name, flags=re.ASCII)
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=", ".join(FORMS))
    family = VectorUnit if found[1] == "vector-fp32" else OutputAdderUnit
    try:
        unit = family(found[2], int(found[3] or 0))
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
vector-fp32-int32-cut8 vector-fp32-int48-cut8 output_adder-int32 output_adder-int48 output_adder-fp32-cut4
"""
