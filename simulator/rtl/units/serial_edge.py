"""What stands before the lines of bit-serial arrays, in Amaranth: dispatcher, encoder, sums of activations.

Ports are sampled at the rising edge of ``clk``; there is no reset. ``load``: the registers take the words at the port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.pe.bitvert import BitVertPE
from simulator.pe.pragmatic import PragmaticPE, positions
from simulator.pe.serial.terms import Recoding
from simulator.rtl.cells import FullAdder
from simulator.rtl.parts import Columns, named

if TYPE_CHECKING:
    from simulator.rtl.units.serial import EdgeUnit


class EdgeModule(Elaboratable):  # type: ignore[misc]
    """``inner``: part of an array, whose clock it takes.

    Dispatcher of a lane: out = bit ``select`` of the word.

    Encoder of a line: out = for each lane, distance of its lowest term above ``lowest`` (of as many bits as the first
    stage shifts by), its sign, whether it has one within reach; ``lowest`` where the first stage does not reach all
    positions; ``last``: no term is left behind this cycle's. A term that is put out is gone in the next cycle.

    Sums: out = sums of sub-groups, then, of several, that of all.
    """

    def __init__(
        self, unit: EdgeUnit, adder: FullAdder | None = None, *, fast: bool = False, inner: bool = False
    ) -> None:
        self.unit = unit
        self.fast = fast
        self._adder = adder or FullAdder()
        self._domain = None if inner else ClockDomain("sync", reset_less=True)
        self.inputs = {name: Signal(width, name=name) for name, width in unit.input_widths.items()}
        self.outputs = {name: Signal(width, name=name) for name, width in unit.output_widths.items()}

    @property
    def ports(self) -> list[Signal]:
        clock = [] if self._domain is None else [self._domain.clk]
        return [*clock, *self.inputs.values(), *self.outputs.values()]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._domain is not None:
            m.domains.sync = self._domain
        pe = self.unit.pe
        if isinstance(pe, PragmaticPE):
            self._encoder(m, pe)
        elif isinstance(pe, BitVertPE):
            self._sums(m, pe)
        else:
            self._dispatcher(m)
        return m

    def _dispatcher(self, m: Module) -> None:
        word = Signal(len(self.inputs["word"]), name="word_q", reset_less=True)
        with m.If(self.inputs["load"]):
            m.d.sync += word.eq(self.inputs["word"])
        level = list(word)
        for choice in self.inputs["select"]:
            chosen = [Mux(choice, high, low) for low, high in zip(level[::2], level[1::2], strict=False)]
            level = chosen + level[2 * len(chosen) :]
        m.d.comb += self.outputs["out"].eq(level[0])

    def _encoder(self, m: Module, pe: PragmaticPE) -> None:
        word_bits = len(self.inputs["word"]) // pe.lanes
        places, window = positions(word_bits, pe.recoding), pe.window(word_bits)
        lanes = []
        for lane in range(pe.lanes):
            word = self.inputs["word"][lane * word_bits : (lane + 1) * word_bits]
            positive, negative = _recoded(m, pe.recoding, word, self.inputs["signed"])
            if pe.recoding == "none":
                # One magnitude and one sign serve all terms.
                mask = Signal(places, name="mask", reset_less=True)
                sign = Signal(name="sign", reset_less=True)
                with m.If(self.inputs["load"]):
                    m.d.sync += sign.eq(negative)
                lanes.append((mask, positive, sign))
                continue
            mask = Signal(2 * places, name="mask", reset_less=True)
            lanes.append((mask, Cat(positive, negative), None))
        either = [
            named(m, mask[:places] | mask[places:], "either") if sign is None else mask
            for mask, _, sign in lanes
        ]
        lowest = [named(m, each & -each, "lowest")[:places] for each in either]
        reach = C((1 << places) - 1, places)
        base_bits = (places - window).bit_length()
        base: Value = C(0, 0)
        if base_bits:
            base, reach = _window(m, either, places, window)
            m.d.comb += self.outputs["lowest"].eq(base)
        out, left = [], []
        for (mask, loaded, sign), own in zip(lanes, lowest, strict=True):
            taken = named(m, own & reach, "taken")
            kept = ~(taken if sign is not None else Cat(taken, taken))
            rest = named(m, mask & kept, "rest")
            left.append(rest.any())
            m.d.sync += mask.eq(Mux(self.inputs["load"], loaded, rest))
            offset_bits = (window - 1).bit_length()
            position = named(m, _encoded(taken), "position")
            offset = (
                (position[:offset_bits] - base[:offset_bits])[:offset_bits]
                if base_bits
                else position[:offset_bits]
            )
            valid = named(m, taken.any(), "valid")
            # Where no term is taken the shifter stands still.
            offset = named(m, offset & valid.replicate(offset_bits), "offset")
            is_negative = sign & valid if sign is not None else (mask[places:] & taken).any()
            out.append(Cat(offset, is_negative, valid))
        m.d.comb += self.outputs["out"].eq(Cat(*out))
        m.d.comb += self.outputs["last"].eq(~Cat(*left).any())

    def _sums(self, m: Module, pe: BitVertPE) -> None:
        word_bits = len(self.inputs["word"]) // pe.lanes
        words = [self.inputs["word"][i * word_bits : (i + 1) * word_bits] for i in range(pe.lanes)]
        is_signed = self.inputs["signed"]
        extended = [named(m, Cat(word, word[-1] & is_signed), "extended") for word in words]
        sums = []
        for low in range(0, pe.lanes, pe.sub_group):
            columns = Columns(self.unit.sum_widths[0])
            for word in extended[low : low + pe.sub_group]:
                columns.add_signed(word)
            sums.append(columns.total(m, self._adder, fast=self.fast))
        if len(sums) > 1:
            columns = Columns(self.unit.sum_widths[1])
            for total in sums:
                columns.add_signed(named(m, Cat(total, total[-1] & is_signed), "extended"))
            sums.append(columns.total(m, self._adder, fast=self.fast))
        with m.If(self.inputs["load"]):
            m.d.sync += self.outputs["out"].eq(Cat(*sums))


def _recoded(m: Module, recoding: Recoding, word: Value, is_signed: Value) -> tuple[Value, Value]:
    """Masks of the positive and the negative terms (`simulator.pe.serial.terms`); ``none``: magnitude and sign."""
    sign = named(m, word[-1] & is_signed, "sign")
    bits = len(word)
    if recoding == "radix4_booth":
        padded = Cat(C(0, 1), word, sign, sign, sign)
        positive, negative = [], []
        for digit in range((bits + 2) // 2):
            below, low, high = padded[2 * digit], padded[2 * digit + 1], padded[2 * digit + 2]
            single, double = low ^ below, ~(low ^ below) & (high ^ low)
            positive += [single & ~high, double & ~high]
            negative += [single & high, double & high]
        return Cat(*positive)[: bits + 1], Cat(*negative)[: bits + 1]
    magnitude = named(m, (word ^ sign.replicate(bits)) + sign, "magnitude")[:bits]
    if recoding == "none":
        return magnitude, sign
    if recoding == "naf":
        # 3x and x differ where a digit is not zero, a place above it; 3x has its ones where it is positive.
        tripled = named(m, Cat(C(0, 1), magnitude, C(0, 1)) + magnitude, "tripled")[: bits + 2]
        wide = Cat(magnitude, C(0, 2))
        plus, minus = (tripled & ~wide)[1:], (~tripled & wide)[1:]
    else:
        plus, minus = _booth_like(m, magnitude)
    plus, minus = named(m, plus, "plus"), named(m, minus, "minus")
    return named(m, Mux(sign, minus, plus), "positive"), named(m, Mux(sign, plus, minus), "negative")


def _booth_like(m: Module, magnitude: Value) -> tuple[Value, Value]:
    """From the top: three ones in a row open a run, with a term above it; inside it zeros are negative terms, and so is
    the one before two zeros that closes it."""
    bits = len(magnitude)
    plus: list[Value] = [C(0, 1)] * (bits + 1)
    minus: list[Value] = [C(0, 1)] * (bits + 1)
    inside: Value = C(0, 1)
    for place in range(bits - 1, -1, -1):
        own, next_, after = (magnitude[place - i] if place >= i else C(0, 1) for i in range(3))
        opens = named(m, ~inside & own & next_ & after, "opens")
        closes = named(m, inside & own & ~next_ & ~after, "closes")
        plus[place + 1] = plus[place + 1] | opens
        plus[place] = own & ~inside & ~opens
        minus[place] = inside & (~own | closes)
        inside = named(m, (inside | opens) & ~closes, "inside")
    return Cat(*plus), Cat(*minus)


def _window(m: Module, masks: list[Value], places: int, window: int) -> tuple[Value, Value]:
    """(lowest position of all lanes, mask of the positions that the first stage reaches from there). The first stage
    reaches the top from ``places`` - ``window`` on, which stands for all positions above."""
    union = masks[0]
    for mask in masks[1:]:
        union = union | mask
    union = named(m, union, "union")
    lowest = named(m, union & -union, "lowest_of_all")[: places - window]
    at = named(m, Cat(lowest, ~union[: places - window].any()), "at")
    reached = [
        Cat(*(at[i - d] if 0 <= i - d < len(at) else C(0, 1) for d in range(window))).any()
        for i in range(places)
    ]
    return named(m, _encoded(at), "base"), named(m, Cat(*reached), "reach")


def _encoded(one_hot: Value) -> Value:
    """The place of the only one; zero where there is none."""
    bits = (len(one_hot) - 1).bit_length()
    return Cat(
        *(Cat(*(one_hot[i] for i in range(len(one_hot)) if i >> bit & 1)).any() for bit in range(bits))
    )
