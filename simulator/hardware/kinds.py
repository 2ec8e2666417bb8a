"""The circuits that cost tables may price: their parameters, events, and growth with width.

A table holds points (an 8 x 8 and a 32 x 32 multiplier). Any other width is read off a curve through the two
nearest points; of multipliers and multiplexers, where a table surrounds a width by points, off lines in one parameter
and then in the other. Which curve is a property of the circuit, not of a technology, so it stands here:

=============== ============================= ========================================= =============
kind            parameters                    size                                      curve
=============== ============================= ========================================= =============
int_multiplier  a_bits, b_bits                a_bits * b_bits                           power law
int_adder       bits                          bits                                      straight line
fp_multiplier   exponent_bits,                significand_bits^2 + 3 * exponent_bits    power law
                significand_bits
fp_adder        exponent_bits,                significand_bits * log2(significand_bits) power law
                significand_bits              + 4 * exponent_bits
register        bits                          bits                                      proportional
comparator      bits                          bits                                      proportional
shifter         bits                          bits * log2(bits)                         proportional
multiplexer     inputs, bits                  (inputs - 1) * bits                       proportional
wire            bits, length_um               bits * length_um                          proportional
=============== ============================= ========================================= =============

``significand_bits`` includes the hidden bit: FP16 is (5, 11), FP32 is (8, 24). An array multiplier has
a_bits * b_bits cells, an adder one cell a bit, a shifter log2(bits) ranks of multiplexers, a multiplexer of n inputs
is a tree of n - 1 with two; a floating-point multiplier is dominated by the multiplier of its significands, a
floating-point adder by the shifters that align and normalise. The weights of the exponent's bits, and that lines join
points of the others well, were found on synthesised parts (docs/rtl.md).

Kinds that are not listed here may have rows too (a whole unit, a part of one's own); they are priced by
exact rows only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from simulator.errors import InputError
from simulator.hardware.structure import Param


@dataclass(frozen=True)
class Growth:
    """Cost as a curve over ``size`` through the nearest two points."""

    curve: Literal["power", "line", "proportional"]
    """``proportional``: a line, through nothing at size 0 where there is one point only."""
    formula: str
    """The size in words of the parameters, as reports print it."""
    size: Callable[[Mapping[str, int]], float]
    axes: tuple[str, ...] = ()
    """Two parameters in each of which cost is a line while the other stays: points that surround are joined so."""


@dataclass(frozen=True)
class Kind:
    """A circuit known to the cost model."""

    params: tuple[str, ...]
    events: tuple[str, ...]
    growth: Growth | None = None
    commutative: bool = False
    """The parameters may be exchanged: an 8 x 4 multiplier is a 4 x 8 one."""
    optional: tuple[str, ...] = ()
    silicon: bool = True
    """False where area and leakage are no part of the accelerator (DRAM)."""


def _ranks(params: Mapping[str, int], name: str) -> float:
    return params[name] * math.log2(params[name])


_OPERATE = ("operate",)
_FLOATING = ("exponent_bits", "significand_bits")
_BITS = Growth("proportional", "bits", lambda p: p["bits"])

KINDS: dict[str, Kind] = {
    "int_multiplier": Kind(
        ("a_bits", "b_bits"),
        _OPERATE,
        Growth("power", "a_bits*b_bits", lambda p: p["a_bits"] * p["b_bits"], ("a_bits", "b_bits")),
        commutative=True,
    ),
    "int_adder": Kind(("bits",), _OPERATE, Growth("line", "bits", lambda p: p["bits"])),
    "fp_multiplier": Kind(
        _FLOATING,
        _OPERATE,
        Growth(
            "power",
            "significand_bits^2 + 3*exponent_bits",
            lambda p: p["significand_bits"] ** 2 + 3 * p["exponent_bits"],
        ),
    ),
    "fp_adder": Kind(
        _FLOATING,
        _OPERATE,
        Growth(
            "power",
            "significand_bits*log2(significand_bits) + 4*exponent_bits",
            lambda p: _ranks(p, "significand_bits") + 4 * p["exponent_bits"],
        ),
    ),
    "register": Kind(("bits",), ("write", "clock"), _BITS),
    "comparator": Kind(("bits",), _OPERATE, _BITS),
    "shifter": Kind(
        ("bits",), _OPERATE, Growth("proportional", "bits*log2(bits)", lambda p: _ranks(p, "bits"))
    ),
    "multiplexer": Kind(
        ("inputs", "bits"),
        _OPERATE,
        Growth(
            "proportional", "(inputs-1)*bits", lambda p: (p["inputs"] - 1) * p["bits"], ("inputs", "bits")
        ),
    ),
    "sram": Kind(("bytes", "width_bits"), ("read", "write"), optional=("banks", "ports")),
    "sram_macro": Kind(("words", "width_bits", "ports", "cell"), ("read", "write")),
    "sram_reference": Kind(("words", "width_bits", "ports"), ("read", "write")),
    "register_file": Kind(("words", "width_bits"), ("read", "write")),
    "wire": Kind(
        ("bits", "length_um"),
        ("transfer",),
        Growth("proportional", "bits*length_um", lambda p: p["bits"] * p["length_um"]),
        silicon=False,
    ),
    "dram": Kind(("device",), ("read_bit", "write_bit"), silicon=False),
}
"""``register``: "write" stores ``bits`` new bits, "clock" is a clock edge that stores nothing new. ``sram``
is a memory as an accelerator sees it, ``sram_macro`` one compiled macro, of which memories are built,
``sram_reference`` a macro of the process itself, by which macros of another node are scaled (see ``sram_scaling``).
``register_file`` has a port that reads and one that writes (see ``register_file``). ``wire``: "transfer" moves ``bits``
of random data over ``length_um``.
"""

TEXT_PARAMS = ("ports", "cell", "device")
"""Parameters that are names; all others of a known kind are whole numbers from 1."""


def check_params(kind: str, params: Mapping[str, Param]) -> None:
    """Raises InputError where ``params`` are not those of a known ``kind``; other kinds may have any."""
    known = KINDS.get(kind)
    if known is None:
        return
    allowed = known.params + known.optional
    for name, value in params.items():
        if name not in allowed:
            raise InputError(
                f"{kind} has no such parameter", key=name, value=value, allowed=", ".join(allowed)
            )
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if name not in TEXT_PARAMS and not whole:
            raise InputError(f"{kind} needs a whole number from 1", key=name, value=value)
    for name in known.params:
        if name not in params:
            raise InputError(f"{kind} needs this parameter", key=name)
