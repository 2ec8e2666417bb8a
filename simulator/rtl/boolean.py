"""Boolean expressions of Liberty files (``function``, ``when``) as truth tables.

Operators, from the strongest: ``!a`` and ``a'``; ``a ^ b``; ``a * b``, ``a & b``, ``a b``; ``a + b``, ``a | b``.
Source: Synopsys, Liberty User Guide, vol. 1, "function".
"""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(r"\s*([A-Za-z_][\w.]*(?:\[\d+\])?|[01]|[!'^*&+|()~])")


class BooleanError(ValueError):
    """The text is no expression over the given variables."""


@lru_cache(maxsize=65536)
def truth_table(text: str, variables: tuple[str, ...]) -> tuple[bool, ...]:
    """(2**n,) values of the expression; bit i of the index is variable i. Raises BooleanError."""
    states = 1 << len(variables)
    everything = (1 << states) - 1
    columns = {
        name: sum(1 << state for state in range(states) if state >> place & 1)
        for place, name in enumerate(variables)
    }
    value = _Reader(text, columns, everything).read()
    return tuple(bool(value >> state & 1) for state in range(states))


class _Reader:
    """Recursive descent; a value is a bit mask over all states of the variables."""

    def __init__(self, text: str, columns: dict[str, int], everything: int) -> None:
        self._tokens: list[str] = []
        self._columns = columns
        self._everything = everything
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise BooleanError(f"not understood from {text[position:]!r}")
            self._tokens.append(match.group(1))
            position = match.end()
        self._at = 0

    def read(self) -> int:
        value = self._sum()
        if self._next:
            raise BooleanError(f"not expected: {self._next!r}")
        return value

    @property
    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next
        self._at += 1
        return token

    def _sum(self) -> int:
        value = self._product()
        while self._next in ("+", "|"):
            self._take()
            value |= self._product()
        return value

    def _product(self) -> int:
        value = self._difference()
        while self._next and self._next not in "+|)^":
            if self._next in "*&":
                self._take()
            value &= self._difference()
        return value

    def _difference(self) -> int:
        value = self._factor()
        while self._next == "^":
            self._take()
            value ^= self._factor()
        return value

    def _factor(self) -> int:
        token = self._take()
        if token in ("!", "~"):
            return self._factor() ^ self._everything
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise BooleanError("a parenthesis is not closed")
        elif token in self._columns:
            value = self._columns[token]
        elif token in ("0", "1"):
            value = self._everything * int(token)
        else:
            raise BooleanError(f"{token!r} is no pin" if token else "ends too early")
        while self._next == "'":
            self._take()
            value ^= self._everything
        return value
