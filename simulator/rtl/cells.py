"""What of a cell library the flow uses: the flop, the full adder, tie cells, and a short library for the tools.

Full adders: the library's cell where it has one (three inputs, sum and majority, each perhaps inverted), else one of
two XOR gates and an AND-OR-invert gate, ``p = a ^ b; sum = p ^ c; carry = !(a b + p c)``. Of several cells with the
function the smallest is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from simulator.errors import InputError, nearest
from simulator.rtl.boolean import truth_table
from simulator.rtl.liberty import Arc, Cell, Flop, Library, Table

_CORNERS = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
_INVERTER = "!a"
_NEEDED = {
    "an inverter": (_INVERTER,),
    "a buffer": ("a",),
    "a two-input NAND or NOR gate": ("!(a b)", "!(a + b)"),
}


@dataclass(frozen=True)
class FullAdder:
    """How a full adder is made: of cells of a library, or, without any, of logic with the same polarities."""

    sum_inverted: bool = False
    """The sum of three upright bits leaves inverted."""
    carry_inverted: bool = False
    cells: tuple[tuple[str, Mapping[str, str]], ...] = ()
    """(cell, {pin: net}); nets are ``a b c``, ``sum``, ``carry`` and names of nets between the cells."""
    outputs: frozenset[str] = frozenset()
    """``cell.pin`` of the pins that drive a net."""

    def logic(self) -> FullAdder:
        """The same, to be simulated."""
        return FullAdder(self.sum_inverted, self.carry_inverted)


@dataclass(frozen=True)
class CellSet:
    """A library without the cells that are not to be used."""

    library: Library
    dont_use: tuple[str, ...] = ()
    """Cells kept from mapping, by their full names."""

    def __post_init__(self) -> None:
        for name in self.dont_use:
            if name not in self.library.cells:
                raise InputError(
                    "no cell of this name",
                    key="dont_use",
                    value=name,
                    allowed=nearest(name, self.library.cells),
                )
        for what, functions in _NEEDED.items():
            if not any(self.gates(function) for function in functions):
                raise self._missing(what)
        if not self.flops:
            raise self._missing("a rising-edge D flip-flop")
        self._refuse_without_figures()

    def _refuse_without_figures(self) -> None:
        """Without them delays, energies or leakage would come out as zero, not as unknown."""
        cells = [self.gates(_INVERTER)[0][0], *(self.library.cells[name] for name in self.flops)]
        pins = [pin for cell in cells for pin in cell.pins.values()]
        inverter = [arc.tables for output in cells[0].outputs for arc in cells[0].pins[output].arcs]
        if not any("cell_rise" in tables and "cell_fall" in tables for tables in inverter):
            raise self._missing("delay tables (cell_rise and cell_fall)")
        if not any(power.rise or power.fall for pin in pins for power in pin.powers):
            raise self._missing("tables of internal energy (internal_power)")
        if not any(cell.leakage_nw for cell in cells):
            raise self._missing("leakage of cells (leakage_power or cell_leakage_power)")

    def _missing(self, what: str) -> InputError:
        return InputError(
            f"the library has no {what.removeprefix('a ').removeprefix('an ')}",
            file=", ".join(self.library.files),
            allowed="a whole standard-cell library; give every file of one that comes in several",
        )

    @cached_property
    def usable(self) -> tuple[Cell, ...]:
        """Cells that may be mapped to."""
        cells = (self.library.cells[name] for name in self.library.cells if name not in self.dont_use)
        return tuple(cell for cell in cells if cell.usable)

    @cached_property
    def combinational(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.usable if cell.is_combinational)

    @cached_property
    def flops(self) -> dict[str, Flop]:
        """Rising-edge flops by cell; what else they have (set, reset, scan) is not counted against them here."""
        return {cell.name: cell.flop for cell in self.usable if cell.flop is not None}

    def flop_ps(self, load_ff: float) -> float:
        """What a flop takes of a clock period, from clock to output and in setup, at the steepest edges of its tables:
        of the smallest one whose output is not inverted (what Yosys maps to), else of the smallest."""
        cell = min(
            (self.library.cells[name] for name in self.flops),
            key=lambda cell: (all(self.flops[cell.name].outputs.values()), cell.area_um2, cell.name),
        )
        flop = self.flops[cell.name]
        outputs = [worst_arcs(cell.pins[output].arcs, flop.clock)[1] for output in flop.outputs]
        delays = [tables[name] for tables in outputs for name in ("cell_rise", "cell_fall") if name in tables]
        setups = [arc.tables for arc in cell.pins[flop.data].arcs if arc.kind == "setup_rising"]
        return max((table.at(float(table.slew_ps[0]), load_ff) for table in delays), default=0.0) + max(
            (float(table.values[0, 0]) for tables in setups for table in tables.values()), default=0.0
        )

    def gates(self, function: str) -> list[tuple[Cell, dict[str, str]]]:
        """Single-output cells of a function of ``a``, ``b``, ...: (cell, {its pin: variable}), the smallest first."""
        variables = tuple(sorted({letter for letter in function if letter.isalpha()}))
        wanted = truth_table(function, variables)
        found = []
        for cell in self.combinational:
            if len(cell.outputs) != 1 or len(cell.inputs) != len(variables):
                continue
            pins = next(_matches(cell, cell.outputs[0], variables, wanted), None)
            if pins is not None:
                found.append((cell, pins))
        return sorted(found, key=lambda match: (match[0].area_um2, match[0].name))

    @cached_property
    def full_adder(self) -> FullAdder:
        """See the module. Raises InputError: the library has neither the cell nor the gates."""
        found = [adder for cell in self.combinational if (adder := _as_full_adder(cell)) is not None]
        if found:
            return min(found, key=lambda adder: self.library.cells[adder.cells[0][0]].area_um2)
        exclusive, inverting = self.gates("a ^ b"), self.gates("!(a b + c d)")
        if not exclusive:
            raise self._missing("a full adder, nor a two-input XOR gate to make one of")
        if not inverting:
            raise self._missing("a full adder, nor an AND-OR-invert gate (AOI22) to make one of")
        (xor, xor_pins), (aoi, aoi_pins) = exclusive[0], inverting[0]
        gates = (
            (xor, xor_pins, {"a": "a", "b": "b"}, "p"),
            (xor, xor_pins, {"a": "p", "b": "c"}, "sum"),
            (aoi, aoi_pins, {"a": "a", "b": "b", "c": "p", "d": "c"}, "carry"),
        )
        cells = tuple(
            (cell.name, {pin: nets[variable] for pin, variable in pins.items()} | {cell.outputs[0]: output})
            for cell, pins, nets, output in gates
        )
        outputs = frozenset(f"{cell.name}.{cell.outputs[0]}" for cell in (xor, aoi))
        return FullAdder(sum_inverted=False, carry_inverted=True, cells=cells, outputs=outputs)

    @cached_property
    def ties(self) -> dict[bool, tuple[str, str]]:
        """Cells that drive a constant: {value: (cell, pin)}."""
        ties = {}
        for value in (False, True):
            cells = [
                cell
                for cell in self.combinational
                if not cell.inputs and len(cell.outputs) == 1 and cell.truth(cell.outputs[0]) == (value,)
            ]
            if cells:
                smallest = min(cells, key=lambda cell: (cell.area_um2, cell.name))
                ties[value] = smallest.name, smallest.outputs[0]
        return ties

    def short_liberty(self) -> str:
        """The usable gates and flops with one delay arc from each input to each output, for synthesis tools."""
        lines = [
            "library (short) {",
            "  delay_model : table_lookup;",
            "  capacitive_load_unit (1, ff);",
            '  time_unit : "1ps";',
            '  voltage_unit : "1V";',
            '  current_unit : "1mA";',
            '  leakage_power_unit : "1nW";',
            f"  nom_voltage : {self.library.vdd:g};",
        ]
        cells = [cell for cell in self.usable if cell.is_combinational or cell.name in self.flops]
        body = [line for cell in cells for line in _cell_lines(cell)]
        sizes = sorted({line.split("(")[1].split(")")[0] for line in body if "(points_" in line})
        for size in sizes:
            _, slews, loads = size.split("_")
            lines += [
                f"  lu_table_template ({size}) {{",
                "    variable_1 : input_net_transition;",
                "    variable_2 : total_output_net_capacitance;",
                '    index_1 ("' + ", ".join(map(str, range(1, int(slews) + 1))) + '");',
                '    index_2 ("' + ", ".join(map(str, range(1, int(loads) + 1))) + '");',
                "  }",
            ]
        lines += body
        return "\n".join([*lines, "}", ""])

    @property
    def drive(self) -> tuple[Cell, str]:
        """The cell, and its output, that stands for whatever drives the inputs: the smallest buffer."""
        cell, _ = self.gates("a")[0]
        return cell, cell.outputs[0]


def _matches(
    cell: Cell, output: str, variables: Sequence[str], wanted: Sequence[bool]
) -> Iterator[dict[str, str]]:
    """Assignments of the cell's inputs to the variables under which its output has this truth table."""
    actual = cell.truth(output)
    places = range(len(variables))
    for order in permutations(places):
        # Input i of the cell is variable order[i].
        if all(
            actual[sum((state >> order[i] & 1) << i for i in places)] == wanted[state]
            for state in range(len(wanted))
        ):
            yield {cell.inputs[i]: variables[order[i]] for i in places}


