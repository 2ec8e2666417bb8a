"""The version of the installed package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


@cache
def version() -> str:
    """Of the installed distribution; "0+source" when run from a checkout that is not installed."""
    try:
        return installed("quantized-accelerator-simulator")
    except PackageNotFoundError:
        return "0+source"
