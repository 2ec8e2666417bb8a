"""MixPE: time of language models on mixed-precision arrays, normalised to an FP16 array.

Zhang et al., "MixPE: Quantization and Hardware Co-design for Efficient LLM Inference", arXiv 2411.16158, and its
released simulator, which derives from BitFusion's (``bitfusion.py``). Dequantization is charged as extra layers: the
baselines dequantize weights before the product, an extra layer of K to N / 8 at the widest operand for each layer of K
to N; MixPE scales each group's sum afterwards, an extra layer of K / 8 to N / 128. Tiles and DRAM are left out here.

Two things besides the PE are in the ratio: 64 tokens are one pass of MixPE's 64 rows of two operands and two passes of
the baselines' 28 or 32 rows, and arrays of 64 x 64 and 32 x 32 PEs are presented as of equal area.
"""

from __future__ import annotations

from simulator.study.reproduce.bitfusion import FusionArray
from simulator.study.reproduce.claim import Claim, compare
from simulator.study.reproduce.figures import read_figures


def array_of(design: str) -> FusionArray:
    """The array of one of the paper's designs."""
    model = read_figures("mixpe_model")
    names = ("rows", "cols", "widest_bits", "narrowest_bits")
    return FusionArray(*(model.whole(name, design=design) for name in names))


def layers(network: str) -> list[tuple[int, int]]:
    """(k, n) of the linear layers of a decoder block."""
    model = read_figures("mixpe_model")
    count = sum(row.case["model"] == network for row in model.named("k"))
    return [
        (model.whole("k", model=network, layer=at), model.whole("n", model=network, layer=at))
        for at in range(count)
    ]


def cycles(network: str, design: str) -> int:
    """All linear layers of a network and their dequantization."""
    model, array = read_figures("mixpe_model"), array_of(design)
    batch, bits = model.whole("batch"), model.whole("layer_bits", design=design)
    k_divisor = model.whole("dequantization_k_divisor", design=design)
    n_divisor = model.whole("dequantization_n_divisor", design=design)
    extra_bits = bits if design.startswith("mixpe") else array.widest_bits
    block = sum(
        array.cycles(batch, k, n, weight_bits=bits, activation_bits=bits)
        + array.cycles(
            batch, k // k_divisor, n // n_divisor, weight_bits=extra_bits, activation_bits=extra_bits
        )
        for k, n in layers(network)
    )
    return model.whole("layers", model=network) * block


def claims() -> list[Claim]:
    """Normalised time of every design on both networks."""
    return [
        compare(
            "mixpe",
            figure,
            cycles(str(figure.case["model"]), str(figure.case["design"]))
            / cycles(str(figure.case["model"]), "fp16"),
            _reason(str(figure.case["design"])),
        )
        for figure in read_figures("mixpe_published")
    ]


def _reason(design: str) -> str:
    if design == "ant":
        return (
            "the layers as the simulator describes them, without tiles and DRAM; its own result follows from a second "
            "dequantization layer at 8 bits and one for each of both, which the description does not have"
        )
    if design == "bitfusion":
        return (
            "the layers as the simulator describes them, without tiles and DRAM; its own dequantization "
            "layers run at other widths than it describes"
        )
    return (
        "array cycles of the described layers and of dequantization as extra layers, without tiles and DRAM"
    )
