"""The rows of ``operations:`` in a workload file, and the operations that they stand for.

A row reads what the row before it wrote unless ``input`` names another row (or the network's ``input``, or
``new``: a tensor of the row's own). Sizes that follow from the input may be left out; where given, they
must agree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field

from simulator.config import validate
from simulator.errors import InputError, nearest
from simulator.workload.builder import Builder
from simulator.workload.document import Name
from simulator.workload.operations import MAX_DIMENSION, Conv, TensorRef
from simulator.workload.schema import Count, Model

Pair = Count | Annotated[list[Count], Field(min_length=2, max_length=2)]
Pad = Annotated[int, Field(ge=0, le=2**31)]
Padding = Pad | Annotated[list[Pad], Field(min_length=2, max_length=4)]
Activation = Literal["relu", "gelu", "silu", "tanh"]


class Row(Model):
    """Keys of every row."""

    op: str
    name: Name
    input: Name | None = None
    """Row whose output this one reads, ``input``, or ``new``; the row before unless given."""


class ConvRow(Row):
    """A two-dimensional convolution."""

    in_: Annotated[list[Count], Field(min_length=3, max_length=3)] | None = Field(default=None, alias="in")
    """[height, width, channels] of its input."""
    out: Count
    """Output channels."""
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    """All sides, [height, width] or [top, bottom, left, right]."""
    dilation: Pair = 1
    groups: Count = 1
    bias: bool = False
    norm: Literal["batch"] | None = None
    """A batch norm follows, folded into weights and bias: two trained parameters a channel, no work of
    its own."""
    activation: Activation | None = None
    flatten: bool = False
    """Scale groups of the weights run across kernel positions."""


class GemmRow(Row):
    """A linear layer, or ``batch`` independent products with weights of their own."""

    m: Count | None = None
    k: Count | None = None
    n: Count
    batch: Count = 1
    bias: bool = False
    activation: Activation | None = None


class AttentionRow(Row):
    """Both products of attention and the softmax between them."""

    heads: Count
    kv_heads: Count | None = None
    head_dim: Count
    queries: Count
    keys: Count
    query: Name | None = None
    """Row that wrote the queries (rows, heads * head_dim); a tensor of its own unless given. ``key``,
    ``value`` alike."""
    key: Name | None = None
    value: Name | None = None


class PoolRow(Row):
    """Maximum or average of each window of a feature map; ``kernel: global`` is the whole map."""

    kernel: Pair | Literal["global"]
    stride: Pair | None = None
    """The kernel's size unless given."""
    padding: Padding = 0


class VectorRow(Row):
    """Work of the vector unit on one tensor, or on two of one shape (``with``: the other)."""

    with_: Name | None = Field(default=None, alias="with")
    shape: Annotated[list[Count], Field(min_length=1, max_length=4)] | None = None
    """Shape of an input of its own, without batch."""
    activation: Activation | None = None


PAIRED = ("add", "multiply", "swiglu", "geglu")
"""Vector operations of two operands."""
UNARY = ("relu", "gelu", "silu", "tanh", "softmax", "layernorm", "rmsnorm", "rope")
POOLS = ("max_pool", "average_pool")


