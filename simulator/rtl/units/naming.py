"""What names of units have in common."""

from __future__ import annotations

from simulator.errors import InputError


def refused(error: ValueError, name: str) -> InputError:
    """That a name of the right form is no unit's, and why."""
    reason = error.problem if isinstance(error, InputError) else str(error).splitlines()[-1].strip()
    allowed = error.allowed if isinstance(error, InputError) else None
    return InputError(f"no such unit: {reason}", key="--unit", value=name, allowed=allowed)
