"""The fast circuits against integers, exact rounding, and the small ones that compute the same."""

import random

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import C, Cat
from hardware_runs import INVERTING, combinational, in_amaranth
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.pe.accumulator import accumulator
from simulator.pe.arithmetic import round_to_float
from simulator.rtl import prefix
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.fast_add import add_normalised, normalise, reaches_subnormals
from simulator.rtl.fused_add import fused_add
from simulator.rtl.parts import Columns, product, shift_left
from simulator.rtl.units import unit_of_name
from simulator.rtl.units.dot_function import expected_sums, sums_of_codes
from simulator.rtl.units.dot_operands import operands

pytestmark = pytest.mark.rtl


@st.composite
def pairs_of_words(draw):
    """(width, pairs of numbers of that width): random ones and those that carry through all places."""
    width = draw(st.integers(1, 33))
    top = (1 << width) - 1
    word = st.one_of(st.integers(0, top), st.sampled_from([0, 1, top, top - (top > 0), 1 << width - 1]))
    return width, draw(st.lists(st.tuples(word, word), min_size=5, max_size=25))


@settings(max_examples=25, deadline=None)
@given(pairs_of_words())
def test_prefix_circuits_compute_what_integers_do(case):
    width, rows = case
    modulus = 1 << width

    def build(m, a, b):
        plain, following = prefix.add_both(m, a, b)
        return Cat(
            prefix.add(m, a, b),
            prefix.add(m, a, b, C(1, 1)),
            plain,
            following,
            prefix.increment(m, a),
            prefix.greater(m, a, b),
            *prefix.ones_up_to(m, a),
        )

    for (a, b), got in zip(rows, combinational(build, (width, width), rows), strict=True):
        ones = sum((a + 1) % (2 << place) == 0 for place in range(width))
        fields = [(a + b, width + 1), (a + b + 1, width + 1), ((a + b) % modulus, width)]
        fields += [((a + b + 1) % modulus, width), ((a + 1) % modulus, width), (int(a > b), 1)]
        fields += [((1 << ones) - 1, width)]
        wanted, low = 0, 0
        for value, bits in fields:
            wanted |= value << low
            low += bits
        assert got == wanted


def test_a_fast_tree_and_product_are_the_small_ones():
    rng = np.random.default_rng(3)
    rows = [[int(rng.integers(0, 1 << width)) for width in (8, 8, 6)] for _ in range(60)]
    rows += [(0, 0, 0), (255, 255, 63), (128, 128, 32), (127, 128, 31)]

    def build(fast):
        def circuit(m, a, b, c):
            columns = Columns(17)
            columns.add_product(a, b, a_signed=True, b_signed=True)
            columns.add_signed(c)
            return Cat(columns.total(m, INVERTING, fast=fast), product(m, a, c, INVERTING, fast=fast))

        return circuit

    def integer(value, bits):
        return value - (value >> (bits - 1) << bits)

    wanted = [(integer(a, 8) * integer(b, 8) + integer(c, 6)) % (1 << 17) | a * c << 17 for a, b, c in rows]
    assert combinational(build(True), (8, 8, 6), rows) == wanted
    assert combinational(build(False), (8, 8, 6), rows) == wanted


def test_shifts_are_the_same_with_high_places_first():
    rows = [(value, by) for value in (0, 1, 0x5A5, 0xFFF) for by in range(16)]
    assert combinational(lambda m, v, s: shift_left(m, v, s, 14, high_first=True), (12, 4), rows) == [
        value << by & 0x3FFF for value, by in rows
    ]


