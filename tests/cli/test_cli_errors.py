"""Whatever the user writes: it runs, or it is one message and exit code 2, and nothing half-written stays."""

from __future__ import annotations

import json
import os
import random
import re
import struct

import numpy as np
import pytest
from cli_runs import refused, simulator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from simulator.cli import main

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GEMM = ("gemm", 16, 16, 16, "--arch", "systolic_ws_8x8")
RUN = ("run", "resnet-18", "--arch", "systolic_ws_8x8")


@pytest.fixture(scope="module")
def report_text() -> str:
    return simulator(*GEMM, "--json").out


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("array.rowz=3", r"array\.rowz: no key of this name; allowed: did you mean rows"),
        ("aray.rows=3", r"aray: no key of this name; allowed: did you mean array"),
        ("pe.lanez=3", r"pe\.lanez: no key of this name; allowed: did you mean lanes"),
        ("pe.family=mack", r"pe\.family: no PE of this family \(found 'mack'\); allowed: did you mean mac"),
        ("pe.weights=inf4", r"pe\.weights: no number format .* did you mean int4"),
        ("pe.lanes=2.5", r"pe\.lanes: input should be a valid integer \(found 2\.5\)"),
        ("array.rows=many", r"array\.rows: input should be a valid integer \(found 'many'\)"),
        ("array.rows=0", r"array\.rows: .*greater than or equal to 1 \(found 0\)"),
        ("array.rows=-4", r"array\.rows: .*greater than or equal to 1 \(found -4\)"),
        ("array.rows=1" + "0" * 40, r"array\.rows: the number is too large"),
        ("array.rows=65537", r"array\.rows: .*less than or equal to 65536"),
        ("array.rows=yes", r"array\.rows: .*valid integer \(found True\)"),
        ("array.rows=[4]", r"array\.rows: .*valid integer"),
        ("array.rows=", r"array\.rows: .*valid integer \(found nothing\)"),
        ("array.dataflow=", r"array\.dataflow: not one of the choices \(found nothing\); allowed: 'os'"),
        ("array.rows=010", r"array\.rows: .*leading 0.*\(found '010'\); allowed: 10, or '010' in quotes"),
        ("array.rows=1:30", r"array\.rows: .*':'.*\(found '1:30'\)"),
        ("array.rows=1e3", r"array\.rows: .*valid integer \(found 1000\.0\); allowed: digits only, 1000"),
        ("pe=", r"pe: must hold a PE's parameters \(found nothing\)"),
        ("array.dataflow=rs", r"array\.dataflow: not one of the choices \(found 'rs'\); allowed: 'os', 'ws'"),
        ("array.rows_hold=n", r"array\.rows_hold: .*dataflow ws hold \(found 'n'\); allowed: k$"),
        ("clock_ghz=1 GHz", r"clock_ghz: .*found '1 GHz'\); allowed: a number .* without a unit"),
        ("clock_ghz=.nan", r"clock_ghz: input should be a finite number"),
        ("clock_ghz=.inf", r"clock_ghz: input should be a finite number"),
        ("clock_ghz=0", r"clock_ghz: .*greater than or equal to 0\.001"),
        (
            "buffers.weights={kib: 0.0001, banks: 2}",
            r"buffers\.weights\.kib: .*whole number of bytes .*\(found 0\.0001\); allowed: .* 0\.001953125 KiB",
        ),
        (
            "buffers.weights.banks=3",
            r"buffers\.weights\.banks: cannot be split .*\(found 3\); allowed: a multiple of 2",
        ),
        ("array.os_drain=shift", r"array\.os_drain: .*dataflow ws .*\(found 'shift'\); allowed: bus"),
        (
            "array.rescale_per_cycle=1e-9",
            r"array\.rescale_per_cycle: .*\(found 1e-09\); allowed: 0 .*2\*\*-16 to 1",
        ),
        ("dram.device=ddr9", r"no energy_pj .* of dram \(device=ddr9\); allowed: .*device=ddr4"),
        ("dram.bandwidth_gb_per_s=0", r"dram\.bandwidth_gb_per_s: .*greater than or equal to 0\.001"),
        ("technology=published_45", r"technology: no technology .* published_45nm"),
        ("technology=none.csv", r"none\.csv: cost table cannot be opened"),
        ("technology={base: published_45nm, tabels: []}", r"technology\.tabels: .*did you mean tables"),
        ("vector=3", r"vector: input should be a valid dictionary"),
        ("mapping.order=mm", r"mapping\.order: not one of the choices"),
        ("array={a: 1", r"array: is not YAML"),
        ("array=!!python/object/apply:os.system [ls]", r"array: tags are not allowed"),
        ("array", r"--set: is not KEY=VALUE \(found 'array'\)"),
        ("=3", r"--set: is not KEY=VALUE"),
        ("array..rows=3", r"array\.\.rows: is not a dotted key"),
        ("clock_ghz.x=3", r"clock_ghz\.x: clock_ghz is a value, not a section"),
    ],
)
def test_a_change_that_cannot_be_is_refused_with_its_key(changes: str, message: str) -> None:
    assert re.search(message, refused(*GEMM, "--set", changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "resnet-18"),
            r"run --arch: this option is missing; allowed: accelerator: a shipped name or a YAML",
        ),
        (
            ("run", "--arch", "systolic_ws_8x8"),
            r"run WORKLOAD: this argument is missing; allowed: a shipped name, a YAML",
        ),
        (("run", "resnet18", "--arch", "systolic_ws_8x8"), r"did you mean resnet-18"),
        (("run", "resnet-18", "--arch", "systolic_ws_88"), r"did you mean systolic_ws_8x8"),
        (("run", "none.yaml", "--arch", "systolic_ws_8x8"), r"none\.yaml: no such workload file"),
        (("run", "resnet-18", "--arch", "none.yaml"), r"none\.yaml: no such accelerator file"),
        (("run", ".", "--arch", "systolic_ws_8x8"), r"workload"),
        (("run", "resnet-18", "--arch", "./"), r"is a folder"),
        ((*RUN, "--weights", "int44"), r"formats\.weights: .*did you mean int4"),
        ((*RUN, "--activations", "mxfp"), r"formats\.activations: .*did you mean mxfp"),
        ((*RUN, "--weights", "mxfp4"), r"does not take mxfp4 x int8: .*int8, int4"),
        ((*RUN, "--prefill", "4"), r"phase\.prefill: a list of operations has no tokens"),
        ((*RUN, "--batch", "0"), r"phase\.batch: "),
        ((*RUN, "--batch", "-1"), r"phase\.batch: "),
        ((*RUN, "--batch", "9" * 30), r"phase\.batch: "),
        ((*RUN, "--batch", "two"), r"run --batch: not a whole number \(found 'two'\); allowed: digits"),
        (("run", "llama-2-7b", "--arch", "systolic_ws_8x8", "--prefill", 4, "--decode", 4), r"not both"),
        ((*RUN, "--engine", "quick"), r"engine: no engine of this name"),
        ((*RUN, "--html", "x"), r"run: no such option \(found '--html'\); allowed: did you mean --help"),
        ((*RUN, "--json", "--csv", "a.csv"), r"one of --json, --csv and --parquet"),
        ((*RUN, "--csv", "none/a.csv"), r"none: there is no such folder"),
        ((*RUN, "--parquet", "."), r"is a folder"),
        ((*RUN, "--set", "array.rows=4", "--set", "array.rows=8"), r"--set array\.rows: is set twice"),
        (("gemm", 0, 16, 16, "--arch", "systolic_ws_8x8"), r"m: not a dimension"),
        (("gemm", 16, 16, 2**40, "--arch", "systolic_ws_8x8"), r"n: not a dimension"),
        (
            ("gemm", 16, 1.5, 16, "--arch", "systolic_ws_8x8"),
            r"gemm K: not a whole number \(found '1\.5'\); allowed: digits",
        ),
        (("gemm", 16, 16, 16), r"gemm --arch: this option is missing"),
        (("formats", "int44"), r"did you mean int4"),
        (("archs", "systolic"), r"no accelerator of this name"),
        (("workloads", "bert"), r"did you mean bert-base"),
        (("trace", ".", "-o", "a.yaml"), r"not a model"),
        (("trace", "none/config.json", "-o", "a.yaml"), r"no such file"),
        (("trace", "."), r"trace -o / --output: this option is missing; allowed: file to write"),
        (("run", "resnet-18", "--arhc", "x"), r"run: no such option \(found '--arhc'\); .*mean --arch"),
        (("gemm", 16, 16, 16, "--arch"), r"--arch: requires an argument"),
        ((*RUN, "--json=3"), r"--json: does not take a value"),
        (
            (*RUN, "more"),
            r"run: got unexpected extra argument.* \(more\); allowed: run WORKLOAD, and options",
        ),
        (("gemm", "many", 16, 16, "--arch", "x"), r"gemm M: not a whole number \(found 'many'\)"),
        (("gemm", "9" * 5000, 16, 16, "--arch", "x"), r"gemm M: not a whole number"),
        (("explain", "none.json"), r"none\.json: cannot be read: No such file"),
        (("explain", "."), r"cannot be read: Is a directory"),
        (("ruin",), r"^error: no command of this name \(found 'ruin'\); allowed: did you mean run"),
        (("-",), r"no command of this name \(found '-'\); allowed: archs, characterize, explain"),
        (("--verison",), r"no such option \(found '--verison'\); allowed: did you mean --version"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message: str, elsewhere) -> None:
    assert re.search(message, refused(*arguments))
    assert os.listdir(elsewhere) == []


