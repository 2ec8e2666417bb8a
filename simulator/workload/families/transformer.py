"""What transformer families share: the tokens of a run, attention (Vaswani et al., NeurIPS 2017, section 3.2),
checks of sizes, and how their activations and weights are found in what Hugging Face stores.

Attention's tensors are head-major: queries (sequences * heads, tokens, head), keys (sequences * kv heads,
context, head), values (sequences * kv heads, head, context), so that K is the last axis of both operands of
both products. heads / kv heads consecutive heads share a key/value head (Ainslie et al., GQA, EMNLP 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simulator.errors import InputError
from simulator.workload.builder import Builder
from simulator.workload.operations import Phase, TensorRef

DEFAULT_TOKENS = 128
"""Prefill of a transformer for which no length is given."""


@dataclass(frozen=True)
class Sequences:
    """Tokens of a run: ``batch`` sequences, each with ``queries`` new tokens and ``context`` tokens
    attended to."""

    batch: int
    queries: int
    context: int

    @property
    def tokens(self) -> int:
        """Rows of every linear layer."""
        return self.batch * self.queries


def sequences(phase: Phase) -> Sequences:
    """Prefill of S tokens attends to S; decode at context length L is one token that attends to L,
    itself included."""
    if phase.decode is not None:
        return Sequences(phase.batch, 1, phase.decode)
    length = DEFAULT_TOKENS if phase.prefill is None else phase.prefill
    return Sequences(phase.batch, length, length)


@dataclass(frozen=True)
class Heads:
    """Shape of an attention block."""

    heads: int
    kv_heads: int
    head_dim: int
    bias: bool
    rotary: int
    """Values of each query and key head that are rotated by their position; 0: none."""


def self_attention(b: Builder, name: str, x: TensorRef, run: Sequences, shape: Heads) -> TensorRef:
    """Heads' results side by side, (tokens, heads * head), of x (tokens, hidden).

    The keys and values of the new tokens go to the cache; decode finds the others there. Masked scores of a
    causal prefill are computed like all others; the scale 1 / sqrt(head) is part of the softmax.
    """
    rows = (run.batch * shape.heads, run.queries, shape.head_dim)
    query = b.gemm(f"{name}.query", x, shape.heads * shape.head_dim, bias=shape.bias, shape=rows)
    if shape.rotary:
        rotated = shape.heads * shape.rotary * run.tokens
        query = b.vector(f"{name}.query.rope", "rope", query, elements=rotated)
    keys = _cached(b, f"{name}.key", f"{name}.scores", x, run, shape, tokens_first=True)
    values = _cached(b, f"{name}.value", f"{name}.context", x, run, shape, tokens_first=False)
    group = shape.heads // shape.kv_heads
    scores = b.attention(f"{name}.scores", query, keys, weight_reuse=group)
    weights = b.vector(f"{name}.softmax", "softmax", scores)
    merged = (run.tokens, shape.heads * shape.head_dim)
    return b.attention(f"{name}.context", weights, values, weight_reuse=group, shape=merged)


def _cached(
    b: Builder, name: str, product: str, x: TensorRef, run: Sequences, shape: Heads, *, tokens_first: bool
) -> TensorRef:
    """Project x to new keys (tokens first, rotated) or values and write them to the cache that ``product``
    reads.

    A cache in the output format is written by the projection, or the rotation, itself.
    """
    kv, head = run.batch * shape.kv_heads, shape.head_dim
    new, held = ((kv, t, head) if tokens_first else (kv, head, t) for t in (run.queries, run.context))
    cache = b.cache(f"{name}.cache", product, held)
    direct = cache if cache.format == b.output_format else None
    rotated = shape.kv_heads * shape.rotary * run.tokens if tokens_first else 0
    n = shape.kv_heads * head
    tensor = b.gemm(name, x, n, bias=shape.bias, shape=new, output=None if rotated else direct)
    if rotated:
        tensor = b.vector(f"{name}.rope", "rope", tensor, elements=rotated, output=direct)
    if direct is None:
        b.append(f"{name}.quantize", tensor, cache, rows_are_tokens=tokens_first)
    return cache


def check_divides(key: str, value: int, of: str, whole: int) -> None:
    """Raise InputError unless ``value`` (of key ``key``) divides ``whole`` (called ``of``)."""
    if whole % value:
        raise InputError(f"must divide {of}", key=key, value=value, allowed=f"a divisor of {whole}")


def read_activation(config: Mapping[str, Any], key: str, default: str, known: Mapping[str, str]) -> str:
    """Our name, by ``known``, of the activation that ``key`` of a config.json names. Raises ValueError: not known."""
    activation = config.get(key, default)
    for theirs, ours in known.items():
        if theirs == activation:
            return ours
    raise ValueError(f"{key}: no activation {activation!r}; supported: {', '.join(known)}")


def layer_weights(layers: int, parts: Mapping[str, str], theirs: str) -> Iterator[tuple[str, str]]:
    """Names of the linear layers' weights, (ours, the checkpoint's), layer by layer: ``parts`` are the names
    within a layer, ``theirs`` is what the checkpoint calls the layers."""
    for layer in range(layers):
        for part, stored in parts.items():
            yield f"layers.{layer}.{part}.weight", f"{theirs}.{layer}.{stored}.weight"


def head_weight(*, tied: bool) -> tuple[str, str]:
    """Names of the LM head's weight, (ours, the checkpoint's); a tied one reads the embedding."""
    return "lm_head.weight", "embed_tokens.weight" if tied else "lm_head.weight"
