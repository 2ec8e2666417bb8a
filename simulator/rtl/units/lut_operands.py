"""Operand streams of look-up-table units, and what must come out.

Activations and weights are drawn as those of dot products are (`dot_operands`); tables are what the PE's function
stores of them, keys the weights' bits as they lie in memory. Stimuli:

``gaussian``, ``uniform``  a step after the other, each with new activations and weights
``model``                  the same with a network's operands (`simulator.rtl.units.model_operands`), weights with zero
                           points
``zero``                   the same with activations of zero
``corners``                extreme activations and weights, cycles without a step in between
``scales``                 of tables: entries stay, every step has a new scale
``rest``                   no step at all

A new sum begins with every 64th step, at the corners with every fourth on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simulator.formats.bipolar import bit_planes
from simulator.formats.element import Element, decode_integers, encode
from simulator.pe.arithmetic import FP32, integers_of
from simulator.pe.elements import element_format
from simulator.pe.lut import LutPE
from simulator.pe.lut_structure import elements, width
from simulator.pe.protocol import Pair
from simulator.pe.table_function import TableFunction
from simulator.pe.tables import keys
from simulator.rtl.unit import Bits, Codes, port_bits
from simulator.rtl.units.dot_operands import SUM_LENGTH, element_codes, operand_codes
from simulator.rtl.units.model_operands import model_codes, model_format

Words = Mapping[str, tuple[Codes, int]]
"""{port: (numbers (cycles,) or (cycles, words), bits of a word)}."""
REST = -1
"""The step of a cycle without one."""


def pe_inputs(pe: LutPE) -> dict[str, int]:
    """{port: bits} of what a PE sees."""
    wide = width(pe, elements(pe.weights), elements(pe.activations))
    ports = {"entries": pe.tables * pe.entries * wide.entry, "keys": pe.lanes}
    ports |= {"scale": FP32.bits} if "int8" in wide.arithmetics else {}
    if pe.most_planes > 1:
        ports |= {"plane": (pe.most_planes - 1).bit_length()} if wide.floats else {"start": 1}
    return ports | ({} if pe.reinterpret else {"subtract": 1}) | {"last": 1, "first": 1}


@dataclass(frozen=True)
class Steps:
    """Operands of steps, and when they are read."""

    pe: LutPE
    pair: Pair
    activations: Codes
    """(steps, lanes) integers of the activations' format."""
    weights: Codes
    """(steps, lanes) integers as the PE's function takes them."""
    step: Codes
    """(cycles,) whose plane is read in a cycle, or `REST`."""
    order: Codes
    """(cycles,) 0 in a step's first cycle, 1 in its second, ..."""
    new: npt.NDArray[np.bool_]
    """(steps,) a new sum begins with this step."""

    @property
    def function(self) -> TableFunction:
        return self.pe.function(*self.pair)

    @property
    def planes(self) -> int:
        return self.pe.planes(self.pair[0].element)

    @property
    def plane(self) -> Codes:
        """(cycles,) number of the plane that is read."""
        return self.planes - 1 - self.order if self.pe.first_plane == "highest" else self.order

    @property
    def begins(self) -> npt.NDArray[np.bool_]:
        """(cycles,) a step begins."""
        return np.asarray((self.step != REST) & (self.order == 0))

    @property
    def ends(self) -> npt.NDArray[np.bool_]:
        """(cycles,) the accumulator takes something."""
        every_plane = self.function.arithmetic == "float"
        return np.asarray((self.step != REST) & (every_plane | (self.order == self.planes - 1)))

    @property
    def first(self) -> npt.NDArray[np.bool_]:
        """(cycles,) what the accumulator takes begins a new sum."""
        whole = self.function.arithmetic != "float"
        return np.asarray(self.new[self.step] & self.ends & ((self.order == 0) | whole))

    def tables(self) -> Words:
        """Entries and scales of each step."""
        entries, scales = self.function.stored(self.activations)
        if not self.pe.reinterpret:
            entries = entries[..., 1:]
        entries = entries.reshape(len(entries), -1)
        bits = max(self.pe.entry_bits(element_format(name).element) for name in self.pe.activations)
        if self.function.arithmetic == "float":
            entries = encode(element_format(self.pe.float_tables).element, entries).astype(np.int64)
        words = {"entries": (entries.astype(np.int64), bits)}
        if scales is None:
            return words
        return words | {"scale": (scales.astype(np.float32).view(np.int32).astype(np.int64), 32)}

    def key_bits(self) -> Codes:
        """(planes, steps, lanes): bits of the weights as they lie in memory, the lowest plane first. Of reinterpreted
        ones the last of a table says that the entry is negated, and the others are inverted where it does."""
        if not self.pe.reinterpret:
            return np.stack([self.weights >> plane & 1 for plane in range(self.planes)])
        inputs = self.pe.table_inputs
        signs, indices = keys(bit_planes(self.weights, self.planes), inputs)
        words = indices | (signs < 0).astype(np.int64) << (inputs - 1)
        return (words[..., None] >> np.arange(inputs) & 1).reshape(self.planes, *self.weights.shape)

    def pe_ports(self) -> Mapping[str, Bits]:
        """What a PE sees, cycle by cycle; without a step what it saw in the last one."""
        seen = np.maximum.accumulate(np.where(self.step == REST, 0, self.step))
        words: dict[str, tuple[Codes, int]] = {
            name: (numbers[seen], bits) for name, (numbers, bits) in self.tables().items()
        }
        words["keys"] = (self.key_bits()[self.plane, seen], 1)
        words |= {name: (flags, pe_inputs(self.pe)[name]) for name, flags in self.flags().items()}
        return {name: port_bits(*words[name]) for name in pe_inputs(self.pe)}

    def flags(self) -> Mapping[str, Codes]:
        """{port: (cycles,)} what a PE has to do, of those ports that it has."""
        negative = (self.plane == self.planes - 1) & (self.pair[0].element.kind == "int")
        flags = {"start": self.begins, "last": self.ends, "first": self.first, "subtract": negative}
        ports = {name: flag.astype(np.int64) for name, flag in flags.items()} | {"plane": self.plane}
        return {name: flags for name, flags in ports.items() if name in pe_inputs(self.pe)}

    def table_ports(self) -> Mapping[str, Bits]:
        """What is loaded into a row's tables in the cycle in which a step begins."""
        ports = {"load": port_bits(self.begins.astype(np.int64), 1)}
        for name, (numbers, bits) in self.tables().items():
            ports[f"{name}_in"] = port_bits(numbers[np.maximum(self.step, 0)], bits)
        return ports

    def keys_ports(self) -> Mapping[str, Bits]:
        """What is loaded into a column's keys: on top where the highest plane comes first, else at the bottom."""
        bits = self.pe.most_planes
        words = np.tensordot(1 << np.arange(self.planes), self.key_bits(), axes=1)
        if self.pe.first_plane == "highest":
            words = words << (bits - self.planes)
        loaded = words[np.maximum(self.step, 0)]
        return {"load": port_bits(self.begins.astype(np.int64), 1), "keys_in": port_bits(loaded, bits)}

    def sums(self, *, finished: bool) -> list[int]:
        """What the accumulator holds after each cycle, or the second one of two, as the PE's function writes it.

        Raises InputError where a sum overflows the accumulator's format: the hardware's answer is then undefined.
        """
        function = self.function
        state = before = np.zeros((1,), function.dtype)
        found = []
        for cycle, step in enumerate(self.step.tolist()):
            if self.first[cycle]:
                before, state = state, np.zeros_like(state)
            if self.ends[cycle] and function.arithmetic == "float":
                plane = int(self.plane[cycle])
                read = function.float_planes(self.activations[step], self.weights[step])[plane]
                assert function.sums.float_format is not None
                weight = np.ldexp(np.atleast_1d(read), function.weight_exponent + plane)
                state = function.add(state, integers_of(weight, function.sums.float_format.low))
            elif self.ends[cycle]:
                state = function.step(state, self.activations[step], self.weights[step])
            found.append(int((before if finished else state)[0]))
        return found


