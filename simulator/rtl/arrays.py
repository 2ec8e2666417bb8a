"""Arrays as hardware, in Amaranth: what lies between the PEs, at the edges and in the drains.

A module is made of the `simulator.array.Array` that the engines simulate. Nothing in it knows a schedule: control bits
enter at the edges with the words, travel with them, and decide locally. When words enter is the rule of
docs/concepts.md, which a test bench applies (run by `simulator.rtl.cosim`); a word that comes too early is lost or
lands in another sum. The arithmetic of a PE is written with ``*`` and ``+``: multipliers and trees are those of
`simulator.rtl.parts`, and proven there.

Cycles are counted at the registers behind the input ports and in front of the output ports: a word that is at its port
before an edge is in its PE (or in the first skew register) in the cycle that this edge begins, and a result that leaves
in a cycle is at the output port in the next one.

Outputs stationary (`OutputStationaryModule`), skewed or broadcast. With a step's words enter::

    row_valid, col_valid  which rows and columns the fold uses; 0: a bubble
    first, last           the step begins, ends a sum
    last_row              the fold's last used row
    exit                  the exit that the fold's results take, where there are several
    phase                 of an iterative PE (below): which slice of the column's word is multiplied

A PE is a pipeline of p ranks. Its accumulator's adder takes the last ii of them, a segment of the word a rank, so that
a step needs the sum of the step before ii cycles after that entered: this loop, and nothing else, sets the interval. A
PE of a *serial* array multiplies by a slice of the column's word in each of ii cycles, while both words stay at its
inputs.

Weights or activations stationary (`OperandStationaryModule`): ``load_valid`` (columns) and ``load_row`` come with a row
of stationary words; ``row_valid``, ``first``, ``last``, ``last_row`` and ``exit`` with a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value

from simulator.array import Array
from simulator.errors import InputError
from simulator.units import ceil_div

Bundle = dict[str, Value]
"""Signals that move together."""


@dataclass(frozen=True)
class Widths:
    """Bits of the two's complement words: what enters at the rows, at the columns, and the sum."""

    row: int
    col: int
    sum: int


def array_module(
    array: Array, widths: Widths, *, drain: int = 1, exits: int = 1
) -> OutputStationaryModule | OperandStationaryModule:
    """The hardware of an array of integer MACs.

    ``drain``: cycles from one row of results to the next (outputs stationary: a rescale unit's interval). ``exits``:
    how many results can leave a column in one cycle, each through its own multiplexer over the rows; a column bus is
    one. Raises InputError: a PE that no hardware here is like.
    """
    if array.scales_inside:
        raise InputError("no hardware description of arrays whose PEs apply scales")
    if array.dataflow.preloads:
        if array.serial:
            raise InputError("no hardware description of serial PEs that hand on partial sums")
        return OperandStationaryModule(array, widths, exits)
    if not array.serial and array.initiation_interval > array.latency:
        raise InputError(
            "the adder's loop is part of the PE's pipeline, so that no interval is longer than it",
            key="initiation_interval",
            value=array.initiation_interval,
            allowed=f"1 to {array.latency}",
        )
    return OutputStationaryModule(array, widths, drain, exits if array.shift_drain else 1)


class _ArrayModule(Elaboratable):  # type: ignore[misc]
    """The ports that all arrays have."""

    def __init__(self, array: Array, widths: Widths, exits: int) -> None:
        self.array, self.widths, self.exits = array, widths, exits
        self._domain = ClockDomain("sync")
        self.rows = Signal(array.rows * array.lanes * widths.row)
        self.cols = Signal(array.cols * array.lanes * widths.col)
        self.row_valid = Signal(array.rows)
        self.first = Signal()
        self.last = Signal()
        self.exit = Signal(range(max(exits, 2)))
        self.last_row = Signal(range(max(array.rows, 2)))
        self.out = Signal(array.cols * exits * widths.sum)
        self.out_valid = Signal(array.cols * exits)
        self.inputs = [self.rows, self.cols, self.row_valid, self.first, self.last, self.exit, self.last_row]

    @property
    def reset(self) -> Signal:
        return self._domain.rst

    @property
    def ports(self) -> list[Signal]:
        return [self._domain.clk, self._domain.rst, *self.inputs, self.out, self.out_valid]


