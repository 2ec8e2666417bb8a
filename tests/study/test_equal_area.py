"""Arrays of equal area: against every size tried, and by what counts."""

from itertools import product

import pytest

import simulator as sim
from simulator.errors import InputError
from simulator.study.equal_area import array_area_um2, fit

NAMES = ("systolic_ws_16x16", "dot_product_16x16x16", "bitmod", "lut_tensor_core", "mixpe_w4a8")


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_array_within_the_budget_is_found(name):
    budget = 1.3 * array_area_um2(name, **{"array.rows": 12, "array.cols": 16})
    found = fit(name, budget)
    sizes = [size for size in product(range(4, 61, 4), repeat=2) if max(size) <= 2 * min(size)]
    areas = {
        size: array_area_um2(name, **{"array.rows": size[0], "array.cols": size[1]})
        for size in sizes
        if size[0] * size[1] <= 500
    }
    assert found.area_um2 == max(area for area in areas.values() if area <= budget)
    size = found.accelerator.array.rows, found.accelerator.array.cols
    assert areas[size] == found.area_um2
    assert found.unused_share == pytest.approx(1 - found.area_um2 / budget)
    assert sum(found.quality_shares.values()) == pytest.approx(1)


def test_the_longer_side_is_the_one_that_is_asked_for():
    budget = 1.3 * array_area_um2("lut_tensor_core", **{"array.rows": 12, "array.cols": 16})
    sides = []
    for longer in ("rows", "cols"):
        found = fit("lut_tensor_core", budget, longer=longer)
        array = found.accelerator.array
        sides.append(array.rows >= array.cols if longer == "rows" else array.cols >= array.rows)
        assert found.area_um2 <= fit("lut_tensor_core", budget).area_um2
        next_size = {"array.rows": array.rows + 4, "array.cols": array.cols + 4}
        assert array_area_um2("lut_tensor_core", **next_size) > budget
    assert sides == [True, True]
    with pytest.raises(InputError, match="longer: no side of an array"):
        fit("lut_tensor_core", budget, longer="m")


def test_buffers_vector_unit_and_dram_do_not_count():
    report = sim.gemm(16, 16, 16, arch="systolic_ws_16x16")
    areas = report.area_by_component_um2
    fixed = {"weights_buffer", "activations_buffer", "outputs_buffer", "vector", "dram"}
    counted = sum(area for name, area in areas.items() if name not in fixed)
    assert array_area_um2("systolic_ws_16x16") == pytest.approx(counted)
    larger = {"buffers.weights.kib": 4096, "vector.lanes": 512}
    assert array_area_um2("systolic_ws_16x16", **larger) == array_area_um2("systolic_ws_16x16")


def test_the_array_as_written_does_not_matter():
    budget = array_area_um2("dot_product_16x16x16")
    small = fit("dot_product_16x16x16", budget, **{"array.rows": 4, "array.cols": 4})
    assert small.accelerator.array == fit("dot_product_16x16x16", budget).accelerator.array


def test_a_budget_without_room_is_refused():
    with pytest.raises(InputError, match=r"the smallest array of bitmod takes .* um2"):
        fit("bitmod", 100.0)


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), 1e30])
def test_budgets_beyond_what_is_tried_are_refused(budget):
    with pytest.raises(InputError, match=r"budget_um2: (not an area|more than any array)"):
        fit("systolic_ws_16x16", budget)
