"""The excerpt that README.md shows of its main job. `PYTHONPATH=. python tests/cli/readme_excerpt.py` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

from cli_runs import simulator

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(?<=```text\n)(.*?)(?=\n```)", flags=re.DOTALL)


def main_job() -> list[str]:
    """Arguments of the run that README.md promises."""
    found = re.search(
        r"<!-- command: main-job -->\s*\n```sh\n.*&& simulator (.*)\n```", README.read_text("utf-8")
    )
    assert found is not None
    return found[1].split()


def excerpt(printed: str) -> str:
    """What the run printed, without its rows of vector operations."""
    lines = printed.rstrip("\n").split("\n")
    rules = [at for at, line in enumerate(lines) if line.startswith("─")]
    return "\n".join([*lines[: rules[1] + 1], "...", *lines[rules[2] :]])


if __name__ == "__main__":
    shown = excerpt(simulator(*main_job()).out)
    README.write_text(BLOCK.sub(lambda _: shown, README.read_text("utf-8"), count=1), "utf-8")
