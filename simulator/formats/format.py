"""The descriptor of a number format: an element, where its scales sit, and what all of it costs in bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from simulator.errors import InputError
from simulator.formats.element import Array, Element, Floats, decode, decode_integers
from simulator.units import ceil_div

Granularity = Literal["none", "tensor", "channel", "token", "group", "block"]


@dataclass(frozen=True)
class Format:
    """How a (rows, k) tensor is written: rows*k element codes, and scales along K.

    ``value = (element value - zero point) * scale * tensor scale``, whichever of them there are.
    """

    name: str
    """The one canonical spelling; `get_format` reads it back."""
    element: Element
    granularity: Granularity = "none"
    """Which values share a scale: all (`tensor`), a row (`channel` of weights, `token` of activations), or
    `group_size` neighbours along K (`group`: a scale of its own; `block`: a shared exponent, or two
    levels)."""
    group_size: int = 0
    """Elements along K that share one scale; 0 where the scale is per tensor or per row, or absent."""
    scale_element: Element | None = None
    """The format in which a scale is stored; None: no scale, values are cast."""
    tensor_scale_element: Element | None = None
    """The format of the second-level scale, one a tensor (NVFP4: FP32)."""
    has_zero_point: bool = False
    """Asymmetric: all codes are used and an integer zero point of `code_bits` bits is stored with each
    scale."""
    selector_bits: int = 0
    """Bits that choose among the value tables of a format that has several, stored with each scale."""

    def __post_init__(self) -> None:
        grouped = self.granularity in ("group", "block")
        if grouped != (self.group_size > 0):
            raise InputError(
                f"group size of a {self.granularity} format", key=self.name, value=self.group_size
            )
        if (self.granularity == "none") != (self.scale_element is None):
            raise InputError(
                "a format has a scale exactly where it has a granularity of scales", key=self.name
            )
        if self.has_zero_point and (not self.is_integer or self.scale_element is None):
            raise InputError("a zero point needs an integer element and a scale", key=self.name)
        if self.tensor_scale_element is not None and not grouped:
            raise InputError("a second-level scale needs groups or blocks below it", key=self.name)

    @property
    def code_bits(self) -> int:
        """Bits of one stored element code."""
        return self.element.bits

    @property
    def is_integer(self) -> bool:
        """Element codes are integers, so that an integer MAC takes them."""
        return self.element.is_integer

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """numpy type of the codes: signed for signed integers, else unsigned bit patterns."""
        return self.element.dtype

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code that quantization to an integer element produces, both included."""
        top = self.element.max_code
        if not self.is_integer:
            raise InputError(
                "has floating-point codes; a code range is a matter of integers", value=self.name
            )
        if self.element.kind == "uint":
            return 0, top
        return (-top - 1 if self.has_zero_point else -top), top

    @property
    def scale_bits(self) -> int:
        """Metadata bits that go with one scale: itself, its zero point and its selector."""
        scale = 0 if self.scale_element is None else self.scale_element.bits
        return scale + (self.code_bits if self.has_zero_point else 0) + self.selector_bits

    @property
    def group_bits(self) -> int:
        """Metadata bits per group or block; 0 without groups."""
        return self.scale_bits if self.granularity in ("group", "block") else 0

    @property
    def row_bits(self) -> int:
        """Metadata bits per row (channel or token); 0 without."""
        return self.scale_bits if self.granularity in ("channel", "token") else 0

    @property
    def tensor_bits(self) -> int:
        """Metadata bits per tensor."""
        second = 0 if self.tensor_scale_element is None else self.tensor_scale_element.bits
        return second + (self.scale_bits if self.granularity == "tensor" else 0)

    def groups(self, k: int) -> int:
        """Scales along a row of `k` elements: the last group may be short. 1 where the scale is per row or
        tensor."""
        return ceil_div(k, self.group_size) if self.group_size else 1

    def padded_k(self, k: int) -> int:
        """`k` rounded up to whole groups."""
        return self.groups(k) * self.group_size if self.group_size else k

    def storage_bits(self, rows: int, k: int, *, pad: bool = False) -> int:
        """Exact bits of a (rows, k) tensor with all metadata; `pad`: short last groups are stored in full."""
        if rows < 0 or k < 0:
            raise InputError("a tensor has no negative extent", value=(rows, k))
        elements = rows * (self.padded_k(k) if pad else k) * self.code_bits
        return elements + rows * (self.groups(k) * self.group_bits + self.row_bits) + self.tensor_bits

    def bits_per_value(self, k: int | None = None, rows: int | None = None) -> float:
        """Bits per value with metadata.

        Without `k`, groups are whole and what is stored per row or per tensor is spread over infinitely many
        values. With `k`, the short last group and the row's metadata count; with `rows` too, the tensor's.
        """
        if k is None:
            return self.code_bits + (self.group_bits / self.group_size if self.group_size else 0.0)
        if k < 1 or (rows is not None and rows < 1):
            raise InputError("bits per value need at least one value", value=(rows, k))
        if rows is None:
            return (self.storage_bits(1, k) - self.tensor_bits) / k
        return self.storage_bits(rows, k) / (rows * k)

    def element_values(self, codes: Array) -> Floats:
        """Exact value of each code before any scale, float64; the zero point is not subtracted."""
        return decode(self.element, np.asarray(codes))

    def element_integers(self, codes: Array) -> tuple[Array, int]:
        """(integers, exponent) with value == integer * 2**exponent, exact; see `decode_integers`."""
        return decode_integers(self.element, np.asarray(codes))
