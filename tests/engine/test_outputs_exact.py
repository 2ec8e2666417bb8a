"""Results of the reference engine, bit by bit, against rational arithmetic on the codes.

The oracle knows nothing of folds in time: it cuts K where the documented rules cut it (scale groups; what an array
holds; K tiles), adds products in Python's fractions, and rounds where the hardware is said to round.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machines import FLOAT_PAIRS, INTEGER_PAIRS, accelerators, description, mapped, operands_for

from simulator.arch import Accelerator, load_accelerator
from simulator.engine import reference
from simulator.engine.outputs import gemm_values, operands_of
from simulator.errors import InputError
from simulator.formats import QuantizedTensor, dequantize, get_format, quantize
from simulator.mapping import Plan, plan_gemm
from simulator.workload import gemm_workload

GROUPED_PAIRS = [
    pair
    for pair in INTEGER_PAIRS
    if any(get_format(name).group_size for name in pair) and "nvint4" not in pair
]


def to_fp32(value: Fraction) -> Fraction:
    """Nearest binary32 value, ties to even, subnormals included."""
    if not value:
        return value
    exponent = -149
    while abs(value) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    step = Fraction(2) ** exponent
    low = floor(value / step)
    rest = value / step - low
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2):
        low += 1
    return low * step


def wrapped(value: Fraction, bits: int) -> Fraction:
    assert value.denominator == 1
    return Fraction((value.numerator + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1))


class Oracle:
    """Results of a GEMM from two quantized tensors and the documented order of additions."""

    def __init__(
        self, plan: Plan, accumulator: str, weights: QuantizedTensor, activations: QuantizedTensor
    ) -> None:
        self.plan, self.accumulator = plan, accumulator
        self.tensors = {"w": weights, "a": activations}
        self.values = {
            side: [[Fraction(float(x)) for x in row] for row in tensor.format.element_values(tensor.codes)]
            for side, tensor in self.tensors.items()
        }
        self.float_sum = accumulator == "fp32"

    def scale(self, side: str, row: int, k: int) -> Fraction:
        tensor = self.tensors[side]
        if tensor.scales is None:
            return Fraction(1)
        if tensor.scales.ndim == 0:
            return Fraction(float(tensor.scales))
        group = k // tensor.format.group_size if tensor.format.group_size else 0
        return Fraction(float(tensor.scales[row, group]))

    def zero(self, side: str, row: int, k: int) -> Fraction:
        tensor = self.tensors[side]
        if tensor.zero_points is None:
            return Fraction(0)
        if tensor.zero_points.ndim == 0:
            return Fraction(int(tensor.zero_points))
        group = k // tensor.format.group_size if tensor.format.group_size else 0
        return Fraction(int(tensor.zero_points[row, group]))

    def cuts(self) -> tuple[list[int], set[int]]:
        """Where one sum in the PEs ends and the next begins, and where a scale group ends."""
        plan = self.plan
        sizes = [tensor.format.group_size for tensor in self.tensors.values() if tensor.format.group_size]
        ends = {k for size in sizes for k in range(size, plan.k, size)} | ({plan.k} if sizes else set())
        starts = {0} | set(range(0, plan.k, plan.tiling.k)) | ends
        if plan.array.dataflow.preloads:
            held = plan.array.rows * plan.array.lanes
            bounds = sorted(starts | {plan.k})
            for low, high in pairwise(bounds):
                starts |= set(range(low, high, held))
        return sorted(starts - {plan.k}), ends

    def partial(self, batch: int, i: int, j: int, low: int, high: int) -> Fraction:
        """What one PE column accumulates over K [low, high), lanes at a time."""
        w, a = self.values["w"][batch * self.plan.n + j], self.values["a"][batch * self.plan.m + i]
        total = Fraction(0)
        for k0 in range(low, high, self.plan.array.lanes):
            total += sum((w[k] * a[k] for k in range(k0, min(k0 + self.plan.array.lanes, high))), Fraction(0))
            total = self.accumulate(total)
        return total

    def accumulate(self, total: Fraction) -> Fraction:
        if self.float_sum:
            return to_fp32(total)
        step = self.tensors["w"].format.element_integers(self.tensors["w"].codes)[1]
        step += self.tensors["a"].format.element_integers(self.tensors["a"].codes)[1]
        unit = Fraction(2) ** step
        return wrapped(total / unit, int(self.accumulator[3:])) * unit

    def without_zeros(self, total: Fraction, batch: int, i: int, j: int, low: int, high: int) -> Fraction:
        row_w, row_a = batch * self.plan.n + j, batch * self.plan.m + i
        z_w, z_a = self.zero("w", row_w, low), self.zero("a", row_a, low)
        for k in range(low, high):
            total += -z_w * self.values["a"][row_a][k] - z_a * self.values["w"][row_w][k] + z_w * z_a
        return total

    def result(self, batch: int, i: int, j: int) -> Fraction:
        row_w, row_a = batch * self.plan.n + j, batch * self.plan.m + i
        starts, ends = self.cuts()
        bounds = [*starts, self.plan.k]
        total, scaled, group_low = Fraction(0), Fraction(0), 0
        for low, high in pairwise(bounds):
            part = self.partial(batch, i, j, low, high)
            total = part if low == group_low else self.accumulate(total + part)
            if high in ends:
                exact = self.without_zeros(total, batch, i, j, group_low, high)
                grouped = Fraction(1)
                for side, row in (("w", row_w), ("a", row_a)):
                    if self.tensors[side].format.group_size:
                        grouped *= self.scale(side, row, group_low)
                scaled = to_fp32(scaled + exact * grouped)
                group_low = high
        if not ends:
            scaled = self.without_zeros(total, batch, i, j, 0, self.plan.k)
        for side, row in (("w", row_w), ("a", row_a)):
            tensor = self.tensors[side]
            if not tensor.format.group_size:
                scaled *= self.scale(side, row, 0)
            if tensor.tensor_scale is not None:
                scaled *= Fraction(float(tensor.tensor_scale))
        return to_fp32(scaled)


def check(plan: Plan, data: dict[str, Any], seed: int) -> None:
    operands, weights, activations = operands_for(plan, data, seed)
    _, results = reference.simulate_gemm(plan, "x", "gemm", operands)
    assert results is not None
    assert (gemm_values(plan, operands) == results).all()
    oracle = Oracle(plan, data["pe"].get("accumulator", "int32"), weights, activations)
    for batch, i, j in np.ndindex(results.shape):
        assert Fraction(float(results[batch, i, j])) == oracle.result(batch, i, j), (batch, i, j)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is", "broadcast"])
@pytest.mark.parametrize(("weights", "activations"), INTEGER_PAIRS + FLOAT_PAIRS)
def test_every_format_in_every_dataflow_equals_rational_arithmetic(
    dataflow: str, weights: str, activations: str
) -> None:
    workload = gemm_workload(5, 21, 7, weights=weights, activations=activations, batch=2)
    operation = workload.gemms[0]
    elements = [get_format(name).element for name in (weights, activations)]
    accumulator = "int32" if all(element.is_integer for element in elements) else "fp32"
    pe = {"weights": [elements[0].name], "activations": [elements[1].name], "accumulator": accumulator}
    data = description(array={"dataflow": dataflow}, pe=pe)
    check(plan_gemm(operation, load_accelerator(data)), data, seed=1)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawn=mapped(GROUPED_PAIRS, family="toy", inside=True), seed=st.integers(0, 100))
def test_scales_applied_inside_give_the_product_of_the_dequantized_tensors(
    drawn: tuple[Plan, Accelerator], seed: int
) -> None:
    """The toy PE keeps exact sums of scaled groups, so that only the output stage rounds."""
    plan, accelerator = drawn
    random = np.random.default_rng(seed)
    weights = quantize(random.normal(size=(plan.batch * plan.n, plan.k)).astype(np.float32), plan.weights)
    activations = quantize(
        random.laplace(size=(plan.batch * plan.m, plan.k)).astype(np.float32), plan.activations
    )
    operands = operands_of(plan, accelerator.element, weights, activations)
    _, results = reference.simulate_gemm(plan, "x", "gemm", operands)
    assert results is not None
    assert (gemm_values(plan, operands) == results).all()
    w, a = (dequantize(tensor, np.float64) for tensor in (weights, activations))
    for batch, i, j in np.ndindex(results.shape):
        rows = w[batch * plan.n + j], a[batch * plan.m + i]
        products = (Fraction(x) * Fraction(y) for x, y in zip(*map(np.ndarray.tolist, rows), strict=True))
        exact = sum(products, Fraction(0))
        assert Fraction(float(results[batch, i, j])) == to_fp32(exact), (batch, i, j)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    machine=accelerators(INTEGER_PAIRS + FLOAT_PAIRS),
    sizes=st.tuples(*[st.integers(1, 7)] * 2),
    k=st.integers(1, 24),
    seed=st.integers(0, 99),
)
def test_random_machines_compute_the_documented_sums(
    machine: tuple[dict[str, Any], tuple[str, str]], sizes: tuple[int, int], k: int, seed: int
) -> None:
    data, (weights, activations) = machine
    workload = gemm_workload(sizes[0], k, sizes[1], weights=weights, activations=activations)
    try:
        plan = plan_gemm(workload.gemms[0], load_accelerator(data))
    except InputError:
        return
    check(plan, data, seed)


def test_narrow_accumulators_wrap() -> None:
    data = description(pe={"accumulator": "int8"})
    plan = plan_gemm(gemm_workload(3, 9, 3).gemms[0], load_accelerator(data))
    check(plan, data, seed=2)


def test_rounding_oracle_is_numpys() -> None:
    random = np.random.default_rng(0)
    for value in random.normal(size=200) * 10.0 ** random.integers(-46, 38, 200):
        assert to_fp32(Fraction(float(value))) == Fraction(float(np.float32(value)))
    assert ceil(to_fp32(Fraction(2**24 + 1))) == 2**24
