"""Units in Amaranth's simulator against the PEs' own functions, bit for bit."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hardware_runs import ADDERS, INVERTING, combinational, in_amaranth

from simulator.errors import InputError
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, largest, leading_zeros, product, saturate, shift_left, shift_right
from simulator.rtl.units import default_units, unit_of_name
from simulator.rtl.units.dot import DotUnit
from simulator.rtl.units.dot_function import expected_sums, sums_of_codes
from simulator.rtl.units.dot_operands import Operands, operands

pytestmark = pytest.mark.rtl


def simulated(unit, stream, adder=None, pair=None):
    """Accumulators after each cycle's operands but the last, as the PE's function writes them."""
    return in_amaranth(unit, stream.ports(unit, pair), adder)


def expected(unit, stream, pair=None):
    return expected_sums(unit, [(stream, pair or unit.pairs[0])])[: -unit.latency]


UNITS = [
    "mac-int8-int32",
    "mac-int8-int32-cut1",
    "mac-int4xint8-int32",
    "mac-int2xint8-int16",
    "mac-uint4-int16",
    "mac-int8-fp32",
    "mac-fp8_e4m3-fixed42",
    "mac-fp8_e4m3-fixed48-cut2",
    "mac-fp8_e5m2-fixed70",
    "mac-fp6_e3m2-fixed24",
    "mac-fp4_e2m1-fixed14",
    "mac-fp8_e4m3-fp32",
    "mac-fp8_e4m3-fp32-cut1",
    "mac-fp8_e4m3xfp8_e5m2-fp32",
    "mac-fp6_e2m3-fp32",
    "mac-fp4_e2m1-fp16",
    "mac-fp16-fp32",
    "mac-bf16-fp32",
    "mac-fp6_e2m3-e8m13",
    "dot4-int8-int32",
    "dot4-int8-int32-cut2",
    "dot2-fp8_e4m3-al22-fp32",
    "dot4-fp8_e4m3-al3-fp32-cut4",
    "dot2-fp8_e4m3-fix-fp32",
    "dot2-fp8_e5m2-al24-e8m0-fp32-cut3",
    "dot3-int8-e8m0-fp32-cut2",
    "dot3-int4-fp8_e4m3-fp32",
    "dot4-fp4_e2m1-fix-e8m0-fp32-cut3",
    "dot4-fp4_e2m1-fix-fp8_e4m3-fp32-cut1",
    "mac-int8-int32-double",
    "mac-int8-int24-cut1-ws",
    "mac-int8-int24-ws-double",
    "mac-int4xint8-int32-is",
    "mac-int4xint8-int32-cut1-is-double",
    "mac-fp8_e4m3-fp32-cut1-ws",
    "mac-fp8_e4m3-fixed48-ws-double",
    "dot2-fp8_e4m3-al22-fp32-cut2-double",
    "dot4-int8-int32-cut2-ws",
    "mac-int4xfp16-fp32",
    "mac-int8xfp8_e4m3-fixed48",
    "mac-uint4xs5-int16",
    "mac-uint4xint8-int32",
    "dot4-uint4xfp8_e4m3-al20-fp32-cut3",
    "dot2-s3xfp6_e3m2-fix-fp32",
    "dot2-int8-uint4-int32-cut1",
    "mac-fp8_e4m3-fp16-every4-cut1-double",
    "dot3-fp8_e4m3-al22acc-fp32-cut3",
    "dot2-int8-fp16-fp32-every3-cut4-double",
]


@pytest.mark.parametrize("name", UNITS)
def test_hardware_equals_function_on_random_operands(name):
    unit = unit_of_name(name)
    kind = "gaussian" if unit.weights in ("bf16", "fp16") or unit.accumulator == "fp16" else "uniform"
    stream = operands(unit, kind, 40, seed=3)
    assert simulated(unit, stream, ADDERS[UNITS.index(name) % 3]) == expected(unit, stream)


def test_narrow_integers_use_the_wide_hardware():
    unit = unit_of_name("mac-int8+int4xint8+int6-int20-ws")
    assert [(w.name, a.name) for w, a in unit.pairs] == [
        ("int8", "int8"),
        ("int8", "int6"),
        ("int4", "int8"),
        ("int4", "int6"),
    ]
    for pair in unit.pairs:
        stream = operands(unit, "uniform", 40, pair=pair)
        assert np.abs(stream.weights).max() <= 1 << (pair[0].element.bits - 1)
        assert simulated(unit, stream, pair=pair) == expected(unit, stream, pair)


@pytest.mark.parametrize(
    "name",
    [
        "mac-fp8_e4m3+fp8_e5m2-fp32",
        "mac-int4+int8xfp8_e4m3+fp4_e2m1-fp32",
        "mac-int8+int4xs14-int32-ws-double",
        "dot2-fp8_e5m2+fp6_e3m2-fix-fp32-cut2",
        "dot2-fp4_e2m1+int4-fix-fp8_e4m3-fp32",
        "dot2-s7+s3-e8-fp32-cut1",
        "dot2-int8+int4-uint4+uint6to6-int32-cut2",
        "dot2-fp8_e4m3+fp6_e2m3+int8-al22-e8m0-fp32-cut4",
        "dot2-fp8_e4m3+fp8_e5m2-al13acc-fp16-e8m13trunc-every4-cut5-double",
        pytest.param("dot2-fp6_e2m3+fp4_e2m1+int8-fix-fp32", marks=pytest.mark.slow),
        pytest.param("dot2-fp8_e4m3+fp8_e5m2+fp6_e3m2+int8+int4-al22-e8m0-fp32-cut4", marks=pytest.mark.slow),
    ],
)
def test_formats_share_hardware(name):
    unit = unit_of_name(name)
    for proof in unit.proofs:
        stream = unit.stream(proof, 12 * len(unit.pairs), seed=6)
        assert in_amaranth(unit, stream.ports, INVERTING) == list(stream.expected())


@pytest.mark.parametrize("kind", ["often", "gaussian"])
def test_a_second_level_takes_what_leaves_the_first(kind):
    unit = unit_of_name("dot2-fp8_e4m3-al13acc-fp16-e8m13trunc-every4-cut3-double")
    stream = operands(unit, kind, 150, seed=8)
    assert len(set(expected(unit, stream))) > 2
    assert simulated(unit, stream) == expected(unit, stream)


def corner_codes(element, rng, shape):
    """Zeros of both signs, smallest, largest and middle magnitudes, both signs."""
    top = element.max_code
    if element.is_integer:
        return rng.choice([0, 1, -1, top, -top, -top - (element.kind == "int"), top // 2], shape)
    magnitudes = [0, 1, (1 << element.mantissa_bits) - 1, 1 << element.mantissa_bits, top // 2, top]
    return rng.choice(magnitudes, shape) | rng.integers(0, 2, shape) << (element.bits - 1)


@pytest.mark.parametrize(
    "name",
    [
        "mac-int8-int16",
        "mac-fp8_e4m3-fixed40",
        "mac-fp8_e4m3-fp32",
        "mac-fp8_e5m2-fp32",
        "mac-fp16-fp32",
        "dot2-fp8_e4m3-al22-fp32",
        "dot2-fp6_e3m2-fix-fp32",
        "dot4-int8-int32",
        "mac-s6xint8-int16",
        "dot2-int8xfp8_e4m3-al12-fp32",
    ],
)
def test_hardware_equals_function_at_the_corners(name):
    unit = unit_of_name(name)
    rng = np.random.default_rng(5)
    codes = [
        corner_codes(element, rng, (80, unit.lanes))
        for element in (unit.pairs[0][1].element, unit.pairs[0][0].element)
    ]
    stream = Operands(*codes, np.arange(80) % 20 == 0)
    assert simulated(unit, stream, INVERTING) == expected(unit, stream)


@pytest.mark.parametrize("name", ["mac-fp8_e4m3-fp32", "mac-fp16-fp32", "mac-bf16-fp32"])
def test_sums_cancel_exactly(name):
    """Every product comes back with the other sign a few cycles later: the sum returns to zero through all its bits."""
    unit = unit_of_name(name)
    forth = operands(unit, "gaussian", 8, seed=9)
    sign = 1 << (unit.words[0].bits - 1)
    weights = np.concatenate([forth.weights, forth.weights[::-1] ^ sign] * 3)
    activations = np.concatenate([forth.activations, forth.activations[::-1]] * 3)
    stream = Operands(activations, weights, np.arange(48) == 0)
    assert simulated(unit, stream) == expected(unit, stream)


def test_scales_reach_subnormal_results():
    """Blocks whose scales' product is far below one: the FP32 sum underflows and rounds at 2**-149."""
    unit = unit_of_name("dot2-int8-e8m0-fp32")
    rng = np.random.default_rng(2)
    codes = [rng.integers(-127, 128, (60, 2)) for _ in range(2)]
    scales = [rng.integers(60, 75, 60), rng.integers(40, 52, 60)]
    stream = Operands(*codes, np.arange(60) % 6 == 0, *scales)
    sums = expected(unit, stream)
    assert any(0 < abs(value) < 1 << 23 for value in sums)
    assert simulated(unit, stream) == sums


