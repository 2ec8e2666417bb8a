"""Decoders whose attention and MLP read the same normalised input, with rotary positions on part of each head.

Phi-1, Phi-1.5 and Phi-2: Li et al., Textbooks Are All You Need II, arXiv:2309.05463, section 2.1 (rotary
embedding of 32 values a head); the parallel block as in Wang and Komatsuzaki, GPT-J-6B, 2021. Biases
everywhere, in the LM head too. Tensors and their names in a checkpoint: Hugging Face transformers,
``modeling_phi``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import model_validator

from simulator.errors import InputError
from simulator.workload.builder import Builder
from simulator.workload.families.family import Family, Sizes
from simulator.workload.families.transformer import (
    Heads,
    check_divides,
    head_weight,
    layer_weights,
    read_activation,
    self_attention,
    sequences,
)
from simulator.workload.operations import Phase
from simulator.workload.schema import Count


class PhiConfig(Sizes):
    """Sizes of a Phi-like decoder."""

    hidden: Count
    heads: Count
    kv_heads: Count | None = None
    """As many as ``heads`` unless given."""
    intermediate: Count
    vocab: Count
    rotary: Count
    """Values of each query and key head that are rotated."""
    activation: Literal["gelu", "relu"] = "gelu"
    tied_embeddings: bool = False
    """The LM head reuses the embedding: its parameters count once, its product is the same."""
    lm_head: Literal["last", "all"] = "last"
    """Tokens of a prefill for which the vocabulary is scored."""

    @model_validator(mode="after")
    def _heads_divide(self) -> PhiConfig:
        check_divides("heads", self.heads, "hidden", self.hidden)
        check_divides("kv_heads", self.kv_heads or self.heads, "heads", self.heads)
        if self.rotary > self.hidden // self.heads or self.rotary % 2:
            limit = f"an even number up to {self.hidden // self.heads}, the size of a head"
            raise InputError("cannot be rotated in pairs", key="rotary", value=self.rotary, allowed=limit)
        return self


def build(b: Builder, config: PhiConfig, phase: Phase) -> None:
    """Embedding, layers, final norm and LM head."""
    run = sequences(phase)
    hidden = config.hidden
    attention = Heads(
        heads=config.heads,
        kv_heads=config.kv_heads or config.heads,
        head_dim=hidden // config.heads,
        bias=True,
        rotary=config.rotary,
    )
    table = b.table("embedding.weight", (config.vocab, hidden))
    x = b.vector("embedding", "embedding", table, shape=(run.tokens, hidden))
    for layer in range(config.layers):
        block = f"layers.{layer}"
        shared = b.vector(f"{block}.norm", "layernorm", x, parameters=2 * hidden)
        y = self_attention(b, f"{block}.attention", shared, run, attention)
        y = b.gemm(f"{block}.attention.output", y, hidden, bias=True)
        z = b.gemm(f"{block}.mlp.up", shared, config.intermediate, bias=True)
        z = b.vector(f"{block}.mlp.activation", config.activation, z)
        z = b.gemm(f"{block}.mlp.down", z, hidden, bias=True)
        y = b.vector(f"{block}.sum", "add", y, z)
        x = b.vector(f"{block}.residual", "add", y, x)
    scored = run.tokens if config.lm_head == "all" else run.batch
    x = b.vector("norm", "layernorm", x, shape=(scored, hidden), parameters=2 * hidden)
    b.gemm("lm_head", x, config.vocab, bias=True, tied=config.tied_embeddings)


def from_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``PhiConfig`` of transformers."""
    if config.get("qk_layernorm"):
        raise ValueError("qk_layernorm: normalised queries and keys are not supported")
    activations = {"gelu": "gelu", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
    activation = read_activation(config, "hidden_act", "gelu_new", activations)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rope = config.get("rope_parameters")
    factor = (rope if isinstance(rope, Mapping) else config).get("partial_rotary_factor", 0.5)
    for key, value, kinds in (
        ("hidden_size", hidden, int),
        ("num_attention_heads", heads, int),
        ("partial_rotary_factor", factor, int | float),
    ):
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
            raise ValueError(f"{key}: must be a positive number, found {value!r}")
    fields = {
        "hidden": hidden,
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads"),
        "intermediate": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "rotary": int(factor * (hidden // heads)),
        "activation": activation,
        "tied_embeddings": config.get("tie_word_embeddings", False),
    }
    return {key: value for key, value in fields.items() if value is not None}


def checkpoint_names(config: PhiConfig) -> Iterator[tuple[str, str]]:
    """Linear layers and embedding of ``PhiModel``; tied LM heads read the embedding."""
    parts = {
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.dense",
        "mlp.up": "mlp.fc1",
        "mlp.down": "mlp.fc2",
    }
    yield "embedding.weight", "embed_tokens.weight"
    yield from layer_weights(config.layers, parts, "layers")
    yield head_weight(tied=config.tied_embeddings)


FAMILY = Family(
    name="phi",
    config=PhiConfig,
    build=build,
    phases=frozenset({"prefill", "decode"}),
    longest=lambda config: None,
    model_types=frozenset({"phi"}),
    from_huggingface=from_huggingface,
    checkpoint_prefixes=("model.", ""),
    checkpoint_names=checkpoint_names,
)
