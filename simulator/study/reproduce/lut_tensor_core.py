"""LUT Tensor Core: density, peak and time of arrays that look partial products up.

Mo et al., "LUT Tensor Core: A Software-Hardware Co-Design for LUT-Based Low-Bit LLM Inference", ISCA 2025. An array of
M x N multiplexers reads M tables of 2^(K - 1) entries; a tile takes as many cycles as weights have bits, whatever the
activations are. Areas, powers and latencies are the paper's; peaks and cycles are computed from the array.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

from simulator.arch import load_accelerator
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import Figure, read_figures
from simulator.study.run import gemm, run

NETWORK = "llama-2-7b"
SHIPPED_CONFIG = "a100-lut-4x"
WEIGHT_BITS = (1, 2, 4)
"""Widths for which the cycles of the paper's matrix product are listed."""


def tensor_cores() -> int:
    """Of an A100."""
    model = read_figures("lut_tensor_core_model")
    return model.whole("streaming_multiprocessors", gpu="a100") * model.whole(
        "tensor_cores_per_sm", gpu="a100"
    )


def arrays(config: str) -> int:
    """LUT arrays of a configuration of the A100, all tensor cores together."""
    return tensor_cores() * read_figures("lut_tensor_core_model").whole(
        "arrays_per_tensor_core", config=config
    )


def peak_tops(config: str) -> float:
    """Operations a second, a product and its sum being two: of tensor cores (``a100-fp16``) or of LUT arrays."""
    model = read_figures("lut_tensor_core_model")
    gpu, _, format_ = config.partition("-")
    row = model.get("macs_per_tensor_core", gpu=gpu, format=format_)
    if row is not None:
        macs_per_cycle = float(tensor_cores() * row.value)
    else:
        tile = model.whole("array_m") * model.whole("array_n") * model.whole("array_k")
        macs_per_cycle = arrays(config) * tile / model.whole("weight_bits", config=config)
    return 2e-3 * macs_per_cycle * model.value("clock_ghz", gpu="a100")


def gemm_cycles(m: int, n: int, k: int, *, weight_bits: int, arrays: int = 1) -> int:
    """Cycles of (m, k) x (n, k) with tables at hand: whole tiles, shared evenly by the arrays."""
    model = read_figures("lut_tensor_core_model")
    tiles = (
        ceil(m / model.whole("array_m")) * ceil(n / model.whole("array_n")) * ceil(k / model.whole("array_k"))
    )
    return ceil(tiles / arrays) * weight_bits


def density_tops_per_mm2(config: str) -> float:
    """Printed peak over printed area of all streaming multiprocessors."""
    model = read_figures("lut_tensor_core_model")
    count = model.whole("streaming_multiprocessors", gpu=config.partition("-")[0])
    return model.value("peak_tops", config=config) / (model.value("area_mm2_per_sm", config=config) * count)


