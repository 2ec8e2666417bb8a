"""Decoders at the array's edge: `simulator.pe.dequantize`, `two_level`, `shift_cast` and `figna` as hardware.

A `DecoderUnit` decodes one value a cycle. Streams are tensors that the format's own quantizer made; what must come out
is what the PE's ``decode`` makes of them. Scales, zero points and what else belongs to a group is loaded into registers
with the group's first value.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from simulator.config import validate
from simulator.errors import InputError, nearest
from simulator.formats import Format, QuantizedTensor, get_format, quantize
from simulator.formats.element import Element
from simulator.formats.passes import per_value
from simulator.hardware.structure import Component
from simulator.pe import pe_model
from simulator.pe.elements import element_format
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Codes, Energy, Stream, Unit, on_other_operands, port_bits
from simulator.rtl.units.dot_operands import element_codes
from simulator.rtl.units.model_operands import model_values
from simulator.rtl.units.naming import refused

GROUP = 64
"""Values of a group in streams."""
_SUFFIXES: tuple[str, ...] = (
    "",
    f"_g{GROUP}",
    f"_g{GROUP}_asym",
    "_channel_asym",
    f"_g{GROUP}_sm1",
    f"_g{GROUP}_si8",
)
_SUFFIXES += (f"_g{GROUP}_si8_asym", f"_g{GROUP}_su8", f"_g{GROUP}_su8_asym")
"""Formats of an element that drive decoders differently."""
_OPTIONS = {"dequantize": "s", "two_level": "s", "figna": "g", "shift_cast": ""}
"""family -> what the number behind the target says: bits of a scale's significand, guard bits."""
_ALIGNED_LANES = 64