class Case:
    """Both adders for one format, one width of magnitudes and one origin of their exponents."""

    def __init__(self, name, width, own_bits, exponent):
        self.held = accumulator(name)
        self.to = self.held.float_format
        self.width, self.own_bits, self.exponent = width, own_bits, exponent

    def __str__(self):
        return f"{self.held.name}-{self.width}bits"

    def fast(self, m, addend, sign, magnitude, own, first):
        sign, size, field = normalise(m, self.to, sign, magnitude, own, self.exponent)
        subnormals = reaches_subnormals(self.to, self.exponent)
        return add_normalised(m, self.to, addend, first, sign, size, field, subnormals=subnormals)

    def small(self, m, addend, sign, magnitude, own, first):
        kept = addend & ~first.replicate(len(addend))
        return fused_add(m, self.to, kept, sign, magnitude, own, self.exponent)

    def code(self, number, exponent):
        """The code of number * 2**exponent, rounded. Raises InputError: too large."""
        (rounded,) = round_to_float(np.array([number], object), exponent, self.to)
        magnitude, stored = abs(rounded), self.to.precision - 1
        field = max(magnitude.bit_length() - stored, 0)
        kept = magnitude >> max(field - 1, 0)
        return (rounded < 0) << self.to.bits - 1 | (field << stored) + kept - (field > 0 and 1 << stored)

    def exact(self, addend, sign, magnitude, own, first):
        """The exact sum, rounded, in units of the smallest subnormal number. Raises InputError: too large."""
        before = 0 if first else sums_of_codes(self.held, [addend])[0]
        low = min(self.to.low, self.exponent + own)
        total = (before << self.to.low - low) + (
            (-magnitude if sign else magnitude) << self.exponent + own - low
        )
        (rounded,) = round_to_float(np.array([total], object), low, self.to)
        return rounded

    def check(self, candidates):
        """Of (number, its exponent above the quantum of magnitudes, sign, magnitude, own, first); what overflows is
        left out."""
        rows, wanted = [], []
        for number, above, *term in candidates:
            try:
                addend = self.code(number, self.exponent + above)
                # The code of a sum of such magnitudes: in FP32 a product's last bit may be far above the smallest.
                sum_of = sums_of_codes(self.held, [addend])[0]
                if sum_of % (1 << max(self.exponent - self.to.low, 0)):
                    continue
                self.code(term[1], self.exponent + term[2])
                wanted.append(self.exact(addend, *term))
            except InputError:
                continue
            rows.append((addend, *term))
        assert len(rows) * 2 >= len(candidates)
        widths = (self.held.bits, 1, self.width, self.own_bits, 1)
        fast = combinational(self.fast, widths, rows)
        assert fast == combinational(self.small, widths, rows)
        assert sums_of_codes(self.held, fast) == wanted


CASES = [
    Case("fp32", 8, 6, -18),
    Case("fp32", 22, 6, -48),
    Case("fp32", 30, 9, -284),
    Case("fp32", 16, 9, -266),
    Case("fp32", 1, 5, -20),
    Case("fp16", 8, 4, -13),
    Case("fp16", 14, 4, -30),
    Case("e4m5", 7, 4, -16),
    Case("e4m5", 9, 3, -6),
    Case("e8m13", 8, 6, -18),
]
"""Magnitudes narrower and wider than the accumulator, with sums that can be subnormal and with such that cannot."""
SLOW_ONES_MARKED = [
    pytest.param(case, marks=pytest.mark.slow if case.held.bits == 32 else (), id=str(case)) for case in CASES
]


def random_sums(case, count):
    """Candidates for `Case.check`: leading ones mostly close to each other, bits often the same or runs of ones."""
    rng = random.Random(case.width)
    precision = case.to.precision

    def word(bits):
        run = abs((1 << rng.randint(0, bits)) - (1 << rng.randint(0, bits)))
        return rng.choice([rng.getrandbits(bits), rng.getrandbits(bits), min(run, (1 << bits) - 1)])

    for _ in range(count):
        magnitude, own = word(case.width), rng.getrandbits(case.own_bits)
        number = word(precision)
        if magnitude and rng.random() < 0.4:
            number = magnitude << precision >> magnitude.bit_length() ^ 1 << rng.randrange(precision)
        gap = rng.choice([-2, -1, 0, 0, 1, 2, rng.randint(-40, 40)])
        above = own + magnitude.bit_length() - number.bit_length() + gap
        yield rng.choice([number, -number]), above, rng.getrandbits(1), magnitude, own, rng.random() < 0.1


