"""Block formats through arrays: results of the reference engine against the oracle, both engines on the same integers,
and the shipped accelerators in their formats."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from block_oracle import LAYOUTS, oracle, rounded
from pe_oracles import fp32

import simulator as sim
from simulator.arch import load_accelerator
from simulator.array.rescale import operand
from simulator.engine import fast, reference
from simulator.engine.reference import Operands
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, quantize
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

M, N = 3, 5


def machine(dataflow: str, k: int, **pe: Any) -> Any:
    return load_accelerator(
        {
            "name": "small",
            "clock_ghz": 1.0,
            "array": {"dataflow": dataflow, "rows": 4, "cols": 3, "rescale_per_cycle": 0},
            "pe": {"family": "block_dot", **pe},
            "buffers": {
                "weights": {"kib": 8, "banks": 2, "width_bits": 128},
                "activations": {"kib": 8, "banks": 2, "width_bits": 256},
                "outputs": {"kib": 1, "banks": 2, "width_bits": 128, "ports": "1r1w"},
            },
            "mapping": {"tile_k": k},
            "vector": {"lanes": 4},
            "dram": {"bandwidth_gb_per_s": 8.0, "latency_ns": 5},
        }
    )


def scale_at(tensor: QuantizedTensor, row: int, k: int) -> Fraction:
    size = tensor.format.group_size
    return Fraction(float(tensor.scales[row, k // size])) if size else Fraction(1)  # type: ignore[index]


def row_scale(tensor: QuantizedTensor, row: int) -> Fraction:
    """What the output stage multiplies by."""
    of_rows = tensor.row_scales if tensor.format.group_size else tensor.scales
    scale = Fraction(1) if of_rows is None else Fraction(float(of_rows.reshape(-1)[row]))
    return scale * Fraction(float(1 if tensor.tensor_scale is None else tensor.tensor_scale))


def steps_of(
    accelerator: Any, w: QuantizedTensor, a: QuantizedTensor, j: int, i: int, low: int, high: int
) -> Any:
    """(activations, weights, scale) of the steps over K [low, high): no step crosses the edge of a group."""
    lanes = accelerator.element.lanes
    sizes = [tensor.format.group_size for tensor in (w, a) if tensor.format.group_size]
    edges = sorted({low, high} | {k for size in sizes for k in range(0, high, size) if k > low})
    values = [tensor.format.element_values(tensor.codes) for tensor in (w, a)]
    steps = []
    for begin, end in pairwise(edges):
        for k in range(begin, end, lanes):
            here, padding = slice(k, min(k + lanes, end)), [0.0] * (lanes - min(lanes, end - k))
            scale = scale_at(w, j, k) * scale_at(a, i, k)
            steps.append(
                (values[1][i, here].tolist() + padding, values[0][j, here].tolist() + padding, scale)
            )
    return steps


MX = {
    "weights": ["fp8_e4m3", "fp4_e2m1", "int8"],
    "activations": ["fp8_e4m3", "fp8_e5m2", "int8"],
    "scales": "e8m0",
}
FP8 = {"weights": "fp8_e4m3", "activations": "fp8_e4m3", "acc_format": "e8m13", "acc_rounding": "truncate"}


@pytest.mark.parametrize(
    ("pe", "weights", "activations"),
    [
        (MX | {"lanes": 32, "align_window": 22}, "mxfp8_e4m3", "mxfp8_e5m2"),
        (
            MX | {"lanes": 8, "align_window": 24, "fuse_accumulator": True, "sticky": True},
            "mxfp4",
            "mxfp8_e4m3",
        ),
        (MX | {"lanes": 16, "lanes_per_alignment": 4, "pipeline_depth": 3}, "mxint8", "mxint8"),
        (MX | {"lanes": 8, "align_window": 22}, "mxfp4", "fp8_e4m3_token"),
        (
            {"weights": "fp4_e2m1", "activations": "fp4_e2m1", "lanes": 16, "scales": "fp8_e4m3"},
            "nvfp4",
            "nvfp4",
        ),
        ({"weights": "s3", "activations": "s7", "lanes": 16, "scales": "e8"}, "msfp12", "msfp16"),
        (
            FP8 | {"lanes": 4, "align_window": 13, "fuse_accumulator": True},
            "fp8_e4m3_channel",
            "fp8_e4m3_token",
        ),
    ],
)
@pytest.mark.parametrize("dataflow", ["os", "broadcast"])
@pytest.mark.parametrize("tile_k", [72, 32])
def test_results_equal_the_oracle_and_engines_agree(
    pe: dict[str, Any], weights: str, activations: str, dataflow: str, tile_k: int
) -> None:
    """72 values of K in one tile, and in tiles of 32, whose sums the output buffer's adder joins in order."""
    k = 72
    accelerator = machine(dataflow, tile_k, **pe)
    plan = plan_gemm(gemm_workload(M, k, N, weights=weights, activations=activations).gemms[0], accelerator)
    random = np.random.default_rng(13)
    w = quantize(random.normal(size=(N, k)).astype(np.float32), weights)
    a = quantize(random.laplace(size=(M, k)).astype(np.float32), activations)
    assert accelerator.element.scales_inside(w.format, a.format) == (pe.get("scales") is not None)
    operands = Operands(operand(w, 1, N), operand(a, 1, M), accelerator.element.function(w.format, a.format))
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    elements = (w.format.element, a.format.element)
    for i in range(M):
        for j in range(N):
            total = Fraction(0)
            for low in range(0, k, tile_k):
                part = oracle(
                    accelerator.element,
                    elements,
                    steps_of(accelerator, w, a, j, i, low, min(low + tile_k, k)),
                )
                total = joined(accelerator.element, total + part) if low else part
            expected = fp32(total * row_scale(w, j) * row_scale(a, i))
            assert Fraction(float(results[0, i, j])) == expected
    again = fast.simulate_gemm(plan, "gemm", "gemm")
    assert (again.cycles, again.counts) == (record.cycles, record.counts)


