"""FP8 versus INT8: cells of one multiply-accumulate unit by exponent width and accumulator.

van Baalen et al., "FP8 versus INT8 for Efficient Deep Learning Inference", arXiv 2303.17951, count two-input gates.
Here the same units are drawn cell by cell (``gates.py``); the paper's circuits were not at hand, so its two figures
check the drawing and nothing is fitted to them. The reference is an 8 x 8 multiplier with an adder of 32 bits.

``fixed`` is an accumulator of as many bits as INT8's: each product is shifted to its place, and the shifter grows with
the exponent's bits. A floating-point accumulator takes an addition each cycle: exponents compared, operands swapped,
the smaller aligned, added, normalised and rounded. There the accumulator's width decides; the exponent's bits change
the multiplier only, which shrinks.

How the formats rank depends on how often one aligns and normalises. Beside the single unit stand dot products of 32
lanes that align once, priced by appendix C of INT v.s. FP (``int_vs_fp.py``) and synthesised by FormatScope.
"""

from __future__ import annotations

from simulator.formats import get_format
from simulator.study.reproduce import gates, int_vs_fp
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import Figure, read_figures

FORMATS = ("e2m5", "e3m4", "e4m3", "e5m2")
"""8-bit floats from the least to the most exponent bits."""
ACCUMULATORS = ("fixed", "fp16", "fp32")


def int8_mac() -> gates.Cells:
    """Multiplier of two INT8 values and an adder for the accumulator."""
    bits = read_figures("fp8_vs_int8_model").whole("accumulator_bits", accumulator="int32")
    return gates.together(gates.multiplier(get_format("int8").element.bits), gates.adder(bits))


def fp8_mac(format_: str, accumulator: str) -> gates.Cells:
    """Multiplier of two floats of 8 bits and an accumulator: one of `ACCUMULATORS`."""
    model, element = read_figures("fp8_vs_int8_model"), get_format(format_).element
    exponent, significand = element.exponent_bits, element.mantissa_bits + 1
    product = gates.together(
        gates.multiplier(significand),
        gates.adder(exponent + 1),
        {"or": 2 * (exponent - 1)},  # is the exponent zero: the hidden bits
    )
    if accumulator == "fixed":
        bits = model.whole("accumulator_bits", accumulator="int32")
        places = 2 * (element.emax - element.emin)
        return gates.together(product, gates.aligner(bits, places), gates.subtractor(bits))
    addition = _floating_point(
        significand=model.whole("significand_bits", accumulator=accumulator),
        exponent=model.whole("exponent_bits", accumulator=accumulator),
        guard=model.whole("guard_bits"),
        product=2 * significand,
        product_exponent=exponent + 1,
    )
    return gates.together(product, addition)


def _floating_point(
    significand: int, exponent: int, guard: int, product: int, product_exponent: int
) -> gates.Cells:
    """One correctly rounded addition of a product to a floating-point accumulator."""
    width = significand + guard
    carried = min(product, significand)
    return gates.together(
        {"mux": product, "half_adder": product_exponent},  # normalise the product: by one place
        gates.subtractor(exponent),  # which exponent is larger, and by how much
        {"mux": exponent},  # the larger exponent
        {"mux": 2 * carried, "and": 2 * (significand - carried)},  # swap; below the product's bits are zeros
        gates.aligner(width, width),
        gates.subtractor(width),
        gates.normalizer(width),
        gates.adder(exponent),  # exponent of the normalised sum
        {"half_adder": significand + exponent},  # round, and carry into the exponent
    )


def gates_over_int8(format_: str, accumulator: str) -> float:
    """Cost of an FP8 unit beside the INT8 one."""
    return gates.price(fp8_mac(format_, accumulator)) / gates.price(int8_mac())


def dot32_area(format_: str, window: int) -> float:
    """Area of a lane in a dot product of 32 that aligns once into ``window`` bits: appendix C of INT v.s. FP."""
    return gates.price(int_vs_fp.unit_cells(format_, lanes=32, aligner_limit_bits=window))


def claims() -> list[Claim]:
    """One unit by format and accumulator, then what dot product units cost elsewhere."""
    published = read_figures("fp8_vs_int8_published")
    rows = [compare("fp8-vs-int8", figure, *_ours(figure)) for figure in published]
    for accumulator in ACCUMULATORS:
        for format_ in FORMATS:
            case = {"format": format_, "accumulator": accumulator}
            if published.get("gates_over_int8", **case) is None:
                ratio = gates_over_int8(format_, accumulator)
                rows.append(unpublished("fp8-vs-int8", "gates_over_int8", case, ratio, "x", _DRAWN))
    return rows


def _ours(figure: Figure) -> tuple[float, str]:
    name = str(figure.case["format"])
    if figure.name == "gates_over_int8":
        accumulator = str(figure.case["accumulator"])
        if accumulator == "cheapest":
            return min(gates_over_int8(name, each) for each in ACCUMULATORS), _DRAWN
        return gates_over_int8(name, accumulator), _DRAWN
    if figure.name == "area_over_mxint8":
        one, other = (gates.price(int_vs_fp.unit_cells(entry)) for entry in (name, "mxint8"))
        return one / other, _FITTED
    window = int(figure.case["window"])
    return dot32_area(name, window) / dot32_area("int8", window), _SYNTHESIS


_DRAWN = "textbook circuits in cells whose weights were fitted to another paper; this one's circuits were not at hand"
_FITTED = "cells of a dot product unit of INT v.s. FP, whose weights were fitted to this figure among others"
_SYNTHESIS = (
    "cells of INT v.s. FP, n log2 n multiplexers to align a lane, beside a synthesis that spends fewer"
)
