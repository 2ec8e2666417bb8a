"""INT versus FP in blocks: signal to quantization noise, where the two cross, and what their multipliers cost.

Chen et al., "INT v.s. FP: A Comprehensive Study of Fine-Grained Low-bit Quantization Formats", arXiv 2510.25602:
QSNR of a Gaussian block by its crest factor kappa (largest magnitude over root mean square), section 4; cells of a dot
product unit, appendix C. The measured QSNR is that of this library's quantizers.

The formula of INT takes a step of ``max / 2^(b - 1)``; symmetric codes end at ``2^(b - 1) - 1``, so it is 1.16 dB too
good at 4 bits.
"""

from __future__ import annotations

from functools import lru_cache
from math import erf, exp, log2, log10, pi, sqrt
from typing import Literal

import numpy as np

from simulator.errors import InputError
from simulator.formats import Format, dequantize, get_format, quantize
from simulator.study.reproduce import gates
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import Figure, read_figures

FORMATS = (
    "mxfp8_e4m3",
    "mxint8",
    "mxfp6_e2m3",
    "mxint6",
    "mxfp4",
    "mxint4",
    "nvfp4",
    "nvint4",
)
SMALLEST_CREST, LARGEST_CREST = 1.0, 64.0
"""Crest factors between which crossovers are looked for. A block of g values has at most sqrt(g); the formula without
an exact value knows no g."""


def qsnr_db(format_: str, crest: float) -> float:
    """The paper's formula for a Gaussian block of this crest factor."""
    entry = get_format(format_)
    return _int_qsnr_db(entry, crest) if entry.element.is_integer else _fp_qsnr_db(entry, crest)


def _int_qsnr_db(entry: Format, crest: float) -> float:
    model = read_figures("int_vs_fp_model")
    ideal = model.value("int_offset_db") + model.value("int_db_per_bit") * entry.element.bits
    return ideal - 20 * log10(_overhead(entry) * crest) + 10 * log10(1 / (1 - _exact_share(entry)))


def _fp_qsnr_db(entry: Format, crest: float) -> float:
    """Noise of normal values, by their energy, and of subnormal ones, by their number."""
    element = entry.element
    scaled = _overhead(entry) * crest
    smallest_normal = scaled / element.max_value * 2.0**element.emin
    subnormal_share = erf(smallest_normal / sqrt(2))
    density = exp(-(smallest_normal**2) / 2) / sqrt(2 * pi)
    normal_energy = 1 - (subnormal_share - 2 * smallest_normal * density)
    exact_energy = crest * crest * _exact_share(entry)
    relative = 1 / (24 * 4**element.mantissa_bits)
    absolute = 4.0 ** (element.emin - element.mantissa_bits) / (12 * element.max_value**2)
    return -10 * log10(relative * (normal_energy - exact_energy) + absolute * scaled**2 * subnormal_share)


def _overhead(entry: Format) -> float:
    """rho: how much larger a stored scale is than the one that just fits."""
    assert entry.scale_element is not None
    return read_figures("int_vs_fp_model").value("scale_overhead", scale=entry.scale_element.name)


def _exact_share(entry: Format) -> float:
    """Of a block, the one value of largest magnitude, which a scale with a mantissa represents exactly."""
    assert entry.scale_element is not None
    return 1 / entry.group_size if entry.scale_element.mantissa_bits else 0.0


def crossover(int_format: str, fp_format: str) -> tuple[float, float]:
    """Crest factor and QSNR at which two formats are equally good; INT is better below it.

    Raises InputError where they do not cross.
    """
    share = _exact_share(get_format(fp_format))
    low, high = SMALLEST_CREST, 0.95 * sqrt(1 / share) if share else LARGEST_CREST

    def lead(crest: float) -> float:
        return qsnr_db(int_format, crest) - qsnr_db(fp_format, crest)

    if lead(low) < 0 or lead(high) > 0:
        raise InputError(f"{int_format} and {fp_format} do not cross")
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if lead(middle) > 0 else (low, middle)
    return low, qsnr_db(int_format, low)


@lru_cache(maxsize=32)
def measured_qsnr_db(format_: str) -> float:
    """QSNR of Gaussian values through this library's quantizer, dB; shared exponents that saturate nothing."""
    values = _gaussian(get_format(format_).group_size)
    scale = get_format(format_).scale_element
    rule: Literal["ceil"] | None = "ceil" if scale is not None and scale.kind == "exponent" else None
    restored = dequantize(quantize(values, format_, scale_rule=rule))
    noise = float(np.square(values - restored).sum())
    return 10 * log10(float(np.square(values).sum()) / noise)


