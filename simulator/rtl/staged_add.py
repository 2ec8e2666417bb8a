"""Adding floats with one rounding, in steps between which ranks of registers may lie.

What `fused_add` computes, for data paths without a loop over one cycle: the sum so far comes from a buffer, so that
the addition may take as many cycles as its clock needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed

from simulator.pe.arithmetic import BinaryFloat
from simulator.rtl import prefix
from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Columns, leading_zeros, named, product, saturate, shift_left, shift_right

ADD_PLACES = ("compare", "align", "add", "round")
"""Cuts through `add_operands`."""
FUSED_PLACES = ("normalise", *ADD_PLACES)
"""Cuts through `add_scaled`."""


class Ranks:
    """Registers, and ranks of them at the places that are cut; what lies between is built for speed where ``fast``."""

    def __init__(self, m: Module, taken: tuple[str, ...], *, fast: bool = False) -> None:
        self._m = m
        self.taken = taken
        self.fast = fast

    def total(self, columns: Columns, adder: FullAdder) -> Value:
        return columns.total(self._m, adder, fast=self.fast)

    def product(self, a: Value, b: Value, adder: FullAdder) -> Value:
        """a * b in full, unsigned."""
        return product(self._m, a, b, adder, fast=self.fast)

    def cut_product(
        self, a: Value, b: Value, live: Mapping[str, Value], adder: FullAdder
    ) -> dict[str, Value]:
        """``live`` with "product", a * b, which the place "split" cuts: there lie its products by both halves of b."""
        if "split" not in self.taken:
            return {**live, "product": self.product(a, b, adder)}
        half = len(b) // 2
        halves = {"low": self.product(a, b[:half], adder), "high": self.product(a, b[half:], adder)}
        found = self.cut("split", {**live, **halves})
        low, high = found.pop("low"), found.pop("high")
        above = Cat(low[half:], C(0, len(high) - len(low) + half))
        return {**found, "product": Cat(low[:half], self.add(above, high, C(0, 1))[: len(high)])}

    def add(self, a: Value, b: Value, carry: Value) -> Value:
        """a + b + carry of two numbers of one width, (width + 1,)."""
        if self.fast:
            return prefix.add(self._m, a, b, carry)
        return named(self._m, Cat(C(1, 1), a) + Cat(carry, b), "total")[1:]

    def increment(self, a: Value, up: Value) -> Value:
        """a + up, modulo 2**width."""
        if self.fast:
            return named(self._m, Mux(up, prefix.increment(self._m, a), a), "next")
        return named(self._m, a + up, "next")[: len(a)]

    def magnitude(self, value: Value) -> Value:
        """Of two's complement, in as many bits."""
        sign = value[-1]
        if self.fast:
            turned = named(self._m, value ^ sign.replicate(len(value)), "turned")
            return self.increment(turned, sign)
        return named(self._m, Mux(sign, -value.as_signed(), value)[: len(value)], "magnitude")

    def greater(self, a: Value, b: Value) -> Value:
        """a > b, of two unsigned numbers of one width."""
        return prefix.greater(self._m, a, b) if self.fast else a > b

    def register(self, value: Any, name: str) -> Signal:
        held = Signal(Value.cast(value).shape(), name=name, reset_less=True)
        self._m.d.sync += held.eq(value)
        return held

    def loaded(self, load: Value, value: Value, name: str) -> Signal:
        """A register that takes its value where ``load``, and keeps it."""
        held = Signal(len(value), name=name, reset_less=True)
        self._m.d.sync += held.eq(Mux(load, value, held))
        return held

    def cut(self, place: str, live: Mapping[str, Value]) -> dict[str, Value]:
        """What crosses the place, a cycle later where it is cut."""
        if place not in self.taken:
            return {name: named(self._m, value, f"{place}_{name}") for name, value in live.items()}
        return {name: self.register(value, f"{place}_{name}") for name, value in live.items()}


def unpacked(m: Module, code: Value, precision: int) -> tuple[Value, Value]:
    """(significand, exponent field, which of a subnormal number is one) of a float's code."""
    field = code[precision - 1 : -1]
    normal = named(m, field.any(), "normal")
    return Cat(code[: precision - 1], normal), named(m, Cat(field[0] | ~normal, field[1:]), "exponent")


