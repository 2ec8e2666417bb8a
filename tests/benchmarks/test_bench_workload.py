"""How long it takes to build a workload and to draw its values."""

from simulator.workload import load_workload, tensor_values


def test_bench_build_llama_2_7b(benchmark):
    work = benchmark(load_workload, "llama-2-7b", decode=512)
    assert len(work.operations) > 500


def test_bench_build_resnet_18(benchmark):
    assert benchmark(load_workload, "resnet-18").parameters == 11689512


def test_bench_draw_a_layer_of_normals(benchmark):
    work = load_workload("llama-2-7b")
    values = benchmark(tensor_values, work, "layers.0.attention.query.weight")
    assert values.shape == (4096, 4096)
