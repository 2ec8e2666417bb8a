"""Workloads written as a list of operations."""

import pytest

from simulator.errors import InputError
from simulator.formats import get_format
from simulator.workload import Gemm, load_workload


@pytest.fixture
def load(tmp_path):
    """Load the text of a workload file."""

    def loader(rows, head="name: net\n", **given):
        file = tmp_path / "net.yaml"
        file.write_text(f"{head}operations:\n" + "".join(f"  - {{{row}}}\n" for row in rows))
        return load_workload(file, **given)

    return loader


def test_resnet_18_has_the_published_size_and_work():
    work = load_workload("resnet-18")
    assert work.parameters == 11689512  # torchvision: 11,689,512, batch norm's gamma and beta included
    assert work.macs == 1814073344  # 1.814 G
    by_name = {op.name: op for op in work.gemms}
    assert (by_name["conv1"].m, by_name["conv1"].k, by_name["conv1"].n) == (112 * 112, 147, 64)
    assert (by_name["fc"].m, by_name["fc"].k, by_name["fc"].n) == (1, 512, 1000)
    downsample = by_name["layer3.0.downsample.0"]
    assert (downsample.m, downsample.k, downsample.n) == (14 * 14, 128, 256)


def test_mobilenet_v1_has_the_published_size_and_work():
    work = load_workload("mobilenet-v1")
    assert work.parameters == 4231976  # 4.2 M in table 8; the released model's trained parameters
    assert work.macs == 568740352  # 569 M in table 8
    depthwise = next(op for op in work.gemms if op.name == "conv3.depthwise")
    assert (depthwise.m, depthwise.k, depthwise.n, depthwise.batch) == (56 * 56, 9, 1, 64)


def test_a_batch_of_images_multiplies_the_rows():
    one, four = load_workload("resnet-18"), load_workload("resnet-18", batch=4)
    assert four.macs == 4 * one.macs
    assert four.parameters == one.parameters
    assert four.tensors["conv1.output"].shape == (4, 112, 112, 64)


def test_a_pool_visits_every_tap():
    pool = next(op for op in load_workload("resnet-18").operations if op.name == "maxpool")
    assert (pool.elements, pool.passes) == (56 * 56 * 64 * 9, 1)


def test_a_linear_layer_after_a_feature_map_takes_it_flattened(load):
    work = load(["op: conv, name: c, in: [6, 5, 2], out: 4, kernel: 3", "op: gemm, name: fc, n: 10"], batch=3)
    fc = work.gemms[1]
    assert (fc.m, fc.k, fc.n) == (3, 4 * 3 * 4, 10)


def test_a_map_read_whole_and_flattened_is_quantized_once(load):
    rows = [
        "op: conv, name: c, in: [4, 4, 2], out: 3, kernel: 1",
        "op: gemm, name: whole, n: 5",
        "op: conv, name: d, input: c, out: 2, kernel: 3",
    ]
    work = load(rows)
    assert [op.name for op in work.operations] == ["input.quantize", "c", "c.quantize", "whole", "d"]
    assert work.gemms[1].activations.shape == (1, 48)
    assert work.gemms[2].activations.shape == (1, 4, 4, 3)
    assert work.gemms[1].activations.name == work.gemms[2].activations.name == "c.output.quantized"


def test_padding_is_all_sides_or_pairs_or_four_sides(load):
    rows = "op: conv, name: c, in: [8, 8, 2], out: 4, kernel: 3, padding: {}"
    shapes = [load([rows.format(p)]).tensors["c.output"].shape for p in ("1", "[1, 0]", "[2, 0, 1, 1]")]
    assert shapes == [(1, 8, 8, 4), (1, 8, 6, 4), (1, 8, 8, 4)]


def test_parameters_count_biases_and_batch_norms(load):
    row = "op: conv, name: c, in: [8, 8, 2], out: 4, kernel: 3"
    assert load([row]).parameters == 72
    assert load([row + ", bias: true"]).parameters == 76
    assert load([row + ", norm: batch"]).parameters == 80
    assert load([row + ", norm: batch, bias: true"]).parameters == 84


def test_flatten_lets_scale_groups_cross_kernel_positions(load):
    row = "op: conv, name: c, in: [8, 8, 96], out: 4, kernel: 3"
    apart, across = load([row], weights="int4_g128"), load([row + ", flatten: true"], weights="int4_g128")
    assert apart.tensors["c.weight"].group_span == 96
    assert across.tensors["c.weight"].group_span == 0
    assert apart.tensors["c.weight"].storage_bits > across.tensors["c.weight"].storage_bits


def test_attention_is_two_products_and_a_softmax(load):
    work = load(
        ["op: attention, name: a, heads: 8, kv_heads: 2, head_dim: 16, queries: 4, keys: 32"], batch=3
    )
    scores, context = work.gemms
    assert (scores.m, scores.k, scores.n, scores.batch, scores.weight_reuse) == (4, 16, 32, 24, 4)
    assert (context.m, context.k, context.n, context.batch, context.weight_reuse) == (4, 32, 16, 24, 4)
    assert next(op.elements for op in work.operations if op.op == "softmax") == 24 * 4 * 32


def test_attention_reads_the_rows_that_it_names(load):
    rows = [
        "op: gemm, name: q, input: input, n: 64",
        "op: gemm, name: k, input: input, n: 16",
        "op: gemm, name: v, input: input, n: 16",
        "op: attention, name: a, heads: 8, kv_heads: 2, head_dim: 8, queries: 5, keys: 5, "
        "query: q, key: k, value: v",
        "op: gemm, name: o, n: 32",
        "op: add, name: sum, with: input",
        "op: layernorm, name: norm",
    ]
    work = load(rows, head="name: net\ninput: [5, 32]\n", batch=2)
    writers = {op.output.name: op for op in work.operations}
    assert writers["a.key"].inputs[0].name == "k.output"
    assert work.parameters == 32 * 64 + 2 * 32 * 16 + 64 * 32 + 64
    assert work.gemms[-1].m == 10


