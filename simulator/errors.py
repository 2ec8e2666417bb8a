"""The one error that bad input raises; the command line turns it into one message and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user wrote cannot be used.

    The message is complete in itself: the file (when there is one), the dotted key path, the value that was found
    and what is allowed. Program errors are never reported this way.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object | None = None,
        key: str | None = None,
        value: object | None = None,
        allowed: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.key = key
        self.value = value
        self.allowed = allowed
        where = "".join(f"{part}: " for part in (self.file, key) if part)
        found = "" if value is None else f" (found {shorten(value)})"
        hint = "" if allowed is None else f"; allowed: {allowed}"
        super().__init__(f"{where}{problem}{found}{hint}")

    def within(self, file: object) -> InputError:
        """The same error, naming the file in which the value was found."""
        return InputError(self.problem, file=file, key=self.key, value=self.value, allowed=self.allowed)


def shorten(value: object, limit: int = 80) -> str:
    """``repr`` of a value a user wrote, cut to ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """'a, b, c': the known names most like ``name``; all of them where few, the first ones where none is like it."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=count, cutoff=0.4)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def one_line(text: str) -> str:
    """Text that may hold what a stranger wrote, fit for one line of a terminal: no control character stays in it."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
