"""The bytes that memory really holds: `pack` and `unpack`.

A packed tensor is one string of bits, six fields without gaps, in this order:

    codes          rows * k of code_bits, row by row, K fastest
    scales         one a group (row by row), a row or the tensor, in their stored format
    zero points    one a scale, code_bits each, coded as the elements are
    selectors      one a scale or a group of their own, selector_bits each
    row scales     one a row
    tensor scale   one

Bit order is little-endian throughout: the first value begins at bit 0 of byte 0, a value's lowest bit comes
first, a byte fills from its lowest bit. So two INT4 codes a, b share a byte as ``a | b << 4``. Signed
integers are in two's complement, block floating point in sign and magnitude. The string is `storage_bits`
long, zero bits fill its last byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.element import Array, codes_of_patterns, decode, encode, patterns
from simulator.formats.format import Format
from simulator.formats.names import get_format
from simulator.formats.tensor import QuantizedTensor
from simulator.units import BITS_PER_BYTE, ceil_div

CHUNK = 2**16
"""Values that are shifted into place at a time, a multiple of 8."""

SCALES = ("scales", "row_scales", "tensor_scale")
"""Fields that `QuantizedTensor` holds by value and memory by code."""


def pack(tensor: QuantizedTensor) -> bytes:
    """The tensor as memory holds it, ceil(storage_bits / 8) bytes; its format and shape are not in them."""
    format_ = tensor.format
    buffer = np.zeros(ceil_div(tensor.storage_bits, BITS_PER_BYTE), np.uint8)
    offset = 0
    tensor.check()
    for name, element, _ in format_.fields(tensor.codes.shape):
        values = np.asarray(getattr(tensor, name)).reshape(-1)
        for start in range(0, values.size, CHUNK):
            part = values[start : start + CHUNK]
            codes = encode(element, part) if name in SCALES else part
            _put(buffer, offset + start * element.bits, element.bits, patterns(element, codes))
        offset += values.size * element.bits
    return buffer.tobytes()


def unpack(
    data: bytes, format_: Format | str, shape: tuple[int, ...], *, pad: bool = False
) -> QuantizedTensor:
    """The tensor of this format and original shape (..., rows, k) that `pack` wrote; `pad` as in
    `quantize`."""
    target = get_format(format_)
    k = shape[-1]
    code_shape = (*shape[:-1], target.padded_k(k) if pad else k)
    bits = target.storage_bits(prod(shape[:-1]), code_shape[-1])
    if len(data) != ceil_div(bits, BITS_PER_BYTE):
        raise InputError(
            f"{target.name} tensor of shape {shape}",
            value=f"{len(data)} bytes",
            allowed=f"{bits} bits, in whole bytes",
        )
    buffer = np.frombuffer(data, np.uint8)
    offset = 0
    found: dict[str, Array] = {}
    for name, element, field_shape in target.fields(code_shape):
        count = prod(field_shape)
        values = np.empty(count, np.float32 if name in SCALES else element.dtype)
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            codes = codes_of_patterns(
                element, _get(buffer, offset + start * element.bits, element.bits, size)
            )
            values[start : start + size] = decode(element, codes) if values.dtype == np.float32 else codes
        found[name] = values.reshape(field_shape)
        offset += count * element.bits
    second = found.get("tensor_scale")
    zeros = found.get("zero_points")
    return QuantizedTensor(
        found["codes"],
        target,
        found.get("scales"),
        None if zeros is None else zeros.astype(np.int32),
        found.get("selectors"),
        None if second is None else np.float32(second),
        found.get("row_scales"),
        k,
    )


def _lanes(offset: int, width: int, count: int) -> Iterator[tuple[slice, int, list[slice]]]:
    """Values 8 apart lie `width` bytes apart: for each of the 8 lanes, which values, their shift in the first
    byte, and the strided bytes that hold them, lowest first."""
    for lane in range(min(8, count)):
        first, shift = divmod(offset + lane * width, BITS_PER_BYTE)
        members = ceil_div(count - lane, 8)
        spanned = range(first, first + ceil_div(shift + width, BITS_PER_BYTE))
        yield (
            slice(lane, None, 8),
            shift,
            [slice(byte, byte + (members - 1) * width + 1, width) for byte in spanned],
        )


def _put(buffer: npt.NDArray[np.uint8], offset: int, width: int, values: npt.NDArray[np.uint64]) -> None:
    """Write `values` of `width` bits from bit `offset` on, into bits that are 0."""
    for members, shift, places in _lanes(offset, width, values.size):
        shifted = values[members] << np.uint64(shift)
        for byte, place in enumerate(places):
            buffer[place] |= (shifted >> np.uint64(BITS_PER_BYTE * byte)).astype(np.uint8)


def _get(buffer: npt.NDArray[np.uint8], offset: int, width: int, count: int) -> npt.NDArray[np.uint64]:
    """Read `count` values of `width` bits from bit `offset` on."""
    values = np.empty(count, np.uint64)
    for members, shift, places in _lanes(offset, width, count):
        shifted = np.zeros(values[members].size, np.uint64)
        for byte, place in enumerate(places):
            shifted |= buffer[place].astype(np.uint64) << np.uint64(BITS_PER_BYTE * byte)
        values[members] = (shifted >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    return values
