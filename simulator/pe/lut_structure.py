"""What a look-up-table PE and what stands beside it are made of, and which of it works in an event.

Widths are those of the widest formats; at narrower ones a part works at theirs, and is listed again at that width, with
count 0, for the events of the pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from simulator.formats.element import Element
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import FP16, FP32
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, Stationary
from simulator.pe.table_function import Arithmetic
from simulator.pe.tables import QUANTIZED_MAX
from simulator.units import ceil_div

if TYPE_CHECKING:
    from simulator.pe.lut import LutPE

Uses = dict[tuple[str, str], int]
When = Literal["plane", "step"]
Params = dict[str, int | str]


@dataclass(frozen=True)
class Scale:
    """Scales of tables that are quantized to INT8, as a PE takes them: positive FP32 numbers of few exponents."""

    lowest: int
    """Exponent field of the smallest that is not zero, or one below it."""
    exponent_bits: int
    """Of the field's distance from it."""

    @property
    def bits(self) -> int:
        """The hidden bit is one wherever an entry is not zero."""
        return FP32.precision - 1 + self.exponent_bits


def scale_of(activations: Iterable[Element], table_inputs: int) -> Scale:
    """A 127th of the largest entry: of one activation, the smallest, to `table_inputs` times the largest."""
    floats = list(activations)
    bias = 2 - FP32.precision - FP32.low
    lowest = max(min(element.quantum_exponent for element in floats) - QUANTIZED_MAX.bit_length() + bias, 1)
    largest = table_inputs * max(element.max_value for element in floats) / QUANTIZED_MAX
    highest = Fraction(largest).numerator.bit_length() - Fraction(largest).denominator.bit_length() + 1 + bias
    return Scale(lowest, (highest - lowest).bit_length())


@dataclass(frozen=True)
class Width:
    """Of the data path of a PE, for all of its formats or for one pair of them."""

    entry: int
    """What a table stores."""
    plane: int
    """Sum of what is read from the tables in a cycle."""
    total: int
    """Sum over the planes of integers."""
    arithmetics: frozenset[Arithmetic]

    @property
    def integers(self) -> bool:
        return bool(self.arithmetics - {"float"})

    @property
    def floats(self) -> bool:
        return "float" in self.arithmetics


def width(pe: LutPE, weights: Sequence[Element], activations: Sequence[Element]) -> Width:
    """What formats need in a PE of ``pe``; one that takes weights of several planes has their adder for one, too."""
    plane = max(map(pe.sum_bits, activations))
    serial = pe.most_planes > 1
    return Width(
        entry=max(map(pe.entry_bits, activations)),
        plane=plane,
        total=plane + max(map(pe.planes, weights)) if serial else plane,
        arithmetics=frozenset(map(pe.arithmetic, activations)),
    )


def elements(names: Iterable[str]) -> list[Element]:
    return [element_format(name).element for name in names]


def cut_places(pe: LutPE) -> tuple[str, ...]:
    """Where the data path of a PE may be cut, in the order in which `pipeline_stages` takes them: between the tables
    and the adder of planes; between the sum of the planes and what follows it; behind the multiplication by a scale;
    between the normalised number and the addition to a floating-point accumulator."""
    arithmetics = {pe.arithmetic(element) for element in elements(pe.activations)}
    planes = ("planes",) if arithmetics - {"float"} and pe.most_planes > 1 else ()
    product = ("product",) if "int8" in arithmetics else ()
    return ("read", *planes, *product, *(("normalise",) if pe.sums.float_format else ()))


@dataclass(frozen=True)
class Addend:
    """What goes into a floating-point accumulator: a magnitude times 2**(its own exponent + ``exponent``)."""

    bits: int
    exponent: int


def addend(pe: LutPE, arithmetic: Arithmetic) -> Addend:
    """Of tables of this arithmetic, for weights and activations of one step."""
    activations = [element for element in elements(pe.activations) if pe.arithmetic(element) == arithmetic]
    weight = min(element.quantum_exponent for element in elements(pe.weights))
    if arithmetic == "float":
        stored = FP16 if pe.float_tables == "fp16" else FP32
        # A subnormal number's field counts as one.
        return Addend(stored.precision, stored.low - 1 + weight)
    total = width(pe, elements(pe.weights), activations).total - 1
    if arithmetic == "int8":
        lowest = scale_of(activations, pe.table_inputs).lowest
        return Addend(total + FP32.precision, lowest - 1 + FP32.low + weight)
    return Addend(total, min(element.quantum_exponent for element in activations) + weight)


