"""Speed of BitMoD's arithmetic, bit for bit: a projection of MiniLM, 128 tokens.

Kernels are compiled before the clock starts; `extra_info` holds the rate.
"""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from simulator.arch import load_accelerator
from simulator.engine.outputs import gemm_values, operands_of
from simulator.formats import quantize
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

M, K, N = 128, 384, 384


@pytest.mark.parametrize("name", ["bitmod_fp4_g128", "bitmod_fp3_g128", "int6_g128_si8"])
def test_bitmods_projection(benchmark: BenchmarkFixture, name: str) -> None:
    accelerator = load_accelerator("bitmod")
    plan = plan_gemm(gemm_workload(M, K, N, weights=name, activations="fp16").gemms[0], accelerator)
    random = np.random.default_rng(0)
    weights = quantize(random.standard_normal((N, K), np.float32), plan.weights)
    activations = quantize(random.laplace(size=(M, K)).astype(np.float32), plan.activations)
    operands = operands_of(plan, accelerator.element, weights, activations)
    results = benchmark.pedantic(gemm_values, (plan, operands), rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["mega_products_per_s"] = round(M * K * N / benchmark.stats.stats.min / 1e6, 1)
    assert np.isfinite(results).all()
