"""The descriptor of a number format: an element, where its scales sit, and what all of it costs in bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simulator.errors import InputError
from simulator.formats.element import Array, Element, Floats, decode, decode_integers, integer
from simulator.units import ceil_div

if TYPE_CHECKING:
    from simulator.formats.tensor import QuantizedTensor

Granularity = Literal["none", "tensor", "channel", "token", "group", "block"]
ScaleRule = Literal["floor", "ceil", "even"]
Quantizer = Callable[[Floats, "Format"], "QuantizedTensor"]
"""A format's own way to write values: it gets finite float32 or float64 (rows, k) and the format, and returns their
`QuantizedTensor`. Rows must not depend on each other, unless there is one scale a tensor: it may get some at a time."""


@dataclass(frozen=True)
class Format:
    """How a (rows, k) tensor is written: rows*k element codes, and scales along K.

    ``value = (element value - zero point) * scale * row scale * tensor scale``, whichever of them there are.
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
    row_scale_element: Element | None = None
    """The format of the second-level scale, one a row (VS-Quant, BitMoD: FP16 above integer group scales)."""
    has_zero_point: bool = False
    """Asymmetric: all codes are used and an integer zero point of `code_bits` bits is stored with each
    scale."""
    selector_bits: int = 0
    """Bits that choose among the value tables of an element that has several, stored with each scale, or for
    every `selector_group` elements."""
    selector_group: int = 0
    """Elements along K that share one selector, where that is not the group of the scale; 0 where it is."""
    scale_rule: ScaleRule = "floor"
    """How `quantize` finds a shared exponent unless told otherwise; see `shared_exponent`."""
    scale_limits: tuple[float, float] | None = None
    """Scales before they are stored are clamped to this interval (BitMoD)."""
    quantizer: Quantizer | None = field(default=None, repr=False, compare=False)
    """Another way than `quantize`'s own to find codes and scales: BitNet's mean, QServe's two steps, BBS's
    pruning. See `Quantizer`."""

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
        second_levels = (self.tensor_scale_element, self.row_scale_element)
        if any(second_levels) and not grouped:
            raise InputError("a second-level scale needs groups or blocks below it", key=self.name)
        if all(second_levels):
            raise InputError("a second-level scale is one a tensor or one a row, not both", key=self.name)
        if self.selector_group and (self.granularity not in ("channel", "token") or not self.selector_bits):
            raise InputError("groups of selectors alone are for scales one a row", key=self.name)
        if self.selector_bits and self.granularity in ("none", "tensor"):
            raise InputError("selectors are chosen for a group or a row", key=self.name)
        tables = len(self.element.tables)
        if (tables > 1) != (self.selector_bits > 0) or tables > 1 << self.selector_bits:
            raise InputError(
                f"{self.selector_bits} selector bits",
                key=self.name,
                value=f"{tables} value tables of its element",
            )
        if self.quantizer is None and not all(map(any, self.element.tables)):
            raise InputError("a value table of zeros alone gives no scale", key=self.name)

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
        selector = 0 if self.selector_group else self.selector_bits
        return scale + (self.code_bits if self.has_zero_point else 0) + selector

    @property
    def group_bits(self) -> int:
        """Metadata bits per group or block; 0 without groups."""
        return self.scale_bits if self.granularity in ("group", "block") else 0

    @property
    def metadata_group(self) -> int:
        """Elements along K that share metadata, of scales or of selectors alone; 0 without groups."""
        return self.group_size or self.selector_group

    @property
    def metadata_bits(self) -> int:
        """Bits of metadata for each `metadata_group`; 0 without."""
        return self.selector_bits if self.selector_group else self.group_bits

    @property
    def row_bits(self) -> int:
        """Metadata bits per row (channel or token), selectors of its groups not included; 0 without."""
        second = 0 if self.row_scale_element is None else self.row_scale_element.bits
        return second + (self.scale_bits if self.granularity in ("channel", "token") else 0)

    @property
    def tensor_bits(self) -> int:
        """Metadata bits per tensor."""
        second = 0 if self.tensor_scale_element is None else self.tensor_scale_element.bits
        return second + (self.scale_bits if self.granularity == "tensor" else 0)

    def groups(self, k: int) -> int:
        """Scales along a row of `k` elements: the last group may be short. 1 where the scale is per row or
        tensor."""
        return ceil_div(k, self.group_size) if self.group_size else 1

    def selectors(self, k: int) -> int:
        """Selectors along a row of `k` elements; 0 for a format without."""
        if not self.selector_bits:
            return 0
        return ceil_div(k, self.selector_group) if self.selector_group else self.groups(k)

    def padded_k(self, k: int) -> int:
        """`k` rounded up to whole groups (of scales or selectors)."""
        size = self.metadata_group
        return ceil_div(k, size) * size if size else k

    def storage_bits(self, rows: int, k: int, *, pad: bool = False) -> int:
        """Exact bits of a (rows, k) tensor with all metadata; `pad`: short last groups are stored in full."""
        if rows < 0 or k < 0:
            raise InputError("a tensor has no negative extent", value=(rows, k))
        elements = rows * (self.padded_k(k) if pad else k) * self.code_bits
        groups = ceil_div(k, self.metadata_group) if self.metadata_group else 0
        return elements + rows * (groups * self.metadata_bits + self.row_bits) + self.tensor_bits

    def bits_per_value(self, k: int | None = None, rows: int | None = None) -> float:
        """Bits per value with metadata.

        Without `k`, groups are whole and what is stored per row or per tensor is spread over infinitely many
        values. With `k`, the short last group and the row's metadata count; with `rows` too, the tensor's.
        """
        if k is None:
            shared = self.metadata_bits / self.metadata_group if self.metadata_group else 0.0
            return self.code_bits + shared
        if k < 1 or (rows is not None and rows < 1):
            raise InputError("bits per value need at least one value", value=(rows, k))
        if rows is None:
            return (self.storage_bits(1, k) - self.tensor_bits) / k
        return self.storage_bits(rows, k) / (rows * k)

    def fields(self, shape: tuple[int, ...]) -> Iterator[tuple[str, Element, tuple[int, ...]]]:
        """(name, element, shape) of what a `QuantizedTensor` with codes of this shape holds, in stored order."""
        scale_shape = () if self.granularity == "tensor" else (*shape[:-1], self.groups(shape[-1]))
        yield "codes", self.element, shape
        if self.scale_element is not None:
            yield "scales", self.scale_element, scale_shape
        if self.has_zero_point:
            yield "zero_points", self.element, scale_shape
        if self.selector_bits:
            selectors = (*shape[:-1], self.selectors(shape[-1]))
            yield "selectors", integer(self.selector_bits, signed=False), selectors
        if self.row_scale_element is not None:
            yield "row_scales", self.row_scale_element, (*shape[:-1], 1)
        if self.tensor_scale_element is not None:
            yield "tensor_scale", self.tensor_scale_element, ()

    def element_values(self, codes: Array, selectors: Array | None = None) -> Floats:
        """Exact value of each code (..., k) before any scale, float64; the zero point is not subtracted.

        `selectors`, one a group or row, for an element that has several value tables.
        """
        codes = np.asarray(codes)
        return decode(self.element, codes, self._per_code(selectors, codes))

    def element_integers(self, codes: Array, selectors: Array | None = None) -> tuple[Array, int]:
        """(integers, exponent) with value == integer * 2**exponent, exact; see `decode_integers`."""
        codes = np.asarray(codes)
        return decode_integers(self.element, codes, self._per_code(selectors, codes))

    def _per_code(self, selectors: Array | None, codes: Array) -> Array | None:
        """Selectors (..., groups) repeated for each code (..., k) of their groups."""
        if selectors is None:
            return None
        k = codes.shape[-1]
        if np.shape(selectors) != (*codes.shape[:-1], self.selectors(k)):
            raise InputError(
                f"selectors of {self.name} codes {codes.shape}",
                value=np.shape(selectors),
                allowed=f"shape {(*codes.shape[:-1], self.selectors(k))}",
            )
        return np.repeat(selectors, self.metadata_group or max(k, 1), axis=-1)[..., :k]
