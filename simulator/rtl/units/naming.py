"""What names of units have in common."""

from __future__ import annotations

from pydantic import ValidationError

from simulator.errors import InputError


def refused(error: ValueError, name: str) -> InputError:
    """That a name of the right form is no unit's, and why."""
    if isinstance(error, InputError):
        where, reason, allowed = error.key, error.problem, error.allowed
    elif isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        where, allowed = ".".join(map(str, fault["loc"])), None
        reason = fault["msg"].removeprefix("Value error, ")
    else:
        where, reason, allowed = None, str(error).splitlines()[-1].strip(), None
    reason = f"{where}: {reason}" if where and where not in reason else reason
    return InputError(f"no such unit: {reason}", key="--unit", value=name, allowed=allowed)
