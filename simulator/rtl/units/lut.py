"""LUT Tensor Core as hardware: `simulator.pe.lut`, its PE, its tables and its keys, each a unit.

Mo et al., "LUT Tensor Core: A Software-Hardware Co-Design for LUT-Based Low-Bit LLM Inference", ISCA 2025, section 3.
A row's tables and a column's keys are registers that many PEs read, so they are units of their own. `lut_hardware`
builds them, `lut_operands` makes their streams; what must come out is the PE's own function.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from simulator.config import validate
from simulator.errors import InputError
from simulator.formats.element import FP16
from simulator.hardware.structure import Component
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.lut import LutPE
from simulator.pe.lut_structure import cut_places, elements, scale_of
from simulator.pe.protocol import Pair
from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import Bits, Energy, Stream, Unit, on_other_operands, port_words
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.lut_operands import REST, Steps, draw
from simulator.rtl.units.naming import refused

_KINDS = {"exact": "", "int8": "int8tables", "fp16": "fp16tables", "fp32": "fp32tables"}
"""What tables hold -> how names say it."""


@dataclass(frozen=True)
class _OfLut(Unit):
    """A circuit of one accelerator of look-up tables."""

    weights: str
    """Element formats with + between: int2+int4."""
    activations: str
    step_lanes: int = 4
    """Activations of a step."""
    table_inputs: int = 4
    reinterpret: bool = True
    tables: str = "exact"
    """What they hold: exact, int8 (with a scale), fp16, fp32."""
    accumulator: str = "int32"
    stages: int = 1
    doubled: bool = False

    component: ClassVar[str]
    """Of the PE's ``hardware``, which it is."""

    @property
    def pe(self) -> LutPE:
        return validate(
            LutPE,
            {
                "family": "lut",
                "weights": self.weights.split("+"),
                "activations": self.activations.split("+"),
                "accumulator": self.accumulator,
                "lanes": self.step_lanes,
                "table_inputs": self.table_inputs,
                "reinterpret": self.reinterpret,
                "table_quantization": "int8" if self.tables == "int8" else "none",
                "float_tables": "fp32" if self.tables == "fp32" else "fp16",
                "pipeline_stages": self.stages,
            },
        )

    @property
    def pairs(self) -> list[Pair]:
        return [
            (element_format(weight), element_format(activation))
            for weight in self.weights.split("+")
            for activation in self.activations.split("+")
        ]

    def components(self) -> list[Component]:
        made = self.pe.hardware(
            weight_lines=1, activation_lines=1, stationary="outputs", doubled=self.doubled, pairs=self.pairs
        )
        return [component for component in made if component.name == self.component]

    def check(self) -> None:
        """Raises InputError: there is no hardware description of it."""
        pe = self.pe
        for pair in self.pairs:
            reason = pe.accepts(*pair)
            if reason:
                raise InputError(reason, value=pair_name(pair))
        if pe.stored != self.tables:
            raise InputError(
                "what tables of these activations hold", key="tables", value=self.tables, allowed=pe.stored
            )
        if len({element.quantum_exponent for element in elements(pe.weights)}) > 1:
            raise InputError("weights of different steps share no hardware", value=self.weights)

    def steps(self, stimulus: str, cycles: int, seed: int) -> Steps:
        kind, _, name = stimulus.partition(" ")
        pair = next(pair for pair in self.pairs if pair_name(pair) == name)
        return draw(self.pe, kind, pair, cycles, seed)

    def _of_pairs(self, kind: str) -> list[str]:
        """Stimuli of a kind. A network's FP8 activations, scaled to the largest value, overflow FP16 sums."""
        short = kind == "model" and "fp16" in (self.tables, self.accumulator)
        return [
            f"{kind} {pair_name(pair)}"
            for pair in self.pairs
            if not short or pair[1].element.is_integer or pair[1].element.bits >= FP16.bits
        ]

    def _of_pair(self, event: str) -> tuple[str, str, int]:
        """("step int2 x int8") -> ("step", "int2 x int8", planes of its weights)."""
        what, _, name = event.partition(" ")
        pair = next(pair for pair in self.pairs if name in (pair_name(pair), pair[0].element.name))
        return what, pair_name(pair), self.pe.planes(pair[0].element)

    def _fields(self) -> list[str]:
        """Of its name: formats and tables."""
        fields = [f"{self.weights}x{self.activations}", f"l{self.step_lanes}", f"mu{self.table_inputs}"]
        fields += [] if self.reinterpret else ["plain"]
        return fields + ([_KINDS[self.tables]] if _KINDS[self.tables] else [])

    @abstractmethod
    def _registers(self) -> str:
        """Which registers are inside."""

    def specification(self) -> dict[str, object]:
        return {
            "name": self.name,
            "family": f"look-up table, {self.component}",
            "weights": self.weights,
            "activations": self.activations,
            "lanes": self.step_lanes,
            "table_inputs": self.table_inputs,
            "entries": self.pe.entries,
            "entry_bits": max(map(self.pe.entry_bits, elements(self.pe.activations))),
            "tables": self.tables,
            "keys": "bits of odd integers, halved tables" if self.reinterpret else "plain bits, full tables",
            "planes": self.pe.most_planes,
            "registers_counted": self._registers(),
            "latency_cycles": self.latency,
        }


