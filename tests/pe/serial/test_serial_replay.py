"""The replay of DNNsim and BitSim: their own counts, and a literal second reading of their rules on other layers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import literal_replay
import numpy as np
import pytest
import replay
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError

DATA = Path(__file__).parents[2] / "data" / "bitserial"
INPUTS = DATA / "inputs.npz"


@pytest.mark.parametrize("simulator", ["dnnsim", "bitsim"])
def test_counts_are_those_of_the_simulators(simulator: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row, on all networks."""
    cases = DATA / f"{simulator}_cases.csv"
    assert replay.main([simulator, "--inputs", str(INPUTS), "--cases", str(cases)]) == 0
    found = json.loads(capsys.readouterr().out)
    with cases.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, count in zip(rows, found, strict=True):
        assert count == int(row["compute_cycles"]), row


def test_convolutions_are_flipped_with_channels_last() -> None:
    """The first kernel position's channels are one group, rounded to multiples of 16; the others are zero."""
    weights = np.zeros((1, 2, 2, 1), np.int16)
    weights[0, :, 0, 0] = 89, 39
    flipped = replay._flipped(weights, 4)
    assert flipped[0, :, 0, 0].tolist() == [96, 32]
    assert not flipped[0, :, 1].any()


@st.composite
def layers(draw: st.DrawFn) -> replay.Layer:
    """Small layers: convolutions of any stride and padding, odd channel counts, linear layers of odd numbers of steps;
    signed or not, sparse or all zero, up to 16 bits."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = draw(st.tuples(st.sampled_from([3, 8, 16]), st.sampled_from([4, 8, 16])))
    channels, filters = draw(st.integers(1, 11)), draw(st.integers(1, 7))
    if draw(st.booleans()):
        kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
        size = draw(st.integers(max(kernel - 2 * padding, 1), 4))
        shapes = (1, channels, size, size), (filters, channels, kernel, kernel)
    else:
        stride, padding = 1, 0
        shapes = (1, 3 * channels), (filters, 3 * channels)

    def values(shape: tuple[int, ...], bits: int) -> np.ndarray:
        signed, sparsity = draw(st.booleans()), draw(st.sampled_from([0.0, 0.6, 1.0]))
        top = 2 ** (bits - 1) - 1 if signed or bits == 16 else 2**bits - 1
        drawn = generator.integers(-top if signed else 0, top + 1, shape)
        drawn = drawn >> generator.integers(0, bits, shape)
        drawn[generator.random(shape) < sparsity] = 0
        return drawn.astype(np.int16)

    meta = np.array([stride, padding, *bits])
    return replay._layer(values(shapes[0], bits[0]), values(shapes[1], bits[1]), meta)


parameters = st.fixed_dictionaries(
    {
        "arch": st.sampled_from(sorted(replay.DNNSIM)),
        "lanes": st.sampled_from([2, 4, 16]),
        "columns": st.sampled_from([2, 4, 16]),
        "rows": st.sampled_from([2, 4]),
        "tiles": st.integers(1, 2),
        "pe_width": st.sampled_from([8, 16]),
        "stage": st.integers(0, 4),
        "registers": st.integers(0, 3),
        "booth": st.booleans(),
        "group": st.integers(1, 3),
        "serial": st.sampled_from([1, 2, 4]),
        "trim": st.booleans(),
        "dynamic": st.booleans(),
    }
)


def row_of(p: dict[str, Any]) -> dict[str, str]:
    """A row of cases that says what ``p`` says."""
    columns = {
        "architecture": "arch",
        "bits_first_stage": "stage",
        "column_registers": "registers",
        "booth_encoding": "booth",
        "group_size": "group",
        "pe_serial_bits": "serial",
        "minor_bit": "trim",
        "dynamic_weights": "dynamic",
    } | {name: name for name in ("lanes", "columns", "rows", "tiles", "pe_width")}
    return {column: str(p[name]) for column, name in columns.items()}


@settings(max_examples=250, deadline=None)
@given(layer=layers(), p=parameters)
def test_dnnsims_rules_read_twice_give_one_count(layer: replay.Layer, p: dict[str, Any]) -> None:
    # only these two machines have registers
    p = p if p["arch"] in ("BitPragmatic", "ShapeShifter") else p | {"registers": 0}
    assert replay.dnnsim(row_of(p), layer) == literal_replay.dnnsim(layer, p)


@settings(max_examples=150, deadline=None)
@given(
    layer=layers(),
    p=parameters,
    arch=st.sampled_from(["DaDianNao", "ShapeShifter", "BitPragmatic"]),
    find=st.sampled_from([("T", 2, 5), ("L", 1, 6), ("L", 2, 5), ("L", 0, 1), ("L", 3, 0)]),
)
def test_weights_scheduled_twice_take_one_time(
    layer: replay.Layer, p: dict[str, Any], arch: str, find: tuple[str, int, int]
) -> None:
    shape, ahead, aside = find
    p = p | {"arch": arch, "ahead": ahead}
    if arch == "DaDianNao":
        p = p | {"registers": 0}
    row = row_of(p) | {
        "tactical": "True",
        "search_shape": shape,
        "lookahead_h": str(ahead),
        "lookaside_d": str(aside),
    }
    along = [(1, -i) for i in range(aside, 0, -1)] + [(i, 0) for i in range(1, ahead + 1)]
    offsets = sorted(along) if shape == "L" else [(1, -1), (1, 0), (1, 1), (1, 3), (2, -2), (2, 0), (2, 2)]
    assert replay.dnnsim(row, layer) == literal_replay.tactical(layer, p, offsets)


@settings(max_examples=150, deadline=None)
@given(
    layer=layers(),
    arch=st.sampled_from(sorted(replay.BITSIM)),
    group=st.sampled_from([2, 4, 8]),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    tokens=st.integers(1, 9),
)
def test_bitsims_rules_read_twice_give_one_count(
    layer: replay.Layer, arch: str, group: int, rows: int, columns: int, tokens: int
) -> None:
    weights = np.clip(layer.weights, -128, 127)
    layer = replay.Layer(layer.activations, weights, layer.stride, 8, 8)
    row = {"arch": arch, "group": group, "rows": rows, "cols": columns, "tokens": tokens} | {
        "mode": "no_bbs",
        "en_bitflip": True,
    }
    p = {"arch": arch, "group": group, "rows": rows, "columns": columns, "tokens": tokens}
    found = replay.bitsim({name: str(value) for name, value in row.items()}, layer)
    assert found == literal_replay.bitsim(layer, p)


@pytest.mark.parametrize(
    ("row", "cycles"),
    [
        ({"mode": "bbs"}, 256 * 3 * 8),
        ({"mode": "lsb"}, 256 * 3 * 6),
        ({"mode": "ol_eager", "outlier_frac": "0.25"}, 256 * 3 * 5.0),
        ({"mode": "ol_cons", "outlier_frac": "0.1"}, 768 * 0.1 * 8 + 768 * 0.9 * 6),
    ],
)
def test_bitverts_other_modes_follow_from_assumed_precisions(row: dict[str, str], cycles: float) -> None:
    """512 / 32 x 256 / 16 = 256 tiles, for three sets of columns."""
    layer = replay.read_layers(INPUTS)["uni8", "fc1"]
    array = {"arch": "BitVert", "group": "16", "rows": "32", "cols": "16", "tokens": "40"}
    assert replay.bitsim(array | row, layer) == cycles


def test_bitwave_counts_flipped_weights_where_its_precision_is_lower() -> None:
    layer = replay.read_layers(INPUTS)["uni8", "fc1"]
    row = {"arch": "BitWave", "group": "8", "rows": "32", "cols": "16", "en_bitflip": "True"}
    cycles = [replay.bitsim(row | {"w_prec": bits}, layer) for bits in ("8", "6", "5")]
    assert cycles[0] > cycles[1] > cycles[2]
    tiles = 512 // 32 * 256 // 8
    assert cycles[1:] == [
        tiles * 5,
        tiles * 4,
    ]  # uniform weights: no group gets more than the columns asked for
    assert replay.bitsim(row | {"w_prec": "5", "en_bitflip": "False"}, layer) == tiles * 4
    zeros = replay.Layer(layer.activations, np.zeros_like(layer.weights), 1, 8, 8)
    assert replay.bitsim(row, zeros) == -tiles


def test_bitwave_takes_the_best_dataflow_or_the_reported_one() -> None:
    layer = replay.read_layers(INPUTS)["uni8", "fc1"]
    row = {"arch": "BitWave", "group": "8", "rows": "32", "cols": "16", "en_bitflip": "True"}
    chosen = row | {"config_dataflow": "True", "best_dataflow": "(16, 8, 4)"}
    assert replay.bitsim(chosen, layer) == replay.bitsim(
        row | {"group": "16", "rows": "8", "cols": "4"}, layer
    )
    every = [
        replay.bitsim(row | dict(zip(("group", "rows", "cols"), map(str, dataflow), strict=True)), layer)
        for dataflow in replay.BITWAVE_DATAFLOWS
    ]
    assert replay.bitsim(row | {"config_dataflow": "True"}, layer) == min(every)


GOOD = {"network": "uni8", "layer": "fc1", "architecture": "Stripes", "columns": "4", "rows": "4"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (GOOD | {"network": "uni9"}, ["network", "uni9", "uni8"]),
        (GOOD | {"layer": "fc2"}, ["layer", "fc2", "fc1"]),
        (GOOD | {"architecture": "Stripe"}, ["architecture", "Stripe", "Stripes"]),
        (GOOD | {"columns": "0"}, ["columns", "0", "1 to 65536"]),
        (GOOD | {"columns": "many"}, ["columns", "many"]),
        (GOOD | {"rows": ""}, ["rows"]),
        (GOOD | {"architecture": "Laconic", "booth_encoding": "maybe"}, ["booth_encoding", "maybe", "True"]),
        (GOOD | {"columns": "1", "pe_width": "4"}, ["pe_width"]),
    ],
)
def test_a_bad_row_is_one_message(
    row: dict[str, str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "cases.csv"
    with cases.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    assert replay.main(["dnnsim", "--inputs", str(INPUTS), "--cases", str(cases)]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert len(output.err.splitlines()) == 1
    for word in [*words, "line 2"]:
        assert word in output.err


@pytest.mark.parametrize("content", [None, b"no archive"])
@pytest.mark.parametrize("missing", ["--inputs", "--cases"])
def test_a_file_that_cannot_be_read_is_one_message(
    missing: str, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(b"\xff\xfe" + content)
    given = {"--inputs": str(INPUTS), "--cases": str(DATA / "dnnsim_cases.csv")} | {missing: str(file)}
    assert replay.main(["dnnsim", *(word for pair in given.items() for word in pair)]) == 2
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arrays",
    [
        {"n/l/wgt": np.zeros((2, 3), int)},
        {
            "n/l/wgt": np.zeros((2, 3), int),
            "n/l/act": np.zeros((1, 4), int),
            "n/l/meta": np.array([1, 0, 8, 8]),
        },
        {"n/l/wgt": np.zeros((2, 3)), "n/l/act": np.zeros((1, 3), int), "n/l/meta": np.array([1, 0, 8, 8])},
        {"n/l/wgt": np.zeros((2, 3), int), "n/l/act": np.zeros((1, 3), int), "n/l/meta": np.array([1, 0])},
        {
            "n/l/wgt": np.zeros((2, 3, 3, 3), int),
            "n/l/act": np.zeros((1, 3, 2, 2), int),
            "n/l/meta": np.array([1, 0, 8, 8]),
        },
    ],
)
def test_arrays_that_make_no_layer_are_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, **arrays)
    with pytest.raises(InputError, match="n/l"):
        replay.read_layers(file)


def test_windows_of_oblong_outputs_are_dnnsims() -> None:
    """Outputs 2 x 4: window 4 begins at x = 0, y = 4 div 4 = 1, where a right count says y = 2."""
    activations = np.arange(8, dtype=np.int16).reshape(1, 1, 2, 4)
    layer = replay._layer(activations, np.ones((1, 1, 1, 1), np.int16), np.array([1, 0, 8, 8]))
    assert replay._windows(layer, 1).ravel().tolist() == [0, 4, 0, 4, 1, 5, 1, 5]
    tall = replay._layer(activations.swapaxes(2, 3), np.ones((1, 1, 1, 1), np.int16), np.array([1, 0, 8, 8]))
    with pytest.raises(InputError, match="beyond"):
        replay._windows(tall, 1)
