"""L-Mul as hardware, against the rule in exact fractions; and what the rule is worth."""

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hardware_runs import ADDERS, in_amaranth

from simulator.errors import InputError
from simulator.formats.element import decode
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.units import unit_of_name
from simulator.rtl.units.lmul import DEFAULT, LMulUnit, approximate_product, offset_exponent

pytestmark = pytest.mark.rtl

UNITS = [
    "lmul-fp8_e4m3",
    "lmul-fp8_e5m2",
    "lmul-fp16",
    "lmul-bf16",
    "lmul-fp32",
    "lmul-fp8_e4m3-fp32",
    "lmul-fp8_e5m2-fp16",
    "lmul-bf16-fp32-cut1",
    "lmul4-fp8_e4m3-al22-fp32-cut3",
    "lmul2-fp8_e5m2-al3-fp32-cut1",
    "lmul3-bf16-al4-fp32",
    "lmul-bf16-fp32-cut2",
    "lmul2-fp8_e4m3-al9-fp32-cut4",
]


@pytest.mark.parametrize("name", UNITS)
def test_hardware_follows_the_rule(name):
    unit = unit_of_name(name)
    for proof in unit.proofs if unit.accumulator != "fp16" else ("corners",):
        stream = unit.stream(proof, 40, seed=UNITS.index(name))
        adder = ADDERS[UNITS.index(name) % 3]
        assert in_amaranth(unit, stream.ports, adder) == list(stream.expected()), proof


@pytest.mark.parametrize("name", ["lmul-fp8_e5m2-fp32", "lmul2-bf16-al4-fp32-cut2"])
def test_the_fast_loop_follows_the_rule_too(name):
    unit = unit_of_name(name)
    for proof in unit.proofs:
        stream = unit.stream(proof, 40, seed=6)
        assert in_amaranth(unit, stream.ports, ADDERS[1], fast=True) == list(stream.expected()), proof


def test_the_rule_is_as_wrong_as_is_known_of_it():
    """BF16, all pairs of mantissas: 2.655 % on average and 7.288 % at most, as an independent evaluation found."""
    element = LMulUnit("bf16").element
    one = 127 << 7
    errors = []
    for x in range(128):
        for y in range(128):
            exact = Fraction(128 + x, 128) * Fraction(128 + y, 128)
            errors.append(abs(approximate_product(element, one + x, one + y) / exact - 1))
    assert float(sum(errors) / len(errors)) == pytest.approx(0.02655, abs=5e-6)
    assert float(max(errors)) == pytest.approx(0.07288, abs=5e-6)


@pytest.mark.parametrize(("format_", "offset"), [("bf16", 0x3F78), ("fp16", 0x3BC0), ("fp8_e4m3", 0x37)])
def test_the_rule_is_one_addition_of_codes(format_, offset):
    """Exponent and mantissa as one integer: X + Y less a constant, for normal operands and results."""
    unit = LMulUnit(format_)
    assert unit.offset == offset
    element = unit.element
    normal = 1 << element.mantissa_bits
    rng = np.random.default_rng(1)
    one = ((1 << (element.exponent_bits - 1)) - 1) << element.mantissa_bits
    for a, b in rng.integers(one // 2 + normal, one + one // 2, (200, 2)):
        code = int(a + b) - unit.offset
        value = float(decode(element, np.array([code]))[0])
        assert approximate_product(element, int(a), int(b)) == Fraction(value)


def test_operands_without_a_leading_one_count_zero():
    element = LMulUnit("fp8_e5m2").element
    for code in (0, 1, 3, 0x80, 0x83):
        assert approximate_product(element, code, 0x3C) == 0
    assert approximate_product(element, 0x3C, 0x3C) == Fraction(5, 4)
    assert approximate_product(element, 0xBC, 0x3C) == Fraction(-5, 4)


def test_the_constant_shrinks_with_the_mantissa_up_to_a_sixteenth():
    assert [offset_exponent(bits) for bits in (1, 2, 3, 4, 5, 7, 10, 23)] == [1, 2, 3, 3, 4, 4, 4, 4]


def test_the_gates_follow_the_rule_and_zeros_cost_nothing(toy_file):
    """`figures` proves before it measures."""
    worker = Characteriser(Settings((str(toy_file),)))
    alone, product = (
        worker.figures(unit_of_name(name)) for name in ("lmul-fp8_e5m2", "part-fp_multiplier-e5m2")
    )
    assert alone.area_um2 < product.area_um2
    assert alone.energy["zero"].total_fj < 0.01 * alone.energy["gaussian"].total_fj
    dot = worker.figures(unit_of_name("lmul2-fp8_e5m2-al3-e6m4-cut1"))
    assert dot.flops == 4 * 8 + 1 + 11 + dot_cut_bits()
    assert dot.energy["zero"].total_fj < dot.energy["gaussian"].total_fj


def dot_cut_bits():
    """Behind the tree: the flag, the largest exponent with its carry, the sum of two of four bits and a sign."""
    return 1 + 6 + 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lmul", "not the name of a unit"),
        ("lmul-int8", "formats of L-Mul"),
        ("lmul-bf16-int32", "not the name of a unit"),
        ("lmul4-bf16-fp32", "several lanes, a window"),
        ("lmul-bf16-al8-fp32", "several lanes, a window"),
        ("lmul-bf16-fp32-cut3", "pipeline cuts"),
        ("lmul-bf16-fp33", "not an accumulator"),
        ("lmul1-bf16", "allowed: lmul-bf16"),
    ],
)
def test_names_of_no_unit_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


@pytest.mark.parametrize("name", [*UNITS, *(name for name in DEFAULT.split() if name.startswith("lmul"))])
def test_a_name_says_everything(name):
    unit = unit_of_name(name)
    assert unit.name == name
    assert unit.specification()["name"] == name
    (component,) = unit.components()
    assert component.params["format"] == unit.format
