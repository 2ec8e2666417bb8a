"""A BERT-like encoder run on real tokens in numpy, with a matrix product of the caller's choice.

Everything but the products is float32: embeddings, layer norms, softmax, GELU, residuals, and biases, which are added
to what a product returns. With `float_product` that is the reference; with `machine_product` it is the network as an
accelerator computes it, bit for bit, and `run_network` gives the time and energy of that very run beside it.

Devlin et al., BERT, NAACL 2019, section 3; Vaswani et al., NeurIPS 2017, section 3.2; Ba et al., Layer Normalization,
arXiv:1607.06450; Hendrycks and Gimpel, arXiv:1606.08415 (GELU, with the normal distribution function itself).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.arch import Accelerator
from simulator.engine.outputs import gemm_values, operands_of
from simulator.errors import InputError
from simulator.formats import dequantize, quantize
from simulator.mapping import plan_gemm
from simulator.report import Report
from simulator.study.run import run_workload
from simulator.workload import Gemm, Stored, TensorRef, Workload, stored_vector, tensor_values, with_captured

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float32]
Product = Callable[[Gemm, Floats, Floats], npt.NDArray[Any]]
"""(operation, activations (m, k), weights (n, k)) -> (m, n). Attention's products have a leading axis: activations
(batch, m, k), keys or values (batch, n, k), results (batch, m, n)."""

EPSILON = 1e-12
"""Added to the variance by layer norm: ``layer_norm_eps`` of BERT's and MiniLM's config.json."""


def float_product(operation: Gemm, activations: Floats, weights: Floats) -> Floats:
    """The product in float32."""
    product: Floats = activations @ np.swapaxes(weights, -1, -2)
    return product


def format_product(operation: Gemm, activations: Floats, weights: Floats) -> Floats:
    """The product of both operands in the operation's formats, added up in float64 and rounded once: what the formats
    lose, with nothing lost in the arithmetic."""
    operands = ((activations, operation.activations.format), (weights, operation.weights.format))
    left, right = (dequantize(quantize(values, name), np.float64) for values, name in operands)
    product: Floats = (left @ np.swapaxes(right, -1, -2)).astype(np.float32)
    return product


def machine_product(accelerator: Accelerator) -> Product:
    """The product as an accelerator computes it, bit for bit: operands quantized and decoded, partial sums as its array
    forms them, its rescale unit and output stage, and the operation's output format."""

    def product(operation: Gemm, activations: Floats, weights: Floats) -> Floats:
        plan = plan_gemm(operation, accelerator)
        left = quantize(activations.reshape(-1, operation.k), operation.activations.format)
        right = quantize(weights.reshape(-1, operation.k), operation.weights.format)
        results = gemm_values(plan, operands_of(plan, accelerator.element, right, left))
        written = dequantize(quantize(results.reshape(-1, operation.n), operation.output.format))
        return written.reshape(*activations.shape[:-1], operation.n)

    return product


def encode(
    workload: Workload, tokens: npt.ArrayLike, product: Product = float_product
) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor that the network writes, under its name and in its shape in ``workload``, in order; the last one is
    the network's output.

    ``tokens``: (batch, prefill) word numbers, sentences of equal length, all of them attended to. Keys and values are
    those before quantization, in the layout of their cache. Raises InputError: another family than bert, weights that
    no checkpoint holds, tokens of another shape or beyond the vocabulary.
    """
    numbers = _checked(workload, tokens)
    return _Encoder(workload, product).run(numbers)


def sqnr_db(reference: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """Signal to quantization noise: 10 log10(sum r^2 / sum (r - f)^2), in dB; infinite where nothing differs."""
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(np.subtract(reference, found, dtype=np.float64)).sum())
    return 10 * math.log10(signal / noise) if noise and signal else math.inf


def product_sqnr_db(
    workload: Workload, reference: Mapping[str, Floats], found: Mapping[str, Floats]
) -> dict[str, float]:
    """`sqnr_db` of what each matrix product writes, biases added, and of the network's output under ``output``, between
    two runs of `encode`."""
    names = {_written(workload, gemm).name: gemm.name for gemm in workload.gemms}
    names[list(reference)[-1]] = "output"
    return {names[name]: sqnr_db(reference[name], found[name]) for name in reference if name in names}


@dataclass(frozen=True)
class NetworkRun:
    """A network on real tokens on one accelerator: what it computed, in which time, with which energy."""

    workload: Workload
    report: Report
    tensors: Mapping[str, Floats]
    """What `encode` gave, computed by the accelerator."""
    reference: Mapping[str, Floats]
    """What it gives in float32."""

    @property
    def products(self) -> pd.DataFrame:
        """A row a matrix product: ``name``, ``cycles``, ``energy_pj``, and ``sqnr_db`` of what it writes."""
        noise = product_sqnr_db(self.workload, self.reference, self.tensors)
        layers = self.report.layers
        rows = layers.loc[layers["name"].isin(noise), ["name", "cycles", "energy_pj"]]
        return rows.assign(sqnr_db=[noise[name] for name in rows["name"]]).reset_index(drop=True)

    @property
    def blocks(self) -> pd.DataFrame:
        """A row a layer of the network (``layers.0``, ...), its vector work included, then ``output``, the whole of it:
        ``block``, ``cycles``, ``energy_pj``, and ``sqnr_db`` of what it writes."""
        import pandas as pd

        layers = self.report.layers
        rows: list[tuple[str, int, float, float]] = []
        for index in range(self.workload.phase.layers or self.workload.config["model"]["layers"]):
            own = layers[layers["name"].str.startswith(f"layers.{index}.")]
            noise = self._sqnr_db(f"layers.{index}.mlp.norm.output")
            rows.append((f"layers.{index}", int(own["cycles"].sum()), own["energy_pj"].sum(), noise))
        rows.append(("output", self.report.cycles, self.report.energy_pj, self.output_sqnr_db))
        return pd.DataFrame(rows, columns=["block", "cycles", "energy_pj", "sqnr_db"])

    @property
    def output_sqnr_db(self) -> float:
        """Signal to quantization noise of the network's output, against float32."""
        return self._sqnr_db(list(self.reference)[-1])

    def _sqnr_db(self, tensor: str) -> float:
        return sqnr_db(self.reference[tensor], self.tensors[tensor])