@dataclass(frozen=True)
class DecoderUnit(Unit):
    """The decoder of one value."""

    family: str
    """The PE that it stands before."""
    before: str
    """Elements of the operand in memory, with + between."""
    target: str
    """What they become; of figna the empty text: its element follows from the guard bits."""
    option: int = 0
    """Bits of a scale's significand (dequantize; 0: groups' scales are left to the array), of an integer scale
    (two_level), guard bits (figna)."""
    cuts: int = 0

    @cached_property
    def pe(self) -> Any:
        """The PE of the simulator whose decoder this is."""
        names = tuple(self.before.split("+"))
        common: dict[str, Any] = {"family": self.family, "decode_ranks": self.cuts}
        if self.family == "figna":
            common |= {"weights": ("int8",), "activations": names, "accumulator": "int32"}
            common |= {"guard_bits": self.option, "align_group": _ALIGNED_LANES}
            return validate(pe_model("figna"), common)
        integers = self.family == "two_level"
        common |= {"weights": names, "target": self.target, "accumulator": "int32" if integers else "fp32"}
        common["activations"] = (self.target,)
        if integers:
            common["scale_bits"] = self.option
        if self.family == "dequantize":
            common["group_scales"] = "decoder" if self.option else "array"
            common |= {"scale_significand_bits": self.option} if self.option else {}
        return validate(pe_model(self.family), common)

    @property
    def elements(self) -> tuple[Element, ...]:
        """In the order in which the port ``mode`` counts them."""
        return tuple(element_format(name).element for name in self.before.split("+"))

    @property
    def after(self) -> Element:
        return element_format(self.pe.targets[0]).element

    @cached_property
    def cases(self) -> dict[str, Format]:
        """Event -> a format of the operand that causes it."""
        found: dict[str, Format] = {}
        for name in self.before.split("+"):
            for suffix in _SUFFIXES:
                try:
                    format = get_format(name + suffix)
                except InputError:
                    continue
                if format.element == element_format(name).element and self.pe.refusal(format) is None:
                    found.setdefault(self.pe.decode_event(format), format)
        return found

    @property
    def cut_places(self) -> tuple[str, ...]:
        """In the order in which ``cuts`` takes them."""
        return {"dequantize": ("product", "normalise", "operand")}.get(self.family, ())

    @property
    def name(self) -> str:
        letter = _OPTIONS[self.family]
        option = [f"{letter}{self.option}"] if letter and self.option else []
        cut = [f"cut{self.cuts}"] if self.cuts else []
        target = [self.target] if self.target else []
        return "-".join(["decode", self.family, self.before, *target, *option, *cut])

    @property
    def latency(self) -> int:
        return 2 + self.cuts

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.decoder_hardware import decoder_module

        return decoder_module(self, adder or FullAdder(), fast=fast)

    @property
    def stimuli(self) -> Sequence[str]:
        """A quantized Gaussian tensor and a network's for every event, a uniform one for the first."""
        of_events = (f"{kind} {event}" for event in self.cases for kind in ("gaussian", "model"))
        return (*of_events, f"uniform {next(iter(self.cases))}")

    @property
    def proofs(self) -> Sequence[str]:
        """For every event a tensor, and random codes with extreme scales."""
        return tuple(f"{kind} {event}" for event in self.cases for kind in ("gaussian", "corners"))

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        kind, _, event = stimulus.partition(" ")
        format = self.cases[event]
        rng = np.random.default_rng([seed, *stimulus.encode()])
        if self.family == "figna":
            return self._aligned(format, kind, rng, cycles)
        tensor = self.tensor(format, kind, rng, cycles)
        ports = {name: port_bits(codes, self.widths[name]) for name, codes in self.ports_of(tensor).items()}

        def expected() -> list[Hashable]:
            codes = self.pe.decode_tensor(tensor).codes[0].astype(np.int64)
            return [(int(code) & ((1 << self.after.bits) - 1),) for code in codes[: -self.latency]]

        return Stream(ports, expected)

    def tensor(self, format: Format, kind: str, rng: np.random.Generator, cycles: int) -> QuantizedTensor:
        """A row of so many values. ``gaussian``: N(0.3, 1), quantized: a mean that
        gives zero points something to subtract. ``model``: a network's weights
        (`model_operands`), quantized as one row. ``uniform``: the same scales, every code.
        ``corners``: every code, scales far apart."""
        values = rng.normal(0.3, 1.0, (1, cycles)).astype(np.float32)
        if kind == "model":
            values = model_values("weights", values.shape)
        if kind == "corners":
            values *= np.repeat(np.ldexp(1.0, rng.integers(-9, 10, cycles)), GROUP)[:cycles].astype(
                np.float32
            )
        tensor = self._within(quantize(values, format))
        if kind in ("gaussian", "model"):
            return tensor
        codes = element_codes(format.element, "uniform", rng, tensor.codes.shape)
        if format.element.kind == "int":
            # Symmetric formats leave the most negative code unused.
            codes = np.maximum(codes, -format.element.max_code)
        if format.element.kind == "table":
            codes = rng.integers(0, 1 << format.element.bits, tensor.codes.shape)
        return self._within(replace(tensor, codes=codes.astype(tensor.codes.dtype)))

    def _within(self, tensor: QuantizedTensor) -> QuantizedTensor:
        """With codes so near to their zero points, and integer scales so small, that the target holds every product, as
        a protective range keeps them."""
        format = tensor.format
        if self.family != "two_level" or not self.pe.multiplies(format):
            return tensor
        zeros = (
            0 if tensor.zero_points is None else per_value(tensor.zero_points, GROUP, tensor.codes.shape[-1])
        )
        top = (1 << (self.after.bits - 1)) - 1
        differences = np.clip(tensor.codes.astype(np.int64) - zeros, -top, top)
        groups = np.arange(0, differences.shape[-1], GROUP)
        largest = np.maximum(np.maximum.reduceat(np.abs(differences), groups, axis=-1), 1)
        assert tensor.scales is not None
        return replace(
            tensor,
            codes=(differences + zeros).astype(tensor.codes.dtype),
            scales=np.clip(tensor.scales, 1, top // largest),
        )

    @property
    def code_bits(self) -> int:
        return max(element.bits for element in self.elements)

    @property
    def zero_bits(self) -> int:
        """Of a zero point: as many as the widest integer has."""
        return max((element.bits for element in self.elements if element.is_integer), default=0)

    @property
    def selector_bits(self) -> int:
        return max(
            ((len(element.tables) - 1).bit_length() for element in self.elements if element.tables), default=0
        )

    @property
    def distance_bits(self) -> int:
        """Of the power of two that a group is below its row's (shift_cast)."""
        return self.after.exponent_bits + 1

    @property
    def widths(self) -> dict[str, int]:
        """Of the ports."""
        exponent = self.elements[0].exponent_bits
        widths = {
            "two_level": {"scale": self.option, "offset": self.after.bits},
            "shift_cast": {"distance": self.distance_bits, "scaled": 1},
            "dequantize": {
                "zero": self.zero_bits,
                "selector": self.selector_bits,
                "scale": self.option + 7 if self.option else 0,
            },
            "figna": {"largest": exponent, "left": exponent, "right": exponent},
        }[self.family]
        several = {"load": 1, "mode": (len(self.elements) - 1).bit_length()} if self.family != "figna" else {}
        return {name: bits for name, bits in {"value": self.code_bits, **several, **widths}.items() if bits}

    def ports_of(self, tensor: QuantizedTensor) -> dict[str, Codes]:
        """Codes at the ports, value by value."""
        format, cycles = tensor.format, tensor.codes.shape[-1]
        group = np.minimum(np.arange(cycles) // (format.group_size or cycles), 1 << 30)

        def spread(of_groups: Any, otherwise: float = 0) -> Any:
            if of_groups is None:
                return np.full(cycles, otherwise)
            return np.asarray(of_groups).reshape(-1)[group if np.size(of_groups) > 1 else group * 0]

        element = self.elements.index(format.element)
        own = (1 << format.element.bits) - 1
        codes = {
            "value": tensor.codes[0].astype(np.int64) & own,
            "load": (np.arange(cycles) % GROUP == 0).astype(np.int64),
            "mode": np.full(cycles, element),
        }
        multiplies, subtracts = self.pe.multiplies(format), self.pe.subtracts(format)
        zeros = spread(tensor.zero_points if subtracts else None).astype(np.int64)
        scales = spread(tensor.scales if multiplies else None, 1.0)
        if self.family == "two_level":
            codes |= {"scale": scales.astype(np.int64), "offset": -zeros * scales.astype(np.int64)}
        elif self.family == "shift_cast":
            below = np.log2(scales.max() / scales).astype(np.int64)
            codes["distance"] = np.minimum(below, (1 << self.distance_bits) - 1)
            codes["scaled"] = np.full(cycles, int(multiplies))
        else:
            codes |= {"zero": zeros, "selector": spread(tensor.selectors).astype(np.int64)}
            codes["scale"] = scale_codes(scales, self.option) if self.option else zeros
        return {name: codes[name] for name in self.widths}

    def _aligned(self, format: Format, kind: str, rng: np.random.Generator, cycles: int) -> Stream:
        """The first lane of 64 that share an exponent, with its node of the tree of comparators, whose other input is
        the second lane's."""
        values = rng.normal(0.0, 1.0, (cycles, _ALIGNED_LANES))
        if kind == "model":
            values = model_values("activations", values.shape).astype(np.float64)
        if kind == "corners":
            values *= np.ldexp(1.0, rng.integers(-24, 15, values.shape)) * rng.integers(0, 2, values.shape)
        tensor = quantize(values.astype(np.float32), format)
        if kind == "uniform":
            codes = element_codes(format.element, "uniform", rng, tensor.codes.shape)
            tensor = replace(tensor, codes=codes.astype(tensor.codes.dtype))
        element = format.element
        low = (1 << element.exponent_bits) - 1
        fields = np.maximum(tensor.codes.astype(np.int64) >> element.mantissa_bits & low, 1)
        later = np.roll(fields, 1, axis=0)
        later[0] = 1
        ports = {"value": tensor.codes[:, 0].astype(np.int64), "largest": later.max(axis=1)}
        ports |= {"left": later[:, 0], "right": later[:, 1]}

        def expected() -> list[Hashable]:
            aligned = self.pe.decode_tensor(tensor).codes[: -self.latency, 0]
            tree = later[self.latency :, :2].max(axis=1)
            own = later[self.latency :, 0]
            return [tuple(map(int, row)) for row in zip(aligned, tree, own, strict=True)]

        widths = self.widths
        return Stream({name: port_bits(codes, widths[name]) for name, codes in ports.items()}, expected)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        if self.family != "figna":
            return super().read(outputs)
        top = 1 << (self.after.bits - 1)
        values = [-(code - top) if code & top else code for code in outputs["out"]]
        return list(zip(values, outputs["larger"], outputs["exponent"], strict=True))

    def components(self) -> list[Component]:
        weights = activations = [element_format(name) for name in self.before.split("+")]
        if self.family == "figna":
            weights = [element_format("int8")] * len(self.cases)
            activations = list(self.cases.values())
        else:
            weights = list(self.cases.values())
            activations = [element_format(self.target)] * len(weights)
        hardware: tuple[Component, ...] = self.pe.hardware(
            weight_lines=1,
            activation_lines=1,
            stationary="outputs",
            doubled=False,
            pairs=list(zip(weights, activations, strict=True)),
        )
        return [component for component in hardware if component.name == self.pe.decoder_name]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        format = self.cases[event]
        cycle = energy[f"gaussian {event}"]
        others = on_other_operands(energy, lambda of: of.total_fj, f" {event}")
        how = f"a cycle of {format.name} made of normal values, groups of {GROUP}{others}: {cycle.split}"
        return cycle.total_fj, how

    def specification(self) -> dict[str, object]:
        option = {"s": "scale_bits", "g": "guard_bits", "": ""}[_OPTIONS[self.family]]
        return {
            "name": self.name,
            "family": f"decoder ({self.family})",
            "weights": None if self.family == "figna" else self.before,
            "activations": self.before if self.family == "figna" else None,
            "lanes": 1,
            "accumulator": None,
            "alignment": "to the largest exponent" if self.family == "figna" else None,
            "scales": f"of groups, {self.option} bits" if option == "scale_bits" and self.option else None,
            "becomes": self.after.name,
            **({option: self.option} if option else {}),
            "pipeline_cuts": list(self.cut_places[: self.cuts]),
            "latency_cycles": self.latency,
            "registers_counted": "value, what belongs to its group, cuts, result",
        }

    def __post_init__(self) -> None:
        if self.cuts > len(self.cut_places):
            raise InputError(
                "pipeline cuts of this unit", value=self.cuts, allowed=f"0 to {len(self.cut_places)}"
            )
        if not self.cases:
            raise InputError("decodes no format", value=self.before)
        for element in self.elements:
            if element.kind not in ("int", "uint", "float", "table"):
                raise InputError("no hardware description of this element", value=element.name)


def scale_codes(scales: Any, bits: int) -> Codes:
    """Positive FP32 scales without sign, and without the mantissa below ``bits`` significand bits, which is zero."""
    words = np.asarray(scales, np.float32).view(np.uint32).astype(np.int64)
    if (words & ((1 << (24 - bits)) - 1)).any():
        raise InputError(f"a scale has more than {bits} significand bits")
    return words >> (24 - bits)


FORM = (
    "decode-dequantize-<elements>-<float>[-s<scale bits>][-cut<n>], "
    "decode-two_level-<elements>-<integer>-s<scale bits>, decode-shift_cast-<elements>-<float>, "
    "decode-figna-<float>-g<guard bits>"
)


def unit_of_name(name: str) -> DecoderUnit:
    """The unit of a name: ``decode-two_level-int4+int8-int8-s8``. Raises InputError."""
    found = re.fullmatch(
        r"decode-([a-z_]+)-([a-z0-9_+]+?)(?:-([a-z0-9_]+?))??(?:-([sg])(\d{1,2}))?(?:-cut(\d{1,2}))?",
        name,
        flags=re.ASCII,
    )
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    family, before, target, letter, option, cuts = found.groups()
    if family not in _OPTIONS:
        raise InputError("no such decoder", key="--unit", value=name, allowed=nearest(family, _OPTIONS))
    if (letter or "") not in (_OPTIONS[family], "") or (target is None) != (family == "figna"):
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    try:
        unit = DecoderUnit(family, before, target or "", int(option or 0), int(cuts or 0))
        unit.components()
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
decode-two_level-uint4+int4+int8-int8-s8 decode-two_level-int4-int8-s8
decode-two_level-int4+int8-int8-s8 decode-two_level-int4+uint4-int8-s8
decode-shift_cast-fp6_e3m2+fp16-fp16 decode-shift_cast-fp4_e2m1+fp8_e4m3-fp8_e4m3
decode-figna-fp16-g3
decode-dequantize-int4+int8+fp16-fp16-s11-cut3
decode-dequantize-fp16+int8+int6+int5+int4+int3+int2+fp6_e3m2+fp6_e2m3+fp4_e2m1+flint4+bitmod_fp4+bitmod_fp3-fp16-s11-cut3
"""
