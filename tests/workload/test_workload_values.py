"""Synthetic values: the same in any order, of the distribution they claim, through the real quantizer's
door."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import dump_yaml
from simulator.errors import InputError
from simulator.formats import quantize
from simulator.workload import (
    gemm_workload,
    load_workload,
    operand_blocks,
    sample_values,
    tensor_values,
    with_captured,
)

WORK = gemm_workload(70, 300, 90, weights="int4_g128", activations="int8_token")
WHOLE = tensor_values(WORK, "gemm.weight")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 90), st.integers(0, 90), st.integers(1, 7))
def test_a_tile_is_the_same_as_that_part_of_the_whole(start, stop, step):
    assert np.array_equal(
        tensor_values(WORK, "gemm.weight", slice(start, stop, step)), WHOLE[start:stop:step]
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 89), max_size=12))
def test_rows_may_come_in_any_order(rows):
    chosen = np.array(rows, dtype=np.intp)
    assert np.array_equal(tensor_values(WORK, "gemm.weight", chosen), WHOLE[chosen])


def test_the_draws_never_change():
    digest = hashlib.sha256(
        WHOLE.astype("<f4").tobytes() + tensor_values(WORK, "input").astype("<f4").tobytes()
    )
    assert digest.hexdigest() == "79c30100dfe5461f2ca8086ff8da1f239ae5125432bf6b839b1f04bef7f1e794"


def test_names_and_seeds_give_independent_values(tmp_path):
    draws = []
    for seed in (0, 1):
        file = tmp_path / "net.yaml"
        rows = [
            {"op": "gemm", "name": name, "m": 4, "k": 500, "n": 40, "input": "new"} for name in ("a", "b")
        ]
        values = {"weights": {"distribution": "normal", "seed": seed}}
        file.write_text(dump_yaml({"name": "net", "operations": rows, "values": values}))
        work = load_workload(file)
        assert work.seed == seed
        draws += [tensor_values(work, f"{name}.weight").ravel() for name in ("a", "b")]
    correlation = np.corrcoef(draws)
    assert np.abs(correlation - np.eye(4)).max() < 0.04  # 20,000 values each: the standard error is 0.007


def moments(x):
    x = x.astype(np.float64)
    return x.mean(), x.var(), ((x - x.mean()) ** 4).mean() / x.var() ** 2


@pytest.mark.parametrize(
    ("distribution", "variance", "kurtosis"), [("normal", 1, 3), ("laplace", 2, 6), ("uniform", 1 / 3, 1.8)]
)
def test_moments_are_those_of_the_distribution(tmp_path, distribution, variance, kurtosis):
    file = tmp_path / "net.yaml"
    rows = [{"op": "gemm", "name": "a", "m": 1, "k": 1024, "n": 1024}]
    document = {"name": "net", "operations": rows, "values": {"weights": {"distribution": distribution}}}
    file.write_text(dump_yaml(document))
    mean, var, tail = moments(tensor_values(load_workload(file), "a.weight"))
    assert abs(mean) < 0.01
    assert abs(var / variance - 1) < 0.01
    assert abs(tail / kurtosis - 1) < 0.05


def test_weights_are_normal_and_activations_laplace_unless_given():
    assert WORK.tensors["gemm.weight"].values.distribution == "normal"
    assert WORK.tensors["input"].values.distribution == "laplace"


def test_a_quantized_copy_has_the_values_of_its_original():
    work = load_workload("resnet-18")
    original = next(op.inputs[0].name for op in work.operations if op.op == "quantize")
    rows = slice(0, 100)
    assert np.array_equal(
        tensor_values(work, f"{original}.quantized", rows), tensor_values(work, original, rows)
    )


def test_values_have_been_through_the_operation_before():
    work = load_workload("resnet-18")
    relu = tensor_values(work, "conv1.relu.output", slice(0, 500))
    pooled = tensor_values(work, "maxpool.output.quantized", slice(0, 500))
    assert relu.min() == 0
    assert 0.45 < (relu == 0).mean() < 0.55
    assert pooled.min() == 0
    shares = tensor_values(load_workload("minilm-l6"), "layers.0.attention.softmax.output")
    assert shares.min() >= 0
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_a_small_tensor_is_its_own_sample():
    sample = sample_values(WORK, "gemm.weight")
    assert sample.share == 1.0
    assert np.array_equal(sample.values, WHOLE)


def test_a_large_tensor_is_sampled_by_whole_rows():
    sample = sample_values(WORK, "gemm.weight", limit=10 * 300 + 299)
    again = sample_values(WORK, "gemm.weight", limit=10 * 300 + 299)
    assert sample.values.shape == (10, 300)
    assert sample.share == 10 / 90
    assert (np.diff(sample.rows) > 0).all()
    assert np.array_equal(sample.values, WHOLE[sample.rows])
    assert np.array_equal(sample.rows, again.rows)
    assert sample_values(WORK, "gemm.weight", limit=1).values.shape == (1, 300)


def test_a_sample_of_a_layer_of_llama_stays_below_the_limit():
    work = load_workload("llama-2-7b")
    sample = sample_values(work, "layers.0.mlp.gate.weight", limit=2**20)
    assert sample.values.size == 2**20
    assert sample.share == 2**20 / (11008 * 4096)


def test_captured_values_replace_those_of_a_tensor_and_its_quantized_copy():
    work = load_workload("minilm-l6", prefill=4)
    name = "layers.0.attention.context.output"
    values = np.random.default_rng(3).normal(size=(4, 384)).astype(np.float32)
    captured = with_captured(work, {name: values})
    assert np.array_equal(tensor_values(captured, name, slice(1, 3)), values[1:3])
    assert np.array_equal(tensor_values(captured, f"{name}.quantized"), values)
    gemm = next(gemm for gemm in captured.gemms if gemm.name == "layers.0.attention.output")
    assert gemm.activation_values == "captured"
    assert captured.activation_values == "mixed"
    codes = operand_blocks(captured, gemm, "activations", 4)[0].codes
    assert np.array_equal(codes, quantize(values, "int8_token").codes)
    assert np.array_equal(
        tensor_values(captured, "embedding.norm.output"), tensor_values(work, "embedding.norm.output")
    )
    for wrong, message in (
        ({"layers.0.attention.contxt.output": values}, "did you mean"),
        ({name: values[1:]}, "has 1536"),
    ):
        with pytest.raises(InputError, match=message):
            with_captured(work, wrong)


def test_unknown_tensors_and_impossible_amounts_are_errors():
    with pytest.raises(InputError, match=r"did you mean gemm\.weight"):
        tensor_values(WORK, "gemm.wait")
    with pytest.raises(InputError, match="no tensor"):
        sample_values(WORK, "nothing like it")
    with pytest.raises(InputError, match="too many"):
        tensor_values(gemm_workload(1, 2**31, 2**10), "gemm.weight")
    with pytest.raises(IndexError):
        tensor_values(WORK, "gemm.weight", np.array([90]))


def test_a_whole_layer_goes_through_the_quantizer():
    from simulator.formats import dequantize, get_format, quantize

    format = get_format(WORK.tensors["gemm.weight"].format)
    back = dequantize(quantize(WHOLE, format))
    assert back.shape == WHOLE.shape
    assert np.abs(back - WHOLE).max() < np.abs(WHOLE).max() / 7


def test_importing_workloads_loads_nothing_heavy():
    heavy = "numba pandas scipy matplotlib safetensors pyarrow"
    program = f"import sys, simulator.workload; assert not set('{heavy}'.split()) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
