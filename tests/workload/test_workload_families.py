"""Llama and BERT: sizes against the published ones, phases, attention, formats."""

from itertools import pairwise

import pytest

from simulator.config import dump_yaml
from simulator.errors import InputError
from simulator.workload import Gemm, VectorOp, load_workload, workload_names

TINY = {
    "family": "llama",
    "hidden": 64,
    "layers": 2,
    "heads": 8,
    "kv_heads": 2,
    "intermediate": 96,
    "vocab": 100,
}


@pytest.fixture
def load(tmp_path):
    """Load a document as a file."""

    def loader(model, *, formats=None, phase=None, **given):
        document = {"name": "net", "model": model}
        if formats:
            document["formats"] = formats
        if phase:
            document["phase"] = phase
        file = tmp_path / "net.yaml"
        file.write_text(dump_yaml(document))
        return load_workload(file, **given)

    return loader


# (family's keys, parameters): the number of values in the checkpoint that its model card describes
PUBLISHED = {
    "llama-2-7b": (
        {"hidden": 4096, "layers": 32, "heads": 32, "intermediate": 11008, "vocab": 32000},
        6738415616,
    ),
    "llama-2-13b": (
        {"hidden": 5120, "layers": 40, "heads": 40, "intermediate": 13824, "vocab": 32000},
        13015864320,
    ),
    "llama-2-70b": (
        {"hidden": 8192, "layers": 80, "heads": 64, "kv_heads": 8, "intermediate": 28672, "vocab": 32000},
        68976648192,
    ),
    "llama-3-8b": (
        {"hidden": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "intermediate": 14336, "vocab": 128256},
        8030261248,
    ),
    "mistral-7b": (
        {"hidden": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "intermediate": 14336, "vocab": 32000},
        7241732096,
    ),
    "llama-3.2-1b": (
        {
            "hidden": 2048,
            "layers": 16,
            "heads": 32,
            "kv_heads": 8,
            "head_dim": 64,
            "intermediate": 8192,
            "vocab": 128256,
            "tied_embeddings": True,
        },
        1235814400,
    ),
    "qwen2-0.5b": (
        {
            "hidden": 896,
            "layers": 24,
            "heads": 14,
            "kv_heads": 2,
            "intermediate": 4864,
            "vocab": 151936,
            "tied_embeddings": True,
            "attention_bias": "qkv",
        },
        494032768,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_llama_like_models_are_the_published_ones(load, name):
    sizes, parameters = PUBLISHED[name]
    assert load({"family": "llama", **sizes}).parameters == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-2-7b", 6738415616),
        ("llama-2-13b", 13015864320),
        ("llama-3-8b", 8030261248),
        ("yi-6b", 6061035520),
        ("opt-1.3b", 1315758080),
        ("opt-6.7b", 6658473984),
        ("phi-2", 2779683840),
    ],
)
def test_parameters_of_shipped_decoders_are_those_of_their_checkpoints(name, parameters):
    # counted once in transformers 5.23 on models built from the model cards' config.json
    assert load_workload(name).parameters == parameters


def test_parameters_of_bert_are_the_published_ones(load):
    large = {
        "family": "bert",
        "hidden": 1024,
        "layers": 24,
        "heads": 16,
        "intermediate": 4096,
        "vocab": 30522,
    }
    assert load(large).parameters == 335141888
    assert load_workload("bert-base").parameters == 109482240
    assert load_workload("llama-2-7b").parameters == 6738415616
    # 22,713,728 values in the checkpoint, of which 512 are position numbers that nothing trained
    assert load_workload("minilm-l6").parameters == 22713728 - 512


def test_macs_of_a_prefill_are_the_closed_form():
    s, h, layers, ffn, vocab = 512, 4096, 32, 11008, 32000
    linear = s * (4 * h * h + 3 * h * ffn)
    assert load_workload("llama-2-7b", prefill=s).macs == layers * (linear + 2 * s * s * h) + h * vocab


def test_macs_of_a_decode_step_are_the_closed_form():
    context, h, layers, ffn, vocab = 700, 4096, 32, 11008, 32000
    linear = 4 * h * h + 3 * h * ffn
    expected = layers * (linear + 2 * context * h) + h * vocab
    assert load_workload("llama-2-7b", decode=context).macs == expected
    assert load_workload("llama-2-7b", decode=context, batch=3).macs == 3 * expected


