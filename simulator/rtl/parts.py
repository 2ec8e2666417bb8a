"""The circuits that all units are made of: partial products, adder trees, shifters, counters, rounding.

Every format's unit is generated from these, so that two of them differ by what their arithmetic needs and not by what a
synthesis tool recognises. Values are Amaranth's, least significant bit first; functions add their statements to the
module ``m`` and return the result.

Trees are reduced after Dadda ("Some schemes for parallel multipliers", 1965) with full-adder cells. A cell may give its
outputs inverted (ASAP7's FAx1 gives both so). Sum and majority are self-dual: of three inverted bits such a cell gives
the sum and the carry upright. So each bit of a tree carries its polarity, and cells take three bits of one polarity
where a column has them. Signed products follow Baugh and Wooley (IEEE Trans. Computers C-22, 1973). The last two rows
are added by one adder, which is left to the synthesis tool unless it must be fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import C, Cat, Instance, Module, Mux, Signal, Value

from simulator.rtl.cells import FullAdder


def ceil_log2(value: int) -> int:
    return (value - 1).bit_length()


@dataclass(frozen=True, eq=False)
class Bit:
    """A bit of a tree. ``signal`` None: the constant one."""

    signal: Value | None
    inverted: bool = False

    def seen(self, inverted: bool = False) -> Value:
        """Its value, or the inverse."""
        if self.signal is None:
            return C(not inverted, 1)
        return self.signal if self.inverted == inverted else ~self.signal


@dataclass
class Columns:
    """A sum of bits of given weights, modulo 2**width; constants are collected in ``constant``."""

    width: int
    constant: int = 0
    bits: list[list[Bit]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bits = [[] for _ in range(self.width)]

    def add_bit(self, weight: int, bit: Bit) -> None:
        if weight < self.width:
            self.bits[weight].append(bit)

    def add_unsigned(self, value: Value, weight: int = 0) -> None:
        for place in range(len(value)):
            self.add_bit(weight + place, Bit(value[place]))

    def add_signed(self, value: Value, weight: int = 0) -> None:
        """Two's complement: the top bit counts -2**top, and -x = (1 - x) - 1."""
        self.add_unsigned(value[:-1], weight)
        self._subtract_bit(weight + len(value) - 1, value[-1])

    def add_signed_magnitude(self, sign: Value, magnitude: Value, weight: int = 0) -> None:
        """-magnitude where ``sign``: inverted, plus one, with the sign on top."""
        for place in range(len(magnitude)):
            self.add_bit(weight + place, Bit(magnitude[place] ^ sign))
        self.add_bit(weight, Bit(sign))
        self._subtract_bit(weight + len(magnitude), sign)

    def add_product(self, a: Value, b: Value, *, a_signed: bool, b_signed: bool, weight: int = 0) -> None:
        """a * b as partial products. A negative one is subtracted as in `add_signed`. All leave their gates inverted:
        NAND for what is added, AND for what is subtracted."""
        for i in range(len(a)):
            for j in range(len(b)):
                negative = (a_signed and i == len(a) - 1) != (b_signed and j == len(b) - 1)
                both = a[i] & b[j]
                if negative:
                    self._subtract_bit(weight + i + j, both)
                else:
                    self.add_bit(weight + i + j, Bit(~both, inverted=True))

    def _subtract_bit(self, weight: int, signal: Value) -> None:
        self.add_bit(weight, Bit(signal, inverted=True))
        self.constant -= 1 << weight

    def rows(self, m: Module, adder: FullAdder) -> list[Value]:
        """One or two rows, each (width,), whose sum is the columns', modulo 2**width. Registers behind them hold two
        words where those before the tree hold one for each lane."""
        columns = [list(column) for column in self.bits]
        for weight in range(self.width):
            if self.constant >> weight & 1:
                columns[weight].append(Bit(None))
        for height in _heights(max(map(len, columns), default=0)):
            columns = _reduce(m, columns, height, adder)
        return [
            Cat(*(column[row].seen() if row < len(column) else C(0, 1) for column in columns))
            for row in range(2 if any(len(column) > 1 for column in columns) else 1)
        ]

    def total(self, m: Module, adder: FullAdder, *, fast: bool = False) -> Value:
        """The sum, (width,). ``fast``: the last two rows by `simulator.rtl.prefix`."""
        from simulator.rtl import prefix

        rows = self.rows(m, adder)
        if fast and len(rows) > 1:
            return prefix.add(m, *rows)[: self.width]
        total = Signal(self.width)
        m.d.comb += total.eq(rows[0] + rows[1] if len(rows) > 1 else rows[0])
        return total


