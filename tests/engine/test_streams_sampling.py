"""What is said of a time that follows from codes: how much of them was read, and how sure the time is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.arch import load_accelerator
from simulator.engine.streams import DataRun, Streams, streams
from simulator.mapping import plan_gemm
from simulator.pe.protocol import Side
from simulator.study.codes import OperandCodes
from simulator.workload import load_workload


class Reading(OperandCodes):
    """Codes that remember which operand they were asked for."""

    read: set[str]

    def integers(self, side: Side, block: int) -> Any:
        self.read = {*getattr(self, "read", ()), side}
        return super().integers(side, block)


def streamed(operation: str, arch: str, *, terms: bool = True) -> tuple[Streams, set[str], int]:
    """An operation of one layer of a network with grouped queries: its streams, and the operands that were read."""
    accelerator = load_accelerator(arch)
    workload = load_workload(
        "llama-3-8b", prefill=40, layers=1, weights="int8_channel", activations="int8_token", kv="int8_token"
    )
    (gemm,) = (gemm for gemm in workload.gemms if gemm.name.endswith(operation))
    plan = plan_gemm(gemm, accelerator)
    if not terms:
        plan = replace(plan, activity=tuple(each for each in plan.activity if each[0] != "term"))
    timing = accelerator.element.data_timing(plan.weights, plan.activations)
    assert timing is not None
    codes = Reading(workload, gemm, plan, accelerator)
    return streams(plan, DataRun(timing, codes)), codes.read, plan.weight_reuse


@pytest.mark.parametrize("operation", ["attention.scores", "attention.context"])
def test_keys_that_several_heads_share_are_no_sample(operation: str) -> None:
    found, _, reuse = streamed(operation, "pragmatic")
    assert reuse == 4
    assert (found.sampling.weights, found.sampling.activations) == (1, 1)
    assert len(np.unique(found.lengths[-1].sum(axis=-1))) > 1
    assert found.sampling.cycles_standard_error == 0


@pytest.mark.parametrize(("arch", "side"), [("pragmatic", "weights"), ("shapeshifter", "activations")])
def test_an_operand_that_decides_nothing_is_not_read(arch: str, side: str) -> None:
    assert streamed("attention.scores", arch, terms=False)[1] == {side}