class OutputStationaryModule(_ArrayModule):
    """Results accumulate in place and leave over column buses or shift down the columns."""

    def __init__(self, array: Array, widths: Widths, drain: int, exits: int) -> None:
        super().__init__(array, widths, exits)
        self.drain = drain
        self.col_valid = Signal(array.cols)
        self.phase = Signal(range(max(array.initiation_interval, 2)))
        self.inputs += [self.col_valid, self.phase]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains += self._domain
        array = self.array
        columns = [_Column(array, self.widths, self.drain, self.exits) for _ in range(array.cols)]
        row_words, col_words = self._operands(m)
        for j, column in enumerate(columns):
            m.submodules[f"column_{j}"] = column
            for i in range(array.rows):
                pe = m.submodules[f"pe_{i}_{j}"] = _Mac(array, self.widths, self.exits)
                row, col = row_words[i][j], col_words[i][j]
                m.d.comb += [pe.row.eq(row.pop("word")), pe.col.eq(col["word"]), pe.before.eq(column.sums[i])]
                m.d.comb += [pe.control[name].eq(value) for name, value in row.items()]
                m.d.comb += pe.control["valid"].eq(row["valid"] & col["valid"])
                m.d.comb += [column.arriving[i][name].eq(value) for name, value in pe.leaving.items()]
        m.d.comb += self.out.eq(Cat(*(value for column in columns for value in column.out)))
        m.d.comb += self.out_valid.eq(Cat(*(valid for column in columns for valid in column.out_valid)))
        return m

    def _operands(self, m: Module) -> tuple[list[list[Bundle]], list[list[Bundle]]]:
        """[row][column]: what the PEs' operand registers hold."""
        array, hop = self.array, 1 if self.array.dataflow.skewed else 0
        shared = {name: getattr(self, name) for name in ("first", "last", "exit", "last_row", "phase")}
        row_words: list[list[Bundle]] = []
        for i in range(array.rows):
            word = self.rows.word_select(i, array.lanes * self.widths.row)
            entering = {"word": word, "valid": self.row_valid[i], **shared}
            moving = _delayed(m, entering, hop * i + 1, f"row_{i}")
            row_words.append([moving])
            for j in range(1, array.cols):
                moving = _delayed(m, moving, hop, f"row_{i}_{j}")
                row_words[i].append(moving)
        col_words: list[list[Bundle]] = [[] for _ in range(array.rows)]
        for j in range(array.cols):
            word = self.cols.word_select(j, array.lanes * self.widths.col)
            moving = _delayed(m, {"word": word, "valid": self.col_valid[j]}, hop * j + 1, f"col_{j}")
            for i in range(array.rows):
                moving = _delayed(m, moving, hop, f"col_{i}_{j}") if i else moving
                col_words[i].append(moving)
        return [[dict(words) for words in row] for row in row_words], col_words