class Network:
    """The operations list so far: what each row wrote."""

    def __init__(self, b: Builder, batch: int, file: object, given: Sequence[int] | None) -> None:
        self.b = b
        self.batch = batch
        self.file = file
        self.outputs: dict[str, TensorRef] = {}
        self.last: TensorRef | None = None
        if given is not None:
            self.last = self.outputs["input"] = b.input("input", self.per_batch(given))

    def per_batch(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape of one item -> of the batch: a map gets an axis in front, the rows of a matrix are
        multiplied."""
        if len(shape) == 3:
            return (self.batch, *shape)
        return (self.batch * prod(shape[:-1]), shape[-1])

    def source(self, row: Row, key: str, given: Sequence[int] | None) -> TensorRef:
        """The tensor that a row reads; ``given``: the shape that the row says it has, without batch."""
        if row.input == "new" or (row.input is None and self.last is None):
            if given is None:
                raise self.error(key, "the sizes of a new input are needed")
            name = f"{row.name}.input" if self.last is not None or row.input == "new" else "input"
            tensor = self.b.input(name, self.per_batch(given))
            self.outputs.setdefault(name, tensor)
            return tensor
        known = self.last if row.input is None else self.tensor(row.input, f"{key}.input")
        assert known is not None, "a row without input reads the row before, or is the first"
        if given is not None and self.per_batch(given) != known.shape:
            raise self.error(
                key,
                f"its input {known.name} has another shape than the row says",
                value=list(given),
                allowed=f"{list(known.shape)} with batch {self.batch}, or `input: new`",
            )
        return known

    def tensor(self, name: str, key: str) -> TensorRef:
        """What the row ``name`` wrote."""
        if name not in self.outputs:
            raise self.error(
                key, "no row of this name before this one", value=name, allowed=nearest(name, self.outputs)
            )
        return self.outputs[name]

    def error(
        self, key: str, problem: str, *, value: object = None, allowed: str | None = None
    ) -> InputError:
        return InputError(problem, file=self.file, key=key, value=value, allowed=allowed)


def add_row(net: Network, data: Mapping[str, Any], index: int) -> None:
    """Check one row and put its operations into the workload."""
    key = f"operations[{index}]"
    op = data.get("op")
    if not isinstance(op, str) or op not in OPERATIONS:
        raise net.error(
            f"{key}.op", "no operation of this name", value=op, allowed=nearest(str(op), OPERATIONS)
        )
    model, lower = OPERATIONS[op]
    row = validate(model, data, prefix=key, source=net.file)
    if row.name in net.outputs or row.name in ("input", "new"):
        raise net.error(f"{key}.name", "this name is taken", value=row.name)
    output = lower(net, row, key)
    activation = getattr(row, "activation", None)
    if activation is not None:
        output = net.b.vector(f"{row.name}.{activation}", activation, output)
    net.outputs[row.name] = net.last = output


def _conv(net: Network, row: ConvRow, key: str) -> TensorRef:
    x = net.source(row, key, row.in_)
    conv = _window(net, x, key, row.kernel, row.stride, row.padding, row.dilation, row.out, row.groups)
    for name, channels in (("in", conv.in_channels), ("out", conv.out_channels)):
        if channels % row.groups:
            raise net.error(
                f"{key}.groups", f"must divide the {name} channels ({channels})", value=row.groups
            )
    y = net.b.conv(row.name, x, conv, bias=row.bias or row.norm is not None, flatten=row.flatten)
    if row.norm is not None:
        net.b.parameters += row.out if not row.bias else 2 * row.out
    return y


def _gemm(net: Network, row: GemmRow, key: str) -> TensorRef:
    standalone = row.input == "new" or (row.input is None and net.last is None)
    if standalone:
        if row.m is None or row.k is None:
            raise net.error(key, "m and k of a new input are needed")
        x = net.source(row, key, (row.batch * row.m, row.k))
    else:
        x = net.source(row, key, None)
        if len(x.shape) == 4:
            x = net.b.flattened(x)
        rows = x.rows // net.batch
        for name, given, has in (("m", row.m, rows // row.batch), ("k", row.k, x.k)):
            if given is not None and given != has:
                raise net.error(
                    f"{key}.{name}",
                    f"its input {x.name} has {has}",
                    value=given,
                    allowed=f"{has}, or `input: new`",
                )
        if rows % row.batch:
            raise net.error(f"{key}.batch", f"must divide the {rows} rows of its input", value=row.batch)
    return net.b.gemm(row.name, x, row.n, batch=row.batch, bias=row.bias)


def _attention(net: Network, row: AttentionRow, key: str) -> TensorRef:
    kv_heads = row.kv_heads or row.heads
    if row.heads % kv_heads:
        raise net.error(f"{key}.kv_heads", f"must divide heads ({row.heads})", value=kv_heads)
    if row.input is not None:
        raise net.error(f"{key}.input", "attention reads query, key and value", value=row.input)
    b, scores, context = net.b, f"{row.name}.scores", f"{row.name}.context"
    kv = net.batch * kv_heads
    query = b.operand(f"{row.name}.query", scores, (net.batch * row.heads, row.queries, row.head_dim))
    keys = b.cache(f"{row.name}.key", scores, (kv, row.keys, row.head_dim))
    values = b.cache(f"{row.name}.value", context, (kv, row.head_dim, row.keys))
    for part, name, target in (
        ("query", row.query, query),
        ("key", row.key, keys),
        ("value", row.value, values),
    ):
        if name is None:
            continue
        written = net.tensor(name, f"{key}.{part}")
        if (
            written.size > target.size
            or target.size % written.size
            or (part == "query" and written.size != target.size)
        ):
            raise net.error(
                f"{key}.{part}",
                f"{name} has {written.size} values where attention needs {target.size}",
            )
        b.append(f"{row.name}.{part}.quantize", written, target, rows_are_tokens=part != "value")
    product = b.attention(scores, query, keys, weight_reuse=row.heads // kv_heads)
    shares = b.vector(f"{row.name}.softmax", "softmax", product)
    merged = (net.batch * row.queries, row.heads * row.head_dim)
    return b.attention(context, shares, values, weight_reuse=row.heads // kv_heads, shape=merged)


def _pool(net: Network, row: PoolRow, key: str) -> TensorRef:
    x = net.source(row, key, None)
    if row.kernel == "global":
        if len(x.shape) != 4:
            raise net.error(key, "pooling needs a feature map", value=x.name)
        if row.stride is not None or row.padding != 0:
            raise net.error(f"{key}.kernel", "a global pool has no stride and no padding")
        kernel: int | list[int] = list(x.shape[1:3])
    else:
        kernel = row.kernel
    stride = kernel if row.stride is None else row.stride
    window = _window(net, x, key, kernel, stride, row.padding, 1, x.k, x.k)
    shape = (x.shape[0], window.out_height, window.out_width, x.k)
    return net.b.vector(row.name, row.op, x, shape=shape, elements=prod(shape) * prod(window.kernel))


def _vector(net: Network, row: VectorRow, key: str) -> TensorRef:
    x = net.source(row, key, row.shape)
    paired = row.op in PAIRED
    if paired != (row.with_ is not None):
        problem = "names its second operand" if paired else "has one operand only"
        raise net.error(f"{key}.with", f"{row.op} {problem}", value=row.with_)
    inputs = [x]
    if row.with_ is not None:
        other = net.tensor(row.with_, f"{key}.with")
        if other.shape != x.shape:
            raise net.error(
                f"{key}.with", f"{row.with_} has shape {list(other.shape)}, {x.name} {list(x.shape)}"
            )
        inputs.append(other)
    trained = {"layernorm": 2 * x.k, "rmsnorm": x.k}.get(row.op, 0)
    return net.b.vector(row.name, row.op, *inputs, parameters=trained)


def _window(
    net: Network,
    x: TensorRef,
    key: str,
    kernel: int | list[int],
    stride: int | list[int],
    padding: int | list[int],
    dilation: int | list[int],
    out: int,
    groups: int,
) -> Conv:
    """Geometry of a window over a feature map. Raises InputError: not a map, or a window that does not
    fit it."""
    if len(x.shape) != 4:
        raise net.error(key, "needs a feature map (h, w, c)", value=x.name)
    _, height, width, channels = x.shape
    pads = [padding] if isinstance(padding, int) else padding
    if len(pads) == 3:
        raise net.error(f"{key}.padding", "one number, [h, w] or [top, bottom, left, right]", value=padding)
    top, bottom, left, right = {1: pads * 4, 2: [v for v in pads for _ in "ab"], 4: pads}[len(pads)]
    conv = Conv(
        in_height=height,
        in_width=width,
        in_channels=channels,
        out_channels=out,
        kernel=_pair(kernel),
        stride=_pair(stride),
        padding=(top, bottom, left, right),
        dilation=_pair(dilation),
        groups=groups,
    )
    if conv.out_height < 1 or conv.out_width < 1:
        raise net.error(
            f"{key}.kernel",
            f"the window does not fit the {height} x {width} map with its padding",
            value=kernel,
        )
    if max(conv.out_height, conv.out_width) > MAX_DIMENSION:
        raise net.error(f"{key}.padding", "the padded map is too large", value=padding)
    return conv


def _pair(value: int | list[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


OPERATIONS: Mapping[str, tuple[type[Any], Callable[[Network, Any, str], TensorRef]]] = {
    "conv": (ConvRow, _conv),
    "gemm": (GemmRow, _gemm),
    "attention": (AttentionRow, _attention),
    **dict.fromkeys(POOLS, (PoolRow, _pool)),
    **dict.fromkeys((*PAIRED, *UNARY), (VectorRow, _vector)),
}
"""Value of ``op`` -> model of the row, and what puts it into the workload."""
