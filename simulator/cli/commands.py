"""The commands and their options. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli import catalogue
from simulator.cli.output import Destination, check_target, emit, terminal
from simulator.cli.progress import ProgressLine
from simulator.cli.usage import Commands, whole_number
from simulator.errors import InputError
from simulator.version import version

if TYPE_CHECKING:
    from simulator.arch import Accelerator
    from simulator.report import Report
    from simulator.workload import Workload

MAX_REPORT_BYTES = 2**28
"""Largest report that `explain` reads."""

app = typer.Typer(
    add_completion=False,
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A cycle-accurate, bit-exact simulator of quantized deep-learning accelerators.",
)

Archs = Annotated[
    list[str],
    typer.Option(
        "--arch", metavar="ARCH", help="Accelerator: a shipped name or a YAML file. Several: side by side."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option("--batch", parser=whole_number, metavar="B", help="Sequences, images or products."),
]
Weights = Annotated[str | None, typer.Option("--weights", metavar="FMT", help="Number format of weights.")]
Activations = Annotated[
    str | None, typer.Option("--activations", metavar="FMT", help="Number format of activations.")
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="FMT", help="Number format of what layers write.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the accelerator, such as array.rows=64. Repeatable."
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine", metavar="fast|reference", help="Closed forms, or every cycle: the same integers."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the whole report as one JSON object.")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a row a layer.")]
Parquet = Annotated[
    Path | None, typer.Option("--parquet", metavar="FILE", help="Write a row a layer, typed.")
]
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="One of them, in full.", show_default=False)
]


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(f"simulator {version()}\n")
        raise typer.Exit


@app.callback()
def _simulator(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options of the command itself; without a command, what there is."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


@app.command()
def run(
    workload: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD", help="A shipped name, a YAML file, or a Hugging Face model folder."
        ),
    ],
    arch: Archs,
    prefill: Annotated[
        int | None, typer.Option("--prefill", parser=whole_number, metavar="S", help="Run S tokens.")
    ] = None,
    decode: Annotated[
        int | None,
        typer.Option("--decode", parser=whole_number, metavar="L", help="Run one step at context length L."),
    ] = None,
    batch: Batch = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers", parser=whole_number, metavar="N", help="Run the network's first N layers only."
        ),
    ] = None,
    weights: Weights = None,
    activations: Activations = None,
    kv: Annotated[
        str | None, typer.Option("--kv", metavar="FMT", help="Number format of keys and values.")
    ] = None,
    output: Output = None,
    changes: Set = None,
    engine: Engine = "fast",
    as_json: Json = False,
    csv: Csv = None,
    parquet: Parquet = None,
) -> None:
    """Simulate a workload: cycles, energy and area, layer by layer."""
    destination = Destination(as_json, csv, parquet)
    destination.check()
    accelerators = _accelerators(arch, changes)
    from simulator.study.run import chosen_formats
    from simulator.workload import load_workload

    formats = {"weights": weights, "activations": activations, "kv": kv}
    loaded = [
        load_workload(
            workload,
            prefill=prefill,
            decode=decode,
            batch=batch,
            layers=layers,
            output=output,
            **chosen_formats(accelerator, **formats),
        )
        for accelerator in accelerators
    ]
    destination.deliver(_simulate(loaded, accelerators, engine))


@app.command()
def gemm(
    m: Annotated[int, typer.Argument(parser=whole_number, metavar="M", help="Rows of the activations.")],
    k: Annotated[int, typer.Argument(parser=whole_number, metavar="K", help="Length of the sums.")],
    n: Annotated[int, typer.Argument(parser=whole_number, metavar="N", help="Rows of the weights.")],
    arch: Archs,
    batch: Batch = None,
    weights: Weights = None,
    activations: Activations = None,
    output: Output = None,
    changes: Set = None,
    engine: Engine = "fast",
    as_json: Json = False,
    csv: Csv = None,
    parquet: Parquet = None,
) -> None:
    """Simulate one matrix product A(m, k) @ W(n, k).T."""
    destination = Destination(as_json, csv, parquet)
    destination.check()
    accelerators = _accelerators(arch, changes)
    from simulator.study.run import chosen_formats
    from simulator.workload import gemm_workload

    loaded = []
    for accelerator in accelerators:
        formats = chosen_formats(accelerator, weights=weights, activations=activations)
        given = {"batch": batch, "output": output, **formats}
        chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        loaded.append(gemm_workload(m, k, n, **chosen))
    destination.deliver(_simulate(loaded, accelerators, engine))


@app.command()
def trace(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="config.json, a folder with one, or a .safetensors file beside one."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="WORKLOAD.yaml", help="File to write.")],
) -> None:
    """Write the workload file of a model."""
    from simulator.report.files import write_whole
    from simulator.workload import trace as traced

    check_target(output)
    text = traced(model)
    write_whole(output, lambda file: file.write(text.encode()))


@app.command()
def formats(name: Name = None) -> None:
    """Number formats: a table, or one in full."""
    emit(catalogue.formats() if name is None else catalogue.format_in_full(name))


@app.command()
def archs(name: Name = None) -> None:
    """Accelerators: a table, or one in full as YAML that can be run."""
    emit(catalogue.archs() if name is None else catalogue.arch_in_full(name))


@app.command()
def workloads(name: Name = None) -> None:
    """Workloads: a table, or one in full as YAML that can be run."""
    emit(catalogue.workloads() if name is None else catalogue.workload_in_full(name))


@app.command()
def explain(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT.json", help="What `simulator run --json` printed.")
    ],
) -> None:
    """Tell where each number of a report came from."""
    from simulator.report import explain as explained

    emit(explained(_read_json(report)))


@app.command()
def reproduce(
    paper: Annotated[
        str | None,
        typer.Argument(metavar="[PAPER]", help="One of them; none: what there is.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the claims as a JSON list of objects.")
    ] = False,
) -> None:
    """Published figures beside ours."""
    from simulator.study import reproduce as papers
    from simulator.study.reproduce.text import claims_text, papers_text

    if paper is None:
        if as_json:
            raise InputError("needs a paper", key="reproduce --json", allowed=", ".join(papers.paper_names()))
        width, color = terminal()
        emit(papers_text(papers.PAPERS, width=width, color=color))
        return
    claims = papers.reproduce(paper)
    if as_json:
        emit(json.dumps([claim.to_json() for claim in claims], indent=1, allow_nan=False) + "\n")
    else:
        width, color = terminal()
        emit(claims_text(claims, width=width, color=color))


def _accelerators(names: Sequence[str], changes: Sequence[str] | None) -> list[Accelerator]:
    from simulator.arch import load_accelerator

    changed = _changes(changes or ())
    return [load_accelerator(name, changed) for name in names]


def _changes(given: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE texts as a mapping. Raises InputError: another form, or a key that is set twice."""
    changes: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError("is not KEY=VALUE", key="--set", value=text, allowed="such as array.rows=64")
        if key in changes:
            raise InputError("is set twice", key=f"--set {key}", value=value)
        changes[key] = value
    return changes


def _simulate(
    workloads: Sequence[Workload], accelerators: Sequence[Accelerator], engine: str
) -> list[Report]:
    from simulator.study import run_workload

    with ProgressLine(len(accelerators)) as line:
        return [
            run_workload(loaded, accelerator, engine=engine, progress=line.callback(index, accelerator.name))
            for index, (loaded, accelerator) in enumerate(zip(workloads, accelerators, strict=True))
        ]


def _read_json(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_REPORT_BYTES + 1)
        if len(data) > MAX_REPORT_BYTES:
            raise InputError("is too large", file=path, allowed=f"up to {MAX_REPORT_BYTES} bytes")
        return json.loads(data)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not JSON: {error}", file=path) from None