def buffers(kib: float) -> list[str]:
    """Options that give all three buffers this size, in two banks."""
    return [
        f"--set=buffers.{name}={{kib: {kib}, banks: 2}}" for name in ("weights", "activations", "outputs")
    ]


def test_a_tile_that_cannot_fit_says_what_does_not_fit() -> None:
    message = refused(*GEMM, *buffers(2 / 1024))
    assert re.search(r"buffers: .*smallest tile .*does not fit", message)
    message = refused(*GEMM, *buffers(0.0625), "--set=mapping.tile_k=16", "--set=mapping.tile_n=16")
    assert re.search(r"tile asked for \(m \d+, n 16, k 16\) does not fit .*weights buffer needs", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds nothing"),
        (b"- 1\n", "holds list"),
        (b"\x00\xff\xfe\x80" * 20, "not text in UTF-8"),
        (b"name: x\nname: y\n", "name: this key stands here twice"),
        (b"name: !!python/object/apply:os.system [touch made]\n", "name: tags are not allowed"),
        (b"!!python/object/new:os.system [touch made]\n", "tags are not allowed"),
        (b"name: x\n", "this key is missing"),
        (b"a: &a [*a]\n", "alias"),
        (b"{" * 5000, "is not YAML|keys must be text"),
    ],
)
@pytest.mark.parametrize("kind", ["arch", "workload"])
def test_a_hostile_file_is_one_message_that_names_it(
    kind: str, content: bytes, message: str, elsewhere
) -> None:
    (elsewhere / "file.yaml").write_bytes(content)
    names = ("resnet-18", "file.yaml") if kind == "arch" else ("file.yaml", "systolic_ws_8x8")
    found = refused("run", names[0], "--arch", names[1])
    assert re.search(message, found) or (kind == "workload" and "either model or operations" in found)
    assert "file.yaml" in found
    assert os.listdir(elsewhere) == ["file.yaml"]


