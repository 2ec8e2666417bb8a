"""Decoders with RMS norm, rotary positions and a gated MLP.

Touvron et al., Llama 2, arXiv:2307.09288, section 2.2; grouped-query attention where ``kv_heads`` is below
``heads``. Tensors and their names in a checkpoint: Hugging Face transformers, ``modeling_llama``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import model_validator

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
from simulator.workload.operations import Phase, TensorRef
from simulator.workload.schema import Count

GATES = {"silu": "swiglu", "gelu": "geglu"}
"""Activation of the gate -> vector operation of the gated pair."""


class LlamaConfig(Sizes):
    """Sizes of a Llama-like decoder."""

    hidden: Count
    heads: Count
    kv_heads: Count | None = None
    """As many as ``heads`` unless given."""
    head_dim: Count | None = None
    """hidden / heads unless given."""
    intermediate: Count
    vocab: Count
    activation: Literal["silu", "gelu"] = "silu"
    attention_bias: Literal["none", "qkv", "all"] = "none"
    tied_embeddings: bool = False
    """The LM head reuses the embedding: its parameters count once, its product is the same."""
    lm_head: Literal["last", "all"] = "last"
    """Tokens of a prefill for which the vocabulary is scored."""

    @model_validator(mode="after")
    def _heads_divide(self) -> LlamaConfig:
        check_divides("kv_heads", self.kv_heads or self.heads, "heads", self.heads)
        if self.head_dim is None:
            check_divides("heads", self.heads, "hidden where head_dim is not given", self.hidden)
        return self


def build(b: Builder, config: LlamaConfig, phase: Phase) -> None:
    """Embedding, layers, final norm and LM head."""
    run = sequences(phase)
    hidden = config.hidden
    head_dim = config.head_dim or hidden // config.heads
    attention = Heads(
        heads=config.heads,
        kv_heads=config.kv_heads or config.heads,
        head_dim=head_dim,
        bias=config.attention_bias != "none",
        rotary=head_dim,
    )
    gate = GATES[config.activation]
    table = b.table("embedding.weight", (config.vocab, hidden))
    x = b.vector("embedding", "embedding", table, shape=(run.tokens, hidden))
    for layer in range(config.layers):
        block = f"layers.{layer}"
        y = _norm(b, f"{block}.attention.norm", x)
        y = self_attention(b, f"{block}.attention", y, run, attention)
        y = b.gemm(f"{block}.attention.output", y, hidden, bias=config.attention_bias == "all")
        x = b.vector(f"{block}.attention.residual", "add", y, x)
        y = _norm(b, f"{block}.mlp.norm", x)
        gated = b.gemm(f"{block}.mlp.gate", y, config.intermediate)
        up = b.gemm(f"{block}.mlp.up", y, config.intermediate)
        y = b.vector(f"{block}.mlp.activation", gate, gated, up)
        y = b.gemm(f"{block}.mlp.down", y, hidden)
        x = b.vector(f"{block}.mlp.residual", "add", y, x)
    scored = run.tokens if config.lm_head == "all" else run.batch
    x = b.vector("norm", "rmsnorm", x, shape=(scored, hidden), parameters=hidden)
    b.gemm("lm_head", x, config.vocab, tied=config.tied_embeddings)


def _norm(b: Builder, name: str, x: TensorRef) -> TensorRef:
    return b.vector(name, "rmsnorm", x, parameters=x.k)


def from_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``LlamaConfig``, ``MistralConfig`` or ``Qwen2Config`` of transformers, or of Yi's first releases."""
    kind = config["model_type"]
    if config.get("sliding_window") is not None and config.get("use_sliding_window", True):
        raise ValueError("sliding_window: attention to a window of the context is not supported")
    bias = "qkv" if kind == "qwen2" else "all" if config.get("attention_bias") else "none"
    if config.get("mlp_bias"):
        raise ValueError("mlp_bias: an MLP with biases is not supported")
    activations = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu"}
    activation = read_activation(config, "hidden_act", "silu", activations)
    fields = {
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "intermediate": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "activation": activation,
        "attention_bias": bias,
        "tied_embeddings": config.get("tie_word_embeddings", False),
    }
    return {key: value for key, value in fields.items() if value is not None}


def checkpoint_names(config: LlamaConfig) -> Iterator[tuple[str, str]]:
    """Linear layers of ``LlamaModel``; tied LM heads read the embedding."""
    parts = {
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
    }
    yield "embedding.weight", "embed_tokens.weight"
    yield from layer_weights(config.layers, parts, "layers")
    yield head_weight(tied=config.tied_embeddings)


FAMILY = Family(
    name="llama",
    config=LlamaConfig,
    build=build,
    phases=frozenset({"prefill", "decode"}),
    longest=lambda config: None,
    model_types=frozenset({"llama", "mistral", "qwen2", "Yi"}),
    from_huggingface=from_huggingface,
    checkpoint_prefixes=("model.", ""),
    checkpoint_names=checkpoint_names,
)
