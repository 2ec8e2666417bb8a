"""How long it takes to build a workload and to draw its values."""

from simulator.workload import load_workload, operand_blocks, tensor_values


def test_bench_build_llama_2_7b(benchmark):
    work = benchmark(load_workload, "llama-2-7b", decode=512)
    assert len(work.operations) > 500


def test_bench_build_resnet_18(benchmark):
    assert benchmark(load_workload, "resnet-18").parameters == 11689512


def test_bench_draw_a_layer_of_normals(benchmark):
    work = load_workload("llama-2-7b")
    values = benchmark(tensor_values, work, "layers.0.attention.query.weight")
    assert values.shape == (4096, 4096)


def test_bench_operands_of_a_layer_of_llama_2_7b(benchmark):
    work = load_workload("llama-2-7b", prefill=256, layers=1)

    def draw():
        return sum(
            block.codes.size
            for gemm in work.gemms
            for operand in ("weights", "activations")
            for block in operand_blocks(work, gemm, operand, 32)
        )

    assert benchmark(draw) > 2**27
