"""Random machines of every family whose time the formats decide: both engines give the same integers, and the reference
engine's registers the results of `gemm_values`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from machines import buffers, description, operands_for
from test_engines_agree import check_equal

from simulator.arch import load_accelerator
from simulator.engine import fast, reference
from simulator.engine.outputs import gemm_values
from simulator.errors import InputError
from simulator.formats import get_format
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

INTEGERS = ["int4", "int4_g8", "int4_g1", "int3_g7", "int4_g8_asym", "int2_g8_asym", "int8_channel"]
BYTES = ["int8", "int8_token", "int8_g8", "int4_g3"]
MAC: dict[str, list[Any]] = {"lanes": [1, 2, 3], "pipeline_depth": [1, 3], "initiation_interval": [1, 2]}
DECODER = {**MAC, "decode_cycles": [1, 3, 9]}
TABLES: dict[str, list[Any]] = {"table_inputs": [1, 2, 4], "tables": [1, 2], "columns_per_table": [1, 2, 64]}
FAMILIES: dict[str, tuple[list[str], list[str], dict[str, list[Any]], list[str]]] = {
    "bitmod": (
        ["bitmod_fp4_g8", "bitmod_fp3_g5", "bitmod_fp4_g1", "int6_g8_si8", "int8_channel", "int5"],
        ["fp16"],
        {
            "lanes": [1, 3, 4],
            "dequant_shared_by": [1, 3],
            "tile": [1, 4, 8],
            "guard_bits": [0, 3],
            "accumulator": ["fp32"],
        },
        ["os", "broadcast"],
    ),
    "block_dot": (
        ["mxint8", "mxint8_b3", "mxfp4_b8"],
        ["mxint8", "mxfp8_e4m3_b4"],
        {**MAC, "lanes": [2, 8], "lanes_per_alignment": [None, 1, 2], "scales": [["e8m0"]]},
        ["os", "broadcast"],
    ),
    "two_level": ([*INTEGERS, "qserve_uint4_g8"], BYTES, {**DECODER, "accumulator": ["int32", "int16"]}, []),
    "dequantize": ([*INTEGERS, "bitmod_fp3_g8", "nvfp4"], ["fp16"], {**DECODER, "accumulator": ["fp32"]}, []),
    "shift_cast": (
        ["fp4_e2m1_g8_sm1", "fp4_e2m1_g3_sm2", "fp6_e3m2_channel"],
        ["fp16"],
        {**DECODER, "target": ["fp16"], "accumulator": ["fp32"]},
        [],
    ),
    "figna": (INTEGERS, ["fp16"], {**DECODER, "align_group": [1, 3, 8, 64], "guard_bits": [0, 3]}, []),
    "mixpe": (INTEGERS, BYTES, {}, ["os", "broadcast"]),
    "ternary": (["ternary", "ternary_g4", "int2_g8"], BYTES, MAC, []),
    "lut": (
        INTEGERS,
        BYTES,
        {**TABLES, "precompute": ["fused", "unfused"], "pipeline_stages": [1, 2]},
        ["broadcast"],
    ),
    "figlut": (
        INTEGERS,
        ["fp16"],
        {**TABLES, "prealign": [True], "align_group": [1, 7, 64], "accumulator": ["int32"]},
        ["ws"],
    ),
    "bit_plane": (
        INTEGERS,
        BYTES,
        {
            "lanes": [2, 8],
            "plane_pairs": [1, 3],
            "encoding": ["twos_complement", "bipolar"],
            "pipeline_depth": [1, 2],
        },
        ["os", "broadcast"],
    ),
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_engines_agree_on_machines_of_a_family(family: str, data: st.DataObject) -> None:
    weights, activations, choices, flows = FAMILIES[family]
    w, a = (data.draw(st.sampled_from(names)) for names in (weights, activations))
    drawn = {key: data.draw(st.sampled_from(values)) for key, values in choices.items()}
    pe = {key: value for key, value in drawn.items() if value is not None}
    if "tables" in pe:
        pe["lanes"] = pe["table_inputs"] * pe.pop("tables")
    dataflow = data.draw(st.sampled_from(flows or ["os", "ws", "is", "broadcast"]))
    array: dict[str, Any] = {
        "dataflow": dataflow,
        "rows": data.draw(st.integers(1, 4)),
        "cols": data.draw(st.integers(1, 4)),
        "edge_folds": data.draw(st.sampled_from(["exact", "full"])),
        "fold_overlap": data.draw(st.booleans()),
        "rescale_per_cycle": data.draw(st.sampled_from([1, 0.5, 0.3])),
    }
    if dataflow in ("os", "broadcast"):
        array["os_drain"] = data.draw(st.sampled_from(["bus", "shift"]))
        array["rows_hold"] = data.draw(st.sampled_from(["m", "n"]))
    machine = description(
        array=array,
        pe={
            **pe,
            "family": family,
            "weights": [get_format(w).element.name],
            "activations": [get_format(a).element.name],
        },
        buffers={
            name: data.draw(buffers(widths=[32, 128])) for name in ("weights", "activations", "outputs")
        },
    )
    m, k, n = (data.draw(st.integers(1, most)) for most in (6, 24, 6))
    batch, heads = data.draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    try:
        accelerator = load_accelerator(machine)
        workload = gemm_workload(m, k, n, weights=w, activations=a, batch=batch)
        plan = plan_gemm(workload.gemms[0], accelerator)
    except InputError as refusal:
        assume("does not fit" not in str(refusal))
        raise
    plan = replace(plan, weight_reuse=heads)
    operands, _, _ = operands_for(plan, machine, seed=k)
    slow, results = reference.simulate_gemm(plan, "x", "gemm", operands, trace=True)
    quick = fast.simulate_gemm(plan, "x", "gemm", trace=True)
    check_equal(quick, slow)
    assert sum(quick.cycle_stack.values()) == quick.cycles
    assert results is not None
    assert (gemm_values(plan, operands) == results).all()