def network(weights: str) -> None:
    with open("net.yaml", "w") as file:
        file.write(
            "name: net\ninput: [4, 16]\noperations: [{op: gemm, name: fc, n: 8}]\n"
            f"values: {{weights: {{safetensors: {weights}}}}}\n"
        )


def test_weights_that_are_not_numbers_are_located() -> None:
    values = np.ones((8, 16), np.float32)
    values[3, 5] = np.nan
    save_file({"fc.weight": values}, "w.safetensors")
    network("w.safetensors")
    message = refused("run", "net.yaml", "--arch", "systolic_ws_8x8")
    assert re.search(r"w\.safetensors: fc\.weight: 1 of 128 values .*\[3, 5\] \(found nan\)", message)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60) + b'{"fc.weight":{"dtype":"F32","shape":[8,16],"data_offsets":[0,',
        struct.pack("<Q", 66) + b'{"fc.weight":{"dtype":"F32","shape":[8,16],"data_offsets":[0,512]}}'[:66],
        struct.pack("<Q", 74) + b'{"fc.weight":{"dtype":"F32","shape":[8,99999999999],"data_offsets":[0,1]}}',
        b"\x80\x04\x95cos\nsystem\n",
    ],
)
def test_a_hostile_safetensors_file_is_one_message(content: bytes) -> None:
    with open("w.safetensors", "wb") as file:
        file.write(content)
    network("w.safetensors")
    assert "w.safetensors: is not a safetensors file" in refused(
        "run", "net.yaml", "--arch", "systolic_ws_8x8"
    )


def test_a_truncated_safetensors_file_is_one_message() -> None:
    save_file({"fc.weight": np.ones((8, 16), np.float32)}, "whole.safetensors")
    with open("whole.safetensors", "rb") as file:
        whole = file.read()
    network("w.safetensors")
    for end in range(0, len(whole), 37):
        with open("w.safetensors", "wb") as file:
            file.write(whole[:end])
        assert "w.safetensors" in refused("run", "net.yaml", "--arch", "systolic_ws_8x8")


