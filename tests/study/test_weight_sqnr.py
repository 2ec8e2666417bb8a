"""`weight_sqnr_db`: noise of real weights, whatever they are; never a number that is none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import simulator as sim
from simulator.formats import dequantize, get_format, quantize

NETWORK = (
    "name: net\ninput: [4, 16]\noperations: [{op: gemm, name: fc, n: 8}]\n"
    "values: {weights: {safetensors: w.safetensors}}\n"
)
ELEMENTS = {"pe.weights": ["int8", "int4", "fp16", "bf16", "fp8_e5m2", "fp4_e2m1"], "pe.accumulator": "fp32"}


def sqnr_db(folder: Path, weights: np.ndarray, format: str) -> float:
    save_file({"fc.weight": weights}, folder / "w.safetensors")
    (folder / "net.yaml").write_text(NETWORK)
    changes = {**ELEMENTS, "pe.activations": ["fp16", "int8"]}
    report = sim.run(folder / "net.yaml", "systolic_os_8x8", weights=format, activations="fp16", **changes)
    return float(report.layers.set_index("name").loc["fc", "weight_sqnr_db"])


@pytest.mark.parametrize("format", ["int8", "int4_g16", "fp16", "bf16", "fp8_e5m2", "mxfp8_e5m2"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite_are_refused_in_every_format(tmp_path, format: str, value: float) -> None:
    weights = np.ones((8, 16), np.float32)
    weights[2, 3] = value
    with pytest.raises(sim.InputError, match=r"w\.safetensors: fc\.weight: 1 of 128 .* first at \[2, 3\]"):
        sqnr_db(tmp_path, weights, format)


@pytest.mark.parametrize("format", ["int8", "int4_g16", "fp16", "bf16", "fp8_e5m2", "mxfp8_e5m2"])
@pytest.mark.parametrize("scale", [3e38, 1.0, 1e-30, 1e-44])
def test_noise_of_finite_weights_is_a_number(tmp_path, format: str, scale: float) -> None:
    weights = (np.random.default_rng(0).uniform(-1, 1, (8, 16)) * scale).astype(np.float32)
    found = sqnr_db(tmp_path, weights, format)
    restored = dequantize(quantize(weights, get_format(format)))
    noise = ((weights.astype(np.float64) - restored) ** 2).sum()
    assert noise > 0
    assert found == pytest.approx(10 * math.log10((weights.astype(np.float64) ** 2).sum() / noise))


def test_weights_that_lose_nothing_have_no_noise(tmp_path) -> None:
    assert sqnr_db(tmp_path, np.zeros((8, 16), np.float32), "int8") == math.inf
    assert sqnr_db(tmp_path, np.ones((8, 16), np.float32), "fp16") == math.inf
