"""The workload file as pydantic models. The models are the file's reference; docs/workloads.md explains it.

A file has either ``model:`` (a family of networks and its sizes) or ``operations:`` (a list of rows, see
`simulator.workload.rows`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from simulator.errors import InputError
from simulator.workload.schema import Count, Layers, Model, Seed

Distribution = Literal["normal", "laplace", "uniform"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*$")]
FormatName = Annotated[str, Field(min_length=1, max_length=80)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


class LayerFormats(Model):
    """Formats of the operands of some matrix products, where they differ from the rest."""

    weights: FormatName | None = None
    activations: FormatName | None = None
    kv: FormatName | None = None


class FormatsDocument(Model):
    """Formats of the operands of matrix products, and of everything that operations write."""

    weights: FormatName = "int8"
    activations: FormatName = "int8"
    kv: FormatName = "int8"
    output: FormatName = "fp16"
    input: FormatName | None = None
    """In which the network is given its inputs; that of the outputs unless given."""
    activation_scales: Literal["dynamic", "static"] = "dynamic"
    """dynamic: a pass over the activations finds each scale; static: scales were calibrated beforehand."""
    layers: dict[str, LayerFormats] = Field(default_factory=dict)
    """Pattern of names of matrix products (``*`` stands for anything) -> their formats; later patterns
    win."""


class WeightValues(Model):
    """Where the weights are from: a distribution (the default), a checkpoint, or an installed package
    that holds one."""

    distribution: Distribution = "normal"
    """Of weights that no file holds."""
    seed: Seed = 0
    safetensors: Text | None = None
    """A .safetensors file, or a folder with the shards of one checkpoint; relative to the workload file."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$")] | None = None
    """Name of an installed distribution with one checkpoint among its files. It is never imported."""

    @model_validator(mode="after")
    def _one_origin(self) -> WeightValues:
        if self.safetensors is not None and self.package is not None:
            raise InputError(
                "cannot stand beside package",
                key="safetensors",
                value=self.safetensors,
                allowed="safetensors or package, not both",
            )
        return self


class ActivationValues(Model):
    """Where activations (or keys and values) are from: a distribution, or recordings under our tensors'
    names."""

    distribution: Distribution = "laplace"
    """Of tensors that were not recorded."""
    seed: Seed = 0
    safetensors: Text | None = None
    """A .safetensors file with recorded tensors, relative to the workload file."""


class ValuesDocument(Model):
    """Where the values of the tensors are from."""

    weights: WeightValues = WeightValues()
    activations: ActivationValues = ActivationValues()
    kv: ActivationValues = ActivationValues()


class PhaseDocument(Model):
    """What is run unless the command says otherwise."""

    prefill: Count | None = None
    """Tokens of each sequence."""
    decode: Count | None = None
    """Context length, the new token included, of one decode step."""
    batch: Count = 1
    """Sequences or images."""
    layers: Layers | None = None
    """Run the first so many blocks of a family's network, with its embedding and head; all unless given."""

    @model_validator(mode="after")
    def _one_phase(self) -> PhaseDocument:
        if self.prefill is not None and self.decode is not None:
            raise InputError(
                "cannot stand beside prefill",
                key="decode",
                value=self.decode,
                allowed="prefill or decode, not both",
            )
        return self


class WorkloadDocument(Model):
    """A workload file."""

    name: Name
    source: Text = "the user's own"
    """Paper or model card that the shapes are from."""
    model: dict[str, Any] | None = None
    """``family: NAME`` and the keys of that family's model."""
    input: list[Count] | None = Field(default=None, min_length=1, max_length=3)
    """Shape of the tensor ``input`` of an operations list, without batch: [h, w, c] or [rows, k]."""
    operations: list[dict[str, Any]] | None = Field(default=None, min_length=1, max_length=100_000)
    formats: FormatsDocument = FormatsDocument()
    values: ValuesDocument = ValuesDocument()
    phase: PhaseDocument = PhaseDocument()

    @model_validator(mode="after")
    def _one_kind(self) -> WorkloadDocument:
        if (self.model is None) == (self.operations is None):
            raise ValueError("a workload has either model or operations")
        return self