def corner_sums(case):
    """Cancellation by every number of places, equal magnitudes, ties and their neighbours, carries out of the
    rounding, both terms far above the other, and zeros."""
    precision, middle = case.to.precision, 1 << case.own_bits - 1
    full = (1 << case.width) - 1
    size = 1 << case.width - 1
    for place in range(max(case.width, precision)):
        # The addend is the magnitude but for one place; and one more or less than a power of two against it.
        for magnitude in (full, size, size | size >> 1):
            scaled = magnitude << precision
            yield (
                scaled ^ 1 << place + min(case.width, precision),
                middle - precision,
                1,
                magnitude,
                middle,
                0,
            )
        yield (1 << place + 1) - 1, middle, 1, min(1 << place, full), middle, 0
        yield (1 << place) + 1, middle, 1, min(1 << place, full), middle, 0
    for gap in (*range(-precision - 4, precision + 5), -50, 50):
        for number in (
            (1 << precision) - 1,
            1 << precision - 1,
            (1 << precision - 1) + 1,
            3 << precision - 2,
        ):
            for magnitude in (full, size, full - 1, 1):
                above = middle + magnitude.bit_length() - number.bit_length() + gap
                for sign in (0, 1):
                    yield number, above, sign, magnitude, middle, 0
    for first in (0, 1):
        for own in (0, 1, middle):
            for magnitude in (0, 1, full):
                for number in (0, 1, -1, magnitude, -magnitude):
                    for sign in (0, 1):
                        yield number, own, sign, magnitude, own, first


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_fast_adder_rounds_exactly_and_is_the_small_one(case):
    case.check(list(random_sums(case, 100)))


@pytest.mark.parametrize("case", SLOW_ONES_MARKED)
def test_the_fast_adder_is_exact_at_the_corners(case):
    case.check(list(corner_sums(case)))


@pytest.mark.parametrize(
    "case",
    [one for one in SLOW_ONES_MARKED if reaches_subnormals(one.values[0].to, one.values[0].exponent)],
)
def test_the_fast_adder_rounds_subnormal_sums(case):
    """Terms around the smallest numbers of the format, far below them and just above."""
    rng = random.Random(1)
    lowest = case.to.low - case.exponent
    candidates = []
    for _ in range(250):
        magnitude = rng.getrandbits(case.width) >> rng.randrange(case.width)
        own = min(max(lowest - rng.randint(-4, case.width + 3), 0), (1 << case.own_bits) - 1)
        number = rng.getrandbits(rng.randint(1, case.to.precision))
        candidates.append((rng.choice([number, -number]), lowest, rng.getrandbits(1), magnitude, own, 0))
    case.check(candidates)


@pytest.mark.parametrize(
    "name",
    [
        "mac-int8-int32",
        "mac-int8-fp32-cut2",
        "mac-fp8_e4m3-fp32",
        "mac-fp8_e4m3-fp32-cut2",
        "mac-fp8_e4m3-fp32-cut2-ws",
        "mac-fp16-fp32-cut2-double",
        "mac-bf16-fp32-cut1",
        "mac-fp6_e2m3-fp32-cut2",
        "dot4-int8-int32-cut2",
        "dot2-fp8_e4m3-al22-e8m0-fp32-cut6",
        "dot3-int4-fp8_e4m3-fp32-cut3",
        "dot4-fp4_e2m1-fix-e8m0-fp32-cut5",
    ],
)
def test_fast_units_equal_their_functions(name):
    unit = unit_of_name(name)
    stream = operands(unit, "gaussian", 40, seed=3)
    wanted = expected_sums(unit, [(stream, unit.pairs[0])])[: -unit.latency]
    assert in_amaranth(unit, stream.ports(unit), INVERTING, fast=True) == wanted


@pytest.mark.parametrize("name", ["mac-fp8_e4m3-fp32-cut2", "dot2-fp8_e5m2-al24-e8m0-fp32-cut6"])
def test_a_cut_behind_the_normaliser_delays_relaxed_units_alike(name):
    unit = unit_of_name(name)
    stream = operands(unit, "gaussian", 40, seed=5)
    wanted = expected_sums(unit, [(stream, unit.pairs[0])])[: -unit.latency]
    assert in_amaranth(unit, stream.ports(unit), INVERTING) == wanted


@pytest.mark.parametrize(
    "name",
    ["mac-fp8_e4m3-fp32-cut2", pytest.param("dot2-fp8_e4m3-al22-e8m0-fp32-cut6", marks=pytest.mark.slow)],
)
def test_gates_of_fast_units_are_proved_and_faster(asap7_files, name):
    """`Characteriser.figures` proves the gates against the PE's function before it measures."""
    unit = unit_of_name(name)
    liberty = tuple(map(str, asap7_files))
    tight = Characteriser(Settings(liberty, clock_ghz=1)).figures(unit)
    relaxed = Characteriser(Settings(liberty)).figures(unit_of_name(name.rsplit("-", 1)[0]))
    assert tight.delay_ps < 0.6 * relaxed.delay_ps
