"""Widths between the points of a table: lines along both widths, points of one size, qualities."""

import pytest

from simulator.hardware.constant import curve
from simulator.hardware.table import CostRow, make_table, param_key


def table(kind, points, quality="synthesised"):
    return make_table(
        tuple(
            CostRow(
                kind=kind,
                params=param_key(kind, params),
                quantity="area_um2",
                event="",
                value=float(value),
                node_nm=7,
                vdd=0.7,
                temperature_c=25,
                quality=quality,
                source="made up",
                note="",
                origin=f"t.csv:{line}",
            )
            for line, (params, value) in enumerate(points)
        )
    )


def multipliers(*points):
    return [({"a_bits": a, "b_bits": b}, value) for a, b, value in points]


def area(made, kind, **params):
    return curve(made, kind, params, "area_um2")


CORNERS = multipliers((8, 4, 40), (16, 4, 80), (8, 8, 90), (16, 8, 170))


def test_a_multiplier_between_four_points_lies_on_lines_in_both_widths():
    made = table("int_multiplier", CORNERS)
    found = area(made, "int_multiplier", a_bits=12, b_bits=6)
    assert found.value == pytest.approx((60 + 130) / 2)
    assert found.quality == "fitted"
    assert set(found.origins) == {f"t.csv:{line}" for line in range(4)}
    assert "lines in a_bits, then in b_bits" in found.formula
    assert area(made, "int_multiplier", a_bits=12, b_bits=4).value == pytest.approx(60)
    assert area(made, "int_multiplier", a_bits=8, b_bits=6).value == pytest.approx(65)


def test_exchanged_factors_are_one_multiplier_when_points_are_joined():
    """6 x 5 lies between 4 x 4 and 8 x 8 by way of 8 x 4 and of 4 x 8, which is the same row."""
    made = table("int_multiplier", multipliers((4, 4, 20), (8, 4, 40), (8, 8, 90)))
    expected = 30 + (65 - 30) / 4
    assert area(made, "int_multiplier", a_bits=6, b_bits=5).value == pytest.approx(expected)
    assert area(made, "int_multiplier", a_bits=5, b_bits=6).value == pytest.approx(expected)


def test_points_of_one_size_do_not_contradict_each_other():
    """A row of gates (16 x 1) and a square multiplier (4 x 4): beyond the points the more similar one is continued."""
    made = table("int_multiplier", multipliers((16, 1, 2), (4, 4, 5), (32, 1, 4), (8, 4, 10)))
    assert area(made, "int_multiplier", a_bits=64, b_bits=1).value == pytest.approx(8)
    assert area(made, "int_multiplier", a_bits=8, b_bits=8).value == pytest.approx(20)
    assert area(made, "int_multiplier", a_bits=24, b_bits=1).quality == "fitted"
    assert area(made, "int_multiplier", a_bits=6, b_bits=3).quality == "estimated"


def test_a_multiplexer_is_read_off_its_inputs_and_its_bits():
    points = [({"inputs": n, "bits": b}, (n - 1) * b * 2 + n) for n in (2, 8) for b in (1, 8)]
    made = table("multiplexer", points)
    assert area(made, "multiplexer", inputs=5, bits=4).value == pytest.approx(4 * 4 * 2 + 5)
    assert area(made, "multiplexer", inputs=8, bits=16).quality == "estimated"


def test_one_point_is_proportional_and_several_make_a_line():
    one = table("comparator", [({"bits": 8}, 20)])
    assert area(one, "comparator", bits=4).value == pytest.approx(10)
    two = table("comparator", [({"bits": 8}, 20), ({"bits": 16}, 60)])
    assert area(two, "comparator", bits=12).value == pytest.approx(40)
    assert area(two, "comparator", bits=12).quality == "fitted"
    assert area(two, "comparator", bits=24).value == pytest.approx(100)
    assert area(two, "comparator", bits=24).quality == "estimated"


def test_between_published_points_is_an_estimate():
    made = table("int_multiplier", CORNERS, quality="published")
    assert area(made, "int_multiplier", a_bits=12, b_bits=6).quality == "estimated"


def test_a_delay_is_read_off_no_curve():
    made = table("comparator", [({"bits": 8}, 20), ({"bits": 16}, 60)])
    assert curve(made, "comparator", {"bits": 12}, "delay_ps") is None
