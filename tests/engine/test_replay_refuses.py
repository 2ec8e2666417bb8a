"""The replay of other simulators' cycles: damaged files are one message and exit code 2, never a traceback."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import replay

DATA = Path(__file__).parents[1] / "data" / "bitserial"
INPUTS, CASES = DATA / "inputs.npz", DATA / "dnnsim_cases.csv"


def refusal(capsys: pytest.CaptureFixture[str], inputs: Path, cases: Path) -> str:
    assert replay.main(["dnnsim", "--inputs", str(inputs), "--cases", str(cases)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0), (0, -1), (1, -1), (1, 1 << 20), (2, 0), (3, -8)], ids=lambda value: str(value)
)
def test_a_layer_without_stride_bits_or_padding_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at: int, value: int
) -> None:
    with np.load(INPUTS) as archive:
        arrays = {name: archive[name] for name in archive.files if name.startswith("lap8/conv1/")}
    meta = arrays["lap8/conv1/meta"].astype(np.int64)
    meta[at] = value
    np.savez(tmp_path / "damaged.npz", **{**arrays, "lap8/conv1/meta": meta})
    assert "lap8/conv1" in refusal(capsys, tmp_path / "damaged.npz", CASES)


@pytest.mark.parametrize("value", ["0", "-1", "x", "1e12", "2.5"])
def test_a_parameter_that_no_machine_has_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    with CASES.open(newline="") as file:
        row = next(csv.DictReader(file))
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow({**row, "lanes": value})
    assert "lanes" in refusal(capsys, INPUTS, tmp_path / "cases.csv")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "array", "bits"])
def test_a_damaged_archive_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    damaged, whole = tmp_path / "damaged.npz", INPUTS.read_bytes()
    if damage == "array":
        with damaged.open("wb") as file:
            np.save(file, np.arange(3))
    elif damage == "bits":
        middle = len(whole) // 2
        damaged.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    else:
        damaged.write_bytes({"cut": whole[:3000], "text": b"hello", "empty": b""}[damage])
    assert "no inputs can be read" in refusal(capsys, damaged, CASES)
