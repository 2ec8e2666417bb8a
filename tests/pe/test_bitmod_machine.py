"""BitMoD in an array: real formats, groups and scales through the reference engine, equal to the oracle."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from bitmod_oracle import booth_terms, float_terms, oracle_step, to_float

from simulator.arch import load_accelerator
from simulator.array.rescale import operand
from simulator.engine import fast, reference
from simulator.engine.outputs import gemm_values
from simulator.engine.reference import Operands
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, exact_integers, get_format, quantize
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload


def machine(dataflow: str, rows_hold: str, k: int, **pe: Any) -> Any:
    """``k``: the tile."""
    return load_accelerator(
        {
            "name": "small",
            "clock_ghz": 1.0,
            "array": {
                "dataflow": dataflow,
                "rows": 4,
                "cols": 3,
                "rows_hold": rows_hold,
                "rescale_per_cycle": 0,
            },
            "pe": {
                "family": "bitmod",
                "weights": ["bitmod_fp4", "bitmod_fp3", "int8", "int6", "int5"],
                "activations": "fp16",
                "tile": 2,
                **pe,
            },
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


def expected(weights: QuantizedTensor, activations: QuantizedTensor, tile: int) -> np.ndarray:
    """Groups in ascending order, tiles of K added in the output buffer; the channel's scale and the rounding to FP32
    last."""
    format = weights.format
    integers, exponent = exact_integers(weights)
    assert exponent == 0
    m, k = activations.shape
    group = format.group_size or k
    results = np.zeros((m, len(integers)), np.float32)
    for i in range(m):
        for j, row in enumerate(integers.tolist()):
            result = Fraction(0)
            for first in range(0, k, tile):
                total = Fraction(0)
                for low in range(first, min(first + tile, k), group):
                    partial, last = Fraction(0), min(low + group, first + tile, k)
                    for begin in range(low, last, 4):
                        end = min(begin + 4, last)
                        recode = float_terms if format.element.kind == "table" else booth_terms
                        lanes = [recode(value, format.code_bits) for value in row[begin:end]]
                        partial = oracle_step(partial, activations.codes[i, begin:end].tolist(), lanes)
                    if format.group_size:
                        assert weights.scales is not None
                        total = to_float(total + partial * Fraction(float(weights.scales[j, low // group])))
                    else:
                        total = partial
                result = to_float(result + total)
            channel = weights.row_scales if format.group_size else weights.scales
            assert channel is not None
            results[i, j] = float(to_float(result * Fraction(float(channel[j, 0]))))
    return results


@pytest.mark.parametrize(("dataflow", "rows_hold"), [("os", "m"), ("broadcast", "n"), ("broadcast", "m")])
@pytest.mark.parametrize("name", ["bitmod_fp4_g16", "bitmod_fp3_g8", "int6_g16_si8", "int5_channel"])
@pytest.mark.parametrize("tile", [35, 16])
def test_results_equal_the_oracle_and_engines_agree(
    name: str, dataflow: str, rows_hold: str, tile: int
) -> None:
    accelerator = machine(dataflow, rows_hold, tile)
    plan = plan_gemm(gemm_workload(5, 35, 6, weights=name, activations="fp16").gemms[0], accelerator)
    random = np.random.default_rng(7)
    weights = quantize(random.normal(size=(6, 35)).astype(np.float32), name)
    activations = quantize(random.laplace(size=(5, 35)).astype(np.float32), "fp16")
    operands = Operands(
        operand(weights, 1, 6),
        operand(activations, 1, 5),
        accelerator.element.function(weights.format, activations.format),
    )
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    assert results is not None
    assert (results[0] == expected(weights, activations, tile)).all()
    assert (gemm_values(plan, operands) == results).all()
    assert record.cycles == fast.simulate_gemm(plan, "gemm", "gemm").cycles
    assert record.counts == fast.simulate_gemm(plan, "gemm", "gemm").counts


def test_a_scaling_unit_shared_too_widely_stalls_the_array() -> None:
    """A group of 16 takes 4 steps of 2 cycles. A PE's own unit needs 8 and waits one for the adder, which takes the
    products of a column of two PEs in turn; a unit of both needs 16."""
    cycles = {}
    for sharing, stall in ((1, 1), (2, 8)):
        accelerator = machine("broadcast", "n", 64, dequant_shared_by=sharing)
        gemm = gemm_workload(3, 64, 4, weights="bitmod_fp4_g16", activations="fp16").gemms[0]
        record = fast.simulate_gemm(plan_gemm(gemm, accelerator), "gemm", "gemm")
        assert record.cycle_stack["dequantization"] == 4 * stall
        cycles[sharing] = record.compute_cycles
    assert cycles[2] >= cycles[1] + 7 * 4


def test_the_shipped_array_takes_the_papers_cycles_and_little_more() -> None:
    """ceil(K/4) ceil(N/32) ceil(T/32) L, as the paper counts, with our drain of the last fold beside it."""
    accelerator = load_accelerator("bitmod")
    for name, cycles in (
        ("bitmod_fp4_g128", 2),
        ("bitmod_fp3_g128", 2),
        ("int6_g128_si8", 3),
        ("int8_g128_si8", 4),
    ):
        gemm = gemm_workload(256, 4096, 4096, weights=name, activations="fp16").gemms[0]
        ideal = 1024 * 128 * 8 * cycles
        found = fast.simulate_gemm(plan_gemm(gemm, accelerator), "gemm", "gemm").compute_cycles
        assert ideal < found < ideal + 64


def test_scales_in_fp16_are_refused_by_name() -> None:
    gemm = gemm_workload(4, 64, 4, weights="int4_g16", activations="fp16").gemms[0]
    with pytest.raises(InputError, match="bitmod"):
        plan_gemm(gemm, load_accelerator("bitmod"))
    assert get_format("bitmod_fp4_g128").bits_per_value() == 4 + 10 / 128