def test_independent_layers_have_inputs_of_their_own(load):
    work = load(["op: gemm, name: a, m: 4, k: 8, n: 2", "op: gemm, name: b, input: new, m: 3, k: 5, n: 7"])
    assert [(op.m, op.k, op.n) for op in work.gemms] == [(4, 8, 2), (3, 5, 7)]
    assert "b.input" in work.tensors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["op: gemm, name: a, n: 2"], r"operations\[0\].*m and k"),
        (["op: gemn, name: a, n: 2"], r"operations\[0\]\.op.*did you mean gemm"),
        (["op: gemm, name: a, m: 2, k: 2, n: 2, kk: 1"], r"operations\[0\]\.kk: no key of this name"),
        (["op: gemm, name: a, m: 2, k: 2"], r"operations\[0\]\.n: this key is missing"),
        (["op: gemm, name: a, m: 2, k: 2, n: 2", "op: gemm, name: a, n: 2"], r"operations\[1\]\.name.*taken"),
        (["op: gemm, name: a, m: 2, k: 2, n: 2", "op: gemm, name: b, k: 3, n: 2"], r"operations\[1\]\.k"),
        (
            ["op: gemm, name: a, m: 2, k: 2, n: 2", "op: relu, name: b, input: c"],
            r"operations\[1\]\.input.*found 'c'",
        ),
        (
            ["op: conv, name: c, in: [8, 8, 3], out: 4, kernel: 3, groups: 2"],
            r"groups: must divide the in channels",
        ),
        (
            ["op: conv, name: c, in: [8, 8, 4], out: 3, kernel: 3, groups: 2"],
            r"groups: must divide the out channels",
        ),
        (["op: conv, name: c, in: [8, 8, 4], out: 3, kernel: 9"], r"kernel: the window does not fit"),
        (["op: conv, name: c, in: [8, 8, 4], out: 3, kernel: 3, padding: [1, 1, 1]"], r"padding"),
        (["op: conv, name: c, in: [8, 8], out: 3, kernel: 3"], r"operations\[0\]\.in:"),
        (["op: conv, name: c, in: [8, 8, 4], out: 3, kernel: 0"], r"operations\[0\]\.kernel"),
        (
            [
                "op: conv, name: c, in: [8, 8, 4], out: 3, kernel: 3",
                "op: conv, name: d, in: [8, 8, 3], out: 3, kernel: 3",
            ],
            r"operations\[1\].*another shape",
        ),
        (["op: relu, name: r, shape: [4, 4]", "op: max_pool, name: p, kernel: 2"], r"feature map"),
        (["op: add, name: r, shape: [4, 4]"], r"operations\[0\]\.with.*second operand"),
        (
            ["op: relu, name: r, shape: [4, 4]", "op: relu, name: s, with: r"],
            r"operations\[1\]\.with.*one operand",
        ),
        (["op: attention, name: a, heads: 3, kv_heads: 2, head_dim: 4, queries: 1, keys: 1"], r"kv_heads"),
        (["op: relu, name: input, shape: [4, 4]"], r"taken"),
    ],
)
def test_a_faulty_row_is_named_with_its_key(load, rows, message):
    with pytest.raises(InputError, match=message) as caught:
        load(rows)
    assert caught.value.file.endswith("net.yaml")


def test_activations_after_a_row_are_vector_work(load):
    work = load(
        ["op: conv, name: c, in: [4, 4, 2], out: 3, kernel: 1, activation: gelu", "op: gemm, name: f, n: 2"]
    )
    gelu = next(op for op in work.operations if op.name == "c.gelu")
    assert (gelu.op, gelu.elements, gelu.passes) == ("gelu", 48, 2)
    assert isinstance(work.operations[-1], Gemm)
    assert work.operations[-2].inputs[0].name == "c.gelu.output"


def test_a_scale_per_pixel_is_refused_where_a_window_spans_pixels(load):
    row = "op: conv, name: c, in: [8, 8, 4], out: 4, kernel: {}"
    assert load([row.format(1)], activations="int8_token").gemms[0].activations.format == "int8_token"
    grouped = load([row.format(3)], activations="int8_g4").gemms[0].activations
    assert (grouped.format, grouped.group_span) == ("int8_g4", 4)
    with pytest.raises(InputError, match=r"c\.activations: .*factor out"):
        load([row.format(3)], activations="int8_token")


def test_scale_groups_of_a_map_lie_within_the_groups_of_the_convolution(load):
    row = "op: conv, name: c, in: [8, 8, 64], out: 64, kernel: 3, groups: 4"
    fits = load([row], activations="int8_g8").gemms[0].activations
    assert fits.group_span == 16
    assert fits.storage_bits == get_format("int8_g8").storage_bits(8 * 8, 64)
    with pytest.raises(InputError, match=r"groups of 32 channels cross the convolution's groups of 16"):
        load([row], activations="int8_g32")


def test_only_weights_with_scale_groups_have_a_span(load):
    row = "op: conv, name: c, in: [8, 8, 64], out: 64, kernel: 3"
    spans = [load([row], weights=name).gemms[0].weights.group_span for name in ("int4_g32", "int8_channel")]
    assert spans == [64, 0]
