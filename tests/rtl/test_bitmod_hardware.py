"""BitMoD's blocks in Amaranth's simulator: against the PE's function, and, joined, against both engines."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator
from hardware_runs import ADDERS, INVERTING, in_amaranth

from simulator.arch import load_accelerator
from simulator.array.rescale import operand
from simulator.engine import fast, reference
from simulator.engine.reference import Operands
from simulator.errors import InputError
from simulator.formats import quantize
from simulator.hardware import load_technology
from simulator.hardware.table import table_text
from simulator.mapping import plan_gemm
from simulator.pe.bitmod_terms import cycles_of
from simulator.pe.elements import element_format
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.units import unit_of_name
from simulator.rtl.units.bitmod import (
    DEFAULT,
    ELEMENTS,
    BitModUnit,
    DequantizerUnit,
    EncoderUnit,
    GroupAdderUnit,
)
from simulator.rtl.units.bitmod_operands import digits_of, weight_steps
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.units import ceil_div
from simulator.workload import gemm_workload

pytestmark = pytest.mark.rtl
LANES, TILE, GROUP = 4, 2, 16


def run(module, words, cycles):
    """{output port: its value in every cycle} for {input port: {cycle: value}}; a port keeps its value."""
    signals = {signal.name: signal for signal in module.ports}
    seen = {name: [] for name in module.port if name not in words}

    async def bench(context):
        for cycle in range(cycles):
            for name, values in words.items():
                if cycle in values:
                    context.set(signals[name], values[cycle])
            for name, values in seen.items():
                values.append(context.get(signals[name]))
            await context.tick()

    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


@pytest.mark.parametrize(
    ("name", "fast"),
    [
        ("bitmod-l4-guard3-fp32", False),
        ("bitmod-l4-guard3-fp32-stages4", False),
        ("bitmod-l2-guard5-fp32-stages4", True),
        ("bitmod-l3-guard0-fp16", False),
    ],
)
def test_every_cycle_of_the_pe_is_the_functions(name, fast):
    unit = unit_of_name(name)
    for proof in unit.proofs[::3]:
        stream = unit.stream(proof, 16, seed=4)
        assert in_amaranth(unit, stream.ports, ADDERS[unit.lanes % 3], fast) == list(stream.expected())


@pytest.mark.slow
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("kind", ["gaussian", "uniform", "corners"])
def test_the_pe_takes_all_elements(element, kind):
    unit = BitModUnit()
    stream = unit.stream(f"{kind} {element}", 300, seed=8)
    assert in_amaranth(unit, stream.ports, INVERTING) == list(stream.expected())


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_encoder_makes_the_terms_of_every_code(element):
    unit = EncoderUnit(4)
    stream = unit.stream(f"uniform {element}", 60, seed=1)
    assert in_amaranth(unit, stream.ports) == list(stream.expected())


@pytest.mark.parametrize("name", ["bitmod_fp4", "bitmod_fp3"])
def test_each_group_has_its_special_value(name):
    """The code of -0 under each selector: digits that sum to that table's value, from registers loaded at the ports."""
    element = element_format(name).element
    code = 1 << (element.bits - 1)
    unit = EncoderUnit(1)
    words = {"w": {0: code << (4 - element.bits)}, "floats": {0: 1}, "load": {0: 1, 4: 0}}
    words["index"] = {entry: entry for entry in range(4)}
    specials = [table[code] for table in element.tables]
    ones = 4 - element.bits
    words["special"] = {i: (value < 0) << 5 | abs(value) << ones for i, value in enumerate(specials)}
    words["selector"] = {4 + 2 * i: i for i in range(4)}
    words["cycle"] = {4 + i: i % 2 for i in range(8)}
    seen = run(unit.module(), words, 16)
    for i, value in enumerate(specials):
        at = slice(4 + 2 * i + unit.latency, 6 + 2 * i + unit.latency)
        digits = [digits_of(code, 1)[0] for code in seen["terms"][at]]
        assert seen["bsig"][at] == [1, 0]
        assert 2 * digits[0] + digits[1] == value << ones


