"""Tensors that do not belong to a plan, or are not whole, are refused before anything is computed from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.arch import load_accelerator
from simulator.engine.outputs import Operands, gemm_values, operands_of
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, quantize
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

M, K, N = 3, 256, 4
RUNS = [
    ("bitmod", "bitmod_fp4_g128", "fp16"),
    ("qserve", "qserve_uint4_g128", "int8_token"),
    ("zeroquant_fp", "fp4_e2m1_g128_sm1", "fp8_e4m3_token"),
    ("w4a16_dequantize", "bitmod_fp4_g128", "fp16"),
    ("figna", "int4_g128", "fp16"),
    ("figlut", "int4_g128_asym", "fp16"),
    ("lut_tensor_core", "int2_g128_asym", "int8_token"),
    ("mx_dot_product", "mxfp8_e4m3", "mxfp8_e4m3"),
    ("vs_quant", "int4_g16_su4", "int4_g16_su4"),
]


def drawn(rows: int, k: int, format: str) -> QuantizedTensor:
    return quantize(np.random.default_rng(rows).normal(size=(rows, k)).astype(np.float32), format)


def operands(
    arch: str, weights: QuantizedTensor, activations: QuantizedTensor, planned: tuple[str, str]
) -> Operands:
    accelerator = load_accelerator(arch)
    workload = gemm_workload(M, K, N, weights=planned[0], activations=planned[1])
    plan = plan_gemm(workload.gemms[0], accelerator)
    made = operands_of(plan, accelerator.element, weights, activations)
    assert np.isfinite(gemm_values(plan, made)).all()
    return made


@pytest.mark.parametrize(("arch", "weights", "activations"), RUNS)
def test_what_is_no_operand_of_the_plan_is_refused(arch: str, weights: str, activations: str) -> None:
    w, a, planned = drawn(N, K, weights), drawn(M, K, activations), (weights, activations)
    operands(arch, w, a, planned)
    for field in ("scales", "zero_points", "selectors", "row_scales"):
        if getattr(w, field) is not None:
            with pytest.raises(InputError, match=f"{field} of a .* are missing"):
                operands(arch, replace(w, **{field: None}), a, planned)
    with pytest.raises(InputError, match="codes of a"):
        operands(arch, replace(w, codes=w.codes.astype(np.int64) + 1000), a, planned)
    with pytest.raises(InputError, match="scales of a"):
        operands(arch, replace(w, scales=np.asarray(w.scales)[..., :1]), a, planned)
    with pytest.raises(InputError, match="another format"):
        operands(arch, drawn(N, K, "fp8_e5m2"), a, planned)
    with pytest.raises(InputError, match="another shape"):
        operands(arch, drawn(N, K // 2, weights), a, planned)
    with pytest.raises(InputError, match="another shape"):
        operands(arch, w, drawn(M + 1, K, activations), planned)
