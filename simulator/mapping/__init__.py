"""Mapping: how a GEMM is cut into tiles that fit the buffers, in which order tiles run, and in which order DMA serves
them."""

from simulator.mapping.plan import Plan, Tiling
from simulator.mapping.search import plan_gemm

__all__ = ["Plan", "Tiling", "plan_gemm"]
