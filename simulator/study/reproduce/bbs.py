"""BBS and BitVert: storage, cycles and speedups of machines that read weights bit by bit.

Chen et al., "BBS: Bi-directional Bit-level Sparsity for Deep Learning Acceleration", MICRO 2024. Every design has PEs
of 8 bit-serial multipliers, 32 filters side by side, and steps together: a step takes as long as its slowest filter.
Rules of the baselines are those of the simulator released with BBS, on weights (``simulator.pe.serial``); BitWave's are
bit-flipped first. BitVert's time does not depend on data: a cycle for each stored bit column of 16 weights.

The networks of the paper are not all shipped, nor are their weights. Speedups are of BERT-base's linear layers with
normal weights, INT8 a channel, beside the paper's means over seven networks; memory stalls are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import ceil

import numpy as np

from simulator.formats import get_format, quantize
from simulator.formats.pruning import prune
from simulator.pe.arithmetic import Integers
from simulator.pe.serial.sync import bitlet_cycles, bitwave_cycles, stored_columns
from simulator.pe.serial.terms import term_counts
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import Figure, read_figures
from simulator.workload import Gemm, load_workload

NETWORK = "bert-base"
WEIGHTS = "int8_channel"
BASELINES = ("stripes", "pragmatic", "bitlet", "bitwave")
VARIANTS = ("conservative", "moderate")


def cycles(design: str, weights: Integers, rows: int) -> int:
    """A pass of the inputs over weights (n, k) on ``rows`` filters side by side; PEs that are left over idle."""
    model = read_figures("bbs_model")
    group, bits = model.whole("weights_per_step", design=design), model.whole("bits")
    if design == "bitwave":
        weights = prune(weights, "bitflip", model.whole("flipped_columns", design=design)).weights
    steps = _steps(weights, group)
    if design == "stripes":
        each = np.full((steps.shape[0], steps.shape[1]), bits, np.int64)
    elif design == "pragmatic":
        # ones of sign and magnitude: a negative value's sign is one more
        each = (term_counts(steps) + (steps < 0)).max(axis=-1)
    elif design == "bitlet":
        each = bitlet_cycles(steps, bits=bits)
    else:
        each = bitwave_cycles(steps)
    slowest = np.maximum.reduceat(each, np.arange(0, each.shape[0], rows), axis=0)
    return int(slowest.sum())


def bitvert_cycles(variant: str, n: int, k: int, rows: int) -> int:
    """The same for BitVert: sensitive channels keep all columns, the others those that pruning left."""
    model = read_figures("bbs_model")
    bits, multiple = model.whole("bits"), model.whole("channels_multiple")
    share = model.value("sensitive_share", variant=variant)
    sensitive = min(n, ceil(share * n / multiple) * multiple)
    pruned = stored_columns(bits, model.whole("pruned_columns", variant=variant))
    steps = ceil(k / model.whole("weights_per_step", design="bitvert"))
    return steps * (ceil(sensitive / rows) * bits + ceil((n - sensitive) / rows) * pruned)


def _steps(weights: Integers, group: int) -> Integers:
    """(n, steps, lanes) of weights (n, k); a short last step is filled with zeros."""
    n, k = weights.shape
    padded = np.pad(weights, ((0, 0), (0, -k % group)))
    return padded.reshape(n, -1, group)


@lru_cache(maxsize=4)
def _layers() -> tuple[tuple[int, Integers], ...]:
    """How many layers of each shape the network has, and the weights of one of them."""
    counts: dict[tuple[int, int], int] = {}
    for operation in load_workload(NETWORK).operations:
        if isinstance(operation, Gemm) and operation.weights.kind == "weights":
            shape = (operation.n, operation.k)
            counts[shape] = counts.get(shape, 0) + 1
    draw = np.random.Generator(np.random.PCG64(read_figures("bbs_model").whole("seed")))
    return tuple(
        (count, quantize(draw.standard_normal(shape), WEIGHTS).codes.astype(np.int64))
        for shape, count in counts.items()
    )


@lru_cache(maxsize=64)
def network_cycles(design: str, rows: int) -> int:
    """All linear layers: a baseline by name, BitVert by its variant."""
    total = 0
    for count, codes in _layers():
        n, k = codes.shape
        one = bitvert_cycles(design, n, k, rows) if design in VARIANTS else cycles(design, codes, rows)
        total += count * one
    return total


def speedup(design: str, over: str, rows: int | None = None) -> float:
    """Cycles of ``over`` a cycle of ``design``, with as many multipliers."""
    rows = rows or read_figures("bbs_model").whole("rows")
    return network_cycles(over, rows) / network_cycles(design, rows)


def claims() -> list[Claim]:
    """All published figures, then the speedup over each baseline."""
    rows = [compare("bbs", figure, *_ours(figure)) for figure in read_figures("bbs_published")]
    published = read_figures("bbs_published")
    for over in BASELINES:
        for variant in VARIANTS:
            case = {"variant": variant, "over": over}
            if published.get("speedup", **case) is None:
                rows.append(unpublished("bbs", "speedup", case, speedup(variant, over), "x", _SPEEDUP))
    return rows


def _ours(figure: Figure) -> tuple[float | None, str]:
    case = figure.case
    bits = read_figures("bbs_model").whole("bits")
    match figure.name:
        case "bits_per_weight":
            return get_format(f"bbs_zp{case['pruned_columns']}_g32").bits_per_value(), _STORAGE
        case "cycles_of_16_weights":
            return stored_columns(bits, int(case["pruned_columns"])), "one cycle for each stored bit column"
        case "speedup":
            return speedup(str(case["variant"]), str(case["over"])), _SPEEDUP
        case "speedup_low" | "speedup_high":
            choose = min if figure.name == "speedup_low" else max
            return choose(_all_speedups(str(case["over"]))), _SPEEDUP
        case "bitlet_speedup":
            return speedup("bitlet", "stripes", int(case["pe_columns"])), _BITLET
    return (
        None,
        "a synthesis result at 28 nm, which technology bbs_28nm takes over: nothing independent to compare",
    )


def _all_speedups(over: str) -> Iterator[float]:
    return (speedup(variant, name) for name in over.split(",") for variant in VARIANTS)


_STORAGE = "bits that this library's format of pruned groups keeps in memory"
_SPEEDUP = (
    "cycles of BERT-base's linear layers with normal weights beside results over seven networks with their own "
    "weights, memory included"
)
_BITLET = "BERT-base with normal weights beside fine-tuned ones; more filters wait for the fullest of all bit columns"
