"""The cycles of folds: against SCALE-Sim, against the formulas of docs/concepts.md, and as laws."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.array import DATAFLOWS, Array, Demand, chunk_k, gemm_block, scale_edges
from simulator.array.demand import Port
from simulator.array.schedule import CAUSES, COUNTERS

ENDLESS = Port(1 << 60, 1 << 60, False, 1 << 20)
IDEAL = Demand(ENDLESS, ENDLESS, ENDLESS, 8, 8, 32, 32, 0, 0, 1)
SCALESIM = list(
    csv.DictReader((Path(__file__).parents[1] / "data" / "scalesim_cases.csv").read_text().splitlines())
)


def array(dataflow: str, rows: int, cols: int, **settings: object) -> Array:
    defaults = {
        "full_edge_folds": False,
        "fold_overlap": False,
        "shift_drain": False,
        "lanes": 1,
        "latency": 1,
        "initiation_interval": 1,
    }
    return Array(DATAFLOWS[dataflow], rows, cols, **{**defaults, **settings})  # type: ignore[arg-type]


def cycles(machine: Array, m: int, k: int, n: int) -> int:
    limit = machine.rows * machine.lanes if machine.dataflow.preloads else 0
    block = gemm_block(machine, IDEAL, m, n, chunk_k(0, k, (), limit))
    return block.load + block.end


@pytest.mark.parametrize(
    "case", SCALESIM, ids=lambda c: f"{c['dataflow']}-{c['rows']}x{c['cols']}-{c['name']}"
)
def test_demand_lines_of_scalesim(case: dict[str, str]) -> None:
    machine = array(case["dataflow"], int(case["rows"]), int(case["cols"]), full_edge_folds=True)
    assert cycles(machine, int(case["M"]), int(case["K"]), int(case["N"])) == int(case["demand_lines"])


@pytest.mark.parametrize(
    "case", SCALESIM[::7], ids=lambda c: f"{c['dataflow']}-{c['rows']}x{c['cols']}-{c['name']}"
)
def test_words_read_and_results_written_are_scalesims(case: dict[str, str]) -> None:
    """SCALE-Sim 3.0.0 adds R + C output writes per output-stationary fold, which no result needs: taken off here.

    It forgets that split K is added up: partial sums are read back once for every K fold but the first.
    """
    rows, cols = int(case["rows"]), int(case["cols"])
    m, k, n = int(case["M"]), int(case["K"]), int(case["N"])
    machine = array(case["dataflow"], rows, cols, full_edge_folds=True)
    word = Port(1 << 60, 1 << 60, False, 1)
    counted = replace(
        IDEAL, weights=word, activations=word, outputs=word, weight_bits=1, activation_bits=1, partial_bits=1
    )
    limit = rows if machine.dataflow.preloads else 0
    block = gemm_block(machine, counted, m, n, chunk_k(0, k, (), limit))
    count = dict(zip(COUNTERS, block.counts.tolist(), strict=True))
    assert count["activations_reads"] == int(case["sram_ifmap_reads"])
    assert count["weights_reads"] == int(case["sram_filter_reads"])
    excess = count["folds"] * (rows + cols) if case["dataflow"] == "os" else 0
    assert count["outputs_writes"] == int(case["sram_ofmap_writes"]) - excess
    k_folds = -(-k // rows) if machine.dataflow.preloads else 1
    assert count["outputs_reads"] == m * n * (k_folds - 1) == count["partial_adds"]


@given(
    dataflow=st.sampled_from(["os", "ws", "is", "broadcast"]),
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    size=st.tuples(*[st.integers(1, 9)] * 2),
    p=st.integers(1, 4),
    ii=st.integers(1, 3),
    full=st.booleans(),
    overlap=st.booleans(),
    shift=st.booleans(),
    lanes=st.integers(1, 4),
)
def test_closed_form_is_the_sum_over_folds(
    dataflow: str,
    shape: tuple[int, int, int],
    size: tuple[int, int],
    p: int,
    ii: int,
    full: bool,
    overlap: bool,
    shift: bool,
    lanes: int,
) -> None:
    """The table "time of a fold" of the concepts page, fold by fold in a loop."""
    m, k, n = shape
    rows, cols = size
    machine = array(
        dataflow, rows, cols, full_edge_folds=full, fold_overlap=overlap,
        shift_drain=shift and dataflow in ("os", "broadcast"), lanes=lanes, latency=p, initiation_interval=ii,
    )  # fmt: skip
    held = {"os": (m, n), "broadcast": (m, n), "ws": (-(-k // lanes), n), "is": (-(-k // lanes), m)}[dataflow]
    streamed = {"os": -(-k // lanes), "broadcast": -(-k // lanes), "ws": m, "is": n}[dataflow]
    stream = ii * (streamed - 1) + 1
    folds = []
    for c0 in range(0, held[1], cols):
        for r0 in range(0, held[0], rows):
            r, c = min(rows, held[0] - r0), min(cols, held[1] - c0)
            folds.append((rows, cols) if full else (r, c))
    time, end, before = 0, 0, 0
    for r, c in folds:
        if dataflow in ("ws", "is"):
            length, load = stream - 1 + p * r + c - 1, r
        elif dataflow == "os":
            length, load = stream + p - 1 + r + c - 2 + (r if machine.shift_drain else 0), 0
        else:
            length, load = stream + p - 1 + (r if machine.shift_drain else r - 1), 0
        if not before:
            time = load
        elif overlap:
            time += max(stream, r if dataflow in ("ws", "is") else before)
        else:
            time = end + load
        end, before = max(end, time + length), r
    assert cycles(machine, m, k, n) == end


def test_a_three_cycle_mac_delays_every_row_of_a_weight_stationary_column() -> None:
    assert cycles(array("ws", 8, 8, latency=3), 10, 8, 8) - cycles(array("ws", 8, 8), 10, 8, 8) == 2 * 8


def test_a_two_cycle_initiation_interval_doubles_the_stream() -> None:
    assert cycles(array("os", 8, 8, initiation_interval=2), 8, 100, 8) == 2 * 99 + 1 + 8 + 8 - 2


def test_partial_edge_folds_idle_unused_rows_and_columns() -> None:
    exact, full = array("os", 8, 8), array("os", 8, 8, full_edge_folds=True)
    assert cycles(exact, 5, 20, 3) == 20 + 5 + 3 - 2
    assert cycles(full, 5, 20, 3) == 20 + 8 + 8 - 2


def test_groups_cut_k_at_every_edge_of_either_operand() -> None:
    assert scale_edges(10, [(4, 10), (0, 10)]) == (4, 8, 10)
    assert scale_edges(12, [(4, 12), (6, 12)]) == (4, 6, 8, 12)
    assert scale_edges(12, [(0, 12), (0, 12)]) == ()


def test_groups_begin_anew_at_every_kernel_position() -> None:
    assert scale_edges(12, [(4, 6), (0, 6)]) == (4, 6, 10, 12)
    assert scale_edges(12, [(4, 12), (4, 6)]) == (4, 6, 8, 10, 12)


@given(k=st.integers(1, 60), group=st.integers(1, 20), limit=st.integers(0, 9))
def test_chunks_cover_k_once_and_end_with_their_group(k: int, group: int, limit: int) -> None:
    chunks = [
        c
        for run in chunk_k(0, k, scale_edges(k, [(group, k)]), limit)
        for _ in range(run.count)
        for c in run.pattern
    ]
    assert sum(chunk.size for chunk in chunks) == k
    assert sum(chunk.rescaled for chunk in chunks) == -(-k // group)
    assert sum(chunk.reads_scaled for chunk in chunks) == -(-k // group) - 1
    assert all(not limit or chunk.size <= limit for chunk in chunks)
    low = 0
    for chunk in chunks:
        assert low // group == (low + chunk.size - 1) // group
        low += chunk.size


@given(
    dataflow=st.sampled_from(["os", "ws", "is", "broadcast"]),
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    overlap=st.booleans(),
    width=st.sampled_from([8, 16, 64]),
)
def test_causes_cover_every_cycle_between_the_first_and_the_last_stream(
    dataflow: str, shape: tuple[int, int, int], overlap: bool, width: int
) -> None:
    m, k, n = shape
    port = Port(width, width, True, width)
    demand = Demand(port, port, Port(64, 64, True, 64), 8, 8, 32, 32, 16, 0, 2)
    machine = array(dataflow, 4, 4, fold_overlap=overlap)
    limit = 4 if machine.dataflow.preloads else 0
    block = gemm_block(machine, demand, m, n, chunk_k(0, k, scale_edges(k, [(5, k)]), limit))
    assert block.causes.sum() == block.span + block.stream
    assert (block.causes >= 0).all()
    assert len(block.causes) == len(CAUSES)
