"""Encoders with layer norm after each residual and learned positions.

Devlin et al., BERT, NAACL 2019, section 3. Tensors and their names in a checkpoint: Hugging Face
transformers, ``modeling_bert``; heads for pre-training or a task are not part of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import model_validator

from simulator.errors import InputError
from simulator.workload.builder import Builder
from simulator.workload.families.family import Family, Sizes
from simulator.workload.families.transformer import (
    Heads,
    check_divides,
    layer_weights,
    read_activation,
    self_attention,
    sequences,
)
from simulator.workload.operations import Phase, TensorRef
from simulator.workload.schema import Count


class BertConfig(Sizes):
    """Sizes of a BERT-like encoder."""

    hidden: Count
    heads: Count
    intermediate: Count
    vocab: Count
    positions: Count = 512
    """Longest sequence that the learned position embedding knows."""
    token_types: Count = 2
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    pooler: bool = True
    """The checkpoint has BERT's pooler (a linear layer and tanh on the first token); its parameters count."""
    pooling: Literal["cls", "mean", "none"] = "cls"
    """What runs after the layers: the pooler, the mean of a sequence's tokens, or nothing."""

    @model_validator(mode="after")
    def _consistent(self) -> BertConfig:
        check_divides("heads", self.heads, "hidden", self.hidden)
        if self.pooling == "cls" and not self.pooler:
            raise InputError("needs pooler: true", key="pooling", value=self.pooling, allowed="mean or none")
        return self


def build(b: Builder, config: BertConfig, phase: Phase) -> None:
    """Embeddings, layers and pooling."""
    run = sequences(phase)
    hidden = config.hidden
    attention = Heads(config.heads, config.heads, hidden // config.heads, bias=True, rotary=0)
    x = _embeddings(b, config, run.tokens)
    for layer in range(config.layers):
        block = f"layers.{layer}"
        y = self_attention(b, f"{block}.attention", x, run, attention)
        y = b.gemm(f"{block}.attention.output", y, hidden, bias=True)
        y = b.vector(f"{block}.attention.residual", "add", y, x)
        x = _norm(b, f"{block}.attention.norm", y)
        y = b.gemm(f"{block}.mlp.up", x, config.intermediate, bias=True)
        y = b.vector(f"{block}.mlp.activation", config.activation, y)
        y = b.gemm(f"{block}.mlp.down", y, hidden, bias=True)
        y = b.vector(f"{block}.mlp.residual", "add", y, x)
        x = _norm(b, f"{block}.mlp.norm", y)
    if config.pooling == "mean":
        b.vector("pooling", "average_pool", x, shape=(run.batch, hidden), elements=x.size)
    if config.pooling == "cls":
        first = b.vector("pooler.token", "gather", x, shape=(run.batch, hidden))
        y = b.gemm("pooler", first, hidden, bias=True)
        b.vector("pooler.activation", "tanh", y)
    elif config.pooler:
        b.parameters += hidden * hidden + hidden


def _embeddings(b: Builder, config: BertConfig, tokens: int) -> TensorRef:
    """Sum of the word, position and token type embeddings, normalised: (tokens, hidden)."""
    tables = {
        "word": b.table("embedding.word.weight", (config.vocab, config.hidden)),
        "position": b.table("embedding.position.weight", (config.positions, config.hidden)),
        "token_type": b.table("embedding.token_type.weight", (config.token_types, config.hidden)),
    }
    x = b.vector("embedding.word", "embedding", tables["word"], shape=(tokens, config.hidden))
    x = b.vector("embedding.position", "add", x, tables["position"])
    x = b.vector("embedding.token_type", "add", x, tables["token_type"])
    return _norm(b, "embedding.norm", x)


def _norm(b: Builder, name: str, x: TensorRef) -> TensorRef:
    return b.vector(name, "layernorm", x, parameters=2 * x.k)


def from_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``BertConfig`` of transformers, which saves a pooler unless told otherwise."""
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("position_embedding_type: only absolute positions are supported")
    activations = {"gelu": "gelu", "gelu_new": "gelu", "relu": "relu", "silu": "silu"}
    activation = read_activation(config, "hidden_act", "gelu", activations)
    return {
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "intermediate": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "positions": config.get("max_position_embeddings", 512),
        "token_types": config.get("type_vocab_size", 2),
        "activation": activation,
    }


def checkpoint_names(config: BertConfig) -> Iterator[tuple[str, str]]:
    """Linear layers and embeddings of ``BertModel``; the pooler's where it runs."""
    parts = {
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        "attention.output": "attention.output.dense",
        "mlp.up": "intermediate.dense",
        "mlp.down": "output.dense",
    }
    yield "embedding.word.weight", "embeddings.word_embeddings.weight"
    yield "embedding.position.weight", "embeddings.position_embeddings.weight"
    yield "embedding.token_type.weight", "embeddings.token_type_embeddings.weight"
    yield from layer_weights(config.layers, parts, "encoder.layer")
    if config.pooling == "cls":
        yield "pooler.weight", "pooler.dense.weight"


FAMILY = Family(
    name="bert",
    config=BertConfig,
    build=build,
    phases=frozenset({"prefill"}),
    longest=lambda config: config.positions,
    model_types=frozenset({"bert"}),
    from_huggingface=from_huggingface,
    checkpoint_prefixes=("", "bert."),
    checkpoint_names=checkpoint_names,
)