class _Mac(Elaboratable):  # type: ignore[misc]
    """A PE without its operand registers and accumulator: p ranks, of which the accumulator is the last."""

    def __init__(self, array: Array, widths: Widths, exits: int) -> None:
        self._array, self._widths = array, widths
        self.row = Signal(array.lanes * widths.row)
        self.col = Signal(array.lanes * widths.col)
        self.before = Signal(widths.sum)
        """The accumulator."""
        self.control = _control(array, exits)
        self.leaving = {"sum": Signal(widths.sum), **_control(array, exits)}
        """What the accumulator takes at the end of this cycle, if ``valid``."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        array, bits = self._array, self._widths.sum
        added = Signal(bits)
        m.d.comb += added.eq(self._products())
        ranks = 1 if array.serial else array.initiation_interval
        live = _delayed(m, {"added": added, **self.control}, array.latency - ranks, "product")
        live["before"] = Signal(bits, name="addend")
        m.d.comb += live["before"].eq(Mux(live["first"], 0, self.before))
        total: Value = C(0, 0)
        carry: Value = C(0, 1)
        segment = ceil_div(bits, ranks)
        for rank in range(ranks):
            if rank:
                live = _delayed(m, {**live, "total": total, "carry": carry}, 1, f"adder_{rank}")
                total, carry = live.pop("total"), live.pop("carry")
            here = slice(rank * segment, min((rank + 1) * segment, bits))
            part = Signal(here.stop - here.start + 1, name=f"part_{rank}")
            m.d.comb += part.eq(live["added"][here] + live["before"][here] + carry)
            total, carry = Cat(total, part[:-1]), part[-1]
        m.d.comb += self.leaving["sum"].eq(total)
        m.d.comb += [self.leaving[name].eq(live[name]) for name in self.control]
        return m

    def _products(self) -> Value:
        """Of the lanes, added up; iterative: with a slice of the column's words, at its place."""
        array, widths = self._array, self._widths
        total: Value = C(0, 1)
        for lane in range(array.lanes):
            a = self.row.word_select(lane, widths.row).as_signed()
            w = self.col.word_select(lane, widths.col).as_signed()
            if not array.serial:
                total = total + a * w
                continue
            size = ceil_div(widths.col, array.initiation_interval)
            for phase in range(array.initiation_interval):
                low, high = min(phase * size, widths.col), min((phase + 1) * size, widths.col)
                if high > low:
                    piece = w[low:high].as_signed() if high == widths.col else w[low:high]
                    total = total + Mux(self.control["phase"] == phase, (a * piece) << low, 0)
        return total


