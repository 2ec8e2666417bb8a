"""The hardware of the look-up-table PE, of a row's tables and of a column's keys, in Amaranth.

Ports, sampled at the rising edge of ``clk``; there is no reset. Of a PE, which reads what stands in the registers of
its row and of its column and has no operand registers of its own::

    entries  the tables' entries, entry 0 of table 0 lowest: two's complement, or codes of the tables' float
    scale    FP32 code of the scale of tables quantized to INT8
    keys     of each table `table_inputs` bits: the entry's number, and on top whether it is negated; without
             reinterpretation a bit of each lane's weight
    start    the first of the planes of a step (integers of several planes)
    plane    its number (tables of floats)
    subtract this plane counts negative (without reinterpretation)
    last     with the plane of this cycle the sum grows: the last of a step, each of floats; 0 where there is no step
    first    the sum that grows is a new one
    out      the accumulator, or, with two of them, the second, which takes the sum when ``first`` ends it

Of tables: ``load`` takes ``entries_in`` (and ``scale_in``) into ``entries`` (``scale``). Of keys: ``load`` takes
``keys_in``, the first plane of every lane on the side where bits leave, else they move on by a plane.

The plane that is negative is complemented, and the one that is missing is a carry: of the adder of planes, or, with
several tables, of their tree. While no sum of a step is whole what goes into the accumulator is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.pe.accumulator import accumulator
from simulator.pe.arithmetic import FP32
from simulator.pe.lut_structure import addend, cut_places, elements, scale_of, width
from simulator.pe.table_pe import TABLE_FLOATS
from simulator.rtl import prefix
from simulator.rtl.cells import FullAdder
from simulator.rtl.fast_add import add_normalised, normalise, reaches_subnormals
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, named, product
from simulator.rtl.units.lut_operands import pe_inputs

if TYPE_CHECKING:
    from simulator.pe.lut import LutPE

Live = dict[str, Value]
"""What crosses the next cut."""


class _Module(Elaboratable):  # type: ignore[misc]
    """Ports by name, and a clock without reset unless the module stands in another that has one."""

    def __init__(self, ports: Mapping[str, int], *, inside: bool = False) -> None:
        """``ports``: {name: bits}."""
        self._domain = None if inside else ClockDomain("sync", reset_less=True)
        self.port = {name: Signal(bits, name=name) for name, bits in ports.items()}

    @property
    def ports(self) -> list[Signal]:
        assert self._domain is not None
        return [self._domain.clk, *self.port.values()]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._domain is not None:
            m.domains.sync = self._domain
        self._build(m)
        return m

    def _build(self, m: Module) -> None:
        raise NotImplementedError


class TableModule(_Module):
    """One copy of a row's tables."""

    def __init__(self, pe: LutPE, *, inside: bool = False) -> None:
        words = {"entries": pe.tables * pe.entries * max(map(pe.entry_bits, elements(pe.activations)))}
        words |= {"scale": FP32.bits} if "int8" in pe.stored else {}
        loaded = {f"{name}_in": bits for name, bits in words.items()}
        super().__init__({"load": 1} | loaded | words, inside=inside)
        self._words = tuple(words)

    def _build(self, m: Module) -> None:
        for name in self._words:
            held = Signal(len(self.port[name]), name=f"{name}_q", reset_less=True)
            m.d.sync += held.eq(Mux(self.port["load"], self.port[f"{name}_in"], held))
            m.d.comb += self.port[name].eq(held)


class KeysModule(_Module):
    """The keys of a column."""

    def __init__(self, pe: LutPE, *, inside: bool = False) -> None:
        self._pe = pe
        super().__init__({"load": 1, "keys_in": pe.lanes * pe.most_planes, "keys": pe.lanes}, inside=inside)

    def _build(self, m: Module) -> None:
        bits = self._pe.most_planes
        out = []
        for lane in range(self._pe.lanes):
            held = Signal(bits, name=f"keys_{lane}", reset_less=True)
            upwards = self._pe.first_plane == "highest"
            moved = Cat(C(0, 1), held[:-1]) if upwards else Cat(held[1:], C(0, 1))
            m.d.sync += held.eq(Mux(self.port["load"], self.port["keys_in"].word_select(lane, bits), moved))
            out.append(held[-1] if upwards else held[0])
        m.d.comb += self.port["keys"].eq(Cat(*out))


