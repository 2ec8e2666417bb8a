"""Streams of bit-serial units: steps of operands, taken apart into what enters in each cycle.

A step's operands are codes as in `simulator.rtl.units.dot_operands`, the next step follows in the cycle after the last
one's, and a PE waits for none but its own lanes. Kinds of codes:

``gaussian``  integers, standard deviation a quarter of the range; pruned weights are made of such INT8 weights by their
              format's own rule, in groups of 32.
``uniform``   every code equally likely.
``model``     a network's (`simulator.rtl.units.model_operands`).
``steps``     the parallel operand Gaussian, one a step; nothing comes of the other.
``zero``      all operands zero, and no step begins.
``mixed``     half of the steps uniform, half of extreme codes: zero, single bits, all ones, the most negative value.

A new sum begins every 64th step (``mixed``: every third).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from simulator.formats import Format
from simulator.formats.element import Element
from simulator.formats.pruning import GROUP, OFFSETS, Method, prune
from simulator.pe.bitvert import BitVertPE
from simulator.pe.elements import element_format
from simulator.pe.pragmatic import PragmaticPE, positions
from simulator.pe.protocol import Function, Pair, Side
from simulator.pe.serial.datapath import sum_bits
from simulator.pe.serial.family import SerialPE
from simulator.pe.serial.terms import Recoding, term_masks
from simulator.pe.stripes import StripesPE
from simulator.rtl.unit import Bits, Codes, port_bits, port_words
from simulator.rtl.units.dot_operands import element_codes, operand_codes

Flags = npt.NDArray[np.bool_]
KINDS = ("gaussian", "uniform", "steps", "zero", "mixed", "model")
SUM_STEPS = 64
_MIXED_SUM_STEPS = 3
_PARALLEL = ("w", "w_signed", "parallel", "parallel_signed", "a", "a_signed", "sums", "total", "load")
"""Ports of the parallel operand, and when it is taken."""


@dataclass(frozen=True)
class Steps:
    """Operands step by step."""

    activations: Codes
    """(steps, lanes) element integers."""
    weights: Codes
    first: Flags
    """(steps,) the step begins a sum."""
    selectors: Codes | None = None
    """(steps,) of the group that pruned weights belong to."""


@dataclass(frozen=True)
class Cycles:
    """What enters a PE cycle by cycle, and what the PE's function makes of it."""

    ports: Mapping[str, Bits]
    activations: Codes
    """(cycles, lanes): what each cycle adds to the sum is the product of these and the next."""
    weights: Codes
    first: Flags
    """(cycles,) a sum begins."""
    loads: Flags
    """A step begins."""
    terms: Codes
    """Terms of all lanes."""


def step_operands(
    weight: Format, activation: Format, kind: str, steps: int, lanes: int, seed: int = 0
) -> Steps:
    """Operands of one of `KINDS`; the same for the same arguments. Serial operands of ``steps`` are not zeroed here."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    activations = _codes(activation.element, "activations", kind, rng, (steps, lanes))
    weights, selectors = _weights(weight.element, kind, rng, (steps, lanes))
    every = _MIXED_SUM_STEPS if kind == "mixed" else SUM_STEPS
    return Steps(activations, weights, np.arange(steps) % every == 0, selectors)


def _codes(
    element: Element, side: Side, kind: str, rng: np.random.Generator, shape: tuple[int, int]
) -> Codes:
    if kind in ("gaussian", "uniform", "zero", "model"):
        return operand_codes(element, side, kind, rng, shape)
    if kind == "steps":
        return element_codes(element, "gaussian", rng, shape)
    corners = rng.choice(corner_codes(element), shape)
    return np.where(rng.random((shape[0], 1)) < 0.5, corners, element_codes(element, "uniform", rng, shape))


def corner_codes(element: Element) -> list[int]:
    """Zero, one, single bits, all ones, the largest and the most negative value of an integer format."""
    bits = element.bits - (element.kind == "int")
    values = {0, (1 << bits) - 1, *(1 << place for place in range(bits))}
    return sorted(values | {~value for value in values} if element.kind == "int" else values)


def _weights(
    element: Element, kind: str, rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[Codes, Codes | None]:
    method, columns = pruned(element)
    if method is None:
        return _codes(element, "weights", kind, rng, shape), None
    steps, lanes = shape
    whole = -(-steps * lanes // GROUP) * GROUP
    int8 = element_format("int8").element
    codes = _codes(int8, "weights", kind, rng, (whole // lanes + 1, lanes))
    flat = np.clip(codes, -127, 127).reshape(1, -1)[:, :whole]
    found = prune(flat, method, columns)
    weights = found.weights.reshape(-1)[: steps * lanes].reshape(shape)
    return weights, found.selectors.reshape(-1)[np.arange(steps) * lanes // GROUP]


def pruned(element: Element) -> tuple[Method | None, int]:
    """(method, columns that are gone) of BBS's formats; (None, 0) of integers."""
    found = re.fullmatch("(bbs_avg|bbs_zp)([1-6])", element.name)
    return (cast(Method, found[1]), int(found[2])) if found else (None, 0)


