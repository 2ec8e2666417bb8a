"""The geometry of a dataflow, written once, and the cycles of one fold in it.

A fold is one filling of the R x C array: r rows and c columns of it hold something, and T steps are streamed past.
A GEMM is A(m, k) @ W(n, k).T. The systolic schedules are those of SCALE-Sim (Samajdar et al., ISPASS 2020), with the
MAC's pipeline depth and initiation interval as parameters; the broadcast array is a tile of dot-product PEs whose
operands reach all PEs of a row or column in one cycle.

Time inside a fold, counted from its first streamed step (S), every PE of `latency` p cycles:

- outputs stationary, skewed: PE (i, j) sees step t at S + t*ii + i + j; its result is complete p - 1 cycles after its
  last step. `os_drain: bus`: a column bus takes finished results in row order, `drain` cycles apart. `shift`: when the
  last row of a column is complete, the column's results shift down, `drain` cycles each.
- outputs stationary, broadcast: the same without i + j.
- weights or activations stationary: the stationary operand enters one row every `preload` cycles; a streamed step
  enters row i at S + t*ii + p*i and column j one cycle after column j - 1; partial sums hop p cycles a row and leave
  below the last used row. A stationary word travels p cycles a row, in step with the partial sums, so it reaches its
  row after the previous fold's last use and before its own first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["m", "n", "k"]
Operand = Literal["weights", "activations"]


@dataclass(frozen=True)
class Dataflow:
    """What the axes of an array hold, what stays in the PEs, and how operands travel."""

    name: str
    stationary: Literal["outputs", "weights", "activations"]
    rows_hold: Axis
    cols_hold: Axis
    skewed: bool
    """True: operands hop from PE to PE, a cycle each. False: broadcast along rows and columns."""

    @property
    def preloads(self) -> bool:
        """An operand is loaded into the PEs before the other streams past it; partial sums leave every step."""
        return self.stationary != "outputs"

    @property
    def streams(self) -> Axis:
        return next(axis for axis in ("m", "n", "k") if axis not in (self.rows_hold, self.cols_hold))

    @property
    def row_operand(self) -> Operand:
        """The operand that enters at the rows, every streamed step."""
        if self.preloads:
            return "activations" if self.stationary == "weights" else "weights"
        return "activations" if self.rows_hold == "m" else "weights"

    @property
    def col_operand(self) -> Operand:
        """The operand that enters at the columns: every step (outputs stationary) or as the preload."""
        return "weights" if self.row_operand == "activations" else "activations"


DATAFLOWS = {
    "os": Dataflow("os", "outputs", "m", "n", skewed=True),
    "ws": Dataflow("ws", "weights", "k", "n", skewed=True),
    "is": Dataflow("is", "activations", "k", "m", skewed=True),
    "broadcast": Dataflow("broadcast", "outputs", "m", "n", skewed=False),
}
"""By name; SCALE-Sim's os = (m, n), ws = (k, n), is = (k, m). `broadcast` is the dot-product array."""


@dataclass(frozen=True)
class Array:
    """An array of PEs with everything that decides its time."""

    dataflow: Dataflow
    rows: int
    cols: int
    full_edge_folds: bool
    """True: a partial fold takes the time of a full one (SCALE-Sim). False: only used rows and columns are timed."""
    fold_overlap: bool
    """True: doubled accumulators (outputs stationary) or stationary registers let folds follow each other."""
    shift_drain: bool
    """Outputs stationary only: results shift down the column instead of leaving over a column bus."""
    lanes: int
    """MACs a PE does in one step; K advances by this much."""
    latency: int
    """p: cycles from a step's operands to its sum, adder tree included."""
    initiation_interval: int
    """ii: cycles between two steps of a PE."""
    serial: bool = False
    """A step occupies the PE for its whole interval: T steps take T * ii cycles; False: pipelined, ii (T - 1) + 1."""
    scales_inside: bool = False
    """PEs apply the scales of groups: a fold runs over the edges of groups, and no step crosses one."""
    group_cycles: int = 0
    """With ``scales_inside``: least cycles from the end of one group to that of the next."""

    def held(self, axis: Axis) -> int:
        """How much of an axis that rows or columns hold, one fold holds at most: outputs stationary, of m or n."""
        return self.rows if self.dataflow.rows_hold == axis else self.cols

    def timed(self, r: int, c: int) -> tuple[int, int]:
        """Rows and columns that decide the time of a fold that uses (r, c)."""
        return (self.rows, self.cols) if self.full_edge_folds else (r, c)

    def tail_cycles(self, r: int, c: int, drain: int) -> int:
        """Cycles from the last step to the last result's departure, the latter included (timed r and c)."""
        if self.dataflow.preloads:
            return self.latency * r + c - 2
        last_column = c - 1 if self.dataflow.skewed else 0
        if self.shift_drain:
            last_row = r - 1 if self.dataflow.skewed else 0
            return self.latency - 1 + last_row + last_column + r * drain
        return self.latency - 1 + (r - 1) * drain + last_column


def stream_cycles(steps: int, interval: int) -> int:
    """interval * (T - 1) + 1: cycles from the first of ``steps`` steps to the last, ``interval`` apart, both
    included."""
    return interval * (steps - 1) + 1
