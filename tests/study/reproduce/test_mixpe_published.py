"""The array that ANT's and MixPE's simulators share, beside ANT's own counts; MixPE's normalised times."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from simulator.study.reproduce import reproduce
from simulator.study.reproduce.bitfusion import FusionArray
from simulator.study.reproduce.mixpe import array_of, cycles, layers

Gemms = list[tuple[int, int, int]]


def _vgg16() -> Gemms:
    """(pixels, k, n) of Simonyan & Zisserman's configuration D on 224 x 224 images."""
    out: Gemms = []
    side, channels = 224, 3
    for stage in ([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3):
        for width in stage:
            out.append((side * side, 9 * channels, width))
            channels = width
        side //= 2
    return [*out, (1, 25088, 4096), (1, 4096, 4096), (1, 4096, 1000)]


def _resnet50() -> Gemms:
    """The same of He et al.'s ResNet-50 with the stride on the 3 x 3 convolution."""
    out: Gemms = [(112 * 112, 49 * 3, 64)]
    side, channels = 56, 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            to = side // 2 if stage and not block else side
            out += [
                (side * side, channels, width),
                (to * to, 9 * width, width),
                (to * to, width, 4 * width),
            ]
            out += [(to * to, channels, 4 * width)] if not block else []
            side, channels = to, 4 * width
    return [*out, (1, 2048, 1000)]


NETWORKS = {"vgg16": _vgg16(), "resnet50": _resnet50()}


def _cases() -> list[dict[str, str]]:
    """Accelerators whose widths do not depend on the layer, but for the first and last of OLAccel."""
    path = Path(__file__).parents[2] / "data" / "ant_cases.csv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["accelerator"] in ("OLAccel", "BiScaled", "AdaFloat")]


@pytest.mark.parametrize("row", _cases(), ids=lambda row: f"{row['accelerator']}-{row['network']}")
def test_array_cycles_equal_those_of_ant_s_model(row) -> None:
    gemms, batch = NETWORKS[row["network"]], int(row["batch"])
    assert len(gemms) == int(row["layers"])
    assert batch * sum(m * k * n for m, k, n in gemms) == int(row["macs"])
    array = FusionArray(int(row["N"]), int(row["M"]), int(row["pmax"]), int(row["pmin"]))
    widths = [{"OLAccel": 4, "BiScaled": 6, "AdaFloat": 8}[row["accelerator"]]] * len(gemms)
    if row["accelerator"] == "OLAccel":
        widths[0] = widths[-1] = 8
    total = sum(
        array.cycles(batch * m, k, n, weight_bits=bits, activation_bits=bits)
        for (m, k, n), bits in zip(gemms, widths, strict=True)
    )
    if (row["accelerator"], row["network"]) == ("AdaFloat", "vgg16"):
        # ANT's search tiles a layer there, and a tile's edge idles
        assert total == pytest.approx(int(row["compute_cycles"]), rel=1e-4)
        assert total < int(row["compute_cycles"])
    else:
        assert total == int(row["compute_cycles"])


@pytest.mark.parametrize(
    ("network", "design", "normalized"),
    [
        (network, design, value)
        for network in ("opt-6.7b", "llama-2-13b")
        for design, value in (("mixpe-w4a8", 0.10), ("int8", 0.87), ("mixpe-w4a16", 0.19))
    ],
)
def test_the_described_layers_give_mixpe_s_times(network: str, design: str, normalized: float) -> None:
    assert round(cycles(network, design) / cycles(network, "fp16"), 2) == normalized


def test_ant_and_bitfusion_are_told_to_differ() -> None:
    told = {tuple(claim.case.values()): claim for claim in reproduce("mixpe")}
    ant, bitfusion = told["opt-6.7b", "ant"], told["opt-6.7b", "bitfusion"]
    assert round(ant.ours, 3) == 0.290
    assert round(bitfusion.ours, 3) == 0.700
    assert ant.note.startswith("Differs")
    assert bitfusion.note.startswith("Differs")


def test_ant_s_released_time_follows_from_a_second_dequantization_layer() -> None:
    array = array_of("ant")

    def layer(k: int, n: int, bits: int) -> int:
        return array.cycles(64, k, n, weight_bits=bits, activation_bits=bits)

    block = sum(
        layer(k, n, 4) + layer(k, n // 8, 8) + layer(k, n // 8, 8) + layer(k, n // 64, 8)
        for k, n in layers("opt-6.7b")
    )
    assert round(32 * block / cycles("opt-6.7b", "fp16"), 3) == 0.399


def test_half_of_the_gain_is_that_64_tokens_fill_the_rows() -> None:
    """With 32 tokens every array makes one pass, and MixPE's rows stand half empty."""
    wide, narrow = array_of("mixpe-w4a8"), array_of("fp16")
    ratio = [
        wide.cycles(m, 4096, 3584, weight_bits=4, activation_bits=4)
        / narrow.cycles(m, 4096, 3584, weight_bits=16, activation_bits=16)
        for m in (28, 56)
    ]
    assert ratio[0] == 2 * ratio[1]
