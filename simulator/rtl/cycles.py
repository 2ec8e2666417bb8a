"""The kernels of gate-level simulation: nodes evaluated once a cycle, or event by event. Arrays as in `gates`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.kernels import kernel

Bits = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@kernel()
def state_of(node: int, value: Bits, first: Ints, pin_net: Ints) -> int:
    """The inputs of a node, bit i its pin i."""
    state = 0
    for pin in range(first[node], first[node + 1]):
        state |= value[pin_net[pin]] << (pin - first[node])
    return state


@kernel()
def settle(
    value: Bits,
    before: Bits,
    first: Ints,
    pin_net: Ints,
    pin_fj: Floats,
    input_at: Ints,
    input_fj: Floats,
    node_net: Ints,
    table_at: Ints,
    tables: npt.NDArray[np.uint8],
    net_fj: Floats,
) -> float:
    """Every node once, in order. The internal energy of an output is the mean over the inputs that changed."""
    energy = 0.0
    for node in range(len(node_net)):
        state = state_of(node, value, first, pin_net)
        new = tables[table_at[node] + state]
        if input_at[node] >= 0:
            pins = first[node + 1] - first[node]
            for pin in range(pins):
                if value[pin_net[first[node] + pin]] != before[pin_net[first[node] + pin]]:
                    energy += input_fj[input_at[node] + (pin << pins) + state]
        net = node_net[node]
        if new != value[net]:
            edge = 0 if new else 1
            changed = 0
            inside = 0.0
            for pin in range(first[node], first[node + 1]):
                if value[pin_net[pin]] != before[pin_net[pin]]:
                    changed += 1
                    inside += pin_fj[pin, edge]
            energy += net_fj[net] + (inside / changed if changed else 0.0)
            value[net] = new
    return energy


@kernel()
def settle_timed(
    value: Bits,
    start_net: Ints,
    start_at: Ints,
    starts: int,
    slots: int,
    first: Ints,
    pin_net: Ints,
    pin_fj: Floats,
    input_at: Ints,
    input_fj: Floats,
    pin_ticks: Ints,
    node_net: Ints,
    table_at: Ints,
    tables: npt.NDArray[np.uint8],
    net_fj: Floats,
    fan_first: Ints,
    fan_node: Ints,
    fan_pin: Ints,
) -> float:
    """Events in the order of time. ``start_net`` change at ``start_at`` ticks; their own energy is not counted here.

    A wheel of ``slots`` ticks, more than any delay, holds a doubly linked list of events a tick. Event e < nodes is the
    one pending change of node e; the others are the starts.
    """
    nodes = len(node_net)
    head = np.full(slots, -1, np.int64)
    after = np.full(nodes + starts, -1, np.int64)
    ahead = np.full(nodes + starts, -1, np.int64)
    due = np.full(nodes + starts, -1, np.int64)
    cause = np.zeros(nodes, np.int64)
    energy = 0.0
    waiting = 0
    for start in range(starts):
        event = nodes + start
        slot = start_at[start] % slots
        due[event] = start_at[start]
        after[event] = head[slot]
        if head[slot] >= 0:
            ahead[head[slot]] = event
        head[slot] = event
        waiting += 1
    now = 0
    while waiting:
        slot = now % slots
        while head[slot] >= 0:
            event = head[slot]
            head[slot] = after[event]
            if after[event] >= 0:
                ahead[after[event]] = -1
            due[event] = -1
            waiting -= 1
            if event < nodes:
                net = node_net[event]
                value[net] = 1 - value[net]
                energy += net_fj[net] + pin_fj[cause[event], 0 if value[net] else 1]
            else:
                net = start_net[event - nodes]
                value[net] = 1 - value[net]
            for at in range(fan_first[net], fan_first[net + 1]):
                node = fan_node[at]
                state = state_of(node, value, first, pin_net)
                new = tables[table_at[node] + state]
                if input_at[node] >= 0:
                    pin = fan_pin[at] - first[node]
                    energy += input_fj[input_at[node] + (pin << first[node + 1] - first[node]) + state]
                if new != value[node_net[node]]:
                    if due[node] < 0:
                        pin = fan_pin[at]
                        cause[node] = pin
                        due[node] = now + pin_ticks[pin, 0 if new else 1]
                        place = due[node] % slots
                        ahead[node] = -1
                        after[node] = head[place]
                        if head[place] >= 0:
                            ahead[head[place]] = node
                        head[place] = node
                        waiting += 1
                elif due[node] >= 0:
                    if ahead[node] >= 0:
                        after[ahead[node]] = after[node]
                    else:
                        head[due[node] % slots] = after[node]
                    if after[node] >= 0:
                        ahead[after[node]] = ahead[node]
                    due[node] = -1
                    waiting -= 1
        now += 1
    return energy


@kernel()
def run_cycles(
    timed: bool,
    skip: int,
    stimulus: Bits,
    input_nets: Ints,
    output_nets: Ints,
    nets: int,
    first: Ints,
    pin_net: Ints,
    pin_fj: Floats,
    input_at: Ints,
    input_fj: Floats,
    pin_ticks: Ints,
    node_net: Ints,
    table_at: Ints,
    tables: npt.NDArray[np.uint8],
    net_fj: Floats,
    fan_first: Ints,
    fan_node: Ints,
    fan_pin: Ints,
    flop_data: Ints,
    flop_out: Ints,
    flop_inverted: npt.NDArray[np.uint8],
    flop_ticks: Ints,
    flop_fj: Floats,
    flop_data_fj: Floats,
    flop_clock_fj: Floats,
) -> tuple[Floats, Bits]:
    """(combinational, register, clock energies of all counted cycles), outputs (cycles, bits)."""
    cycles = len(stimulus)
    flops, pins_out = flop_out.shape
    value = np.zeros(nets, np.uint8)
    value[1] = 1
    for flop in range(flops):
        for out in range(pins_out):
            if flop_out[flop, out] >= 0:
                value[flop_out[flop, out]] = flop_inverted[flop, out]
    before = value.copy()
    settle(value, before, first, pin_net, pin_fj, input_at, input_fj, node_net, table_at, tables, net_fj)
    held = np.zeros(flops, np.uint8)
    taken = np.zeros(flops, np.uint8)
    spent = np.zeros(3)
    settled = np.zeros((cycles, len(output_nets)), np.uint8)
    start_net = np.zeros(flops * pins_out + len(input_nets), np.int64)
    start_at = np.zeros(flops * pins_out + len(input_nets), np.int64)
    slots = 1
    for pin in range(len(pin_ticks)):
        slots = max(slots, pin_ticks[pin, 0] + 1, pin_ticks[pin, 1] + 1)
    for flop in range(flops):
        for out in range(pins_out):
            slots = max(slots, flop_ticks[flop, out, 0] + 1, flop_ticks[flop, out, 1] + 1)
    for cycle in range(cycles):
        counted = 1.0 if cycle >= skip else 0.0
        before[:] = value
        starts = 0
        for flop in range(flops):
            data = value[flop_data[flop]]
            taken[flop] = data
            spent[2] += counted * flop_clock_fj[flop, 0, data, held[flop]]
            if data != held[flop]:
                for out in range(pins_out):
                    net = flop_out[flop, out]
                    if net >= 0:
                        edge = 0 if data ^ flop_inverted[flop, out] else 1
                        spent[1] += counted * (net_fj[net] + flop_fj[flop, out, edge])
                        start_net[starts] = net
                        start_at[starts] = flop_ticks[flop, out, edge]
                        starts += 1
        for index in range(len(input_nets)):
            net = input_nets[index]
            if value[net] != stimulus[cycle, index]:
                spent[1] += counted * net_fj[net]
                start_net[starts] = net
                start_at[starts] = 0
                starts += 1
        if timed:
            spent[0] += counted * settle_timed(
                value,
                start_net,
                start_at,
                starts,
                slots,
                first,
                pin_net,
                pin_fj,
                input_at,
                input_fj,
                pin_ticks,
                node_net,
                table_at,
                tables,
                net_fj,
                fan_first,
                fan_node,
                fan_pin,
            )
        else:
            for start in range(starts):
                value[start_net[start]] = 1 - value[start_net[start]]
            spent[0] += counted * settle(
                value, before, first, pin_net, pin_fj, input_at, input_fj, node_net, table_at, tables, net_fj
            )
        for flop in range(flops):
            held[flop] = taken[flop]
            data = value[flop_data[flop]]
            if data != before[flop_data[flop]]:
                spent[1] += counted * flop_data_fj[flop, 0 if data else 1]
            spent[2] += counted * flop_clock_fj[flop, 1, data, held[flop]]
        for index in range(len(output_nets)):
            settled[cycle, index] = value[output_nets[index]]
    return spent, settled
