"""The hardware of bit-serial PEs, in Amaranth: Stripes, Bit-Pragmatic, BitVert.

Ports are sampled at the rising edge of ``clk``; there is no reset. The parallel operand is taken with the first cycle
of a step (``load``) and held; its register has an enable, no clock gate. A PE takes signed and unsigned words of up to
its width: ``..._signed`` says which, a step at a time. ``first`` comes with the first cycle of a sum. ``out`` is the
accumulator or, with two, the second one, which takes the sum when ``first`` ends it; it shows what a cycle's operands
add `latency` cycles after they were at the ports.

Who counts the cycles of a step stands at the edge (`simulator.rtl.units.serial_edge`): a PE works on what comes. In
a cycle in which nothing is valid it adds zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.pe.pragmatic import PragmaticPE, positions
from simulator.pe.serial.datapath import sum_bits
from simulator.pe.stripes import StripesPE
from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Bit, Columns, ceil_log2, named, shift_left

if TYPE_CHECKING:
    from simulator.rtl.units.serial import SerialUnit

_POSITION_BITS = 3
"""Of a column of BitVert's weights of 8 bits."""


@dataclass(frozen=True)
class Adders:
    """How trees are built: their full adders, and whether for a tight clock."""

    full: FullAdder
    fast: bool

    def total(self, m: Module, columns: Columns) -> Value:
        return columns.total(m, self.full, fast=self.fast)


