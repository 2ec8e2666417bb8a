"""A mapped netlist with the figures of its cells: what gate-level simulation and timing analysis run on.

A *node* is one output of a combinational cell, a *net* a wire. Loads are those of the pins on a net, plus a given load
at output ports; wires have no capacitance. Tables are read at one input slew for energies and for the delays of
simulation; timing analysis (`simulator.rtl.timing`) follows slews from gate to gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.rtl.boolean import BooleanError, truth_table
from simulator.rtl.cells import CellSet, worst_arcs
from simulator.rtl.liberty import Cell, Flop, Table, mean_table
from simulator.rtl.synthesis import Netlist

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RISE, FALL = 0, 1


@dataclass(frozen=True)
class Conditions:
    """Under which energies and delays are read off the tables."""

    input_slew_ps: float
    output_load_ff: float


@dataclass(frozen=True)
class Node:
    """One output of a combinational cell."""

    cell: Cell
    output: str
    net: int
    inputs: tuple[int, ...]
    """Nets of the cell's inputs, in its order."""
    is_first: bool
    """Of its cell's outputs: what happens at the inputs is counted with it."""


@dataclass(frozen=True)
class Register:
    """A flop: the net that it takes and those that show what it holds."""

    cell: Cell
    flop: Flop
    data: int
    outputs: tuple[tuple[str, int, bool], ...]
    """(pin, net, inverted)"""


class Network:
    """Nodes in an order in which every input is computed before it is used; nets 0 and 1 are the constants."""

    def __init__(self, netlist: Netlist, cells: CellSet, conditions: Conditions, clock: str = "clk") -> None:
        self.cells = cells
        self.conditions = conditions
        self.netlist = netlist
        self._numbers: dict[int | str, int] = {"0": 0, "1": 1, "x": 0}
        self.inputs = {name: self._nets(bits) for name, bits in netlist.inputs.items() if name != clock}
        self.outputs = {name: self._nets(bits) for name, bits in netlist.outputs.items()}
        self._nets(netlist.inputs.get(clock, ()))
        nodes: list[Node] = []
        registers: list[Register] = []
        for instance, name, pins in netlist.cells:
            cell = cells.library.cells[name]
            if cell.flop is not None:
                registers.append(self._register(instance, cell, cell.flop, pins))
            else:
                nodes += self._cell_nodes(cell, pins)
        self.registers = tuple(registers)
        self.nodes = tuple(self._ordered(nodes))
        self.net_count = len(self._numbers)
        self.load_ff = self._loads()

    def _net(self, bit: int | str) -> int:
        return self._numbers.setdefault(bit, len(self._numbers))

    def _nets(self, bits: Sequence[int | str]) -> tuple[int, ...]:
        return tuple(self._net(bit) for bit in bits)

    def _register(self, instance: str, cell: Cell, flop: Flop, pins: Mapping[str, int | str]) -> Register:
        outputs = tuple(
            (pin, self._net(pins.get(pin, f"{instance}.{pin}")), inverted)
            for pin, inverted in flop.outputs.items()
        )
        return Register(cell, flop, self._net(pins[flop.data]), outputs)

    def _cell_nodes(self, cell: Cell, pins: Mapping[str, int | str]) -> Iterator[Node]:
        inputs = self._nets([pins[pin] for pin in cell.inputs])
        used = [output for output in cell.outputs if output in pins]
        for output in used:
            yield Node(cell, output, self._net(pins[output]), inputs, output == used[0])

    def _ordered(self, nodes: list[Node]) -> Iterator[Node]:
        users: dict[int, list[int]] = {}
        missing = []
        driven = {node.net for node in nodes}
        for index, node in enumerate(nodes):
            waits = [net for net in set(node.inputs) if net in driven]
            missing.append(len(waits))
            for net in waits:
                users.setdefault(net, []).append(index)
        ready = [index for index, count in enumerate(missing) if not count]
        done = 0
        while done < len(ready):
            node = nodes[ready[done]]
            done += 1
            yield node
            for index in users.get(node.net, ()):
                missing[index] -= 1
                if not missing[index]:
                    ready.append(index)
        if done < len(nodes):
            raise InputError("the netlist has a combinational loop")

    def _loads(self) -> Floats:
        loads = np.zeros(self.net_count)
        for _, name, pins in self.netlist.cells:
            cell = self.cells.library.cells[name]
            for pin in cell.inputs:
                if pin in pins:
                    loads[self._net(pins[pin])] += cell.pins[pin].capacitance_ff
        for nets in self.outputs.values():
            for net in nets:
                loads[net] += self.conditions.output_load_ff
        return loads

    @property
    def all_cells(self) -> list[Cell]:
        return [self.cells.library.cells[name] for _, name, _ in self.netlist.cells]

    @property
    def register_area_um2(self) -> float:
        return sum(register.cell.area_um2 for register in self.registers)


