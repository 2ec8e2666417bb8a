"""Packed tensors: their size is the accounted one, their layout the documented one, and they read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.errors import InputError
from simulator.formats import (
    Format,
    QuantizedTensor,
    format_names,
    get_format,
    pack,
    packing,
    quantize,
    unpack,
)
from simulator.formats.element import FP16, integer, value_table

FIELDS = ("codes", "scales", "zero_points", "selectors", "row_scales", "tensor_scale")


def assert_same_tensor(a: QuantizedTensor, b: QuantizedTensor) -> None:
    assert (a.format, a.shape) == (b.format, b.shape)
    for field in FIELDS:
        ours, theirs = getattr(a, field), getattr(b, field)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


NAMES = [
    *format_names(),
    "bitmod_fp3_g7",
    "flint5_g8_su4",
    "int3_g9_si5_asym",
    "pot3_token",
    "int5_g24_asym",
    "int7_channel_asym",
    "e2m2_g3",
    "uint11_token_asym",
    "mxe1m3_b5",
]


@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=25),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    name=st.sampled_from(NAMES),
    pad=st.booleans(),
)
def test_a_packed_tensor_reads_back_and_has_the_size_its_format_accounts_for(
    x: np.ndarray, name: str, pad: bool
) -> None:
    qt = quantize(x, name, pad=pad)
    data = pack(qt)
    rows = int(np.prod(x.shape[:-1]))
    bits = get_format(name).storage_bits(rows, x.shape[-1], pad=pad)
    assert len(data) == -(-bits // 8)
    assert int.from_bytes(data, "little") < 2**bits
    assert_same_tensor(unpack(data, name, x.shape, pad=pad), qt)


def test_nan_scales_read_back() -> None:
    x = np.ones((2, 64), np.float32)
    x[1, 3] = np.nan
    data = pack(quantize(x, "mxfp4"))
    assert data[-4:] == bytes([125, 125, 0xFF, 125])
    assert np.isnan(unpack(data, "mxfp4", x.shape).scales[1, 0])


def test_the_first_value_is_in_the_lowest_bits() -> None:
    codes = np.array([[1, -2, 7]], np.int8)
    qt = QuantizedTensor(codes, get_format("int4_g128"), np.array([[0.5]], np.float32))
    half = int(np.float16(0.5).view(np.uint16))
    assert int.from_bytes(pack(qt), "little") == 0x1 | 0xE << 4 | 0x7 << 8 | half << 12


def test_six_bit_codes_follow_each_other_without_gaps() -> None:
    codes = np.array([[0b000001, 0b100010, 0b111111, 0b010101, 0b000011]], np.uint8)
    qt = QuantizedTensor(codes, get_format("mxfp6_e3m2"), np.array([[1.0]], np.float32))
    word = sum(int(code) << 6 * i for i, code in enumerate(codes[0]))
    assert int.from_bytes(pack(qt), "little") == word | 127 << 30


def test_block_floating_point_is_stored_in_sign_and_magnitude() -> None:
    qt = QuantizedTensor(np.array([[-3, 3]], np.int8), get_format("msfp12"), np.array([[2.0]], np.float32))
    assert int.from_bytes(pack(qt), "little") == 0b1011 | 0b0011 << 4 | 128 << 8


def test_selectors_are_stored_after_the_zero_points() -> None:
    element = value_table("chosen", *([tuple(range(n, n + 16)) for n in range(4)]))
    chosen = Format("chosen", element, "group", 4, FP16, selector_bits=2)
    codes = np.arange(10, dtype=np.uint8).reshape(1, 10)
    scales = np.array([[1.0, 2.0, 0.25]], np.float32)
    qt = QuantizedTensor(codes, chosen, scales, selectors=np.array([[1, 3, 2]], np.uint8))
    data = pack(qt)
    assert len(data) * 8 >= chosen.storage_bits(1, 10) == 10 * 4 + 3 * 18
    assert int.from_bytes(data, "little") >> (10 * 4 + 3 * 16) == 1 | 3 << 2 | 2 << 4
    assert_same_tensor(unpack(data, chosen, (1, 10)), qt)


def test_large_tensors_are_packed_in_chunks_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    qt = quantize(np.random.default_rng(0).standard_normal((7, 301)).astype(np.float32), "int5_g3_asym")
    whole = pack(qt)
    monkeypatch.setattr(packing, "CHUNK", 8)
    assert pack(qt) == whole
    assert_same_tensor(unpack(whole, qt.format, qt.shape), qt)


def test_bytes_of_another_size_are_refused() -> None:
    data = pack(quantize(np.ones((2, 9), np.float32), "int4"))
    with pytest.raises(InputError, match=r"int4 tensor of shape \(2, 10\).*11 bytes.*96 bits"):
        unpack(data, "int4", (2, 10))


@pytest.mark.parametrize("scales", [None, np.ones((2, 2), np.float32)])
def test_metadata_of_the_wrong_shape_are_refused(scales: np.ndarray | None) -> None:
    qt = QuantizedTensor(np.zeros((2, 9), np.int8), Format("x", integer(4), "group", 4, FP16), scales)
    with pytest.raises(InputError, match=r"scales of a x tensor.*\(2, 3\)"):
        pack(qt)
