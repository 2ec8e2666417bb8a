"""BitMoD's published evaluation: cycles and energy of five accelerators on six language models.

Chen et al., "BitMoD: Bit-serial Mixture-of-Datatype LLM Acceleration", HPCA 2025, section V, and its released
simulator. This is that simulator's convention, not our engine: a layer takes the longer of its array cycles and its
DRAM cycles; nothing fills or drains, nothing else takes time. Every linear layer, lm_head included, sees all tokens.

    array cycles  ceil(K / lanes) * ceil(N / rows) * ceil(T / cols) * L,  L = ceil(floor(weight bits) / 2) bit-serial
    DRAM cycles   floor(bits / bus); rows of a matrix start on a byte; where neither operand fits its buffer, the one
                  that costs less is fetched again for every buffer load of the other

``attention_model`` says what the two products of attention are:

``v1_published``  what the published figures contain. Each is one product over all heads: it charges the stored
                  operand once for every key head at the whole hidden width, takes the linear layers' L, and in decode
                  reads no cache of keys and values. The released source does not show it; the rule was inferred from
                  the published numbers, all of which it gives.
``v2``            the later release: one product a key head, keys and values of ``kv_bits`` in DRAM and in L. The paper
                  does not print its results. Whether its refetch rule looks at all heads or at one was not at hand;
                  here at all.

Energy: every PE is charged on array cycles and none on stalls; both buffers are read once for each step of the array
(L is not counted), written in words of 64 bits; DRAM costs the same to read and to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from statistics import fmean
from typing import Any, Literal

from simulator.errors import InputError
from simulator.report import Report
from simulator.study.reproduce.claim import Claim, compare, unpublished
from simulator.study.reproduce.figures import read_figures
from simulator.study.run import run
from simulator.workload import load_workload

AttentionModel = Literal["v1_published", "v2"]

MODELS = ("opt-1.3b", "phi-2", "yi-6b", "llama-2-7b", "llama-2-13b", "llama-3-8b")
PHASES = ("prefill", "decode")
DESIGNS = ("fp16", "ant", "olive", "bitmod-lossless", "bitmod-lossy")
FULL_MODEL_WEIGHTS = {
    ("bitmod-lossless", "prefill"): "int6_g128_si8",
    ("bitmod-lossless", "decode"): "int6_g128_si8",
    ("bitmod-lossy", "prefill"): "bitmod_fp4_g128",
    ("bitmod-lossy", "decode"): "bitmod_fp3_g128",
}
FULL_MODEL_TECHNOLOGY = "bitmod_28nm"
FULL_MODEL_KV = "int8"
"""The paper quantizes keys and values, since its PE has one floating-point operand only."""
FFN_MATRICES = {"llama": 3, "opt": 2, "phi": 2}
"""By family: a gated block has one more."""
TASKS = ("discriminative", "generative")


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder-only transformer."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    ffn_matrices: int
    vocab: int

    @property
    def kv_hidden(self) -> int:
        return self.hidden // self.heads * self.kv_heads


@dataclass(frozen=True)
class Design:
    """An accelerator in one phase: an array of ``rows`` (output channels) x ``cols`` (tokens) PEs."""

    rows: int
    cols: int
    lanes: int
    bit_serial: bool
    pe_energy_pj: float
    weight_bits: float
    kv_bits: int

    def cycles_per_step(self, bits: float) -> int:
        """L: cycles of one dot product of ``lanes`` weights of ``bits``; fractions of a bit cost no cycle."""
        return ceil(int(bits) / 2) if self.bit_serial else 1

    @property
    def weight_width_bits(self) -> int:
        """Word of the weight buffer: a weight takes a multiple of 4 bits; two cycles a word when bit-serial."""
        return self.lanes * ceil(self.weight_bits / 4) * 4 * self.rows // (2 if self.bit_serial else 1)

    @property
    def activation_width_bits(self) -> int:
        bits = read_figures("bitmod_model").whole("activation_bits")
        return self.lanes * bits * self.cols // (2 if self.bit_serial else 1)


@dataclass(frozen=True)
class Product:
    """``count`` products (tokens, k) x (n, k), as the convention charges them."""

    count: int
    n: int
    k: int
    tokens: int
    stored_bits: float
    """Of an element of the (n, k) operand in DRAM."""
    input_rows: int
    input_k: int
    step_bits: float
    """Width that decides L."""
    batch: int = 1
    """Heads that are one after the other on the array, and together in DRAM."""


@dataclass(frozen=True)
class Totals:
    """A phase of a model on a design."""

    cycles: int
    compute_cycles: int
    steps: int
    weight_words: int
    activation_words: int
    dram_bits: float

    def energy_onchip_uj(self, design: Design) -> float:
        """PEs and both buffers. Raises InputError: no energy was published for banks of this width."""
        model = read_figures("bitmod_model")
        banks = model.whole("buffer_banks")
        word = model.value("write_width_bits")
        weight_width, activation_width = design.weight_width_bits, design.activation_width_bits

        def access(kind: str, width: int) -> float:
            bank = model.get(f"bank_{kind}_pj", width_bits=width // banks)
            if bank is None:
                known = ", ".join(str(row.case["width_bits"]) for row in model.named(f"bank_{kind}_pj"))
                raise InputError(
                    "no energy of a buffer bank of this width", value=width // banks, allowed=known
                )
            return float(banks * bank.value)

        pe = model.value("layout_factor") * design.pe_energy_pj * design.rows * design.cols
        read = access("read", weight_width) + access("read", activation_width)
        write_weight = access("write", weight_width) * word / weight_width
        write_activation = access("write", activation_width) * word / activation_width
        return 1e-6 * (
            pe * self.compute_cycles
            + read * self.steps
            + write_weight * self.weight_words
            + write_activation * self.activation_words
        )

    @property
    def energy_dram_uj(self) -> float:
        return 1e-6 * self.dram_bits * read_figures("bitmod_model").value("dram_energy_pj_per_bit")


@lru_cache(maxsize=64)
def shape(model: str) -> Shape:
    """Sizes of one of `MODELS`, as its shipped workload has them."""
    sizes = load_workload(model, prefill=1).config["model"]
    return Shape(
        hidden=sizes["hidden"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        kv_heads=sizes.get("kv_heads", sizes["heads"]),
        intermediate=sizes["intermediate"],
        ffn_matrices=FFN_MATRICES[sizes["family"]],
        vocab=sizes["vocab"],
    )


@lru_cache(maxsize=256)
def design_of(name: str, model: str, phase: str, attention_model: AttentionModel = "v1_published") -> Design:
    """One of `DESIGNS` as it runs ``model`` in ``phase``."""
    figures = read_figures("bitmod_model")
    return Design(
        rows=figures.whole("rows", design=name, phase=phase),
        cols=figures.whole("cols", design=name, phase=phase),
        lanes=figures.whole("pe_lanes", design=name),
        bit_serial=bool(figures.value("bit_serial", design=name)),
        pe_energy_pj=figures.value("pe_energy_pj", design=name),
        weight_bits=figures.value(
            "weight_bits", model=model, design=name, phase=phase, attention_model=attention_model
        ),
        kv_bits=figures.whole("kv_bits", design=name, attention_model=attention_model),
    )


def products(
    sizes: Shape, design: Design, tokens: int, context: int, attention_model: AttentionModel = "v1_published"
) -> Iterator[Product]:
    """All products of one pass over ``tokens`` tokens with ``context`` keys."""
    hidden, kv_hidden, ffn = sizes.hidden, sizes.kv_hidden, sizes.intermediate
    up = sizes.ffn_matrices - 1
    linears = [
        (2 * sizes.layers, hidden, hidden),
        (2 * sizes.layers, kv_hidden, hidden),
        (up * sizes.layers, ffn, hidden),
        (sizes.layers, hidden, ffn),
        (1, sizes.vocab, hidden),
    ]
    for count, n, k in linears:
        yield Product(count, n, k, tokens, design.weight_bits, tokens, k, design.weight_bits)

    heads, kv_heads = sizes.heads, sizes.kv_heads
    if attention_model == "v1_published":
        bits, linear = design.kv_bits, design.weight_bits
        yield Product(sizes.layers, tokens, hidden, heads * tokens, bits, kv_heads * tokens, hidden, linear)
        yield Product(sizes.layers, heads * tokens, context, tokens, bits, tokens, kv_hidden, linear)
    else:
        head, queries, bits = hidden // heads, heads // kv_heads * tokens, design.kv_bits
        yield Product(sizes.layers, context, head, queries, bits, queries, head, bits, kv_heads)
        yield Product(sizes.layers, head, context, queries, bits, queries, context, bits, kv_heads)


def simulate(model: str, phase: str, name: str, attention_model: AttentionModel = "v1_published") -> Totals:
    """A prefill, or one decode step, under the published convention. Raises InputError: an unknown word."""
    for key, value, allowed in (
        ("model", model, MODELS),
        ("phase", phase, PHASES),
        ("design", name, DESIGNS),
        ("attention_model", attention_model, ("v1_published", "v2")),
    ):
        if value not in allowed:
            raise InputError("is not among them", key=key, value=value, allowed=", ".join(allowed))
    context = read_figures("bitmod_model").whole("context")
    design = design_of(name, model, phase, attention_model)
    tokens = context if phase == "prefill" else 1
    return _sum(
        _charge(product, design)
        for product in products(shape(model), design, tokens, context, attention_model)
    )


def _charge(product: Product, design: Design) -> Totals:
    """Cycles and traffic of ``product.count`` equal layers."""
    model = read_figures("bitmod_model")
    bits, word = model.whole("activation_bits"), model.whole("write_width_bits")
    n, k, tokens, heads = product.n, product.k, product.tokens, product.batch

    steps = heads * _over(k, design.lanes) * _over(n, design.rows) * _over(tokens, design.cols)
    compute = steps * design.cycles_per_step(product.step_bits)

    weight_bytes = heads * n * _over(k * product.stored_bits, 8)
    input_bytes = heads * product.input_rows * _over(product.input_k * bits, 8)
    output_bytes = heads * tokens * _over(n * bits, 8)
    weight_fetches, input_fetches = _fetches(weight_bytes, input_bytes)
    traffic = 8 * (weight_fetches * weight_bytes + input_fetches * input_bytes + output_bytes)
    dram = traffic // model.whole("dram_bits_per_cycle")

    weight_words = weight_fetches * heads * n * _over(k * design.weight_bits, word)
    input_words = input_fetches * heads * product.input_rows * _over(product.input_k * bits, word)
    output_words = heads * tokens * _over(n * bits, word)
    one = (max(compute, dram), compute, steps, weight_words, input_words + output_words, traffic)
    return Totals(*(product.count * value for value in one))


def _fetches(weight_bytes: int, input_bytes: int) -> tuple[int, int]:
    """How often weights and inputs come from DRAM."""
    room = 1024 * read_figures("bitmod_model").whole("buffer_kib")
    if weight_bytes <= room or input_bytes <= room:
        return 1, 1
    inputs_again, weights_again = _over(weight_bytes, room), _over(input_bytes, room)
    if weights_again * weight_bytes + input_bytes < inputs_again * input_bytes + weight_bytes:
        return weights_again, 1
    return 1, inputs_again


def _over(size: float, by: int) -> int:
    """``size / by`` rounded up; exact, since widths are sixteenths of a bit."""
    return ceil(size / by)


def _sum(parts: Iterator[Totals]) -> Totals:
    listed = list(parts)
    return Totals(
        cycles=sum(part.cycles for part in listed),
        compute_cycles=sum(part.compute_cycles for part in listed),
        steps=sum(part.steps for part in listed),
        weight_words=sum(part.weight_words for part in listed),
        activation_words=sum(part.activation_words for part in listed),
        dram_bits=sum(part.dram_bits for part in listed),
    )


def full_model(model: str, phase: str, name: str) -> Report:
    """Our own engine on the shipped BitMoD accelerator, its PEs arranged as published for the phase."""
    design = design_of(name, model, phase)
    context = read_figures("bitmod_model").whole("context")
    changes: dict[str, Any] = {
        "array.rows": design.rows,
        "array.cols": design.cols,
        "technology": FULL_MODEL_TECHNOLOGY,
    }
    return run(
        model,
        "bitmod",
        prefill=context if phase == "prefill" else None,
        decode=context if phase == "decode" else None,
        weights=FULL_MODEL_WEIGHTS[name, phase],
        activations="fp16",
        kv=FULL_MODEL_KV,
        **changes,
    )


def claims() -> list[Claim]:
    """Every phase of every model on every design, then the means that the paper headlines."""
    published = read_figures("bitmod_published")
    runs = {
        (model, phase, name): simulate(model, phase, name)
        for model in MODELS
        for phase in PHASES
        for name in DESIGNS
    }
    energies = {
        case: (
            onchip := totals.energy_onchip_uj(design_of(case[2], *case[:2])),
            onchip + totals.energy_dram_uj,
        )
        for case, totals in runs.items()
    }
    rows: list[Claim] = []
    for (model, phase, name), totals in runs.items():
        onchip, total = energies[model, phase, name]
        for claim, ours, unit, reason in (
            ("cycles", totals.cycles, "cycles", _CYCLES),
            ("energy_onchip_uj", onchip, "uJ", _ONCHIP),
            ("energy_total_uj", total, "uJ", _TOTAL),
        ):
            case = {"model": model, "phase": phase, "design": name}
            figure = published.get(claim, **case)
            if figure is None:
                rows.append(unpublished("bitmod", claim, case, ours, unit, reason))
            else:
                rows.append(compare("bitmod", figure, ours, reason))
    for model, phase, name in runs:
        case = {"model": model, "phase": phase, "design": name}
        later = simulate(model, phase, name, "v2").cycles
        rows.append(unpublished("bitmod", "cycles_attention_v2", case, later, "cycles", _LATER))
    for name, phase in FULL_MODEL_WEIGHTS:
        for model in MODELS:
            rows += _full_model_claims(model, phase, name)
    cycles = {case: totals.cycles for case, totals in runs.items()}
    total_uj = {case: total for case, (_, total) in energies.items()}
    headlines: dict[str, Callable[..., float]] = {
        "mean_speedup_over_fp16": lambda design, task: _mean_ratio(cycles, "fp16", design, task),
        "mean_speedup_of_bitmod_lossy": lambda over, task: _mean_ratio(cycles, over, "bitmod-lossy", task),
        "mean_energy_over_fp16": lambda design, task: _mean_ratio(total_uj, design, "fp16", task),
        "mean_energy_reduction": lambda design, over: _mean_ratio(total_uj, over, design, "both"),
    }
    for claim, ratio in headlines.items():
        rows += [compare("bitmod", figure, ratio(**figure.case), _MEAN) for figure in published.named(claim)]
    return rows


def _full_model_claims(model: str, phase: str, name: str) -> Iterator[Claim]:
    case = {"model": model, "phase": phase, "design": name}
    report = full_model(model, phase, name)
    total = 1e-6 * report.energy_pj
    onchip = total - 1e-6 * report.energy_by_component_pj["dram"]
    for claim, ours, unit, reason in (
        ("full_model_cycles", report.cycles, "cycles", _FULL),
        ("full_model_energy_onchip_uj", onchip, "uJ", _FULL_ENERGY),
        ("full_model_energy_total_uj", total, "uJ", _FULL_ENERGY),
    ):
        figure = read_figures("bitmod_published").get(claim, **case)
        if figure is None:
            yield unpublished("bitmod", claim, case, ours, unit, reason)
        else:
            yield compare("bitmod", figure, ours, reason)


_CYCLES = "the published model's convention: the longer of array and DRAM for each layer, attention as in v1_published"
_ONCHIP = "PE energy x array cycles, and buffer accesses at CACTI's energies for the banks of that simulator"
_TOTAL = "on-chip energy and the same DRAM bits at 18.75 pJ"
_FULL = (
    "our engine on the same PEs: fill and drain, vector unit, DRAM latency, 8-bit keys and values read by each head, "
    "lm_head for the last token only, 10 bits of metadata a group; the published figure is the convention's"
)
_FULL_ENERGY = (
    "our engine's counts with the paper's Table X for PEs, charged where they work, and CACTI at 28 nm for buffers, "
    "whose leakage is counted; the published figure is the convention's, without leakage"
)
_LATER = "the later release's widths and attention: one product a key head, keys and values read from DRAM"
_MEAN = "arithmetic mean over the six models; a generative task is a prefill and 20 equal decode steps at context 256"


def _mean_ratio(of: Mapping[tuple[str, str, str], float], above: str, below: str, task: str) -> float:
    """Mean over models of ``above / below``; of both tasks' means where the task is ``both``."""
    if task == "both":
        return fmean(_mean_ratio(of, above, below, each) for each in TASKS)
    steps = read_figures("bitmod_model").whole("generated_tokens") if task == "generative" else 0

    def whole(model: str, name: str) -> float:
        return of[model, "prefill", name] + steps * of[model, "decode", name]

    return fmean(whole(model, above) / whole(model, below) for model in MODELS)
