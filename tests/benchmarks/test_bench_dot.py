"""Speed of the bit-exact arithmetic of bit-parallel PEs, on a GEMM of the size of MiniLM-L6's projections.

`extra_info` holds the rate; operands are quantized before the clock starts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from simulator.array.rescale import operand
from simulator.config import validate
from simulator.formats import quantize
from simulator.pe import pe_model
from simulator.pe.protocol import Function, Scales

M, K, N = 64, 384, 384
BLOCK = {"family": "block_dot", "lanes": 32}
FP8 = {"weights": "fp8_e4m3", "activations": "fp8_e4m3", "align_window": 13, "fuse_accumulator": True}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "int8": ({"family": "mac", "weights": "int8", "activations": "int8", "lanes": 32}, "int8"),
    "mxint8": (BLOCK | {"weights": "int8", "activations": "int8", "scales": "e8m0"}, "mxint8"),
    "mxfp8": (
        BLOCK | {"weights": "fp8_e4m3", "activations": "fp8_e4m3", "align_window": 22, "scales": "e8m0"},
        "mxfp8_e4m3",
    ),
    "fp8_two_level": (BLOCK | FP8 | {"acc_format": "e8m13", "promote_every": 4}, "fp8_e4m3"),
}


@pytest.mark.parametrize("case", CASES)
def test_exact_gemm(benchmark: BenchmarkFixture, case: str) -> None:
    parameters, name = CASES[case]
    pe = validate(pe_model(parameters["family"]), parameters)
    random = np.random.default_rng(0)
    weights = operand(quantize(random.normal(size=(N, K)), name), 1, N)
    activations = operand(quantize(random.laplace(size=(M, K)), name), 1, M)
    form = quantize(np.zeros((1, K)), name).format
    function: Function = pe.function(form, form)
    w, a = (each.integers[0].astype(np.int64) for each in (weights, activations))
    nothing = np.zeros((1, 1), object)

    def gemm() -> None:
        state = np.zeros((M, N, function.words), function.dtype)
        for low in range(0, K, pe.lanes):
            group = low // 32
            scales = None
            if pe.scales_inside(form, form):
                w_scale, a_scale = weights.scales[0][None, :, group], activations.scales[0][:, None, group]
                scales = Scales(w_scale, a_scale, nothing, nothing, True)
            here = slice(low, low + pe.lanes)
            state = function.step(state, a[:, None, here], w[None, :, here], scales)
        function.result(state)

    benchmark.pedantic(gemm, rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        rate = M * K * N / benchmark.stats.stats.min / 1e6
        benchmark.extra_info["million_macs_per_s"] = round(rate, 1)