def _normalised_bits(pe: LutPE, arithmetic: Arithmetic) -> int:
    """Of a significand: as wide as the magnitude, and two bits and a sticky one wider than the accumulator's where it
    may be shifted right into the subnormal numbers."""
    to, added = pe.sums.float_format, addend(pe, arithmetic)
    assert to is not None
    subnormal = added.exponent < to.low + to.precision - 1
    return max(added.bits, to.precision + 2) if subnormal else added.bits


def cut_registers(pe: LutPE, place: str) -> int:
    """Bits that cross a cut: the data, the exponent that belongs to them, and the flags that say what to do with them
    (a step begins, its sum is whole, a sum begins)."""
    activations = elements(pe.activations)
    wide = width(pe, elements(pe.weights), activations)
    scaled = [element for element in activations if pe.arithmetic(element) == "int8"]
    scale = scale_of(scaled, pe.table_inputs) if scaled else Scale(0, 0)
    of_scale = scale.bits if scaled else 0
    serial = pe.most_planes > 1
    if place == "normalise":
        return 1 + max(_normalised_bits(pe, each) for each in wide.arithmetics) + pe.sums.exponent_bits + 2
    if place == "product":
        return wide.total + FP32.precision + scale.exponent_bits + 2
    if place == "planes":
        return wide.total + of_scale + 2
    # One value is complemented before the cut and made the negative by a carry behind it; a sum of several is whole.
    carry = int(pe.tables == 1 or not pe.reinterpret) if wide.integers else 0
    plane = (pe.most_planes - 1).bit_length() if wide.floats else 0
    return wide.plane + carry + plane + of_scale + 2 + int(serial and wide.integers)


def components(
    pe: LutPE,
    *,
    weight_lines: int,
    activation_lines: int,
    stationary: Stationary,
    doubled: bool,
    pairs: Sequence[Pair],
) -> tuple[Component, ...]:
    """PEs, copies of the rows' tables, keys of the columns."""
    named = {pair_name(pair): pair for pair in pairs}
    by_formats: Params = {"weights": " ".join(pe.weights), "activations": " ".join(pe.activations)}
    tables: Params = {
        "lanes": pe.lanes,
        "table_inputs": pe.table_inputs,
        "reinterpret": int(pe.reinterpret),
        "tables": pe.stored,
    }
    copies_of_sum = 2 if doubled and stationary == "outputs" else 1
    own: Params = {
        "accumulator": pe.accumulator,
        "pipeline_stages": pe.pipeline_stages,
        "doubled": copies_of_sum - 1,
    }
    of_pe = _pe(pe, by_formats | tables | own, weight_lines * activation_lines, copies_of_sum, named)
    of_table = _table(pe, by_formats | tables, named)
    copies = ceil_div(weight_lines, pe.columns_per_table)
    of_keys: Params = {"weights": by_formats["weights"], "lanes": pe.lanes, "first": pe.first_plane}
    return (
        of_pe,
        replace(of_table, count=activation_lines * copies, copies=copies),
        replace(_keys(pe, of_keys, [weight.element for weight, _ in pairs]), count=weight_lines),
    )


def _pe(pe: LutPE, params: Params, count: int, copies_of_sum: int, named: dict[str, Pair]) -> Component:
    """A PE negates what it reads (a multiplexer between entry and complement; the 1 is the carry into the next adder),
    adds the tables' values in a tree, adds planes to twice the sum of those above them, the highest first, and adds
    that sum to its accumulator. With tables of floats that are not quantized it has neither: a plane's exponent is
    raised by its weight and it goes into the accumulator itself.
    """
    full = width(pe, elements(pe.weights), elements(pe.activations))
    accumulator = Part("accumulator", "register", {"bits": pe.accumulator_bits}, copies_of_sum)
    parts = [part for part, _ in _circuits(pe, full)] + [pe.partial_adder(), accumulator]
    idle = {(part.name, "clock"): part.count for part in parts if part.kind == "register"}
    events: dict[str, Uses] = {"idle": idle}
    for name, (weight, activation) in named.items():
        planes = pe.planes(weight.element)
        step: Uses = {}
        for part, when in _circuits(pe, width(pe, [weight.element], [activation.element])):
            narrow = Part(f"{part.name} {name}", part.kind, part.params, 0)
            parts.append(narrow)
            _use(step, narrow.name, part, planes if when == "plane" else 1, planes)
        sums = planes if pe.arithmetic(activation.element) == "float" else 1
        step["accumulate", "operate"] = step["accumulator", "write"] = sums
        if copies_of_sum * planes > sums:
            step["accumulator", "clock"] = copies_of_sum * planes - sums
        events[f"step {name}"] = step
    return Component("pe", pe.family, params, count, tuple(parts), events)