class PEModule(_Module):
    """A PE with full adders of a library's cells or of logic."""

    def __init__(
        self,
        pe: LutPE,
        doubled: bool,
        adder: FullAdder | None = None,
        *,
        fast: bool = False,
        inside: bool = False,
    ) -> None:
        self._pe = pe
        self._doubled = doubled
        self._adder = adder or FullAdder()
        self.fast = fast
        self._wide = width(pe, elements(pe.weights), elements(pe.activations))
        self._taken = cut_places(pe)[: pe.pipeline_stages - 1]
        super().__init__(pe_inputs(pe) | {"out": pe.accumulator_bits}, inside=inside)
        self.sum = Signal(pe.accumulator_bits, name="accumulator", reset_less=True)

    def _build(self, m: Module) -> None:
        sums = self._pe.sums
        held = self.sum
        build = self._accumulate_floats if sums.float_format else self._accumulate_integers
        total, first = build(m, held)
        m.d.sync += held.eq(total)
        m.d.comb += self.port["out"].eq(held)
        if self._doubled:
            finished = Signal(sums.bits, name="finished", reset_less=True)
            m.d.sync += finished.eq(Mux(first, held, finished))
            m.d.comb += self.port["out"].eq(finished)

    def _cut(self, m: Module, place: str, live: Live) -> Live:
        """``live`` a cycle later where the cut is taken. Behind the planes' sum only a whole one goes on: the circuits
        that follow rest in between."""
        if place not in self._taken:
            return live
        after: Live = {}
        for name, value in live.items():
            crossing = Signal(value.shape(), name=f"{place}_{name}", reset_less=True)
            rests = place == "planes" and name not in ("last", "first")
            m.d.sync += crossing.eq(Mux(live["last"], value, crossing) if rests else value)
            after[name] = crossing
        return after

    def _read(self, m: Module) -> list[tuple[Value, Value]]:
        """(entry, whether it is negated) of each table."""
        pe, bits = self._pe, self._wide.entry
        found = []
        for table in range(pe.tables):
            key = self.port["keys"].word_select(table, pe.table_inputs)
            words = self.port["entries"].word_select(table, pe.entries * bits)
            choices = [words.word_select(index, bits) for index in range(pe.entries)]
            if pe.reinterpret:
                index, negated = key[:-1], key[-1]
            else:
                choices, index, negated = [C(0, bits), *choices], key, self.port["subtract"]
            found.append((_choose(m, choices, index), negated))
        return found

    def _plane(self, m: Module) -> Live:
        """The sum of what is read in this cycle: ``value`` + ``carry``."""
        read = self._read(m)
        if self._pe.tables == 1:
            ((entry, negated),) = read
            return {"value": named(m, entry ^ negated.replicate(len(entry)), "value"), "carry": negated}
        columns = Columns(self._wide.plane)
        for entry, negated in read:
            if not self._pe.reinterpret:
                columns.add_signed(entry)
                continue
            columns.add_signed(named(m, entry ^ negated.replicate(len(entry)), "value"))
            columns.add_unsigned(negated)
        total = columns.total(m, self._adder, fast=self.fast)
        if self._pe.reinterpret:
            return {"value": total}
        subtract = self.port["subtract"]
        return {"value": named(m, total ^ subtract.replicate(len(total)), "value"), "carry": subtract}

    def _whole_sum(self, m: Module, beside: Live) -> Live:
        """``sum`` of the planes of a step, for floats ``sign`` and ``magnitude``, what stands ``beside`` it, and the
        flags ``last`` and ``first``."""
        live = self._plane(m) | beside | {name: self.port[name] for name in ("last", "first")}
        if "start" in self.port:
            live["start"] = self.port["start"]
        live = self._cut(m, "read", live)
        value, carry = live.pop("value"), live.pop("carry", None)
        if "start" not in live:
            zero = C(0, self._wide.total)
            return live | self._as_added(m, value if carry is None else self._added(m, zero, value, carry))
        # It is doubled before it is used: the top bit would be lost.
        above = Signal(self._wide.total - 1, name="plane_sum", reset_less=True)
        kept = named(m, above & ~live.pop("start").replicate(len(above)), "above")
        total = self._added(m, Cat(C(0, 1), kept), value, carry)
        m.d.sync += above.eq(total)
        return self._cut(m, "planes", live | self._as_added(m, total))

    def _as_added(self, m: Module, total: Value) -> Live:
        if self._pe.sums.float_format is None:
            return {"sum": total}
        opposite = self._added(m, C(0, len(total)), ~total, C(1, 1))
        return {"sign": total[-1], "magnitude": named(m, Mux(total[-1], opposite, total)[:-1], "magnitude")}

    def _accumulate_integers(self, m: Module, held: Signal) -> tuple[Value, Value]:
        """(what the accumulator takes, the flag of a new sum)."""
        live = self._whole_sum(m, {})
        first = named(m, live["first"] & live["last"], "first")
        addend = named(m, live["sum"] & live["last"].replicate(len(live["sum"])), "addend")
        before = named(m, held & ~first.replicate(len(held)), "before")
        return self._added(m, before, addend, None), first

    def _added(self, m: Module, whole: Value, addend: Value, carry: Value | None) -> Value:
        """whole + addend + carry modulo 2**len(whole), the addend in two's complement."""
        width = len(whole)
        wide = Cat(addend, addend[-1].replicate(max(width - len(addend), 0)))[:width]
        if self.fast:
            return prefix.add(m, whole, wide, carry)[:width]
        if carry is None:
            return named(m, (whole + wide)[:width], "total")
        return named(m, (Cat(C(1, 1), whole) + Cat(carry, wide))[1 : width + 1], "total")

    def _accumulate_floats(self, m: Module, held: Signal) -> tuple[Value, Value]:
        """The same in floating point, with one rounding."""
        to = accumulator(self._pe.accumulator).float_format
        assert to is not None
        read = self._float_plane if self._wide.floats else self._scaled_sum
        (arithmetic,) = self._wide.arithmetics
        live, exponent = read(m), addend(self._pe, arithmetic).exponent
        live["magnitude"] = named(
            m, live["magnitude"] & live["last"].replicate(len(live["magnitude"])), "addend"
        )
        if "normalise" not in self._taken and not self.fast:
            first = named(m, live["first"] & live["last"], "first")
            before = named(m, held & ~first.replicate(len(held)), "before")
            return fused_add(m, to, before, live["sign"], live["magnitude"], live["own"], exponent), first
        number = live.pop("sign"), live.pop("magnitude"), live.pop("own")
        sign, size, field = normalise(m, to, *number, exponent)
        live = self._cut(m, "normalise", live | {"sign": sign, "size": size, "field": field})
        first = named(m, live["first"] & live["last"], "first")
        subnormals = reaches_subnormals(to, exponent)
        operands = live["sign"], live["size"], live["field"]
        return add_normalised(m, to, held, first, *operands, subnormals=subnormals), first

    def _float_plane(self, m: Module) -> Live:
        """The entry read, its exponent raised by the number of its plane."""
        of = TABLE_FLOATS[self._pe.float_tables]
        ((entry, negated),) = self._read(m)
        live: Live = {"value": Cat(entry[:-1], entry[-1] ^ negated), "plane": self.port.get("plane", C(0, 1))}
        live = self._cut(m, "read", live | {name: self.port[name] for name in ("last", "first")})
        value = live.pop("value")
        field = value[of.precision - 1 : -1]
        normal = named(m, field.any(), "normal")
        live["sign"], live["magnitude"] = value[-1], Cat(value[: of.precision - 1], normal)
        live["own"] = named(m, Cat(field[0] | ~normal, field[1:]) + live.pop("plane"), "exponent")
        return live

    def _scaled_sum(self, m: Module) -> Live:
        """The sum of the planes as sign and magnitude, times the scale of the tables where they have one."""
        beside: Live = {}
        if "scale" in self.port:
            scale = scale_of(elements(self._pe.activations), self._pe.table_inputs)
            code = self.port["scale"]
            field = code[FP32.precision - 1 : -1]
            own = named(m, (field - scale.lowest)[: scale.exponent_bits], "own")
            beside = {"own": own, "fraction": code[: FP32.precision - 1]}
        live = self._whole_sum(m, beside)
        if "scale" in self.port:
            significand = Cat(live.pop("fraction"), C(1, 1))
            live["magnitude"] = product(m, live.pop("magnitude"), significand, self._adder, fast=self.fast)
        return {"own": C(0, 0)} | self._cut(m, "product", live)


