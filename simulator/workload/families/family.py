"""What a family of networks is to the rest of the room: a value; the catalogue is in
``families/__init__.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from simulator.workload.builder import Builder
from simulator.workload.operations import Phase
from simulator.workload.schema import Layers, Model


class Sizes(Model):
    """What the sizes of every family name."""

    layers: Layers
    """Blocks of the same shape, one after the other."""


ConfigT = TypeVar("ConfigT", bound=Sizes)


@dataclass(frozen=True)
class Family(Generic[ConfigT]):
    """Networks that differ in sizes only."""

    name: str
    config: type[ConfigT]
    """Keys of ``model:`` in a workload file, besides ``family``."""
    build: Callable[[Builder, ConfigT, Phase], None]
    phases: frozenset[str]
    """"prefill", "decode" or both."""
    longest: Callable[[ConfigT], int | None]
    """Most tokens that the network can take, None where its position code sets no limit."""
    model_types: frozenset[str]
    """Values of ``model_type`` in Hugging Face's config.json that are read as this family."""
    from_huggingface: Callable[[Mapping[str, Any]], dict[str, Any]]
    """config.json -> keys of ``config``. KeyError: a field is missing; ValueError: one has no meaning
    here."""
    checkpoint_prefixes: tuple[str, ...]
    """What the names of a checkpoint may begin with, by the class of model that was saved."""
    checkpoint_names: Callable[[ConfigT], Iterator[tuple[str, str]]]
    """(our tensor, the checkpoint's tensor without prefix), both (n, k)."""
