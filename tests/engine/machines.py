"""Random accelerators, GEMMs and operands for the engine tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import toy_pes  # noqa: F401 - announces its families
from hypothesis import strategies as st

from simulator.arch import Accelerator, load_accelerator
from simulator.engine.outputs import Operands, operands_of
from simulator.errors import InputError
from simulator.formats import get_format, quantize
from simulator.mapping import Plan, plan_gemm
from simulator.workload import gemm_workload

INTEGER_PAIRS = [
    ("int8", "int8"),
    ("int4", "int8"),
    ("int4_g8", "int8"),
    ("int4_g4", "int8_g8"),
    ("int8_channel", "int8_token"),
    ("int4_g8_asym", "int8_token"),
    ("int8_channel_asym", "int8_asym"),
    ("int3_g5", "int6_g5_asym"),
    ("mxint8", "mxint8"),
    ("nvint4", "nvint4"),
    ("int16", "int16"),
]
FLOAT_PAIRS = [
    ("fp8_e4m3", "fp8_e4m3"),
    ("mxfp4", "mxfp8_e4m3"),
    ("mxfp6_e2m3", "mxfp8_e5m2"),
    ("nvfp4", "nvfp4"),
    ("fp16", "fp16"),
    ("bf16", "bf16"),
    ("fp6_e3m2_channel", "fp8_e5m2_token"),
    ("int4_g8", "fp16"),
    ("int8_channel", "fp8_e4m3_token"),
    ("e3m4_g8", "e2m1_g8"),
    ("int4_g8_asym", "fp16"),
    ("int4_channel_asym", "fp8_e4m3_token"),
    ("fp16", "int8_token_asym"),
]


def description(**changes: Any) -> dict[str, Any]:
    """A small accelerator as a mapping; ``changes`` are sections to merge in."""
    data: dict[str, Any] = {
        "name": "small",
        "clock_ghz": 1.0,
        "array": {"dataflow": "os", "rows": 4, "cols": 3},
        "pe": {"family": "mac", "weights": ["int8"], "activations": ["int8"]},
        "buffers": {
            "weights": {"kib": 1, "banks": 2, "width_bits": 64},
            "activations": {"kib": 1, "banks": 2, "width_bits": 64},
            "outputs": {"kib": 1, "banks": 2, "width_bits": 128, "ports": "1r1w"},
        },
        "vector": {"lanes": 4},
        "dram": {"bandwidth_gb_per_s": 8.0, "latency_ns": 5},
    }
    for section, values in changes.items():
        data[section] = {**data.get(section, {}), **values}
    return data


@st.composite
def buffers(draw: st.DrawFn, *, widths: list[int]) -> dict[str, Any]:
    buffering = draw(st.sampled_from([1, 2]))
    return {
        "kib": draw(st.sampled_from([0.25, 0.5, 1, 4])),
        "banks": buffering * draw(st.sampled_from([1, 1, 2])),
        "width_bits": draw(st.sampled_from(widths)),
        "ports": draw(st.sampled_from(["1rw", "1r1w"])),
        "buffering": buffering,
    }


@st.composite
def accelerators(
    draw: st.DrawFn, pairs: list[tuple[str, str]], family: str = "mac", inside: bool | None = None
) -> tuple[dict[str, Any], tuple[str, str]]:
    """An accelerator's mapping, and formats (weights, activations) that it takes. ``family``: mac, or one of
    `toy_pes`."""
    weights, activations = draw(st.sampled_from(pairs))
    elements = [get_format(weights).element, get_format(activations).element]
    integers = all(element.is_integer for element in elements)
    inside = family == "toy" and (draw(st.booleans()) if inside is None else inside)
    flows = ["os", "broadcast"] if inside else ["os", "ws", "is", "broadcast"]
    dataflow = "broadcast" if family == "data_toy" else draw(st.sampled_from(flows))
    array = {
        "dataflow": dataflow,
        "rows": draw(st.integers(1, 5)),
        "cols": draw(st.integers(1, 5)),
        "edge_folds": draw(st.sampled_from(["exact", "full"])),
        "fold_overlap": draw(st.booleans()),
        "rescale_per_cycle": draw(st.sampled_from([1, 0.5, 0.3])),
        "clock_gating": draw(st.booleans()),
    }
    if dataflow in ("os", "broadcast"):
        array["os_drain"] = draw(st.sampled_from(["bus", "shift"]))
        array["rows_hold"] = draw(st.sampled_from(["m", "n"]))
    pe = {
        "family": family,
        "weights": [elements[0].name],
        "activations": [elements[1].name],
        "accumulator": draw(st.sampled_from(["int32", "int20", "int64", "fp32"] if integers else ["fp32"])),
        "lanes": draw(st.integers(1, 3)),
        "pipeline_depth": draw(st.integers(1, 4)),
        "adder_tree_stages": draw(st.integers(0, 2)),
        "initiation_interval": draw(st.integers(1, 3)),
    }
    if family != "mac":
        pe |= {
            "inside": inside,
            "group_cycles": draw(st.integers(0, 12)) if inside else 0,
            "weight_decode": draw(st.sampled_from([1, 1, 4])),
            "activation_decode": draw(st.sampled_from([1, 1, 3])),
            "passes": draw(st.sampled_from([0, 2])),
        }
    if family == "data_toy":
        pe |= {"by_weights": draw(st.booleans()), "by_activations": draw(st.booleans())}
        pe |= {"group_cycles": 0, "inside": False}
    mapping: dict[str, Any] = {}
    if draw(st.booleans()):
        mapping["order"] = draw(st.sampled_from(["nmk", "mnk", "nkm", "mkn", "knm", "kmn"]))
    for axis in ("m", "n"):
        if draw(st.booleans()):
            whole = array["rows" if array.get("rows_hold", "m") == axis else "cols"]
            mapping[f"tile_{axis}"] = draw(st.integers(1, 6)) * (whole if family == "data_toy" else 1)
    if draw(st.booleans()):
        tile_k = draw(st.sampled_from([8, 16, 32, 40]))
        mapping["tile_k"] = tile_k * (pe["lanes"] if family == "data_toy" else 1)
    data = description(
        array=array,
        pe=pe,
        buffers={
            "weights": draw(buffers(widths=[8, 24, 64])),
            "activations": draw(buffers(widths=[8, 24, 64])),
            "outputs": draw(buffers(widths=[32, 128])),
        },
        vector={"lanes": draw(st.integers(1, 8))},
        dram={
            "bandwidth_gb_per_s": draw(st.sampled_from([0.7, 3.0, 64.0])),
            "latency_ns": draw(st.integers(0, 20)),
        },
        mapping=mapping,
    )
    return data, (weights, activations)


@st.composite
def plans(draw: st.DrawFn, pairs: list[tuple[str, str]], *, most: int = 14, family: str = "mac") -> Plan:
    """A small GEMM mapped to a random accelerator; tilings that do not fit are drawn again."""
    return draw(mapped(pairs, most=most, family=family))[0]


@st.composite
def mapped(
    draw: st.DrawFn,
    pairs: list[tuple[str, str]],
    *,
    most: int = 14,
    family: str = "mac",
    inside: bool | None = None,
) -> tuple[Plan, Accelerator]:
    """A plan and the accelerator it is for."""
    data, (weights, activations) = draw(accelerators(pairs, family, inside))
    m, n = draw(st.integers(1, most)), draw(st.integers(1, most))
    k = draw(st.integers(1, 3 * most))
    batch = draw(st.sampled_from([1, 1, 2]))
    workload = gemm_workload(m, k, n, weights=weights, activations=activations, batch=batch)
    try:
        accelerator = load_accelerator(data)
        return plan_gemm(workload.gemms[0], accelerator), accelerator
    except InputError as refusal:
        from hypothesis import assume

        assume("does not fit" not in str(refusal) and "cuts a scale group" not in str(refusal))
        raise


def operands_for(plan: Plan, data: dict[str, Any], seed: int) -> tuple[Operands, Any, Any]:
    """Random operands of a plan, and the two quantized tensors they are from."""
    random = np.random.default_rng(seed)
    rows = plan.batch // plan.weight_reuse * plan.n
    weights = quantize(random.normal(size=(rows, plan.k)).astype(np.float32), plan.weights)
    activations = quantize(
        random.laplace(size=(plan.batch * plan.m, plan.k)).astype(np.float32), plan.activations
    )
    operands = operands_of(plan, load_accelerator(data).element, weights, activations)
    return operands, weights, activations
