"""What dot products of two levels are made of, in Amaranth: an accumulator that is aligned with the products, and an
FP32 register behind it (`simulator.pe.dot_function`: ``fuse_accumulator``, ``promote_every``).

Products are aligned to their own largest exponent ahead of the loop. Where the accumulator's exponent is larger, they
are shifted once more inside it, all by the same: what is cut off of a magnitude twice is what would be cut off at once.

The accumulator moves on at the end of a group, after so many steps, and at the end of the sum, in the cycle in which
the next step begins anew, so that the second level may be pipelined and takes a value every cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value

from simulator.pe.accumulator import accumulator
from simulator.pe.arithmetic import BinaryFloat
from simulator.rtl.cells import FullAdder
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, leading_zeros, named, product, saturate, shift_left, shift_right
from simulator.rtl.units.dot import DotUnit


def fused_sum(
    m: Module,
    unit: DotUnit,
    before: Value,
    signs: list[Value],
    aligned: list[Value],
    exponent: Value,
    bias: Value,
    adder: FullAdder,
) -> Value:
    """The accumulator's next code. ``aligned``: products cut off at the window below ``exponent``, the largest sum of
    exponent fields, 0 where all products are zero."""
    to, window = unit.held.float_format, unit.align_window
    assert to is not None
    assert window is not None
    precision = to.precision
    own = named(m, exponent + bias + unit.exponent_field, "own")
    field = before[precision - 1 : -1]
    significand = Cat(before[: precision - 1], field.any())
    difference = named(m, own - field, "difference")
    products_lead = named(m, exponent.any() & (difference >= 0), "products_lead")
    top = named(m, Mux(products_lead, own, field), "top")
    below = named(m, Mux(products_lead, 0, -difference), "below")[: len(own)]
    under = named(m, Mux(products_lead, difference, 0), "under")[: len(own)]

    columns = Columns(unit.sum_bits)
    by = saturate(m, below, len(aligned[0]))
    for sign, value in zip(signs, aligned, strict=True):
        columns.add_signed_magnitude(sign, shift_right(m, value, by))
    more = window - (precision - 1)
    placed = Cat(C(0, max(more, 0)), significand[max(-more, 0) :])
    columns.add_signed_magnitude(before[-1], shift_right(m, placed, saturate(m, under, len(placed))))
    total = columns.total(m, adder)
    magnitude = named(m, Mux(total[-1], -total, total), "magnitude")[: len(total) - 1]
    return _rounded(m, unit, to, total[-1], magnitude, top)


def _rounded(m: Module, unit: DotUnit, to: BinaryFloat, sign: Value, magnitude: Value, top: Value) -> Value:
    """The code of the sum, whose last bit is the window's below the exponent ``top``; never subnormal."""
    assert unit.align_window is not None
    precision, exponent_bits = to.precision, to.bits - to.precision
    missing = max(precision + 1 - len(magnitude), 0)
    wide = Cat(C(0, missing), magnitude)
    zeros = leading_zeros(m, wide)
    size = shift_left(m, wide, zeros[: (len(wide) - 1).bit_length()], len(wide))
    kept = size[-precision:]
    reach = len(magnitude) - 1 - unit.align_window
    field = named(m, (top + reach - zeros)[:exponent_bits] & kept[-1].replicate(exponent_bits), "field")
    code = Cat(kept[:-1], field)
    if not unit.truncate:
        up = size[-precision - 1] & (kept[0] | size[: -precision - 1].any())
        code = named(m, code + up, "code")[: to.bits - 1]
    return Cat(code, sign)


class Ranks(Protocol):
    """Registers, and ranks of them where the data path is cut."""

    def register(self, value: Any, name: str) -> Value: ...

    def cut(self, place: str, live: Mapping[str, Value]) -> dict[str, Value]: ...


class SecondLevel:
    """When the accumulator moves, and the register that takes it."""

    def __init__(self, m: Module, ranks: Ranks, unit: DotUnit, held: Signal, adder: FullAdder) -> None:
        self._m, self._ranks, self._unit, self._held, self._adder = m, ranks, unit, held, adder
        assert unit.promote_every is not None
        self._count = Signal(unit.promote_every.bit_length(), reset_less=True)
        self._full = Signal(reset_less=True)
        """The accumulator has moved in this cycle."""

    def fresh(self, first: Value) -> Value:
        """Products of this cycle are not added to the accumulator."""
        return named(self._m, first | self._full, "fresh")

    def finished(self, first: Value, ends: Value, scale: dict[str, Value]) -> Signal:
        """The sum that the last ``first`` ended. ``scale``: of this cycle's products."""
        m, unit, ranks = self._m, self._unit, self._ranks
        count = named(m, Mux(self.fresh(first), 0, self._count) + 1, "count")[: len(self._count)]
        m.d.sync += [self._count.eq(count), self._full.eq((count == unit.promote_every) | ends)]
        moves = named(m, first | self._full, "moves")
        scale = {name: ranks.register(value, f"held_{name}") for name, value in scale.items()}
        moved = named(m, self._held & moves.replicate(len(self._held)), "moved")
        to = unit.held.float_format
        assert to is not None
        field = moved[to.precision - 1 : -1]
        normal = field.any()
        magnitude: Value = Cat(moved[: to.precision - 1], normal)
        own = named(m, Cat(field[0] | ~normal, field[1:]), "own")
        exponent = to.low - 1
        if unit.scale:
            magnitude = product(m, magnitude, scale["scale_product"], self._adder)
            own = named(m, own + scale["scale_exponent"], "own")
            exponent += 2 * (unit.scale_element(unit.scale).quantum_exponent - 1)
        live = ranks.cut("scale", {"sign": moved[-1], "magnitude": magnitude, "own": own, "last": first})
        fp32 = accumulator("fp32").float_format
        assert fp32 is not None
        promoted = Signal(fp32.bits, reset_less=True)
        total = fused_add(m, fp32, promoted, live["sign"], live["magnitude"], live["own"], exponent)
        m.d.sync += promoted.eq(total & ~live["last"].replicate(fp32.bits))
        finished = Signal(fp32.bits, reset_less=True)
        m.d.sync += finished.eq(Mux(live["last"], total, finished))
        return finished