def full_model_mpgemm_tflops(config: str, m: int, n: int, k: int) -> float:
    """Our own engine: the shipped accelerator with as many arrays a tensor core as ``config`` has."""
    model = read_figures("lut_tensor_core_model")
    machine = load_accelerator("lut_tensor_core_fp16")
    shipped, wanted = (
        model.whole("arrays_per_tensor_core", config=name) for name in (SHIPPED_CONFIG, config)
    )
    columns: dict[str, Any] = {"array.cols": machine.array.cols * wanted // shipped}
    report = gemm(m, k, n, arch="lut_tensor_core_fp16", weights="binary", activations="fp16", **columns)
    return 2e-12 * m * n * k / report.latency_s


def precompute_overhead_percent(phase: str, precompute: str) -> float:
    """Cycles that filling tables adds to a network's linear layers on our own engine, over those when fused."""
    model = read_figures("lut_tensor_core_model")
    tokens = model.whole("tokens", phase=phase)

    def cycles(how: str) -> int:
        changes: dict[str, Any] = {"pe.precompute": how}
        report = run(
            NETWORK,
            "lut_tensor_core",
            prefill=tokens if phase == "prefill" else None,
            decode=tokens if phase == "decode" else None,
            batch=model.whole("batch", phase=phase),
            **changes,
        )
        return sum(layer.record.cycles for layer in report.layer_reports if layer.record.op == "gemm")

    return 100 * (cycles(precompute) / cycles("fused") - 1)


def claims() -> list[Claim]:
    """The rows of table 1, the ablation, and the matrix product of the roofline."""
    model, published = read_figures("lut_tensor_core_model"), read_figures("lut_tensor_core_published")

    def share(name: str, config: str, over: str) -> float:
        return model.value(name, config=config) / model.value(name, config=over)

    def reduction(name: str, step: str) -> float:
        return model.value(name, step="unpu") / model.value(name, step=step)

    def density_gain(figure: Figure) -> float:
        pair = _pair(figure)
        return density_tops_per_mm2(pair["config"]) / density_tops_per_mm2(pair["over"])

    def mpgemm(figure: Figure) -> float:
        config = str(figure.case["config"])
        m, n, k = (int(figure.case[axis]) for axis in "mnk")
        bits = model.whole("weight_bits", config=config)
        cycles = gemm_cycles(m, n, k, weight_bits=bits, arrays=arrays(config))
        return 2e-3 * m * n * k / cycles * model.value("clock_ghz", gpu="a100")

    def full_mpgemm(figure: Figure) -> float:
        m, n, k = (int(figure.case[axis]) for axis in "mnk")
        return full_model_mpgemm_tflops(str(figure.case["config"]), m, n, k)

    def precompute(figure: Figure) -> float:
        return precompute_overhead_percent(str(figure.case["phase"]), str(figure.case["precompute"]))

    ours: dict[str, tuple[Callable[[Figure], float | None], str]] = {
        "density_tops_per_mm2": (lambda row: density_tops_per_mm2(str(row.case["config"])), _DENSITY),
        "peak_tops": (lambda row: peak_tops(str(row.case["config"])), _PEAK),
        "density_gain": (density_gain, _DENSITY),
        "energy_efficiency_gain": (lambda row: share("tops_per_w", **_pair(row)), _PRINTED),
        "area_share": (lambda row: share("area_mm2_per_sm", **_pair(row)), _PRINTED),
        "decode_speedup": (lambda row: 1 / share("decode_ms", **_pair(row)), _PRINTED),
        "area_efficiency_gain": (density_gain, _DENSITY),
        "area_reduction": (lambda row: reduction("area_um2", str(row.case["step"])), _PRINTED),
        "power_reduction": (lambda row: reduction("power_mw", str(row.case["step"])), _PRINTED),
        "mpgemm_tflops": (mpgemm, _ROOFLINE),
        "dot4_density_tflops_per_mm2": (lambda row: None, _SYNTHESIS),
        "full_model_mpgemm_tflops": (full_mpgemm, _FULL),
        "precompute_overhead_percent": (precompute, _PRECOMPUTE),
    }
    rows = [
        compare("lut-tensor-core", figure, ours[figure.name][0](figure), ours[figure.name][1])
        for figure in published
    ]
    (roofline,) = published.named("mpgemm_tflops")
    m, n, k = (int(roofline.case[axis]) for axis in "mnk")
    for bits in WEIGHT_BITS:
        case = {"m": m, "n": n, "k": k, "weight_bits": bits, "arrays": arrays(SHIPPED_CONFIG)}
        cycles = gemm_cycles(m, n, k, weight_bits=bits, arrays=case["arrays"])
        rows.append(unpublished("lut-tensor-core", "gemm_cycles", case, cycles, "cycles", _CYCLES))
    return rows


def _pair(row: Figure) -> dict[str, str]:
    return {"config": str(row.case["config"]), "over": str(row.case["over"])}


_DENSITY = (
    "peak / (area x 108 or 132 multiprocessors), all as printed: agreement checks the division, no more"
)
_PEAK = "products a cycle of all arrays x clock; a LUT array of 512 one-bit products takes a cycle for each weight bit"
_PRINTED = "the ratio of two printed figures, so that agreement checks the division, no more"
_ROOFLINE = "the array's own cycles, without table precomputation and memory: an upper bound of what the paper measures"
_SYNTHESIS = "a synthesis result at 28 nm, which no part of the library prices yet"
_FULL = "our engine with memory and buffers and no GPU's scheduling, with as many arrays as the paper's peak takes"
_PRECOMPUTE = (
    "our engine on Llama-2-7B's linear layers, where unfused filling is additions on the vector unit and fused takes "
    "no time; the paper measures kernels of a GPU, with their launches and memory traffic"
)
_CYCLES = "whole tiles of M2 N64 K4 on all arrays at once, one cycle for each weight bit"
