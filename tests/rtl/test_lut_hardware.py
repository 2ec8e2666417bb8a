"""LUT Tensor Core as hardware: against the PE's function, against both engines, and as rows of a cost table."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth")
pytest.importorskip("pyosys")

from array_schedule import PORT_CYCLES, Timed, interval, schedule
from engine_edges import Leaving, observe
from hardware_runs import ADDERS, in_amaranth

from simulator.arch import load_accelerator
from simulator.arch.components import components
from simulator.engine import fast
from simulator.engine.outputs import Operands, operands_of
from simulator.errors import InputError
from simulator.formats import get_format, quantize
from simulator.hardware import load_technology
from simulator.hardware.table import table_text
from simulator.mapping import Plan, plan_gemm
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.unit import Unit
from simulator.rtl.units import default_units, unit_of_name
from simulator.rtl.units.dot_function import sums_of_codes
from simulator.rtl.units.lut import WORDS, LutKeysUnit, LutTableUnit, LutUnit
from simulator.rtl.units.lut_hardware import ArrayModule
from simulator.rtl.units.lut_operands import Steps, pe_inputs
from simulator.workload import gemm_workload

pytestmark = pytest.mark.rtl

UNITS = {
    "lut-binaryxint8-l4-mu4-int32": 80,
    "lut-binaryxint8-l4-mu4-int24-stages2-double": 80,
    "lut-binary+int2+int3+int4+int8xint8-l4-mu4-int32-double": 60,
    "lut-int2+int4xint8-l4-mu4-int32-stages3-double": 60,
    "lut-int3xint8+uint8-l6-mu3-int16": 60,
    "lut-int2xint4-l3-mu1-int12": 60,
    "lut-int2+uint4xint8-l8-mu4-plain-int32": 60,
    "lut-int4xint8-l4-mu4-plain-int20-stages2": 60,
    "lut-int2xint8-l4-mu4-fp32-stages4": 30,
    "lut-binaryxfp8_e4m3+fp16-l4-mu4-int8tables-fp32-stages3": 10,
    "lut-int2xfp16-l4-mu4-int8tables-fp32-stages4-double": 40,
    "lut-int2xfp8_e5m2-l8-mu4-int8tables-fp32-stages5": 20,
    "lut-int4xfp16-l4-mu4-plain-int8tables-fp32-stages4": 20,
    "lut-binaryxfp16-l4-mu4-fp16tables-fp32-stages2": 30,
    "lut-int4xfp16-l4-mu4-fp16tables-fp32-double": 60,
    "lut-int3xfp8_e4m3-l4-mu4-plain-fp32tables-fp32-stages3": 20,
    "lut-int2xfp8_e4m3-l4-mu4-fp16tables-fp16-stages2": 30,
}
"""Units, and cycles that are simulated."""
REGISTERS = [
    "lut_table-binary+int4xint8-l8-mu4",
    "lut_table-int2xfp16+fp8_e4m3-l4-mu4-int8tables",
    "lut_table-int2xfp16-l4-mu4-plain-fp32tables",
    "lut_keys-binary+int2+int3+int4+int8-l4",
    "lut_keys-int2+int4-l8-lowest",
]


@pytest.mark.parametrize("name", [*UNITS, *REGISTERS])
def test_hardware_equals_the_function_at_corners_and_on_gaussian_operands(name: str) -> None:
    unit = unit_of_name(name)
    adder = ADDERS[list(UNITS).index(name) % 3] if name in UNITS else None
    for proof in unit.proofs:
        stream = unit.stream(proof, UNITS.get(name, 40), seed=3)
        expected = list(stream.expected())
        assert len(set(expected)) > 1 or proof.startswith("gaussian")
        assert in_amaranth(unit, stream.ports, adder) == expected


@pytest.mark.parametrize(
    "name",
    [
        "lut-int2+int4xint8-l4-mu4-int32-stages3-double",
        "lut-binaryxint8-l4-mu4-int24-stages2-double",
        "lut-int3xint8+uint8-l6-mu3-int16",
        "lut-int2xint8-l4-mu4-fp32-stages4",
        "lut-int2xfp8_e5m2-l8-mu4-int8tables-fp32-stages5",
        "lut-int2xfp8_e4m3-l4-mu4-fp16tables-fp16-stages2",
    ],
)
def test_hardware_for_a_tight_clock_is_the_same(name: str) -> None:
    unit = unit_of_name(name)
    for proof in unit.proofs:
        stream = unit.stream(proof, UNITS[name], seed=4)
        assert in_amaranth(unit, stream.ports, fast=True) == list(stream.expected())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in UNITS if "double" not in name])
def test_hardware_equals_the_function_over_many_steps(name: str) -> None:
    unit = unit_of_name(name)
    for seed in range(3):
        for proof in unit.proofs:
            stream = unit.stream(proof, 150, seed)
            assert in_amaranth(unit, stream.ports) == list(stream.expected())


# Names


@pytest.mark.parametrize(
    "unit", [unit for unit in default_units() if unit.name.split("-")[0] in WORDS], ids=lambda unit: unit.name
)
def test_names_say_everything_and_components_have_every_event(unit: Unit) -> None:
    assert unit_of_name(unit.name) == unit
    (component,) = unit.components()
    specification = unit.specification()
    assert specification["name"] == unit.name
    assert specification["latency_cycles"] == unit.latency
    assert component.events


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lut-int2xint8", "not the name of a unit"),
        ("lut-int2xint8-l6-mu4-int32", "whole number of tables"),
        ("lut-int2xint8-l4-mu4-int8tables-int32", "what tables of these activations hold"),
        ("lut-int2xfp16-l4-mu4-int32", "need an fp32 or fp16 accumulator"),
        ("lut-int2xfp16-l8-mu4-fp16tables-fp32", "tree of floats"),
        ("lut-int2xbf16-l4-mu4-int8tables-fp32", "subnormal"),
        ("lut-int2xint8-l4-mu4-int32-stages4", "more stages"),
        ("lut-binaryxint8-l4-mu4-plain-int32", "without reinterpretation"),
        ("lut_keys-int2xint8-l4", "not the name of a unit"),
        ("lut_table-int2xint8-l4-mu4-int32", "not the name of a unit"),
        ("lut-fp8_e4m3xint8-l4-mu4-int32", "no integers"),
    ],
)
def test_names_of_no_unit_are_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


# An array of it, and both engines


def machine(rows: int, cols: int, shape: tuple[int, int, int], *, overlap: bool, **pe: Any) -> Any:
    """LUT Tensor Core's PEs in a small array whose buffers always keep up."""
    wide = {"kib": 4096, "width_bits": 65536, "ports": "1r1w"}
    changes: dict[str, Any] = {
        f"buffers.{name}.{key}": value
        for name in ("weights", "activations", "outputs")
        for key, value in wide.items()
    }
    changes |= {f"mapping.tile_{axis}": size for axis, size in zip("mkn", shape, strict=True)}
    changes |= {"array.rows": rows, "array.cols": cols, "array.fold_overlap": overlap}
    name = "lut_tensor_core" if pe.get("activations", ["int8"]) == ["int8"] else "lut_tensor_core_fp16"
    return load_accelerator(name, changes | {f"pe.{key}": value for key, value in pe.items()})


