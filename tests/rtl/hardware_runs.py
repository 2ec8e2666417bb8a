"""Units and circuits run in Amaranth's own simulator, with the kinds of full adders that libraries have."""

from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from simulator.rtl.cells import FullAdder
from simulator.rtl.unit import port_words

INVERTING = FullAdder(sum_inverted=True, carry_inverted=True)
"""As ASAP7's cell; SG13G2's inverts the carry alone."""
ADDERS = (FullAdder(), INVERTING, FullAdder(carry_inverted=True))


def in_amaranth(unit, ports, adder=None, fast=False):
    """What the unit's description puts out from its latency on, in Amaranth's own simulator."""
    module = unit.module(adder, fast=fast)
    words = {name: port_words(bits) for name, bits in ports.items()}
    signals = {signal.name: signal for signal in module.ports}
    seen = {name: [] for name in signals if name not in words and name != "clk"}

    async def bench(context):
        for cycle in range(len(next(iter(words.values())))):
            for name, values in words.items():
                context.set(signals[name], values[cycle])
            for name, values in seen.items():
                values.append(context.get(signals[name]))
            await context.tick()

    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return unit.read(seen)[unit.latency :]


def combinational(build, inputs, rows):
    """Outputs of a combinational circuit for rows of input values."""
    module = Module()
    signals = [Signal(width) for width in inputs]
    value = build(module, *signals)
    out = Signal(len(value))
    module.d.comb += out.eq(value)
    results = []

    async def bench(context):
        for row in rows:
            for signal, number in zip(signals, row, strict=True):
                context.set(signal, int(number))
            results.append(context.get(out))

    simulator = Simulator(module)
    simulator.add_testbench(bench)
    simulator.run()
    return results
