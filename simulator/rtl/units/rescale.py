"""The array's rescale unit: `simulator.array.rescale` as hardware.

A result of a scale group comes with its scales, is freed of zero points, multiplied by the product of both scales, and
added to the FP32 sum that the output buffer holds, with one rounding::

    out = addend + (partial - zeros) * weight_scale * activation_scale
    zeros = weight_zero * activation_sum + activation_zero * weight_sum

Partial sums are two's complement or FP32 codes (those have no zero points here). Where both operands have zero points,
``weight_sum`` is that of the codes less their zero point, which is known before the layer. The product of a zero point
and a sum is one that the accumulator can hold, so that a sum has the bits that the zero point leaves of it.

Scales are positive floats with FP32's exponent and ``scale_bits`` of significand, the hidden one included: 11 hold all
of FP16, BF16, E8M0 and 8-bit scales. Bringing stored scales into this form, once a group, is not part of the unit.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.arch.components import rescale_component
from simulator.array.rescale import accumulate_scaled
from simulator.errors import InputError
from simulator.formats.element import EXPONENT_BIAS, encode
from simulator.formats.element import FP32 as FP32_ELEMENT
from simulator.hardware.structure import Component
from simulator.pe.accumulator import Accumulator, accumulator
from simulator.pe.arithmetic import FP32
from simulator.pe.protocol import SCALE_EXPONENT
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Codes, Energy, Stream, Unit, port_bits
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.naming import refused

CUT_ORDER = (
    "product",
    "compare",
    "add",
    "operand",
    "split",
    "normalise",
    "correct",
    "zeros",
    "round",
    "align",
)
"""In which order ranks of registers are spent."""
_BEFORE_ADDEND = ("zeros", "correct", "operand", "split", "product", "normalise")
_SIGMA = 64.0
"""Of Gaussian INT8 operands: a quarter of their range, as at dot products."""
_PARTIAL_PRODUCTS = 128
"""Of INT8 operands, in a typical group."""
STIMULI = ("held", "scaled", "zeros", "nothing")


@dataclass(frozen=True)
class RescaleUnit(Unit):
    """One unit, which takes a result a cycle."""

    partial: str
    """What PEs accumulate in: two's complement, or fp32."""
    weight_zero_bits: int = 0
    """Width of the weights' zero points, signed; 0: there are none."""
    activation_zero_bits: int = 0
    scale_bits: int = 11
    cuts: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.cuts <= len(CUT_ORDER):
            raise InputError("ranks of a rescale unit", value=self.cuts, allowed=f"0 to {len(CUT_ORDER)}")
        if not 1 <= self.scale_bits <= 24:
            raise InputError("bits of a scale's significand", value=self.scale_bits, allowed="1 to 24")
        if self.held.float_format not in (None, FP32):
            raise InputError(
                "sums that no rescale unit takes", value=self.partial, allowed="int<n>, fixed<n>, fp32"
            )
        if max(self.weight_zero_bits, self.activation_zero_bits) > (
            0 if self.is_float else self.held.bits - 2
        ):
            raise InputError("no hardware description of these zero points", value=self.name)

    @property
    def held(self) -> Accumulator:
        return accumulator(self.partial)

    @property
    def is_float(self) -> bool:
        return self.held.float_format is not None

    @property
    def taken(self) -> tuple[str, ...]:
        """The places that are cut."""
        return CUT_ORDER[: self.cuts]

    @property
    def addend_delay(self) -> int:
        """Cycles after the partial sum in which the sum that it is added to is at its port."""
        return sum(place in self.taken for place in _BEFORE_ADDEND)

    @property
    def name(self) -> str:
        fields = ["rescale", self.partial]
        if self.weight_zero_bits or self.activation_zero_bits:
            fields.append(f"z{self.weight_zero_bits}x{self.activation_zero_bits}")
        return "-".join([*fields, f"s{self.scale_bits}", *([f"cut{self.cuts}"] if self.cuts else [])])

    @property
    def latency(self) -> int:
        return 2 + self.cuts

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.rescale_hardware import RescaleModule

        return RescaleModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        return (
            STIMULI if self.weight_zero_bits or self.activation_zero_bits else ("held", "scaled", "nothing")
        )

    @property
    def proofs(self) -> Sequence[str]:
        return (*self.stimuli, "corners")

    def operands(self, stimulus: str, cycles: int, seed: int = 0) -> dict[str, Codes]:
        """Codes at the ports, of one cycle's result, whatever cycle they come in.

        ``held``: partial sums of 128 products of Gaussian INT8 operands, or as many of FP8; sums to add to of FP16-like
        size; a scale a 64 cycles for the weights, one for the activations. ``scaled``: a new activation scale every
        cycle. ``zeros``: as held, with new sums, and new zero points of the weights every 64 cycles. ``corners``:
        extreme partial sums, scales, zero points. ``nothing``: all operands stay.
        """
        rng = np.random.default_rng([seed, STIMULI.index(stimulus) if stimulus in STIMULI else 9])
        bits, s = self.held.bits, self.scale_bits
        largest = 2.0 ** min(bits - 1, 31)
        sigma = min(_SIGMA**2 * _PARTIAL_PRODUCTS**0.5, largest / 8)
        values = np.rint(rng.normal(0.0, sigma, cycles))
        old = rng.normal(0.0, sigma * 4, cycles)
        runs = np.arange(cycles) // 64
        w_scale = _scale_codes(rng, cycles, s)[runs]
        a_scale = np.full(cycles, (EXPONENT_BIAS) << (s - 1))
        if stimulus == "scaled":
            a_scale = _scale_codes(rng, cycles, s)
        zeros = {"weight_zero": np.zeros(cycles, np.int64), "activation_sum": np.zeros(cycles, np.int64)}
        zeros |= {"activation_zero": zeros["weight_zero"], "weight_sum": zeros["activation_sum"]}
        if stimulus in ("zeros", "corners"):
            for zero, total, width in (
                ("weight_zero", "activation_sum", self.weight_zero_bits),
                ("activation_zero", "weight_sum", self.activation_zero_bits),
            ):
                if not width or (stimulus == "zeros" and zero != self._corrected):
                    continue
                top = 1 << (width - 1)
                spread = min(_SIGMA * _PARTIAL_PRODUCTS**0.5, 2.0 ** (bits - width - 2))
                zeros[zero] = rng.integers(-top, top, cycles)[runs if stimulus == "zeros" else ...]
                zeros[total] = np.rint(rng.normal(0.0, spread, cycles)).astype(np.int64)
        if stimulus == "corners":
            low = -(1 << (bits - 2)) if not self.is_float else -(2.0**30)
            values = rng.choice([0, 1, -1, 3, low, -low - 1, low // 3], cycles)
            w_scale, a_scale = (_corner_scales(rng, cycles, s) for _ in range(2))
            old = old * np.ldexp(1.0, rng.integers(-160, 40, cycles)) * rng.integers(0, 2, cycles)
        if stimulus == "nothing":
            values[:], old[:] = values[0], old[0]
            w_scale = np.full(cycles, w_scale[0])
        partial = encode(FP32_ELEMENT, values) if self.is_float else values.astype(object)
        codes = {"partial": partial, "addend": encode(FP32_ELEMENT, old)}
        if self.weight_zero_bits:
            codes |= {name: zeros[name] for name in ("weight_zero", "activation_sum")}
        if self.activation_zero_bits:
            codes |= {name: zeros[name] for name in ("activation_zero", "weight_sum")}
        codes |= {"weight_scale": w_scale, "activation_scale": a_scale}
        return {name: np.asarray(code).astype(np.int64) for name, code in codes.items()}

    @property
    def _corrected(self) -> str:
        """The operand whose zero points are measured."""
        return "weight_zero" if self.weight_zero_bits else "activation_zero"

    @property
    def widths(self) -> dict[str, int]:
        """Of the ports."""
        bits, scale = self.held.bits, self.scale_bits + 7
        found = {"partial": bits, "addend": 32, "weight_scale": scale, "activation_scale": scale}
        for zero, total, width in (
            ("weight_zero", "activation_sum", self.weight_zero_bits),
            ("activation_zero", "weight_sum", self.activation_zero_bits),
        ):
            found |= {zero: width, total: bits - width} if width else {}
        return found

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        codes = self.operands(stimulus, cycles, seed)
        return self.stream_of(codes)

    def stream_of(self, codes: Mapping[str, Codes]) -> Stream:
        """The stream of these operands."""
        delay = self.addend_delay
        ports = {name: port_bits(code, self.widths[name]) for name, code in codes.items()}
        if delay:
            ports["addend"] = np.concatenate([ports["addend"][:delay] * 0, ports["addend"][:-delay]])
        return Stream(ports, lambda: self.expected(codes)[: -self.latency])

    def expected(self, codes: Mapping[str, Codes]) -> list[Hashable]:
        """FP32 sums as integers times 2**-149, by the engine's own arithmetic. Raises InputError: one overflows."""
        values, exponent = np.array([int(code) for code in codes["partial"]], object), 0
        if self.is_float:
            values, exponent = fp32_integers(codes["partial"]), FP32.low
        for zero, total in (("weight_zero", "activation_sum"), ("activation_zero", "weight_sum")):
            if zero in codes:
                values = values - codes[zero].astype(object) * codes[total].astype(object)
        scales = [_scales(codes[name], self.scale_bits) for name in ("weight_scale", "activation_scale")]
        return list(accumulate_scaled(fp32_integers(codes["addend"]), values, exponent, *scales))

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        return list(fp32_integers(outputs["out"]))

    def components(self) -> list[Component]:
        return [
            rescale_component(
                1, self.partial, self.weight_zero_bits, self.activation_zero_bits, self.scale_bits, self.cuts
            )
        ]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """See `operands` for the stimuli."""
        whole = energy["held"].total_fj
        if event == "rescale":
            cycle = energy["held"]
            return (
                whole,
                f"a cycle with a new partial sum and sum to add to, scales held 64 cycles: {cycle.split}",
            )
        if event == "scale_product":
            return energy["scaled"].total_fj - whole, "what a new activation scale each cycle adds"
        if event == "correct":
            side = self._corrected.partition("_")[0]
            return energy["zeros"].total_fj - whole, f"what zero points and sums of the {side}s' side add"
        raise InputError(f"no energy is measured for event {event!r} of {self.name}")

    def specification(self) -> dict[str, object]:
        return {
            "name": self.name,
            "family": "rescale unit",
            "weights": None,
            "activations": None,
            "lanes": 1,
            "partial_sums": self.partial,
            "accumulator": "fp32",
            "alignment": "scaled partial sum and accumulator, to the larger exponent",
            "scales": f"two, 8 exponent bits, {self.scale_bits} significand bits, no sign",
            "zero_point_bits": [self.weight_zero_bits, self.activation_zero_bits],
            "pipeline_cuts": list(self.taken),
            "latency_cycles": self.latency,
            "registers_counted": "all operands, cuts, result",
        }


def fp32_integers(codes: Iterable[int]) -> Any:
    """FP32 codes as integers times 2**-149."""
    return np.array(sums_of_codes(accumulator("fp32"), [int(code) for code in codes]), object)


def _scales(codes: Codes, bits: int) -> Any:
    """Codes of scales as integers times 2**SCALE_EXPONENT."""
    found = []
    for code in codes.tolist():
        field, mantissa = code >> (bits - 1), code & ((1 << (bits - 1)) - 1)
        significand = mantissa + ((1 << (bits - 1)) if field else 0)
        shift = max(field, 1) - EXPONENT_BIAS - (bits - 1) - SCALE_EXPONENT
        found.append(significand << shift)
    return np.array(found, object)


def _scale_codes(rng: np.random.Generator, count: int, bits: int) -> Codes:
    """Scales of groups: from 2**-9 to 2**-6, any mantissa."""
    fields, mantissas = rng.integers(-9, -6, count) + EXPONENT_BIAS, rng.integers(0, 1 << (bits - 1), count)
    codes: Codes = fields << (bits - 1) | mantissas
    return codes


def _corner_scales(rng: np.random.Generator, count: int, bits: int) -> Codes:
    """Zero, subnormal and far apart ones, the product with a sum of 2**31 below the largest FP32."""
    fields = rng.choice([0, 1, 20, 60, 100, EXPONENT_BIAS, EXPONENT_BIAS + 30], count)
    mantissas = rng.choice([0, 1, (1 << (bits - 1)) - 1], count)
    corners: Codes = (fields << (bits - 1)) | mantissas
    return corners


FORM = "rescale-<partial sums>[-z<weights'>x<activations'>]-s<scale>[-cut<n>]"


def unit_of_name(name: str) -> RescaleUnit:
    """The unit of a name: ``rescale-int32-z8x8-s11-cut3``. Raises InputError."""
    found = re.fullmatch(
        r"rescale-([a-z0-9]+)(?:-z(\d{1,2})x(\d{1,2}))?-s(\d{1,2})(?:-cut(\d{1,2}))?", name, flags=re.ASCII
    )
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    try:
        unit = RescaleUnit(found[1], *(int(number or 0) for number in found.groups()[1:]))
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
rescale-int32-z8x8-s11-cut10 rescale-int32-z8x9-s11-cut10 rescale-int32-z9x8-s11-cut10 rescale-int32-z9x9-s11-cut10
rescale-int32-z4x4-s11-cut10 rescale-int32-z4x8-s11-cut10 rescale-int32-z6x8-s11-cut10
rescale-int32-z5x0-s11-cut10 rescale-int32-z8x0-s11-cut10
rescale-int48-z16x16-s11-cut10 rescale-int48-z16x17-s11-cut10 rescale-fp32-s11-cut10
"""