def run_network(
    workload: Workload,
    accelerator: Accelerator,
    tokens: npt.ArrayLike,
    *,
    reference: Mapping[str, Floats] | None = None,
    engine: str = "fast",
) -> NetworkRun:
    """Run ``tokens`` through the network as ``accelerator`` computes it, and simulate that run: time and energy that
    depend on data are those of the codes that the machine itself made. ``reference``: what `encode` gives in float32,
    computed unless given."""
    exact = encode(workload, tokens) if reference is None else reference
    found = encode(workload, tokens, machine_product(accelerator))
    report = run_workload(with_captured(workload, found), accelerator, engine=engine)
    return NetworkRun(workload, report, found, exact)


def save_operands(workload: Workload, tensors: Mapping[str, Floats], path: Path) -> None:
    """Write what the matrix products read, of the tensors of `encode`, as float16 to a safetensors file that ``values:
    {activations: {safetensors: PATH}, kv: {safetensors: PATH}}`` of a workload file names."""
    from safetensors.numpy import save_file

    read = [tensor for gemm in workload.gemms for tensor in gemm.inputs if not tensor.static]
    names = dict.fromkeys(tensor.stream or tensor.name for tensor in read)
    save_file({name: tensors[name].astype(np.float16) for name in names}, path)


class _Encoder:
    """One run: the operations by name, and the tensors written so far."""

    def __init__(self, workload: Workload, product: Product) -> None:
        self.workload, self.product = workload, product
        self.model = workload.config["model"]
        self.gemms = {gemm.name: gemm for gemm in workload.gemms}
        self.outputs = {operation.name: operation.output for operation in workload.operations}
        self.tensors: dict[str, Floats] = {}

    def run(self, tokens: npt.NDArray[np.intp]) -> dict[str, Floats]:
        x = self.embeddings(tokens)
        for layer in range(self.workload.phase.layers or self.model["layers"]):
            block = f"layers.{layer}"
            y = self.linear(f"{block}.attention.output", self.attention(f"{block}.attention", x))
            x = self.add_and_norm(f"{block}.attention", y, x)
            y = self.linear(f"{block}.mlp.up", x)
            y = self.put(f"{block}.mlp.activation", ACTIVATIONS[self.model["activation"]](y))
            x = self.add_and_norm(f"{block}.mlp", self.linear(f"{block}.mlp.down", y), x, "down")
        sentences = x.reshape(*tokens.shape, -1)
        if self.model["pooling"] == "mean":
            self.put("pooling", sentences.mean(axis=1))
        elif self.model["pooling"] == "cls":
            y = self.linear("pooler", self.put("pooler.token", sentences[:, 0]))
            self.put("pooler.activation", np.tanh(y))
        return self.tensors

    def embeddings(self, tokens: npt.NDArray[np.intp]) -> Floats:
        """Sum of the word, position and token type embeddings, normalised: (tokens, hidden)."""
        positions = np.tile(np.arange(tokens.shape[1]), len(tokens))
        x = self.put("embedding.word", self.rows_of("embedding.word.weight", tokens.ravel()))
        x = self.put("embedding.position", x + self.rows_of("embedding.position.weight", positions))
        types = np.zeros_like(positions)  # one sentence, not a pair
        x = self.put("embedding.token_type", x + self.rows_of("embedding.token_type.weight", types))
        return self.norm("embedding.norm", x, self.workload.tensors["embedding.word.weight"])

    def attention(self, name: str, x: Floats) -> Floats:
        """Heads' results side by side, (tokens, hidden), of x (tokens, hidden)."""
        sentences, heads = self.workload.phase.batch, self.model["heads"]

        def per_head(projected: Floats) -> Floats:
            split = projected.reshape(sentences, -1, heads, projected.shape[-1] // heads)
            return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(
                sentences * heads, -1, split.shape[-1]
            )

        scores, context = self.gemms[f"{name}.scores"], self.gemms[f"{name}.context"]
        query = self.put(f"{name}.query", per_head(self.projection(f"{name}.query", x)))
        keys = self.keep(scores.weights, per_head(self.projection(f"{name}.key", x)))
        values = per_head(self.projection(f"{name}.value", x)).transpose(0, 2, 1)
        values = self.keep(context.weights, np.ascontiguousarray(values))
        attended = self.put(scores.name, self.product(scores, query, keys))
        shares = self.put(f"{name}.softmax", softmax(attended / np.float32(math.sqrt(query.shape[-1]))))
        merged = self.product(context, shares, values).reshape(sentences, heads, -1, query.shape[-1])
        return self.put(context.name, merged.transpose(0, 2, 1, 3))

    def projection(self, name: str, x: Floats) -> Floats:
        """A linear layer of x (rows, k): (rows, n)."""
        gemm = self.gemms[name]
        weights = tensor_values(self.workload, gemm.weights.name)
        y: Floats = self.product(gemm, x, weights).astype(np.float32)
        return y + stored_vector(gemm.weights, "bias") if gemm.bias else y

    def linear(self, name: str, x: Floats) -> Floats:
        return self.put(name, self.projection(name, x))

    def add_and_norm(self, name: str, y: Floats, x: Floats, last: str = "output") -> Floats:
        """Layer norm of the residual sum. The checkpoint keeps it beside the layer that was added."""
        total = self.put(f"{name}.residual", y + x)
        return self.norm(f"{name}.norm", total, self.gemms[f"{name}.{last}"].weights)

    def norm(self, name: str, x: Floats, beside: TensorRef) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        gamma, beta = (stored_vector(beside, f"LayerNorm.{part}", up=1) for part in ("weight", "bias"))
        return self.put(name, centred / deviation * gamma + beta)

    def rows_of(self, table: str, rows: npt.NDArray[np.intp]) -> Floats:
        return tensor_values(self.workload, table, rows)

    def put(self, operation: str, values: npt.NDArray[Any]) -> Floats:
        """What an operation writes, in the shape of its output."""
        return self.keep(self.outputs[operation], values)

    def keep(self, tensor: TensorRef, values: npt.NDArray[Any]) -> Floats:
        kept = np.ascontiguousarray(values, dtype=np.float32).reshape(tensor.shape)
        self.tensors[tensor.name] = kept
        return kept


def softmax(x: Floats) -> Floats:
    powers: Floats = np.exp(x - x.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def gelu(x: Floats) -> Floats:
    """x times the normal distribution function, in float64, rounded once."""
    erf = np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)).astype(np.float64)
    y: Floats = (0.5 * x * (1.0 + erf)).astype(np.float32)
    return y


