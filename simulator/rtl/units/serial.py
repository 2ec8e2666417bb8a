"""Bit-serial PEs as hardware: `simulator.pe.stripes`, `pragmatic`, `bitvert`, and what stands at their arrays' edges.

`serial_hardware` and `serial_edge` describe them, `serial_operands` makes their streams; what must come out says the
PE's own function, and of terms and bits the rules of `simulator.pe.serial`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats.pruning import GROUP
from simulator.hardware.structure import Component
from simulator.pe import pe_model
from simulator.pe.base import pair_name
from simulator.pe.bitvert import BitVertPE
from simulator.pe.elements import element_format
from simulator.pe.pragmatic import PragmaticPE
from simulator.pe.protocol import Pair, Side
from simulator.pe.serial.datapath import sum_bits
from simulator.pe.stripes import StripesPE
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Energy, Stream, Unit, on_other_operands
from simulator.rtl.units import serial_operands
from simulator.rtl.units.naming import refused
from simulator.rtl.units.serial_operands import Cycles, EdgeCycles, base_bits, term_bits, widest

_OPERANDS = ("gaussian", "uniform", "model")
RATE_CYCLES = 1536
"""Of a stream whose steps and terms are counted: those that the flow measures energies on."""
CUTS = {"stripes": ("tree",), "pragmatic": ("tree",), "bitvert": ("tree", "schedule")}
"""Where ranks of registers may cut the data path, in the order in which a deeper pipeline takes them: behind the lanes'
sum, behind the choice of lanes."""


@dataclass(frozen=True)
class SerialUnit(Unit):
    """A PE: registers of its operands, arithmetic and accumulator."""

    pe: Any
    """The PE of the simulator that this is; its formats are those whose energies are measured."""
    doubled: bool = False
    """A second accumulator keeps a finished sum."""

    def __post_init__(self) -> None:
        pe = self.pe
        if pe.pipeline_depth > 1 + len(CUTS[pe.family]):
            raise InputError(
                "pipeline cuts of this unit",
                key="cuts",
                value=pe.pipeline_depth - 1,
                allowed=f"0 to {len(CUTS[pe.family])}",
            )
        if getattr(pe, "column_registers", 0):
            raise InputError(
                "column registers stand beside the PE", key="column_registers", value=pe.column_registers
            )
        for name in pe.weights:
            if serial_operands.pruned(element_format(name).element)[0] and GROUP % pe.lanes:
                raise InputError(
                    "a step of pruned weights lies in one group",
                    key="lanes",
                    value=pe.lanes,
                    allowed="8, 16, 32",
                )

    @property
    def name(self) -> str:
        pe = self.pe
        fields = [f"{pe.family}{pe.lanes}", f"{'+'.join(pe.weights)}x{'+'.join(pe.activations)}"]
        if isinstance(pe, PragmaticPE):
            fields += [pe.serial, *_stages(pe)]
        elif isinstance(pe, BitVertPE):
            fields.append(f"sub{pe.sub_group}")
        fields += [pe.accumulator, *([f"cut{len(self.cuts)}"] if self.cuts else [])]
        return "-".join([*fields, *(["double"] if self.doubled else [])])

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where the data path is cut."""
        return CUTS[self.pe.family][: self.pe.pipeline_depth - 1]

    @property
    def pairs(self) -> list[Pair]:
        """Formats of weights and activations, in the PE's order."""
        return [(element_format(w), element_format(a)) for w in self.pe.weights for a in self.pe.activations]

    @property
    def latency(self) -> int:
        return 1 + int(self.pe.pipeline_depth)

    @property
    def input_widths(self) -> dict[str, int]:
        """{port: bits}; see `simulator.rtl.units.serial_hardware`."""
        pe = self.pe
        weight_bits, activation_bits = widest(pe, "weights"), widest(pe, "activations")
        if isinstance(pe, StripesPE):
            flags = ("w_signed", "load", "negate", "last", "first")
            return {"bits": pe.lanes, "w": pe.lanes * weight_bits, **dict.fromkeys(flags, 1)}
        if isinstance(pe, PragmaticPE):
            widths = {"terms": pe.lanes * term_bits(pe), "parallel": pe.lanes * widest(pe, pe.parallel)}
            if base_bits(pe):
                widths["lowest"] = base_bits(pe)
            return widths | dict.fromkeys(("parallel_signed", "load", "first"), 1)
        of_group = sum_bits(pe.sub_group, activation_bits)
        return {
            "column": pe.lanes,
            "a": pe.lanes * activation_bits,
            "sums": pe.lanes // pe.sub_group * of_group,
            "total": sum_bits(pe.lanes, activation_bits),
            "position": 3,
            "digit": 3,
            **dict.fromkeys(("a_signed", "digit_signed", "upper", "negate", "load", "first"), 1),
        }

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.serial_hardware import SerialModule

        return SerialModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> tuple[str, ...]:
        kinds = (*_OPERANDS, "steps")
        return (*(f"{kind} {pair_name(pair)}" for pair in self.pairs for kind in kinds), "zero")

    @property
    def proofs(self) -> tuple[str, ...]:
        return tuple(f"mixed {pair_name(pair)}" for pair in self.pairs)

    def _cycles(self, stimulus: str, cycles: int, seed: int = 0) -> Cycles:
        kind, _, of = stimulus.partition(" ")
        pair = next((pair for pair in self.pairs if pair_name(pair) == of), self.pairs[0])
        return serial_operands.pe_cycles(self.pe, pair, kind, cycles, seed)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        stream = self._cycles(stimulus, cycles, seed)
        function = self.pe.function(*self.pairs[0])

        def expected() -> list[int]:
            return serial_operands.expected_sums(function, stream, self.doubled)[: -self.latency]

        return Stream(stream.ports, expected)

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Sums."""
        bits = self.pe.accumulator_bits
        return [code - (code >> bits - 1 << bits) for code in outputs["out"]]

    def components(self) -> list[Component]:
        found = self.pe.hardware(
            weight_lines=1,
            activation_lines=1,
            stationary="outputs",
            doubled=self.doubled,
            pairs=self.pairs,
        )
        return [component for component in found if component.name == "pe"]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """Cycles, steps and terms are told apart so that together they make the energy of the Gaussian stream."""
        what, _, pair = event.partition(" ")
        idle = energy["zero"]
        if what == "idle":
            return idle.clock_fj, "clock pins while nothing changes"
        steps, step_loads, _ = self._rates("steps", pair, energy)
        step = (steps - idle.total_fj) / step_loads
        if what == "step":
            return step, "what new parallel operands add to an idle cycle, no bits set; Gaussian operands"
        gaussian, loads, terms = self._rates("gaussian", pair, energy)
        model, model_loads, model_terms = self._rates("model", pair, energy)
        by_terms = isinstance(self.pe, PragmaticPE)
        cycle = idle.total_fj if by_terms else gaussian - step * loads
        term = (gaussian - cycle - step * loads) / terms if by_terms else 0.0
        priced = cycle + step * model_loads + term * model_terms
        check = f"; a cycle of MiniLM's operands: {model:.4g} fJ, where steps, cycles and terms come to {priced:.4g} fJ"
        if what == "term":
            how = f"a cycle of Gaussian operands, {terms:.4g} terms in it, less an idle one and the step's share"
            return term, f"{how}, by term{check}"
        if by_terms:
            return cycle, "a cycle without a term: clock pins"
        return cycle, f"a mean cycle of Gaussian operands less the step's share{check}"

    def _rates(self, kind: str, pair: str, energy: Mapping[str, Energy]) -> tuple[float, float, float]:
        """Of a mean cycle of a stream: fJ, steps that begin, terms."""
        stimulus = f"{kind} {pair}"
        stream = self._cycles(stimulus, RATE_CYCLES)
        return energy[stimulus].total_fj, float(stream.loads.mean()), float(stream.terms.mean())

    def specification(self) -> dict[str, object]:
        pe = self.pe
        return {
            "name": self.name,
            "family": pe.family,
            "weights": "+".join(pe.weights),
            "activations": "+".join(pe.activations),
            "lanes": pe.lanes,
            "accumulator": pe.accumulator,
            "alignment": "none: integers",
            "scales": None,
            "pipeline_cuts": list(self.cuts),
            "latency_cycles": self.latency,
            "doubled": self.doubled,
            "registers_counted": self._registers(),
            **pe.structural(),
        }

    def _registers(self) -> str:
        held = {
            "stripes": "weights (held by an enable), a bit of each activation, the step's sum",
            "pragmatic": "parallel operands (held by an enable), a term of each lane",
            "bitvert": "activations (held by an enable), a weight column, three bits of the constant",
        }[self.pe.family]
        return f"{held}, flags, cuts, accumulator{' (twice)' if self.doubled else ''}"


@dataclass(frozen=True)
class EdgeUnit(Unit):
    """What an array has at the lines of an operand: a dispatcher of one lane, an encoder or the sums of one line."""

    pe: Any
    """A PE beside which it stands."""

    @property
    def kind(self) -> str:
        return {"stripes": "stripes_dispatcher", "pragmatic": "pragmatic_encoder"}.get(
            self.pe.family, "bitvert_activation_sum"
        )

    @property
    def name(self) -> str:
        pe = self.pe
        lanes = "" if isinstance(pe, StripesPE) else str(pe.lanes)
        fields = [self.kind + lanes, "+".join(self.formats)]
        if isinstance(pe, PragmaticPE):
            fields += _stages(pe)
        elif isinstance(pe, BitVertPE):
            fields.append(f"sub{pe.sub_group}")
        return "-".join(fields)

    @property
    def side(self) -> Side:
        """The operand that passes it."""
        return self.pe.serial if isinstance(self.pe, PragmaticPE) else "activations"

    @property
    def formats(self) -> tuple[str, ...]:
        names: tuple[str, ...] = getattr(self.pe, self.side)
        return names

    @property
    def words(self) -> int:
        """Words that enter at a time."""
        return 1 if isinstance(self.pe, StripesPE) else int(self.pe.lanes)

    @property
    def latency(self) -> int:
        return 1

    @property
    def input_widths(self) -> dict[str, int]:
        bits = widest(self.pe, self.side)
        widths = {"word": self.words * bits, "load": 1}
        if isinstance(self.pe, StripesPE):
            return widths | {"select": (bits - 1).bit_length()}
        return widths | {"signed": 1}

    @property
    def sum_widths(self) -> tuple[int, int]:
        """Of a sub-group and of all lanes."""
        bits = widest(self.pe, self.side)
        return sum_bits(self.pe.sub_group, bits), sum_bits(self.pe.lanes, bits)

    @property
    def output_widths(self) -> dict[str, int]:
        pe = self.pe
        if isinstance(pe, StripesPE):
            return {"out": 1}
        if isinstance(pe, PragmaticPE):
            lowest = {"lowest": base_bits(pe)} if base_bits(pe) else {}
            return {"out": pe.lanes * term_bits(pe), "last": 1, **lowest}
        groups = pe.lanes // pe.sub_group
        return {"out": groups * self.sum_widths[0] + (self.sum_widths[1] if groups > 1 else 0)}

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.serial_edge import EdgeModule

        return EdgeModule(self, adder, fast=fast)

    @property
    def stimuli(self) -> tuple[str, ...]:
        return tuple(f"{kind} {name}" for name in self.formats for kind in (*_OPERANDS, "zero"))

    @property
    def proofs(self) -> tuple[str, ...]:
        return tuple(f"mixed {name}" for name in self.formats)

    def _cycles(self, stimulus: str, cycles: int, seed: int = 0) -> EdgeCycles:
        kind, _, name = stimulus.partition(" ")
        return serial_operands.edge_cycles(self.pe, self.side, element_format(name), kind, cycles, seed)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        stream = self._cycles(stimulus, cycles, seed)
        return Stream(stream.ports, lambda: stream.expected[:-1])

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        return list(zip(*(outputs[name] for name in self.output_widths), strict=True))

    def components(self) -> list[Component]:
        other = "int8"
        pairs = [
            (element_format(name), element_format(other))
            if self.side == "weights"
            else (element_format(other), element_format(name))
            for name in self.formats
        ]
        found = self.pe.hardware(
            weight_lines=1, activation_lines=1, stationary="outputs", doubled=False, pairs=pairs
        )
        return [component for component in found if component.kind == self.kind]

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        name = event.removeprefix("word ")
        streams = [f"{kind} {name}" for kind in _OPERANDS]
        cycles = {stream: 1 / self._cycles(stream, RATE_CYCLES).loads.mean() for stream in streams}
        found = {stream: float(energy[stream].total_fj * cycles[stream]) for stream in streams}
        gaussian = streams[0]
        words = "a word" if self.words == 1 else f"{self.words} words"
        return found[gaussian], (
            f"{words} of Gaussian operands{on_other_operands(found, float, f' {name}')}, "
            f"{cycles[gaussian]:.4g} cycles of {energy[gaussian].split}"
        )

    def specification(self) -> dict[str, object]:
        weights, activations = (
            "+".join(self.formats) if side == self.side else None for side in ("weights", "activations")
        )
        return {
            "name": self.name,
            "family": self.kind,
            "weights": weights,
            "activations": activations,
            "lanes": self.words,
            "accumulator": None,
            "alignment": "none: integers",
            "scales": None,
            "pipeline_cuts": [],
            "latency_cycles": self.latency,
            "registers_counted": {
                "stripes_dispatcher": "word (held by an enable)",
                "pragmatic_encoder": "terms that are left, of each lane",
            }.get(self.kind, "sums (held by an enable)"),
            **(self.pe.structural() if not isinstance(self.pe, StripesPE) else {}),
        }


def _stages(pe: PragmaticPE) -> list[str]:
    return [f"b{pe.bits_first_stage}", *([pe.recoding] if pe.recoding != "none" else [])]


_FORMATS = r"(?P<weights>[a-z0-9_+]+)x(?P<activations>[a-z0-9_+]+)"
_STAGES = r"-b(?P<bits_first_stage>[0-5])(?:-(?P<recoding>booth_like|naf|radix4_booth))?"
_END = r"-(?P<accumulator>int[0-9]+)(?:-cut(?P<cut>[1-9][0-9]?))?(?P<doubled>-double)?"
_LANES = r"(?P<lanes>[1-9][0-9]?)"
_PATTERNS = {
    "stripes": rf"stripes{_LANES}-{_FORMATS}{_END}",
    "pragmatic": rf"pragmatic{_LANES}-{_FORMATS}-(?P<serial>weights|activations){_STAGES}{_END}",
    "bitvert": rf"bitvert{_LANES}-{_FORMATS}-sub(?P<sub_group>[0-9]+){_END}",
    "stripes_dispatcher": r"stripes_dispatcher-(?P<activations>[a-z0-9_+]+)",
    "pragmatic_encoder": rf"pragmatic_encoder{_LANES}-(?P<weights>[a-z0-9_+]+){_STAGES}",
    "bitvert_activation_sum": rf"bitvert_activation_sum{_LANES}-(?P<activations>[a-z0-9_+]+)-sub(?P<sub_group>[0-9]+)",
}
_FORMS = {
    "stripes": "stripes<lanes>-<weights>x<activations>-<accumulator>[-cut<n>][-double]",
    "pragmatic": "pragmatic<lanes>-<weights>x<activations>-weights|activations-b<bits_first_stage>[-<recoding>]"
    "-<accumulator>[-cut<n>][-double]",
    "bitvert": "bitvert<lanes>-<weights>x<activations>-sub<sub_group>-<accumulator>[-cut<n>][-double]",
    "stripes_dispatcher": "stripes_dispatcher-<activations>",
    "pragmatic_encoder": "pragmatic_encoder<lanes>-<formats>-b<bits_first_stage>[-<recoding>]",
    "bitvert_activation_sum": "bitvert_activation_sum<lanes>-<activations>-sub<sub_group>",
}
WORDS = tuple(_PATTERNS)


def unit_of_name(name: str) -> SerialUnit | EdgeUnit:
    """The unit of a name: ``stripes8-int8xint8+int4-int32``, ``pragmatic_encoder8-int8-b5``. Raises InputError."""
    word = name.partition("-")[0].rstrip("0123456789")
    found = re.fullmatch(_PATTERNS[word], name)
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=_FORMS[word])
    given = {key: value for key, value in found.groupdict().items() if value is not None}
    family = word.partition("_")[0]
    params: dict[str, Any] = {"family": family, "weights": ("int8",), "activations": ("int8",)}
    if word == "pragmatic_encoder":
        # The side is no part of its hardware, but of the operands on which it is measured.
        params["serial"] = "weights"
    for key in ("weights", "activations"):
        if key in given:
            params[key] = tuple(given.pop(key).split("+"))
    doubled, cut = given.pop("doubled", ""), given.pop("cut", "0")
    for key in ("lanes", "bits_first_stage", "sub_group"):
        if key in given:
            params[key] = int(given.pop(key))
    unit: SerialUnit | EdgeUnit
    try:
        pe = validate(pe_model(family), {**params, **given, "pipeline_depth": 1 + int(cut)}, prefix="pe")
        for pair in ((element_format(w), element_format(a)) for w in pe.weights for a in pe.activations):
            reason = pe.accepts(*pair)
            if reason is not None:
                raise InputError(reason)
        unit = SerialUnit(pe, bool(doubled)) if word == family else EdgeUnit(pe)
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
stripes8-int8xint8+int7+int6+int5+int4+int3+int2+uint8-int32-double
stripes_dispatcher-int8+int7+int6+int5+int4+int3+int2+uint8
pragmatic8-int8xint8+uint8-weights-b5-int32-double pragmatic_encoder8-int8-b5
bitvert16-int8+bbs_avg2+bbs_avg3+bbs_avg4+bbs_zp2+bbs_zp3+bbs_zp4xint8+uint8-sub8-int32-cut2-double
bitvert_activation_sum16-int8+uint8-sub8
"""
