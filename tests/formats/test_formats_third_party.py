"""A package with formats of its own, installed as packages are: a module and its .dist-info on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.formats import dequantize, exact_integers, format_names, get_format, pack, quantize, unpack
from simulator.formats import names as names_module
from simulator.formats.element import BF16, FP16

TOY = '''
import numpy as np
from simulator.formats import Format, QuantizedTensor, value_table
from simulator.formats.element import BF16, FP16, integer

squares = value_table("squares", (0, 1, 4, 9, 0, -1, -4, -9), ties="lower")
skewed = value_table("skewed", (-1, 0, 1, 2), (-2, -1, 0, 1), step_exponent=-1)


def median(values, format_):
    """Scale: the median magnitude of a row, in FP16."""
    middle = np.median(np.abs(values), axis=1, keepdims=True)
    scales = np.maximum(middle.astype(np.float16), np.float16(2.0**-24)).astype(np.float32)
    codes = np.clip(np.rint(values / scales), -3, 3).astype(np.int8)
    return QuantizedTensor(codes, format_, scales)


formats = [
    Format("squares", squares, "tensor", scale_element=FP16),
    Format("narrow", squares, "tensor", scale_element=BF16),
    Format("skewed_g4", skewed, "group", 4, FP16, selector_bits=1),
    Format("median3", integer(3), "channel", scale_element=FP16, quantizer=median),
]
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Puts a distribution with one module, and one entry point `toy` into it, on the path."""

    def forget() -> None:
        names_module._entry_points.cache_clear()
        names_module._parse.cache_clear()

    def installer(source: str, target: str = "formats") -> None:
        module = f"toy_formats_{abs(hash(source)):x}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / "toy_formats-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-formats\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[simulator.formats]\ntoy = {module}:{target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield installer
    monkeypatch.undo()
    forget()


def test_a_table_of_another_package_is_a_format_like_ours(install: Callable[..., None]) -> None:
    install(TOY)
    assert {"squares", "skewed_g4", "median3"} < set(format_names())
    x = np.random.default_rng(0).standard_normal((3, 5, 40)).astype(np.float32)
    for name in ("squares", "SQUARES_g8", "squares_channel", "squares_g8_su4", "skewed_g4", "median3"):
        format_ = get_format(name)
        assert get_format(format_.name) == format_
        qt = quantize(x, name)
        read = unpack(pack(qt), name, x.shape)
        np.testing.assert_array_equal(dequantize(read), dequantize(qt))
        assert np.abs(dequantize(qt) - x).max() < 3
        integers, exponent = exact_integers(qt)
        assert exponent == format_.element.step_exponent
        assert set(integers.ravel().tolist()) <= set(range(-3, 4)) | {-9, -4, 4, 9}
    assert get_format("squares_g8").bits_per_value() == 3 + 16 / 8
    assert get_format("narrow_g8").scale_element == BF16
    assert get_format("narrow_g8_sfp16").scale_element == FP16
    assert get_format("narrow_g8_sfp16").name == "narrow_g8_sfp16"
    assert get_format("skewed_g4").bits_per_value() == 2 + 17 / 4


def test_its_values_and_ties_are_its_tables(install: Callable[..., None]) -> None:
    install(TOY)
    x = np.array([[9, 6.5, 6.6, 2.5, -2.5, 0.5, -0.5, 0]])
    assert dequantize(quantize(x, "squares_g8")).tolist() == [[9, 4, 9, 1, -4, 0, -1, 0]]
    chosen = quantize(np.array([[1, 0.5, 0, -0.5, -1, -0.5, 0, 0.5]]), "skewed_g4")
    assert chosen.selectors.tolist() == [[0, 1]]
    assert dequantize(chosen).tolist() == [[1, 0.5, 0, -0.5, -1, -0.5, 0, 0.5]]
    assert quantize(np.array([[1.0, -2, 4, 8, 0]]), "median3").scales.tolist() == [[2]]


def test_its_own_quantizer_stands_for_one_spelling_only(install: Callable[..., None]) -> None:
    install(TOY)
    with pytest.raises(InputError, match="no number format"):
        get_format("median3_g8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("formats = [", "formats = nothing\n["), "entry point toy.*NameError"),
        (("formats = [", "formats = 7\n["), "entry point toy.*gives no Format.*found 7"),
        (('"squares", (0, 1,', '"squares", (0,'), r"entry point toy.*InputError.*8 integers|7"),
        (('Format("squares"', 'Format("int4"'), "entry point toy.*name taken.*int4"),
        (('Format("squares"', 'Format("Squares"'), "entry point toy.*not the name of a format"),
        (('value_table("squares"', 'value_table("fp4_e2m1"'), "entry point toy.*element fp4_e2m1"),
        (('value_table("squares"', 'value_table("flint3"'), "entry point toy.*element flint3"),
        (('value_table("squares"', 'value_table("skewed"'), "entry point toy.*element skewed"),
        (("selector_bits=1", "selector_bits=0"), "entry point toy.*InputError.*2 value tables"),
        (("quantizer=median", "quantizer=3"), "entry point toy.*cannot be called"),
    ],
)
def test_a_broken_entry_point_is_named(
    install: Callable[..., None], change: tuple[str, str], message: str
) -> None:
    assert change[0] in TOY
    install(TOY.replace(*change))
    with pytest.raises(InputError, match=message):
        get_format("median3")


def test_an_entry_point_without_its_object_is_named(install: Callable[..., None]) -> None:
    install(TOY, "no_such_object")
    with pytest.raises(InputError, match=r"entry point toy.*AttributeError"):
        format_names()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("return QuantizedTensor", "return 0; QuantizedTensor"), "median3 of entry point toy.*no tensor"),
        (("codes, format_, scales)", "codes[:, 1:], format_, scales)"), "entry point toy.*no tensor"),
        (("codes, format_, scales)", "codes * 2, format_, scales)"), r"entry point toy.*codes.*-4 to 3"),
        (("codes, format_, scales)", "codes, format_)"), r"entry point toy.*scales.*shape \(2, 1\)"),
        (
            ("codes, format_, scales)", "codes, format_, scales * np.float32(1.0001))"),
            "entry point toy.*fp16",
        ),
        (("middle = np", "middle = np.nothing + np"), "entry point toy.*AttributeError"),
    ],
)
def test_a_quantizer_that_returns_something_else_is_named(
    install: Callable[..., None], change: tuple[str, str], message: str
) -> None:
    assert change[0] in TOY
    install(TOY.replace(*change))
    with pytest.raises(InputError, match=message):
        quantize(np.array([[1, -2, 4.0], [8, 0, 3]]), "median3")


def test_its_quantizer_gets_finite_values_only(install: Callable[..., None]) -> None:
    install(TOY)
    with pytest.raises(InputError, match="1 NaN among 3 values"):
        quantize(np.array([[1, np.nan, 4.0]]), "median3")
    with pytest.raises(InputError, match="Inf among the values"):
        quantize(np.array([[1, np.inf, 4.0]]), "median3")
    with pytest.raises(InputError, match="a way of its own"):
        quantize(np.ones((1, 3)), "median3", scale="mse")