def add_operands(m: Module, ranks: Ranks, to: BinaryFloat, a: Value, b: Value) -> Value:
    """The code of a + b, rounded once to nearest even; a, b: codes. The sum must be finite."""
    precision = to.precision
    swap = named(m, ranks.greater(b[:-1], a[:-1]), "swap")
    large, small = named(m, Mux(swap, b, a), "large"), named(m, Mux(swap, a, b), "small")
    (big, top), (other, low) = (unpacked(m, code, precision) for code in (large, small))
    live: dict[str, Value] = {
        "big": big,
        "small": other,
        "distance": named(m, (top - low)[: len(top)], "distance"),
        "top": top,
        "sign": large[-1],
        "subtract": large[-1] ^ small[-1],
    }
    return _add_aligned(m, ranks, to, live)


def add_scaled(
    m: Module,
    ranks: Ranks,
    to: BinaryFloat,
    addend: Value,
    sign: Value,
    magnitude: Value,
    own: Value,
    exponent: int,
) -> Value:
    """The code of addend + (-1)**sign * magnitude * 2**(own + exponent), rounded once to nearest even.

    As `simulator.rtl.fused_add.fused_add`; ``addend``, a code of ``to``, joins behind the cut "normalise" and comes a
    cycle later where that is taken.
    """
    precision = to.precision
    leading = leading_zeros(m, magnitude)
    reach = exponent + len(magnitude) - (to.low + precision - 1)
    live = ranks.cut(
        "normalise",
        {
            "sign": sign,
            "size": shift_left(m, magnitude, leading[: (len(magnitude) - 1).bit_length()], len(magnitude)),
            "top": named(m, own + C(reach, signed(reach.bit_length() + 1)) - leading, "top"),
        },
    )
    size, size_top = live["size"], live["top"]
    significand, addend_top = unpacked(m, addend, precision)
    difference = named(m, size_top - addend_top, "difference")
    wide = max(len(size), precision)
    compared = wide - len(magnitude)
    size, significand = Cat(C(0, wide - len(size)), size), Cat(C(0, wide - precision), significand)
    above = (difference > 0) | ((difference == 0) & ranks.greater(size[compared:], significand[compared:]))
    higher = named(m, above & size[-1], "higher")
    live = {
        "big": Mux(higher, size, significand),
        "small": Mux(higher, significand, size),
        "distance": named(m, Mux(higher, difference, -difference), "distance")[: len(difference) - 1],
        "top": named(m, Mux(higher, size_top, addend_top), "top_of_sum"),
        "sign": Mux(higher, live["sign"], addend[-1]),
        "subtract": live["sign"] ^ addend[-1],
    }
    if exponent < to.low + precision - 1:
        live["turnable"] = ~higher & ~significand[-1]
    return _add_aligned(m, ranks, to, live)


def _add_aligned(m: Module, ranks: Ranks, to: BinaryFloat, live: Mapping[str, Value]) -> Value:
    """The smaller term to the exponent of the larger, sum, normalisation, rounding: two bits below the wider of both
    and a sticky bit are all that the rounding can see.

    ``turnable``: the larger one may be a number without its leading one, and then the lesser.
    """
    live = ranks.cut("compare", {name: named(m, value, name) for name, value in live.items()})
    width = len(live["big"]) + 2
    small = shift_right(
        m, Cat(C(0, 2), live.pop("small")), saturate(m, live.pop("distance"), width), sticky=True
    )
    live = ranks.cut("align", {**live, "small": named(m, small, "shifted")})
    big, small, subtract = Cat(C(0, 3), live.pop("big")), live.pop("small"), live.pop("subtract")
    turned: Value = C(0, 1)
    if "turnable" in live:
        turned = named(m, subtract & live.pop("turnable") & ranks.greater(small, big), "turned")
    left, right = big ^ turned.replicate(width + 1), small ^ (subtract & ~turned).replicate(width + 1)
    total = ranks.add(left, right, subtract)
    total = Cat(total[:-1], total[-1] & ~subtract)
    sign = live["sign"] ^ turned
    live = ranks.cut("add", {"total": total, "top": live["top"], "sign": sign})

    precision, exponent_bits = to.precision, to.bits - to.precision
    total, top = live["total"], live["top"]
    zeros = leading_zeros(m, total)
    limit = Mux(top < zeros, top[: len(zeros)], zeros)
    shift = named(m, limit, "shift")
    live = ranks.cut(
        "round",
        {
            "total": shift_left(m, total, shift, width + 2),
            "field": named(m, (top + 1 - shift)[:exponent_bits], "field"),
            "sign": live["sign"],
        },
    )
    normalised = live["total"]
    kept, guard = normalised[-precision:], normalised[-precision - 1]
    up = guard & (kept[0] | normalised[: -precision - 1].any())
    field = named(m, live["field"] & kept[-1].replicate(exponent_bits), "field")
    code = ranks.increment(named(m, Cat(kept[:-1], field), "unrounded"), up)
    return Cat(code[: to.bits - 1], live["sign"])
