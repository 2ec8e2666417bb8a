"""Where each number of a report came from, told from its JSON alone: ``simulator explain REPORT.json``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from simulator.errors import InputError, one_line
from simulator.report.document import SCHEMA_VERSION

_WIDTH = 110


def explain(report: Any) -> str:
    """Every constant of the run: component, part, event, value, unit, quality, formula and source.

    ``report`` is what ``simulator run --json`` printed, one object or a list of them. Sources are numbered
    and listed at the end. Raises InputError where it is no report of this schema.
    """
    try:
        reports = report if isinstance(report, list) and report else [report]
        return "\n".join("\n".join(map(one_line, _lines(one))) + "\n" for one in reports)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            "not a report that this version can explain",
            key=str(error.args[0]) if isinstance(error, KeyError) else None,
            allowed="what `simulator run --json` printed",
        ) from None


def _lines(report: Mapping[str, Any]) -> list[str]:
    if report["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            "report of another schema",
            key="schema_version",
            value=report["schema_version"],
            allowed=str(SCHEMA_VERSION),
        )
    technology = report["costs"]["technology"]
    lines = [
        f"{report['workload']} on {report['arch']}: constants of technology {technology['name']}",
        *_wrapped(technology["description"], 0),
        f"energy rests on: {_percentages(report['energy_share_by_quality'])}",
        f"area rests on:   {_percentages(report['area_share_by_quality'])}",
    ]
    sources: dict[str, int] = {}
    for component in report["costs"]["components"]:
        lines += ["", *_component(component, sources)]
    lines += ["", "sources"]
    for source, number in sources.items():
        lines += _wrapped(f"[{number}] {source}", 2)
    return lines


def _component(component: Mapping[str, Any], sources: dict[str, int]) -> list[str]:
    count = component["count"]
    together = f", {component['copies']:,} at each event" if component["copies"] != 1 else ""
    head = f"{component['component']} ({component['kind']}, {count:,} instance{'s' if count != 1 else ''}{together})"
    if component["area_um2"] is None:
        lines = [head, "  area and standby power: outside the model"]
    else:
        lines = [
            head,
            f"  one instance: {component['area_um2']:.6g} um2, leakage {component['leakage_nw']:.6g} nW"
            f"; softest quality: {component['quality']}",
        ]
    for name, event in component["events"].items():
        terms = [_term(term) for term in event["sum_of"]]
        made = f" = {' + '.join(terms)}" if terms else ""
        lines += _wrapped(f"event {name}{made} = {event['energy_pj']:.6g} pJ [{event['quality']}]", 2)
    for constant in component["constants"]:
        lines += _constant(constant, sources)
    return lines


def _term(term: Mapping[str, Any]) -> str:
    times = "" if term["times"] == 1 else f"{term['times']} x "
    return f"{times}{term['part']}.{term['event']}"


def _constant(constant: Mapping[str, Any], sources: dict[str, int]) -> list[str]:
    params = " ".join(f"{name}={value}" for name, value in constant["params"].items())
    what = f"{constant['kind']} {params}".rstrip()
    if constant["part"]:
        times = f"{constant['count']} x " if constant["count"] != 1 else ""
        what = f"{constant['part']}: {times}{what}"
    event = f" {constant['event']}" if constant["event"] else ""
    source = sources.setdefault(constant["source"], len(sources) + 1)
    rows = ", ".join(dict.fromkeys(constant["rows"]))
    lines = _wrapped(
        f"- {what}: {constant['quantity']}{event} = {constant['value']:.6g} {constant['unit']}"
        f"  ({constant['quality']}; source [{source}], {rows})",
        2,
    )
    if constant["formula"]:
        lines += _wrapped(constant["formula"], 6)
    return lines


def _percentages(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{quality} {share:.1%}" for quality, share in shares.items()) or "nothing"


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