class _Column(Elaboratable):  # type: ignore[misc]
    """Accumulators of a column and how their results leave it.

    A finished sum is kept in the accumulator or, where folds overlap, in a second register. The shift chain is made of
    these registers: a result moves into its lower neighbour's, ``drain`` cycles a row, and from the last used row to
    an exit.
    """

    def __init__(self, array: Array, widths: Widths, drain: int, exits: int) -> None:
        self._array, self._widths, self._drain = array, widths, drain
        rows = range(array.rows)
        self.arriving = [{"sum": Signal(widths.sum), **_control(array, exits)} for _ in rows]
        self.sums = [Signal(widths.sum, name=f"sum_{i}", reset_less=True) for i in rows]
        self.out = [Signal(widths.sum, name=f"out_{q}") for q in range(exits)]
        self.out_valid = [Signal(name=f"out_valid_{q}") for q in range(exits)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = range(self._array.rows)
        self._held = self.sums
        if self._array.fold_overlap:
            self._held = [Signal(self._widths.sum, name=f"held_{i}", reset_less=True) for i in rows]
        self._full = Signal(len(rows))
        self._last_row = [Signal(range(max(len(rows), 2)), name=f"last_row_{i}") for i in rows]
        (self._shift if self._array.shift_drain else self._bus)(m)
        return m

    def _finish(self, m: Module, row: int) -> Value:
        """Take the row's sum; whether it is the fold's last. After what empties the row: it may be both in a cycle."""
        arriving = self.arriving[row]
        finishes = arriving["valid"] & arriving["last"]
        with m.If(arriving["valid"]):
            m.d.sync += self.sums[row].eq(arriving["sum"])
        with m.If(finishes):
            m.d.sync += [self._held[row].eq(arriving["sum"]), self._full[row].eq(1)]
            m.d.sync += self._last_row[row].eq(arriving["last_row"])
        return finishes

    def _bus(self, m: Module) -> None:
        """A token walks down the rows and waits at each for its result."""
        rows = len(self.sums)
        token, wait = Signal(rows, init=1), Signal(range(max(self._drain, 2)))
        (valid,), (out,) = self.out_valid, self.out
        m.d.comb += [valid.eq((token & self._full).any() & (wait == 0)), out.eq(_chosen(token, self._held))]
        ends = _any(token[i] & (self._last_row[i] == i) for i in range(rows))
        with m.If(valid):
            m.d.sync += [self._full.eq(self._full & ~token), wait.eq(self._drain - 1)]
            m.d.sync += token.eq(Mux(ends, 1, token << 1))
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        for row in range(rows):
            self._finish(m, row)

    def _shift(self, m: Module) -> None:
        """When a fold's last row has finished, its results begin to move."""
        rows = range(len(self.sums))
        moving, moves, leaves = Signal(len(rows)), Signal(len(rows)), Signal(len(rows))
        exits = [Signal(range(max(len(self.out), 2)), name=f"exit_{i}") for i in rows]
        waits = [Signal(range(max(self._drain, 2)), name=f"wait_{i}") for i in rows]
        bottom = [self._full[i] & ~moving[i] & (self._last_row[i] == i) for i in rows]
        for i in rows:
            begins = self._full[i] & ~moving[i] & _any(bottom[i:])
            m.d.comb += moves[i].eq((moving[i] | begins) & (waits[i] == self._drain - 1))
            m.d.comb += leaves[i].eq(moves[i] & (self._last_row[i] == i))
            with m.If(moving[i] | begins):
                m.d.sync += [moving[i].eq(1), waits[i].eq(waits[i] + 1)]
            with m.If(moves[i]):
                m.d.sync += [moving[i].eq(0), waits[i].eq(0), self._full[i].eq(0)]
            if i:
                with m.If(moves[i - 1] & ~leaves[i - 1]):
                    m.d.sync += [moving[i].eq(1), waits[i].eq(0), self._full[i].eq(1)]
                    m.d.sync += [self._held[i].eq(self._held[i - 1]), exits[i].eq(exits[i - 1])]
                    m.d.sync += self._last_row[i].eq(self._last_row[i - 1])
            finishes = self._finish(m, i)
            with m.If(finishes):
                m.d.sync += [moving[i].eq(0), waits[i].eq(0), exits[i].eq(self.arriving[i]["exit"])]
        for q, (valid, out) in enumerate(zip(self.out_valid, self.out, strict=True)):
            here = Cat(*(leaves[i] & (exits[i] == q) for i in rows))
            m.d.sync += [valid.eq(here.any()), out.eq(_chosen(here, self._held))]


class OperandStationaryModule(_ArrayModule):
    """Stationary words come down the columns, steps stream along the rows, partial sums leave below the last used
    row."""

    def __init__(self, array: Array, widths: Widths, exits: int) -> None:
        super().__init__(array, widths, exits)
        self.load_valid = Signal(array.cols)
        self.load_row = Signal(range(max(array.rows, 2)))
        self.inputs += [self.load_valid, self.load_row]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains += self._domain
        array, p = self.array, self.array.latency
        rows, columns = range(array.rows), range(array.cols)
        pes = [[_StationaryMac(array, self.widths, self.exits, i) for _ in columns] for i in rows]
        for i, row in enumerate(pes):
            word = self.rows.word_select(i, array.lanes * self.widths.row)
            moving: Bundle = {"word": word, "valid": self.row_valid[i]}
            moving |= {name: getattr(self, name) for name in ("first", "last", "exit", "last_row")}
            moving = _delayed(m, moving, p * i, f"skew_row_{i}")
            for j, pe in enumerate(row):
                m.submodules[f"pe_{i}_{j}"] = pe
                moving = _delayed(m, moving, 1, f"row_{i}_{j}")
                m.d.comb += [pe.step[name].eq(value) for name, value in moving.items()]
                if i:
                    m.d.comb += pe.above.eq(pes[i - 1][j].leaving["sum"])
        for j in columns:
            word = self.cols.word_select(j, array.lanes * self.widths.col)
            moving = {"word": word, "valid": self.load_valid[j], "row": self.load_row}
            moving = _delayed(m, moving, j, f"skew_col_{j}")
            for i in rows:
                moving = _delayed(m, moving, p if i else 1, f"col_{i}_{j}")
                m.d.comb += [pes[i][j].load[name].eq(value) for name, value in moving.items()]
        for j in columns:
            for q in range(self.exits):
                leaving = [row[j].leaving for row in pes]
                here = Cat(
                    *(
                        partial["valid"] & (partial["last_row"] == i) & (partial["exit"] == q)
                        for i, partial in enumerate(leaving)
                    )
                )
                sums = [partial["sum"] for partial in leaving]
                m.d.comb += self.out.word_select(j * self.exits + q, self.widths.sum).eq(_chosen(here, sums))
                m.d.comb += self.out_valid[j * self.exits + q].eq(here.any())
        return m


class _StationaryMac(Elaboratable):  # type: ignore[misc]
    """A PE that holds a word: products are added to what comes from above, p ranks a row."""

    def __init__(self, array: Array, widths: Widths, exits: int, row: int) -> None:
        self._array, self._widths, self._row = array, widths, row
        held = array.lanes * widths.col
        self.step = {"word": Signal(array.lanes * widths.row), **_control(array, exits)}
        self.load = {"word": Signal(held), "valid": Signal(), "row": Signal(range(max(array.rows, 2)))}
        self.above = Signal(widths.sum)
        self.leaving = {"sum": Signal(widths.sum), **_control(array, exits)}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        array, widths, step = self._array, self._widths, self.step
        held, used = Signal(array.lanes * widths.col, reset_less=True), Signal()
        loads = self.load["valid"] & (self.load["row"] == self._row)
        word, works = held, used
        if array.fold_overlap:
            # A fold's first step takes the waiting word and uses it in the same cycle.
            waiting, came = Signal(len(held), reset_less=True), Signal()
            word, works = Signal(len(held), name="word"), Signal(name="works")
            begins = step["valid"] & step["first"]
            m.d.comb += [word.eq(Mux(begins, waiting, held)), works.eq(Mux(begins, came, used))]
            m.d.sync += [held.eq(word), used.eq(works)]
            with m.If(begins):
                m.d.sync += came.eq(0)
            with m.If(loads):
                m.d.sync += [waiting.eq(self.load["word"]), came.eq(1)]
        else:
            with m.If(step["valid"] & step["last"]):
                m.d.sync += used.eq(0)
            with m.If(loads):
                m.d.sync += [held.eq(self.load["word"]), used.eq(1)]
        products: Value = C(0, 1)
        for lane in range(array.lanes):
            a = step["word"].word_select(lane, widths.row).as_signed()
            products = products + a * word.word_select(lane, widths.col).as_signed()
        total = Signal(widths.sum)
        m.d.comb += total.eq(self.above + products)
        live = {"sum": total, **{name: value for name, value in step.items() if name != "word"}}
        live["valid"] = step["valid"] & works
        live = _delayed(m, live, array.latency, "rank")
        m.d.comb += [signal.eq(live[name]) for name, signal in self.leaving.items()]
        return m


def _control(array: Array, exits: int) -> dict[str, Signal]:
    """The control bits that travel with a row's words."""
    bits = {name: Signal(name=name) for name in ("valid", "first", "last")}
    bits["exit"] = Signal(range(max(exits, 2)), name="exit")
    bits["last_row"] = Signal(range(max(array.rows, 2)), name="last_row")
    if not array.dataflow.preloads:
        bits["phase"] = Signal(range(max(array.initiation_interval, 2)), name="phase")
    return bits


def _delayed(m: Module, bundle: Bundle, cycles: int, name: str) -> Bundle:
    """The bundle behind so many ranks of registers."""
    moving = {key: Value.cast(value) for key, value in bundle.items()}
    for rank in range(cycles):
        held: dict[str, Any] = {
            key: Signal(len(value), name=f"{name}_{key}_{rank}", reset_less=key != "valid")
            for key, value in moving.items()
        }
        m.d.sync += [held[key].eq(value) for key, value in moving.items()]
        moving = held
    return dict(moving)


def _any(bits: Iterable[Value]) -> Value:
    return Cat(*bits).any()


def _chosen(which: Value, words: list[Signal]) -> Value:
    """The word of the one bit that is set."""
    total: Value = C(0, len(words[0]))
    for place, word in enumerate(words):
        total = total | Mux(which[place], word, 0)
    return total
