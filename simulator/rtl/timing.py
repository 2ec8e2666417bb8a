"""Static timing analysis of a mapped netlist: the shortest clock period.

Arrival times and slews of both edges travel through the delay tables in the order of the netlist, the later arrival and
the longer slew of all inputs winning. Paths begin at flops' clocks and end at flops' data pins, where the setup time is
added. Every arc counts, whether or not some operand can use it. Wires have neither capacitance nor delay.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.rtl.liberty import Cell
from simulator.rtl.network import FALL, RISE, Network, delay_tables

Floats = npt.NDArray[np.float64]

_NAMES = (("cell_rise", "rise_transition"), ("cell_fall", "fall_transition"))
_FROM = {"positive_unate": ((RISE,), (FALL,)), "negative_unate": ((FALL,), (RISE,))}
"""sense -> edges of the input that make (a rise, a fall) of the output."""
_EITHER = ((RISE, FALL), (RISE, FALL))


def shortest_period_ps(network: Network) -> float:
    """The longest path from clock to clock, in ps."""
    arrival, slew = _propagate(network)
    period = 0.0
    clock_slew = network.conditions.input_slew_ps
    for register in network.registers:
        for edge in (RISE, FALL):
            at = arrival[register.data, edge]
            if at > -np.inf:
                setup = setup_ps(
                    register.cell, register.flop.data, edge, float(slew[register.data, edge]), clock_slew
                )
                period = max(period, float(at) + setup)
    return period


def setup_ps(cell: Cell, data: str, edge: int, slew_ps: float, clock_slew_ps: float) -> float:
    """Setup time of an edge at the data pin; the largest where there are several, 0 where there is none."""
    name = "rise_constraint" if edge == RISE else "fall_constraint"
    times = [
        arc.tables[name].at(slew_ps, clock_slew_ps)
        for arc in cell.pins[data].arcs
        if arc.kind == "setup_rising" and name in arc.tables
    ]
    return max(times, default=0.0)


def _propagate(network: Network) -> tuple[Floats, Floats]:
    """((nets, edges) arrival times, -inf where nothing arrives; slews)."""
    arrival = np.full((network.net_count, 2), -np.inf)
    slew = np.zeros((network.net_count, 2))
    first_slew = network.conditions.input_slew_ps
    for nets in network.inputs.values():
        for net in nets:
            arrival[net], slew[net] = 0.0, first_slew
    for register in network.registers:
        for pin, net, _ in register.outputs:
            _, tables = delay_tables(register.cell, pin, register.flop.clock)
            for edge, (delay, transition) in enumerate(_NAMES):
                if delay in tables:
                    load = float(network.load_ff[net])
                    arrival[net, edge] = tables[delay].at(first_slew, load)
                    slew[net, edge] = tables[transition].at(first_slew, load)
    for node in network.nodes:
        load = float(network.load_ff[node.net])
        for pin, net in zip(node.cell.inputs, node.inputs, strict=True):
            sense, tables = delay_tables(node.cell, node.output, pin)
            for edge, (delay, transition) in enumerate(_NAMES):
                if delay not in tables:
                    continue
                for cause in _FROM.get(sense, _EITHER)[edge]:
                    if arrival[net, cause] == -np.inf:
                        continue
                    before = float(slew[net, cause])
                    at = arrival[net, cause] + tables[delay].at(before, load)
                    arrival[node.net, edge] = max(arrival[node.net, edge], at)
                    if transition in tables:
                        longer = tables[transition].at(before, load)
                        slew[node.net, edge] = max(slew[node.net, edge], longer)
    return arrival, slew
