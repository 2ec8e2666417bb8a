"""Arrays of bit-serial PEs in Amaranth: the PEs, what stands at their edges, and the control that lets all of them go
from step to step together.

Each line of weights meets each line of activations in a PE, operands are broadcast, sums stay in the PEs. The control
counts bits or columns (Stripes, BitVert), or waits for the encoder that finds its last term last (Bit-Pragmatic). A
step follows the one before without a gap if its words are there::

    available   the next step's words of the serial operand are at ``serial``
    first       that step begins a new sum
    take        they are taken with this cycle
    parallel    the other operand's words, in the cycle in which ``take_parallel`` asks for them: an encoder or
                dispatcher takes a cycle before the PEs, so does a cut behind BitVert's choice of lanes
    count       bits of an activation, or columns of a weight, of the layer
    signed      of the serial operand, of the other one: two's complement

Of BitVert ``serial`` has the columns: one for each line, the highest first, in the cycle of ``take`` and those after
it, and with them the column's position and three bits of the group's constant (``position``, ``digit``,
``digit_signed``).

``out_<w>_<a>`` is the PE's. Results that leave over buses are `simulator.rtl.arrays`'s; column registers, by which
lines run ahead of each other, are not described.
"""

from __future__ import annotations

from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.pe.bitvert import BitVertPE
from simulator.pe.pragmatic import PragmaticPE
from simulator.pe.protocol import Side
from simulator.pe.stripes import StripesPE
from simulator.rtl.units.serial import EdgeUnit, SerialUnit
from simulator.rtl.units.serial_edge import EdgeModule
from simulator.rtl.units.serial_hardware import SerialModule
from simulator.rtl.units.serial_operands import column_lead, serial_side, widest

_COUNT_BITS = 5


