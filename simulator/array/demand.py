"""What a fold asks of the buffers and of the rescale unit, and how far these slow it down.

The array moves in lockstep: one streamed step takes one vector from the row buffer (and, outputs stationary, one from
the column buffer), which triangular skew registers spread over time. A vector wider than the buffer delivers in a
cycle stretches the interval between steps; likewise a row of stationary words stretches the preload, and a row of
results the drain. With weights or activations stationary, results leave every step, so the output buffer and the
rescale unit stretch the stream itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from simulator.array.dataflow import Array
from simulator.array.folds import KChunk
from simulator.units import ceil_div


@dataclass(frozen=True)
class Port:
    """One operand's buffer as the array sees it."""

    read_bits: int
    """Bits it delivers in a cycle."""
    write_bits: int
    """Bits it takes in a cycle."""
    shared: bool
    """Reads and writes take turns (single-ported banks)."""
    access_bits: int
    """Width of one access, the unit in which reads and writes are counted."""

    def accesses(self, bits: int) -> int:
        return ceil_div(bits, self.access_bits)

    def cycles(self, read: int, written: int = 0) -> int:
        """Cycles to move a vector of ``read`` bits out and one of ``written`` bits in."""
        out, into = ceil_div(read, self.read_bits), ceil_div(written, self.write_bits)
        return out + into if self.shared else max(out, into)


class Intervals(NamedTuple):
    """Cycles between steps, stationary rows and result rows of a fold; each slower cause on top of the ones before."""

    stream: int
    """As the PE allows."""
    stream_rescaled: int
    stream_weights: int
    stream_activations: int
    stream_full: int
    """With every limit, the output buffer last."""
    preload: int
    drain_rescaled: int
    drain_full: int


@dataclass(frozen=True)
class Demand:
    """Widths of the words that move between buffers, array and rescale unit, for one operation on one accelerator."""

    weights: Port
    activations: Port
    outputs: Port
    weight_bits: int
    """Bits of one weight code as it is read from its buffer."""
    activation_bits: int
    partial_bits: int
    """Bits of a partial sum as it leaves a PE."""
    scaled_bits: int
    """Bits of the rescale unit's accumulator."""
    weight_scale_bits: int
    """Metadata bits of one weight group (0: none)."""
    activation_scale_bits: int
    rescale_interval: int
    """Cycles the rescale unit of a column takes for one result."""
    weight_word_bits: int = 0
    """Bits of one weight as the decoder hands it to the PEs; 0: as it was read."""
    activation_word_bits: int = 0
    weight_decode: int = 1
    """Cycles of the decoders at the edge for a vector of weights."""
    activation_decode: int = 1
    weight_decoded_group: int = 0
    """Values of K whose scale the decoder of the weights applies; 0: it applies none."""
    activation_decoded_group: int = 0

    def unlimited(self) -> Demand:
        """The same operation with buffers that always keep up."""
        endless = 1 << 62
        ports = {
            name: replace(getattr(self, name), read_bits=endless, write_bits=endless, shared=False)
            for name in ("weights", "activations", "outputs")
        }
        return replace(self, **ports)

    def port(self, operand: str) -> Port:
        return self.weights if operand == "weights" else self.activations

    def code_bits(self, operand: str) -> int:
        """Bits of a value in its buffer."""
        return self.weight_bits if operand == "weights" else self.activation_bits

    def word_bits(self, operand: str) -> int:
        """Bits of a value on its way through the array."""
        decoded = self.weight_word_bits if operand == "weights" else self.activation_word_bits
        return decoded or self.code_bits(operand)

    def decode(self, operand: str) -> int:
        return self.weight_decode if operand == "weights" else self.activation_decode

    def decoded_group(self, operand: str) -> int:
        return self.weight_decoded_group if operand == "weights" else self.activation_decoded_group

    def scale_vectors(self, operand: str, chunk: KChunk) -> int:
        """Scales of one row of the operand that are read for a chunk."""
        group = self.decoded_group(operand)
        if group:
            return ceil_div(chunk.size, group)
        return chunk.scaled_groups or int(chunk.rescaled)

    def scale_bits(self, operand: str) -> int:
        return self.weight_scale_bits if operand == "weights" else self.activation_scale_bits

    def result_reads(self, c: int, chunk: KChunk) -> int:
        """Bits read from the output buffer for one row of c results: what they are added to."""
        return c * (chunk.reads_partial * self.partial_bits + chunk.reads_scaled * self.scaled_bits)

    def result_writes(self, c: int, chunk: KChunk) -> int:
        """Bits written to the output buffer for one row of c results."""
        return c * (self.scaled_bits if chunk.rescaled else self.partial_bits)

    def row_vector_bits(self, array: Array, r: int, chunk: KChunk) -> int:
        """Bits that one streamed step takes from the row buffer."""
        words = chunk.size if array.dataflow.preloads else r * min(array.lanes, chunk.size)
        return words * self.code_bits(array.dataflow.row_operand)

    def col_vector_bits(self, array: Array, c: int, chunk: KChunk) -> int:
        """Bits that one streamed step, or one preloaded row, takes from the column buffer."""
        return c * min(array.lanes, chunk.size) * self.code_bits(array.dataflow.col_operand)

    def intervals(self, array: Array, r: int, c: int, chunk: KChunk) -> Intervals:
        """How a fold of (r, c) used rows and columns moves, by cause."""
        flow = array.dataflow
        from_rows = self.port(flow.row_operand).cycles(self.row_vector_bits(array, r, chunk))
        from_cols = self.port(flow.col_operand).cycles(self.col_vector_bits(array, c, chunk))
        results = self.outputs.cycles(self.result_reads(c, chunk), self.result_writes(c, chunk))
        rescale = self.rescale_interval if chunk.rescaled else 1
        slow = {flow.row_operand: from_rows, flow.col_operand: 1 if flow.preloads else from_cols}
        stream = array.initiation_interval
        decoded = self.decode(flow.row_operand)
        if flow.preloads:
            stream_rescaled = max(stream, rescale, decoded)
        else:
            stream_rescaled = max(stream, decoded, self.decode(flow.col_operand))
        stream_weights = max(stream_rescaled, slow["weights"])
        stream_activations = max(stream_weights, slow["activations"])
        return Intervals(
            stream,
            stream_rescaled,
            stream_weights,
            stream_activations,
            max(stream_activations, results) if flow.preloads else stream_activations,
            preload=max(from_cols, self.decode(flow.col_operand)) if flow.preloads else 1,
            drain_rescaled=1 if flow.preloads else rescale,
            drain_full=1 if flow.preloads else max(rescale, results),
        )