def transition_fj(cell: Cell, output: str, related: str, edge: int, slew_ps: float, load_ff: float) -> float:
    """Internal energy of an edge of an output by a transition of an input: without condition where the library has such
    a table, else the mean over the conditions."""
    table = _transition_table(cell, output, related, edge)
    return 0.0 if table is None else _inside(table, slew_ps, load_ff)


@lru_cache(maxsize=65536)
def _transition_table(cell: Cell, output: str, related: str, edge: int) -> Table | None:
    matching = [power for power in cell.pins[output].powers if related in power.related or not power.related]
    chosen = [power for power in matching if not power.when] or matching
    tables = [table for power in chosen if (table := power.rise if edge == RISE else power.fall) is not None]
    return mean_table(tables) if tables else None


def state_fj(cell: Cell, pin: str, edge: int, state: Mapping[str, bool], slew_ps: float) -> float:
    """Internal energy of an edge of an input pin while the other pins have the values of ``state``."""
    names = tuple(state)
    place = sum(int(state[name]) << index for index, name in enumerate(names))
    holding, always = [], []
    for power in cell.pins[pin].powers:
        table = power.rise if edge == RISE else power.fall
        if table is None:
            continue
        if not power.when:
            always.append(table)
            continue
        try:
            holds = truth_table(power.when, names)[place]
        except BooleanError as error:
            raise InputError(f"cell {cell.name}, pin {pin}: {error}", key="when", value=power.when) from None
        if holds:
            holding.append(table)
    tables = holding or always
    return _inside(mean_table(tables), slew_ps, 0.0) if tables else 0.0


@lru_cache(maxsize=1024)
def input_energies_fj(cell: Cell, slew_ps: float) -> list[float]:
    """Internal energy of a gate's inputs: input after input, each in every state of all inputs (bit i is input i) into
    which its own edge leads."""
    outputs = {output: cell.truth(output) for output in cell.outputs}
    energies = []
    for place, pin in enumerate(cell.inputs):
        for number in range(1 << len(cell.inputs)):
            state = {name: bool(number >> index & 1) for index, name in enumerate(cell.inputs)}
            state |= {output: bool(truth[number]) for output, truth in outputs.items()}
            edge = RISE if number >> place & 1 else FALL
            energies.append(state_fj(cell, pin, edge, state, slew_ps))
    return energies


def _inside(table: Table, slew_ps: float, load_ff: float) -> float:
    """Energies are not continued beyond a table."""
    slew = min(max(slew_ps, table.slew_ps[0]), table.slew_ps[-1])
    return table.at(float(slew), float(min(max(load_ff, table.load_ff[0]), table.load_ff[-1])))


def delay_ps(cell: Cell, output: str, related: str, edge: int, slew_ps: float, load_ff: float) -> float:
    """Delay from an input to an edge of an output; 0 where the library has no arc."""
    _, tables = delay_tables(cell, output, related)
    name = "cell_rise" if edge == RISE else "cell_fall"
    return max(tables[name].at(slew_ps, load_ff), 0.0) if name in tables else 0.0


@lru_cache(maxsize=65536)
def delay_tables(cell: Cell, output: str, related: str) -> tuple[str, dict[str, Table]]:
    """(sense, tables) from an input to an output, the worst of all conditions."""
    return worst_arcs(cell.pins[output].arcs, related)
