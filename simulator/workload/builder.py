"""Puts a workload together, operation by operation: names, formats, requantization and the parameter count.

Formats change hands here: what an operation writes is in the output format; where a product reads its
operand in another format, a quantize operation is put in between, once per tensor and format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from simulator.errors import InputError, nearest
from simulator.formats import get_format
from simulator.workload.operations import Conv, Gemm, Operation, TensorRef, VectorOp
from simulator.workload.sources import LAPLACE, NORMAL, Stored, Synthetic, ValueSource
from simulator.workload.vector import passes

SHAPES_VALUES = ("relu", "softmax")
"""Operations that synthetic values of their output are put through."""
KEEPS_SIGN = ("max_pool", "average_pool", "gather")
"""Operations whose output is drawn like their input."""


class Formats(NamedTuple):
    """Format names of the operands of a product."""

    weights: str
    activations: str
    kv: str
    output: str
    input: str | None = None
    """Of what the network is given; ``output`` unless given."""


@dataclass(frozen=True)
class Sources:
    """Where values are from, by kind of tensor; ``stored`` (by kind, then tensor name) goes before the
    distributions."""

    weights: Synthetic = NORMAL
    activations: Synthetic = LAPLACE
    kv: Synthetic = LAPLACE
    stored: Mapping[str, Mapping[str, Stored]] | None = None


class Builder:
    """Collects the operations of one workload. Methods return the tensor that the operation writes."""

    def __init__(
        self,
        formats: Formats,
        *,
        layers: Mapping[str, Mapping[str, str]] | None = None,
        sources: Sources | None = None,
        static_scales: bool = False,
    ) -> None:
        """``layers``: pattern of operation names -> operand -> format. ``static_scales``: activations
        are requantized by calibrated scales, without a pass that looks for the maximum."""
        self.operations: list[Operation] = []
        self.tensors: dict[str, TensorRef] = {}
        self.parameters = 0
        self._formats = formats
        self._layers = dict(layers or {})
        self._unmatched = set(self._layers)
        self._sources = sources or Sources()
        self._stored = self._sources.stored or {}
        self._static_scales = static_scales
        self._quantized: dict[str, dict[str, TensorRef]] = {}

    @property
    def output_format(self) -> str:
        """Format of what operations write."""
        return self._formats.output

    def input(self, name: str, shape: tuple[int, ...]) -> TensorRef:
        """A tensor that the network is given."""
        return self._tensor(name, shape, self._formats.input or self.output_format)

    def table(self, name: str, shape: tuple[int, int]) -> TensorRef:
        """Trained parameters that are looked up, not multiplied: an embedding, in the output format."""
        self.parameters += shape[0] * shape[1]
        return self._tensor(name, shape, self.output_format, kind="weights", static=True)

    def gemm(
        self,
        name: str,
        activations: TensorRef,
        n: int,
        *,
        batch: int = 1,
        bias: bool = False,
        shape: tuple[int, ...] | None = None,
        tied: bool = False,
        output: TensorRef | None = None,
    ) -> TensorRef:
        """A linear layer (n outputs) over the rows of ``activations``; ``shape`` is its output's, (batch
        * m, n) unless given. ``tied`` weights are counted elsewhere; ``batch`` products have weights of
        their own."""
        formats = self.formats_of(name)
        k = activations.k
        m = activations.rows // batch
        weights = self._tensor(f"{name}.weight", (batch * n, k), formats.weights, kind="weights", static=True)
        operand = self.quantized(activations, formats.activations)
        if output is None:
            output = self._tensor(f"{name}.output", shape or (batch * m, n), self.output_format)
        self.operations.append(Gemm(name, "gemm", m, k, n, batch, weights, operand, output, bias=bias))
        self.parameters += (0 if tied else batch * n * k) + (batch * n if bias else 0)
        return output

    def conv(
        self, name: str, activations: TensorRef, conv: Conv, *, bias: bool, flatten: bool = False
    ) -> TensorRef:
        """A convolution of a feature map (images, height, width, channels), lowered by im2col;
        ``flatten``: scale groups of the weights run across kernel positions."""
        formats = self.formats_of(name)
        images = activations.shape[0]
        cin = conv.in_channels // conv.groups
        n = conv.out_channels // conv.groups
        k = conv.kernel[0] * conv.kernel[1] * cin
        weights = self._tensor(
            f"{name}.weight", (conv.out_channels, k), formats.weights, kind="weights", static=True
        )
        if not flatten and get_format(formats.weights).group_size:
            weights = self._add(replace(weights, group_span=cin))
        _check_scales(name, formats.activations, conv)
        operand = self.quantized(activations, formats.activations)
        if get_format(formats.activations).group_size:
            operand = replace(operand, group_span=cin)
        shape = (images, conv.out_height, conv.out_width, conv.out_channels)
        output = self._tensor(f"{name}.output", shape, self.output_format)
        m = images * conv.out_height * conv.out_width
        self.operations.append(
            Gemm(name, "conv", m, k, n, conv.groups, weights, operand, output, conv=conv, bias=bias)
        )
        self.parameters += conv.out_channels * k + (conv.out_channels if bias else 0)
        return output

    def attention(
        self,
        name: str,
        activations: TensorRef,
        operand: TensorRef,
        *,
        weight_reuse: int,
        shape: tuple[int, ...] | None = None,
    ) -> TensorRef:
        """One of attention's products: (batch, m, k) by (batch / weight_reuse, n, k)."""
        batch, m, k = activations.shape
        n = operand.shape[-2]
        formats = self.formats_of(name)
        left = self.quantized(activations, formats.activations)
        output = self._tensor(f"{name}.output", shape or (batch, m, n), self.output_format)
        self.operations.append(
            Gemm(name, "attention", m, k, n, batch, operand, left, output, weight_reuse=weight_reuse)
        )
        return output

    def vector(
        self,
        name: str,
        op: str,
        *inputs: TensorRef,
        shape: tuple[int, ...] | None = None,
        elements: int | None = None,
        parameters: int = 0,
        output: TensorRef | None = None,
    ) -> TensorRef:
        """Work of the vector unit; its output has the first input's shape and it visits every value of
        the output, unless given. ``parameters`` of a norm are counted, not listed."""
        if output is None:
            after = inputs[0].after if op in KEEPS_SIGN else op if op in SHAPES_VALUES else ""
            output = self._tensor(f"{name}.output", shape or inputs[0].shape, self.output_format, after=after)
        count = output.size if elements is None else elements
        self.operations.append(VectorOp(name, op, count, passes(op), inputs, output))
        self.parameters += parameters
        return output

    def operand(self, name: str, product: str, shape: tuple[int, ...]) -> TensorRef:
        """The first operand of attention's product named ``product``, in that product's activation format."""
        return self._tensor(name, shape, self.formats_of(product).activations)

    def cache(self, name: str, product: str, shape: tuple[int, ...]) -> TensorRef:
        """The second operand of attention's product named ``product``, in the key/value format of that
        product."""
        return self._tensor(name, shape, self.formats_of(product).kv, kind="kv")

    def append(
        self, name: str, tensor: TensorRef, target: TensorRef, *, rows_are_tokens: bool = True
    ) -> TensorRef:
        """Requantize new keys or values into their cache, or queries into head-major order. A scale that
        new tokens share with those already in the cache is fixed beforehand; a token's own scale is
        found by a pass."""
        kind = get_format(target.format)
        shared = not kind.group_bits and not (kind.row_bits and rows_are_tokens)
        self._requantize(name, tensor, target, static=self._static_scales or (target.kind == "kv" and shared))
        return target

    def quantized(self, tensor: TensorRef, format: str) -> TensorRef:
        """``tensor`` in ``format``: itself, or what a quantize operation makes of it, once for all that
        read it."""
        if tensor.format == format:
            return tensor
        copies = self._quantized.setdefault(tensor.name, {})
        if format not in copies:
            suffix = f".{format}" if copies else ""
            name = f"{tensor.name}.quantized{suffix}"
            copy = replace(tensor, name=name, format=format, stream=tensor.stream or tensor.name)
            copies[format] = self._add(copy)
            operation = f"{tensor.name.removesuffix('.output')}.quantize{suffix}"
            self._requantize(operation, tensor, copy, static=self._static_scales)
        copy = copies[format]
        return copy if copy.shape == tensor.shape else replace(copy, shape=tensor.shape)

    def _requantize(self, name: str, tensor: TensorRef, target: TensorRef, *, static: bool) -> None:
        kind = get_format(target.format)
        if tensor.format == target.format:
            op = "gather"
        elif kind.group_bits or kind.row_bits or kind.tensor_bits:
            op = "quantize_static" if static else "quantize"
        else:
            op = "cast"
        self.vector(name, op, tensor, elements=tensor.size, output=target)

    def flattened(self, tensor: TensorRef) -> TensorRef:
        """A feature map (images, h, w, c) seen as (images, h * w * c); the same tensor in memory."""
        return replace(tensor, shape=(tensor.shape[0], tensor.size // tensor.shape[0]))

    def formats_of(self, name: str) -> Formats:
        """Formats of the operands of operation ``name``: the default ones, then each pattern that fits,
        in order."""
        formats = self._formats
        for pattern, given in self._layers.items():
            if fnmatchcase(name, pattern):
                self._unmatched.discard(pattern)
                formats = formats._replace(**given)
        return formats

    def finish(self) -> None:
        """Raise InputError if a pattern of ``layers`` fits no product."""
        if self._unmatched:
            pattern = sorted(self._unmatched)[0]
            products = [op.name for op in self.operations if isinstance(op, Gemm)]
            raise InputError(
                "no matrix product has a name like this",
                key="formats.layers",
                value=pattern,
                allowed=nearest(pattern, products),
            )

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        format: str,
        *,
        kind: str = "activations",
        static: bool = False,
        after: str = "",
    ) -> TensorRef:
        values: ValueSource | None = self._stored.get(kind, {}).get(name)
        if values is None:
            values = getattr(self._sources, kind)
        return self._add(TensorRef(name, shape, format, static, kind, values, "", after))

    def _add(self, tensor: TensorRef) -> TensorRef:
        self.tensors[tensor.name] = tensor
        return tensor


def _check_scales(name: str, format: str, conv: Conv) -> None:
    """Raise InputError where scales of a feature map do not factor out of the sums of a convolution."""
    kind = get_format(format)
    cin = conv.in_channels // conv.groups
    key = f"{name}.activations"
    if kind.row_bits and conv.kernel != (1, 1):
        raise InputError(
            "a scale per pixel does not factor out of a window of several pixels",
            key=key,
            value=format,
            allowed="one scale for the tensor, or groups",
        )
    if kind.group_size and conv.groups > 1 and cin % kind.group_size:
        raise InputError(
            f"scale groups of {kind.group_size} channels cross the convolution's groups of {cin}",
            key=key,
            value=format,
            allowed=f"one scale for the tensor, or groups that divide {cin}",
        )
