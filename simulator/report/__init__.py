"""What a run cost and how that is told.

``make_report(record, components, technology, clock_ghz=, meta=)`` joins the counts of an engine with the
prices of a technology. The ``Report`` gives DataFrames (``layers``, ``components``, ``cycle_stack``,
``energy``), files (``to_json``, ``to_csv``, ``to_parquet``) and text (``text``); ``compare_text`` puts
several side by side; ``explain`` tells from a report's JSON where each of its constants came from.
"""

from simulator.report.document import SCHEMA_VERSION
from simulator.report.explain import explain
from simulator.report.files import write_csv, write_parquet
from simulator.report.report import META_KEYS, Report, make_report
from simulator.report.text import compare_text

__all__ = [
    "META_KEYS",
    "SCHEMA_VERSION",
    "Report",
    "compare_text",
    "explain",
    "make_report",
    "write_csv",
    "write_parquet",
]