@pytest.mark.slow
@pytest.mark.parametrize("unit", default_units(), ids=lambda unit: unit.name)
def test_every_default_unit_equals_its_oracle(unit):
    for proof in unit.proofs:
        stream = unit.stream(proof, 96 if unit.lanes == 1 else 24, seed=4)
        assert in_amaranth(unit, stream.ports, INVERTING) == list(stream.expected())


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize(("a_bits", "b_bits"), [(1, 3), (4, 4), (5, 3), (8, 8)])
@pytest.mark.parametrize("signed", [False, True])
def test_products_are_exact(adder, a_bits, b_bits, signed):
    rng = np.random.default_rng(0)
    rows = [(0, 0), ((1 << a_bits) - 1, (1 << b_bits) - 1), (1 << a_bits - 1, 1 << b_bits - 1)]
    rows += list(zip(rng.integers(0, 1 << a_bits, 30), rng.integers(0, 1 << b_bits, 30), strict=True))
    got = combinational(lambda m, a, b: product(m, a, b, adder, signed=signed), (a_bits, b_bits), rows)

    def integer(value, bits):
        value = int(value)
        return value - ((value >> (bits - 1)) << bits) if signed else value

    mask = (1 << (a_bits + b_bits)) - 1
    assert got == [integer(a, a_bits) * integer(b, b_bits) & mask for a, b in rows]


