"""Decoded weights through arrays: results of the reference engine against fractions on the values that formats stand
for, and both engines on the same integers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bitmod_oracle import to_float

from simulator.arch import load_accelerator
from simulator.array.rescale import operand
from simulator.engine import fast, reference
from simulator.engine.reference import Operands
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, quantize
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

M, K, N = 3, 40, 5


def machine(dataflow: str, **pe: Any) -> Any:
    return load_accelerator(
        {
            "name": "small",
            "clock_ghz": 1.0,
            "array": {"dataflow": dataflow, "rows": 4, "cols": 4},
            "pe": pe,
            "buffers": {
                "weights": {"kib": 8, "banks": 2, "width_bits": 128},
                "activations": {"kib": 8, "banks": 2, "width_bits": 256},
                "outputs": {"kib": 1, "banks": 2, "width_bits": 128, "ports": "1r1w"},
            },
            "mapping": {"tile_k": K},
            "vector": {"lanes": 4},
            "dram": {"bandwidth_gb_per_s": 8.0, "latency_ns": 5},
        }
    )


def without_row_scales(tensor: QuantizedTensor) -> tuple[list[list[Fraction]], list[Fraction]]:
    """Values under the scale of their row or tensor, and these scales."""
    grouped = tensor.format.group_size > 0
    scales = tensor.row_scales if grouped else tensor.scales
    rows = len(tensor.codes)
    found = (
        [Fraction(1)] * rows
        if scales is None
        else [Fraction(float(s)) for s in np.broadcast_to(scales.reshape(-1), rows)]
    )
    values = [[Fraction(float(v)) for v in row] for row in dequantize(tensor, np.float64)]
    return [[v / s for v in row] for row, s in zip(values, found, strict=True)], found


TWO_LEVEL = {"family": "two_level", "weights": ["uint4", "int4"], "activations": "int8"}
SHIFT = {
    "family": "shift_cast",
    "weights": "fp6_e3m2",
    "activations": "fp16",
    "target": "fp16",
    "accumulator": "fixed100",
}
ADD = {
    "family": "shift_cast",
    "weights": "fp4_e2m1",
    "activations": "fp8_e4m3",
    "target": "fp8_e4m3",
    "accumulator": "fixed60",
}
MIX = {"family": "mixpe", "weights": "int4", "activations": "int8"}


@pytest.mark.parametrize(
    ("pe", "weights", "activations"),
    [
        (TWO_LEVEL | {"lanes": 4}, "qserve_uint4_g8", "int8_token"),
        (TWO_LEVEL | {"decode_cycles": 3}, "qserve_uint4_g20", "int8_token"),
        (TWO_LEVEL, "int4_channel_asym", "int8_token"),
        (SHIFT, "fp6_e3m2_channel", "fp16"),
        (ADD, "fp4_e2m1_g8_sm2", "fp8_e4m3_token"),
        (ADD, "fp4_e2m1_g8_sm1", "fp8_e4m3_token"),
        (MIX, "int4_channel_asym", "int8_token"),
    ],
)
@pytest.mark.parametrize("dataflow", ["os", "ws", "is", "broadcast"])
def test_exact_sums_are_scaled_and_rounded_once(
    pe: dict[str, Any], weights: str, activations: str, dataflow: str
) -> None:
    if pe["family"] == "mixpe" and dataflow in ("ws", "is"):
        with pytest.raises(InputError, match="it keeps outputs"):
            machine(dataflow, **pe)
        return
    accelerator = machine(dataflow, **pe)
    plan = plan_gemm(gemm_workload(M, K, N, weights=weights, activations=activations).gemms[0], accelerator)
    random = np.random.default_rng(11)
    # Rows of one binade: no FP4 value falls among FP8's subnormals.
    stored = quantize(
        (random.choice([-1, 1], (N, K)) * random.uniform(0.5, 1, (N, K))).astype(np.float32), weights
    )
    a = quantize(random.laplace(size=(M, K)).astype(np.float32), activations)
    arriving = accelerator.element.decode("weights", stored)
    assert (dequantize(arriving) == dequantize(stored)).all()
    operands = Operands(
        operand(arriving, 1, N), operand(a, 1, M), accelerator.element.function(stored.format, a.format)
    )
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    (w_values, w_scales), (a_values, a_scales) = without_row_scales(arriving), without_row_scales(a)
    for i in range(M):
        for j in range(N):
            total = sum(x * y for x, y in zip(a_values[i], w_values[j], strict=True))
            assert Fraction(float(results[0, i, j])) == to_float(total * a_scales[i] * w_scales[j])
    again = fast.simulate_gemm(plan, "gemm", "gemm")
    assert (again.cycles, again.counts) == (record.cycles, record.counts)


@pytest.mark.parametrize(
    ("arch", "weights", "activations"),
    [
        ("qserve", "qserve_uint4_g128", "int8_token"),
        ("qserve", "int4_channel_asym", "int8_token"),
        ("dgq", "int4_g128_si8_asym", "int8_token"),
        ("mixllm", "int4_g128_asym", "int8_g128"),
        ("mixllm", "int8_g128", "int8_g128"),
        ("comet", "int4_g128", "int8_g128"),
        ("comet_w4a4", "int4_g128", "int4_g128"),
        ("zeroquant_fp", "fp4_e2m1_g128_sm2", "fp8_e4m3_token"),
        ("zeroquant_fp", "fp4_e2m1_g128_sm1", "fp8_e4m3_token"),
        ("zeroquant_fp6", "fp6_e3m2_channel", "fp16"),
        ("finequant", "int4_g128", "fp16"),
        ("mixpe_w4a8", "int4_g128_asym", "int8_token"),
        ("mixpe_w4a16", "int4_g128_asym", "fp16"),
        ("figna", "int4_g128", "fp16"),
    ],
)
def test_shipped_machines_take_their_papers_formats(arch: str, weights: str, activations: str) -> None:
    """A GEMM that divides evenly takes no fewer cycles than its products by the array's."""
    accelerator = load_accelerator(arch)
    plan = plan_gemm(
        gemm_workload(256, 4096, 3456, weights=weights, activations=activations).gemms[0], accelerator
    )
    record = fast.simulate_gemm(plan, "gemm", "gemm")
    lanes = accelerator.element.timing(plan.weights, plan.activations).lanes
    products = 256 * 4096 * 3456 // (accelerator.array.rows * accelerator.array.cols * lanes)
    assert products <= record.compute_cycles <= 2.1 * products
    assert record.cycles >= record.compute_cycles