def pe_cycles(pe: SerialPE, pair: Pair, kind: str, cycles: int, seed: int = 0) -> Cycles:
    """The stream of a kind for a PE, cut off after so many cycles."""
    steps = step_operands(*pair, kind, cycles, pe.lanes, seed)
    if kind in ("steps", "zero"):
        nothing = np.zeros_like(steps.weights)
        if serial_side(pe) == "weights":
            steps = replace(steps, weights=nothing, selectors=None)
        else:
            steps = replace(steps, activations=nothing)
    found = cycles_of_steps(pe, pair, steps, cycles)
    if kind not in ("steps", "zero"):
        return found
    kept = _PARALLEL if kind == "steps" else ()
    ports = {name: bits if name in kept else np.zeros_like(bits) for name, bits in found.ports.items()}
    never = np.zeros_like(found.first)
    return replace(found, ports=ports, first=never, loads=found.loads if kind == "steps" else never)


def cycles_of_steps(pe: SerialPE, pair: Pair, steps: Steps, cycles: int) -> Cycles:
    """What enters the PE for these steps, one behind the other; of more than ``cycles`` the first."""
    if isinstance(pe, StripesPE):
        return _stripes(pe, pair, steps, cycles)
    if isinstance(pe, PragmaticPE):
        return _pragmatic(pe, pair, steps, cycles)
    assert isinstance(pe, BitVertPE)
    return _bitvert(pe, pair, steps, cycles)


def expected_sums(function: Function, stream: Cycles, doubled: bool) -> list[int]:
    """What the port shows after each cycle's operands, by the PE's function: the sum so far or, with two accumulators,
    the one that was finished last."""
    state = np.zeros((1, function.words), function.dtype)
    sums: list[int] = []
    finished = [0]
    for cycle, first in enumerate(stream.first):
        if first:
            finished.append(sums[-1] if sums else 0)
            state = np.zeros_like(state)
        now = slice(cycle, cycle + 1)
        state = function.step(state, stream.activations[now], stream.weights[now])
        sums.append(int(function.result(state)[0]))
    return [finished[count] for count in np.cumsum(stream.first)] if doubled else sums


def serial_side(pe: SerialPE) -> Side:
    """The operand that is taken bit by bit, term by term, column by column."""
    if isinstance(pe, PragmaticPE):
        return pe.serial
    return "activations" if isinstance(pe, StripesPE) else "weights"


def widest(pe: SerialPE, side: Side) -> int:
    """Bits of a word."""
    return max(element.bits for element in pe.elements(side))


def term_bits(pe: PragmaticPE) -> int:
    """Of a lane's term at the PE: distance in the first stage, sign, whether there is one."""
    return (pe.window(widest(pe, pe.serial)) - 1).bit_length() + 2


def base_bits(pe: PragmaticPE) -> int:
    """Of the lowest position of all lanes; 0 where the first stage reaches all."""
    bits = widest(pe, pe.serial)
    return (positions(bits, pe.recoding) - pe.window(bits)).bit_length()


@dataclass(frozen=True)
class EdgeCycles:
    """What enters something at the edge of an array cycle by cycle, and what then leaves it."""

    ports: Mapping[str, Bits]
    expected: Sequence[tuple[int, ...]]
    """Words at the output ports, a cycle after."""
    loads: Flags


