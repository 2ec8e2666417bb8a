"""Names of formats, and the bits their descriptors account for."""

from __future__ import annotations

import importlib.metadata
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.formats import Element, Format, format_names, get_format
from simulator.formats import names as names_module
from simulator.formats.element import FP16, integer, minifloat, value_table

PLAIN = [
    *(f"int{bits}" for bits in range(2, 17)),
    *(f"uint{bits}" for bits in range(2, 17)),
    "fp8_e4m3",
    "fp8_e5m2",
    "fp6_e2m3",
    "fp6_e3m2",
    "fp4_e2m1",
    "e3m4",
    "e2m5",
    "e4m3",
    "e8m7",
    "e4m0",
    "e3m4ieee",
]
BLOCKS = [
    "mxfp8_e4m3",
    "mxfp8_e5m2",
    "mxfp6_e3m2",
    "mxfp6_e2m3",
    "mxfp4",
    "mxint8",
    "mxint6",
    "mxint4",
    "mxe3m4",
    "nvfp4",
    "nvint4",
    "nvfp8_e4m3",
    "bfp1",
    "bfp7",
    "bfp15",
    "msfp12",
    "msfp16",
]
SUFFIXES = ["", "_g1", "_g128", "_channel", "_token", "_tensor"]


@pytest.mark.parametrize(
    "name",
    [
        *format_names(),
        *(base + suffix for base, suffix in product(PLAIN, SUFFIXES)),
        *(f"int{bits}{suffix}_asym" for bits, suffix in product((2, 4, 8, 16), SUFFIXES)),
        *(f"{base}_b{size}" for base, size in product(BLOCKS, (8, 16, 32))),
    ],
)
def test_a_canonical_name_reads_back_as_the_same_format(name: str) -> None:
    found = get_format(name)
    assert get_format(found.name) == found
    assert get_format(found.name).name == found.name
    assert hash(get_format(found.name)) == hash(found)
    assert get_format(name.upper()) is get_format(name.upper())
    assert get_format(name.upper()) == found


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("INT4-G128", "int4_g128"),
        (" mxfp4 ", "mxfp4"),
        ("fp4", "fp4_e2m1"),
        ("e2m1", "fp4_e2m1"),
        ("e2m3_g32", "fp6_e2m3_g32"),
        ("fp8_e3m4", "e3m4"),
        ("e5m2ieee", "fp8_e5m2"),
        ("e5m10ieee", "fp16"),
        ("e8m7ieee", "bf16"),
        ("float8_e4m3fn", "fp8_e4m3"),
        ("int8_tensor", "int8"),
        ("int8_tensor_asym", "int8_asym"),
        ("int4_g0128", "int4_g128"),
        ("mxfp4_b32", "mxfp4"),
        ("mxfp4_e2m1", "mxfp4"),
        ("nvfp4_b16", "nvfp4"),
        ("bfp3_b16", "msfp12"),
        ("msfp12_b16", "msfp12"),
        ("msfp12_b32", "bfp3_b32"),
        ("bfp8_b16", "bfp8_b16"),
        ("half", "fp16"),
        ("bfloat16", "bf16"),
        ("float32", "fp32"),
    ],
)
def test_an_alias_resolves_to_the_canonical_name(spelling: str, canonical: str) -> None:
    assert get_format(spelling).name == canonical


