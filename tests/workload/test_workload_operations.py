"""The operation list: shapes, dependences, and the bits of a tensor."""

from dataclasses import replace

import pytest

from simulator.errors import InputError
from simulator.formats import get_format
from simulator.workload import Conv, Gemm, TensorRef, VectorOp, Workload, gemm_workload, load_workload
from simulator.workload.vector import passes, vector_kinds


def rebuilt(workload: Workload, operations) -> Workload:
    return replace(workload, operations=tuple(operations))


def test_a_gemm_workload_is_one_product_of_operands_in_their_formats():
    work = gemm_workload(3, 256, 5, weights="int4_g128", activations="int8_token")
    assert [op.name for op in work.operations] == ["gemm"]
    gemm = work.gemms[0]
    assert (gemm.m, gemm.k, gemm.n, gemm.batch, gemm.macs) == (3, 256, 5, 1, 3 * 256 * 5)
    assert (gemm.weights.shape, gemm.activations.shape, gemm.output.shape) == ((5, 256), (3, 256), (3, 5))
    assert (gemm.weights.format, gemm.activations.format, gemm.output.format) == (
        "int4_g128",
        "int8_token",
        "fp16",
    )
    assert (gemm.weights.static, gemm.activations.static) == (True, False)
    assert work.parameters == 5 * 256


def test_a_batch_of_products_has_weights_of_its_own():
    gemm = gemm_workload(3, 4, 5, batch=7).gemms[0]
    assert (gemm.m, gemm.batch, gemm.weight_reuse) == (3, 7, 1)
    assert gemm.weights.shape == (35, 4)
    assert gemm.activations.shape == (21, 4)
    assert gemm.output.shape == (21, 5)


@pytest.mark.parametrize("key", ["m", "k", "n", "batch"])
@pytest.mark.parametrize("value", [0, -1, 2**31 + 1, 1.0, True, "8", None])
def test_a_gemm_dimension_out_of_range_is_named(key, value):
    sizes = {"m": 8, "k": 8, "n": 8, "batch": 1, key: value}
    with pytest.raises(InputError, match=rf"^{key}: "):
        gemm_workload(sizes["m"], sizes["k"], sizes["n"], batch=sizes["batch"])


def test_more_macs_than_a_counter_holds_are_refused():
    with pytest.raises(InputError, match="multiply-accumulates"):
        gemm_workload(2**31, 2**20, 2**20)


def test_an_unknown_format_names_the_operand_and_the_nearest():
    with pytest.raises(InputError, match=r"formats\.weights: .*int4"):
        gemm_workload(8, 8, 8, weights="int4_g12x")


def test_no_quantize_operation_where_formats_agree():
    work = gemm_workload(3, 4, 5, activations="fp16", output="fp16")
    assert [op.name for op in work.operations] == ["gemm"]


def test_a_format_without_scales_is_cast_and_one_with_scales_needs_a_pass_for_the_maximum():
    def first(activations):
        operations = load_workload("minilm-l6", prefill=3, activations=activations).operations
        return next(op for op in operations if op.op in ("cast", "quantize"))

    cast, quantize = first("bf16"), first("int8")
    assert (cast.op, cast.passes) == ("cast", 1)
    assert (quantize.op, quantize.passes, quantize.elements) == ("quantize", 2, 3 * 384)


def test_a_tensor_is_defined_before_it_is_used():
    work = load_workload("minilm-l6")
    swapped = list(work.operations)
    swapped[3], swapped[4] = swapped[4], swapped[3]
    with pytest.raises(InputError, match="writes only later"):
        rebuilt(work, swapped)


def test_a_cycle_is_refused():
    a, b = TensorRef("a", (4, 4), "fp16"), TensorRef("b", (4, 4), "fp16")
    circle = (VectorOp("first", "relu", 16, 1, (b,), a), VectorOp("second", "relu", 16, 1, (a,), b))
    with pytest.raises(InputError, match="second writes only later"):
        rebuilt(gemm_workload(4, 4, 4), circle)