def _as_full_adder(cell: Cell) -> FullAdder | None:
    if len(cell.inputs) != 3 or len(cell.outputs) != 2:
        return None
    ones = [state.bit_count() for state in range(8)]
    patterns = {
        tuple((count % 2 == 1) != inverted for count in ones): ("sum", inverted) for inverted in (False, True)
    } | {tuple((count > 1) != inverted for count in ones): ("carry", inverted) for inverted in (False, True)}
    found = {}
    nets = dict(zip(cell.inputs, ("a", "b", "c"), strict=True))
    for output in cell.outputs:
        if cell.truth(output) not in patterns:
            return None
        what, inverted = patterns[cell.truth(output)]
        found[what] = inverted
        nets[output] = what
    if len(found) != 2:
        return None
    outputs = frozenset(f"{cell.name}.{output}" for output in cell.outputs)
    return FullAdder(found["sum"], found["carry"], ((cell.name, nets),), outputs)


def worst_arcs(arcs: Iterable[Arc], related: str) -> tuple[str, dict[str, Table]]:
    """(sense, tables) of an input: those without condition, else the largest of each entry."""
    matching = [
        arc
        for arc in arcs
        if arc.related == related and "cell_rise" in arc.tables and "cell_fall" in arc.tables
    ]
    chosen = [arc for arc in matching if not arc.when] or matching
    senses = {arc.sense for arc in chosen}
    tables: dict[str, Table] = {}
    for name in _CORNERS:
        same = [arc.tables[name] for arc in chosen if name in arc.tables]
        if same:
            shape = same[0].values.shape
            largest = np.max([table.values for table in same if table.values.shape == shape], axis=0)
            tables[name] = Table(same[0].slew_ps, same[0].load_ff, largest)
    return (senses.pop() if len(senses) == 1 else "non_unate"), tables


