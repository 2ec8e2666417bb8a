"""Bit-serial PEs and arrays as hardware against the PEs' functions, their rules of time, and both engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="units as hardware need the extra `rtl`")

import serial_runs
from array_schedule import Leaving
from engine_edges import observe
from hardware_runs import ADDERS, in_amaranth

from simulator.arch import load_accelerator
from simulator.arch.components import components
from simulator.engine import fast
from simulator.engine.outputs import operands_of
from simulator.engine.streams import DataRun
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, exact_integers, get_format, quantize
from simulator.hardware import load_technology
from simulator.hardware.table import table_text
from simulator.mapping import Plan, plan_gemm
from simulator.pe.serial import sync, term_masks
from simulator.rtl.characterise import Characteriser, Settings, stimulus_cycles
from simulator.rtl.unit import Energy, port_bits
from simulator.rtl.units import serial_operands, unit_of_name
from simulator.rtl.units.serial import DEFAULT, RATE_CYCLES, SerialUnit
from simulator.workload import gemm_workload

pytestmark = pytest.mark.rtl

FLAT = Energy(1.0, 2.0, 3.0, 4.0)
UNITS = [
    "stripes8-int8xint8+int7+int2+uint8-int32-double",
    "stripes5-int6+uint6xint4+uint5-int12",
    "stripes16-int8+int4xint8+uint8-int20-cut1-double",
    "stripes1-int8xint8-int32",
    "stripes_dispatcher-int8+int5+uint7",
    "pragmatic8-int8xint8+uint8-weights-b5-int32-double",
    "pragmatic4-int8+uint8xint8+uint8+int3-weights-b5-booth_like-int32",
    "pragmatic16-int8xint8+uint8-activations-b2-int32-double",
    "pragmatic16-int8xint8-activations-b2-booth_like-int24-cut1-double",
    "pragmatic3-int8+int4xuint8-weights-b0-naf-int32",
    "pragmatic5-int8xint7+uint7-activations-b3-radix4_booth-int32",
    "pragmatic4-int8xint16+uint16-activations-b1-int48",
    "pragmatic2-int8xint8-weights-b5-int32-cut1",
    "pragmatic_encoder16-int8+uint8+int5-b2",
    "pragmatic_encoder3-int8+uint8-b0-naf",
    "pragmatic_encoder4-int8+uint8-b5-booth_like",
    "pragmatic_encoder5-int7+uint7-b3-radix4_booth",
    "bitvert16-int8+bbs_avg2+bbs_zp4xint8+uint8-sub8-int32-cut2-double",
    "bitvert8-bbs_avg6+bbs_zp6+bbs_avg1xint8-sub4-int32",
    "bitvert16-uint8+int5+bbs_zp3xint4-sub16-int32-cut1-double",
    "bitvert8-int8+bbs_avg5xint6+uint6-sub8-int20",
    "bitvert_activation_sum16-int8+uint8-sub8",
    "bitvert_activation_sum8-int4+uint4-sub8",
]


@pytest.mark.parametrize("name", UNITS)
def test_hardware_equals_function_on_random_and_extreme_codes(name):
    unit = unit_of_name(name)
    for number, proof in enumerate(unit.proofs):
        stream = unit.stream(proof, 48, seed=3)
        wanted = list(stream.expected())
        assert in_amaranth(unit, stream.ports, ADDERS[number % 3], fast=number % 2 == 1) == wanted
        assert len(set(wanted)) > 1


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "mixed"])
@pytest.mark.parametrize("name", [name for name in UNITS if "_" not in name.partition("-")[0]])
def test_what_enters_in_the_cycles_of_a_step_makes_its_operands(name, kind):
    """Streams take codes apart; put together again, cycle by cycle, they are the codes."""
    unit = unit_of_name(name)
    pe = unit.pe
    for pair in unit.pairs:
        steps = serial_operands.step_operands(*pair, kind, 150, pe.lanes, 5)
        cycles = serial_operands.cycles_of_steps(pe, pair, steps, 150)
        begins = np.flatnonzero(cycles.loads)
        assert len(begins) > 3
        serial_activations = pe.family == "stripes" or getattr(pe, "serial", "weights") == "activations"
        side, other = ("activations", "weights") if serial_activations else ("weights", "activations")
        whole = np.add.reduceat(getattr(cycles, side), begins)[:-1]
        np.testing.assert_array_equal(whole, getattr(steps, side)[: len(whole)])
        np.testing.assert_array_equal(getattr(cycles, other)[begins], getattr(steps, other)[: len(begins)])
        np.testing.assert_array_equal(np.diff(begins), cycles_of(pe, pair, steps)[: len(begins) - 1])


def cycles_of(pe, pair, steps):
    """Cycles of each step by the PE's timing: one line of each operand."""
    data = pe.data_timing(*pair)
    if data is None:
        return np.full(len(steps.first), pe.timing(*pair).initiation_interval)
    return np.diff(data.ends(steps.activations[None], steps.weights[None], 1), prepend=0)


