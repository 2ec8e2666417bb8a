"""The command that asks CACTI for memories and writes a cost table of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.characterize import app
from simulator.cli.output import check_target, partial_folder
from simulator.cli.progress import ProgressLine
from simulator.errors import InputError

__all__ = ["app"]


@app.command()
def memories(
    cacti: Annotated[
        Path,
        typer.Option("--cacti", metavar="BINARY", help="CACTI 7, with its folder tech_params beside it."),
    ],
    node_nm: Annotated[float, typer.Option("--node-nm", metavar="N", help="Technology node, 22 to 90.")],
    output: Annotated[Path, typer.Option("-o", metavar="TABLE.csv", help="Where the table goes.")],
    cell: Annotated[
        str, typer.Option("--cell", metavar="CELL", help="itrs-hp, itrs-lstp or itrs-lop; periphery as well.")
    ] = "itrs-lstp",
    temperature_k: Annotated[
        int, typer.Option("--temperature-k", metavar="K", help="300 to 400 in steps of 10.")
    ] = 300,
    ecc: Annotated[bool, typer.Option("--ecc", help="With check bits.")] = False,
    width_bits: Annotated[
        list[int] | None,
        typer.Option("--width-bits", metavar="W", help="Repeatable; default: 16 to 512 in powers of two."),
    ] = None,
    words: Annotated[
        list[int] | None,
        typer.Option("--words", metavar="D", help="Repeatable; default: from 32 to 16 MiB in powers of two."),
    ] = None,
    ports: Annotated[
        list[str] | None, typer.Option("--ports", metavar="P", help="1rw or 1r1w. Repeatable; default: both.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="J", help="Macros at a time.")] = 1,
) -> None:
    """Compile SRAM macros with CACTI and write a cost table of them."""
    from simulator.hardware.cacti import Cacti, Settings, compiled, grid
    from simulator.hardware.table import table_text
    from simulator.report.files import write_whole

    if jobs < 1:
        raise InputError("must be at least 1", key="--jobs", value=jobs)
    if output.suffix != ".csv":
        raise InputError("the table needs a name", key="-o", value=str(output), allowed="a .csv file")
    check_target(output)
    settings = Settings(node_nm, cell, temperature_k, ecc)
    macros = grid(dict.fromkeys(width_bits or ()), dict.fromkeys(words or ()), dict.fromkeys(ports or ()))
    program = Cacti(cacti)
    with partial_folder(output) as partial, ProgressLine(1) as line:
        progress = line.callback(0, "memories")
        rows = list(compiled(program, macros, settings, partial, jobs=jobs, progress=progress))
        write_whole(output, lambda file: file.write(table_text(rows).encode()))
