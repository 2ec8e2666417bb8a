"""Energy of a mapped netlist on a stream of operands, cycle by cycle.

Every net that changes pays the charge of its pins, C V^2 / 2, the internal energy of the output that drives it, and
that of the inputs that it reaches, which a library may state for an input whether the output moves or not. Flops pay
at each clock edge by what they hold and take. Two figures of the combinational part: *glitch-free*, each net changing
at most once a cycle, and *timed*, with delays of the cells, so that nets change as often as their inputs arrive
apart. Delays are inertial: a pulse shorter than the gate's delay is swallowed.

What is counted where: ``combinational`` the gates' outputs and what their inputs cost inside; ``register`` the flops'
outputs, data pins and input ports; ``clock`` the clock pins (their charge and the energy inside flops that an edge
costs). The clock's drivers and wires are not there. Data settles while the clock is high, so a flop's data pin moves
at a high clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from simulator.rtl.cycles import Bits, Floats, Ints, run_cycles
from simulator.rtl.network import (
    FALL,
    RISE,
    Network,
    delay_ps,
    input_energies_fj,
    state_fj,
    transition_fj,
)
from simulator.rtl.unit import Energy

_TICKS_PER_PS = 4
_NEVER = -1


@dataclass(frozen=True)
class _Arrays:
    """The network as flat arrays. Node n has the pins first[n] to first[n + 1]."""

    first: Ints
    pin_net: Ints
    pin_fj: Floats
    """(pins, edges) internal energy of an edge of the output by this input."""
    input_at: Ints
    """Where the node's inputs begin in ``input_fj``; -1 of a cell's further outputs, and where they cost nothing."""
    input_fj: Floats
    """(input, state of all inputs) internal energy of an input that changed to its value in this state."""
    pin_ticks: Ints
    """(pins, edges) delay."""
    node_net: Ints
    table_at: Ints
    tables: Bits
    net_fj: Floats
    """Charge of an edge of a net."""
    fan_first: Ints
    fan_node: Ints
    fan_pin: Ints
    flop_data: Ints
    flop_out: Ints
    """(flops, outputs) nets, -1 where there is none."""
    flop_inverted: Bits
    flop_ticks: Ints
    """(flops, outputs, edges) from the clock."""
    flop_fj: Floats
    """(flops, outputs, edges) internal energy of an edge of an output."""
    flop_data_fj: Floats
    """(flops, edges)"""
    flop_clock_fj: Floats
    """(flops, edges, data, held)"""


def simulate(
    network: Network, stimulus: Mapping[str, Bits], *, skip: int = 4, timed: bool = True
) -> tuple[Energy, dict[str, Bits]]:
    """Energy of a mean cycle on ``stimulus`` {input port: (cycles, bits)}, and the output ports' settled values of each
    cycle, {port: (cycles, bits)}; flops and inputs are zero before.

    Inputs change behind the clock edge that begins their cycle, so the next edge takes them.

    The first ``skip`` cycles are simulated and not counted. Without ``timed`` the timed figure is the glitch-free one.
    """
    arrays = _arrays(network)
    ports = [(nets, stimulus[name]) for name, nets in network.inputs.items()]
    input_nets = np.array([net for nets, _ in ports for net in nets], np.int64)
    values = np.ascontiguousarray(np.concatenate([bits for _, bits in ports], axis=1).astype(np.uint8))
    output_nets = np.array([net for nets in network.outputs.values() for net in nets], np.int64)
    fields = [getattr(arrays, name) for name in _Arrays.__dataclass_fields__]
    free, settled = run_cycles(False, skip, values, input_nets, output_nets, network.net_count, *fields)
    late = free
    if timed:
        late, settled_late = run_cycles(
            True, skip, values, input_nets, output_nets, network.net_count, *fields
        )
        if not np.array_equal(settled, settled_late):
            raise AssertionError("timed simulation settles elsewhere than the glitch-free one")
    counted = len(values) - skip
    outputs, at = {}, 0
    for name, nets in network.outputs.items():
        outputs[name] = settled[:, at : at + len(nets)]
        at += len(nets)
    free_fj, late_fj, register_fj, clock_fj = (
        float(spent / counted) for spent in (free[0], late[0], late[1], late[2])
    )
    return Energy(free_fj, late_fj, register_fj, clock_fj), outputs


@lru_cache(maxsize=1)
def _arrays(network: Network) -> _Arrays:
    slew = network.conditions.input_slew_ps
    vdd = network.cells.library.vdd
    first, pin_net, pin_fj, pin_ticks, table_at = [0], [], [], [], []
    tables: list[bool] = []
    known: dict[tuple[str, str], int] = {}
    input_at: list[int] = []
    input_fj: list[float] = []
    known_inputs: dict[str, int] = {}
    for node in network.nodes:
        name = node.cell.name
        if name not in known_inputs:
            energies = input_energies_fj(node.cell, slew)
            known_inputs[name] = len(input_fj) if any(energies) else _NEVER
            input_fj += energies if any(energies) else []
        input_at.append(known_inputs[name] if node.is_first else _NEVER)
        key = node.cell.name, node.output
        if key not in known:
            known[key] = len(tables)
            tables += node.cell.truth(node.output)
        table_at.append(known[key])
        load = float(network.load_ff[node.net])
        for pin, net in zip(node.cell.inputs, node.inputs, strict=True):
            pin_net.append(net)
            arc = node.cell, node.output, pin
            pin_fj.append([transition_fj(*arc, edge, slew, load) for edge in (RISE, FALL)])
            delays = [delay_ps(*arc, edge, slew, load) for edge in (RISE, FALL)]
            pin_ticks.append([max(round(delay * _TICKS_PER_PS), 1) for delay in delays])
        first.append(len(pin_net))
    fans: list[list[tuple[int, int]]] = [[] for _ in range(network.net_count)]
    for index in range(len(network.nodes)):
        for place in range(first[index], first[index + 1]):
            fans[pin_net[place]].append((index, place))
    flat = [entry for fan in fans for entry in fan]
    fan_first = np.concatenate([[0], np.cumsum([len(fan) for fan in fans])])
    return _Arrays(
        first=np.array(first, np.int64),
        pin_net=np.array(pin_net, np.int64),
        pin_fj=np.array(pin_fj, np.float64).reshape(-1, 2),
        input_at=np.array(input_at, np.int64),
        input_fj=np.array(input_fj, np.float64),
        pin_ticks=np.array(pin_ticks, np.int64).reshape(-1, 2),
        node_net=np.array([node.net for node in network.nodes], np.int64),
        table_at=np.array(table_at, np.int64),
        tables=np.array(tables, np.uint8),
        net_fj=network.load_ff * vdd**2 / 2,
        fan_first=fan_first.astype(np.int64),
        fan_node=np.array([node for node, _ in flat], np.int64),
        fan_pin=np.array([pin for _, pin in flat], np.int64),
        **_flop_arrays(network),
    )


def _flop_arrays(network: Network) -> dict[str, Any]:
    slew, vdd = network.conditions.input_slew_ps, network.cells.library.vdd
    count = len(network.registers)
    most = max((len(register.outputs) for register in network.registers), default=1)
    data = np.zeros(count, np.int64)
    out = np.full((count, most), _NEVER, np.int64)
    inverted = np.zeros((count, most), np.uint8)
    ticks = np.zeros((count, most, 2), np.int64)
    inside = np.zeros((count, most, 2))
    data_fj = np.zeros((count, 2))
    clock_fj = np.zeros((count, 2, 2, 2))
    for index, register in enumerate(network.registers):
        cell, flop = register.cell, register.flop
        data[index] = register.data
        for place, (pin, net, is_inverted) in enumerate(register.outputs):
            load = float(network.load_ff[net])
            out[index, place], inverted[index, place] = net, is_inverted
            for edge in (RISE, FALL):
                inside[index, place, edge] = transition_fj(cell, pin, flop.clock, edge, slew, load)
                delay = delay_ps(cell, pin, flop.clock, edge, slew, load)
                ticks[index, place, edge] = max(round(delay * _TICKS_PER_PS), 1)
        charge = cell.pins[flop.clock].capacitance_ff * vdd**2 / 2
        for held in (False, True):
            seen = {pin: held != is_inverted for pin, _, is_inverted in register.outputs}
            for value in (False, True):
                state = {**flop.inactive, **seen, flop.data: value}
                for edge in (RISE, FALL):
                    clock_fj[index, edge, int(value), int(held)] = charge + state_fj(
                        cell, flop.clock, edge, state, slew
                    )
        for edge in (RISE, FALL):
            states = (
                {**flop.inactive, **{pin: held != inv for pin, _, inv in register.outputs}, flop.clock: True}
                for held in (False, True)
            )
            data_fj[index, edge] = np.mean([state_fj(cell, flop.data, edge, state, slew) for state in states])
    return {
        "flop_data": data,
        "flop_out": out,
        "flop_inverted": inverted,
        "flop_ticks": ticks,
        "flop_fj": inside,
        "flop_data_fj": data_fj,
        "flop_clock_fj": clock_fj,
    }