def test_an_empty_workload_is_refused() -> None:
    with open("net.yaml", "w") as file:
        file.write("name: net\noperations: []\n")
    assert re.search(r"operations: ", refused("run", "net.yaml", "--arch", "systolic_ws_8x8"))


def test_a_failed_run_leaves_the_old_file() -> None:
    with open("old.csv", "w") as file:
        file.write("old")
    refused(*GEMM, "--weights", "mxfp4", "--csv", "old.csv")
    with open("old.csv") as file:
        assert file.read() == "old"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"[1]", b"{", b"null", b"\xff", b"[" * 100_000, b'{"schema_version": 9}']
)
def test_explain_refuses_what_is_no_report(content: bytes) -> None:
    with open("r.json", "wb") as file:
        file.write(content)
    refused("explain", "r.json")


@FUZZ
@given(seed=st.integers(0, 2**32 - 1))
def test_a_damaged_report_is_explained_or_refused(seed: int, report_text: str) -> None:
    report = json.loads(report_text)
    dice = random.Random(seed)
    node = report
    while True:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or dice.random() < 0.2:
            break
        node = node[key]
    node[key] = dice.choice([None, -1, "x\x1b[31m", [], {}, 1e308, float("nan"), [{}], {"a": 1}])
    with open("r.json", "w") as file:
        json.dump(report, file)
    ended = simulator("explain", "r.json")
    assert ended.code in (0, 2)
    assert "\x1b" not in ended.out + ended.err


COMMANDS = ["run", "gemm", "trace", "formats", "archs", "workloads", "explain"]
OPTIONS = [
    "--arch",
    "--json",
    "--csv",
    "--parquet",
    "--set",
    "--weights",
    "--activations",
    "--kv",
    "--output",
]
OPTIONS += ["--batch", "--prefill", "--decode", "--engine", "-o", "--help", "--version", "--", "-"]
VALUES = [
    "systolic_ws_8x8",
    "fast",
    "reference",
    "int8",
    "int4_g32",
    "mxfp4",
    "net.yaml",
    "no.yaml",
    ".",
    "",
    "0",
    "1",
]
VALUES += [
    "-1",
    "7",
    "1e9",
    "9" * 25,
    "nan",
    "array.rows=3",
    "pe.weights=int4",
    "pe={}",
    "a=b=c",
    "clock_ghz=1e-3",
]
VALUES += ["out.txt", "\x1b[31m", "\n", "\u20ac", "\udcff"]
words = st.sampled_from(COMMANDS + OPTIONS + VALUES)


@FUZZ
@given(arguments=st.lists(words | st.text(max_size=6), max_size=8))
def test_any_words_end_with_0_or_2(arguments: list[str]) -> None:
    ended = simulator(*arguments)
    assert ended.code in (0, 2)
    if ended.code == 2 and [word for word in arguments if word != "--"]:
        assert re.fullmatch(r"error: .*\n", ended.err)


options = st.lists(
    st.tuples(
        st.sampled_from(["--set", "--weights", "--activations", "--output", "--batch", "--engine", "--csv"]),
        words,
    ),
    max_size=4,
)


@FUZZ
@given(sizes=st.tuples(*[st.integers(-1, 20)] * 3), chosen=options)
def test_a_gemm_with_any_options_runs_or_is_refused(sizes: tuple[int, int, int], chosen) -> None:
    flat = [word for pair in chosen for word in pair]
    ended = simulator("gemm", "--arch", "systolic_ws_8x8", *flat, "--", *sizes)
    assert ended.code in (0, 2)
    assert (ended.code == 2) == bool(re.fullmatch(r"error: .*\n", ended.err))
    assert all(re.fullmatch(r"[^.].*", name, flags=re.DOTALL) for name in os.listdir("."))


def test_a_message_is_one_line_whatever_it_names() -> None:
    message = refused("run", "a\nb\x1b[31m.yaml", "--arch", "systolic_ws_8x8")
    assert "\x1b" not in message
    assert "no such workload file" in message


def test_no_arguments_show_what_there_is() -> None:
    ended = simulator()
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: simulator [OPTIONS] COMMAND")


def test_main_gives_the_exit_code_and_does_not_exit() -> None:
    assert main(["formats", "nonsense-format"]) == 2
