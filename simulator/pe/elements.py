"""The elements that a PE's lists of operand formats name, and the width of what multiplies them."""

from __future__ import annotations

import re
from dataclasses import replace

from simulator.formats import Format, get_format
from simulator.formats.element import Element, sign_magnitude


def element_format(name: str) -> Format:
    """The bare element called ``name``: a format's, or ``s<M>``, block floating point's sign and M bits of magnitude.

    An element with several value tables keeps its groups, whose selectors choose among them. Raises InputError: no
    number format of this name.
    """
    magnitude = re.fullmatch("s([1-9][0-9]?)", name)
    if magnitude:
        return Format(name, sign_magnitude(int(magnitude.group(1))))
    format = get_format(name)
    if format.selector_bits:
        return replace(format, name=format.element.name)
    return Format(format.element.name, format.element)


def significand_bits(element: Element) -> int:
    """Bits of the significand of a magnitude: an integer's in full, a table's largest, 1 of a power of two."""
    if element.kind == "table":
        return max(abs(value) for table in element.tables for value in table).bit_length()
    if element.is_integer:
        return element.bits - (element.kind != "uint")
    return element.mantissa_bits + 1