def relu(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0))


def silu(x: Floats) -> Floats:
    y: Floats = x * (np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x))
    return y


ACTIVATIONS: Mapping[str, Callable[[Floats], Floats]] = {"gelu": gelu, "relu": relu, "silu": silu}


def _written(workload: Workload, gemm: Gemm) -> TensorRef:
    """Where `encode` keeps what a product gives: its output, or for new keys and values the cache that they go to."""
    prefix, _, part = gemm.name.rpartition(".")
    reader = {"key": f"{prefix}.scores", "value": f"{prefix}.context"}.get(part)
    return next((other.weights for other in workload.gemms if other.name == reader), gemm.output)


def _checked(workload: Workload, tokens: npt.ArrayLike) -> npt.NDArray[np.intp]:
    model = workload.config.get("model") or {}
    if model.get("family") != "bert":
        raise InputError(
            "cannot be run on tokens", key=workload.name, value=model.get("family"), allowed="family: bert"
        )
    if not all(isinstance(gemm.weights.values, Stored) for gemm in workload.gemms if gemm.weights.static):
        raise InputError(
            "runs on real weights only", key=workload.name, allowed="; ".join(workload.notes) or None
        )
    numbers = np.asarray(tokens)
    expected = (workload.phase.batch, workload.phase.prefill)
    if numbers.dtype.kind not in "iu" or numbers.shape != expected:
        found = f"{numbers.dtype} {numbers.shape}"
        raise InputError(
            "not the tokens of this run", key="tokens", value=found, allowed=f"integers {expected}"
        )
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < model["vocab"]:
        wrong = int(numbers[(numbers < 0) | (numbers >= model["vocab"])][0])
        raise InputError(
            "no word of the vocabulary", key="tokens", value=wrong, allowed=f"0 to {model['vocab'] - 1}"
        )
    return numbers.astype(np.intp)