def test_names_and_written_tensors_are_unique():
    work = gemm_workload(4, 4, 4, activations="fp16")
    gemm = work.gemms[0]
    with pytest.raises(InputError, match="two operations have this name"):
        rebuilt(work, (gemm, gemm))
    with pytest.raises(InputError, match="two operations write this tensor"):
        rebuilt(work, (gemm, replace(gemm, name="again")))


def test_an_empty_workload_is_refused():
    with pytest.raises(InputError, match="at least one operation"):
        rebuilt(gemm_workload(4, 4, 4), ())


def test_a_vector_operation_has_elements_and_ends():
    work = load_workload("minilm-l6")
    index, vector = next((i, op) for i, op in enumerate(work.operations) if op.op == "layernorm")
    for elements in (0, 2**62):
        with pytest.raises(InputError, match=r"norm: .*out of range"):
            rebuilt(work, (*work.operations[:index], replace(vector, elements=elements)))


@pytest.mark.parametrize("operand", ["weights", "activations", "output"])
def test_an_operand_of_the_wrong_size_is_refused(operand):
    work = gemm_workload(4, 8, 16, activations="fp16")
    gemm = work.gemms[0]
    tensor = getattr(gemm, operand)
    wrong = replace(gemm, **{operand: replace(tensor, shape=(tensor.shape[0] + 1, tensor.shape[1]))})
    with pytest.raises(InputError, match=rf"gemm\.{operand}"):
        rebuilt(work, (wrong,))


@pytest.mark.parametrize("name", ["llama-2-7b", "bert-base", "minilm-l6", "resnet-18", "mobilenet-v1"])
def test_every_operation_of_a_shipped_workload_has_distinct_tensors_in_the_table(name):
    work = load_workload(name)
    for op in work.operations:
        for ref in (*op.inputs, op.output):
            assert work.tensors[ref.name].size == ref.size
    assert work.macs == sum(op.m * op.k * op.n * op.batch for op in work.operations if isinstance(op, Gemm))
    assert all(op.passes == passes(op.op) for op in work.operations if isinstance(op, VectorOp))


def test_the_table_of_passes_says_what_each_pass_does_and_where_it_is_from():
    for kind in vector_kinds().values():
        assert len(kind.steps) == kind.passes, kind.op
        assert all(kind.steps)
        assert kind.source
    assert passes("softmax") == 4
    with pytest.raises(InputError, match="did you mean softmax"):
        passes("softmx")


@pytest.mark.parametrize("name", ["int8", "int8_channel", "int4_g128", "mxfp4", "nvfp4", "fp16"])
def test_bits_of_a_matrix_are_the_formats_own_count(name):
    tensor = TensorRef("w", (96, 300), name)
    assert tensor.storage_bits == get_format(name).storage_bits(96, 300)


def test_scale_groups_of_a_convolution_end_at_each_kernel_position():
    whole = TensorRef("w", (64, 9 * 96), "int4_g128")
    by_position = replace(whole, group_span=96)
    format = get_format("int4_g128")
    assert whole.storage_bits == 64 * (864 * 4 + 7 * format.group_bits)
    assert by_position.storage_bits == 64 * (864 * 4 + 9 * format.group_bits)


def test_a_row_scale_of_a_convolution_is_one_a_channel():
    format = get_format("int8_channel")
    tensor = TensorRef("w", (64, 9 * 96), "int8_channel", group_span=96)
    assert tensor.storage_bits == 64 * (864 * 8 + format.row_bits)


def test_output_of_a_convolution_is_the_floor_formula():
    conv = Conv(224, 224, 3, 64, (7, 7), (2, 2), (3, 3, 3, 3))
    assert (conv.out_height, conv.out_width) == (112, 112)
    same = Conv(224, 225, 3, 32, (3, 3), (2, 2), (0, 1, 0, 1))
    assert (same.out_height, same.out_width) == (112, 112)