def joined(pe: Any, total: Fraction) -> Fraction:
    """The adder of the output buffer: the accumulator's format and rounding."""
    precision, emin = LAYOUTS[pe.acc_format]
    return rounded(total, precision, emin, truncate=pe.acc_rounding == "truncate")


@pytest.mark.parametrize(
    ("weights", "activations"), [("int4_g16_su6", "int8_g16_su6"), ("int4_g16_su4", "int4_g16_su4")]
)
def test_vs_quant_sums_integers(weights: str, activations: str) -> None:
    """Codes, group scales and their rounded products are integers; floats come at the output."""
    k = 48
    shipped = load_accelerator("vs_quant").element
    accelerator = machine(
        "broadcast", k, **{**shipped.model_dump(exclude_none=True), "weights": list(shipped.weights)}
    )
    plan = plan_gemm(gemm_workload(M, k, N, weights=weights, activations=activations).gemms[0], accelerator)
    random = np.random.default_rng(17)
    w = quantize(random.normal(size=(N, k)).astype(np.float32), weights)
    a = quantize(random.laplace(size=(M, k)).astype(np.float32), activations)
    operands = Operands(operand(w, 1, N), operand(a, 1, M), accelerator.element.function(w.format, a.format))
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    assert w.scales is not None
    assert a.scales is not None
    drop = sum(x.format.scale_element.bits for x in (w, a)) - 6  # type: ignore[union-attr]
    for i in range(M):
        for j in range(N):
            total = 0
            for group in range(3):
                here = slice(16 * group, 16 * group + 16)
                dot = int((w.codes[j, here].astype(int) * a.codes[i, here].astype(int)).sum())
                product = Fraction(int(w.scales[j, group]) * int(a.scales[i, group]), 2**drop)
                total += dot * round(product) * 2**drop
            expected = fp32(total * row_scale(w, j) * row_scale(a, i))
            assert Fraction(float(results[0, i, j])) == expected
    again = fast.simulate_gemm(plan, "gemm", "gemm")
    assert (again.cycles, again.counts) == (record.cycles, record.counts)


def test_two_levels_with_groups_promote_at_their_ends() -> None:
    """Groups of 12 in steps of 4, promotion every second step: after 8, and after 12 with the scales."""
    k, form = 36, "fp8_e4m3_g12"
    accelerator = machine(
        "broadcast", k, **FP8, lanes=4, align_window=13, fuse_accumulator=True, promote_every=2, scales="fp16"
    )
    plan = plan_gemm(gemm_workload(M, k, N, weights=form, activations=form).gemms[0], accelerator)
    random = np.random.default_rng(19)
    w = quantize(random.normal(size=(N, k)).astype(np.float32), form)
    a = quantize(random.laplace(size=(M, k)).astype(np.float32), form)
    operands = Operands(operand(w, 1, N), operand(a, 1, M), accelerator.element.function(w.format, a.format))
    _, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    first = accelerator.element.model_copy(update={"promote_every": None})
    elements = (w.format.element, a.format.element)
    for i in range(M):
        for j in range(N):
            promoted = Fraction(0)
            for low in range(0, k, 12):
                for part in (slice(low, low + 8), slice(low + 8, low + 12)):
                    steps = steps_of(accelerator, w, a, j, i, part.start, part.stop)
                    held = oracle(first, elements, [(x, y, Fraction(1)) for x, y, _ in steps])
                    promoted = fp32(promoted + held * scale_at(w, j, low) * scale_at(a, i, low))
            assert Fraction(float(results[0, i, j])) == promoted


def test_a_nan_scale_is_refused_with_its_meaning() -> None:
    values = np.ones((N, 64), np.float32)
    values[2, 40] = np.nan
    tensor = quantize(values, "mxint8")
    assert np.isnan(tensor.scales).any()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a scale is NaN or infinite, and so is every result of its group"):
        operand(tensor, 1, N)


def test_blocks_with_a_zero_sum_leave_the_accumulator_alone() -> None:
    form = "mxfp8_e4m3"
    accelerator = machine("broadcast", 64, **MX, lanes=32, align_window=22, fuse_accumulator=True)
    plan = plan_gemm(gemm_workload(1, 64, 1, weights=form, activations=form).gemms[0], accelerator)
    values = np.ones((1, 64), np.float32)
    values[:, 32:] = 0
    w, a = quantize(values, form), quantize(values * 3, form)
    operands = Operands(operand(w, 1, 1), operand(a, 1, 1), accelerator.element.function(w.format, a.format))
    _, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    assert results[0, 0, 0] == 96


