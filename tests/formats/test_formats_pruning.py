"""Pruned bit columns: equal to the released simulator's weights, and to a second implementation written here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulator.errors import InputError
from simulator.formats import dequantize, exact_integers, get_format, pack, quantize, unpack
from simulator.formats.element import decode
from simulator.formats.pruning import OFFSETS, best_offset, best_offset_kernel, element_of, prune

GOLDEN = np.load(Path(__file__).parent / "data" / "pruned_weights.npz")
METHODS = ("bitflip", "bbs_avg", "bbs_zp")
groups = hnp.arrays(
    np.int64,
    st.tuples(st.integers(1, 3), st.integers(1, 19)),
    elements=st.one_of(st.integers(-127, 127), st.integers(-9, 9)),
)


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["uni8", "lap8"])
def test_pruned_weights_are_those_of_the_released_simulator(name: str, method: str, columns: int) -> None:
    pruned = prune(GOLDEN[f"{name}/weights"], method, columns)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pruned.weights, GOLDEN[f"{name}/{method}{columns}"])


def columns_of(word: int) -> list[int]:
    """Bits of a byte, the highest first."""
    return [word >> (7 - i) & 1 for i in range(8)]


def round_ties_down(value: int, multiple: int) -> int:
    below = value // multiple * multiple
    return below if value - below <= below + multiple - value else below + multiple


def flipped(group: list[int], n: int) -> list[int]:
    planes = [columns_of(abs(w)) for w in group]
    p, t = 8 - n, 1
    for i in range(1, 8):
        if i < p and not any(plane[i] for plane in planes):
            p, t = p + 1, i + 1
    if p >= 8:
        return group
    top, step = 2 ** (8 - t), 2 ** (8 - p)
    magnitudes = [abs(w) // top * top + min(round_ties_down(abs(w) % top, step), top - step) for w in group]
    return [-m if w < 0 else m for m, w in zip(magnitudes, group, strict=True)]


def averaged(group: list[int], n: int) -> list[int]:
    planes = [columns_of(w % 256) for w in group]
    r = 0
    while r < 3 and all(plane[r + 1] == plane[0] for plane in planes):
        r += 1
    if r >= n:
        return group
    step = 2 ** (n - r)
    mean = round(Fraction(sum(w % step for w in group), len(group)))  # Python's round: half to even
    return [w // step * step + mean for w in group]


def shifted(group: list[int], n: int) -> list[int]:
    tried = []
    for offset in range(-16, 16):
        moved = [min(max(w + offset, -127), 127) for w in group]
        r = 7 - max(abs(s) for s in moved).bit_length()
        step = 2 ** max(n - r, 0)
        top = 2 ** (7 - r) - step
        rounded = [min(round_ties_down(abs(s), step), top) * (-1 if s < 0 else 1) for s in moved]
        tried.append([s - offset for s in rounded])
    errors = [sum((a - b) ** 2 for a, b in zip(found, group, strict=True)) for found in tried]
    return tried[errors.index(min(errors))]


ORACLES = {"bitflip": flipped, "bbs_avg": averaged, "bbs_zp": shifted}


@settings(max_examples=60, deadline=None)
@given(
    weights=groups, method=st.sampled_from(METHODS), columns=st.integers(1, 6), size=st.sampled_from([4, 8])
)
def test_groups_of_any_size_equal_a_second_implementation(
    weights: np.ndarray, method: str, columns: int, size: int
) -> None:
    found = prune(weights, method, columns, size)  # type: ignore[arg-type]
    for row, ours in zip(weights.tolist(), found.weights.tolist(), strict=True):
        expected = [w for g in range(0, len(row), size) for w in ORACLES[method](row[g : g + size], columns)]
        assert ours == expected


@settings(max_examples=60, deadline=None)
@given(weights=groups, method=st.sampled_from(METHODS), columns=st.integers(1, 6))
def test_a_weight_is_known_from_its_bits_and_its_groups_byte(
    weights: np.ndarray, method: str, columns: int
) -> None:
    found = prune(weights, method, columns, 8)  # type: ignore[arg-type]
    element = element_of(method, columns)  # type: ignore[arg-type]
    assert found.codes.min() >= 0
    assert found.codes.max() < 2 ** (8 - columns)
    assert 0 <= found.selectors.min() <= found.selectors.max() < 256
    chosen = np.repeat(found.selectors, 8, axis=1)[:, : weights.shape[1]]
    np.testing.assert_array_equal(decode(element, found.codes, chosen), found.weights)


@settings(max_examples=60, deadline=None)
@given(weights=groups, columns=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_half_of_a_group_adds_up_to_any_of_its_columns(weights: np.ndarray, columns: int, seed: int) -> None:
    """BBS, MICRO 2024: sum of a b = sum of a - sum of a (1 - b), whichever of b and 1 - b has fewer ones; and the
    group's constant times the sum of a."""
    activations = np.random.default_rng(seed).integers(-128, 128, weights.shape[1])
    found = prune(weights, "bbs_avg", columns, 8)
    element = element_of("bbs_avg", columns)
    for row, stored in enumerate(found.codes):
        for group, first in enumerate(range(0, len(stored), 8)):
            a, codes = activations[first : first + 8], stored[first : first + 8].astype(int)
            places = [0, *(1 << place for place in range(8 - columns))]
            selectors = np.full(len(places), found.selectors[row, group])
            constant, *of_bits = decode(element, np.array(places), selectors)
            total = constant * a.sum()
            for place, worth in enumerate(of_bits):
                bits = codes >> place & 1
                invert = 2 * bits.sum() > len(bits)
                added = (1 - bits if invert else bits).astype(bool)
                assert 2 * added.sum() <= len(bits)
                part = a.sum() - a[added].sum() if invert else a[added].sum()
                total += (worth - constant) * part
            assert total == (a * found.weights[row, first : first + 8]).sum()


