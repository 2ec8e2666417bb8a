"""Accelerators of look-up tables and bit-planes, from YAML to results: both engines, every bit, every event."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
from pe_oracles import fp32, nearest_even

import simulator as sim
from simulator.arch import load_accelerator
from simulator.engine import fast, reference
from simulator.engine.outputs import operands_of
from simulator.formats import QuantizedTensor, dequantize, quantize
from simulator.mapping import Plan, plan_gemm
from simulator.workload import gemm_workload

FORMATS = {
    "lut_tensor_core": ("int2_g16_asym", "int8_token"),
    "lut_tensor_core_fp16": ("int4_channel_asym", "fp16"),
    "figlut": ("int3_channel_asym", "fp16"),
    "figlut_i": ("int4_g16", "fp16"),
    "t_mac": ("int4_g32_asym", "fp16"),
    "bismo": ("int4_channel_asym", "int3"),
    "abq_llm": ("int2_channel_asym", "int8_token"),
    "apt_llm": ("int3_channel", "int4_token_asym"),
    "flexq": ("int6_g16", "int6_token"),
}
"""Shipped accelerators, and formats that they are for."""
SMALLER = {
    "array.rows": 2,
    "array.cols": 3,
    "buffers.weights.kib": 2,
    "buffers.activations.kib": 2,
    "buffers.outputs.kib": 2,
}


def machine(name: str) -> Any:
    """A shipped accelerator with an array of 2 x 3 and small buffers, so that folds and tiles are many."""
    return load_accelerator(name, SMALLER)


def planned(name: str, m: int = 3, k: int = 50, n: int = 5) -> Plan:
    weights, activations = FORMATS[name]
    return plan_gemm(gemm_workload(m, k, n, weights=weights, activations=activations).gemms[0], machine(name))


def tensors(plan: Plan, seed: int = 0) -> tuple[QuantizedTensor, QuantizedTensor]:
    random = np.random.default_rng(seed)
    return (
        quantize(random.normal(size=(plan.n, plan.k)).astype(np.float32), plan.weights),
        quantize(random.laplace(size=(plan.m, plan.k)).astype(np.float32), plan.activations),
    )


def computed(name: str, plan: Plan, seed: int = 0) -> np.ndarray[Any, Any]:
    operands = operands_of(plan, machine(name).element, *tensors(plan, seed))
    record, results = reference.simulate_gemm(plan, "x", "gemm", operands)
    assert results is not None
    quick = fast.simulate_gemm(plan, "x", "gemm")
    assert (record.cycles, record.counts) == (quick.cycles, quick.counts)
    return results[0]


def values(tensor: QuantizedTensor) -> list[list[Fraction]]:
    return [[Fraction(float(x)) for x in row] for row in dequantize(tensor, np.float64)]


@pytest.mark.parametrize("name", FORMATS)
def test_engines_agree_and_results_are_the_products_up_to_the_tables(name: str) -> None:
    """Integers and integer groups are exact but for one FP32 rounding a group; tables of floats within their step."""
    plan = planned(name)
    results = computed(name, plan)
    weights, activations = tensors(plan)
    w, a = dequantize(weights, np.float64), dequantize(activations, np.float64)
    exact = a @ w.T
    loosest = {"lut_tensor_core_fp16": 2e-2, "t_mac": 2e-2, "figlut_i": 1e-3}
    bound = loosest.get(name, 1e-6) * (np.abs(a) @ np.abs(w).T)
    assert (np.abs(results - exact) <= bound).all()
    assert np.abs(results).max() > 0.5


def test_tables_quantized_to_int8_give_every_bit_of_the_result() -> None:
    """K in steps of four, a scale for each table, sums in FP32; then zero points, scales and one more rounding."""
    name = "lut_tensor_core_fp16"
    plan = planned(name, k=26, n=3)
    weights, activations = tensors(plan)
    results = computed(name, plan)
    a = values(activations)
    assert weights.scales is not None
    assert weights.zero_points is not None
    for i, j in np.ndindex(results.shape):
        total = Fraction(0)
        for low in range(0, plan.k, 4):
            row = (a[i][low : low + 4] + [Fraction(0)] * 4)[:4]
            codes = ([int(c) for c in weights.codes[j, low : low + 4]] + [0] * 4)[:4]
            largest = max(abs(signed(row, key)) for key in range(16))
            scale = fp32(largest / 127)
            whole = 0
            for plane in range(4):
                key = sum(2**lane * ((codes[lane] + 8) >> plane & 1) for lane in range(4))
                whole += 2**plane * (nearest_even(signed(row, key) / scale) if scale else 0)
            total = fp32(total + whole * scale)
        zero = 2 * int(weights.zero_points[j, 0]) + 1
        corrected = total - zero * sum(a[i], Fraction(0))
        expected = fp32(corrected * Fraction(float(weights.scales[j, 0])) / 2)
        assert Fraction(float(results[i, j])) == expected


def test_planes_of_figlut_give_every_bit_of_the_result() -> None:
    """Two rows of four activations a fold; a plane's sum is rounded in each row, planes are weighed below the last, and
    folds are added in the output buffer."""
    plan = planned("figlut", k=26, n=3)
    weights, activations = tensors(plan)
    results = computed("figlut", plan)
    a = values(activations)
    assert weights.scales is not None
    assert weights.zero_points is not None
    for i, j in np.ndindex(results.shape):
        held = None
        for fold in range(0, plan.k, 8):
            sums = [Fraction(0)] * 3
            for low in range(fold, min(fold + 8, plan.k), 4):
                row = (a[i][low : low + 4] + [Fraction(0)] * 4)[:4]
                codes = ([int(c) for c in weights.codes[j, low : low + 4]] + [0] * 4)[:4]
                for plane in range(3):
                    key = sum(2**lane * ((codes[lane] + 4) >> plane & 1) for lane in range(4))
                    sums[plane] = fp32(sums[plane] + signed(row, key))
            total = Fraction(0)
            for plane in range(3):
                total = fp32(total + 2**plane * sums[plane])
            held = total if held is None else fp32(held + total)
        assert held is not None
        corrected = held - (2 * int(weights.zero_points[j, 0]) + 1) * sum(a[i], Fraction(0))
        assert Fraction(float(results[i, j])) == fp32(corrected * Fraction(float(weights.scales[j, 0])) / 2)


def signed(row: list[Fraction], key: int) -> Fraction:
    """A table entry of four FP16 activations, each addition rounded to FP32."""
    a, b, c, d = (value if key >> lane & 1 else -value for lane, value in enumerate(row))
    return fp32(fp32(a + b) + fp32(c + d))


@pytest.mark.parametrize("name", ["lut_tensor_core", "bismo", "abq_llm", "apt_llm", "flexq"])
def test_integers_without_groups_lose_nothing_before_the_output_stage(name: str) -> None:
    weights, activations = FORMATS[name]
    weights = weights.replace("_g16", "_channel")
    plan = plan_gemm(
        gemm_workload(3, 150, 5, weights=weights, activations=activations).gemms[0], machine(name)
    )
    results = computed(name, plan)
    w, a = (values(tensor) for tensor in tensors(plan))
    for i, j in np.ndindex(results.shape):
        product = sum((x * y for x, y in zip(a[i], w[j], strict=True)), Fraction(0))
        assert Fraction(float(results[i, j])) == fp32(product)


def test_a_gemm_takes_the_papers_cycles_in_an_array_of_its_own() -> None:
    """M2 N64 K4: ceil(M/2) ceil(N/64) ceil(K/4) bits of the weights, and the drain of two rows."""
    for bits, m, k, n in ((2, 5, 130, 100), (4, 2, 64, 64), (3, 9, 31, 200)):
        report = sim.gemm(
            m,
            k,
            n,
            arch="lut_tensor_core",
            weights=f"int{bits}_channel_asym",
            activations="int8_token",
            **{"array.rows": 2, "array.cols": 64},
        )
        ideal = ceil(m / 2) * ceil(n / 64) * ceil(k / 4) * bits
        last_rows = 2 - m % 2
        registers = 2  # behind the multiplexers, and behind the sum of the planes
        assert report.layer_reports[0].record.compute_cycles == ideal + registers + last_rows - 1


@pytest.mark.parametrize(("p", "q"), [(2, 4), (8, 2), (6, 6)])
def test_a_bismo_gemm_takes_p_q_cycles_a_step(p: int, q: int) -> None:
    m, k, n = 17, 600, 30
    report = sim.gemm(
        m, k, n, arch="bismo", weights=f"int{q}_channel", activations=f"int{p}", **{"array.os_drain": "bus"}
    )
    steps = ceil(m / 8) * ceil(n / 8) * ceil(k / 256)
    assert report.layer_reports[0].record.compute_cycles == steps * p * q


def test_a_stacked_kernel_takes_as_long_as_its_padded_instructions() -> None:
    """ceil(p M / 8) ceil(q N / 8) ceil(K / 128) instructions of 8 x 8 x 128 bits, two a cycle of a multiprocessor."""
    for m, k, n in ((1, 4096, 256), (3, 1000, 64)):
        report = sim.gemm(
            m,
            k,
            n,
            arch="abq_llm",
            weights="int2_channel_asym",
            activations="int8_token",
            **{"array.rows": 1, "array.cols": 32},
        )
        instructions = ceil(8 * m / 8) * ceil(2 * n / 8) * ceil(k / 128)
        assert report.layer_reports[0].record.compute_cycles == instructions / 2


def test_tables_are_made_for_every_four_activations_that_enter() -> None:
    """Begun ones are whole: 3 rows of 50 activations, for each of two folds along N."""
    plan = planned("figlut")
    counts = fast.simulate_gemm(plan, "x", "gemm").counts
    entered = 3 * 50 * 2
    assert counts["table_generator", "generate int3 x fp16"] == ceil(entered / 4)
    assert counts["plane_adders", "add int3 x fp16"] == counts["output_adders", "add"] + 3 * 5


def test_precompute_takes_the_vector_unit_unless_it_is_fused() -> None:
    runs = {
        how: sim.gemm(
            64,
            512,
            512,
            arch="lut_tensor_core",
            weights="int2_channel_asym",
            activations="int8_token",
            **{"pe.precompute": how, "vector.lanes": 64},
        )
        for how in ("fused", "unfused")
    }
    sums, additions = 64 * 512, 64 * 512 * 14 // 4
    assert runs["fused"].cycles_by_cause["vector"] == sums / 64
    assert runs["unfused"].cycles_by_cause["vector"] == (sums + additions) / 64


@pytest.mark.parametrize(
    ("name", "planes"), [("binary", 1), ("ternary", 2), ("binary_g16", 1), ("ternary_g16", 2)]
)
@pytest.mark.parametrize(("arch", "bits"), [("lut_tensor_core", 1), ("apt_llm", 8)])
def test_binary_and_ternary_weights_are_planes_too(name: str, planes: int, arch: str, bits: int) -> None:
    machine_ = machine(arch)
    plan = plan_gemm(gemm_workload(3, 40, 5, weights=name, activations="int8_token").gemms[0], machine_)
    assert plan.array.initiation_interval == planes * bits
    weights, activations = tensors(plan)
    operands = operands_of(plan, machine_.element, weights, activations)
    _, results = reference.simulate_gemm(plan, "x", "gemm", operands)
    assert results is not None
    w, a = dequantize(weights, np.float64), dequantize(activations, np.float64)
    assert (np.abs(results[0] - a @ w.T) <= 1e-6 * (np.abs(a) @ np.abs(w).T)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_shipped_accelerators_run_their_formats(name: str) -> None:
    weights, activations = FORMATS[name]
    report = sim.gemm(
        16, 256, 128, arch=name, weights=weights.replace("_g16", "_g128"), activations=activations
    )
    assert report.cycles == sum(report.cycles_by_cause.values())
    energy = report.energy_by_component_pj
    for component in machine(name).element.hardware(
        activation_lines=2, weight_lines=3, stationary="weights", doubled=True, pairs=[]
    ):
        assert energy[component.name] > 0
