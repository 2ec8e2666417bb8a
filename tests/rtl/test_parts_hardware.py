"""The circuits of the cost model as hardware: equal to integers, to exact rounding and to numpy's floats."""

import itertools

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hardware_runs import ADDERS, in_amaranth

from simulator.arch import components, load_accelerator
from simulator.arch.load import accelerator_names
from simulator.errors import InputError
from simulator.hardware import Component, Part, load_technology
from simulator.hardware.constant import curve
from simulator.hardware.kinds import KINDS
from simulator.hardware.table import CostRow, make_table, param_key, table_text
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.unit import port_bits
from simulator.rtl.units import unit_of_name
from simulator.rtl.units.part import DEFAULT, PART_KINDS

pytestmark = pytest.mark.rtl

UNITS = [
    "part-int_multiplier-1x1",
    "part-int_multiplier-7x1",
    "part-int_multiplier-5x2",
    "part-int_multiplier-8x8",
    "part-int_adder-1",
    "part-int_adder-32",
    "part-int_adder-86",
    "part-comparator-1",
    "part-comparator-9",
    "part-shifter-2",
    "part-shifter-13",
    "part-multiplexer-2x1",
    "part-multiplexer-5x3",
    "part-multiplexer-8x4",
    "part-register-1",
    "part-fp_multiplier-e2m3",
    "part-fp_multiplier-e4m3",
    "part-fp_multiplier-e5m10",
    "part-fp_multiplier-e8m10",
    "part-fp_adder-e3m2",
    "part-fp_adder-e5m2",
    "part-fp_adder-e5m10",
    "part-fp_adder-e8m13",
]


@pytest.mark.parametrize("name", UNITS)
def test_a_part_computes_what_its_kind_says(name):
    unit = unit_of_name(name)
    for proof in unit.proofs:
        stream = unit.stream(proof, 40, seed=UNITS.index(name))
        adder = ADDERS[UNITS.index(name) % 3]
        assert in_amaranth(unit, stream.ports, adder) == list(stream.expected()), proof


@pytest.mark.parametrize("kind", ["fp_multiplier", "fp_adder"])
@pytest.mark.parametrize(("layout", "dtype", "mantissa_bits"), [("e5m10", "f2", 10), ("e8m23", "f4", 23)])
def test_floats_are_those_of_ieee_754_bit_for_bit(kind, layout, dtype, mantissa_bits):
    """Numpy's FP16 and FP32: normal numbers, subnormal ones, results on the border between them, zeros of both signs.

    Exponents of the operands are drawn so that results are often subnormal or cancel.
    """
    unit = unit_of_name(f"part-{kind}-{layout}")
    rng = np.random.default_rng(4)
    bits = unit.element.bits
    middle = (1 << (unit.element.exponent_bits - 1)) // 2 if kind == "fp_multiplier" else 3
    count = 150 if mantissa_bits < 20 else 60
    fields = rng.integers(0, 2 * middle, (2, count))
    fractions = rng.integers(0, 1 << mantissa_bits, (2, count)) >> rng.choice(
        [0, mantissa_bits - 1], (2, count)
    )
    fields[:, :15] = rng.integers(0, 2, (2, 15))
    fractions[:, :5] = 0
    a, b = fields << mantissa_bits | fractions | rng.integers(0, 2, (2, count)) << (bits - 1)
    b[15:35] = a[15:35] ^ (1 << (bits - 1)) ^ rng.integers(0, 3, 20)
    x, y = (codes.astype(f"u{dtype[1]}").view(dtype) for codes in (a, b))
    with np.errstate(all="ignore"):
        result = x * y if kind == "fp_multiplier" else x + y
    wanted = result.view(f"u{dtype[1]}").tolist()
    assert np.isfinite(result).all()
    assert ((np.abs(result) < np.finfo(dtype).tiny) & (result != 0)).any()
    assert run(unit, a, b) == wanted


def run(unit, a, b):
    """Codes at the output for codes of two operands."""
    ports = {"a": port_bits(a, unit.element.bits), "b": port_bits(b, unit.element.bits)}
    seen = []

    class Bare(type(unit)):
        def read(self, outputs):
            seen.extend(outputs["out"])
            return []

    in_amaranth(Bare(unit.kind, unit.sizes), ports)
    return seen


@pytest.mark.parametrize("kind", ["fp_multiplier", "fp_adder"])
def test_every_pair_of_fp4_rounds_to_the_nearest(kind):
    """The nearest of all eight magnitudes, the even code of two; pairs whose result is beyond the largest left out."""
    unit = unit_of_name(f"part-{kind}-e2m1")
    magnitudes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    values = magnitudes + [-value for value in magnitudes]
    pairs, wanted = [], []
    for a, b in itertools.product(range(16), repeat=2):
        exact = values[a] * values[b] if kind == "fp_multiplier" else values[a] + values[b]
        if abs(exact) <= 6:
            pairs.append((a, b))
            nearest = min(range(8), key=lambda code: (abs(magnitudes[code] - abs(exact)), code % 2))
            wanted.append(magnitudes[nearest] * (-1 if exact < 0 else 1))
    a, b = np.array(pairs, np.int64).T
    assert [values[code] for code in run(unit, a, b)] == wanted


