"""The units that there are: one module a family, and what is built of each unless units are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.errors import InputError, nearest
from simulator.rtl.unit import Unit
from simulator.rtl.units import bitmod, decoder, dot, lmul, lut, mixpe, part, rescale, serial, vector


@dataclass(frozen=True)
class Family:
    """Units whose names begin with one of some words."""

    words: tuple[str, ...]
    """What stands before the first hyphen; of ``dot`` a number follows."""
    unit_of_name: Callable[[str], Unit]
    """Reads a name; whether the unit is called so is compared with its own."""
    default: str
    """Names of the units that tables hold unless others are asked for."""


FAMILIES = (
    Family(("mac", "dot"), dot.unit_of_name, dot.DEFAULT),
    Family(("lmul",), lmul.unit_of_name, lmul.DEFAULT),
    Family(bitmod.WORDS, bitmod.unit_of_name, bitmod.DEFAULT),
    Family(mixpe.WORDS, mixpe.unit_of_name, mixpe.DEFAULT),
    Family(lut.WORDS, lut.unit_of_name, lut.DEFAULT),
    Family(serial.WORDS, serial.unit_of_name, serial.DEFAULT),
    Family(("part",), part.unit_of_name, part.DEFAULT),
    Family(("rescale",), rescale.unit_of_name, rescale.DEFAULT),
    Family(("decode",), decoder.unit_of_name, decoder.DEFAULT),
    Family(("vector", "output_adder"), vector.unit_of_name, vector.DEFAULT),
)


def unit_of_name(name: str) -> Unit:
    """The unit of a name: ``mac-int4xint8-int32``, ``dot32-fp8_e4m3-al24-e8m0-fp32-cut3``. Raises InputError."""
    word = name.partition("-")[0].rstrip("0123456789")
    for family in FAMILIES:
        if word in family.words:
            unit = family.unit_of_name(name)
            if any(_repeats(side) for field in name.split("-") for side in field.split("x")):
                raise InputError("names a format twice", key="--unit", value=name, allowed="each once")
            if unit.name != name:
                raise InputError("not how the unit is called", key="--unit", value=name, allowed=unit.name)
            return unit
    words = (word for family in FAMILIES for word in family.words)
    raise InputError("begins like no unit", key="--unit", value=name, allowed=nearest(word, words))


def _repeats(side: str) -> bool:
    names = side.split("+")
    return len(set(names)) < len(names)


def default_units() -> tuple[Unit, ...]:
    """What tables are made of unless units are named."""
    names = (name for family in FAMILIES for name in family.default.split())
    return tuple(unit_of_name(name) for name in dict.fromkeys(names))
