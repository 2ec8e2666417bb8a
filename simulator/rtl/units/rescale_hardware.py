"""The rescale unit in Amaranth; see `simulator.rtl.units.rescale` for what it computes.

Ports, sampled at the rising edge of ``clk``: ``partial``, the scales, zero points and sums of a result together, and
``addend`` `RescaleUnit.addend_delay` cycles after them. ``out`` is the new sum `RescaleUnit.latency` cycles after
``partial`` was at its port.
"""

from __future__ import annotations

from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module, Signal, Value

from simulator.formats.element import EXPONENT_BIAS
from simulator.pe.arithmetic import FP32
from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Columns, named
from simulator.rtl.staged_add import Ranks, add_scaled, unpacked
from simulator.rtl.units.rescale import RescaleUnit


class RescaleModule(Elaboratable):  # type: ignore[misc]
    """A unit, with full adders of a library's cells or of logic."""

    def __init__(self, unit: RescaleUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()
        self._domain = ClockDomain("sync", reset_less=True)
        self.inputs = {name: Signal(width, name=name) for name, width in unit.widths.items()}
        self.out = Signal(FP32.bits)

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, *self.inputs.values(), self.out]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        unit, adder = self.unit, self._adder
        ranks = Ranks(m, unit.taken, fast=self.fast)
        held: dict[str, Value] = {
            name: ranks.register(port, f"{name}_q") for name, port in self.inputs.items()
        }
        addend = held.pop("addend")
        significands, fields = zip(
            *(_scale(m, held[name], unit.scale_bits) for name in ("weight_scale", "activation_scale")),
            strict=True,
        )
        exponent = -2 * (EXPONENT_BIAS + unit.scale_bits - 1)
        live: dict[str, Value] = {"own": fields[0] + fields[1]}
        if unit.is_float:
            magnitude, field = unpacked(m, held["partial"], FP32.precision)
            live |= {"own": live["own"] + field, "sign": held["partial"][-1], "magnitude": magnitude}
            exponent += FP32.low - 1
        else:
            live |= {"partial": held["partial"], **_zeros(ranks, held, adder)}
        live |= {"a": significands[0], "b": significands[1]}
        live = ranks.cut("zeros", live)
        if not unit.is_float:
            live |= {"value": _corrected(ranks, live, adder)}
        live = ranks.cut("correct", live)
        if not unit.is_float:
            value = live.pop("value")
            live |= {"sign": value[-1], "magnitude": ranks.magnitude(value)}
        live = ranks.cut("operand", {**live, "scale": ranks.product(live.pop("a"), live.pop("b"), adder)})
        live = ranks.cut_product(live.pop("magnitude"), live.pop("scale"), live, adder)
        live = ranks.cut("product", live)
        total = add_scaled(m, ranks, FP32, addend, live["sign"], live["product"], live["own"], exponent)
        m.d.comb += self.out.eq(ranks.register(total, "sum"))
        return m


def _scale(m: Module, code: Value, bits: int) -> tuple[Value, Value]:
    """(significand, exponent field of at least 1) of a scale."""
    field = code[bits - 1 :]
    normal = named(m, field.any(), "normal")
    return Cat(code[: bits - 1], normal), named(m, Cat(field[0] | ~normal, field[1:]), "field")


def _zeros(ranks: Ranks, held: dict[str, Value], adder: FullAdder) -> dict[str, Value]:
    """Each zero point times its sum, in two's complement of the partial sum's width."""
    found: dict[str, Value] = {}
    for zero, total in (("weight_zero", "activation_sum"), ("activation_zero", "weight_sum")):
        if zero in held:
            columns = Columns(len(held["partial"]))
            columns.add_product(held[zero], held[total], a_signed=True, b_signed=True)
            found[zero] = ranks.total(columns, adder)
    return found


def _corrected(ranks: Ranks, live: dict[str, Value], adder: FullAdder) -> Value:
    """The partial sum less zero points times sums, -x = ~x + 1, with a bit more for each."""
    partial = live.pop("partial")
    subtracted = [live.pop(name) for name in ("weight_zero", "activation_zero") if name in live]
    if not subtracted:
        return partial
    columns = Columns(len(partial) + len(subtracted), constant=len(subtracted))
    columns.add_signed(partial)
    for term in subtracted:
        columns.add_signed(~term)
    return ranks.total(columns, adder)