SHIPPED = [
    ("mx_dot_product", "mxfp8_e4m3", "mxfp8_e4m3"),
    ("mx_dot_product", "mxfp6_e2m3", "mxfp8_e5m2"),
    ("mx_dot_product", "mxfp4", "mxfp4"),
    ("mx_dot_product", "mxint8", "mxint8"),
    ("nvfp4_dot_product", "nvfp4", "nvfp4"),
    ("nvfp4_dot_product", "nvint4", "nvint4"),
    ("msfp_dot_product", "msfp12", "msfp12"),
    ("msfp_dot_product", "msfp16", "msfp16"),
    ("vs_quant", "int4_g16_su4", "int8_g16_su6"),
    ("w4a16_dequantize", "int4_g128_asym", "fp16"),
    ("w4a16_dequantize", "bitmod_fp3_g128", "fp16"),
    ("fp8_two_level", "fp8_e4m3_channel", "fp8_e4m3_token"),
    ("fp8_two_level", "fp8_e4m3_g128", "fp8_e4m3_g128"),
]


@pytest.mark.parametrize(("arch", "weights", "activations"), SHIPPED)
def test_shipped_arrays_take_a_cycle_for_each_step(arch: str, weights: str, activations: str) -> None:
    """ceil(M/R) ceil(N/C) ceil(K/lanes), as arrays of dot-product units count, and the drain of the last fold."""
    accelerator = load_accelerator(arch)
    gemm = gemm_workload(256, 1024, 1056, weights=weights, activations=activations).gemms[0]
    array, lanes = accelerator.array, getattr(accelerator.element, "lanes", 1)
    ideal = 256 // array.rows * (1056 // array.cols) * (1024 // lanes)
    found = fast.simulate_gemm(plan_gemm(gemm, accelerator), "gemm", "gemm").compute_cycles
    assert ideal < found < ideal + 128


KV = {"w4a16_dequantize": "fp16", "vs_quant": "int8_g16_su6"}


PHASES = [("llama-2-7b", {"prefill": 256}), ("llama-2-7b", {"decode": 256}), ("minilm-l6", {})]


def runs(arch: str, weights: str, activations: str, workload: str, **more: int) -> None:
    kv = KV.get(arch, activations)
    report = sim.run(workload, arch, weights=weights, activations=activations, kv=kv, **more)
    assert report.cycles == report.layers["cycles"].sum() > 0
    assert report.energy_pj == pytest.approx(report.components["energy_pj"].sum())


@pytest.mark.parametrize(("arch", "weights", "activations"), SHIPPED)
@pytest.mark.parametrize(("workload", "phase"), PHASES)
def test_shipped_accelerators_run_two_layers_of_networks(
    arch: str, weights: str, activations: str, workload: str, phase: dict[str, int]
) -> None:
    runs(arch, weights, activations, workload, layers=2, **phase)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "weights", "activations"), SHIPPED)
@pytest.mark.parametrize(("workload", "phase"), PHASES)
def test_shipped_accelerators_run_networks(
    arch: str, weights: str, activations: str, workload: str, phase: dict[str, int]
) -> None:
    runs(arch, weights, activations, workload, **phase)


def test_decoding_shows_under_its_name() -> None:
    report = sim.gemm(64, 256, 64, arch="w4a16_dequantize", weights="int4_g128", activations="fp16")
    by_component = report.components.set_index("component")
    assert by_component.loc["weight_decoder", "energy_pj"] > 0
    assert by_component.loc["weight_decoder", "area_um2"] > 0


def test_decoded_groups_need_no_rescale_unit_and_equal_numpy_on_the_decoded_weights() -> None:
    accelerator = load_accelerator(
        "w4a16_dequantize", {"array.rows": 4, "array.cols": 3, "pe.accumulator": "fixed200"}
    )
    form, k = "int4_g16_asym", 40
    plan = plan_gemm(gemm_workload(M, k, N, weights=form, activations="fp16").gemms[0], accelerator)
    random = np.random.default_rng(23)
    w = quantize(random.normal(size=(N, k)).astype(np.float32), form)
    a = quantize(random.laplace(size=(M, k)).astype(np.float32), "fp16")
    arriving = accelerator.element.decode("weights", w)
    operands = Operands(
        operand(arriving, 1, N), operand(a, 1, M), accelerator.element.function(w.format, a.format)
    )
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    values = dequantize(w, np.float64).astype(np.float16)
    for i, row in enumerate(dequantize(a, np.float64)):
        for j in range(N):
            exact = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(row, values[j], strict=True))
            assert Fraction(float(results[0, i, j])) == fp32(exact)  # type: ignore[index]
    again = fast.simulate_gemm(plan, "gemm", "gemm")
    assert (again.cycles, again.counts) == (record.cycles, record.counts)
