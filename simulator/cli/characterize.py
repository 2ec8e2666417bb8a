"""The command that turns a cell library into a cost table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.commands import app
from simulator.cli.output import check_target, emit, partial_folder, remark
from simulator.cli.progress import ProgressLine
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.rtl.unit import Unit

__all__ = ["app"]


@app.command()
def characterize(
    liberty: Annotated[
        list[str] | None,
        typer.Option(
            "--liberty", metavar="FILE", help="Liberty file, .gz or plain. Several are one library."
        ),
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option("--unit", metavar="NAME", help="Unit, as --list names it. Repeatable; default: all."),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch",
            metavar="NAME|FILE",
            help="Only the units that this accelerator is priced by. Repeatable.",
        ),
    ] = None,
    clock_ghz: Annotated[
        float | None,
        typer.Option(
            "--clock-ghz",
            metavar="F",
            help="Units that miss this clock when built for the smallest area are built for it as well.",
        ),
    ] = None,
    node_nm: Annotated[
        float | None, typer.Option("--node-nm", metavar="N", help="Node of a library that is not known.")
    ] = None,
    dont_use: Annotated[
        list[str] | None,
        typer.Option("--dont-use", metavar="CELL", help="Cell not to be mapped to. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="J", help="Units at a time.")] = 1,
    list_units: Annotated[bool, typer.Option("--list", help="List the units instead.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --list: exact specifications as JSON.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="TABLE.csv", help="Where the table goes.")
    ] = None,
) -> None:
    """Synthesise processing elements to a cell library and write a cost table of them."""
    from simulator.rtl.units import default_units, unit_of_name

    chosen = {name: unit_of_name(name) for name in unit or ()}
    for machine in arch or ():
        chosen |= {each.name: each for each in _units_of(machine)}
    units = list(chosen.values() if unit or arch else default_units())
    if list_units:
        emit(_listed([each.specification() for each in units], as_json))
        return
    if as_json:
        raise InputError("only with --list", key="--json")
    for key, value in (("--clock-ghz", clock_ghz), ("--node-nm", node_nm)):
        if value is not None and not 0 < value < 1e6:
            raise InputError("must be above zero and below a million", key=key, value=value)
    if jobs < 1:
        raise InputError("must be at least 1", key="--jobs", value=jobs)
    if not liberty:
        raise InputError("a cell library is needed", key="--liberty", allowed="Liberty files, or --list")
    if output is None or output.suffix != ".csv":
        raise InputError(
            "the table needs a name", key="-o", value=output and str(output), allowed="a .csv file"
        )
    check_target(output)
    _write(units, tuple(liberty), clock_ghz, node_nm, tuple(dont_use or ()), jobs, output)


def _units_of(arch: str) -> list[Unit]:
    from simulator.arch import load_accelerator
    from simulator.rtl.machine import units_of

    accelerator = load_accelerator(arch)
    units, rest = units_of(accelerator)
    if rest:
        remark(f"{accelerator.name}: of no unit by default, so made of parts: {', '.join(rest)}")
    return units


def _write(
    units: list[Unit],
    liberty: tuple[str, ...],
    clock_ghz: float | None,
    node_nm: float | None,
    dont_use: tuple[str, ...],
    jobs: int,
    output: Path,
) -> None:
    from simulator.hardware.table import table_text
    from simulator.report.files import write_whole
    from simulator.rtl.characterise import Characteriser, Settings, characterise

    settings = Settings(liberty, clock_ghz, node_nm, dont_use)
    described = Characteriser(settings)
    with partial_folder(output) as partial, ProgressLine(1) as line:
        done = list(
            characterise(units, settings, partial, jobs=jobs, progress=line.callback(0, "characterize"))
        )
        rows = [
            row for each, all_of_it in done for figures in all_of_it for row in described.rows(each, figures)
        ]
        text = table_text(rows)
        write_whole(output, lambda file: file.write(text.encode()))


def _listed(specifications: list[dict[str, object]], as_json: bool) -> str:
    if as_json:
        return json.dumps(specifications, indent=2) + "\n"
    from simulator.cli.output import terminal
    from simulator.report.table import Column, text_table

    titles = {
        "name": "unit",
        "weights": "weights",
        "activations": "activations",
        "lanes": "lanes",
        "accumulator": "accumulator",
        "scales": "scales",
        "alignment": "alignment",
        "pipeline_cuts": "cuts",
    }
    columns = [Column(title, left=key != "lanes") for key, title in titles.items()]
    rows = [[_cell(spec[key]) for key in titles] for spec in specifications]
    width, color = terminal()
    return "\n".join(text_table(columns, [rows], width=width, color=color)) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