def formula_qsnr_db(format_: str) -> float:
    """The formula on the same values: each block's noise by its own crest factor and energy."""
    values = _gaussian(get_format(format_).group_size)
    energy = np.square(values).sum(axis=1)
    crest = np.abs(values).max(axis=1) / np.sqrt(energy / values.shape[1])
    noise = sum(
        float(block) * 10 ** (-qsnr_db(format_, float(each)) / 10)
        for block, each in zip(energy, crest, strict=True)
    )
    return 10 * log10(float(energy.sum()) / noise)


def _gaussian(block: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    model = read_figures("int_vs_fp_model")
    draw = np.random.Generator(np.random.PCG64(model.whole("seed")))
    return draw.standard_normal((model.whole("samples") // block, block))


def unit_cells(
    format_: str, *, lanes: int | None = None, aligner_limit_bits: int | None = None
) -> gates.Cells:
    """Cells of one lane of a dot product unit: appendix C. Shared cells count their share of ``lanes``, a block.

    Products are aligned into at most ``aligner_limit_bits``, 24 unless given.
    """
    entry = get_format(format_)
    element, scale = entry.element, entry.scale_element
    lanes = lanes or entry.group_size
    shared = gates.share({"fp32_accumulator": 1}, lanes)
    if scale is not None and entry.granularity == "block":
        dequantizer = "e8m0_dequantizer" if scale.kind == "exponent" else "e4m3_dequantizer"
        shared = gates.together(shared, gates.share({dequantizer: 1}, lanes))
    if element.is_integer:
        product = element.bits**2
        return gates.together({"and": product, "full_adder": product}, gates.adder(2 * element.bits), shared)
    exponent, mantissa = element.exponent_bits, element.mantissa_bits
    limit = aligner_limit_bits or read_figures("int_vs_fp_model").whole("aligner_limit_bits")
    aligned = min(2 ** (exponent + 1) + 2 * mantissa, limit)
    multiplexers = aligned * log2(aligned)
    product = (mantissa + 1) ** 2
    return gates.together(
        {"and": product, "full_adder": product},
        gates.adder(aligned),
        gates.adder(exponent),
        gates.subtractor(exponent),
        {"xor": exponent, "and": exponent, "or": exponent},
        {"mux": multiplexers},
        gates.share({"mux": multiplexers, "or": multiplexers}, lanes),
        shared,
    )


def claims() -> list[Claim]:
    """Crossovers, QSNR and cost."""
    rows = []
    for figure in read_figures("int_vs_fp_published"):
        ours, reason = _ours(figure)
        rows.append(compare("int-vs-fp", figure, ours, reason))
    for name in FORMATS:
        case = {"format": name}
        rows.append(unpublished("int-vs-fp", "formula_qsnr_db", case, formula_qsnr_db(name), "dB", _GAUSSIAN))
    return rows


def _ours(figure: Figure) -> tuple[float | None, str]:
    case = {key: str(value) for key, value in figure.case.items()}
    match figure.name:
        case "crossover_crest_factor":
            return crossover(case["int"], case["fp"])[0], _FORMULA
        case "crossover_qsnr_db":
            return crossover(case["int"], case["fp"])[1], _FORMULA
        case "mean_qsnr_db":
            reason = _ROTATED if case["rotated"] == "yes" else _MEASURED
            return measured_qsnr_db(case["format"]), reason
    if "+" in case["format"]:
        return (
            None,
            "the paper does not tell how the two widths share an accumulator, an adder and their toggles",
        )
    quantity: Literal["area", "energy"] = "area" if figure.name == "area_ratio" else "energy"
    one, other = (gates.price(unit_cells(case[key]), quantity) for key in ("format", "over"))
    return one / other, _GATES


_FORMULA = "the paper's own formula, solved here, so that agreement checks the solution, no more"
_MEASURED = (
    "Gaussian values through this library's quantizers beside the mean of a language model's tensors, whose crest "
    "factors are larger"
)
_ROTATED = (
    "Gaussian values through this library's quantizers beside the mean of a language model's tensors, which a rotation "
    "brings near to Gaussian"
)
_GAUSSIAN = (
    "the paper's formula on the same Gaussian blocks as measured, each by its own crest factor and energy"
)
_GATES = "the paper's counts of cells, whose weights are fitted to the columns of this very table"