class SerialModule(Elaboratable):  # type: ignore[misc]
    """A PE, with full adders of a library's cells or of logic. ``inner``: part of an array, whose clock it takes."""

    def __init__(
        self, unit: SerialUnit, adder: FullAdder | None = None, *, fast: bool = False, inner: bool = False
    ) -> None:
        self.unit = unit
        self._adders = Adders(adder or FullAdder(), fast)
        self._domain = None if inner else ClockDomain("sync", reset_less=True)
        self.inputs = {name: Signal(width, name=name) for name, width in unit.input_widths.items()}
        self.out = Signal(unit.pe.accumulator_bits)

    @property
    def ports(self) -> list[Signal]:
        clock = [] if self._domain is None else [self._domain.clk]
        return [*clock, *self.inputs.values(), self.out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._domain is not None:
            m.domains.sync = self._domain
        pe, rank = self.unit.pe, _Rank(m)
        held = Signal(pe.accumulator_bits, name="accumulator", reset_less=True)
        if isinstance(pe, StripesPE):
            total, first = _stripes(m, pe, rank, self.inputs, held, self._adders)
        elif isinstance(pe, PragmaticPE):
            total, first = _pragmatic(m, pe, rank, self.inputs, held, self._adders)
        else:
            total, first = _bitvert(m, self.unit, rank, self.inputs, held, self._adders)
        m.d.sync += held.eq(total)
        m.d.comb += self.out.eq(held)
        if self.unit.doubled:
            finished = Signal(len(held), name="finished", reset_less=True)
            with m.If(first):
                m.d.sync += finished.eq(held)
            m.d.comb += self.out.eq(finished)
        return m


class _Rank:
    """Registers."""

    def __init__(self, m: Module) -> None:
        self._m = m

    def __call__(self, value: Value, name: str, enable: Value | None = None) -> Signal:
        held = Signal(len(value), name=name, reset_less=True)
        taken = held.eq(value)
        if enable is None:
            self._m.d.sync += taken
        else:
            with self._m.If(enable):
                self._m.d.sync += taken
        return held

    def cut(self, live: Mapping[str, Value], is_cut: bool) -> dict[str, Value]:
        """The same a cycle later, where the data path is cut."""
        return {name: self(value, f"{name}_cut") for name, value in live.items()} if is_cut else dict(live)


def _extended(m: Module, word: Value, is_signed: Value) -> Value:
    """Of either kind, as a signed number of one bit more."""
    return named(m, Cat(word, word[-1] & is_signed), "word")


def _lanes(value: Value, lanes: int) -> list[Value]:
    width = len(value) // lanes
    return [value[i * width : (i + 1) * width] for i in range(lanes)]


def _stripes(
    m: Module, pe: StripesPE, rank: _Rank, ports: Mapping[str, Value], held: Value, adders: Adders
) -> tuple[Value, Value]:
    """(what the accumulator takes, the flag of a new sum). The step's sum so far is doubled with each bit, with the
    second one subtracted where the first was the sign; with the last one the accumulator joins the same tree."""
    bits = rank(ports["bits"], "bits_q")
    words = rank(ports["w"], "operands", ports["load"])
    is_signed = rank(ports["w_signed"], "signed_q", ports["load"])
    flags = {name: rank(ports[name], f"{name}_q") for name in ("load", "negate", "last", "first")}

    serial_bits = max(element.bits for element in pe.elements("activations"))
    sum_width = sum_bits(pe.lanes, len(words) // pe.lanes + 1)
    partial = Signal(sum_width + serial_bits - 1, name="partial", reset_less=True)
    is_cut = pe.pipeline_depth > 1
    step = Columns(sum_width if is_cut else len(held))
    for bit, word in zip(bits, _lanes(words, pe.lanes), strict=True):
        step.add_signed(_extended(m, word, is_signed) & bit.replicate(len(word) + 1))
    if is_cut:
        live = rank.cut({"sum": adders.total(m, step), **flags}, is_cut)
        step = Columns(len(held))
        step.add_signed(live["sum"])
    else:
        live = dict(flags)
    so_far = named(m, partial & ~live["load"].replicate(len(partial)), "so_far")
    step.add_signed(named(m, so_far ^ live["negate"].replicate(len(partial)), "doubled"), 1)
    step.add_bit(1, Bit(live["negate"]))
    before = named(m, held & ~live["first"].replicate(len(held)), "before")
    step.add_unsigned(before & live["last"].replicate(len(before)))
    found = adders.total(m, step)
    m.d.sync += partial.eq(found[: len(partial)])
    return named(m, Mux(live["last"], found, before), "sum"), live["first"]


def _pragmatic(
    m: Module, pe: PragmaticPE, rank: _Rank, ports: Mapping[str, Value], held: Value, adders: Adders
) -> tuple[Value, Value]:
    """(what the accumulator takes, the flag of a new sum): the lanes' words, each shifted by its term, in one tree;
    where a second stage shifts their sum, that between two adders."""
    words = rank(ports["parallel"], "operands", ports["load"])
    is_signed = rank(ports["parallel_signed"], "signed_q", ports["load"])
    terms = rank(ports["terms"], "terms_q")
    first = rank(ports["first"], "first_q")
    lowest = rank(ports["lowest"], "lowest_q") if "lowest" in ports else C(0, 0)

    serial_bits = max(element.bits for element in pe.elements(pe.serial))
    window = pe.window(serial_bits)
    two_adders = pe.pipeline_depth > 1 or len(lowest) > 0
    width = len(words) // pe.lanes + window
    columns = Columns(sum_bits(pe.lanes, width) if two_adders else len(held))
    for term, word in zip(_lanes(terms, pe.lanes), _lanes(words, pe.lanes), strict=True):
        offset, negative, valid = term[: len(term) - 2], term[-2], term[-1]
        extended = _extended(m, word, is_signed) & valid.replicate(len(word) + 1)
        shifted = _shift_signed(m, extended, offset, width)
        columns.add_signed(named(m, shifted ^ negative.replicate(width), "term"))
        columns.add_bit(0, Bit(negative))
    if not two_adders:
        columns.add_unsigned(named(m, held & ~first.replicate(len(held)), "before"))
        return adders.total(m, columns), first
    live = {"sum": adders.total(m, columns), "first": first, "lowest": lowest}
    live = rank.cut({name: value for name, value in live.items() if len(value)}, pe.pipeline_depth > 1)
    total = live["sum"]
    if "lowest" in live:
        reach = len(total) + positions(serial_bits, pe.recoding) - window
        total = _shift_signed(m, total, live["lowest"], reach)
    last = Columns(len(held))
    last.add_signed(total)
    last.add_unsigned(named(m, held & ~live["first"].replicate(len(held)), "before"))
    return adders.total(m, last), live["first"]


def _shift_signed(m: Module, value: Value, amount: Value, width: int) -> Value:
    """A signed number, shifted left within ``width`` bits."""
    missing = max(width - len(value), 0)
    return shift_left(m, Cat(value, value[-1].replicate(missing)), amount, width)


def _bitvert(
    m: Module, unit: SerialUnit, rank: _Rank, ports: Mapping[str, Value], held: Value, adders: Adders
) -> tuple[Value, Value]:
    """(what the accumulator takes, the flag of a new sum). The sums of activations stay in the edge's registers for the
    whole step."""
    pe, cuts = unit.pe, unit.cuts
    column = rank(ports["column"], "column_q")
    names = ("position", "digit", "digit_signed", "upper", "negate", "first")
    live: dict[str, Value] = {name: rank(ports[name], f"{name}_q") for name in names}
    groups = [slice(low, low + pe.sub_group) for low in range(0, pe.lanes, pe.sub_group)]
    for number, lanes in enumerate(groups):
        bits = column[lanes]
        live[f"inverted{number}"] = named(m, _more_ones(m, bits, adders), "inverted")
        live[f"ones{number}"] = named(m, bits ^ live[f"inverted{number}"].replicate(len(bits)), "ones")
    takes = [_scheduled(m, live.pop(f"ones{number}")) for number in range(len(groups))]
    live |= {f"takes{number}": named(m, Cat(*each), "takes") for number, each in enumerate(takes)}
    live = rank.cut(live, "schedule" in cuts)

    operands = rank(ports["a"], "operands", ports["load"])
    is_signed = rank(ports["a_signed"], "signed_q", ports["load"])
    words, sums = _lanes(operands, pe.lanes), _lanes(ports["sums"], len(groups))
    columns = Columns(sum_bits(pe.lanes, len(words[0])) + 1)
    negate = live.pop("negate")
    for number, lanes in enumerate(groups):
        inverted, chosen = live.pop(f"inverted{number}"), live.pop(f"takes{number}")
        turned = named(m, inverted ^ negate, "turned")
        picked = _picked(m, chosen, words[lanes])
        for word in picked:
            extended = _extended(m, word, is_signed)
            columns.add_signed(extended ^ turned.replicate(len(extended)))
        # The complements' ones, all at once: there is a power of two of them.
        columns.add_bit(ceil_log2(len(picked)), Bit(turned))
        whole = _extended(m, sums[number], is_signed)
        whole = (whole & inverted.replicate(len(whole))) ^ negate.replicate(len(whole))
        columns.add_signed(named(m, whole, "complement"))
        columns.add_bit(0, Bit(negate))
    live |= {"sum": adders.total(m, columns), "total": _extended(m, ports["total"], is_signed)}
    live = rank.cut(live, "tree" in cuts)

    step = Columns(len(held))
    shifted = _shift_signed(m, live["sum"], live["position"], len(live["sum"]) + (1 << _POSITION_BITS) - 1)
    step.add_signed(shifted)
    _add_constant(m, step, live)
    step.add_unsigned(named(m, held & ~live["first"].replicate(len(held)), "before"))
    return adders.total(m, step), live["first"]


def _more_ones(m: Module, bits: Value, adders: Adders) -> Value:
    """More than half of the bits are ones."""
    columns = Columns(ceil_log2(len(bits)) + 1)
    for bit in bits:
        columns.add_bit(0, Bit(bit))
    count = adders.total(m, columns)
    return count > len(bits) // 2


def _scheduled(m: Module, ones: Value) -> list[Value]:
    """What each multiplexer takes, a bit for each lane that it sees: multiplexer j sees the lanes j to
    j + len(ones) / 2 and takes the lowest one that those before have left."""
    left = list(ones)
    takes = []
    for place in range(len(ones) // 2):
        found: Value = C(0, 1)
        chosen = []
        for lane in range(place, place + len(ones) // 2 + 1):
            chosen.append(named(m, left[lane] & ~found, "chosen"))
            found = found | left[lane]
            left[lane] = named(m, left[lane] & ~chosen[-1], "left")
        takes.append(Cat(*chosen))
    return takes


def _picked(m: Module, takes: Value, words: list[Value]) -> list[Value]:
    """What the multiplexers give; zero where one takes nothing."""
    seen = len(words) // 2 + 1
    picked = []
    for place in range(len(words) // 2):
        chosen = takes[place * seen : (place + 1) * seen]
        gated = [word & one.replicate(len(word)) for one, word in zip(chosen, words[place:], strict=False)]
        picked.append(named(m, _any(gated), "picked"))
    return picked


def _any(values: list[Value]) -> Value:
    """Or, as a tree."""
    while len(values) > 1:
        values = [a | b for a, b in zip(values[::2], values[1::2], strict=False)] + values[
            len(values) // 2 * 2 :
        ]
    return values[0]


def _add_constant(m: Module, columns: Columns, live: Mapping[str, Value]) -> None:
    """Three bits of a group's constant times the sum of activations; ``digit_signed``: the highest counts negative."""
    total, digit = live["total"], live["digit"]
    low, high = Cat(total, total[-1].replicate(len(digit))), Cat(C(0, len(digit)), total)
    placed = named(m, Mux(live["upper"], high, low), "placed")
    for place in range(len(digit)):
        row: Any = placed & digit[place].replicate(len(placed))
        if place == len(digit) - 1:
            negative = named(m, digit[place] & live["digit_signed"], "negative")
            row = row ^ negative.replicate(len(placed))
            columns.add_bit(place, Bit(negative))
        columns.add_signed(named(m, row, "constant"), place)