def _use(step: Uses, name: str, part: Part, times: int, cycles: int) -> None:
    """A part works ``times`` in a step of ``cycles``; registers are clocked in the others, too."""
    if part.kind != "register":
        step[name, "operate"] = part.count * times
        return
    step[name, "write"] = part.count * times
    if cycles > times:
        step[name, "clock"] = part.count * (cycles - times)


def _circuits(pe: LutPE, wide: Width) -> list[tuple[Part, When]]:
    """What stands in a PE before its accumulator, and whether it works for every plane or once a step."""
    choices = 2 ** (pe.table_inputs - pe.reinterpret)
    signed = wide.entry if wide.integers else 1
    parts: list[tuple[Part, When]] = []
    if choices > 1:
        select = Part("select", "multiplexer", {"inputs": choices, "bits": wide.entry}, pe.tables)
        parts.append((select, "plane"))
    if pe.reinterpret:
        parts.append((Part("negate", "multiplexer", {"inputs": 2, "bits": signed}, pe.tables), "plane"))
    if pe.tables > 1:
        parts.append((Part("tree", "int_adder", {"bits": wide.plane}, pe.tables - 1), "plane"))
        if wide.floats:
            parts.append((Part("align", "shifter", {"bits": wide.plane}, pe.tables), "plane"))
    if not pe.reinterpret:
        bits = wide.plane if wide.integers else 1
        parts.append((Part("negate", "multiplexer", {"inputs": 2, "bits": bits}), "plane"))
    if wide.integers and pe.most_planes > 1:
        parts.append((Part("plane_adder", "int_adder", {"bits": wide.total}), "plane"))
        # The sum of the planes above is doubled, so that its top bit is lost.
        parts.append((Part("plane_sum", "register", {"bits": wide.total - 1}), "plane"))
    if wide.floats:
        parts.append((Part("plane_exponent", "int_adder", {"bits": pe.sums.exponent_bits}), "plane"))
    if "int8" in wide.arithmetics:
        scale = {"a_bits": FP32.precision, "b_bits": wide.total - 1}
        parts.append((Part("scale_multiplier", "int_multiplier", scale), "step"))
    for place in cut_places(pe)[: pe.pipeline_stages - 1]:
        registers = Part(f"cut_{place}", "register", {"bits": cut_registers(pe, place)})
        parts.append((registers, "plane" if place == "read" else "step"))
    return parts


def _table(pe: LutPE, params: Params, named: dict[str, Pair]) -> Component:
    """One copy of a row's tables. They are clocked through the step that reads them."""
    activations = elements(pe.activations)
    entry = max(map(pe.entry_bits, activations))
    parts = [Part("entries", "register", {"bits": entry}, pe.tables * pe.entries)]
    if any(pe.arithmetic(element) == "int8" for element in activations):
        parts.append(Part("scale", "register", {"bits": FP32.bits}))
    events: dict[str, Uses] = {}
    for name, (weight, activation) in named.items():
        waits = pe.planes(weight.element) - 1
        narrow = Part(f"entries {name}", "register", {"bits": pe.entry_bits(activation.element)}, 0)
        parts.append(narrow)
        load: Uses = {(narrow.name, "write"): pe.entries}
        events[f"load {name}"] = load | ({("entries", "clock"): pe.entries * waits} if waits else {})
        if pe.arithmetic(activation.element) == "int8":
            scale: Uses = {("scale", "write"): 1}
            events[f"scale {name}"] = scale | ({("scale", "clock"): waits} if waits else {})
    return Component("table", f"{pe.family}_table", params, 1, tuple(parts), events)


def _keys(pe: LutPE, params: Params, weights: Iterable[Element]) -> Component:
    """Keys of a column: a shift register a lane, whose last bit is the key of this cycle's plane."""
    parts = [Part("keys", "register", {"bits": max(map(pe.planes, elements(pe.weights)))}, pe.lanes)]
    events: dict[str, Uses] = {}
    for element in {element.name: element for element in weights}.values():
        planes = pe.planes(element)
        narrow = Part(f"keys {element.name}", "register", {"bits": planes}, 0)
        parts.append(narrow)
        events[f"load {element.name}"] = {(narrow.name, "write"): planes}
    return Component("keys", f"{pe.family}_keys", params, 1, tuple(parts), events)