def test_macs_of_bert_are_the_closed_form():
    s, h, ffn = 128, 768, 3072
    encoder = 12 * (s * (4 * h * h + 2 * h * ffn) + 2 * s * s * h)
    assert load_workload("bert-base").macs == encoder + h * h  # and the pooler on the first token


def test_grouped_query_attention_shares_each_key_head_among_consecutive_heads(load):
    work = load(TINY, prefill=16, batch=3)
    scores, context = (op for op in work.gemms if op.op == "attention" and op.name.startswith("layers.0."))
    assert (scores.m, scores.k, scores.n, scores.batch, scores.weight_reuse) == (16, 8, 16, 3 * 8, 4)
    assert (context.m, context.k, context.n, context.batch, context.weight_reuse) == (16, 16, 8, 3 * 8, 4)
    assert scores.weights.shape == (3 * 2, 16, 8)
    assert context.weights.shape == (3 * 2, 8, 16)
    assert scores.weights.kind == context.weights.kind == "kv"
    assert not scores.weights.static
    key = next(op for op in work.gemms if op.name == "layers.0.attention.key")
    assert (key.m, key.n) == (48, 2 * 8)


def test_decode_holds_the_context_and_computes_one_token(load):
    work = load(TINY, decode=40, batch=2)
    by_name = {op.name: op for op in work.operations}
    assert by_name["layers.0.attention.query"].m == 2
    assert by_name["layers.0.attention.scores"].m == 1
    assert by_name["layers.0.attention.scores"].n == 40
    assert by_name["layers.0.attention.context"].k == 40
    assert work.tensors["layers.0.attention.key.cache"].shape == (4, 40, 8)
    assert work.tensors["layers.0.attention.value.cache"].shape == (4, 8, 40)
    assert by_name["layers.0.attention.key.quantize"].elements == 2 * 2 * 8  # the new token's keys only
    assert by_name["layers.0.attention.softmax"].elements == 2 * 8 * 40
    assert (work.phase.prefill, work.phase.decode, work.phase.batch) == (None, 40, 2)


def test_the_lm_head_scores_the_last_token_or_all(load):
    last = load(TINY, prefill=16, batch=2).gemms[-1]
    every = load({**TINY, "lm_head": "all"}, prefill=16, batch=2).gemms[-1]
    assert (last.name, last.m, every.m) == ("lm_head", 2, 32)


@pytest.mark.parametrize("given", [{"prefill": 16}, {"decode": 16}])
def test_a_cache_in_the_output_format_is_written_without_requantization(load, given):
    work = load(TINY, formats={"kv": "fp16", "output": "fp16"}, **given)
    writers = {op.output.name: op for op in work.operations}
    assert writers["layers.0.attention.key.cache"].op == "rope"
    assert writers["layers.0.attention.key.cache"].elements == work.phase.batch * 2 * 8 * (
        given.get("prefill") or 1
    )
    assert writers["layers.0.attention.value.cache"].name == "layers.0.attention.value"


def test_one_quantized_copy_serves_query_key_and_value(load):
    work = load(TINY)
    readers = {
        op.activations.name
        for op in work.gemms
        if op.name.startswith("layers.1.attention.") and op.op == "gemm"
    }
    assert readers == {
        "layers.1.attention.norm.output.quantized",
        "layers.1.attention.context.output.quantized",
    }


@pytest.mark.parametrize(
    ("kv", "key", "value"),
    [
        ("int8", "quantize_static", "quantize_static"),
        ("int8_token", "quantize", "quantize_static"),
        ("int8_g8", "quantize", "quantize"),
        ("bf16", "cast", "cast"),
    ],
)
def test_a_scale_shared_with_earlier_tokens_is_known_beforehand(load, kv, key, value):
    work = load(TINY, kv=kv)
    ops = {op.name: op.op for op in work.operations}
    assert ops["layers.0.attention.key.quantize"] == key
    assert ops["layers.0.attention.value.quantize"] == value


def test_static_activation_scales_spare_the_pass_for_the_maximum(load):
    dynamic, static = load(TINY), load(TINY, formats={"activation_scales": "static"})
    count = {
        work: [op.op for op in ops.operations if isinstance(op, VectorOp) and op.op.startswith("quantize")]
        for work, ops in (("dynamic", dynamic), ("static", static))
    }
    assert "quantize" in count["dynamic"]
    assert set(count["static"]) == {"quantize_static"}