@pytest.mark.parametrize(
    "unit",
    [
        DequantizerUnit(),
        DequantizerUnit(5, "fp16"),
        GroupAdderUnit(doubled=True),
        GroupAdderUnit(1, 2, "e8m12", cuts=1),
    ],
    ids=lambda unit: unit.name,
)
def test_products_and_outputs_are_exact_and_rounded_once(unit):
    for proof in unit.proofs:
        stream = unit.stream(proof, 32, seed=2)
        assert in_amaranth(unit, stream.ports) == list(stream.expected())


def test_terms_of_a_stream_sum_to_its_weights():
    """What drives the PE's port is what the engines' weights are made of."""
    for name in ELEMENTS:
        steps = weight_steps(name, "uniform", np.random.default_rng(0), 40, LANES)
        digits, bsig = steps.terms()
        cycles = cycles_of(steps.format.element)
        sums = (digits * 2.0 ** (bsig[:, None] - 1)).reshape(40, cycles, LANES).sum(axis=1)
        halves = steps.format.element.bits == 4 and not steps.format.element.is_integer
        assert (sums == steps.integers / (2 if halves else 1)).all()


def machine(**pe):
    """Rows hold output channels: the PEs of a column share their adder, two by two."""
    return load_accelerator(
        {
            "name": "small",
            "clock_ghz": 1.0,
            "array": {
                "dataflow": "broadcast",
                "rows": 2,
                "cols": 1,
                "rows_hold": "n",
                "rescale_per_cycle": 0,
            },
            "pe": {
                "family": "bitmod",
                "weights": ["bitmod_fp4", "bitmod_fp3", "int8", "int6"],
                "activations": "fp16",
                "tile": TILE,
                **pe,
            },
            "buffers": {
                "weights": {"kib": 8, "banks": 2, "width_bits": 128},
                "activations": {"kib": 8, "banks": 2, "width_bits": 256},
                "outputs": {"kib": 1, "banks": 2, "width_bits": 128, "ports": "1r1w"},
            },
            "vector": {"lanes": 4},
            "dram": {"bandwidth_gb_per_s": 8.0, "latency_ns": 5},
            # Whole columns: the outputs of K tiles would be added behind the array.
            "mapping": {"tile_k": 48},
        }
    )


