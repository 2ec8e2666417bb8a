"""The page of published claims holds what the shipped tables say, and judges by its own rule."""

from __future__ import annotations

import pytest
from fidelity import BLOCK, NO_HARDWARE, PAGE, TABLES, rewritten, verdict, verdicts
from fidelity_claims import Claim, Silicon, designs, fp8_versus_int8, horowitz, int_versus_fp, lmul, seven_nm

from simulator.hardware import load_technology
from simulator.hardware.table import AREA, ENERGY
from simulator.study.reproduce.figures import read_figures


def test_every_table_of_the_page_is_what_is_computed() -> None:
    text = PAGE.read_text("utf-8")
    assert [name for name, _, _ in BLOCK.findall(text)] == list(TABLES)
    assert rewritten(text) == text, "PYTHONPATH=. python tests/docs/fidelity.py writes it anew"


@pytest.mark.parametrize(
    ("theirs", "ours", "is_ratio", "at_most", "said"),
    [
        (2.0, 2.4, True, False, "yes"),
        (2.0, 1.7, True, False, "yes"),
        (2.0, 1.1, True, False, "in direction"),
        (2.0, 3.0, True, False, "in direction"),
        (2.0, 4.1, True, False, "in direction alone"),
        (0.06, 0.6, True, False, "in direction alone"),
        (2.0, 0.9, True, False, "no"),
        (0.5, 0.1, True, True, "yes"),
        (0.5, 0.7, True, True, "in direction"),
        (0.5, 1.01, True, True, "no"),
        (2.0, 3.9, False, False, "in magnitude"),
        (2.0, 0.9, False, False, "no"),
    ],
)
def test_a_claim_is_judged_by_the_rule_of_the_page(theirs, ours, is_ratio, at_most, said) -> None:
    assert verdict(Claim("", theirs, lambda silicon: ours, "", is_ratio, at_most), ours) == said


def test_libraries_that_disagree_are_named() -> None:
    claim = Claim("", 2.0, lambda silicon: None, "")
    assert verdicts(claim, [2.0, 0.5]) == "asap7: yes; sg13g2: no"
    assert verdicts(claim, [2.0, None]) == "yes"
    assert verdicts(claim, [None, None]) == NO_HARDWARE


def test_units_that_no_table_has_are_no_hardware() -> None:
    """A technology of cited points: nothing in it was synthesised, and no claim finds a figure."""
    silicon = Silicon(load_technology("published_45nm"))
    claims = [*horowitz(ENERGY), *seven_nm(), *fp8_versus_int8(), *int_versus_fp(), *lmul(), *designs()]
    assert [claim.ours(silicon) for claim in claims] == [None] * len(claims)
    assert silicon.area_um2("no-such-unit") is None


def test_published_operations_are_those_of_the_cited_table() -> None:
    by_what = {claim.what: claim.theirs for claim in (*horowitz(ENERGY), *horowitz(AREA))}
    assert by_what["32-bit integer add, pJ"] == 0.1
    assert by_what["FP32 multiply, pJ"] == 3.7
    assert by_what["8-bit integer multiply, um2"] == 282


def test_gates_and_registers_make_a_unit() -> None:
    """The note of a row tells the gates apart: those of an INT8 MAC are less than all of it, and most of it."""
    silicon = Silicon(load_technology("asap7"))
    gates, whole = silicon.gates_um2("mac-int8-int32"), silicon.area_um2("mac-int8-int32")
    assert gates is not None
    assert whole is not None
    assert 0.5 * whole < gates < whole


def test_claimed_savings_are_the_abstract_s() -> None:
    published = {claim.theirs for claim in lmul()}
    assert published == {0.05, 0.2}
    figures = read_figures("fidelity_published").named("energy_saved")
    assert {round(1 - figure.value, 6) for figure in figures} == published