def test_two_names_never_mean_one_format_and_one_name_never_two() -> None:
    found = {name: get_format(name) for name in format_names()}
    assert all(found[name].name == name for name in found)
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int1", "int16"),
        ("int17", "int16"),
        ("mxfp8", "mxfp8_e"),
        ("nvpf4", "nvfp4"),
        ("itn4_g128", "int4_g128"),
        ("int4_b32", "no block format; allowed: a plain integer or float takes _g<N>"),
        ("mxfp4_g32", "_b<N> after it"),
        ("mxfp4_channel", "_b<N> after it"),
        ("mxint8_asym", "_b<N> after it"),
        ("fp16_g128", "without a suffix"),
        ("bf16_asym", "without a suffix"),
        ("e3m4_asym", "no integer zero point"),
        ("bfp3", "needs a block size"),
        ("int4_g0", "1 to 1048576"),
        ("int4_g9999999999999999", "1 to 1048576"),
        ("e9m3", ""),
        ("e1m1ieee", ""),
        ("e8m8", ""),
        ("e1m0", ""),
        ("fp8_e3m2", ""),
        ("int4_g128_channel", ""),
        ("int4_asym_g128", ""),
        ("int4__g128", ""),
        ("mxfp16", ""),
        ("mxuint4", ""),
        ("int04", ""),
        ("", "bf16"),
    ],
)
def test_a_wrong_name_is_refused_with_what_is_allowed(name: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        get_format(name)
    assert message in str(refused.value)
    assert "allowed: " in str(refused.value)


@pytest.mark.parametrize("name", [None, 4, b"int4", ["int4"], {"name": "int4"}])
def test_what_is_no_string_is_no_name(name: object) -> None:
    with pytest.raises(InputError, match="named by a string"):
        get_format(name)  # type: ignore[arg-type]


PIECES = [
    "int",
    "uint",
    "fp",
    "mx",
    "nv",
    "bfp",
    "e",
    "m",
    "_g",
    "_b",
    "_",
    "asym",
    "ieee",
    "4",
    "8",
    "128",
    "0",
    "٣",
]


@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
@example("\0")
@example("int4_g128\n")
@example("x" * 10_000)
@example("int²")
def test_any_string_gives_a_format_or_an_input_error(name: str) -> None:
    try:
        found = get_format(name)
    except InputError as error:
        message = str(error)
    else:
        assert get_format(found.name) == found
        return
    assert "allowed: " in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "rows", "k", "bits"),
    [
        ("int8", 10, 100, 10 * 100 * 8 + 16),
        ("int8_asym", 10, 100, 10 * 100 * 8 + 24),
        ("int8_channel", 10, 100, 10 * (100 * 8 + 16)),
        ("int8_token_asym", 10, 100, 10 * (100 * 8 + 24)),
        ("int4_g128", 10, 256, 10 * (256 * 4 + 2 * 16)),
        ("int4_g128", 10, 257, 10 * (257 * 4 + 3 * 16)),
        ("int4_g128_asym", 10, 256, 10 * (256 * 4 + 2 * 20)),
        ("fp16", 10, 100, 10 * 100 * 16),
        ("mxfp4", 10, 64, 10 * (64 * 4 + 2 * 8)),
        ("mxint8", 10, 64, 10 * (64 * 8 + 2 * 8)),
        ("nvfp4", 10, 64, 10 * (64 * 4 + 4 * 8) + 32),
        ("msfp12", 10, 64, 10 * (64 * 4 + 4 * 8)),
        ("nvfp4", 0, 64, 32),
    ],
)
def test_storage_counts_codes_and_all_metadata(name: str, rows: int, k: int, bits: int) -> None:
    assert get_format(name).storage_bits(rows, k) == bits


def test_padding_stores_the_last_group_in_full() -> None:
    assert get_format("mxfp4").storage_bits(3, 33, pad=True) == get_format("mxfp4").storage_bits(3, 64)
    assert get_format("int8_channel").storage_bits(3, 33, pad=True) == get_format(
        "int8_channel"
    ).storage_bits(3, 33)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("mxfp8_e4m3", 8.25),
        ("mxfp6_e3m2", 6.25),
        ("mxfp4", 4.25),
        ("mxint8", 8.25),
        ("nvfp4", 4.5),
        ("nvint4", 4.5),
        ("int4_g128", 4.125),
        ("int4_g128_asym", 4.15625),
        ("int8_channel", 8.0),
        ("fp16", 16.0),
        ("msfp12", 4.5),
    ],
)
def test_bits_per_value_are_the_published_ones(name: str, bits: float) -> None:
    assert get_format(name).bits_per_value() == bits


