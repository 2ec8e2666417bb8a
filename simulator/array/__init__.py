"""Arrays: how processing elements are joined, and how the folds of a GEMM flow through them.

- `dataflow`: what rows and columns hold, what stays and what streams; the cycles of one fold.
- `folds`: which folds a GEMM is cut into, K never crossing an edge of a scale group.
- `demand`: what a fold asks of buffer ports and rescale unit, and how far they slow it down.
- `rescale`: what becomes of partial sums, exactly.
- `schedule`: the time of a sequence of folds, in closed form, with the cause of every cycle and the count of every
  event.
"""

from simulator.array.dataflow import DATAFLOWS, Array, Axis, Dataflow
from simulator.array.demand import Demand, Port
from simulator.array.folds import KChunk, KRun, chunk_k, fold_edges, scale_edges
from simulator.array.schedule import Block, gemm_block

__all__ = [
    "DATAFLOWS",
    "Array",
    "Axis",
    "Block",
    "Dataflow",
    "Demand",
    "KChunk",
    "KRun",
    "Port",
    "chunk_k",
    "fold_edges",
    "gemm_block",
    "scale_edges",
]
