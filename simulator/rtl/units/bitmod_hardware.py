"""BitMoD's hardware, in Amaranth: PE, encoder of weights, unit for a group's scale, adder of a tile's column.

All ports are sampled at the rising edge of ``clk``; there is no reset. What the blocks say to each other:

A term of a lane is {sign, exponent (2 bits), mantissa bit}: a digit of 0, +-1, +-2, +-4, +-8. ``bsig`` counts from the
half, the place of F0 in {I3 I2 I1 I0 . F0}: of integers it is 1, 3, 5, 7, of floats 1 and 0. So sums of FP4 are in
units of E2M1; the integers of `bitmod_fp4` are twice that, which its channel scales take up.

A sum is a code of the accumulator's format. A product with a scale is {sign, exponent field, magnitude}, exactly:
magnitude * 2**(field - 1 + low), where 2**low is the format's smallest subnormal.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.pe.arithmetic import FP16, BinaryFloat
from simulator.pe.bitmod_terms import FIXED_POINT_BITS, SPECIAL_VALUES, WIDEST_INTEGER
from simulator.rtl.cells import FullAdder
from simulator.rtl.fast_add import add_normalised, normalise, reaches_subnormals
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Bit, Columns, ceil_log2, largest, named, saturate, shift_left, shift_right
from simulator.rtl.staged_add import Ranks, add_scaled
from simulator.rtl.units.bitmod import (
    BSIG_BITS,
    TERM_BITS,
    BitModUnit,
    DequantizerUnit,
    EncoderUnit,
    GroupAdderUnit,
)


class _Block(Elaboratable):  # type: ignore[misc]
    """Ports and registers of a block."""

    def __init__(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        self._domain = ClockDomain("sync", reset_less=True)
        self.port = {name: Signal(width, name=name) for name, width in {**inputs, **outputs}.items()}

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, *self.port.values()]

    def register(self, value: Value, name: str) -> Signal:
        held = Signal(len(value), name=name, reset_less=True)
        self.m.d.sync += held.eq(value)
        return held

    def taken(self, port: str) -> Signal:
        """The register behind an input port."""
        return self.register(self.port[port], f"{port}_q")

    def elaborate(self, platform: object) -> Module:
        self.m = Module()
        self.m.domains.sync = self._domain
        self.describe()
        return self.m

    def describe(self) -> None:
        raise NotImplementedError


class BitModModule(_Block):
    """The PE. ``a``: FP16 codes, held for the cycles of a step; ``terms``, ``bsig``: of this cycle; ``first``: they
    begin a new group; ``out``: the partial sum of the group, `BitModUnit.latency` cycles later."""

    def __init__(self, unit: BitModUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        lanes = unit.lanes
        inputs = {"a": lanes * FP16.bits, "terms": lanes * TERM_BITS, "bsig": BSIG_BITS, "first": 1}
        super().__init__(inputs, {"out": unit.pe.accumulator_bits})
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()

    def describe(self) -> None:
        lanes = range(self.unit.lanes)
        a, terms = self.taken("a"), self.taken("terms")
        bsig, first = self.taken("bsig"), self.taken("first")
        signs, significands, distances, top = self._exponents(
            [a.word_select(lane, FP16.bits) for lane in lanes],
            [terms.word_select(lane, TERM_BITS) for lane in lanes],
        )
        signs = [self.register(sign, "sign") for sign in signs]
        significands = [self.register(significand, "significand") for significand in significands]
        distances = [self.register(distance, "distance") for distance in distances]
        top, bsig, first = (
            self.register(value, f"stage_1_{name}")
            for name, value in (("top", top), ("bsig", bsig), ("first", first))
        )
        total = self.register(self._sum(signs, significands, distances), "sum")
        top, bsig, first = (
            self.register(value, f"stage_2_{name}")
            for name, value in (("top", top), ("bsig", bsig), ("first", first))
        )
        held = Signal(len(self.port["out"]), name="group_sum", reset_less=True)
        self.m.d.sync += held.eq(self._accumulated(held, total, top, bsig, first))
        self.m.d.comb += self.port["out"].eq(held)

    def _exponents(
        self, activations: Sequence[Value], terms: Sequence[Value]
    ) -> tuple[list[Value], list[Value], list[Value], Value]:
        """Stage 1: by lane the product's sign, the significand times the mantissa bit, and its distance from the
        largest exponent; and that exponent. Lanes whose product is zero have exponent 0, below all others."""
        m = self.m
        signs, significands, exponents = [], [], []
        for a, term in zip(activations, terms, strict=True):
            field, mantissa = a[FP16.precision - 1 : -1], term[0]
            normal = named(m, field.any(), "normal")
            significand = named(
                m, Cat(a[: FP16.precision - 1], normal) & mantissa.replicate(FP16.precision), "product"
            )
            exponent = named(m, Cat(field[0] | ~normal, field[1:]) + term[1:3], "exponent")
            signs.append(a[-1] ^ term[3])
            significands.append(significand)
            exponents.append(named(m, Mux(significand.any(), exponent, 0), "exponent"))
        top = largest(m, exponents)
        distances = [
            saturate(m, named(m, top - exponent, "distance")[: len(top)], self.unit.pe.aligned_bits + 1)
            for exponent in exponents
        ]
        return signs, significands, distances, top

    def _sum(
        self, signs: Sequence[Value], significands: Sequence[Value], distances: Sequence[Value]
    ) -> Value:
        """Stage 2: the significands aligned, rounded to nearest even and added in one tree. Where a magnitude is
        rounded up its sign decides what that adds to the inverted or upright bits: -(x + up) = ~x + 1 - up."""
        pe = self.unit.pe
        columns = Columns(pe.sum_bits)
        for sign, significand, distance in zip(signs, significands, distances, strict=True):
            placed = Cat(C(0, pe.guard_bits + 1), significand)
            shifted = shift_right(self.m, placed, distance, sticky=True)
            lost, half, kept = shifted[0], shifted[1], shifted[2:]
            up = named(self.m, half & (lost | kept[0]), "up")
            columns.add_signed(Cat(kept ^ sign.replicate(len(kept)), sign))
            columns.add_bit(0, Bit(named(self.m, up ^ sign, "rounding")))
        return columns.total(self.m, self._adder)

    def _accumulated(self, held: Value, total: Value, top: Value, bsig: Value, first: Value) -> Value:
        """Stage 3: the sum times 2**bsig, added to the group's with one rounding. Before that it is normalised, in a
        stage of its own where there are four."""
        m, pe = self.m, self.unit.pe
        to = pe.sums.float_format
        assert to is not None
        sign = total[-1]
        magnitude = named(m, Mux(sign, -total, total), "magnitude")[: len(total) - 1]
        own = named(m, top + bsig, "own")
        # Field 1 of FP16 and bsig 0 are worth 2**low and a half.
        last_place = FP16.low - 1 - 1 - pe.guard_bits
        ranks = Ranks(m, ("normalise",) if self.unit.stages > 3 else ())
        begins = ranks.cut("normalise", {"first": first})["first"]
        if self.fast:
            sign, size, field = normalise(m, to, sign, magnitude, own, last_place)
            live = ranks.cut("normalise", {"sign": sign, "size": size, "field": field})
            subnormals = reaches_subnormals(to, last_place)
            return add_normalised(m, to, held, begins, **live, subnormals=subnormals)
        before = named(m, held & ~begins.replicate(len(held)), "before")
        if ranks.taken:
            return add_scaled(m, ranks, to, before, sign, magnitude, own, last_place)
        return fused_add(m, to, before, sign, magnitude, own, last_place)


class EncoderModule(_Block):
    """The encoder of the weights of one row of PEs. ``w``: codes of a step, held for its cycles, integers
    sign-extended, those of 3-bit floats shifted left by one; ``floats``: what they are; ``selector``: of the group's
    special value; ``cycle``: of the step. ``special`` is written to entry ``index`` where ``load``. ``terms`` and
    ``bsig`` two cycles later."""

    def __init__(self, unit: EncoderUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        index = ceil_log2(SPECIAL_VALUES)
        inputs = {"w": unit.lanes * WIDEST_INTEGER, "selector": index, "floats": 1, "cycle": 2}
        inputs |= {"special": FIXED_POINT_BITS + 1, "index": index, "load": 1}
        super().__init__(inputs, {"terms": unit.lanes * TERM_BITS, "bsig": BSIG_BITS})
        self.unit = unit
        self.fast = fast

    def describe(self) -> None:
        m = self.m
        w, floats, cycle = self.taken("w"), self.taken("floats"), self.taken("cycle")
        entries = [
            Signal(FIXED_POINT_BITS + 1, name="special_value", reset_less=True) for _ in range(SPECIAL_VALUES)
        ]
        for number, entry in enumerate(entries):
            write = self.port["load"] & (self.port["index"] == number)
            m.d.sync += entry.eq(Mux(write, self.port["special"], entry))
        special = named(m, Array(entries)[self.taken("selector")], "special_value")
        terms = []
        for lane in range(self.unit.lanes):
            code = w.word_select(lane, WIDEST_INTEGER)
            term = Mux(floats, self._float_term(code, special, cycle[0]), self._booth_term(code, cycle))
            terms.append(self.register(named(m, term, "term"), "term_q"))
        bsig = Mux(floats, Cat(~cycle[0], C(0, 2)), Cat(C(1, 1), cycle))
        m.d.comb += self.port["terms"].eq(Cat(*terms))
        m.d.comb += self.port["bsig"].eq(self.register(named(m, bsig, "bsig"), "bsig_q"))

    def _booth_term(self, code: Value, cycle: Value) -> Value:
        """The digit of the bits 2 cycle + 1, 2 cycle and the one below them."""
        padded = Cat(C(0, 1), code)
        triples = Array([padded[low : low + 3] for low in range(0, WIDEST_INTEGER, 2)])
        triple = named(self.m, triples[cycle], "triple")
        one = triple[0] ^ triple[1]
        two = (triple == 0b100) | (triple == 0b011)
        return Cat(one | two, two, C(0, 1), triple[2])

    def _float_term(self, code: Value, special: Value, second: Value) -> Value:
        """The leading one of {I3 .. I0}, or that of {I2 I1 I0 F0} without the first."""
        m = self.m
        mantissa, exponent, sign = code[0], code[1:3], code[3]
        normal = named(m, exponent.any(), "normal")
        shift = Cat(exponent[1] & ~exponent[0], exponent[1] & exponent[0])
        own = Cat(shift_left(m, Cat(mantissa, normal), shift, FIXED_POINT_BITS), sign)
        is_special = named(m, sign & ~code[:3].any(), "is_special")
        word = named(m, Mux(is_special, special, own), "fixed_point")
        first = _leading_one(word[1:5])
        rest = named(m, word[:4] & ~Cat(C(0, 1), first[:3]), "rest")
        found = named(m, Mux(second, _leading_one(rest), first), "found")
        place = Cat(found[1] | found[3], found[2] | found[3])
        return Cat(found.any(), place, word[5])


def _leading_one(word: Value) -> Value:
    """The highest one alone."""
    return Cat(*(word[bit] & ~word[bit + 1 :].any() for bit in range(len(word))))


class DequantizerModule(_Block):
    """A group's sum times its integer scale, one bit of it a cycle, the lowest first. ``load``: ``sum`` and ``scale``
    are taken, and bit 0 is done; ``shift``: the next bit is done. ``product``: after as many cycles as the scale has
    bits, and until the next ``load``. The bits of the scale that are left stand below what the product has so far."""

    def __init__(self, unit: DequantizerUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        pe = unit.pe
        inputs = {"sum": pe.accumulator_bits, "scale": unit.bits, "load": 1, "shift": 1}
        super().__init__(inputs, {"product": 1 + pe.sums.exponent_bits + pe.scaled_bits})

    def describe(self) -> None:
        m = self.m
        to = self.unit.pe.sums.float_format
        assert to is not None
        load, shift, scale = self.port["load"], self.port["shift"], self.port["scale"]
        held = Signal(to.bits, name="sum_q", reset_less=True)
        m.d.sync += held.eq(Mux(load, self.port["sum"], held))
        low = Signal(self.unit.bits, name="low", reset_less=True)
        high = Signal(to.precision, name="high", reset_less=True)
        arrived, _ = _unpacked(m, to, self.port["sum"])
        significand, field = _unpacked(m, to, held)
        begun = Cat(scale[1:], arrived & scale[0].replicate(to.precision), C(0, 1))
        total = named(m, high + (significand & low[0].replicate(to.precision)), "total")
        continued = Cat(low[1:], total)
        m.d.sync += Cat(low, high).eq(Mux(load, begun, Mux(shift, continued, Cat(low, high))))
        m.d.comb += self.port["product"].eq(Cat(low, high, field, held[-1]))


class GroupAdderModule(_Block):
    """The adder of a tile's column, and its outputs. ``products``: of the units of all its PEs; where ``take``, that of
    PE ``index`` is added to output ``index`` (of the first or second set: ``side``), or begins it anew (``first``).
    ``out``: output ``read``, which holds a product `GroupAdderUnit.latency` cycles after it was at its port. Products
    for the same output are at least as many cycles apart as the adder has stages."""

    def __init__(self, unit: GroupAdderUnit, adder: FullAdder | None = None, *, fast: bool = False) -> None:
        self.unit = unit
        self.fast = fast
        pe = unit.pe
        self._product_bits = 1 + pe.sums.exponent_bits + pe.scaled_bits
        inputs = {"products": pe.tile * self._product_bits, "take": 1, "first": 1}
        inputs |= {
            "index": ceil_log2(pe.tile),
            "side": 1 if unit.doubled else 0,
            "read": ceil_log2(unit.outputs),
        }
        super().__init__(inputs, {"out": pe.accumulator_bits})

    def describe(self) -> None:
        m, pe = self.m, self.unit.pe
        to = pe.sums.float_format
        assert to is not None
        chosen = self.port["products"].word_select(self.port["index"], self._product_bits)
        product = self.register(named(m, chosen, "chosen"), "product")
        control = self.register(
            Cat(self.port["take"], self.port["first"], self.port["index"], self.port["side"]), "control"
        )
        outputs = [Signal(to.bits, name="output", reset_less=True) for _ in range(self.unit.outputs)]
        magnitude, field, sign = product[: pe.scaled_bits], product[pe.scaled_bits : -1], product[-1]
        ranks = Ranks(m, self.unit.cut_places[: self.unit.cuts])
        before = named(m, Array(outputs)[control[2:]] & ~control[1].replicate(to.bits), "before")
        before = ranks.cut("normalise", {"before": before})["before"]
        total = add_scaled(m, ranks, to, before, sign, magnitude, field, to.low - 1)
        late: Value = control
        for place in ranks.taken:
            late = self.register(late, f"{place}_control")
        for number, output in enumerate(outputs):
            m.d.sync += output.eq(Mux(late[0] & (late[2:] == number), total, output))
        m.d.comb += self.port["out"].eq(Array(outputs)[self.port["read"]])


def _unpacked(m: Module, to: BinaryFloat, code: Value) -> tuple[Value, Value]:
    """Significand, hidden bit included, and exponent field, that of subnormals 1."""
    field = code[to.precision - 1 : -1]
    normal = named(m, field.any(), "normal")
    return Cat(code[: to.precision - 1], normal), Cat(field[0] | ~normal, field[1:])
