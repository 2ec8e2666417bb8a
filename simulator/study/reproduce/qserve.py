"""QServe: the range that keeps two-level INT4 within INT8, its storage, and what a roofline makes of its speedups.

Lin et al., "QServe: W4A8KV4 Quantization and System Co-design for Efficient LLM Serving", MLSys 2025. Weights become
INT8 per channel within a protective range, then UINT4 per group with integer scale and zero point; the second step's
rounding must not leave INT8, since the product is an INT8 one. That is checked here for every pair of group extremes.

The serving roofline: as many sequences as memory holds beside the weights; a prompt takes its operations at peak; a
decode step takes the longer of operations and weight bytes, and then the bytes of keys and values. Kernels, scheduling
and everything that TensorRT-LLM adds are missing; lengths of prompt and answer and the widths of its keys and values
are assumptions (``data/qserve_model.csv`` says which).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simulator.formats import get_format
from simulator.formats.qserve import integer_scales
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import Figure, read_figures

BASELINES = ("w8a8kv8", "w4a16kv8", "w16a16kv16")
OURS = "w4a8kv4"


@lru_cache(maxsize=512)
def overflows(limit: int) -> int:
    """Group extremes that leave INT8 after both steps, over all pairs of extremes within +-limit."""
    model = read_figures("qserve_model")
    top, largest_code = model.whole("int8_magnitude"), model.whole("largest_code")
    reach = np.arange(-limit, limit + 1)
    lowest, highest = (edge[np.triu_indices(reach.size)] for edge in np.meshgrid(reach, reach, indexing="ij"))
    scales, zeros = integer_scales(lowest, highest, largest_code)
    count = 0
    for extreme in (lowest, highest):
        codes = np.clip(np.rint(extreme / scales) + zeros, 0, largest_code)
        restored = (codes - zeros) * scales
        count += int(((restored > top) | (restored < -top - 1)).sum())
    return count


def protective_range() -> int:
    """The largest limit up to which nothing overflows."""
    limit = 0
    while limit < read_figures("qserve_model").whole("int8_magnitude") and not overflows(limit + 1):
        limit += 1
    return limit


@dataclass(frozen=True)
class Serving:
    """A model on a GPU in one set of widths, at the largest batch that fits."""

    batch: int
    tokens_per_s: float


def serve(network: str, gpu: str, scheme: str) -> Serving:
    """Roofline of serving; no token a second where not one sequence fits."""
    model = read_figures("qserve_model")
    weight_bits, activation_bits, kv_bits = (
        model.value(f"{name}_bits", scheme=scheme) for name in ("weight", "activation", "kv")
    )
    peak = 1e12 * model.value("peak_tops", gpu=gpu, activation_bits=int(activation_bits))
    bandwidth = 1e9 * model.value("bandwidth_gb_per_s", gpu=gpu)
    prompt, answer = model.whole("prompt_tokens"), model.whole("generated_tokens")
    weights, kept = _sizes(network)
    weight_bytes, kept_bytes = weights * weight_bits / 8, kept * kv_bits / 8
    free = 1e9 * model.value("memory_gb", gpu=gpu) - weight_bytes
    batch = int(free // (kept_bytes * (prompt + answer)))
    if batch < 1:
        return Serving(0, 0.0)
    prefill_s = 2 * weights * prompt / peak
    context = prompt + answer / 2
    step_s = (
        max(2 * weights * batch / peak, weight_bytes / bandwidth) + batch * context * kept_bytes / bandwidth
    )
    return Serving(batch, answer / (prefill_s + answer * step_s / batch))


def _sizes(network: str) -> tuple[int, int]:
    """Weights of all linear layers, and values that the cache keeps of a token."""
    model = read_figures("qserve_model")
    layers, hidden, heads, kv_heads, intermediate, vocab = (
        model.whole(name, model=network)
        for name in ("layers", "hidden", "heads", "kv_heads", "intermediate", "vocab")
    )
    kv_hidden = hidden // heads * kv_heads
    block = 2 * hidden * hidden + 2 * hidden * kv_hidden + 3 * hidden * intermediate
    return layers * block + hidden * vocab, 2 * layers * kv_hidden


def claims() -> list[Claim]:
    """Range, storage and speedups; overflows by range and the batches behind the speedups."""
    rows = [compare("qserve", figure, *_ours(figure)) for figure in read_figures("qserve_published")]
    for limit in (row.value for row in read_figures("qserve_model").named("limit")):
        count = overflows(int(limit))
        rows.append(unpublished("qserve", "overflows", {"limit": limit}, count, "values", _RANGE))
    for figure in read_figures("qserve_published").named("serving_speedup"):
        for scheme in (OURS, *BASELINES):
            case = {**figure.case, "scheme": scheme}
            rate = serve(str(case["model"]), str(case["gpu"]), scheme).tokens_per_s
            rows.append(unpublished("qserve", "serving_tokens_per_s", case, rate, "tokens/s", _ROOFLINE))
    return rows


def _ours(figure: Figure) -> tuple[float, str]:
    match figure.name:
        case "protective_range":
            return protective_range(), _RANGE
        case "bits_per_weight":
            format_ = get_format("qserve_uint4_g128")
            ours = format_.bits_per_value()
            if figure.case["zeros"] == "uint4":
                return (
                    ours,
                    "codes, scales and zero points of this library's format, without the scale of a channel",
                )
            widened = ours + (get_format("int8").element.bits - format_.code_bits) / format_.group_size
            return widened, "the same with a zero point of 8 bits"
    network, gpu = str(figure.case["model"]), str(figure.case["gpu"])
    best = max(serve(network, gpu, scheme).tokens_per_s for scheme in BASELINES)
    return serve(network, gpu, OURS).tokens_per_s / best, _ROOFLINE


_RANGE = "every pair of group extremes through both steps, counted at both extremes, ties to even"
_ROOFLINE = (
    "a roofline without kernels and scheduling, on assumed lengths of prompt and answer and widths of the baseline's "
    "keys and values"
)
