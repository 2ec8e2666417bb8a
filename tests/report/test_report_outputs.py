"""What a report gives away: frames, JSON, files, text, and the origin of its constants."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
from report_inputs import COMPONENTS, layer, meta, record

from simulator.engine.record import Record
from simulator.errors import InputError
from simulator.hardware import load_technology
from simulator.report import Report, compare_text, explain, make_report, write_csv
from simulator.report.files import write_whole
from simulator.report.text import quantity

TOP_KEYS = [
    "schema_version",
    "version",
    "workload",
    "arch",
    "technology",
    "engine",
    "clock_ghz",
    "phase",
    "formats",
    "weight_values",
    "seed",
    "cycles",
    "latency_s",
    "energy_pj",
    "area_um2",
    "energy_by_component_pj",
    "area_by_component_um2",
    "energy_share_by_quality",
    "area_share_by_quality",
    "cycle_stack",
    "utilization",
    "layers",
    "config",
    "costs",
]

LAYER_KEYS = [
    "name",
    "op",
    "m",
    "k",
    "n",
    "batch",
    "cycles",
    "compute_cycles",
    "utilization",
    "dram_read_bytes",
    "dram_write_bytes",
    "energy_pj",
    "cycle_stack",
]


def make(run: Record | None = None, technology: str = "published_45nm", **changes: object) -> Report:
    run = record() if run is None else run
    columns = {"weight_sqnr_db": [19.25 + index for index in range(len(run.layers))]}
    return make_report(
        run,
        COMPONENTS,
        load_technology(technology),
        clock_ghz=1.0,
        meta=meta(**changes),
        layer_columns=columns,
    )


def test_json_has_the_documented_keys_and_survives_a_round_trip() -> None:
    written = make().to_json()
    assert list(written) == TOP_KEYS
    for one in written["layers"]:
        assert set(LAYER_KEYS) <= set(one)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert isinstance(written["cycles"], int)
    assert written["technology"] == "published_45nm"
    assert written["layers"][1]["weight_sqnr_db"] == 20.25
    assert written["layers"][0]["dram_read_bytes"] == 512 + 2048


def test_equal_runs_give_equal_bytes() -> None:
    assert json.dumps(make().to_json()) == json.dumps(make().to_json())
    assert make().text() == make().text()


def test_infinite_column_is_null_in_json() -> None:
    run = record(1)
    columns = {"weight_sqnr_db": [float("inf")]}
    report = make_report(
        run, COMPONENTS, load_technology("published_45nm"), clock_ghz=1.0, meta=meta(), layer_columns=columns
    )
    assert report.to_json()["layers"][0]["weight_sqnr_db"] is None


def test_frames_agree_with_the_report() -> None:
    report = make()
    layers, components, stack, energy = report.layers, report.components, report.cycle_stack, report.energy
    assert layers["cycles"].sum() == report.cycles
    assert layers["energy_pj"].sum() == pytest.approx(report.energy_pj)
    assert list(layers["dram_read_bytes_weights"]) == [512, 1024, 1536]
    assert list(layers["weight_sqnr_db"]) == [19.25, 20.25, 21.25]
    causes = [
        column
        for column in layers
        if column in ("cycles_compute", "cycles_fill_drain", "cycles_wait_weights")
    ]
    assert (layers[causes].sum(axis=1) == layers["cycles"]).all()
    assert components["energy_pj"].sum() == pytest.approx(report.energy_pj)
    assert components["area_um2"].sum() == pytest.approx(report.area_um2)
    assert components.set_index("component")["energy_pj_read_bit"]["dram"] == pytest.approx(700 * 6 * 18.75)
    assert stack["cycles"].sum() == report.cycles
    assert stack["share"].sum() == pytest.approx(1)
    assert energy["energy_pj"].sum() == pytest.approx(report.energy_pj)
    assert energy.query("component == 'pe' and event == 'mac'")["count"].sum() == 100 * 6


def test_run_without_layers_has_area_and_nothing_else() -> None:
    report = make(Record("fast", ()))
    assert (report.cycles, report.energy_pj, report.utilization) == (0, 0, 0)
    assert report.area_um2 > 0
    assert report.energy_share_by_quality == {}
    for frame in (report.layers, report.cycle_stack, report.energy):
        assert len(frame) == 0
    assert "0 cycles" in report.text()
    json.dumps(report.to_json(), allow_nan=False)


def test_cause_that_only_some_layers_have_counts_zero_in_the_others() -> None:
    stacks = [{"compute": 400}, {"compute": 300, "vector": 100}]
    run = Record("fast", tuple(layer(f"l{i}", cycle_stack=stack) for i, stack in enumerate(stacks)))
    assert list(make(run).layers["cycles_vector"]) == [0, 100]
    assert make(run).cycles_by_cause == {"compute": 700, "vector": 100}


def test_csv_has_a_row_a_layer_and_reads_back_exactly(tmp_path) -> None:
    report = make()
    report.to_csv(tmp_path / "run.csv")
    with open(tmp_path / "run.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arch"] for row in rows] == ["systolic_os_16x16"] * 3
    assert [float(row["energy_pj"]) for row in rows] == list(report.layers["energy_pj"])
    read = pd.read_csv(tmp_path / "run.csv")
    pd.testing.assert_frame_equal(read[list(report.layers)], report.layers, check_dtype=False)


def test_csv_of_several_reports_has_the_columns_of_all(tmp_path) -> None:
    other = make_report(
        Record("fast", (layer(cycle_stack={"vector": 400}),)),
        COMPONENTS,
        load_technology("published_45nm"),
        clock_ghz=1.0,
        meta=meta(arch="other"),
    )
    write_csv(tmp_path / "both.csv", [make(), other])
    read = pd.read_csv(tmp_path / "both.csv")
    assert list(read["arch"]) == ["systolic_os_16x16"] * 3 + ["other"]
    assert read["cycles_vector"].isna().tolist() == [True, True, True, False]


def test_parquet_keeps_types_and_carries_the_whole_report(tmp_path) -> None:
    report = make()
    report.to_parquet(tmp_path / "run.parquet")
    table = pq.read_table(tmp_path / "run.parquet")
    assert table.column("cycles").to_pylist() == [400, 800, 1200]
    assert table.column("energy_pj").to_pylist() == list(report.layers["energy_pj"])
    assert json.loads(table.schema.metadata[b"simulator_reports"]) == [report.to_json()]


def test_failed_write_leaves_the_old_file_and_no_trace(tmp_path) -> None:
    target = tmp_path / "run.csv"
    target.write_text("old")

    def fail(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        write_whole(target, fail)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.csv"]


def test_unwritable_paths_are_input_errors_that_name_them(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing" / "run.csv", tmp_path / "file" / "run.csv"):
        with pytest.raises(InputError) as caught:
            make().to_csv(path)
        assert str(path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_device_is_written_to_and_not_replaced() -> None:
    make().to_csv("/dev/null")
    assert not os.path.isfile("/dev/null")


def test_link_stays_a_link(tmp_path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    make().to_csv(tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("workload,arch")


def test_text_is_plain_fits_the_width_and_tells_the_totals() -> None:
    report = make()
    text = report.text()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 120
    for part in ("tiny on systolic_os_16x16", "2,400 cycles", "layers.2.q_proj", "wait_weights 25.0%"):
        assert part in text
    for part in ("published_45nm", "estimated", "outside", "energy rests on", "area rests on"):
        assert part in text
    assert "\x1b[" in report.text(color=True)


def test_names_are_text_and_not_markup() -> None:
    name = "blocks[0].attn[bold]"
    assert name in make(Record("fast", (layer(name),))).text()


def test_folded_layers_are_joined_only_on_request() -> None:
    run = Record("fast", tuple(layer(f"layers.{index}.up") for index in range(32)))
    assert make(run).text().count(".up") == 32
    folded = make(run).text(fold=True)
    assert ".up" not in folded
    assert "layers.* x32\n  up " in folded
    assert "12,800" in folded


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "J", "0 J"),
        (0.012345, "J", "12.35 mJ"),
        (999.96, "s", "1.000 ks"),
        (999.94, "s", "999.9 s"),
        (1500, "B", "1.500 kB"),
        (12, "B", "12 B"),
        (3.2e-15, "J", "0.003200 pJ"),
        (5.5e15, "B", "5500 TB"),
    ],
)
def test_quantities_have_four_digits_and_a_decimal_prefix(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_comparison_gives_ratios_to_the_first() -> None:
    run = record(2)
    twice = Record("fast", run.layers * 2)
    text = compare_text([make(run), make(twice, arch="other")])
    row = next(line for line in text.splitlines() if line.startswith("other"))
    assert "0.5x" in row
    assert "2x" in row
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "do not compare" not in text


def test_comparison_across_technologies_says_so() -> None:
    text = compare_text([make(), make(technology="published_45nm@7nm", arch="seven")])
    assert "Different technologies" in text
    assert "Stillmaker & Baas 2017" in text


def test_explain_tells_every_constant_and_source_from_the_json_alone() -> None:
    report = make()
    text = explain(json.loads(json.dumps(report.to_json())))
    flat = " ".join(text.split())
    for component in report.component_reports:
        for used in component.priced.constants:
            constant = used.constant
            assert f"{constant.value:.6g} {constant.unit}" in flat
            assert " ".join(constant.formula.split()) in flat
            assert " ".join(constant.source.split()) in flat
            assert all(origin in flat for origin in constant.origins)
    assert "event mac = multiplier.operate + accumulate.operate + registers.write" in flat
    assert "DRAM" not in text.split("sources")[0].split("dram (dram")[1]


def test_explain_takes_the_list_that_several_accelerators_print() -> None:
    one, two = make().to_json(), make(arch="other").to_json()
    assert explain([one, two]) == explain(one) + "\n" + explain(two)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"schema_version": 2}, {"schema_version": 1}, {"schema_version": 1, "costs": 3}, [1], [], None],
)
def test_explain_refuses_what_is_no_report(wrong: object) -> None:
    with pytest.raises(InputError):
        explain(wrong)


def test_room_loads_no_heavy_library_until_asked() -> None:
    code = (
        "import sys, simulator.report, simulator.hardware; "
        "heavy = ('pandas', 'numba', 'scipy', 'matplotlib', 'pyarrow', 'rich'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
