"""What an operation computes, bit for bit: partial sums of folds, the rescale unit, the output stage.

`Outputs` holds what the output buffer holds; the reference engine hands it the results that its registers give.
`gemm_values` computes the same results without time: every fold's arithmetic is elementwise in m and n, so that all
rows and columns advance together through the steps of K.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from simulator.array.folds import KChunk
from simulator.array.rescale import UNIT, Operand, accumulate_scaled, correct, finish, operand
from simulator.engine.streams import pieces_of, placed
from simulator.errors import InputError
from simulator.formats import Format, QuantizedTensor
from simulator.mapping import Plan
from simulator.pe.arithmetic import FP32, Integers
from simulator.pe.protocol import Function, ProcessingElement, Scales

Exact = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Operands:
    """Values for a run that computes results: both operands as the PEs receive them, and the PEs' arithmetic."""

    weights: Operand
    activations: Operand
    function: Function

    def scales(self, plan: Plan, batch: int, m: slice, n: slice, low: int, high: int) -> Scales:
        """What PEs that apply scales need for a step on K [low, high): of rows n of the weights and m of the
        activations, one value each."""
        entry = batch // plan.weight_reuse
        return Scales(
            group_scale(self.weights, entry, n, low),
            group_scale(self.activations, batch, m, low),
            self.weights.zero_points[entry, n, self.weights.group_at(low)],
            self.activations.zero_points[batch, m, self.activations.group_at(low)],
            high in plan.edges,
        )


def operands_of(
    plan: Plan, pe: ProcessingElement, weights: QuantizedTensor, activations: QuantizedTensor
) -> Operands:
    """Quantized tensors (batch entries * n, k) and (batch * m, k) through the decoders, as operands of a plan.

    Raises InputError: a tensor of another format or shape, with a field missing, or with codes out of range.
    """
    _check("weights", weights, plan.weights, (plan.batch // plan.weight_reuse * plan.n, plan.k))
    _check("activations", activations, plan.activations, (plan.batch * plan.m, plan.k))
    return Operands(
        operand(pe.decode("weights", weights), plan.batch // plan.weight_reuse, plan.n),
        operand(pe.decode("activations", activations), plan.batch, plan.m),
        pe.function(plan.weights, plan.activations),
    )


def _check(side: str, tensor: QuantizedTensor, format: Format, shape: tuple[int, int]) -> None:
    """InputError unless a tensor is whole and the one that the plan is for. ``shape``: rows and K; groups that begin
    anew at kernel positions are an axis of their own."""
    if tensor.format.name != format.name:
        raise InputError(
            "a tensor in another format than planned", key=side, value=tensor.format.name, allowed=format.name
        )
    if (prod(tensor.shape[:1]), prod(tensor.shape[1:])) != shape:
        raise InputError(
            "a tensor of another shape than planned", key=side, value=tensor.shape, allowed=f"{shape}"
        )
    tensor.check()


class Outputs:
    """The sums of all results of an operation, while K advances."""

    def __init__(self, plan: Plan, operands: Operands) -> None:
        self.plan, self.operands = plan, operands
        shape = (plan.batch, plan.m, plan.n)
        self.partial, self.scaled = np.zeros(shape, object), np.zeros(shape, object)

    def take(
        self, values: Integers, chunk: KChunk, at: tuple[int, slice, slice], group_low: int, high: int
    ) -> None:
        """Add the partial sums (m, n) that folds over a chunk of K leave behind.

        ``at``: batch entry, rows of m, rows of n; ``group_low``: where the chunk's scale group begins; ``high``: where
        the chunk ends.
        """
        batch, m, n = at
        weights, activations, function = (
            self.operands.weights,
            self.operands.activations,
            self.operands.function,
        )
        total = function.add(self.partial[at], values) if chunk.reads_partial else values
        if not chunk.rescaled:
            self.partial[at] = total
            return
        entry = batch // self.plan.weight_reuse
        where = (entry, batch, m, n, group_low, high)
        total, exponent = correct(total, function.exponent, weights, activations, where)
        w_scale = group_scale(weights, entry, n, group_low)[None, :]
        a_scale = group_scale(activations, batch, m, group_low)[:, None]
        before = self.scaled[at] if chunk.reads_scaled else np.zeros_like(total)
        self.scaled[at] = accumulate_scaled(before, total, exponent, w_scale, a_scale)

    def results(self) -> npt.NDArray[np.float32]:
        """The output stage, once all of K has been added up: FP32 (batch, m, n)."""
        plan, weights, activations = self.plan, self.operands.weights, self.operands.activations
        finished = np.zeros((plan.batch, plan.m, plan.n), np.float32)
        everything = slice(None)
        for batch in range(plan.batch):
            entry = batch // plan.weight_reuse
            if plan.edges:
                sums, exponent = self.scaled[batch], FP32.low
                if not plan.rescaled:
                    sums, exponent = self.partial[batch], self.operands.function.exponent
                w_scale, a_scale = _row_scale(weights, entry), _row_scale(activations, batch)
            else:
                where = (entry, batch, everything, everything, 0, plan.k)
                exponent = self.operands.function.exponent
                sums, exponent = correct(self.partial[batch], exponent, weights, activations, where)
                w_scale, a_scale = weights.scales[entry, :, 0], activations.scales[batch, :, 0]
            second = weights.tensor_scale * activations.tensor_scale
            finished[batch] = finish(sums, exponent, w_scale[None, :], a_scale[:, None], second)
        return finished


def gemm_values(plan: Plan, operands: Operands) -> npt.NDArray[np.float32]:
    """What the machine computes, FP32 (batch, m, n): the results of the reference engine, without its time."""
    outputs, function = Outputs(plan, operands), operands.function
    everything = slice(None)
    chunks = placed([chunk for ki in range(plan.counts[2]) for chunk in plan.chunk_list(ki)])
    lanes = plan.array.lanes
    for batch in range(plan.batch):
        a = operands.activations.integers[batch].astype(function.dtype)
        w = operands.weights.integers[batch // plan.weight_reuse].astype(function.dtype)
        group_low = 0
        for chunk, low in chunks:
            state = np.zeros((plan.m, plan.n, function.words), function.dtype)
            for begin, size in pieces_of(chunk, low, lanes):
                words = [np.zeros((len(side), lanes), side.dtype) for side in (a, w)]
                words[0][:, :size], words[1][:, :size] = (
                    a[:, begin : begin + size],
                    w[:, begin : begin + size],
                )
                scales = None
                if plan.array.scales_inside:
                    one = operands.scales(plan, batch, everything, everything, begin, begin + size)
                    scales = Scales(
                        one.weights[None, :],
                        one.activations[:, None],
                        one.weight_zeros[None, :],
                        one.activation_zeros[:, None],
                        one.ends_group,
                    )
                state = function.step(state, words[0][:, None], words[1][None, :], scales)
            high = low + chunk.size
            outputs.take(function.result(state), chunk, (batch, everything, everything), group_low, high)
            group_low = high if chunk.rescaled else group_low
    return outputs.results()


def group_scale(operand: Operand, batch: int, rows: slice, low: int) -> Exact:
    """The scale of the group at ``low``; 1 for an operand without groups."""
    if operand.group_size:
        return operand.scales[batch, rows, operand.group_at(low)]
    return np.full(len(operand.scales[batch, rows]), UNIT, object)


def _row_scale(operand: Operand, batch: int) -> Exact:
    """What the output stage multiplies by after rescaling: the row's scale, or the second level of groups' scales."""
    return operand.row_scales[batch] if operand.group_size else operand.scales[batch, :, 0]