def edge_cycles(
    pe: SerialPE, side: Side, format: Format, kind: str, cycles: int, seed: int = 0
) -> EdgeCycles:
    """The stream of a kind for what stands beside a PE: words of a format, as soon as the last ones have gone."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    lanes = 1 if isinstance(pe, StripesPE) else pe.lanes
    words = _codes(format.element, side, kind, rng, (cycles + 1, lanes))
    bits, is_signed = widest(pe, side), format.element.kind == "int"
    ports = {"signed": _flag(np.full(cycles, is_signed))}
    if isinstance(pe, StripesPE):
        step, column = np.divmod(np.arange(cycles), format.element.bits)
        place = format.element.bits - 1 - column
        load, bit = column == 0, words[step, 0] >> place & 1
        ports = {"select": _later(port_bits(place, (bits - 1).bit_length()))}
        expected: list[tuple[int, ...]] = [(out,) for out in bit.tolist()]
    elif isinstance(pe, PragmaticPE):
        terms = encoder_terms(pe, words, cycles)
        step, load = terms.step, terms.load
        packed = port_words(port_bits(terms.packed, term_bits(pe)))
        columns = [packed, terms.last.astype(int).tolist(), *([terms.base.tolist()] if base_bits(pe) else [])]
        expected = list(zip(*columns, strict=True))
    else:
        assert isinstance(pe, BitVertPE)
        step, load = np.arange(cycles), np.ones(cycles, np.bool_)
        expected = [(number,) for number in port_words(_sums(pe, words[:cycles], bits))]
    ports |= {"word": port_bits(words[step], bits), "load": _flag(load)}
    return EdgeCycles(ports, expected, load)


def _sums(pe: BitVertPE, activations: Codes, bits: int) -> Bits:
    """(cycles, bits) of the sums of sub-groups and, of several, of that of all."""
    of_group = activations.reshape(len(activations), -1, pe.sub_group).sum(axis=2)
    found = port_bits(of_group, sum_bits(pe.sub_group, bits))
    if pe.lanes == pe.sub_group:
        return found
    return np.concatenate([found, port_bits(activations.sum(axis=1), sum_bits(pe.lanes, bits))], axis=1)


def _stripes(pe: StripesPE, pair: Pair, steps: Steps, cycles: int) -> Cycles:
    """A step's bits from the highest on."""
    bits, signed = pair[1].element.bits, pair[1].element.kind == "int"
    step, column = np.divmod(np.arange(cycles), bits)
    place = bits - 1 - column
    activations, weights = steps.activations[step], steps.weights[step]
    load, last = column == 0, place == 0
    ports = {
        "bits": port_bits(activations >> place[:, None] & 1, 1),
        "w": port_bits(weights, widest(pe, "weights")),
        "w_signed": _flag(np.full(cycles, pair[0].element.kind == "int")),
        "load": _flag(load),
        "negate": _flag((column == 1) & signed),
        "last": _flag(last),
        "first": _flag(load & steps.first[step]),
    }
    # The accumulator sees a step with its last bit.
    added = np.where(last[:, None], activations, 0)
    return Cycles(ports, added, weights, load & steps.first[step], load, np.zeros(cycles, np.int64))


def signed_terms(values: Codes, recoding: Recoding) -> tuple[Codes, Codes]:
    """Masks of the positive and of the negative terms: their sum is the mask of all, their difference the value."""
    masks = term_masks(values, recoding)
    plus = (masks + values) >> 1
    return plus, masks ^ plus


def retired(masks: Codes, reach: int) -> list[Codes]:
    """What two-stage shifting takes of the masks (lanes,) in each cycle, as masks: `sync.two_stage_cycles`, term by
    term."""
    taken: list[Codes] = []
    while masks.any() or not taken:
        lowest = masks & -masks
        base = lowest[lowest > 0].min(initial=1 << 62)
        now = np.where(lowest >> reach <= base, lowest, 0)
        taken.append(now)
        masks = masks ^ now
    return taken


@dataclass(frozen=True)
class EncoderTerms:
    """What an encoder puts out, cycle by cycle."""

    packed: Codes
    """(cycles, lanes): distance in the first stage, sign, whether there is a term."""
    base: Codes
    """(cycles,) lowest position."""
    values: Codes
    """(cycles, lanes) the terms as numbers."""
    step: Codes
    """(cycles,) which step they are of."""
    load: Flags
    """The first of a step."""
    last: Flags


def encoder_terms(pe: PragmaticPE, serial: Codes, cycles: int) -> EncoderTerms:
    """Terms of the serial operand (steps, lanes), at least ``cycles`` steps."""
    bits = widest(pe, pe.serial)
    places, window = positions(bits, pe.recoding), pe.window(bits)
    taken: list[Codes] = []
    negative: list[Codes] = []
    owner: list[int] = []
    for step in range(len(serial)):
        plus, minus = signed_terms(serial[step], pe.recoding)
        now = retired(plus | minus, window - 1)
        taken += now
        negative += [mask & minus for mask in now]
        owner += [step] * len(now)
        if len(taken) > cycles:
            break
    masks, minus, step_of = np.array(taken), np.array(negative), np.array(owner)
    valid = masks > 0
    position = np.where(valid, np.frexp(masks.astype(np.float64))[1] - 1, 0)
    lowest = np.where(valid, position, places).min(axis=1)
    base = np.minimum(lowest, places - window)
    offset_bits = (window - 1).bit_length()
    offset = np.where(valid, position - base[:, None], 0)
    packed = offset | (minus > 0) << offset_bits | valid << offset_bits + 1
    return EncoderTerms(
        packed[:cycles],
        base[:cycles],
        (masks - 2 * minus)[:cycles],
        step_of[:cycles],
        (np.diff(step_of, prepend=-1) > 0)[:cycles],
        (np.diff(step_of, append=len(serial)) > 0)[:cycles],
    )