def _cell_lines(cell: Cell) -> Iterator[str]:
    yield f"  cell ({cell.name}) {{"
    yield f"    area : {cell.area_um2:.9g};"
    if cell.state is not None:
        stored = ", ".join(cell.state.arguments)
        yield f"    ff ({stored}) {{"
        yield from (f'      {key} : "{value}";' for key, value in cell.state.attributes.items())
        yield "    }"
    for pin in cell.pins.values():
        yield f"    pin ({pin.name}) {{"
        yield f"      direction : {pin.direction};"
        if pin.direction == "input":
            yield f"      capacitance : {pin.capacitance_ff:.9g};"
            if cell.flop is not None and pin.name == cell.flop.clock:
                yield "      clock : true;"
        else:
            yield f'      function : "{pin.function}";'
            kind = "combinational" if cell.state is None else "rising_edge"
            for related in cell.inputs:
                sense, tables = worst_arcs(pin.arcs, related)
                if tables and (cell.state is None or related == _clock(cell)):
                    yield from _timing_lines(related, kind, sense, tables)
        yield "    }"
    yield "  }"


def _clock(cell: Cell) -> str:
    return cell.flop.clock if cell.flop is not None else ""


def _timing_lines(related: str, kind: str, sense: str, tables: dict[str, Table]) -> Iterator[str]:
    yield f'      timing () {{ related_pin : "{related}"; timing_type : {kind}; timing_sense : {sense};'
    for name, table in tables.items():
        rows = ", ".join('"' + ", ".join(f"{value:.6g}" for value in row) + '"' for row in table.values)
        slews, loads = table.values.shape
        yield f"        {name} (points_{slews}_{loads}) {{"
        yield '          index_1 ("' + ", ".join(f"{x:.6g}" for x in table.slew_ps) + '");'
        yield '          index_2 ("' + ", ".join(f"{x:.6g}" for x in table.load_ff) + '");'
        yield f"          values ({rows});"
        yield "        }"
    yield "      }"
