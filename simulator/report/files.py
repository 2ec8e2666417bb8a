"""Reports as files, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from simulator.errors import InputError
from simulator.report import frames

if TYPE_CHECKING:
    from simulator.report.report import Report


def write_csv(path: str | Path, reports: Sequence[Report]) -> None:
    """One row a layer of all ``reports``, each with its workload, arch and technology."""
    columns, rows = _rows(reports)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = buffer.getvalue().encode()
    write_whole(path, lambda file: file.write(data))


def write_parquet(path: str | Path, reports: Sequence[Report]) -> None:
    """The same rows, typed; the JSON of all ``reports`` is in the file's metadata (``simulator_reports``)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, rows = _rows(reports)
    table = pa.table({column: [row.get(column) for row in rows] for column in columns})
    table = table.replace_schema_metadata(
        {"simulator_reports": json.dumps([report.to_json() for report in reports])}
    )
    write_whole(path, lambda file: pq.write_table(table, file))


def _rows(reports: Sequence[Report]) -> tuple[list[str], list[dict[str, Any]]]:
    rows = [
        {
            "workload": report.meta["workload"],
            "arch": report.meta["arch"],
            "technology": report.technology.name,
            **row,
        }
        for report in reports
        for row in frames.layer_rows(report)
    ]
    return list(dict.fromkeys(column for row in rows for column in row)), rows


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside ``path``, then rename: ``path`` is the old file or the whole new one, never a part.

    A device or pipe is written to as it is. Raises InputError where ``path`` cannot be written.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise InputError("is a folder; a file is needed", file=target)
        if target.exists() and not target.is_file():
            with open(target, "wb") as file:
                write(file)
            return
        _replace(target.resolve(), write)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=target) from None


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> None:
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            write(file)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