@settings(max_examples=30, deadline=None)
@given(weights=groups, columns=st.integers(1, 6))
def test_the_compiled_search_finds_the_same_constant(weights: np.ndarray, columns: int) -> None:
    of_groups = weights[:, None, :]
    numbers = np.full(of_groups.shape[:2], -1)
    best_offset_kernel(of_groups, columns, OFFSETS.start, OFFSETS.stop, numbers)
    np.testing.assert_array_equal(numbers, best_offset(of_groups, columns))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("columns", "bits"), [(2, 6.25), (4, 4.25)])
def test_storage_is_what_is_left_of_eight_columns_and_a_byte_a_group(
    method: str, columns: int, bits: float
) -> None:
    format_ = get_format(f"{method}{columns}")
    assert format_.name == f"{method}{columns}_g32"
    assert format_.bits_per_value() == bits
    assert format_.storage_bits(2, 70) == 2 * (70 * (8 - columns) + 3 * 8 + 16)
    x = np.random.default_rng(0).standard_normal((2, 70)).astype(np.float32)
    assert len(pack(quantize(x, format_))) * 8 == format_.storage_bits(2, 70)


@pytest.mark.parametrize("method", METHODS)
def test_the_format_is_pruned_int8_of_rows(method: str) -> None:
    x = np.random.default_rng(1).laplace(size=(3, 5, 100)).astype(np.float32)
    name = f"{method}3_g16"
    qt, int8 = quantize(x, name), quantize(x, "int8_channel")
    np.testing.assert_array_equal(qt.scales, int8.scales)
    integers, exponent = exact_integers(qt)
    expected = prune(int8.codes.reshape(15, 100), method, 3, 16).weights  # type: ignore[arg-type]
    assert exponent == 0
    np.testing.assert_array_equal(integers.reshape(15, 100), expected)
    np.testing.assert_array_equal(dequantize(unpack(pack(qt), name, x.shape)), dequantize(qt))
    np.testing.assert_array_equal(
        dequantize(qt, np.float64), integers * np.float64(qt.scales.astype(np.float64))
    )
    padded = quantize(x, name, pad=True)
    assert padded.codes.shape == (3, 5, 112)
    assert padded.selectors.shape == qt.selectors.shape == (3, 5, 7)


def test_error_grows_with_the_columns_pruned() -> None:
    weights = GOLDEN["uni8/weights"].astype(int)
    for method in METHODS:
        errors = [np.square(prune(weights, method, n).weights - weights).mean() for n in range(1, 7)]  # type: ignore[arg-type]
        assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("weights", "columns", "message"),
    [([[1, 128]], 2, "-127 to 127"), ([[1, 2]], 0, "1 to 6"), ([[1, 2]], 7, "1 to 6")],
)
def test_what_cannot_be_pruned_is_refused(weights: list[list[int]], columns: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune(np.array(weights), "bbs_avg", columns)


@pytest.mark.parametrize("name", ["bbs_avg2_channel", "bbs_zp4_asym", "bitflip2_su4", "bbs_avg2_b32"])
def test_only_the_group_can_be_named(name: str) -> None:
    with pytest.raises(InputError, match="scales of its own"):
        get_format(name)