@dataclass(frozen=True)
class LutUnit(_OfLut):
    """A PE: multiplexers, negation, sum of planes, accumulator."""

    component = "pe"

    def check(self) -> None:
        super().check()
        pe = self.pe
        if self.tables.startswith("fp") and pe.tables > 1:
            raise InputError(
                "no hardware description of a tree of floats", key="lanes", value=self.step_lanes
            )
        activations = elements(pe.activations)
        if self.tables == "int8" and scale_of(activations, self.table_inputs).lowest == 1:
            raise InputError(
                "no hardware description of scales that may be subnormal", value=self.activations
            )
        if len({element.quantum_exponent for element in activations}) > 1 and self.tables == "exact":
            raise InputError("integers of different steps share no hardware", value=self.activations)

    @property
    def name(self) -> str:
        stages = [f"stages{self.stages}"] if self.stages > 1 else []
        fields = ["lut", *self._fields(), self.accumulator, *stages]
        return "-".join([*fields, *(["double"] if self.doubled else [])])

    @property
    def latency(self) -> int:
        return self.stages

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.lut_hardware import PEModule

        return PEModule(self.pe, self.doubled, adder, fast=fast)

    @property
    def stimuli(self) -> tuple[str, ...]:
        """Gaussian operands and a network's of every pair; the others of the first. Uniform codes of FP16 overflow
        entries of floats."""
        first = pair_name(self.pairs[0])
        others = ("zero", "rest") if self.tables.startswith("fp") else ("uniform", "zero", "rest")
        return (
            *self._of_pairs("gaussian"),
            *self._of_pairs("model"),
            *(f"{kind} {first}" for kind in others),
        )

    @property
    def proofs(self) -> tuple[str, ...]:
        kinds = ("gaussian", "corners")
        return tuple(f"{kind} {pair_name(pair)}" for pair in self.pairs for kind in kinds)

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        steps = self.steps(stimulus, cycles, seed)
        return Stream(steps.pe_ports(), lambda: steps.sums(finished=self.doubled)[: -self.latency])

    def read(self, outputs: Mapping[str, Sequence[int]]) -> list[Hashable]:
        """Sums as integers of the PE's function."""
        return list(sums_of_codes(self.pe.sums, list(outputs["out"])))

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``step``: all cycles of a step; ``idle``: the clock while nothing changes."""
        if event == "idle":
            return energy[f"rest {pair_name(self.pairs[0])}"].total_fj, "clock pins while nothing changes"
        _, name, planes = self._of_pair(event)
        gaussian = energy[f"gaussian {name}"]
        free, timed = gaussian.combinational_glitch_free_fj, gaussian.combinational_timed_fj
        how = f"all that the PE takes in {planes} cycles; Gaussian operands"
        how += on_other_operands(energy, lambda of: planes * of.total_fj, f" {name}")
        gates = f"of that gates with glitches {planes * timed:.4g} fJ ({planes * free:.4g} fJ without)"
        return planes * gaussian.total_fj, f"{how}; {gates}"

    def specification(self) -> dict[str, object]:
        return super().specification() | {
            "accumulator": self.accumulator,
            "alignment": "sum of planes and accumulator, to the larger exponent"
            if self.pe.sums.float_format
            else "none: integers",
            "scales": "fp32, one for the tables of a step" if self.tables == "int8" else None,
            "pipeline_cuts": list(cut_places(self.pe)[: self.stages - 1]),
            "doubled": self.doubled,
        }

    def _registers(self) -> str:
        cuts = ", cuts" if self.stages > 1 else ""
        planes = ", sum of planes" if self.pe.most_planes > 1 and not self.tables.startswith("fp") else ""
        return f"accumulator{' (twice)' if self.doubled else ''}{planes}{cuts}; tables and keys are outside"


class _Registers(_OfLut):
    """Registers that hold what PEs read."""

    @property
    def latency(self) -> int:
        return 1

    @property
    def proofs(self) -> tuple[str, ...]:
        return tuple(f"corners {pair_name(pair)}" for pair in self.pairs)

    def specification(self) -> dict[str, object]:
        none: dict[str, object] = {
            "accumulator": None,
            "alignment": "none",
            "scales": None,
            "pipeline_cuts": [],
        }
        return super().specification() | none


@dataclass(frozen=True)
class LutTableUnit(_Registers):
    """A copy of a row's tables."""

    component = "table"

    @property
    def name(self) -> str:
        return "-".join(["lut_table", *self._fields()])

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.lut_hardware import TableModule

        return TableModule(self.pe)

    @property
    def stimuli(self) -> tuple[str, ...]:
        kinds = ("gaussian", "model", "zero", *(("scales",) if self.tables == "int8" else ()))
        return tuple(name for kind in kinds for name in self._of_pairs(kind))

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        """Of ``gaussian`` and ``zero`` scales stay, which are an event of their own."""
        kind, _, name = stimulus.partition(" ")
        steps = self.steps(f"gaussian {name}" if kind == "scales" else stimulus, cycles, seed)
        ports = dict(steps.table_ports())
        if kind == "scales":
            ports["entries_in"] = ports["entries_in"] * 0
        elif kind != "corners" and "scale_in" in ports:
            ports["scale_in"] = ports["scale_in"] * 0
        return Stream(ports, lambda: _held(ports))

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``load``: of one table, with its clock until the next; ``scale``: what a new one adds."""
        what, name, planes = self._of_pair(event)
        gaussian = energy[f"gaussian {name}"]
        if what == "load":
            how = f"entries of a table, and the clock of the {planes} cycles that it is read; Gaussian activations"
            how += on_other_operands(energy, lambda of: planes * of.total_fj / self.pe.tables, f" {name}")
            how += f"; a cycle of all tables: {gaussian.split}"
            return planes * gaussian.total_fj / self.pe.tables, how
        scaled = energy[f"scales {name}"].total_fj - energy[f"zero {name}"].total_fj
        return planes * scaled, "what a new scale adds; Gaussian activations"

    def _registers(self) -> str:
        return "entries" + (", scale" if self.tables == "int8" else "")


@dataclass(frozen=True)
class LutKeysUnit(_Registers):
    """The keys of a column."""

    component = "keys"

    @property
    def name(self) -> str:
        lowest = ["lowest"] if self.pe.first_plane == "lowest" else []
        return "-".join(["lut_keys", self.weights, f"l{self.step_lanes}", *lowest])

    def module(self, adder: FullAdder | None = None, *, fast: bool = False) -> Any:
        from simulator.rtl.units.lut_hardware import KeysModule

        return KeysModule(self.pe)

    @property
    def stimuli(self) -> tuple[str, ...]:
        return tuple(name for kind in ("gaussian", "uniform", "model") for name in self._of_pairs(kind))

    def stream(self, stimulus: str, cycles: int, seed: int = 0) -> Stream:
        """What leaves behind the last plane is zero."""
        steps = self.steps(stimulus, cycles, seed)
        read = steps.pe_ports()["keys"] * (steps.step != REST)[:, None]
        return Stream(steps.keys_ports(), lambda: [(word,) for word in port_words(read)[:-1]])

    def event_energy(self, event: str, energy: Mapping[str, Energy]) -> tuple[float, str]:
        """``load``: of one lane, with the shifts until the next."""
        _, name, planes = self._of_pair(event)
        how = f"a weight and its {planes - 1} shifts; Gaussian weights"
        how += on_other_operands(energy, lambda of: planes * of.total_fj / self.step_lanes, f" {name}")
        return planes * energy[f"gaussian {name}"].total_fj / self.step_lanes, how

    def specification(self) -> dict[str, object]:
        """Without what only tables and PEs have."""
        no = dict.fromkeys(("activations", "table_inputs", "entries", "entry_bits", "tables"))
        return super().specification() | no | {"first_plane": self.pe.first_plane}

    def _registers(self) -> str:
        return "a shift register a lane"


def _held(ports: Mapping[str, Bits]) -> list[Hashable]:
    """What registers hold that take their ports where ``load`` is set, but for the last cycle."""
    load = ports["load"][:, 0] == 1
    taken = np.maximum.accumulate(np.where(load, np.arange(len(load)), -1))
    words = []
    for name in sorted(ports.keys() - {"load"}):
        held = np.where((taken >= 0)[:, None], ports[name][taken], 0)
        words.append(port_words(held.astype(np.uint8))[:-1])
    return list(zip(*words, strict=True))


FORM = (
    "lut-<weights>x<activations>-l<lanes>-mu<inputs>[-plain][-int8tables|-fp16tables|-fp32tables]-<accumulator>"
    "[-stages<n>][-double], lut_table-<weights>x<activations>-l<lanes>-mu<inputs>[-plain][-...tables], "
    "lut_keys-<weights>-l<lanes>[-lowest]"
)
_TABLES = r"(?P<weights>[^-x]+)x(?P<activations>[^-]+)-l(?P<lanes>\d{1,4})-mu(?P<inputs>\d)(?P<plain>-plain)?"
_TABLES += "(-(?P<tables>int8|fp16|fp32)tables)?"
_NAMES: dict[str, tuple[str, type[_OfLut]]] = {
    "lut": (
        rf"lut-{_TABLES}-(?P<accumulator>[a-z0-9]+)(-stages(?P<stages>\d\d?))?(?P<double>-double)?",
        LutUnit,
    ),
    "lut_table": (rf"lut_table-{_TABLES}", LutTableUnit),
    "lut_keys": (r"lut_keys-(?P<weights>[^-x]+)-l(?P<lanes>\d{1,4})(?P<lowest>-lowest)?", LutKeysUnit),
}
WORDS = tuple(_NAMES)


def unit_of_name(name: str) -> Unit:
    """The unit of a name: ``lut-int2+int4xint8-l4-mu4-int32-double``, ``lut_keys-int2+int4-l4``. Raises InputError."""
    form, made = _NAMES[name.partition("-")[0]]
    found = re.fullmatch(form, name)
    if found is None:
        raise InputError("not the name of a unit", key="--unit", value=name, allowed=FORM)
    said = found.groupdict()
    tables = said.get("tables") or ("fp16" if said.get("lowest") else "exact")
    try:
        unit = made(
            weights=said["weights"],
            activations=said.get("activations") or ("fp16" if said.get("lowest") else "int8"),
            step_lanes=int(said["lanes"]),
            table_inputs=int(said.get("inputs") or 1),
            reinterpret=not said.get("plain"),
            tables=tables,
            accumulator=said.get("accumulator") or ("int32" if tables == "exact" else "fp32"),
            stages=int(said.get("stages") or 1),
            doubled=bool(said.get("double")),
        )
        unit.check()
        unit.components()
    except ValueError as error:
        raise refused(error, name) from None
    return unit


DEFAULT = """
lut-binary+int2+int3+int4+int8xint8-l4-mu4-int32-stages3-double lut_table-binary+int2+int3+int4+int8xint8-l4-mu4
lut-binary+int2+int3+int4+int8xfp16+fp8_e4m3+fp8_e5m2-l4-mu4-int8tables-fp32-stages5-double
lut_table-binary+int2+int3+int4+int8xfp16+fp8_e4m3+fp8_e5m2-l4-mu4-int8tables
lut_keys-binary+int2+int3+int4+int8-l4
lut-binaryxfp16-l4-mu4-int8tables-fp32-stages2 lut_table-binaryxfp16-l4-mu4-int8tables lut_keys-binary-l4
lut-int2xint8-l4-mu4-int32 lut_table-int2xint8-l4-mu4 lut-int2xint8-l4-mu4-plain-int32
lut_table-int2xint8-l4-mu4-plain lut_keys-int2-l4
"""
"""Those of the shipped accelerators; and those of W1 A16 and, with both kinds of keys, of W2 A8, which the paper
compares with other circuits."""
