"""Blocks of rows: they cover an operand once, and hold the codes of the tensor that the array reads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.config import dump_yaml
from simulator.errors import InputError
from simulator.formats import dequantize, get_format, quantize
from simulator.workload import (
    gemm_workload,
    im2col,
    load_workload,
    operand_blocks,
    sample_blocks,
    tensor_values,
)

FORMATS = ("int8", "int8_asym", "int8_channel", "int4_g32", "int4_g32_asym", "mxfp4", "nvfp4", "e4m3")


def block_values(blocks):
    """Every drawn row, dequantized: (rows, k)."""
    return [dequantize(block).reshape(-1, blocks.k) for block in blocks]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 45), st.integers(1, 50), st.integers(1, 400))
def test_blocks_cover_each_row_once_and_keep_within_tiles_and_entries(rows, batch, block, tile, limit):
    work = gemm_workload(3, 4, rows, batch=batch)
    gemm = work.gemms[0]
    sample = operand_blocks(work, gemm, "weights", block, tile_rows=tile, limit=limit).sample
    spans = [sample.span(index) for index in range(sample.blocks)]
    assert [row for span in spans for row in span] == list(range(rows * batch))
    for span in spans:
        assert len(span) <= block
        assert span.start // rows == span[-1] // rows
        assert span.start % rows // tile == span[-1] % rows // tile
    # a block ends early only where its tile or its entry does
    short = [span for span in spans if len(span) < block]
    assert all(span.stop % rows % tile == 0 or span.stop % rows == 0 for span in short)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 20), st.integers(1, 50), st.integers(1, 300))
def test_what_was_not_drawn_is_stood_for_in_turn_by_full_blocks(rows, batch, block, tile, limit):
    work = gemm_workload(3, 4, rows, batch=batch)
    sample = operand_blocks(work, work.gemms[0], "weights", block, tile_rows=tile, limit=limit).sample
    everything = np.arange(sample.blocks)
    stand_ins = sample.stand_ins(everything)
    drawn = sample.sampled[stand_ins]
    assert np.array_equal(drawn[sample.sampled], sample.sampled)
    lengths = [len(sample.span(int(index))) for index in everything]
    assert all(lengths[found] >= length for found, length in zip(drawn, lengths, strict=True))
    others = np.setdiff1d(everything, sample.sampled)
    times = np.bincount(stand_ins[others], minlength=sample.sampled.size)
    assert times.max() - times.min() <= 1
    rows_drawn = sum(lengths[index] for index in sample.sampled)
    assert sample.share == pytest.approx(rows_drawn / (rows * batch))
    assert rows_drawn * 4 <= max(limit, sample.block_rows * 4)
    if rows * batch * 4 <= limit:
        assert np.array_equal(sample.sampled, everything)


@pytest.mark.parametrize("format", FORMATS)
def test_blocks_of_a_whole_operand_are_the_quantized_tensor(format):
    work = gemm_workload(40, 70, 90, weights=format, activations="int8_token")
    gemm = work.gemms[0]
    whole = quantize(tensor_values(work, "gemm.weight"), format)
    blocks = operand_blocks(work, gemm, "weights", 32)
    assert [block.codes.shape for block in blocks] == [(32, 70), (32, 70), (26, 70)]
    assert np.array_equal(np.concatenate([block.codes for block in blocks]), whole.codes)
    assert np.array_equal(np.concatenate(block_values(blocks)), dequantize(whole))
    assert np.array_equal(blocks[2].codes, whole.codes[64:])
    assert np.array_equal(blocks.rows(1, 3).codes, whole.codes[32:])
    assert np.array_equal(blocks.stand_ins(0), [0, 1, 2])
    with pytest.raises(IndexError):
        blocks[3]


@pytest.mark.parametrize("format", ["int8_channel", "int4_g32_asym", "mxfp4", "fp16"])
def test_a_sampled_block_has_the_codes_that_it_has_in_the_whole(format):
    work = gemm_workload(40, 70, 900, weights=format)
    blocks = operand_blocks(work, work.gemms[0], "weights", 32, limit=32 * 70 * 5)
    whole = quantize(tensor_values(work, "gemm.weight"), format)
    assert len(blocks) == 5
    assert blocks.sample.share == 5 * 32 / 900
    for number, block in zip(blocks.sample.sampled, blocks, strict=True):
        span = blocks.sample.span(int(number))
        assert np.array_equal(block.codes, whole.codes[span.start : span.stop])
    again = operand_blocks(work, work.gemms[0], "weights", 32, limit=32 * 70 * 5)
    assert np.array_equal(again.sample.sampled, blocks.sample.sampled)
    assert np.array_equal(again[3].codes, blocks[3].codes)


@pytest.mark.parametrize("format", ["int8", "nvfp4"])
def test_one_scale_of_a_sampled_tensor_is_that_of_all_drawn_rows(format):
    work = gemm_workload(40, 64, 900, weights=format)
    blocks = operand_blocks(work, work.gemms[0], "weights", 32, limit=32 * 64 * 5)
    drawn = np.concatenate([blocks.sample.span(int(number)) for number in blocks.sample.sampled])
    expected = quantize(tensor_values(work, "gemm.weight")[drawn], format)
    assert np.array_equal(np.concatenate(block_values(blocks)), dequantize(expected))


def test_products_of_a_batch_have_rows_of_their_own():
    work = gemm_workload(10, 16, 12, batch=3)
    gemm = work.gemms[0]
    for operand, rows in (("weights", 12), ("activations", 10)):
        blocks = operand_blocks(work, gemm, operand, 8)
        values = quantize(tensor_values(work, getattr(gemm, operand).name), "int8").codes
        for batch in range(3):
            first, second = blocks.stand_ins(batch)
            entry = values[batch * rows : (batch + 1) * rows]
            assert np.array_equal(blocks[first].codes, entry[:8])
            assert np.array_equal(blocks[second].codes, entry[8:])


def test_heads_that_share_keys_share_their_blocks(tmp_path):
    model = {
        "family": "llama",
        "hidden": 64,
        "layers": 1,
        "heads": 8,
        "kv_heads": 2,
        "intermediate": 96,
        "vocab": 99,
    }
    file = tmp_path / "net.yaml"
    file.write_text(dump_yaml({"name": "net", "model": model}))
    work = load_workload(file, prefill=20, batch=2, kv="int8_token", activations="int8_token")
    scores, context = (gemm for gemm in work.gemms if gemm.op == "attention")
    keys = operand_blocks(work, scores, "weights", 16)
    assert np.array_equal(keys.stand_ins(0), keys.stand_ins(3))
    assert np.array_equal(keys.stand_ins(15), [6, 7])
    cache = quantize(tensor_values(work, "layers.0.attention.key.cache"), "int8_token").codes
    assert np.array_equal(keys[2].codes, cache.reshape(4, 20, 8)[1, :16])
    shares = operand_blocks(work, context, "activations", 16)
    assert len(shares) == 16 * 2
    assert np.allclose(dequantize(shares[5]).sum(axis=1), 1, atol=0.1)  # rows have been through the softmax


def conv_workload(tmp_path, row, shape, formats):
    file = tmp_path / "net.yaml"
    document = {
        "name": "net",
        "operations": [{"op": "conv", "name": "c", "in": shape, **row}],
        "formats": formats,
    }
    file.write_text(dump_yaml(document))
    return load_workload(file, batch=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_activations_of_a_convolution_are_the_im2col_matrix_of_the_quantized_map(tmp_path_factory, data):
    groups = data.draw(st.sampled_from([1, 2, 3]))
    cin = data.draw(st.sampled_from([4, 6, 8]))
    kernel = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))
    grouped = [f"int8_g{size}" for size in (2, 3, 4) if groups == 1 or cin % size == 0]
    tokens = ["int8_token"] if kernel == [1, 1] else []
    format = data.draw(st.sampled_from(["int8", "int8_asym", "e4m3", *grouped, *tokens]))
    row = {
        "out": 3 * groups,
        "groups": groups,
        "kernel": kernel,
        "stride": data.draw(st.integers(1, 2)),
        "padding": data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)),
        "dilation": data.draw(st.integers(1, 2)),
    }
    shape = [data.draw(st.integers(5, 7)), data.draw(st.integers(5, 7)), cin * groups]
    work = conv_workload(
        tmp_path_factory.mktemp("conv"),
        row,
        shape,
        {"activations": format, "weights": "int8", "output": "fp16"},
    )
    gemm = work.gemms[0]
    values = tensor_values(work, gemm.activations.name).reshape(2, *shape)
    expected = im2col(dequantize(quantize(values, format)), gemm.conv).reshape(-1, gemm.k)
    limit = data.draw(st.sampled_from([2**24, values.size, 7 * gemm.k]))  # all; the map fits; neither
    blocks = operand_blocks(work, gemm, "activations", 7, limit=limit)
    drawn = np.concatenate([blocks.sample.span(int(number)) for number in blocks.sample.sampled])
    if (
        values.size > limit and get_format(format).tensor_bits
    ):  # one scale: that of the pixels that were drawn
        numbers = np.arange(1, 2 * shape[0] * shape[1] + 1).reshape(2, *shape[:2], 1)
        under = im2col(np.repeat(numbers, groups, axis=3), gemm.conv).reshape(gemm.batch * gemm.m, -1)[drawn]
        reached = values.reshape(-1, shape[2])[np.setdiff1d(under, 0) - 1]
        scaled = np.zeros_like(values).reshape(-1, shape[2])
        scaled[np.setdiff1d(under, 0) - 1] = dequantize(quantize(reached, format))
        expected = im2col(scaled.reshape(values.shape), gemm.conv).reshape(-1, gemm.k)
    assert np.array_equal(np.concatenate(block_values(blocks)), expected[drawn])
    if limit == 2**24:
        assert np.array_equal(drawn, np.arange(gemm.batch * gemm.m))


def test_padding_has_the_code_of_zero(tmp_path):
    formats = {"activations": "int8_asym", "weights": "int8"}
    row = {"out": 4, "kernel": 3, "padding": 1}
    work = conv_workload(tmp_path, row, [4, 4, 8], formats)
    block = operand_blocks(work, work.gemms[0], "activations", 1)[0]
    assert (block.codes.reshape(9, 8)[0] == block.zero_points).all()


@pytest.mark.parametrize("format", ["int4_g4", "int4_g3", "int8_channel", "int8"])
def test_weights_of_a_convolution_start_their_groups_at_kernel_positions(tmp_path, format):
    row = {"out": 6, "kernel": [2, 3], "groups": 2}
    work = conv_workload(tmp_path, row, [5, 5, 16], {"weights": format, "activations": "int8"})
    values = tensor_values(work, "c.weight")
    grouped = values.reshape(6, 6, 8) if "_g" in format else values
    expected = dequantize(quantize(grouped, format)).reshape(6, 48)
    blocks = operand_blocks(work, work.gemms[0], "weights", 2)
    assert len(blocks) == 4  # two and one of each group
    assert np.array_equal(np.concatenate(block_values(blocks)), expected)


def test_a_map_that_is_flattened_is_one_row(tmp_path):
    rows = [
        {"op": "conv", "name": "c", "in": [4, 4, 3], "out": 5, "kernel": 1},
        {"op": "gemm", "name": "fc", "n": 7},
    ]
    file = tmp_path / "net.yaml"
    file.write_text(dump_yaml({"name": "net", "operations": rows}))
    work = load_workload(file, batch=2)
    blocks = operand_blocks(work, work.gemms[1], "activations", 8)
    assert np.array_equal(
        blocks[0].codes, quantize(tensor_values(work, "c.output"), "int8").codes.reshape(2, 80)
    )


def test_iteration_in_pieces_and_access_to_one_block_agree(monkeypatch):
    work = gemm_workload(4, 50, 100, weights="int4_g32")
    blocks = operand_blocks(work, work.gemms[0], "weights", 8)
    single = [blocks[index].codes for index in range(len(blocks))]
    for piece in (1, 8 * 50 * 3, 2**22):
        monkeypatch.setattr("simulator.workload.blocks.PIECE", piece)
        assert all(np.array_equal(a, b.codes) for a, b in zip(single, blocks, strict=True))


def test_a_sampled_layer_of_llama_stays_below_the_limit():
    work = load_workload("llama-2-7b", prefill=256, layers=1)
    gate = next(gemm for gemm in work.gemms if gemm.name == "layers.0.mlp.gate")
    blocks = operand_blocks(work, gate, "weights", 32)
    assert len(blocks) == 2**24 // (32 * 4096)
    assert blocks.sample.blocks == 344
    assert blocks[100].codes.shape == (32, 4096)
    everything = operand_blocks(work, gate, "activations", 32)
    assert everything.sample.share == 1.0


def test_blocks_of_a_tensor_by_name():
    work = gemm_workload(4, 50, 100)
    sample = sample_blocks(work, "gemm.weight", 32, limit=32 * 50)
    assert (sample.blocks, sample.sampled.size, sample.seed) == (4, 1, 0)
    with pytest.raises(InputError, match=r"did you mean gemm\.weight"):
        sample_blocks(work, "gemm.wait", 32)
    with pytest.raises(InputError, match="did you mean weights"):
        operand_blocks(work, work.gemms[0], "weight", 32)