def _heights(highest: int) -> list[int]:
    """Dadda's sequence 2, 3, 4, 6, 9, ... below ``highest``, from the top."""
    heights = [2]
    while heights[-1] * 3 // 2 < highest:
        heights.append(heights[-1] * 3 // 2)
    return heights[::-1] if highest > 2 else []


def _reduce(m: Module, columns: list[list[Bit]], height: int, adder: FullAdder) -> list[list[Bit]]:
    """One rank of adders: no column is higher than ``height`` afterwards."""
    after: list[list[Bit]] = [[] for _ in columns]
    for weight, column in enumerate(columns):
        waiting = list(column)
        while len(waiting) + len(after[weight]) > height:
            excess = len(waiting) + len(after[weight]) - height
            chosen = _choose(waiting, 3 if excess > 1 and len(waiting) > 2 else 2)
            total, carry = _add(m, chosen, adder)
            after[weight].append(total)
            if carry is not None and weight + 1 < len(columns):
                after[weight + 1].append(carry)
        after[weight] += waiting
    return after


def _choose(waiting: list[Bit], count: int) -> list[Bit]:
    """Takes ``count`` bits out: constants first, then of one polarity as far as there are."""
    constants = [bit for bit in waiting if bit.signal is None][: count - 1]
    others = [bit for bit in waiting if bit.signal is not None]
    inverted = sum(bit.inverted for bit in others)
    commoner = inverted * 2 > len(others)
    ranked = sorted(others, key=lambda bit: bit.inverted != commoner)
    if count == 2 and not constants:
        ranked = others
    chosen = constants + ranked[: count - len(constants)]
    for bit in chosen:
        waiting.remove(bit)
    return chosen


def _add(m: Module, bits: Sequence[Bit], adder: FullAdder) -> tuple[Bit, Bit | None]:
    """(sum, carry) of two or three bits; a constant one among them makes half of the adder."""
    constants = sum(bit.signal is None for bit in bits)
    signals = [bit for bit in bits if bit.signal is not None]
    if constants and len(signals) == 1:
        only = signals[0]
        return Bit(only.signal, not only.inverted), only
    if len(signals) == 2:
        a, b = signals
        assert a.signal is not None
        assert b.signal is not None
        total, carry = Signal(name="ha_s"), Signal(name="ha_c")
        m.d.comb += total.eq(a.signal ^ b.signal)
        m.d.comb += carry.eq(a.seen() | b.seen() if constants else a.seen() & b.seen())
        return Bit(total, a.inverted ^ b.inverted ^ bool(constants)), Bit(carry)
    polarity = sum(bit.inverted for bit in signals) * 2 > len(signals)
    s, c = place_full_adder(m, adder, *(bit.seen(polarity) for bit in signals))
    return Bit(s, polarity ^ adder.sum_inverted), Bit(c, polarity ^ adder.carry_inverted)


def place_full_adder(m: Module, adder: FullAdder, a: Value, b: Value, c: Value) -> tuple[Value, Value]:
    """(sum, carry) as the adder's cells, or the logic that stands for them, give them."""
    nets: dict[str, Value] = {
        "a": a,
        "b": b,
        "c": c,
        "sum": Signal(name="fa_s"),
        "carry": Signal(name="fa_c"),
    }
    if not adder.cells:
        m.d.comb += nets["sum"].eq(a ^ b ^ c ^ int(adder.sum_inverted))
        m.d.comb += nets["carry"].eq(((a & b) | (c & (a | b))) ^ int(adder.carry_inverted))
    for cell, pins in adder.cells:
        ports: list[tuple[str, str, Value]] = []
        for pin, net in pins.items():
            if net not in nets:
                nets[net] = Signal(name=f"fa_{net}")
            ports.append(("o" if f"{cell}.{pin}" in adder.outputs else "i", pin, nets[net]))
        m.submodules += Instance(cell, *ports)
    return nets["sum"], nets["carry"]


def product(
    m: Module, a: Value, b: Value, adder: FullAdder, *, signed: bool = False, fast: bool = False
) -> Value:
    """a * b in full, (len(a) + len(b),)."""
    if not signed and min(len(a), len(b)) == 1:
        wide, bit = (a, b) if len(b) == 1 else (b, a)
        return Cat(wide & bit.replicate(len(wide)), C(0, 1))
    columns = Columns(len(a) + len(b))
    columns.add_product(a, b, a_signed=signed, b_signed=signed)
    return columns.total(m, adder, fast=fast)


def shift_left(m: Module, value: Value, amount: Value, width: int, *, high_first: bool = False) -> Value:
    """value << amount in ``width`` bits, what leaves them dropped: one rank of multiplexers a bit of ``amount``, the
    lowest first, unless the highest are known first."""
    moved = named(m, Cat(value, C(0, max(width - len(value), 0)))[:width], "shl")
    places = range(len(amount))
    for place in reversed(places) if high_first else places:
        step = min(1 << place, width)
        moved = named(m, Mux(amount[place], Cat(C(0, step), moved[: width - step]), moved), "shl")
    return moved


def shift_right(m: Module, value: Value, amount: Value, *, sticky: bool = False) -> Value:
    """value >> amount; with ``sticky`` one more bit below the result, set where a one was shifted out."""
    width = len(value)
    moved: Value = named(m, value, "shr")
    lost: Value = C(0, 1)
    for place in range(len(amount)):
        step = min(1 << place, width)
        if sticky:
            lost = named(m, lost | (amount[place] & moved[:step].any()), "lost")
        moved = named(m, Mux(amount[place], Cat(moved[step:], C(0, step)), moved), "shr")
    return Cat(lost, moved) if sticky else moved


def saturate(m: Module, amount: Value, limit: int) -> Value:
    """``amount`` in as many bits as shift ``limit`` places or more; all ones where it is larger."""
    bits = limit.bit_length()
    if len(amount) <= bits:
        return amount
    return named(m, amount[:bits] | amount[bits:].any().replicate(bits), "far")


def leading_zeros(m: Module, value: Value) -> Value:
    """Zeros above the highest one; len(value) where there is none."""
    levels = ceil_log2(len(value))
    padded = Cat(C((1 << ((1 << levels) - len(value))) - 1, (1 << levels) - len(value)), value)

    def count(bits: Value) -> Value:
        """(log2(len) + 1,): the top bit says that all are zero."""
        if len(bits) == 1:
            return ~bits
        half = len(bits) // 2
        low, high = count(bits[:half]), count(bits[half:])
        none = high[-1]
        below = Mux(none, low[:-1], high[:-1]) if len(low) > 1 else C(0, 0)
        return named(m, Cat(below, none & ~low[-1], none & low[-1]), "lzc")

    return count(padded) if len(padded) > len(value) else count(value)


def largest(m: Module, values: Sequence[Value]) -> Value:
    """The largest of unsigned numbers of one width, by a tree of comparators."""
    level = list(values)
    while len(level) > 1:
        pairs = [named(m, Mux(a > b, a, b), "max") for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def named(m: Module, value: Any, name: str) -> Signal:
    """A signal of the value: statements stay short and netlists readable."""
    signal = Signal(Value.cast(value).shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal
