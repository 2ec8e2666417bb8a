"""Parallel-prefix adders: carries by a tree, for units that are built for a tight clock.

The tree is Sklansky's ("Conditional-sum addition logic", IRE Trans. Electronic Computers EC-9, 1960): fewest levels,
and of the trees with fewest levels the one with fewest nodes; fan-out is the library's buffers' business.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import C, Cat, Module, Value

from simulator.rtl.parts import named


def add(m: Module, a: Value, b: Value, carry: Value | None = None) -> Value:
    """a + b + carry of two numbers of one width, (width + 1,)."""
    generate, alive, differ = _digits(m, a, b)
    if carry is not None:
        generate, alive = [carry, *generate], [C(0, 1), *alive]
    carries, _ = _scan(m, generate, alive)
    into = carries if carry is not None else [C(0, 1), *carries]
    return named(m, Cat(differ, C(0, 1)) ^ Cat(*into), "sum")


def add_both(m: Module, a: Value, b: Value) -> tuple[Value, Value]:
    """(a + b, a + b + 1) of two numbers of one width, modulo 2**width: one tree, two rows of XOR gates."""
    generate, alive, differ = _digits(m, a, b)
    carries, through = _scan(m, generate, alive)
    with_one = [c | t for c, t in zip(carries, through, strict=True)]
    return (
        named(m, differ ^ Cat(C(0, 1), *carries[:-1]), "sum"),
        named(m, differ ^ Cat(C(1, 1), *with_one[:-1]), "next"),
    )


def increment(m: Module, a: Value) -> Value:
    """a + 1, modulo 2**width."""
    return named(m, a ^ Cat(C(1, 1), *ones_up_to(m, a)[:-1]), "next")


def ones_up_to(m: Module, a: Value) -> list[Value]:
    """Of each bit: whether it and all below it are ones."""
    _, through = _scan(m, [C(0, 1)] * len(a), list(a))
    return through


def greater(m: Module, a: Value, b: Value) -> Value:
    """a > b, of two unsigned numbers of one width."""
    level = [(named(m, x & ~y, "above"), named(m, x | ~y, "alike")) for x, y in zip(a, b, strict=True)]
    while len(level) > 1:
        pairs = [
            (named(m, high | (alike & low), "above"), named(m, alike & low_alike, "alike"))
            for (low, low_alike), (high, alike) in zip(level[::2], level[1::2], strict=False)
        ]
        level = pairs + level[len(pairs) * 2 :]
    return level[0][0]


def _digits(m: Module, a: Value, b: Value) -> tuple[list[Value], list[Value], Value]:
    """(carries that digits generate, whether they let one through, sums without carries)."""
    generate = [named(m, x & y, "generate") for x, y in zip(a, b, strict=True)]
    alive = [named(m, x | y, "alive") for x, y in zip(a, b, strict=True)]
    return generate, alive, named(m, a ^ b, "differ")


def _scan(m: Module, generate: Sequence[Value], alive: Sequence[Value]) -> tuple[list[Value], list[Value]]:
    """Of the digits up to each: (a carry comes out, a carry would go through)."""
    carries, through = list(generate), list(alive)
    block = 1
    while block < len(carries):
        for place in range(len(carries)):
            if place & block:
                below = place // block * block - 1
                carries[place] = named(m, carries[place] | (through[place] & carries[below]), "carry")
                through[place] = named(m, through[place] & through[below], "through")
        block *= 2
    return carries, through