def _pragmatic(pe: PragmaticPE, pair: Pair, steps: Steps, cycles: int) -> Cycles:
    """A step's terms as the encoder finds them."""
    weights_serial = pe.serial == "weights"
    serial, parallel = (
        (steps.weights, steps.activations) if weights_serial else (steps.activations, steps.weights)
    )
    terms = encoder_terms(pe, serial, cycles)
    load, words = terms.load, parallel[terms.step]
    offset_bits = term_bits(pe) - 2
    ports = {
        "terms": port_bits(terms.packed, offset_bits + 2),
        "parallel": port_bits(words, widest(pe, pe.parallel)),
        "parallel_signed": _flag(np.full(len(load), pair[weights_serial].element.kind == "int")),
        "load": _flag(load),
        "first": _flag(load & steps.first[terms.step]),
    }
    if base_bits(pe):
        ports["lowest"] = port_bits(terms.base, base_bits(pe))
    sides = (words, terms.values) if weights_serial else (terms.values, words)
    valid = terms.packed >> offset_bits + 1
    return Cycles(ports, *sides, load & steps.first[terms.step], load, valid.sum(axis=1))


def columns_of(element: Element, weights: Codes, selector: int | None) -> tuple[Codes, int, int, bool]:
    """(codes, position of the lowest column, the group's constant, whether that is signed) of whole weights, or of
    pruned ones of a group, in two's complement of the element's bits."""
    method, columns = pruned(element)
    if selector is None:
        return weights, 0, 0, False
    if method == "bbs_avg":
        cut = max(columns - (selector & 3), 0)
        constant = selector >> 2 & (1 << cut) - 1
    else:
        cut = min(selector & 7, columns)
        constant = -OFFSETS[selector >> 3]
    return (weights - constant) >> cut, cut, constant, method == "bbs_zp"


def column_lead(pe: BitVertPE) -> int:
    """Cycles that a step's first column is at the PE before the activations: lanes are chosen meanwhile."""
    return int(pe.pipeline_depth > 2)


def _bitvert(pe: BitVertPE, pair: Pair, steps: Steps, cycles: int) -> Cycles:
    """A step's columns from the highest on, its group's constant beside the first two. Where the choice of lanes is cut
    off, activations come behind the columns."""
    lead = column_lead(pe)
    element, bits = pair[0].element, pair[0].element.bits
    step, column = np.divmod(np.arange(cycles), bits)
    place = bits - 1 - column
    load, top = column == 0, (column == 0) & (element.kind != "uint")
    bit, position = np.empty((cycles, pe.lanes), np.int64), np.empty(cycles, np.int64)
    digit, signed = np.zeros(cycles, np.int64), np.zeros(cycles, np.bool_)
    for cycle in range(cycles):
        codes, cut, constant, constant_signed = columns_of(
            element,
            steps.weights[step[cycle]],
            None if steps.selectors is None else int(steps.selectors[step[cycle]]),
        )
        bit[cycle] = codes >> place[cycle] & 1
        position[cycle] = place[cycle] + cut
        if column[cycle] < 2:
            digit[cycle] = constant >> 3 * column[cycle] & 7
            signed[cycle] = constant_signed and column[cycle] == 1
    activations = steps.activations[step]
    a_bits = widest(pe, "activations")
    of_group = activations.reshape(cycles, -1, pe.sub_group).sum(axis=2)
    whole = activations.sum(axis=1)
    ports = {
        "column": port_bits(bit, 1),
        "a": _later(port_bits(activations, a_bits), lead),
        "a_signed": _flag(np.full(cycles, pair[1].element.kind == "int")),
        # From registers at the edge, which take them while the words go into the PE's own.
        "sums": _later(port_bits(of_group, sum_bits(pe.sub_group, a_bits)), lead + 1),
        "total": _later(port_bits(whole, sum_bits(pe.lanes, a_bits)), lead + 1),
        "position": port_bits(position, 3),
        "digit": port_bits(digit, 3),
        "digit_signed": _flag(signed),
        "upper": _flag(column == 1),
        "negate": _flag(top),
        "load": _later(_flag(load), lead),
        "first": _flag(load & steps.first[step]),
    }
    value = np.where(top, -1, 1) << position
    added = bit * value[:, None] + ((digit - 8 * (signed & (digit > 3))) << 3 * (column == 1))[:, None]
    return Cycles(ports, activations, added, load & steps.first[step], load, np.zeros(cycles, np.int64))


def _later(bits: Bits, cycles: int = 1) -> Bits:
    return np.concatenate([np.zeros_like(bits[:cycles]), bits[: len(bits) - cycles]])


def _flag(values: Flags) -> Bits:
    return port_bits(values.astype(np.int64), 1)