def test_patterns_give_single_layers_formats_of_their_own(load):
    formats = {
        "weights": "int4_g32",
        "layers": {"layers.*.mlp.*": {"weights": "int8_channel"}, "lm_head": {"weights": "fp16"}},
    }
    work = load(TINY, formats=formats)
    used = {op.name: op.weights.format for op in work.gemms if op.op == "gemm"}
    assert used["layers.1.mlp.down"] == "int8_channel"
    assert used["layers.1.attention.query"] == "int4_g32"
    assert used["lm_head"] == "fp16"
    over = load(TINY, formats=formats, weights="int8")
    assert {op.weights.format for op in over.gemms if op.op == "gemm"} == {"int8"}


def test_a_pattern_that_fits_nothing_is_an_error(load):
    with pytest.raises(InputError, match=r"formats\.layers.*mlp\.dwn"):
        load(TINY, formats={"layers": {"layers.0.mlp.dwn": {"weights": "int8"}}})


def test_a_pattern_with_two_activation_formats_quantizes_once_a_format(load):
    work = load(
        TINY, formats={"activations": "int8", "layers": {"layers.0.attention.key": {"activations": "int4"}}}
    )
    names = [op.name for op in work.operations if op.name.startswith("layers.0.attention.norm.quantize")]
    assert names == ["layers.0.attention.norm.quantize", "layers.0.attention.norm.quantize.int4"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prefill": 8, "decode": 8}, "not both"),
        ({"prefill": 0}, r"phase\.prefill"),
        ({"decode": -4}, r"phase\.decode"),
        ({"batch": 0}, r"phase\.batch"),
        ({"prefill": 2**32}, r"phase\.prefill"),
        ({"prefill": 2.5}, r"phase\.prefill"),
    ],
)
def test_a_phase_out_of_range_is_named(given, message):
    with pytest.raises(InputError, match=message):
        load_workload("llama-2-7b", **given)


def test_an_encoder_neither_decodes_nor_takes_more_tokens_than_positions():
    with pytest.raises(InputError, match="does not decode"):
        load_workload("bert-base", decode=16)
    with pytest.raises(InputError, match="up to 512"):
        load_workload("bert-base", prefill=513)
    assert load_workload("bert-base").phase.prefill == 128
    assert load_workload("bert-base", prefill=512).phase.prefill == 512


def test_images_have_no_tokens():
    with pytest.raises(InputError, match="only a batch"):
        load_workload("resnet-18", prefill=16)


def test_the_callers_phase_replaces_the_files(load):
    assert load(TINY, phase={"decode": 9, "batch": 4}).phase.decode == 9
    work = load(TINY, phase={"decode": 9, "batch": 4}, prefill=5)
    assert (work.phase.prefill, work.phase.decode, work.phase.batch) == (5, None, 4)


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 7}, {"kv_heads": 3}, {"hidden": 0}, {"layers": 4097}, {"hidden": "64"}, {"layers": True}],
)
def test_sizes_that_contradict_each_other_are_refused(load, wrong):
    with pytest.raises(InputError, match="model"):
        load({**TINY, **wrong})


def test_an_unknown_key_or_family_names_the_nearest(load):
    with pytest.raises(InputError, match=r"net\.yaml: model\.intermedate: .*did you mean intermediate"):
        load({**TINY, "intermedate": 4})
    with pytest.raises(InputError, match=r"model\.family.*llama"):
        load({**TINY, "family": "lama"})


def test_operations_are_in_the_order_of_their_dependences_and_layers_repeat(load):
    work = load(TINY)
    per_layer = [[op for op in work.operations if op.name.startswith(f"layers.{i}.")] for i in range(2)]
    for first, second in pairwise(per_layer):
        assert [op.name.split(".", 2)[2] for op in first] == [op.name.split(".", 2)[2] for op in second]
    assert sum(isinstance(op, Gemm) for op in per_layer[0]) == 9


def test_the_resolved_configuration_gives_the_same_workload(load, tmp_path):
    for name in workload_names():
        work = load_workload(name, batch=2, weights="int4_g64", activations="int8")
        file = tmp_path / "again.yaml"
        file.write_text(dump_yaml(work.config))
        again = load_workload(file)
        assert again == work
        assert again.config == work.config