def in_hardware(weights, activations, stages, period):
    """(outputs of both PEs, cycles until the last of them has left) of a column of two: encoders, PEs, units for scales
    and adder run one after the other on what the one before put out, cycle by cycle.

    Cycle 0 is the first in which terms are in the PEs' registers. Groups end no closer than ``period``; the last step
    of one waits for that.
    """
    format, k = weights.format, weights.k
    element = format.element
    cycles, floats = cycles_of(element), not element.is_integer
    starts, ends, now = [], [], 0
    for low in range(0, k, GROUP):
        steps = ceil_div(min(GROUP, k - low), LANES)
        end = now + max(steps * cycles, period)
        starts += [(low + LANES * step, now + step * cycles) for step in range(steps - 1)]
        starts.append((low + LANES * (steps - 1), end - cycles))
        ends.append(end - 1)
        now = end
    pe = BitModUnit(stages=stages)
    unit, adder = DequantizerUnit(), GroupAdderUnit(tile=TILE)
    encoder = EncoderUnit(LANES)
    lead = 4  # cycles in which the encoders' special values are loaded
    origin = lead + encoder.latency + 1  # of cycle 0 above
    total = origin + now + pe.latency + unit.latency + adder.latency + TILE
    products = []
    special = 1 << (element.bits - 1)
    for row in range(TILE):
        words = {"floats": {0: int(floats)}, "load": {0: 1, lead: 0}, "w": {0: 0}, "cycle": {}}
        words |= {"index": {entry: entry for entry in range(4)}, "special": {}, "selector": {}}
        for i, table in enumerate(element.tables):
            words["special"][i] = (table[special] < 0) << 5 | abs(table[special]) << (4 - element.bits)
        pe_words = {"a": {}, "first": {}, "terms": {}, "bsig": {}}
        for low, start in starts:
            at = lead + start
            lanes = range(low, min(low + LANES, k))
            shift = 4 - element.bits if floats else 0
            words["w"][at] = sum((int(weights.codes[row, i]) << shift & 255) << 8 * (i - low) for i in lanes)
            words["w"].setdefault(at + cycles, 0)
            words["cycle"] |= {at + cycle: cycle for cycle in range(cycles)}
            if weights.selectors is not None:
                words["selector"][at] = int(weights.selectors[row, low // GROUP])
            at = origin - 1 + start
            pe_words["a"][at] = sum(int(activations.codes[0, i]) << 16 * (i - low) for i in lanes)
            pe_words["first"] |= {at: int(low % GROUP == 0), at + 1: 0}
        encoded = run(encoder.module(), words, total)
        for name in ("terms", "bsig"):
            pe_words[name] = dict(enumerate(encoded[name]))
        sums = run(pe.module(), pe_words, total)["out"]
        ready = [origin + end + stages for end in ends]
        scale_words = {"sum": dict(enumerate(sums)), "scale": {}, "load": {}, "shift": {}}
        for group, cycle in enumerate(ready):
            scale_words["scale"][cycle] = int(weights.scales[row, group])
            scale_words["load"] |= {cycle: 1}
            scale_words["load"].setdefault(cycle + 1, 0)
            scale_words["shift"] |= {cycle: 0, cycle + 1: 1}
            scale_words["shift"].setdefault(cycle + unit.bits, 0)
        for later in ready:
            scale_words["load"][later], scale_words["shift"][later] = 1, 0
        products.append(run(unit.module(), scale_words, total)["product"])
    bits = 1 + 8 + unit.pe.scaled_bits
    add_words = {
        "products": {t: low | high << bits for t, (low, high) in enumerate(zip(*products, strict=True))}
    }
    add_words |= {"take": {0: 0}, "index": {}, "first": {}, "read": {}}
    for group, cycle in enumerate(ready):
        for row in range(TILE):
            at = cycle + unit.latency + row
            add_words["take"] |= {at: 1, at + 1: 0}
            add_words["index"][at] = row
            add_words["first"][at] = int(group == 0)
    seen = ready[-1] + unit.latency + TILE - 1 + adder.latency
    add_words["read"] = {seen: 0, seen + 1: 1}
    out = run(adder.module(), add_words, total + 2)["out"]
    return sums_of_codes(unit.pe.sums, out[seen : seen + 2]), seen + 1 - origin


def outputs_of(sums, weights, exponent):
    """FP32 results of sums in hardware: those of FP4 count halves of the integers', and channels have scales."""
    in_halves = 2 if weights.format.name.startswith("bitmod_fp4") else 1
    values = np.ldexp(np.array(sums, np.float64), exponent) * in_halves
    return (values * weights.row_scales[:, 0]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("bitmod_fp4_g16", 3),
        pytest.param("bitmod_fp3_g16", 4, marks=pytest.mark.slow),
        pytest.param("int6_g16_si8", 4, marks=pytest.mark.slow),
        pytest.param("int8_g16_si8", 3, marks=pytest.mark.slow),
    ],
)
def test_a_column_gives_the_results_and_takes_the_cycles_of_both_engines(name, stages):
    """K of 35: two groups and a short third; two output channels, one token."""
    accelerator = machine(stages=stages)
    plan = plan_gemm(gemm_workload(1, 35, 2, weights=name, activations="fp16").gemms[0], accelerator)
    random = np.random.default_rng(7)
    weights = quantize(random.normal(size=(2, 35)).astype(np.float32), name)
    activations = quantize(random.laplace(size=(1, 35)).astype(np.float32), "fp16")
    pe = accelerator.element
    timing = pe.timing(weights.format, activations.format)
    function = pe.function(weights.format, activations.format)
    sums, cycles = in_hardware(weights, activations, stages, timing.group_cycles)

    operands = Operands(operand(weights, 1, 2), operand(activations, 1, 1), function)
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert (results[0] == outputs_of(sums, weights, function.exponent)).all()
    assert record.compute_cycles == cycles
    assert fast.simulate_gemm(plan, "gemm", "gemm").compute_cycles == cycles


def test_a_group_may_follow_when_the_adder_has_the_last_product():
    """A unit for scales holds a product until the column's adder takes it: one cycle sooner the second PE's is lost."""
    gemm = gemm_workload(1, 32, 2, weights="bitmod_fp4_g16", activations="fp16").gemms[0]
    plan = plan_gemm(gemm, machine())
    weights = quantize(np.random.default_rng(3).normal(size=(2, 32)).astype(np.float32), "bitmod_fp4_g16")
    activations = quantize(np.ones((1, 32), np.float32), "fp16")
    period = machine().element.timing(weights.format, activations.format).group_cycles
    assert period == 8 + TILE - 1
    function = machine().element.function(weights.format, activations.format)
    operands = Operands(operand(weights, 1, 2), operand(activations, 1, 1), function)
    right = reference.simulate_gemm(plan, "gemm", "gemm", operands)[1][0, 0]
    for cycles, lost in ((period, False), (period - 1, True)):
        sums, _ = in_hardware(weights, activations, 3, cycles)
        got = outputs_of(sums, weights, function.exponent)
        assert got[0] == right[0]
        assert (got[1] != right[1]) == lost


def test_names_say_everything():
    names = (
        "bitmod-l2-guard4-e8m13-stages4 bitmod_dequantizer-scale6-fp16 bitmod_group_adder-scale8-tile4-bf16"
    )
    for name in f"{DEFAULT} {names}".split():
        assert unit_of_name(name).name == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bitmod", "not the name of a unit"),
        ("bitmod-l4-guard3-int32", "floating-point accumulators"),
        ("bitmod-l99-guard3-fp32", "64"),
        ("bitmod-l4-guard3-fp32-stages3", "not how the unit is called"),
        ("bitmod_dequantizer-scale99-fp32", "16"),
        ("bitmod_group_adder-scale8-tile8-fp32-cut6", "0 to 5"),
    ],
)
def test_names_of_no_unit_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


