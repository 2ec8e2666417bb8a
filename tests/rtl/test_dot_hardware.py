"""Dot products in an array of one PE: hardware, the PE's function and both engines, cycle by cycle at its edges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth")

from array_schedule import Leaving, schedule
from engine_edges import observe
from hardware_runs import ADDERS, in_amaranth
from machines import description

from simulator.arch import load_accelerator
from simulator.engine import fast
from simulator.engine.outputs import operands_of
from simulator.formats import QuantizedTensor, get_format, quantize
from simulator.formats.element import encode
from simulator.hardware import load_technology
from simulator.hardware.table import table_text
from simulator.mapping import plan_gemm
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.units import unit_of_name
from simulator.rtl.units.dot import DotUnit
from simulator.rtl.units.dot_operands import Operands
from simulator.workload import gemm_workload

pytestmark = pytest.mark.rtl

PORT_CYCLES = 2
"""From a cycle of the engines, in which a result leaves a register, to the cycle in which it is seen at the port."""

CASES = {
    "dot2-int8+int4-int32-cut2": (("int4", "int8"), (3, 7, 2)),
    "dot2-fp8_e4m3+fp8_e5m2-fix-fp32-cut2": (("fp8_e5m2", "fp8_e4m3"), (3, 6, 2)),
    "dot4-fp8_e4m3+fp8_e5m2+int8-al22-e8m0-fp32-cut4": (("mxfp8_e5m2", "mxfp8_e4m3"), (1, 64, 2)),
    "dot8-fp8_e4m3+fp4_e2m1+int8-al22-e8m0-fp32-cut5": (("mxint8", "mxint8"), (2, 64, 1)),
    "dot4-fp4_e2m1+int4-fix-fp8_e4m3-fp32-cut4": (("nvfp4", "nvint4"), (2, 32, 2)),
    "dot4-s7+s3-e8-fp32-cut3": (("msfp12", "msfp16"), (2, 32, 2)),
    "dot4-int8+int4-uint4+uint6to6-int32-cut2": (("int4_g16_su4", "int8_g16_su6"), (2, 32, 2)),
    "dot2-fp8_e4m3-al13acc-e8m13trunc-cut2": (("fp8_e4m3", "fp8_e4m3"), (3, 20, 2)),
    "dot2-fp8_e4m3-al13acc-fp16-e8m13trunc-every4-cut5-double": (
        ("fp8_e4m3_g12", "fp8_e4m3_g12"),
        (2, 48, 2),
    ),
    "dot2-fp8_e4m3-fix-bf16-every3-cut4-double": (("fp8_e4m3", "fp8_e4m3"), (2, 20, 2)),
}


def machine(unit: DotUnit) -> Any:
    """An array of one PE that is this unit, with buffers that always keep up."""
    buffer = {"kib": 4096, "banks": 2, "width_bits": 65536, "ports": "1r1w"}
    array = {
        "dataflow": "broadcast",
        "rows": 1,
        "cols": 1,
        "fold_overlap": unit.doubled,
        "rescale_per_cycle": 0,
    }
    buffers = {"weights": buffer, "activations": buffer, "outputs": buffer}
    data = description(array=array, buffers=buffers, mapping={"tile_m": 64, "tile_k": 64, "tile_n": 64})
    pe = unit.pe.model_dump(exclude_none=True)
    data["pe"] = {key: list(value) if isinstance(value, tuple) else value for key, value in pe.items()}
    return load_accelerator(data)


@pytest.mark.parametrize(
    "name",
    [
        "dot2-fp4_e2m1+int4-fix-fp8_e4m3-fp16-cut1-double",
        pytest.param("dot2-int4+int3-uint4+uint6to6-int16-cut2-double", marks=pytest.mark.slow),
        pytest.param("dot2-fp4_e2m1-al5acc-fp8_e4m3-e5m4trunc-every4-cut4-double", marks=pytest.mark.slow),
    ],
)
def test_a_table_of_the_unit_prices_the_pe_whole(name: str, tmp_path: Path, toy_file: Path) -> None:
    """Every event of every pair of formats, in blocks and without, has a row of its own."""
    unit = unit_of_name(name)
    worker = Characteriser(Settings((str(toy_file),)))
    table = tmp_path / "toy.csv"
    table.write_text(table_text(worker.rows(unit, worker.figures(unit))))
    technology = load_technology({"base": "published_45nm", "tables": [str(table)]})
    (component,) = unit.components()
    priced = technology.price(component)
    assert priced.quality == "synthesised"
    assert set(priced.energy_pj) == set(component.events)
    assert priced.energy_pj["idle"] < min(
        energy for event, energy in priced.energy_pj.items() if event.startswith("step")
    )


def in_lanes(values: np.ndarray, lanes: int) -> np.ndarray:
    """(rows, k) -> (rows, steps, lanes), filled up with zeros."""
    steps = -(-values.shape[1] // lanes)
    padded = np.zeros((len(values), steps * lanes), np.int64)
    padded[:, : values.shape[1]] = values
    return padded.reshape(len(values), steps, lanes)


def scale_codes(tensor: QuantizedTensor, lanes: int) -> np.ndarray | None:
    """(rows, steps) codes of the scales of each step's block."""
    if not tensor.format.group_size:
        return None
    codes = encode(tensor.format.scale_element, tensor.scales).astype(np.int64)
    return np.repeat(codes, tensor.format.group_size // lanes, axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_a_pe_gives_what_the_engines_say_when_they_say(name: str) -> None:
    unit = unit_of_name(name)
    formats, (m, k, n) = CASES[name]
    weight_format, activation_format = map(get_format, formats)
    accelerator = machine(unit)
    workload = gemm_workload(m, k, n, weights=formats[0], activations=formats[1])
    plan = plan_gemm(workload.gemms[0], accelerator)
    assert plan.counts == (1, 1, 1)
    random = np.random.default_rng(11)
    weights, activations = (
        quantize((8 * random.normal(size=(rows, k))).astype(np.float32), format)
        for rows, format in ((n, weight_format), (m, activation_format))
    )
    seen, record, _ = observe(plan, operands_of(plan, accelerator.element, weights, activations))
    assert fast.simulate_gemm(plan, "x", "gemm").compute_cycles == record.compute_cycles
    assert seen.leavings[-1].cycle + 1 == record.compute_cycles

    codes = in_lanes(activations.codes, unit.lanes), in_lanes(weights.codes, unit.lanes)
    scales = scale_codes(activations, unit.lanes), scale_codes(weights, unit.lanes)
    # Behind the last word a new sum begins, as it does behind every other.
    cycles = seen.leavings[-1].cycle + unit.latency + PORT_CYCLES + 2
    sides = [np.zeros((cycles, unit.lanes), np.int64) for _ in range(2)]
    of_scales = [np.zeros(cycles, np.int64) for _ in range(2)]
    first, ends = np.zeros(cycles, bool), np.zeros(cycles, bool)
    timed = schedule(plan)
    for cycle, fold, step in seen.words:
        place = timed[fold].fold
        rows = place.rows.start, place.cols.start
        if accelerator.array.flow.row_operand == "weights":
            rows = rows[::-1]
        for side in range(2):
            sides[side][cycle] = codes[side][rows[side], step]
            held = scales[side]
            if held is not None and unit.scale:
                of_scales[side][cycle] = held[rows[side], step]
        first[cycle] = step == 0
        ends[cycle] = (step + 1) * unit.lanes in plan.edges
    last = max(cycle for cycle, _, _ in seen.words)
    first[last + 1] = True
    pair = next(
        pair
        for pair in unit.pairs
        if tuple(format.element.name for format in pair)
        == (weight_format.element.name, activation_format.element.name)
    )
    stream = Operands(
        *sides,
        first,
        *(of_scales if unit.scale else (None, None)),
        ends=ends if unit.ends_groups else None,
    )
    ports = stream.ports(unit, pair)
    outputs = in_amaranth(unit, ports, ADDERS[len(name) % 3])
    # Of two accumulators the second shows the sum, a cycle later than the first, or ends a second level.
    late = PORT_CYCLES + (unit.doubled and not unit.promote_every)
    found = [Leaving(one.cycle, 0, outputs[one.cycle + late - unit.latency]) for one in seen.leavings]
    assert found == seen.leavings