def planned(accelerator: Any, shape: tuple[int, int, int], formats: tuple[str, str]) -> tuple[Plan, Operands]:
    m, k, n = shape
    workload = gemm_workload(m, k, n, weights=formats[0], activations=formats[1])
    plan = plan_gemm(workload.gemms[0], accelerator)
    assert plan.counts == (1, 1, 1)
    random = np.random.default_rng(7)
    tensors = [
        quantize(random.normal(size=size).astype(np.float32), format)
        for size, format in (((n, k), plan.weights), ((m, k), plan.activations))
    ]
    return plan, operands_of(plan, accelerator.element, *tensors)


def steps_of(pe: Any, pair: Any, words: Any, planes: int) -> Steps:
    """Words (steps, lanes) of a row of activations, or of a column of weights, as steps without cycles between."""
    order = np.tile(np.arange(planes), len(words))
    step = np.repeat(np.arange(len(words)), planes)
    new = np.arange(len(words)) == 0
    return Steps(pe, pair, words, np.ones_like(words), step, order, new)


def split(words: Any, lanes: int) -> Any:
    """(rows, k) as (rows, steps, lanes); lanes that a short last step leaves empty hold zero."""
    steps = -(-words.shape[1] // lanes)
    padded = np.zeros((len(words), steps * lanes), np.int64)
    padded[:, : words.shape[1]] = words
    return padded.reshape(len(words), steps, lanes)


def array_ports(
    module: ArrayModule, plan: Plan, operands: Operands, pe: Any, timed: list[Timed], cycles: int
) -> dict[str, Any]:
    """The array's input ports in every cycle, by the schedule; what nobody drives is zero."""
    pair = (plan.weights, plan.activations)
    weights, activations = (
        side.integers[0].astype(np.int64) for side in (operands.weights, operands.activations)
    )
    flags = [name for name in pe_inputs(pe) if name not in ("entries", "scale", "keys")]
    words: dict[str, list[int]] = {
        name: [0] * cycles for name in module.port if name in ("load", *flags) or name.endswith("_in")
    }
    for t in timed:
        fold = t.fold
        here = slice(fold.low, fold.low + fold.chunk.size)
        rows = split(activations[fold.rows, here], pe.lanes)
        cols = split(weights[fold.cols, here], pe.lanes)
        planes = pe.planes(plan.weights.element)
        for number, row in enumerate(rows):
            for name, (numbers, bits) in steps_of(pe, pair, row, planes).tables().items():
                packed = numbers.reshape(len(row), -1)
                width = packed.shape[1] * bits
                for step in range(fold.steps):
                    word = pack(packed[step], bits) << (number * width)
                    words[f"{name}_in"][t.start + step * planes] |= word
        for number, col in enumerate(cols):
            steps = replace(steps_of(pe, pair, np.zeros_like(col), planes), weights=col)
            loaded = steps.keys_ports()["keys_in"]
            width = loaded.shape[1]
            for step in range(fold.steps):
                word = pack(loaded[step * planes], 1) << (number * width)
                words["keys_in"][t.start + step * planes] |= word
        timeline = steps_of(pe, pair, rows[0], planes)
        for place in range(fold.steps * planes):
            words["load"][t.start + place] = int(timeline.begins[place])
            for name, flag in timeline.flags().items():
                words[name][t.start + place] = int(flag[place])
    return {
        name: np.array(
            [[word >> bit & 1 for bit in range(len(module.port[name]))] for word in found], np.uint8
        )
        for name, found in words.items()
    }


def pack(words: Any, bits: int) -> int:
    return sum((int(word) & ((1 << bits) - 1)) << (place * bits) for place, word in enumerate(words))


def array_outputs(module: ArrayModule, ports: dict[str, Any]) -> list[tuple[int, int]]:
    """(accumulators, finished sums) in every cycle."""
    unit = SimpleNamespace(
        module=lambda adder, fast: module,
        read=lambda seen: list(zip(seen["sums"], seen["out"], strict=True)),
        latency=0,
    )
    return in_amaranth(unit, ports)


CASES = {
    "W1": (2, 3, (4, 13, 5), ("binary_channel", "int8_token"), {"pipeline_stages": 3}, True),
    "W2": (2, 3, (4, 13, 5), ("int2_channel_asym", "int8_token"), {"pipeline_stages": 3}, True),
    "W3": (1, 1, (3, 9, 2), ("int3_channel", "int8_token"), {"pipeline_stages": 1}, True),
    "W4": (3, 2, (5, 11, 3), ("int4_channel_asym", "int8_token"), {"pipeline_stages": 2}, False),
    "W8": (1, 2, (2, 8, 3), ("int8_channel", "int8_token"), {"pipeline_stages": 1}, False),
    "groups": (2, 2, (3, 16, 3), ("int2_g8_asym", "int8_token"), {"pipeline_stages": 3}, True),
    "two tables": (
        2,
        2,
        (3, 20, 3),
        ("int2_channel", "int8_token"),
        {"pipeline_stages": 2, "lanes": 8},
        True,
    ),
    "plain keys": (2, 2, (3, 20, 3), ("int3_channel", "int8_token"), {"reinterpret": False}, True),
    "INT8 tables": (
        1,
        2,
        (2, 7, 3),
        ("int4_channel_asym", "fp16"),
        {"activations": ["fp16"], "pipeline_stages": 4},
        True,
    ),
    "FP16 tables": (
        1,
        2,
        (2, 7, 3),
        ("int2_channel", "fp16"),
        {"activations": ["fp16"], "pipeline_stages": 2, "table_quantization": "none"},
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_array_gives_what_the_engines_say_when_they_say(case: str) -> None:
    """Every result of every fold, in the cycle in which the reference engine sees it leave; and all cycles of both."""
    rows, cols, shape, formats, pe_changes, overlap = CASES[case]
    weights = [get_format(formats[0]).element.name]
    weights += ["int4"] if weights[0] != "int4" and "reinterpret" not in pe_changes else []
    if pe_changes.get("table_quantization") == "none":
        weights = weights[:1]
    accelerator = machine(rows, cols, shape, overlap=overlap, **{"weights": weights, **pe_changes})
    pe = accelerator.element
    plan, operands = planned(accelerator, shape, formats)
    timed = schedule(plan)
    seen, record, _ = observe(plan, operands)
    cycles = seen.leavings[-1].cycle + 1
    assert record.compute_cycles == fast.simulate_gemm(plan, "x", "gemm").compute_cycles == cycles

    module = ArrayModule(pe, rows, cols, overlap)
    outputs = array_outputs(module, array_ports(module, plan, operands, pe, timed, cycles + PORT_CYCLES))
    found = []
    for number, t in enumerate(timed):
        planes = plan.array.initiation_interval
        done = t.start + t.fold.steps * planes - 1 + plan.array.latency - 1
        later = timed[number + 1].start if number + 1 < len(timed) else cycles
        # The first step of the next sum, or, of floats, its first plane, moves a sum into the second register.
        taken = 1 if pe.stored == pe.float_tables else planes
        moves = later + taken - 1 + plan.array.latency - 1 + PORT_CYCLES
        drain = plan.demand.rescale_interval if t.fold.chunk.rescaled else 1
        assert interval(plan, t.fold) == planes
        for i in range(t.fold.r):
            cycle = done + i * drain
            shown = outputs[cycle + PORT_CYCLES]
            word = shown[1] if cycle + PORT_CYCLES >= moves else shown[0]
            for j in range(t.fold.c):
                code = word >> ((i * cols + j) * pe.accumulator_bits) & ((1 << pe.accumulator_bits) - 1)
                (value,) = sums_of_codes(pe.sums, [code])
                found.append(Leaving(cycle, j, value))
    assert sorted(found) == seen.leavings


# Synthesis


@pytest.fixture(scope="module")
def worker(toy_file: Any) -> Characteriser:
    return Characteriser(Settings((str(toy_file),)))


@pytest.mark.parametrize(
    "name",
    [
        "lut-binaryxint8-l4-mu4-int32",
        "lut-binaryxint8-l4-mu4-int32-stages2",
        "lut-int4xint8-l4-mu4-int32-stages2-double",
        "lut-int2xint8-l8-mu4-int32-stages3",
        "lut-int2xint8-l8-mu4-plain-int32-stages3",
        "lut-int2xfp16-l4-mu4-int8tables-fp32-stages5",
        "lut-binaryxfp16-l4-mu4-int8tables-fp32-stages3",
        "lut-int4xfp16-l4-mu4-fp16tables-fp16-stages3-double",
        "lut_table-int4xint8-l4-mu4",
        "lut_table-int4xfp16-l4-mu4-int8tables",
        "lut_keys-binary+int4-l4",
    ],
)
def test_flops_are_the_registers_of_the_pes_structure(worker: Characteriser, name: str) -> None:
    """And the gates give what the function says: figures are taken of proven gates only."""
    unit = unit_of_name(name)
    (component,) = unit.components()
    registers = [part for part in component.parts if part.kind == "register"]
    unit_without_energy = replace_stimuli(unit)
    figures = worker.figures(unit_without_energy)
    assert figures.flops == sum(part.count * int(part.params["bits"]) for part in registers)


def replace_stimuli(unit: Any) -> Any:
    """The unit without streams that energy is measured on."""

    class Bare(type(unit)):  # type: ignore[misc]
        stimuli = ()

    return Bare(**{field.name: getattr(unit, field.name) for field in fields(unit)})


def test_area_grows_with_weights_activations_and_sums(worker: Characteriser) -> None:
    def area(name: str) -> float:
        return worker.figures(replace_stimuli(unit_of_name(name))).area_um2

    small = area("lut-int2xint4-l4-mu4-int16")
    assert area("lut-binaryxint4-l4-mu4-int16") < small
    assert small < area("lut-int4xint4-l4-mu4-int16")
    assert small < area("lut-int2xint8-l4-mu4-int16")
    assert small < area("lut-int2xint4-l4-mu4-int24")
    assert small < area("lut-int2xint4-l4-mu4-plain-int16")
    assert area("lut_table-int2xint4-l4-mu4") < area("lut_table-int2xint4-l4-mu4-plain")


def test_tables_of_zeros_cost_less_than_others_and_rest_least(worker: Characteriser) -> None:
    unit = unit_of_name("lut-int2xint8-l4-mu4-int32")
    energy = worker.figures(unit).energy
    rest, zero, gaussian = (energy[f"{kind} int2 x int8"].total_fj for kind in ("rest", "zero", "gaussian"))
    assert 0 < rest < zero < gaussian
    assert unit.event_energy("idle", energy)[0] == energy["rest int2 x int8"].clock_fj == rest
    assert energy["uniform int2 x int8"].total_fj > zero


def test_a_table_of_its_units_prices_a_whole_accelerator(worker: Characteriser, tmp_path: Any) -> None:
    """PE, tables and keys of LUT Tensor Core from synthesised rows, at every event that its runs may count."""
    accelerator = load_accelerator("lut_tensor_core", {"pe.weights": ["binary", "int2"], "array.cols": 128})
    pe = accelerator.element
    made = {
        LutUnit: f"lut-binary+int2xint8-l4-mu4-int32-stages{pe.pipeline_stages}-double".replace(
            "-stages1", ""
        ),
        LutTableUnit: "lut_table-binary+int2xint8-l4-mu4",
        LutKeysUnit: "lut_keys-binary+int2-l4",
    }
    rows = []
    for family, name in made.items():
        unit = unit_of_name(name)
        assert isinstance(unit, family)
        rows += list(worker.rows(unit, worker.figures(unit)))
    table = tmp_path / "lut.csv"
    table.write_text(table_text({**row, "node_nm": "45"} for row in rows))
    technology = load_technology({"base": "published_45nm", "tables": [str(table)]})
    pairs = [(get_format(weight), get_format("int8")) for weight in pe.weights]
    found = {component.name: component for component in components(accelerator, pairs)}
    for name in ("pe", "table", "keys"):
        priced = technology.price(found[name])
        assert priced.quality == "synthesised"
        assert priced.energy_pj.keys() == found[name].events.keys()
    one, all_copies = (
        technology.price(replace(found["table"], copies=copies)) for copies in (1, found["table"].copies)
    )
    assert found["table"].copies == 2
    assert all_copies.energy_pj["load int2 x int8"] == 2 * one.energy_pj["load int2 x int8"]
    step = technology.price(found["pe"]).energy_pj
    assert step["idle"] < step["step binary x int8"] < step["step int2 x int8"]