@pytest.mark.parametrize("recoding", ["none", "booth_like", "naf", "radix4_booth"])
@pytest.mark.parametrize("signed", [False, True])
def test_encoders_find_the_terms_of_every_value(recoding, signed):
    """All 8-bit values through one lane: as many cycles as terms, at least one, and their sum is the value."""
    format = "int8" if signed else "uint8"
    suffix = "" if recoding == "none" else f"-{recoding}"
    unit = unit_of_name(f"pragmatic_encoder1-{format}-b5{suffix}")
    values = np.arange(-128, 128) if signed else np.arange(256)
    terms = serial_operands.encoder_terms(unit.pe, values[:, None], 2000)
    counts = np.bincount(terms.step)
    expected = sync.two_stage_cycles(values[:, None], recoding=recoding)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(np.bincount(terms.step, terms.values[:, 0]), values)
    ports = {
        "word": port_bits(values[terms.step], 8),
        "load": terms.load[:, None].astype(np.uint8),
        "signed": np.full((len(terms.load), 1), signed, np.uint8),
    }
    found = np.array(in_amaranth(unit, ports))
    offset_bits = serial_operands.term_bits(unit.pe) - 2
    position, sign, valid = (
        found[:, 0] & (1 << offset_bits) - 1,
        found[:, 0] >> offset_bits & 1,
        found[:, 0] >> offset_bits + 1,
    )
    np.testing.assert_array_equal(valid * (1 - 2 * sign) << position, terms.values[:-1, 0])
    np.testing.assert_array_equal(found[:, 1], terms.last[:-1])
    masks = term_masks(values, recoding)
    assert int(valid.sum()) == sum(int(mask).bit_count() for mask in masks) - int(valid_last(terms))


def valid_last(terms):
    """The last cycle's term, which has not left yet."""
    return terms.values[-1, 0] != 0