def draw(pe: LutPE, kind: str, pair: Pair, cycles: int, seed: int = 0) -> Steps:
    """The steps of a stimulus; the same for the same arguments."""
    rng = np.random.default_rng([seed, kind == "uniform"])
    weight, activation = (format.element for format in pair)
    planes = pe.planes(weight)
    gaps = rng.integers(0, 3, cycles) if kind == "corners" else np.zeros(cycles, np.int64)
    step, order = _schedule(planes, cycles, gaps)
    if kind == "rest":
        step, order = np.full(cycles, REST, np.int64), np.zeros(cycles, np.int64)
    shape = (cycles // planes + 1, pe.lanes)
    new = np.arange(shape[0]) % SUM_LENGTH == 0
    if kind == "corners":
        new |= rng.integers(0, 4, shape[0]) == 0
        weights, codes = _corner_weights(pe, weight, rng, shape), _corner_codes(pe, activation, rng, shape)
    else:
        weights = _weights(pe, weight, "gaussian" if kind in ("zero", "rest") else kind, rng, shape)
        drawn = "zero" if kind in ("zero", "rest") else kind
        codes = operand_codes(activation, "activations", drawn, rng, shape)
    if kind == "rest":
        weights[:] = weights[:1]
    activations, _ = decode_integers(activation, codes)
    return Steps(pe, pair, np.asarray(activations), weights, step, order, new)


def _schedule(planes: int, cycles: int, gaps: Codes) -> tuple[Codes, Codes]:
    """(step, order) of every cycle; ``gaps``: cycles without a step behind each."""
    step, order = np.full(cycles, REST, np.int64), np.zeros(cycles, np.int64)
    at = 0
    for number, gap in enumerate(gaps.tolist()):
        here = slice(at, min(at + planes, cycles))
        step[here], order[here] = number, np.arange(planes)[: max(cycles - at, 0)]
        at += planes + gap
        if at >= cycles:
            break
    return step, order


def _weights(
    pe: LutPE, element: Element, kind: str, rng: np.random.Generator, shape: tuple[int, ...]
) -> Codes:
    if kind == "model":
        format = model_format(element, "weights")
        codes = model_codes(replace(format, has_zero_point=element.is_integer), "weights", shape)
        if not element.is_integer:
            return np.array(element.tables[0])[codes]
    elif not element.is_integer:
        return rng.choice(element.tables[0], shape)
    else:
        codes = element_codes(element, kind, rng, shape)
    return _taken(pe, element, codes)


def _taken(pe: LutPE, element: Element, codes: Codes) -> Codes:
    """Integers as the function takes them: odd ones, unless plain bits are the keys."""
    if not pe.reinterpret:
        return codes
    return 2 * codes + (1 - (1 << element.bits) if element.kind == "uint" else 1)


def _corner_weights(pe: LutPE, element: Element, rng: np.random.Generator, shape: tuple[int, ...]) -> Codes:
    if not element.is_integer:
        return rng.choice(element.tables[0], shape)
    lowest = 0 if element.kind == "uint" else -(1 << (element.bits - 1))
    highest = lowest + (1 << element.bits) - 1
    return _taken(pe, element, rng.choice([lowest, highest, (lowest + highest) // 2], shape))


def _corner_codes(pe: LutPE, element: Element, rng: np.random.Generator, shape: tuple[int, ...]) -> Codes:
    """Zeros of both signs, smallest and largest magnitudes of both signs, the largest of which entries and sums of a
    few steps are finite; now and then all lanes alike."""
    top = element.max_code
    if element.kind == "int":
        codes = rng.choice([0, 1, -1, top, -top - 1], shape)
    elif element.kind == "uint":
        codes = rng.choice([0, 1, top], shape)
    else:
        low = 1 << element.mantissa_bits
        small = pe.stored == "fp16" or pe.accumulator == "fp16"
        largest = int(encode(element, np.array(element.max_value / 2**10))) if small else top
        codes = rng.choice([0, 1, low - 1, low, largest // 2, largest], shape)
        codes = codes | rng.integers(0, 2, shape) << (element.bits - 1)
    alike = rng.integers(0, 3, shape[:1]) == 0
    return np.where(alike[:, None], codes[:, :1], codes)