def test_bits_per_value_of_a_real_shape_count_rows_and_tensor() -> None:
    channel, nvfp4 = get_format("int4_channel"), get_format("nvfp4")
    assert channel.bits_per_value(64) == 4 + 16 / 64
    assert nvfp4.bits_per_value(40) == 4 + 3 * 8 / 40
    assert nvfp4.bits_per_value(40, rows=2) == 4 + 3 * 8 / 40 + 32 / 80


def test_descriptor_says_what_a_processing_element_asks() -> None:
    mxint8, asymmetric, nvfp4 = get_format("mxint8"), get_format("int4_g128_asym"), get_format("nvfp4")
    assert (mxint8.is_integer, mxint8.group_size, mxint8.group_bits, mxint8.granularity) == (
        True,
        32,
        8,
        "block",
    )
    assert (asymmetric.has_zero_point, asymmetric.code_range, asymmetric.granularity) == (
        True,
        (-8, 7),
        "group",
    )
    assert (nvfp4.is_integer, nvfp4.tensor_bits, nvfp4.code_bits) == (False, 32, 4)
    assert get_format("uint4").code_range == (0, 15)
    assert get_format("int4").code_range == (-7, 7)
    assert get_format("int8_token").row_bits == 16
    assert get_format(mxint8) is mxint8


def test_selectors_count_among_the_metadata_of_a_group() -> None:
    chosen = Format(
        "chosen", value_table("chosen", (-1, 1), (-2, 1), (-1, 2)), "group", 128, FP16, selector_bits=2
    )
    assert chosen.group_bits == 18
    assert chosen.storage_bits(1, 128) == 128 + 18


class _Entry:
    """An entry point, as installed distributions declare them."""

    def __init__(self, name: str, loaded: object) -> None:
        self.name, self.loaded = name, loaded

    def load(self) -> object:
        return self.loaded


def _install(monkeypatch: pytest.MonkeyPatch, *entries: _Entry) -> None:
    def entry_points(*, group: str) -> list[_Entry]:
        assert group == "simulator.formats"
        return list(entries)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    names_module._entry_points.cache_clear()


@pytest.fixture
def _forget_third_party() -> object:
    yield
    names_module._entry_points.cache_clear()
    names_module._parse.cache_clear()


@pytest.mark.usefixtures("_forget_third_party")
def test_an_entry_point_adds_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Format("vsq4", Element("int4", "int", 4), "group", 16, integer(6, signed=False))
    narrow = Format("vsq3", Element("int3", "int", 3), "group", 16, integer(6, signed=False))
    _install(monkeypatch, _Entry("vsq", (wide, narrow)))
    assert get_format("VSQ4") is wide
    assert {"vsq4", "vsq3"} < set(format_names())


@pytest.mark.usefixtures("_forget_third_party")
@pytest.mark.parametrize("taken", [Format("int8", integer(8)), Format("Upper", integer(8)), "int8", 3])
def test_an_entry_point_may_not_take_a_built_in_name_or_give_something_else(
    monkeypatch: pytest.MonkeyPatch, taken: object
) -> None:
    _install(monkeypatch, _Entry("broken", taken))
    with pytest.raises(InputError, match="entry point broken"):
        get_format("no_such_format")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"granularity": "group", "scale_element": FP16}, "group size"),
        ({"granularity": "tensor", "group_size": 4, "scale_element": FP16}, "group size"),
        ({"granularity": "tensor"}, "exactly where"),
        ({"scale_element": FP16}, "exactly where"),
        (
            {
                "element": minifloat(2, 1),
                "granularity": "tensor",
                "scale_element": FP16,
                "has_zero_point": True,
            },
            "zero",
        ),
        ({"granularity": "tensor", "scale_element": FP16, "tensor_scale_element": FP16}, "second-level"),
    ],
)
def test_a_descriptor_that_contradicts_itself_is_refused(
    description: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Format(**({"name": "wrong", "element": integer(4)} | description))  # type: ignore[arg-type]
