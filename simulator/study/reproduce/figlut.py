"""FIGLUT: lookups a cycle, additions of the table generator, throughput and efficiency by weight width.

Park et al., "FIGLUT: An Energy-Efficient Accelerator Design for FP-INT GEMM Using Look-Up Tables", HPCA 2025. A key of
mu weight bits reads a table of signed sums of mu activations; k readers share a table. Time grows with the bits of a
weight, where FIGNA and other machines of fixed width pad to 4 bits.

Table V's 0.14 TOPS are a sixth of the arrays' peak of 0.82 TOPS and alike for three arrays, so something outside of
them decides; a memory bandwidth is fitted to it here. The gain over FIGNA is fitted at 4 bits; what follows is its
change with width.
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.arch import load_accelerator
from simulator.pe.tables import generator_additions
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import Figure, read_figures
from simulator.study.run import run_workload
from simulator.workload import load_workload


def binary_macs_per_cycle() -> int:
    """One-bit products of the whole array: PEs x readers of a table x bits of a key."""
    model = read_figures("figlut_model")
    pes = model.whole("pe_rows") * model.whole("pe_cols") * model.whole("pe_depth")
    return pes * model.whole("readers_per_table") * model.whole("key_bits")


def direct_adds(mu: int) -> int:
    """Additions of a half table without a generator: mu - 1 for each of its 2^(mu - 1) entries."""
    return mu - 1 << mu - 1


def peak_tops(bits: float) -> float:
    """What the array could do with every operand at hand."""
    return 2e-3 * binary_macs_per_cycle() / bits * read_figures("figlut_model").value("clock_ghz")


def tops(bits: float) -> float:
    """The array or the fitted bandwidth that brings its weights, each read once for a batch."""
    model = read_figures("figlut_model")
    products_per_byte = model.whole("batch") * 8 / bits
    return min(peak_tops(bits), 2e-3 * products_per_byte * model.value("bandwidth_gb_per_s"))


def full_model_tops() -> float:
    """Our own engine: a decode step of OPT-6.7B's linear layers and short attention, 4-bit weights."""
    batch = read_figures("figlut_model").whole("batch")
    work = load_workload(
        "opt-6.7b", decode=1, batch=batch, weights="int4_g128", activations="fp16", kv="int4_token"
    )
    report = run_workload(work, load_accelerator("figlut"))
    return 2e-12 * work.macs / report.latency_s


def claims() -> list[Claim]:
    """All published figures, then the array's peak."""
    model = read_figures("figlut_model")
    at_four = model.value("efficiency_over_figna", bits=4, figna_bits=4)
    fixed = model.whole("fixed_bits", engine="figna")

    def tops_per_w(row: Figure) -> float:
        return tops(float(row.case["bits"])) / model.value("power_w", engine=row.case["engine"])

    ours: dict[str, tuple[Callable[[Figure], float], str]] = {
        "binary_macs_per_cycle": (
            lambda row: binary_macs_per_cycle(),
            "2 x 16 x 4 PEs x 32 readers x 4 bits of a key",
        ),
        "generator_adds": (
            lambda row: generator_additions(int(row.case["mu"])),
            "sums of two halves of the key, then each with each, counted",
        ),
        "generator_saving": (
            lambda row: 1 - generator_additions(int(row.case["mu"])) / direct_adds(int(row.case["mu"])),
            "two levels against every entry by itself, counted",
        ),
        "generator_break_even": (
            lambda row: generator_additions(int(row.case["mu"])) // (int(row.case["mu"]) - 1),
            "results whose direct additions are no more than the generator's, counted",
        ),
        "tops": (
            lambda row: tops(float(row.case["bits"])),
            "memory-bound at a bandwidth that is fitted to this table; 4-bit weights take the same bytes on each array",
        ),
        "tops_per_w": (tops_per_w, "the fitted 0.14 TOPS over the printed power, both rounded by the paper"),
        "full_model_tops": (
            lambda row: full_model_tops(),
            "our engine on the shipped accelerator, whose DRAM of 25.6 GB/s does not bind; fill, drain and vector "
            "unit do not explain a sixth of the peak",
        ),
        "efficiency_over_figna": (
            lambda row: at_four * fixed / float(row.case["bits"]),
            "time and energy fall with the width here and stay at 4 bits on FIGNA; the gain at 4 bits is fitted to the "
            "printed one, while table V's powers give 1.42",
        ),
    }
    rows = [
        compare("figlut", figure, ours[figure.name][0](figure), ours[figure.name][1])
        for figure in read_figures("figlut_published")
    ]
    for bits in (2, 3, 4):
        case = {"bits": bits}
        reason = "the array alone, with every operand at hand"
        rows.append(unpublished("figlut", "peak_tops", case, peak_tops(bits), "TOPS", reason))
    return rows
