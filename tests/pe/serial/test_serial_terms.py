"""Terms of a value: what the encoders make of it, and what is published of them."""

from __future__ import annotations

from itertools import product
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from literal_replay import booth_like

from simulator.pe.serial import Recoding, booth_digits, term_counts, term_masks, widths

RECODINGS: tuple[Recoding, ...] = get_args(Recoding)


@pytest.mark.parametrize(("bits", "mean"), [(4, 1.75), (8, 819 / 256), (12, 4.6079)])
def test_pragmatics_encoder_makes_these_many_terms_of_a_uniform_value(bits: int, mean: float) -> None:
    """Computed with DNNsim's encoder."""
    assert term_counts(np.arange(2**bits), "booth_like").mean() == pytest.approx(mean, abs=5e-5)


@pytest.mark.parametrize(("bits", "mean"), [(8, 796 / 256), (12, 4.4443)])
def test_the_non_adjacent_form_has_these_many_terms(bits: int, mean: float) -> None:
    assert term_counts(np.arange(2**bits), "naf").mean() == pytest.approx(mean, abs=5e-5)


def test_pragmatics_encoder_is_not_minimal() -> None:
    more = term_counts(np.arange(256), "booth_like") - term_counts(np.arange(256), "naf")
    assert np.count_nonzero(more) == 22
    assert (more[27], more[219], more.max(), more.min()) == (1, 2, 2, 0)


def test_radix4_booth_makes_three_digits_of_a_uniform_int8() -> None:
    """A digit is zero for 2 of the 8 windows of three bits."""
    digits = booth_digits(np.arange(-128, 128), 8)
    assert (digits != 0).sum(axis=-1).mean() == 3.0
    assert (digits != 0).sum(axis=-1).max() == 4


@given(st.integers(-(2**15), 2**15 - 1))
def test_booth_digits_add_up_to_their_value(value: int) -> None:
    digits = booth_digits(np.array(value), 16)
    assert digits.shape == (8,)
    assert sum(int(digit) * 4**i for i, digit in enumerate(digits)) == value
    assert np.count_nonzero(digits) == term_counts(np.array(value), "radix4_booth")


def test_pragmatics_encoder_scans_from_the_top() -> None:
    values = np.arange(2**15)
    assert term_masks(values, "booth_like").tolist() == [booth_like(value) for value in range(2**15)]


@pytest.mark.parametrize("recoding", RECODINGS)
def test_every_value_is_the_sum_of_its_signed_terms(recoding: Recoding) -> None:
    for value, mask in enumerate(term_masks(np.arange(256), recoding).tolist()):
        terms = [1 << bit for bit in range(10) if mask >> bit & 1]
        assert any(
            sum(sign * term for sign, term in zip(signs, terms, strict=True)) == value
            for signs in product((1, -1), repeat=len(terms))
        )


@pytest.mark.parametrize("recoding", RECODINGS)
@given(value=st.integers(-(2**15), 2**16 - 1))
def test_no_recoding_beats_the_non_adjacent_form(value: int, recoding: Recoding) -> None:
    assert term_counts(np.array(value), recoding) >= term_counts(np.array(value), "naf")


@given(st.integers(-(2**15), 2**16 - 1))
def test_terms_are_bounded(value: int) -> None:
    """Essential bits by the value's bits, Pragmatic's terms by the essential bits, Booth digits by half the bits."""
    x = np.array(value)
    essential = term_counts(x)
    assert essential == abs(value).bit_count() <= abs(value).bit_length()
    assert term_counts(x, "booth_like") <= essential
    assert term_counts(x, "radix4_booth") <= (value.bit_length() + 2) // 2


@given(st.integers(-(2**15), 2**15 - 1))
def test_a_width_holds_its_value(value: int) -> None:
    bits = int(widths(np.array(value), signed=True))
    assert -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
    assert bits == 2 or not -(2 ** (bits - 2)) <= value < 2 ** (bits - 2)
    if value >= 0:
        assert bits == widths(np.array(value), signed=False) + 1


def test_zero_has_a_width_of_one_and_a_sign() -> None:
    assert widths(np.array([0, -1, 1, -128, 255]), signed=True).tolist() == [2, 2, 2, 8, 9]
    assert widths(np.array([0, 1, 2, 255]), signed=False).tolist() == [1, 1, 2, 8]