OPT = {
    "family": "opt",
    "hidden": 64,
    "layers": 3,
    "heads": 4,
    "intermediate": 96,
    "vocab": 100,
    "positions": 50,
}
PHI = {"family": "phi", "hidden": 80, "layers": 3, "heads": 4, "intermediate": 96, "vocab": 100, "rotary": 8}


def test_macs_of_opt_and_phi_are_the_closed_form(load):
    for name, h, layers, ffn, vocab in (
        ("opt-1.3b", 2048, 24, 8192, 50272),
        ("phi-2", 2560, 32, 10240, 51200),
    ):
        block = 4 * h * h + 2 * h * ffn
        assert load_workload(name, decode=256).macs == layers * (block + 2 * 256 * h) + h * vocab
        assert load_workload(name, prefill=256).macs == layers * (256 * block + 2 * 256**2 * h) + h * vocab


def test_opt_looks_positions_up_and_knows_no_more(load):
    work = load(OPT, prefill=50)
    assert work.tensors["embedding.position.weight"].shape == (52, 64)  # two rows are for padding
    assert not [op for op in work.operations if op.op in ("rope", "rmsnorm", "swiglu")]
    with pytest.raises(InputError, match=r"phase\.decode: more tokens than positions .*up to 50"):
        load(OPT, decode=51)
    untied = load({**OPT, "tied_embeddings": False})
    assert untied.parameters - work.parameters == 100 * 64


def test_phi_feeds_attention_and_mlp_with_one_norm_and_rotates_part_of_each_head(load):
    work = load(PHI, prefill=16, batch=2)
    by_name = {op.name: op for op in work.operations}
    inputs = {by_name[f"layers.1.{name}"].activations.name for name in ("attention.query", "mlp.up")}
    assert inputs == {"layers.1.norm.output.quantized"}
    assert by_name["layers.1.attention.query.rope"].elements == 2 * 16 * 4 * 8
    assert by_name["layers.1.attention.key.rope"].elements == 2 * 16 * 4 * 8
    assert work.gemms[-1].bias
    grouped = load({**PHI, "kv_heads": 2}, prefill=16, batch=2)
    assert {op.name: op for op in grouped.operations}[
        "layers.1.attention.key.rope"
    ].elements == 2 * 16 * 2 * 8


@pytest.mark.parametrize("wrong", [{"rotary": 22}, {"rotary": 7}, {"kv_heads": 3}, {"heads": 3}])
def test_sizes_of_phi_that_contradict_each_other_are_refused(load, wrong):
    with pytest.raises(InputError, match=f"model.{next(iter(wrong))}"):
        load({**PHI, **wrong})


@pytest.mark.parametrize("model", [TINY, OPT, PHI])
def test_the_first_layers_alone_run_as_they_do_in_the_whole_network(load, model):
    formats = {"layers": {f"layers.{model['layers'] - 1}.mlp.*": {"weights": "fp16"}}}
    whole = load(model, formats=formats, prefill=8)
    part = load(model, formats=formats, prefill=8, layers=1)
    assert part.gemms[-1] == whole.gemms[-1]
    ours = [op for op in whole.operations if not op.name.startswith(("layers.1.", "layers.2.", "norm"))]
    assert [op for op in part.operations if not op.name.startswith("norm")] == ours
    assert part.phase.layers == part.config["phase"]["layers"] == 1
    assert f"only the first 1 of {model['layers']} layers run" in part.notes[0]
    assert str(whole.parameters) in part.notes[0]


def test_a_choice_of_layers_is_checked(load):
    with pytest.raises(InputError, match=r"phase\.layers: more layers .*up to 2"):
        load(TINY, layers=3)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match=r"phase\.layers"):
            load(TINY, layers=wrong)
    with pytest.raises(InputError, match=r"phase\.layers.*no blocks"):
        load_workload("resnet-18", layers=2)
    with pytest.raises(InputError, match=r"formats\.layers.*mlp\.dwn"):
        load(TINY, formats={"layers": {"layers.0.mlp.dwn": {"weights": "int8"}}}, layers=1)
    assert load(TINY, phase={"layers": 1, "prefill": 9}, decode=4).phase.layers == 1
