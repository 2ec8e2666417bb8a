"""The codes of an operation's operands, for processing elements whose time depends on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.arch import Accelerator
from simulator.formats import exact_integers
from simulator.mapping import Plan
from simulator.pe.protocol import Side
from simulator.workload import Gemm, Workload
from simulator.workload.blocks import OperandBlocks, operand_blocks


class OperandCodes:
    """Element integers as they reach the PEs, in blocks of what a fold holds; see `simulator.engine.streams.Codes`.

    A tensor of more than `workload.values.SAMPLE_LIMIT` values is sampled by whole blocks; a short block of it is stood
    for by a full one.
    """

    def __init__(self, workload: Workload, gemm: Gemm, plan: Plan, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._blocks = {
            side: operand_blocks(workload, gemm, side, plan.held(side)) for side in ("weights", "activations")
        }
        self._integers: dict[str, list[npt.NDArray[Any]]] = {}

    def which(self, side: Side) -> npt.NDArray[np.intp]:
        sample = self._blocks[side].sample
        return sample.stand_ins(np.arange(sample.blocks))

    def integers(self, side: Side, block: int) -> npt.NDArray[Any]:
        if side not in self._integers:
            self._integers[side] = self._read(side, self._blocks[side])
        return self._integers[side][block]

    def share(self, side: Side) -> float:
        return self._blocks[side].sample.share

    def _read(self, side: Side, blocks: OperandBlocks) -> list[npt.NDArray[Any]]:
        """All blocks that are drawn, in the smallest integers that hold them."""
        found = []
        for tensor in blocks:
            integers, _ = exact_integers(self._accelerator.element.decode(side, tensor))
            widest = max(int(integers.max(initial=0)), -int(integers.min(initial=0)) - 1).bit_length()
            narrow = np.int8 if widest < 8 else np.int16 if widest < 16 else integers.dtype
            found.append(integers.reshape(len(integers), -1)[:, : blocks.k].astype(narrow))
        return found
