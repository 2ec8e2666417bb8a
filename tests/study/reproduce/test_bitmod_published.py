"""The published BitMoD model, beside what its released simulator printed."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.study.reproduce import reproduce
from simulator.study.reproduce.bitmod import DESIGNS, MODELS, PHASES, design_of, products, shape, simulate
from simulator.study.reproduce.claim import Claim
from simulator.workload import Gemm, load_workload

NAMES = {"facebook/opt-1.3b": "opt-1.3b", "meta-llama/Llama-2-7b-hf": "llama-2-7b"}


def _cases() -> list[dict[str, str]]:
    path = Path(__file__).parents[2] / "data" / "bitmod_cases.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def claims() -> list[Claim]:
    return reproduce("bitmod")


@pytest.mark.parametrize("row", _cases(), ids=lambda row: "-".join((*row.values(),)[:4:3]) + row["task"])
def test_cycles_traffic_and_energy_equal_the_released_simulator(row) -> None:
    case = NAMES[row["model"]], row["task"], row["accelerator"]
    totals, design = simulate(*case), design_of(case[2], *case[:2])
    assert totals.cycles == int(row["total_cycles"])
    assert totals.compute_cycles == int(row["compute_cycles"])
    assert totals.steps == int(row["tiles"])
    assert (design.weight_width_bits, design.activation_width_bits) == (
        float(row["wbuf_width_b"]),
        float(row["ibuf_width_b"]),
    )
    assert totals.energy_onchip_uj(design) == pytest.approx(float(row["e_onchip_uJ"]), abs=0.01)
    assert totals.energy_dram_uj == pytest.approx(float(row["e_dram_uJ"]), abs=0.01)
    assert totals.energy_dram_uj == pytest.approx(totals.dram_bits * 18.75e-6, rel=1e-15)


def test_every_model_phase_and_design_has_cycles_and_both_energies_under_the_exact_keys(claims) -> None:
    for claim in ("cycles", "energy_onchip_uj", "energy_total_uj"):
        cases = [tuple(row.case.items()) for row in claims if row.claim == claim]
        assert sorted(cases) == sorted(
            (("model", model), ("phase", phase), ("design", name))
            for model in MODELS
            for phase in PHASES
            for name in DESIGNS
        )


def test_published_cycles_are_met_exactly_and_energies_within_one_microjoule(claims) -> None:
    printed = [row for row in claims if row.published is not None]
    cycles = [row for row in printed if row.claim == "cycles"]
    energies = [row for row in printed if row.claim.startswith("energy_")]
    assert len(cycles) == 20
    assert len(energies) == 40
    assert all(row.ours == row.published for row in cycles)
    assert all(abs(row.ours - row.published) < 1 for row in energies)


def test_the_headline_means_over_six_models_come_out_as_printed(claims) -> None:
    """They hold for the four models, too, whose own cycles the paper does not print."""
    means = [row for row in claims if row.claim.startswith("mean_")]
    assert len(means) == 25
    speedups_and_bars = [row for row in means if row.claim != "mean_energy_reduction"]
    off = [row for row in speedups_and_bars if not row.note.startswith("Equal as printed")]
    assert [tuple(row.case.values()) for row in off] == [("olive", "both")]
    assert all(row.ratio == pytest.approx(1, abs=0.015) for row in means)


def test_cycles_a_dot_product_follow_the_whole_bits() -> None:
    serial = design_of("bitmod-lossy", "yi-6b", "prefill")
    assert [serial.cycles_per_step(bits) for bits in (8, 7, 6, 5, 4, 3)] == [4, 4, 3, 3, 2, 2]
    assert [serial.cycles_per_step(bits) for bits in (6.0625, 4.0625, 3.0625)] == [3, 2, 2]
    assert design_of("fp16", "yi-6b", "prefill").cycles_per_step(16) == 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", DESIGNS)
def test_the_later_attention_reads_the_cache_that_the_published_one_forgets(model: str, name: str) -> None:
    """The same weight widths where both releases have them: bitmod and fp16."""
    first, later = (simulate(model, "decode", name, rule) for rule in ("v1_published", "v2"))
    sizes = shape(model)
    if name in ("ant", "olive"):
        assert later.cycles != first.cycles
    else:
        bits = design_of(name, model, "decode", "v2").kv_bits
        cache = 2 * sizes.layers * 256 * sizes.kv_hidden * bits
        products = later.dram_bits - 16 * sizes.layers * (2 * sizes.hidden + 2 * sizes.heads * 256)
        linears = first.dram_bits - 16 * sizes.layers * (
            sizes.hidden + sizes.kv_heads * sizes.hidden + sizes.heads
        )
        linears -= 16 * sizes.layers * (sizes.heads * 256 + sizes.kv_hidden + sizes.heads)
        assert products - linears == cache


@pytest.mark.parametrize("model", MODELS)
def test_linear_layers_hold_every_weight_of_the_workload(model: str) -> None:
    design = design_of("fp16", model, "decode")
    *linears, _, _ = products(shape(model), design, 1, 256)
    gemms = [entry for entry in load_workload(model, prefill=2).operations if isinstance(entry, Gemm)]
    weights = sum(gemm.weights.size for gemm in gemms if gemm.weights.kind == "weights")
    assert sum(product.count * product.n * product.k for product in linears) == weights


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("opt-2b", "prefill", "fp16"), "model: .*opt-1.3b"),
        (("phi-2", "train", "fp16"), "phase: .*prefill, decode"),
        (("phi-2", "decode", "int8"), "design: .*bitmod-lossy"),
    ],
)
def test_an_unknown_word_is_refused_with_the_known_ones(words: tuple[str, str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(*words)


def test_energy_needs_a_bank_of_the_buffer_s_width() -> None:
    totals = simulate("llama-2-13b", "decode", "ant", "v2")
    with pytest.raises(InputError, match=r"bank of this width \(found 20\); allowed: 24, 32"):
        totals.energy_onchip_uj(replace(design_of("ant", "llama-2-13b", "decode", "v2"), rows=40))