@pytest.mark.parametrize("adder", ADDERS)
def test_a_tree_adds_terms_of_every_kind(adder):
    rng = np.random.default_rng(1)
    widths = (6, 5, 1, 4, 7)
    rows = [[int(rng.integers(0, 1 << width)) for width in widths] for _ in range(60)]

    def build(m, a, b, sign, magnitude, c):
        columns = Columns(10)
        columns.add_unsigned(a, 1)
        columns.add_signed(b, 2)
        columns.add_signed_magnitude(sign, magnitude)
        columns.add_product(c, a, a_signed=True, b_signed=False)
        return columns.total(m, adder)

    def total(a, b, sign, magnitude, c):
        b, c = b - (b >> 4 << 5), c - (c >> 6 << 7)
        return (2 * a + 4 * b + (-magnitude if sign else magnitude) + a * c) % 1024

    assert combinational(build, widths, rows) == [total(*row) for row in rows]


def test_shifters_count_and_compare():
    rng = np.random.default_rng(2)
    values = [0, 1, 0x1000, 0x1FFF] + [
        int(rng.integers(0, 1 << 13)) >> int(s) for s in rng.integers(0, 13, 40)
    ]
    rows = [(value, int(rng.integers(0, 32))) for value in values]
    assert combinational(lambda m, v, s: shift_left(m, v, s, 20), (13, 5), rows) == [
        value << by & 0xFFFFF for value, by in rows
    ]
    assert combinational(lambda m, v, s: shift_right(m, v, s, sticky=True), (13, 5), rows) == [
        (value >> by) << 1 | (value & ((1 << by) - 1) != 0) for value, by in rows
    ]
    for width in (1, 2, 7, 8, 13):
        narrow = [(value & ((1 << width) - 1),) for value in values]
        assert combinational(leading_zeros, (width,), narrow) == [
            width - value.bit_length() for (value,) in narrow
        ]
    assert combinational(lambda m, v, s: largest(m, [v[:5], v[5:10], s]), (13, 5), rows) == [
        max(value & 31, value >> 5 & 31, by) for value, by in rows
    ]
    far = combinational(lambda m, v: saturate(m, v, 9), (13,), [(value,) for value in values])
    assert all(got == value if value < 16 else got == 15 for got, value in zip(far, values, strict=True))