class SerialArray(Elaboratable):  # type: ignore[misc]
    """``weight_lines`` x ``activation_lines`` PEs."""

    def __init__(self, unit: SerialUnit, weight_lines: int, activation_lines: int) -> None:
        self.unit = unit
        pe = unit.pe
        self.lines: dict[Side, int] = {"weights": weight_lines, "activations": activation_lines}
        self.serial_side = serial_side(pe)
        self.parallel_side: Side = "weights" if self.serial_side == "activations" else "activations"
        word = 1 if isinstance(pe, BitVertPE) else widest(pe, self.serial_side)
        lines = self.lines[self.serial_side]
        self.serial = Signal(lines * pe.lanes * word)
        self.parallel = Signal(self.lines[self.parallel_side] * pe.lanes * widest(pe, self.parallel_side))
        self.available, self.first = Signal(), Signal()
        self.count = Signal(_COUNT_BITS)
        self.signed = Signal(2)
        self.take, self.take_parallel = Signal(), Signal()
        self.side_band = {
            name: Signal(lines * width, name=name)
            for name, width in (("position", 3), ("digit", 3), ("digit_signed", 1))
            if isinstance(pe, BitVertPE)
        }
        self.outs = {
            (w, a): Signal(pe.accumulator_bits, name=f"out_{w}_{a}")
            for w in range(weight_lines)
            for a in range(activation_lines)
        }
        self._domain = ClockDomain("sync", reset_less=True)

    @property
    def ports(self) -> list[Signal]:
        inputs = [self.serial, self.parallel, self.available, self.first, self.count, self.signed]
        outputs = [self.take, self.take_parallel, *self.outs.values()]
        return [self._domain.clk, *inputs, *self.side_band.values(), *outputs]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = self._domain
        self._pes = {}
        for at, out in self.outs.items():
            pe = self._pes[at] = SerialModule(self.unit, inner=True)
            m.submodules += pe
            m.d.comb += out.eq(pe.out)
        if isinstance(self.unit.pe, StripesPE):
            self._stripes(m)
        elif isinstance(self.unit.pe, PragmaticPE):
            self._pragmatic(m)
        else:
            self._bitvert(m)
        return m

    def _line(self, port: Value, side: Side, line: int) -> Value:
        return port.word_select(line, len(port) // self.lines[side])

    def _drive(self, m: Module, line: int, side: Side, port: str, value: Value) -> None:
        """A port of all PEs of a line."""
        for (w, a), pe in self._pes.items():
            if (w if side == "weights" else a) == line:
                m.d.comb += pe.inputs[port].eq(value)

    def _broadcast(self, m: Module, **ports: Value) -> None:
        """Ports of all PEs."""
        for pe in self._pes.values():
            for port, value in ports.items():
                m.d.comb += pe.inputs[port].eq(value)

    def _after(self, m: Module, value: Value, name: str) -> Signal:
        """The same a cycle later."""
        later = Signal(len(value), name=name, reset_less=True)
        m.d.sync += later.eq(value)
        return later

    def _parallel_words(self, m: Module, port: str) -> None:
        for line in range(self.lines[self.parallel_side]):
            self._drive(
                m, line, self.parallel_side, port, self._line(self.parallel, self.parallel_side, line)
            )

    def _stripes(self, m: Module) -> None:
        place = Signal(_COUNT_BITS, reset_less=True)
        active, second = Signal(reset_less=True), Signal(reset_less=True)
        m.d.comb += self.take.eq(self.available & (~active | (place == 0)))
        start = self._after(m, self.take, "start")
        m.d.sync += [
            active.eq(self.take | (active & (place != 0))),
            place.eq(Mux(self.take, self.count - 1, place - 1)),
            second.eq(start),
        ]
        lanes = self.unit.pe.lanes
        for line in range(self.lines["activations"]):
            words = self._line(self.serial, "activations", line)
            bits = []
            for lane in range(lanes):
                dispatcher = EdgeModule(EdgeUnit(self.unit.pe), inner=True)
                m.submodules += dispatcher
                m.d.comb += [
                    dispatcher.inputs["word"].eq(words.word_select(lane, len(words) // lanes)),
                    dispatcher.inputs["load"].eq(self.take),
                    dispatcher.inputs["select"].eq(place),
                ]
                bits.append(dispatcher.outputs["out"])
            self._drive(m, line, "activations", "bits", Cat(*bits))
        m.d.comb += self.take_parallel.eq(start)
        self._parallel_words(m, "w")
        self._broadcast(
            m,
            load=start,
            w_signed=self.signed[1],
            negate=second & self.signed[0],
            last=active & (place == 0),
            first=start & self._after(m, self.first, "first_q"),
        )

    def _pragmatic(self, m: Module) -> None:
        last = []
        for line in range(self.lines[self.serial_side]):
            encoder = EdgeModule(EdgeUnit(self.unit.pe), inner=True)
            m.submodules += encoder
            m.d.comb += [
                encoder.inputs["word"].eq(self._line(self.serial, self.serial_side, line)),
                encoder.inputs["load"].eq(self.take),
                encoder.inputs["signed"].eq(self.signed[0]),
            ]
            last.append(encoder.outputs["last"])
            self._drive(m, line, self.serial_side, "terms", encoder.outputs["out"])
            if "lowest" in encoder.outputs:
                self._drive(m, line, self.serial_side, "lowest", encoder.outputs["lowest"])
        m.d.comb += self.take.eq(self.available & Cat(*last).all())
        start = self._after(m, self.take, "start")
        m.d.comb += self.take_parallel.eq(start)
        self._parallel_words(m, "parallel")
        self._broadcast(
            m,
            load=start,
            parallel_signed=self.signed[1],
            first=start & self._after(m, self.first, "first_q"),
        )

    def _bitvert(self, m: Module) -> None:
        pe = self.unit.pe
        left = Signal(_COUNT_BITS, reset_less=True)
        second = self._after(m, self.take, "second")
        m.d.comb += self.take.eq(self.available & (left == 0))
        with m.If(self.take):
            m.d.sync += left.eq(self.count - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        streams = self.take | (left != 0)
        for line in range(self.lines["weights"]):
            column = self._line(self.serial, "weights", line)
            self._drive(m, line, "weights", "column", column & streams.replicate(len(column)))
            for name, port in self.side_band.items():
                value = self._line(port, "weights", line)
                gated = value & streams.replicate(len(value))
                self._drive(m, line, "weights", name, gated)
        load: Value = self.take
        if column_lead(pe):
            load = self._after(m, load, "load")
        m.d.comb += self.take_parallel.eq(load)
        self._parallel_words(m, "a")
        for line in range(self.lines["activations"]):
            sums = EdgeModule(EdgeUnit(pe), inner=True)
            m.submodules += sums
            m.d.comb += [
                sums.inputs["word"].eq(self._line(self.parallel, "activations", line)),
                sums.inputs["load"].eq(load),
                sums.inputs["signed"].eq(self.signed[1]),
            ]
            of_groups = len(self._pes[0, 0].inputs["sums"])
            out = sums.outputs["out"]
            self._drive(m, line, "activations", "sums", out[:of_groups])
            whole = out[of_groups:] if len(out) > of_groups else out
            self._drive(m, line, "activations", "total", whole)
        self._broadcast(
            m,
            load=load,
            a_signed=self.signed[1],
            upper=second,
            negate=self.take & self.signed[0],
            first=self.take & self.first,
        )
