"""What each command prints and writes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pyarrow.parquet as pq
import pytest
from cli_runs import simulator

import simulator as sim
from simulator.arch import accelerator_names
from simulator.formats import format_names
from simulator.workload import workload_names

GEMM = ("gemm", 48, 64, 32, "--arch", "systolic_ws_8x8")
PYTHON = (sys.executable, "-m", "simulator")


def test_run_prints_the_report_of_the_same_run_in_python() -> None:
    ended = simulator("run", "resnet-18", "--arch", "systolic_os_16x16")
    assert ended.code == 0
    assert ended.out == sim.run("resnet-18", "systolic_os_16x16").text(width=None, fold=True)


def test_options_reach_the_run() -> None:
    options = ("--decode", 300, "--batch", 2, "--weights", "int4_g128", "--activations", "int8_token")
    more = ("--kv", "int8_token", "--output", "bf16", "--set", "array.rows=32", "--set", "clock_ghz=0.5")
    ended = simulator("run", "llama-2-7b", "--arch", "systolic_ws_16x16", *options, *more, "--json")
    written = json.loads(ended.out)
    assert written["phase"] == {"prefill": None, "decode": 300, "batch": 2}
    assert written["formats"] == {
        "weights": "int4_g128",
        "activations": "int8_token",
        "kv": "int8_token",
        "output": "bf16",
    }
    assert written["config"]["arch"]["array"]["rows"] == 32
    assert written["clock_ghz"] == 0.5
    assert (
        simulator("run", "llama-2-7b", "--arch", "systolic_ws_16x16", "--prefill", 9, "--json").out
        != ended.out
    )


def test_layers_are_part_of_the_phase_and_noted() -> None:
    command = ("run", "llama-2-7b", "--arch", "systolic_ws_32x32", "--prefill", 16, "--layers", 2)
    written = json.loads(simulator(*command, "--json").out)
    assert written["phase"] == {"prefill": 16, "decode": None, "batch": 1, "layers": 2}
    assert written["config"]["workload"]["phase"]["layers"] == 2
    assert len([layer for layer in written["layers"] if layer["name"].endswith("mlp.down")]) == 2
    assert "only the first 2 of 32 layers run" in simulator(*command).out
    refused = simulator("run", "llama-2-7b", "--arch", "systolic_ws_32x32", "--layers", 33)
    assert refused.code == 2
    assert "phase.layers: more layers than the network has (found 33); allowed: up to 32" in refused.err


def test_json_is_one_object_and_a_list_for_several_accelerators() -> None:
    one = json.loads(simulator(*GEMM, "--json").out)
    assert one == sim.gemm(48, 64, 32, arch="systolic_ws_8x8").to_json()
    several = json.loads(simulator(*GEMM, "--arch", "systolic_os_8x8", "--json").out)
    assert [report["arch"] for report in several] == ["systolic_ws_8x8", "systolic_os_8x8"]
    assert several[0] == one


def test_several_accelerators_stand_side_by_side() -> None:
    ended = simulator(*GEMM, "--arch", "systolic_os_16x16")
    rows = [line for line in ended.out.splitlines() if line.startswith("systolic_")]
    assert [row.split()[0] for row in rows] == ["systolic_ws_8x8", "systolic_os_16x16"]
    cycles = sim.gemm(48, 64, 32, arch="systolic_os_16x16").cycles
    assert f"{cycles:,}" in rows[1].split()


def test_both_engines_are_on_offer_and_give_the_same_cycles() -> None:
    fast, reference = (
        json.loads(simulator(*GEMM, "--engine", engine, "--json").out) for engine in ("fast", "reference")
    )
    assert (fast["engine"], reference["engine"]) == ("fast", "reference")
    assert fast["cycles"] == reference["cycles"]
    assert fast["energy_pj"] == pytest.approx(reference["energy_pj"])


def test_gemm_takes_formats_and_a_batch() -> None:
    options = ("--weights", "int4_g32", "--activations", "int8", "--output", "fp32", "--batch", 3)
    written = json.loads(simulator(*GEMM, *options, "--json").out)
    assert written["formats"]["weights"] == "int4_g32"
    product = next(layer for layer in written["layers"] if layer["macs"])
    assert product["macs"] == 3 * 48 * 64 * 32


def test_csv_and_parquet_hold_the_layers_of_all_runs_and_stdout_nothing(tmp_path) -> None:
    several = (*GEMM, "--arch", "systolic_os_8x8")
    expected = [
        layer["cycles"] for one in json.loads(simulator(*several, "--json").out) for layer in one["layers"]
    ]
    for option, file in (("--csv", tmp_path / "a.csv"), ("--parquet", tmp_path / "a.parquet")):
        ended = simulator(*several, option, file)
        assert (ended.code, ended.out) == (0, "")
    with open(tmp_path / "a.csv", newline="") as stream:
        assert [int(row["cycles"]) for row in csv.DictReader(stream)] == expected
    assert pq.read_table(tmp_path / "a.parquet").column("cycles").to_pylist() == expected
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.parquet"]


def network(folder):
    file = folder / "net.yaml"
    file.write_text(
        "name: net\ninput: [4, 16]\noperations: [{op: gemm, name: fc, n: 8}]\n"
        "values: {weights: {package: no-such-package-anywhere}}\n"
    )
    return file


def test_a_note_is_never_lost(tmp_path) -> None:
    run = ("run", network(tmp_path), "--arch", "systolic_ws_8x8")
    note = "weights are synthetic"
    assert note in simulator(*run).out
    assert note in simulator(*run, "--arch", "systolic_os_8x8").out
    for option in (("--json",), ("--csv", tmp_path / "a.csv"), ("--parquet", tmp_path / "a.parquet")):
        assert note in simulator(*run, *option).err


def test_archs_in_full_is_a_file_that_gives_the_same_accelerator(tmp_path) -> None:
    table = simulator("archs").out
    assert accelerator_names()
    for name in accelerator_names():
        assert re.search(rf"^{name} ", table, flags=re.MULTILINE)
        file = tmp_path / f"{name}.yaml"
        file.write_text(simulator("archs", name).out)
        assert sim.load_accelerator(file) == sim.load_accelerator(name)


def test_workloads_in_full_is_a_file_that_gives_the_same_workload(tmp_path) -> None:
    table = simulator("workloads").out
    for name in workload_names():
        assert re.search(rf"^{name} ", table, flags=re.MULTILINE)
        file = tmp_path / f"{name}.yaml"
        file.write_text(simulator("workloads", name).out)
        assert sim.load_workload(file).operations == sim.load_workload(name).operations


def test_formats_are_listed_with_all_bits_and_told_in_full() -> None:
    rows = {line.split()[0]: line.split() for line in simulator("formats").out.splitlines() if line}
    assert set(format_names()) <= set(rows)
    assert rows["int4_g128"][1] == "4.125"
    assert rows["mxfp4"][1] == "4.25"
    full = simulator("formats", "nvfp4").out
    for fact in (
        "fp8_e4m3, shared by 16 along K",
        "fp32, one a tensor",
        "4.5 with",
        "0 0.5 1 1.5 2 3 4 6 and",
    ):
        assert fact in full
    for name in format_names():
        assert simulator("formats", name).out.startswith(name)


def test_trace_writes_a_workload_that_runs(tmp_path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 100,
        "max_position_embeddings": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    traced = tmp_path / "out.yaml"
    ended = simulator("trace", tmp_path, "-o", traced)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    run = simulator("run", traced, "--arch", "systolic_ws_8x8", "--prefill", 8)
    assert run.code == 0
    assert "layers.* x2" in run.out


def test_explain_reads_what_run_printed(tmp_path) -> None:
    for arguments in (GEMM, (*GEMM, "--arch", "systolic_os_8x8")):
        file = tmp_path / "report.json"
        file.write_text(simulator(*arguments, "--json").out)
        told = simulator("explain", file)
        assert told.code == 0
        assert "simulator characterize: ASAP7" in told.out
        assert "\nsources\n" in told.out


def test_module_and_version() -> None:
    done = subprocess.run([*PYTHON, "--version"], capture_output=True, text=True, check=True)
    try:
        expected = distribution("quantized-accelerator-simulator").version
    except PackageNotFoundError:
        expected = "0+source"
    assert done.stdout == f"simulator {expected}\n"
    assert done.stderr == ""


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    text = simulator("--help").out
    for command in ("run", "gemm", "trace", "formats", "archs", "workloads", "explain"):
        assert re.search(rf"^  {command} ", text, flags=re.MULTILINE)
        assert simulator(command, "--help").code == 0
    code = (
        "import sys, simulator.cli; heavy = ('numpy', 'numba', 'pandas', 'rich', 'pydantic', 'yaml'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_leaves_is_no_error() -> None:
    run = subprocess.Popen([*PYTHON, "formats"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    assert run.stderr.read() == b""
    assert run.wait() == 141
    run.stderr.close()


def test_a_full_disk_behind_stdout_is_one_message() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PYTHON, "archs"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output cannot be written: ")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_ends_with_130_and_no_traceback(monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulator.study.run_workload", interrupted)
    assert simulator(*GEMM) == (130, "", "")


def test_output_is_ascii_where_the_terminal_knows_nothing_else() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*PYTHON, "archs"], capture_output=True, env=environment, check=True)
    assert done.stdout.isascii()


def test_a_program_error_is_not_hidden(monkeypatch) -> None:
    from simulator.cli import catalogue

    def broken() -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(catalogue, "formats", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        simulator("formats")