@pytest.fixture(scope="module")
def worker(toy_file):
    return Characteriser(Settings((str(toy_file),)))


def test_registers_are_those_of_the_pes_structure(worker):
    """Flops of the netlist against the registers of `simulator.pe.bitmod`, and one row for every event."""
    for name in ("bitmod_encoder-l4", "bitmod_dequantizer-scale8-fp32", "bitmod-l2-guard3-fp16"):
        unit = unit_of_name(name)
        (component,) = unit.components()
        figures = worker.figures(unit)
        bits = sum(
            part.count * part.params["bits"]
            for part in component.parts
            if part.kind == "register" and part.count
        )
        assert figures.flops == bits
        events = {row["event"] for row in worker.rows(unit, figures)} - {""}
        assert events == set(component.events)
        gaussian = [energy for stimulus, energy in figures.energy.items() if stimulus.startswith("gaussian")]
        zero = next(energy for stimulus, energy in figures.energy.items() if stimulus.startswith("zero"))
        assert min(energy.total_fj for energy in gaussian) > zero.total_fj


def test_a_table_of_the_units_prices_them_whole(worker, tmp_path):
    unit = unit_of_name("bitmod_dequantizer-scale8-fp32")
    table = tmp_path / "units.csv"
    table.write_text(table_text(worker.rows(unit, worker.figures(unit))))
    (component,) = unit.components()
    assert load_technology(table).price(component).quality == "synthesised"


@pytest.mark.slow
def test_area_grows_with_lanes_and_guard_bits(worker):
    areas = {
        name: worker.figures(unit_of_name(name)).area_um2
        for name in (
            "bitmod-l2-guard3-fp16",
            "bitmod-l4-guard3-fp16",
            "bitmod-l2-guard6-fp16",
            "bitmod-l2-guard3-fp32",
        )
    }
    least = areas.pop("bitmod-l2-guard3-fp16")
    assert all(area > least for area in areas.values())