def test_parts_of_shipped_accelerators_lie_between_units():
    """Every part that anything is a sum of has a width within the hull of the tables' points, so that none is continued
    beyond them; and there is a unit of every kind that is logic."""
    rows = []
    for name in DEFAULT.split():
        unit = unit_of_name(name)
        key = param_key(unit.kind, unit.params)
        row = CostRow(
            unit.kind, key, "area_um2", "", 1.0 + sum(unit.sizes), 7, 0.7, 25, "synthesised", "", "", name
        )
        rows.append(row)
    table = make_table(tuple(rows))
    seen = set()
    for name in accelerator_names():
        for component in components(load_accelerator(name)):
            for part in component.parts:
                assert part.kind in PART_KINDS, part
                seen.add(part.kind)
                if part.kind == "register" or param_key(part.kind, part.params) in table.select(
                    part.kind, "area_um2"
                ):
                    continue
                found = curve(table, part.kind, part.params, "area_um2")
                assert found is not None
                assert found.quality == "fitted", (name, component.name, part)
    assert seen == set(PART_KINDS)
    silicon = {kind for kind, known in KINDS.items() if known.growth is not None and known.silicon}
    assert silicon <= set(PART_KINDS)


@pytest.fixture(scope="module")
def worker(toy_file):
    return Characteriser(Settings((str(toy_file),)))


def test_parts_grow_with_their_widths_and_zeros_cost_nothing(worker):
    """`figures` proves the gates before it measures them."""
    for sizes in (
        ("int_adder-2", "int_adder-5"),
        ("int_multiplier-3x2", "int_multiplier-3x3"),
        ("fp_adder-e2m1", "fp_adder-e3m2"),
    ):
        small, large = (worker.figures(unit_of_name(f"part-{size}")) for size in sizes)
        assert small.area_um2 < large.area_um2
        assert small.leakage_nw < large.leakage_nw
        for found in (small, large):
            assert found.flops == 0
            assert found.energy["zero"].total_fj < 0.01 * found.energy["gaussian"].total_fj


def test_a_sum_of_parts_needs_no_other_table(worker, tmp_path):
    """A PE of an AND row, an adder and a register, from the rows of their parts alone."""
    names = ("part-int_multiplier-4x1", "part-int_adder-4", "part-int_adder-8", "part-register-1")
    rows, areas = [], {}
    for name in names:
        unit = unit_of_name(name)
        figures = worker.figures(unit)
        areas[name] = figures.area_um2
        rows += worker.rows(unit, figures)
    path = tmp_path / "parts.csv"
    path.write_text(table_text(rows))
    pe = Component(
        name="pe",
        kind="and_pe",
        params={},
        parts=(
            Part("and", "int_multiplier", {"a_bits": 1, "b_bits": 4}),
            Part("adder", "int_adder", {"bits": 6}),
            Part("sum", "register", {"bits": 6}),
        ),
        events={"step": {("and", "operate"): 1, ("sum", "write"): 1}, "idle": {("sum", "clock"): 1}},
    )
    priced = load_technology(path).price(pe)
    assert priced.quality == "estimated"
    adders = (areas["part-int_adder-4"] + areas["part-int_adder-8"]) / 2
    expected = areas["part-int_multiplier-4x1"] + adders + 6 * areas["part-register-1"]
    assert priced.area_um2 == pytest.approx(expected, rel=1e-4)
    assert 0 < priced.energy_pj["idle"] < priced.energy_pj["step"]
    by_part = {used.part: used.constant for used in priced.constants if used.constant.quantity == "area_um2"}
    assert {part: constant.quality for part, constant in by_part.items()} == {
        "and": "synthesised",
        "adder": "fitted",
        "sum": "synthesised",
    }
    assert "output load 0 fF" in by_part["and"].source


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("part", "not the name of a unit"),
        ("part-int_adder", "not the name of a unit"),
        ("part-adder-8", "no such part .* int_adder"),
        ("part-int_adder-8x8", "sizes of a part: bits"),
        ("part-int_adder-0", "sizes of a part"),
        ("part-int_adder-4096", "sizes of a part"),
        ("part-fp_adder-32", "sizes of a part: exponent_bits significand_bits"),
        ("part-fp_adder-e9m3", "sizes of a part"),
        ("part-int_multiplier-4x8", "allowed: part-int_multiplier-8x4"),
        ("part-register-8", "allowed: part-register-1"),
        ("part-multiplexer-1x8", "a multiplexer of one is a wire"),
    ],
)
def test_names_of_no_part_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


@pytest.mark.parametrize("name", UNITS)
def test_a_part_says_its_parameters(name):
    unit = unit_of_name(name)
    assert unit.name == name
    (component,) = unit.components()
    assert (component.kind, component.params) == (unit.kind, unit.params)
    assert tuple(component.events) == KINDS[unit.kind].events
    assert unit.specification()["params"] == unit.params
