"""Runs a notebook's code cells as Jupyter does: one namespace, in order, what is printed and the last value shown.

``python tests/notebooks/notebook_cells.py notebooks/NAME.ipynb`` runs a notebook and writes its outputs into it.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def run_cells(notebook: dict[str, Any], given: dict[str, Any] | None = None) -> list[list[dict[str, Any]]]:
    """Outputs of each code cell in nbformat 4. ``given``: names whose assignment at the top of a cell gets this value
    in place of the notebook's, so that a test can run a smaller case."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            outputs.append(run_cell("".join(cell["source"]), scope, given or {}))
    return outputs


def run_cell(source: str, scope: dict[str, Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    module = ast.parse(source)
    for statement in module.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in given:
                statement.value = ast.copy_location(ast.Constant(given[name]), statement.value)
    last = module.body.pop() if module.body and isinstance(module.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(ast.fix_missing_locations(module), "<cell>", "exec"), scope)
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), scope)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        outputs.append({"output_type": "display_data", "data": shown(value), "metadata": {}})
    return outputs


def shown(value: Any) -> dict[str, Any]:
    """What Jupyter shows of a value: a figure as PNG, everything else as text, and as HTML where it has that."""
    if hasattr(value, "savefig"):
        image = io.BytesIO()
        value.savefig(image, format="png", dpi=100, metadata={"Software": None})
        return {"image/png": base64.b64encode(image.getvalue()).decode(), "text/plain": lines(repr(value))}
    data = {"text/plain": lines(repr(value))}
    return data | ({"text/html": lines(value._repr_html_())} if hasattr(value, "_repr_html_") else {})


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def text_of(outputs: list[dict[str, Any]]) -> list[list[str]]:
    """The text of a cell's outputs; a figure's is its size."""
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]


def main(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    results = iter(run_cells(notebook))
    for count, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        cell["outputs"], cell["execution_count"] = next(results), count
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