@pytest.mark.parametrize("sub_group", [4, 8, 16])
def test_half_as_many_multiplexers_take_any_column(sub_group):
    """Every column of a sub-group: lane i has activation 2**i, so that the sum says which lanes were taken."""
    rng = np.random.default_rng(0)
    columns = np.arange(1 << sub_group) if sub_group < 16 else rng.integers(0, 1 << 16, 60)
    unit = unit_of_name(f"bitvert{max(sub_group, 8)}-uint2xuint{sub_group}-sub{sub_group}-int32")
    lanes = unit.pe.lanes
    bits = columns[:, None] >> np.arange(sub_group) & 1
    weights = np.zeros((len(columns), lanes), np.int64)
    weights[:, :sub_group] = bits
    activations = np.zeros_like(weights)
    activations[:, :sub_group] = 1 << np.arange(sub_group)
    steps = serial_operands.Steps(activations, weights, np.ones(len(columns), np.bool_))
    stream = serial_operands.cycles_of_steps(unit.pe, unit.pairs[0], steps, 2 * len(columns))
    sums = in_amaranth(unit, stream.ports)
    # Behind the second of a step's two columns.
    assert sums[1::2] == columns[: len(sums) // 2].tolist()


@dataclass(frozen=True)
class Case:
    """A machine and a GEMM for it."""

    arch: str
    rows: int
    cols: int
    m: int
    k: int
    n: int
    weights: str = "int8_channel"
    activations: str = "int8_token"
    codes: str = "gaussian"
    holds: str = "n"
    pe: tuple[tuple[str, Any], ...] = ()
    seed: int = 0


def mapped(case: Case) -> tuple[Plan, Any, SerialUnit, dict[str, QuantizedTensor]]:
    """The case as a plan of one tile with ports that always keep up, its accelerator, unit and operands."""
    wide = {"kib": 4096, "banks": 2, "width_bits": 65536, "ports": "1r1w"}
    changes: dict[str, Any] = {
        "array.rows": case.rows,
        "array.cols": case.cols,
        "array.rows_hold": case.holds,
    }
    changes |= {
        f"buffers.{name}.{key}": value
        for name in ("weights", "activations", "outputs")
        for key, value in wide.items()
    }
    changes |= {"mapping.tile_m": case.m, "mapping.tile_k": case.k, "mapping.tile_n": case.n}
    changes |= {f"pe.{key}": value for key, value in case.pe}
    accelerator = load_accelerator(case.arch, changes)
    workload = gemm_workload(case.m, case.k, case.n, weights=case.weights, activations=case.activations)
    plan = plan_gemm(workload.gemms[0], accelerator)
    assert plan.counts == (1, 1, 1)
    random = np.random.default_rng([7, case.seed])
    tensors = {}
    for side, extent in (("weights", case.n), ("activations", case.m)):
        format = getattr(plan, side)
        values = random.normal(size=(extent, case.k))
        if case.codes == "extreme":
            corners = serial_operands.corner_codes(get_format("int8").element)[1:]
            values = random.choice([0, 0, *corners], (extent, case.k)).astype(np.float64)
            # Whole rows of zeros, and the largest value once, so that scales are one.
            values[random.random(extent) < 0.2] = 0
            values[:, 0] = 127
        elif case.codes == "zero":
            values = np.zeros_like(values)
        tensors[side] = quantize(np.abs(values) if format.element.kind == "uint" else values, format)
    return plan, accelerator, SerialUnit(accelerator.element, doubled=False), tensors


@dataclass
class FixedCodes:
    """Blocks of the operands of a plan, as both engines ask for them."""

    plan: Plan
    operands: dict[str, np.ndarray]

    def which(self, side: str) -> np.ndarray:
        return np.arange(-(-len(self.operands[side]) // self.plan.held(side)))

    def share(self, side: str) -> float:
        return 1.0

    def integers(self, side: str, block: int) -> np.ndarray:
        held = self.plan.held(side)
        return self.operands[side][block * held : (block + 1) * held].astype(np.int16)


def check(case: Case, doubled: bool = False) -> None:
    """Hardware and both engines: every step ends in the same cycle, every sum is there when the engines send it off."""
    plan, accelerator, unit, tensors = mapped(case)
    pe = accelerator.element
    integers = {side: exact_integers(tensor)[0] for side, tensor in tensors.items()}
    timing = pe.data_timing(plan.weights, plan.activations)
    data = None if timing is None else DataRun(timing, FixedCodes(plan, integers))
    operands = operands_of(plan, pe, tensors["weights"], tensors["activations"])
    seen, record, results = observe(plan, operands, data)
    quick = fast.simulate_gemm(plan, "x", "gemm", data)
    assert quick.compute_cycles == record.compute_cycles

    unit = replace(unit, doubled=doubled)
    folds = serial_runs.steps_of(
        plan, integers["weights"], integers["activations"], tensors["weights"].selectors
    )
    steps = [step for fold in folds for step in fold]
    if doubled:
        # What follows moves the last sums to the second accumulators.
        steps.append(replace(steps[0], weights=steps[0].weights * 0, activations=steps[0].activations * 0))
    lines = (plan.held("weights"), plan.held("activations"))
    elements = (plan.weights.element, plan.activations.element)
    found = serial_runs.run(unit, lines, elements, steps)

    # Steps end where the engines let them enter; one follows the other without a gap.
    assert len(found.takes) == len(steps)
    ends = [takes - found.takes[0] for takes in found.takes[1:]]
    entered = [cycle + 1 for cycle, _, _ in seen.words]
    ends = ends if doubled else [*ends, ends[-1] + entered[-1] - entered[-2] if ends else entered[-1]]
    offset = entered[0] - ends[0]
    assert [cycle - offset for cycle in entered] == ends

    # Sums are at the hardware's ports a cycle later than the PEs have them, one more where the edge has a register and
    # one more where the second accumulator takes them; the engines' output bus sends a row a cycle from then on.
    edge = pe.family != "bitvert"
    last = np.cumsum([len(fold) for fold in folds]) - 1
    leaving = []
    for at, fold in zip(last, serial_runs.folds_in_order(plan), strict=True):
        sums = found.sums[found.takes[0] + ends[at] + pe.pipeline_depth + edge + doubled]
        for row in range(fold.r):
            for col in range(fold.c):
                code = sums[(row, col) if case.holds == "n" else (col, row)]
                value = code - (code >> pe.accumulator_bits - 1 << pe.accumulator_bits)
                leaving.append(Leaving(entered[at] - 1 + pe.pipeline_depth - 1 + row, col, value))
    assert sorted(leaving) == seen.leavings
    assert record.compute_cycles == ends[last[-1]] + pe.pipeline_depth - 1 + fold.r - 1
    exact = integers["activations"].astype(np.int64) @ integers["weights"].astype(np.int64).T
    assert sorted(one.value for one in leaving) == sorted(exact.ravel().tolist())
    assert (np.abs(results).max() > 0) == (case.codes != "zero")


PAPER = (("serial", "activations"), ("bits_first_stage", 2), ("lanes", 4))
FEW_LANES = (("lanes", 4),)
FOUR = (("lanes", 8), ("sub_group", 4))
CASES = {
    "stripes, one PE": Case("stripes", 1, 1, m=2, k=20, n=2),
    "stripes": Case("stripes", 2, 2, m=3, k=14, n=3, codes="extreme", pe=FEW_LANES),
    "stripes, 4 bits": Case(
        "stripes", 2, 1, m=2, k=11, n=3, activations="int4_token", holds="m", pe=FEW_LANES
    ),
    "stripes, unsigned": Case("stripes", 2, 1, m=1, k=10, n=2, activations="uint8_token_asym", pe=FEW_LANES),
    "stripes, two stages": Case("stripes", 1, 2, m=3, k=12, n=2, pe=(*FEW_LANES, ("pipeline_depth", 2))),
    "pragmatic, one PE": Case("pragmatic", 1, 1, m=2, k=20, n=2),
    "pragmatic": Case("pragmatic", 3, 2, m=3, k=30, n=4, pe=FEW_LANES),
    "pragmatic, extremes": Case("pragmatic", 2, 2, m=4, k=40, n=3, codes="extreme", pe=FEW_LANES),
    "pragmatic, zeros": Case("pragmatic", 2, 2, m=2, k=40, n=2, codes="zero", pe=FEW_LANES),
    "pragmatic, as in its paper": Case("pragmatic", 2, 3, m=6, k=18, n=4, pe=PAPER),
    "pragmatic, booth-like": Case(
        "pragmatic", 2, 2, m=4, k=18, n=4, codes="extreme", holds="m", pe=(*PAPER, ("recoding", "booth_like"))
    ),
    "pragmatic, naf, one position": Case(
        "pragmatic", 2, 1, m=2, k=18, n=2, codes="extreme", pe=(("recoding", "naf"), ("bits_first_stage", 0))
    ),
    "bitvert, one PE": Case("bitvert", 1, 1, m=1, k=40, n=2),
    "bitvert, whole weights": Case("bitvert", 2, 1, m=1, k=20, n=3, codes="extreme", pe=FOUR),
    "bitvert, averages": Case("bitvert", 2, 2, m=2, k=35, n=3, weights="bbs_avg4_g32", pe=FOUR),
    "bitvert, constants": Case(
        "bitvert", 2, 1, m=2, k=35, n=3, weights="bbs_zp4_g32", codes="extreme", pe=FOUR
    ),
    "bitvert, two stages": Case(
        "bitvert", 1, 2, m=2, k=35, n=2, weights="bbs_zp2_g32", pe=(*FOUR, ("pipeline_depth", 2))
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_steps_and_sums_are_the_engines(case):
    check(case)


@pytest.mark.parametrize("name", ["stripes", "pragmatic", "bitvert, averages"])
def test_second_accumulators_keep_sums_while_the_next_fold_streams(name):
    check(CASES[name], doubled=True)


LARGE = {
    "stripes": Case("stripes", 4, 4, m=6, k=36, n=5, codes="extreme"),
    "pragmatic": Case("pragmatic", 4, 4, m=5, k=36, n=6),
    "pragmatic, as in its paper": Case("pragmatic", 4, 2, m=3, k=36, n=5, pe=(*PAPER[:2], ("lanes", 16))),
    "bitvert": Case("bitvert", 4, 2, m=3, k=68, n=5, weights="bbs_avg2_g32"),
    "bitvert, constants": Case("bitvert", 4, 2, m=3, k=68, n=5, weights="bbs_zp4_g32", codes="extreme"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
def test_larger_arrays_are_the_engines_too(case):
    check(case)


@pytest.mark.parametrize("floor", [2, 3, 9])
@pytest.mark.parametrize("name", ["stripes", "pragmatic", "bitvert, averages"])
def test_slow_words_hold_steps_up_as_the_rules_say(name, floor):
    """A step ends when its own cycles and the delivery of the next words have ended."""
    plan, accelerator, unit, tensors = mapped(CASES[name])
    pe, integers = accelerator.element, {side: exact_integers(tensor)[0] for side, tensor in tensors.items()}
    steps = serial_runs.steps_of(
        plan, integers["weights"], integers["activations"], tensors["weights"].selectors
    )[0]
    lines = (plan.held("weights"), plan.held("activations"))
    found = serial_runs.run(unit, lines, (plan.weights.element, plan.activations.element), steps, floor)
    timing = pe.data_timing(plan.weights, plan.activations)
    if timing is None:
        own = np.full(len(steps), pe.timing(plan.weights, plan.activations).initiation_interval)
        ends = sync.step_ends(own, floor)
    else:
        words = (
            np.stack([getattr(step, side) for step in steps], axis=1) for side in ("activations", "weights")
        )
        ends = timing.ends(*words, floor)
    assert np.diff(found.takes).tolist() == np.diff(ends, prepend=0)[:-1].tolist()
    if floor > 8:
        assert set(np.diff(found.takes)) == {floor}


SHIPPED = {"stripes": "dispatcher", "pragmatic": "encoder", "bitvert": "activation_sum"}


@pytest.mark.parametrize("arch", SHIPPED)
def test_default_units_are_the_components_of_the_accelerators(arch):
    """Kind, parameters and all events that any pair of formats makes: what a table needs to price them whole."""
    accelerator = load_accelerator(arch)
    pe = accelerator.element
    pairs = [(get_format(w), get_format(a)) for w in pe.weights for a in pe.activations]
    found = {
        component.kind: component for name in DEFAULT.split() for component in unit_of_name(name).components()
    }
    for component in components(accelerator, pairs):
        if component.name in ("pe", SHIPPED[arch]):
            unit = found[component.kind]
            assert dict(unit.params) == dict(component.params)
            assert set(unit.events) == set(component.events)


@pytest.mark.parametrize("name", UNITS)
def test_rates_are_counted_on_the_measured_cycles(name):
    unit = unit_of_name(name)
    assert unit.name == name
    assert stimulus_cycles(unit) == RATE_CYCLES
    events = {event for component in unit.components() for event in component.events}
    measured = dict.fromkeys(unit.stimuli, FLAT)
    for event in events:
        energy, how = unit.event_energy(event, measured)
        assert np.isfinite(energy)
        assert how


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stripes8-int8xint8", "not the name of a unit"),
        ("stripes8-int8xfp8_e4m3-int32", "fp8_e4m3"),
        ("stripes8-int8xint8-int32-cut2", "pipeline cuts"),
        ("pragmatic8-int8xint8-int32", "not the name of a unit"),
        ("pragmatic8-int8xint8-weights-b7-int32", "not the name of a unit"),
        ("bitvert16-int8xint8-sub5-int32", "sub_group"),
        ("bitvert64-bbs_avg2xint8-sub8-int32", "lies in one group"),
        ("bitvert16-int9xint8-sub8-int32", "at most 8 bits"),
        ("stripes_dispatcher-int99", "int99"),
        ("strips8-int8xint8-int32", "begins like no unit .* mean stripes"),
    ],
)
def test_names_of_no_unit_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


SMALL = (
    "stripes2-int4xint4-int12",
    "stripes4-int4xint4-int12",
    "stripes_dispatcher-int4",
    "pragmatic2-int4xint4-weights-b5-int12",
    "pragmatic_encoder2-int4-b5",
    "bitvert8-int4xuint3-sub4-int12-cut2",
    "bitvert_activation_sum8-uint3-sub4",
)


@pytest.fixture(scope="module")
def synthesised(toy_file):
    """(the flow, figures by unit): gates of each are proved before they are measured."""
    pytest.importorskip("pyosys")
    worker = Characteriser(Settings((str(toy_file),)))
    return worker, {name: worker.figures(unit_of_name(name)) for name in SMALL}


def test_figures_obey_the_laws(synthesised):
    _, figures = synthesised
    assert figures[SMALL[0]].area_um2 < figures[SMALL[1]].area_um2
    for found in figures.values():
        zero = next(energy for stimulus, energy in found.energy.items() if stimulus.startswith("zero"))
        for stimulus, energy in found.energy.items():
            if stimulus.startswith(("gaussian", "uniform")):
                assert zero.total_fj < energy.total_fj


def test_registers_are_counted(synthesised):
    """Operands, signedness and flags; a bit or term of each lane; the step's sum; the accumulator."""
    _, figures = synthesised
    assert figures["stripes2-int4xint4-int12"].flops == 2 * 4 + 1 + 4 + 2 + (6 + 3) + 12
    assert figures["pragmatic2-int4xint4-weights-b5-int12"].flops == 2 * 4 + 1 + 1 + 2 * (2 + 2) + 12
    assert figures["stripes_dispatcher-int4"].flops == 4
    # A magnitude of four bits and a sign a lane; sums of 5, 5 and 6 bits.
    assert figures["pragmatic_encoder2-int4-b5"].flops == 2 * (4 + 1)
    assert figures["bitvert_activation_sum8-uint3-sub4"].flops == 5 + 5 + 6


def test_events_make_up_the_energy_of_the_stream(synthesised):
    _, figures = synthesised
    for name, terms in ((SMALL[0], 0), ("pragmatic2-int4xint4-weights-b5-int12", 1)):
        unit, energy = unit_of_name(name), figures[name].energy
        pair = unit.pairs[0]
        stream = serial_operands.pe_cycles(unit.pe, pair, "gaussian", RATE_CYCLES)
        cycle, step = (unit.event_energy(f"{what} int4 x int4", energy)[0] for what in ("cycle", "step"))
        total = cycle * RATE_CYCLES + step * stream.loads.sum()
        if terms:
            total += unit.event_energy("term int4 x int4", energy)[0] * stream.terms.sum()
        assert total == pytest.approx(energy["gaussian int4 x int4"].total_fj * RATE_CYCLES)
        idle, _ = unit.event_energy("idle", energy)
        assert cycle > idle or terms


def test_tables_price_them_whole(synthesised, tmp_path):
    worker, figures = synthesised
    table = tmp_path / "serial.csv"
    units = [unit_of_name(name) for name in SMALL]
    table.write_text(table_text(row for unit in units for row in worker.rows(unit, figures[unit.name])))
    technology = load_technology({"base": "published_45nm", "tables": [str(table)]})
    for unit in units:
        for component in unit.components():
            priced = technology.price(component)
            assert priced.quality == "synthesised"
            assert priced.area_um2 == pytest.approx(figures[unit.name].area_um2, rel=1e-4)
            assert set(priced.energy_pj) == set(component.events)
