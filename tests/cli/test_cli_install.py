"""The package as others install it: a wheel in an environment of its own, used from any folder."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(TOP)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_carries_every_file_of_the_package_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("arch_configs", "workloads"):
        for file in (TOP / folder).glob("*.yaml"):
            assert f"simulator/_shipped/{folder}/{file.name}" in names
    for pattern in ("*.py", "*.csv", "*.yaml"):
        for file in (TOP / "simulator").rglob(pattern):
            assert str(file.relative_to(TOP)) in names
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_an_installed_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", str(wheel)], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def simulator(*arguments: str) -> str:
        command = [programs / "simulator", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=elsewhere).stdout

    assert simulator("--version").startswith("simulator 0.")
    assert simulator("archs").count("systolic_") == len(list((TOP / "arch_configs").glob("systolic_*.yaml")))
    for workload in (TOP / "workloads").glob("*.yaml"):
        assert workload.stem in simulator("workloads")
    assert " cycles = " in simulator("run", "resnet-18", "--arch", "systolic_ws_32x32")
    assert simulator("gemm", "8", "8", "8", "--arch", "systolic_os_8x8", "--json").startswith("{")
    assert not list(elsewhere.iterdir())
