"""Workloads: the operations and tensors of a network, and the readers that make them.

A `Workload` is a list of matrix products (`Gemm`, which convolutions and attention are lowered to) and
vector work (`VectorOp`) over named tensors. ``load_workload`` reads a shipped name, a YAML file or a
Hugging Face model; ``gemm_workload`` is one layer; ``tensor_values`` gives the numbers in a tensor,
``operand_blocks`` the codes of an operand as an array holds them.
docs/workloads.md explains the file.
"""

from simulator.workload.blocks import BlockSample, OperandBlocks, operand_blocks, sample_blocks
from simulator.workload.checkpoint import stored_vector
from simulator.workload.huggingface import trace
from simulator.workload.im2col import im2col
from simulator.workload.load import gemm_workload, load_workload, workload_names
from simulator.workload.operations import Conv, Gemm, Operation, Phase, TensorRef, VectorOp, Workload
from simulator.workload.sources import Held, Stored, Synthetic
from simulator.workload.values import Sample, sample_values, tensor_values, with_captured

__all__ = [
    "BlockSample",
    "Conv",
    "Gemm",
    "Held",
    "OperandBlocks",
    "Operation",
    "Phase",
    "Sample",
    "Stored",
    "Synthetic",
    "TensorRef",
    "VectorOp",
    "Workload",
    "gemm_workload",
    "im2col",
    "load_workload",
    "operand_blocks",
    "sample_blocks",
    "sample_values",
    "stored_vector",
    "tensor_values",
    "trace",
    "with_captured",
    "workload_names",
]