class ArrayModule(_Module):
    """Rows of tables, columns of keys and a PE where they cross. Operands come with the flags of their step, whose
    first plane is read a cycle later; ``sums`` are the accumulators, ``out`` as in a PE, row by row."""

    def __init__(self, pe: LutPE, rows: int, cols: int, doubled: bool) -> None:
        self._tables = [TableModule(pe, inside=True) for _ in range(rows)]
        self._keys = [KeysModule(pe, inside=True) for _ in range(cols)]
        self._pes = [[PEModule(pe, doubled, inside=True) for _ in range(cols)] for _ in range(rows)]
        table, keys = self._tables[0].port, self._keys[0].port
        ports = {name: rows * len(port) for name, port in table.items() if name.endswith("_in")}
        ports |= {"load": 1, "keys_in": cols * len(keys["keys_in"])}
        self._flags = {
            name: bits for name, bits in pe_inputs(pe).items() if name not in ("entries", "scale", "keys")
        }
        sums = rows * cols * pe.accumulator_bits
        super().__init__(ports | self._flags | {"sums": sums, "out": sums})

    def _build(self, m: Module) -> None:
        for lines in (self._tables, self._keys):
            for number, line in enumerate(lines):
                m.submodules += line
                for name, port in line.port.items():
                    if name == "load":
                        m.d.comb += port.eq(self.port[name])
                    elif name.endswith("_in"):
                        m.d.comb += port.eq(self.port[name].word_select(number, len(port)))
        flags = {}
        for name, bits in self._flags.items():
            flags[name] = Signal(bits, name=f"{name}_q", reset_less=True)
            m.d.sync += flags[name].eq(self.port[name])
        for table, row in zip(self._tables, self._pes, strict=True):
            for keys, pe in zip(self._keys, row, strict=True):
                m.submodules += pe
                seen = table.port | keys.port | flags
                m.d.comb += [port.eq(seen[name]) for name, port in pe.port.items() if name != "out"]
        pes = [pe for row in self._pes for pe in row]
        m.d.comb += self.port["sums"].eq(Cat(*(pe.sum for pe in pes)))
        m.d.comb += self.port["out"].eq(Cat(*(pe.port["out"] for pe in pes)))


def _choose(m: Module, choices: list[Value], index: Value) -> Value:
    """A tree of multiplexers, the highest bit of the index last."""
    level = list(choices)
    for place in range(len(index)):
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [named(m, Mux(index[place], high, low), "select") for low, high in pairs]
    return level[0]
