"""What there is: formats, accelerators and workloads, as tables and one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.cli.output import terminal

if TYPE_CHECKING:
    from simulator.formats import Format

_VALUES_LISTED, _TABLES_LISTED = 64, 4
"""Codes up to which all values of an element are listed, and the most tables."""
_SHARED_BY = {
    "none": "",
    "tensor": "tensor",
    "channel": "row of weights",
    "token": "row of activations",
}


def formats() -> str:
    """A row a format; suffixes and minifloats make many more."""
    from simulator.formats import format_names, get_format

    rows = []
    for name in format_names():
        entry = get_format(name)
        element = entry.element
        rows.append(
            [
                name,
                f"{entry.bits_per_value():.6g}",
                element.name,
                f"{element.max_value:.6g}",
                f"{element.min_positive:.4g}",
                "" if entry.scale_element is None else entry.scale_element.name,
                _shared_by(entry),
                "yes" if entry.has_zero_point else "",
            ]
        )
    titles = ["bits/value", "element", "largest", "smallest", "scale", "shared by", "zero point"]
    more = "More: int2..int16, uint2..uint16, e<X>m<Y>; suffixes _g<N> _channel _token _tensor, _s<scale>, then _asym."
    return (
        _table(["format", *titles], rows, left={"element", "scale", "shared by", "zero point"})
        + f"\n{more}\n"
    )


def format_in_full(name: str) -> str:
    """Everything about one format. Raises InputError: no such format."""
    import numpy as np

    from simulator.formats import get_format

    entry = get_format(name)
    element = entry.element
    lines = [
        entry.name,
        f"  element         {element.name}, {element.bits} bits: {_layout(entry)}",
        f"  values          up to {element.max_value:.9g}; smallest above zero {element.min_positive:.9g}",
    ]
    specials = {"none": "no infinity, no NaN", "nan": "NaN, no infinity", "ieee": "infinities and NaN"}
    if element.kind == "float":
        lines.append(f"  specials        {specials[element.specials]}")
    if entry.scale_element is None:
        lines.append("  scale           none: values are cast")
    else:
        lines.append(f"  scale           {entry.scale_element.name}, shared by {_shared_by(entry)}")
    if entry.tensor_scale_element is not None:
        lines.append(f"  second scale    {entry.tensor_scale_element.name}, one a tensor")
    if entry.has_zero_point:
        lines.append(f"  zero point      integer of {entry.code_bits} bits with each scale")
    if entry.selector_bits:
        with_each = f"{entry.selector_group} values" if entry.selector_group else "scale"
        lines.append(f"  selector        {entry.selector_bits} bits with each {with_each}")
    lines.append(f"  bits per value  {entry.bits_per_value():.9g} with all of these in whole groups")
    if entry.row_scale_element is not None:
        lines.insert(-1, f"  second scale    {entry.row_scale_element.name}, one a row")
    if element.kind == "table":
        listed = 2**element.bits <= _VALUES_LISTED and len(element.tables) <= _TABLES_LISTED
        for selector, table in enumerate(element.tables if listed else ()):
            values = " ".join(f"{value * 2.0**element.step_exponent:g}" for value in sorted(set(table)))
            which = f" by selector {selector}" if len(element.tables) > 1 else ""
            lines.append(f"  all values{which}  {values}")
    elif 2**element.bits <= _VALUES_LISTED and element.kind != "exponent":
        top = element.max_code
        codes = np.arange(top + 1).astype(element.dtype)
        values = " ".join(f"{value:g}" for value in entry.element_values(codes))
        sign = "" if element.kind == "uint" else " and their negatives"
        lines.append(f"  all values      {values}{sign}")
    return "\n".join(lines) + "\n"


def _layout(entry: Format) -> str:
    element = entry.element
    if element.kind == "float":
        return f"sign, {element.exponent_bits} exponent and {element.mantissa_bits} mantissa bits"
    if element.is_integer:
        low, high = entry.code_range
        return f"integer codes {low} to {high}"
    if element.kind == "table":
        count = len(element.tables)
        return "a table of values" if count == 1 else f"{count} tables of values, one chosen by each selector"
    return "exponent"


def _shared_by(entry: Format) -> str:
    return f"{entry.group_size} along K" if entry.group_size else _SHARED_BY[entry.granularity]


def archs() -> str:
    """A row a shipped accelerator."""
    from simulator.arch import accelerator_names, load_accelerator

    rows = []
    for name in accelerator_names():
        machine = load_accelerator(name)
        buffers = machine.buffers
        sizes = (buffers.weights.kib, buffers.activations.kib, buffers.outputs.kib)
        rows.append(
            [
                name,
                machine.array.dataflow,
                f"{machine.array.rows} x {machine.array.cols}",
                machine.element.family,
                "/".join(machine.pe.weights),
                "/".join(machine.pe.activations),
                " + ".join(f"{size:g}" for size in sizes),
                f"{machine.dram.bandwidth_gb_per_s:g}",
                f"{machine.clock_ghz:g}",
                machine.technology if isinstance(machine.technology, str) else "own",
            ]
        )
    titles = [
        "dataflow",
        "PEs",
        "family",
        "weights",
        "activations",
        "buffers KiB",
        "DRAM GB/s",
        "GHz",
        "technology",
    ]
    return _table(["arch", *titles], rows, left=set(titles) - {"PEs", "buffers KiB", "DRAM GB/s", "GHz"})


def arch_in_full(name: str) -> str:
    """An accelerator as YAML with every key. Raises InputError: no such accelerator, or a faulty file."""
    from simulator.arch import load_accelerator
    from simulator.config import dump_yaml

    return dump_yaml(load_accelerator(name).model_dump(mode="json", exclude_none=True))


def workloads() -> str:
    """A row a shipped workload."""
    from simulator.workload import load_workload, workload_names

    rows = []
    for name in workload_names():
        work = load_workload(name)
        phase = [f"{key} {size}" for key in ("prefill", "decode") if (size := getattr(work.phase, key))]
        rows.append(
            [
                name,
                f"{len(work.operations)}",
                f"{work.parameters / 1e6:,.2f}",
                f"{work.macs / 1e9:,.3f}",
                ", ".join([*phase, f"batch {work.phase.batch}"]),
                work.formats["weights"],
                work.formats["activations"],
                work.weight_values,
            ]
        )
    titles = ["operations", "M weights", "G MACs", "phase", "weights", "activations", "values"]
    return _table(["workload", *titles], rows, left={"phase", "weights", "activations", "values"})


def workload_in_full(name: str) -> str:
    """A workload as YAML with every key. Raises InputError: no such workload, or a faulty file."""
    from simulator.config import dump_yaml
    from simulator.workload import load_workload

    return dump_yaml(load_workload(name).config)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: set[str]) -> str:
    from simulator.report.table import Column, text_table

    first, *others = titles
    columns = [Column(first, left=True), *(Column(title, left=title in left) for title in others)]
    width, color = terminal()
    return "\n".join(text_table(columns, [rows], width=width, color=color)) + "\n"
