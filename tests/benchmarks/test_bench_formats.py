"""Speed of the number formats, on float32 weights of the shape of a Llama-2-7B MLP projection.

Kernels are compiled before the clock starts. The target is 1e9 values a second on one core to INT8 and FP8 with
the max-abs scale; `extra_info` holds the rate.
"""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from simulator.formats import dequantize, pack, quantize

SHAPE = (4096, 11008)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


def note_rate(benchmark: BenchmarkFixture, values: int) -> None:
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["giga_values_per_s"] = round(values / benchmark.stats.stats.min / 1e9, 3)


@pytest.mark.parametrize(
    "name",
    [
        "int8",
        "int8_channel",
        "int4_g128",
        "int4_g128_asym",
        "fp8_e4m3",
        "fp8_e5m2",
        "fp8_e4m3_channel",
        "fp16",
        "mxfp8_e4m3",
        "mxfp4",
        "mxint8",
        "nvfp4",
        "msfp12",
        "bitmod_fp4_g128",
        "flint4_channel",
        "int6_g128_si8",
        "int4_g16_su4",
    ],
)
def test_quantize_maxabs(benchmark: BenchmarkFixture, weights: np.ndarray, name: str) -> None:
    benchmark.pedantic(quantize, (weights, name), rounds=5, warmup_rounds=1)
    note_rate(benchmark, weights.size)


@pytest.mark.parametrize(
    "name", ["ternary", "qserve_uint4_g128", "bitflip4_g32", "bbs_avg2_g32", "bbs_zp4_g32"]
)
def test_quantize_in_a_way_of_its_own(benchmark: BenchmarkFixture, weights: np.ndarray, name: str) -> None:
    part = weights[:512]
    benchmark.pedantic(quantize, (part, name), rounds=3, warmup_rounds=1)
    note_rate(benchmark, part.size)


@pytest.mark.parametrize("name", ["int4_g128", "fp8_e4m3_channel", "mxfp4", "nvfp4"])
def test_quantize_mse(benchmark: BenchmarkFixture, weights: np.ndarray, name: str) -> None:
    part = weights[:256]
    benchmark.pedantic(quantize, (part, name), {"scale": "mse"}, rounds=3, warmup_rounds=1)
    note_rate(benchmark, part.size)


@pytest.mark.parametrize("name", ["int4_g128", "fp8_e4m3", "mxfp4", "bitmod_fp4_g128"])
def test_dequantize(benchmark: BenchmarkFixture, weights: np.ndarray, name: str) -> None:
    tensor = quantize(weights, name)
    benchmark.pedantic(dequantize, (tensor,), rounds=3, warmup_rounds=1)
    note_rate(benchmark, weights.size)


@pytest.mark.parametrize("name", ["int4_g128", "mxfp6_e3m2"])
def test_pack(benchmark: BenchmarkFixture, weights: np.ndarray, name: str) -> None:
    tensor = quantize(weights, name)
    benchmark.pedantic(pack, (tensor,), rounds=3, warmup_rounds=1)
    note_rate(benchmark, weights.size)


@pytest.mark.parametrize("name", ["int4_g128", "fp8_e4m3", "mxfp4"])
def test_small_tensor_without_kernels(benchmark: BenchmarkFixture, weights: np.ndarray, name: str) -> None:
    part = np.ascontiguousarray(weights[:384, :1024])
    benchmark(quantize, part, name)
    note_rate(benchmark, part.size)
