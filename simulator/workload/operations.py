"""What a network asks of an accelerator: its matrix products, its vector work, and the tensors between
them.

A workload is a list of operations in the order in which they run. Every matrix product, be it a linear
layer, a convolution or one of attention's two products, is a `Gemm`: ``batch`` independent products ``A(m,
k) @ W(n, k).T -> (m, n)``. Everything else is a `VectorOp`: ``elements`` values that the vector unit goes
over ``passes`` times. An operation names the tensors that it reads and writes; order and dependences follow
from the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from simulator.errors import InputError
from simulator.formats import get_format
from simulator.units import ceil_div
from simulator.workload.sources import LAPLACE, ValueSource

MAX_DIMENSION = 2**31
"""Largest length of one axis, and the largest count (layers, heads, channels) a workload may name."""
MAX_MACS = 2**62
"""The multiply-accumulates of a workload and the element visits of a vector operation stay below it: 64-bit
counts."""


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor by name: its shape (last axis is K of the product that reads it), format and where its
    values are from.

    ``kind`` is "weights" (static parameters), "kv" (the second operand of attention, with a cache in
    decode) or "activations". Weights have shape (batch * n, k); keys (sequences * kv heads, tokens, head),
    values (sequences * kv heads, head, tokens); feature maps (images, height, width, channels).
    """

    name: str
    shape: tuple[int, ...]
    format: str
    static: bool = False
    kind: str = "activations"
    values: ValueSource = LAPLACE
    stream: str = ""
    """Name under which synthetic values are drawn, "" for its own: a tensor and its quantized copy share
    one."""
    after: str = ""
    """Operation ("relu", "softmax") that synthetic values have been through."""
    group_span: int = 0
    """Scale groups start anew after this many values of K, a convolution's cin; 0: they run along the whole
    K, or the format has none."""

    @property
    def k(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Product of all other axes."""
        return prod(self.shape[:-1])

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def storage_bits(self) -> int:
        """Exact bits of the whole tensor in memory, scales and all other metadata included."""
        format = get_format(self.format)
        if not self.group_span or self.group_span == self.k or not format.metadata_group:
            return format.storage_bits(self.rows, self.k)
        groups = self.rows * (self.k // self.group_span) * ceil_div(self.group_span, format.metadata_group)
        row_bits = self.k * format.code_bits + format.row_bits
        return self.rows * row_bits + groups * format.metadata_bits + format.tensor_bits


@dataclass(frozen=True, slots=True)
class Conv:
    """Geometry of a two-dimensional convolution over (height, width, channels); K of its GEMM is (kh,
    kw, cin)."""

    in_height: int
    in_width: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """top, bottom, left, right"""
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def out_height(self) -> int:
        """floor((H + p - d(k - 1) - 1) / s) + 1"""
        top, bottom, _, _ = self.padding
        return output_length(self.in_height + top + bottom, self.kernel[0], self.stride[0], self.dilation[0])

    @property
    def out_width(self) -> int:
        """As `out_height`, along the width."""
        _, _, left, right = self.padding
        return output_length(self.in_width + left + right, self.kernel[1], self.stride[1], self.dilation[1])


def output_length(padded: int, kernel: int, stride: int, dilation: int) -> int:
    """Positions of a window of ``kernel`` taps, ``dilation`` apart, on ``padded`` values; 0 or less: it
    does not fit."""
    return (padded - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True, slots=True)
class Gemm:
    """``batch`` independent products A(m, k) @ W(n, k).T -> (m, n).

    ``op`` is "gemm", "conv" (``conv`` holds its geometry; ``batch`` is its groups, m = images * oh * ow) or
    "attention" (``batch`` is sequences * heads). Runs of ``weight_reuse`` consecutive batch entries share
    one (n, k) operand: with grouped-query attention, the heads of one key/value head (Ainslie et al., GQA,
    EMNLP 2023). A bias is preloaded into the accumulators and costs no vector work.
    """

    name: str
    op: str
    m: int
    k: int
    n: int
    batch: int
    weights: TensorRef
    activations: TensorRef
    output: TensorRef
    conv: Conv | None = None
    weight_reuse: int = 1
    bias: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates, zero padding of a convolution included."""
        return self.m * self.k * self.n * self.batch

    @property
    def inputs(self) -> tuple[TensorRef, ...]:
        return (self.activations, self.weights)

    @property
    def activation_values(self) -> str:
        """Where the values of its operands that are no weights are from: "captured", "synthetic" or "mixed"."""
        return _one_quality(tensor.values.quality for tensor in self.inputs if not tensor.static)


@dataclass(frozen=True, slots=True)
class VectorOp:
    """Work of the vector unit: ``elements`` values, each visited ``passes`` times
    (`simulator.workload.vector`).

    An embedding gathers ``elements`` values of its table, not the whole table.
    """

    name: str
    op: str
    elements: int
    passes: int
    inputs: tuple[TensorRef, ...]
    output: TensorRef


Operation = Gemm | VectorOp


@dataclass(frozen=True, slots=True)
class Phase:
    """What is run: a prefill of S tokens, one decode step at context length L, or (both None) images;
    times batch. ``layers``: only the network's first so many blocks; None: all."""

    prefill: int | None = None
    decode: int | None = None
    batch: int = 1
    layers: int | None = None


@dataclass(frozen=True)
class Workload:
    """A network as an accelerator sees it, checked: every tensor is defined before it is used, every
    shape fits."""

    name: str
    operations: tuple[Operation, ...]
    tensors: Mapping[str, TensorRef]
    phase: Phase
    formats: Mapping[str, str]
    """Default format of each operand: weights, activations, kv, output."""
    parameters: int
    """Trained parameters of the network: weights, biases, norms and embeddings."""
    weight_values: str
    """"real", "synthetic" or "mixed": where the values of the weights of its GEMMs are from."""
    seed: int
    source: str
    """Paper or model card that the shapes are from."""
    notes: tuple[str, ...] = ()
    """What the reader of a result must know (weights that were asked for and are not installed)."""
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The resolved workload file: reading it again gives the same workload."""

    def __post_init__(self) -> None:
        check(self)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of all matrix products."""
        return sum(op.macs for op in self.operations if isinstance(op, Gemm))

    @property
    def activation_values(self) -> str:
        """ "captured", "synthetic" or "mixed": where activations, keys and values of its GEMMs are from."""
        return _one_quality(op.activation_values for op in self.gemms)

    @property
    def gemms(self) -> tuple[Gemm, ...]:
        """The matrix products alone, in order."""
        return tuple(op for op in self.operations if isinstance(op, Gemm))


def _one_quality(qualities: Iterable[str]) -> str:
    """What all are, or "mixed"; "synthetic" of none."""
    different = set(qualities)
    return "mixed" if len(different) > 1 else different.pop() if different else "synthetic"


def check(workload: Workload) -> None:
    """Raise InputError unless the operations form a runnable order over distinct tensors of fitting shapes.

    Inputs of the network are the tensors that no operation writes and that some operation reads first; a
    tensor that is written later than it is read, or twice, is an error. An order in which everything is
    written before it is read has no cycle.
    """
    if not workload.operations:
        raise InputError("a workload needs at least one operation", key="operations")
    writer = {op.output.name: op.name for op in workload.operations}
    written: set[str] = set()
    names: set[str] = set()
    for op in workload.operations:
        if op.name in names:
            raise InputError("two operations have this name", key="operations", value=op.name)
        names.add(op.name)
        for tensor in op.inputs:
            if tensor.name in writer and tensor.name not in written:
                raise InputError(
                    f"reads a tensor that {writer[tensor.name]} writes only later",
                    key=op.name,
                    value=tensor.name,
                )
        if op.output.name in written:
            raise InputError("two operations write this tensor", key=op.name, value=op.output.name)
        written.add(op.output.name)
        if isinstance(op, Gemm):
            _check_gemm(op)
        elif not 1 <= op.elements * op.passes < MAX_MACS:
            visits = f"{op.elements} elements in {op.passes} passes"
            raise InputError(f"{visits} are out of range", key=op.name, allowed=f"1 to {MAX_MACS} visits")
    if workload.macs >= MAX_MACS:
        raise InputError("too many multiply-accumulates", value=workload.macs, allowed=f"below {MAX_MACS}")


def _check_gemm(op: Gemm) -> None:
    for axis, length in (("m", op.m), ("k", op.k), ("n", op.n), ("batch", op.batch)):
        if not 1 <= length <= MAX_DIMENSION:
            raise InputError(
                "out of range", key=f"{op.name}.{axis}", value=length, allowed=f"1 to {MAX_DIMENSION}"
            )
    if op.batch % op.weight_reuse:
        raise InputError("heads must be a multiple of the key/value heads", key=op.name, value=op.batch)
    sizes = [
        ("weights", op.weights.size * op.weight_reuse, op.batch * op.n * op.k),
        ("output", op.output.size, op.batch * op.m * op.n),
    ]
    if op.conv is None:
        sizes.append(("activations", op.activations.size, op.batch * op.m * op.k))
    for operand, has, needs in sizes:
        appends = operand == "output" and op.output.kind == "kv" and has > needs
        if has != needs and not appends:
            raise InputError(
                f"tensor of {has} values where the product needs {needs}", key=f"{op.name}.{operand}"
            )
