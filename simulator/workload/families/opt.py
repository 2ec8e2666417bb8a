"""Decoders with learned positions, layer norm before attention and MLP, biases, and an MLP of two matrices.

Zhang et al., OPT, arXiv:2205.01068, section 2.1. Tensors and their names in a checkpoint: Hugging Face
transformers, ``modeling_opt``. OPT-350M, which normalises after each residual and projects its embeddings, is
not of this family.
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

UNUSED_POSITIONS = 2
"""Rows at the head of the position embedding that no token looks up (``OPTLearnedPositionalEmbedding``)."""


class OptConfig(Sizes):
    """Sizes of an OPT-like decoder."""

    hidden: Count
    heads: Count
    intermediate: Count
    vocab: Count
    positions: Count = 2048
    """Longest sequence that the learned position embedding knows."""
    activation: Literal["relu", "gelu"] = "relu"
    tied_embeddings: bool = True
    """The LM head reuses the embedding: its parameters count once, its product is the same."""
    lm_head: Literal["last", "all"] = "last"
    """Tokens of a prefill for which the vocabulary is scored."""

    @model_validator(mode="after")
    def _heads_divide(self) -> OptConfig:
        check_divides("heads", self.heads, "hidden", self.hidden)
        return self


def build(b: Builder, config: OptConfig, phase: Phase) -> None:
    """Embeddings, layers, final norm and LM head."""
    run = sequences(phase)
    hidden = config.hidden
    attention = Heads(config.heads, config.heads, hidden // config.heads, bias=True, rotary=0)
    words = b.table("embedding.word.weight", (config.vocab, hidden))
    positions = b.table("embedding.position.weight", (config.positions + UNUSED_POSITIONS, hidden))
    x = b.vector("embedding.word", "embedding", words, shape=(run.tokens, hidden))
    x = b.vector("embedding.position", "add", x, positions)
    for layer in range(config.layers):
        block = f"layers.{layer}"
        y = _norm(b, f"{block}.attention.norm", x)
        y = self_attention(b, f"{block}.attention", y, run, attention)
        y = b.gemm(f"{block}.attention.output", y, hidden, bias=True)
        x = b.vector(f"{block}.attention.residual", "add", y, x)
        y = _norm(b, f"{block}.mlp.norm", x)
        y = b.gemm(f"{block}.mlp.up", y, config.intermediate, bias=True)
        y = b.vector(f"{block}.mlp.activation", config.activation, y)
        y = b.gemm(f"{block}.mlp.down", y, hidden, bias=True)
        x = b.vector(f"{block}.mlp.residual", "add", y, x)
    scored = run.tokens if config.lm_head == "all" else run.batch
    x = b.vector("norm", "layernorm", x, shape=(scored, hidden), parameters=2 * hidden)
    b.gemm("lm_head", x, config.vocab, tied=config.tied_embeddings)


def _norm(b: Builder, name: str, x: TensorRef) -> TensorRef:
    return b.vector(name, "layernorm", x, parameters=2 * x.k)


def from_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``OPTConfig`` of transformers."""
    for key in ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine"):
        if not config.get(key, True):
            raise ValueError(f"{key}: false is not supported")
    if config.get("_remove_final_layer_norm"):
        raise ValueError("_remove_final_layer_norm: a decoder without final norm is not supported")
    hidden = config["hidden_size"]
    if config.get("word_embed_proj_dim") not in (None, hidden):
        raise ValueError(
            "word_embed_proj_dim: an embedding of another width than hidden_size is not supported"
        )
    activations = {"relu": "relu", "gelu": "gelu"}
    activation = read_activation(config, "activation_function", "relu", activations)
    return {
        "hidden": hidden,
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "intermediate": config["ffn_dim"],
        "vocab": config["vocab_size"],
        "positions": config.get("max_position_embeddings", 2048),
        "activation": activation,
        "tied_embeddings": config.get("tie_word_embeddings", True),
    }


def checkpoint_names(config: OptConfig) -> Iterator[tuple[str, str]]:
    """Linear layers and embeddings of ``OPTDecoder``; tied LM heads read the embedding."""
    parts = {
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.out_proj",
        "mlp.up": "fc1",
        "mlp.down": "fc2",
    }
    yield "embedding.word.weight", "embed_tokens.weight"
    yield "embedding.position.weight", "embed_positions.weight"
    yield from layer_weights(config.layers, parts, "layers")
    yield head_weight(tied=config.tied_embeddings)


FAMILY = Family(
    name="opt",
    config=OptConfig,
    build=build,
    phases=frozenset({"prefill", "decode"}),
    longest=lambda config: config.positions,
    model_types=frozenset({"opt"}),
    from_huggingface=from_huggingface,
    checkpoint_prefixes=("model.decoder.", "decoder.", ""),
    checkpoint_names=checkpoint_names,
)