def test_the_adder_that_rounds_takes_any_accumulator():
    """Random codes of a small float and random magnitudes around it, subnormals included, against exact rounding."""
    from simulator.pe.accumulator import accumulator
    from simulator.pe.arithmetic import round_to_float

    held = accumulator("e4m5")
    to = held.float_format
    infinite = 15 << 5
    rng = np.random.default_rng(7)
    rows, wanted = [], []
    while len(rows) < 600:
        code, sign, magnitude, own = (int(rng.integers(0, high)) for high in (1 << held.bits, 2, 128, 16))
        if code & infinite == infinite:
            continue
        exponent = to.low - 5
        (before,) = sums_of_codes(held, [code])
        total = before * 2**5 + (-magnitude if sign else magnitude) * 2**own
        try:
            (rounded,) = round_to_float(np.array([total], object), exponent, to)
        except InputError:
            continue
        rows.append((code, sign, magnitude, own))
        wanted.append(rounded)

    def build(m, addend, sign, magnitude, own):
        return fused_add(m, to, addend, sign, magnitude, own, to.low - 5)

    assert sums_of_codes(held, combinational(build, (held.bits, 1, 7, 4), rows)) == wanted


@pytest.mark.parametrize("unit", default_units(), ids=lambda unit: unit.name)
def test_a_name_says_everything(unit):
    assert unit_of_name(unit.name) == unit
    if not isinstance(unit, DotUnit):
        return
    for component in unit.components():
        assert component.params["stages"] == 1 + unit.cuts


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mac", "not the name of a unit"),
        ("max-int8", "begins like no unit .* mean mac"),
        ("mac-int8", "not the name of a unit"),
        ("dot0-int8-int32", "not the name of a unit"),
        ("mac-int8xint8-int32", "allowed: mac-int8-int32"),
        ("mac-int8-int32-cut2", "pipeline cuts"),
        ("mac-int8xbitmod_fp4-fp32", "no hardware description of this element"),
        ("mac-int4+uint8xint8-int32", "integers of several kinds"),
        ("mac-s7+s3-int32", "count in one unit"),
        ("dot4-int8+fp8_e4m3-al8-fp32", "allowed: 12 or more"),
        ("mac-fp8_e4m3-int32", "an accumulator of integers"),
        ("dot4-int8-al8-fp32", "integers are not aligned"),
        ("dot4-int8-e8m0-int32", "integer scales need an accumulator of integers, others one of floats"),
        ("dot4-int8-uint4-fp32", "integer scales need an accumulator of integers"),
        ("dot4-int8-uint4to9-int32", "to no more bits than the narrowest have"),
        ("dot4-int8-bf16-fp32", "scales of this unit"),
        ("mac-int99-int32", "int99"),
        ("dot4-fp8_e4m3-al13acc-e4m13trunc", "could be subnormal"),
        ("dot4-fp8_e4m3-al13-fp32trunc", "truncates only where it is fused"),
        ("dot4-fp8_e4m3-al13acc-e8m0-fp32", "wait for a second level"),
        ("mac-fp8_e4m3-fp16-every4-cut1", "a second level needs"),
        ("mac-fp8_e4m3-fp16-every2-cut1-double", "too often"),
    ],
)
def test_names_of_no_unit_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


def test_units_must_be_consistent():
    with pytest.raises(InputError, match="0 to 1"):
        DotUnit("int8", "int8", "int32", cuts=3)
