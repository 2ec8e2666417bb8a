"""Accumulators by name: layouts against numpy's and ml_dtypes' own, widths, and names that are none."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from simulator.pe.accumulator import accumulator, promotion

IEEE = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("name", IEEE)
def test_named_floats_have_the_limits_of_their_numpy_types(name: str) -> None:
    held, limits = accumulator(name), ml_dtypes.finfo(IEEE[name])
    layout = held.float_format
    assert layout is not None
    assert (held.bits, layout.bits, layout.precision) == (limits.bits, limits.bits, limits.nmant + 1)
    assert held.exponent_bits == limits.bits - 1 - limits.nmant
    assert 2.0**layout.low == float(limits.smallest_subnormal)
    assert 2.0**layout.high * (1 - 2.0**-layout.precision) == float(limits.max)


@pytest.mark.parametrize(("spelled", "named"), [("e8m23", "fp32"), ("e5m10", "fp16"), ("e8m7", "bf16")])
def test_a_layout_spelled_out_is_that_of_the_named_format(spelled: str, named: str) -> None:
    one, two = accumulator(spelled), accumulator(named)
    assert one.float_format is not None
    assert two.float_format is not None
    assert (one.bits, one.exponent_bits) == (two.bits, two.exponent_bits)
    for field in ("bits", "precision", "low", "high"):
        assert getattr(one.float_format, field) == getattr(two.float_format, field), field


def test_a_result_of_8_exponent_and_13_mantissa_bits_has_22() -> None:
    assert accumulator("e8m13").bits == 22


@pytest.mark.parametrize("name", ["int8", "int64", "fixed8", "fixed1024", "e2m1"])
def test_extremes_are_accumulators(name: str) -> None:
    held = accumulator(name)
    assert held.integers_only == name.startswith("int")
    assert (held.float_format is None) == (name[0] != "e")


@pytest.mark.parametrize(
    "name", ["int7", "int65", "fixed7", "fixed1025", "e1m3", "e9m3", "e5m24", "e5m0", "fp64"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="allowed: int8 to int64"):
        accumulator(name)


@pytest.mark.parametrize(("every", "bits"), [(1, 1), (4, 3), (7, 3), (8, 4)])
def test_a_second_level_is_an_fp32_adder_its_registers_and_a_counter_to_its_steps(
    every: int, bits: int
) -> None:
    adder, register, counter = promotion(every, copies=2)
    assert (adder.kind, adder.params) == ("fp_adder", {"exponent_bits": 8, "significand_bits": 24})
    assert (register.params["bits"], register.count) == (32, 2)
    assert (counter.params["bits"], counter.count) == (bits, 1)
