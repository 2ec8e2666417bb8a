"""One run: a workload on an accelerator, simulated and priced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulator.arch import Accelerator, components, load_accelerator
from simulator.engine import fast
from simulator.engine.accounts import compute_cycles
from simulator.engine.record import LayerRecord, Record
from simulator.engine.streams import DataRun
from simulator.engine.vector import simulate_vector
from simulator.errors import InputError, nearest
from simulator.formats import dequantize, get_format, quantize
from simulator.hardware import load_technology
from simulator.mapping import plan_gemm
from simulator.report import Report, make_report
from simulator.study.codes import OperandCodes
from simulator.version import version
from simulator.workload import Gemm, Stored, Workload, gemm_workload, load_workload, sample_values

ENGINES = ("fast", "reference")
REFERENCE_WORK = 2**35
"""Cycles times PEs of one operation that the reference engine takes on."""
LONGEST = 2**54
"""Cycles that compute or DRAM alone may take in one operation; engines count in 64 bits, and nothing wraps below it."""
SQNR_SAMPLE = 2**20
"""Real weights of a tensor up to which all of them are quantized for `weight_sqnr_db`; larger tensors are sampled by
rows."""

Progress = Callable[[str, int, int], None]
"""Called with what is being worked on, how many operations are done, and how many there are."""
ArchLike = str | Path | Mapping[str, Any] | Accelerator


def run(
    workload: str | Path | Workload,
    arch: ArchLike,
    *,
    prefill: int | None = None,
    decode: int | None = None,
    batch: int | None = None,
    layers: int | None = None,
    weights: str | None = None,
    activations: str | None = None,
    kv: str | None = None,
    output: str | None = None,
    engine: str = "fast",
    progress: Progress | None = None,
    **changes: Any,
) -> Report:
    """Simulate a workload (a shipped name, a file, or one that is loaded) on an accelerator.

    ``prefill``: tokens; ``decode``: one step at this context length; ``layers``: only the first so many. Formats that
    are given go before those the accelerator is built for, and these before the workload's own. ``changes``: dotted
    keys of the accelerator, ``**{"array.rows": 64}``. Raises InputError for everything that cannot be run.
    """
    if isinstance(workload, Workload):
        # A loaded workload has its formats, whatever the accelerator is built for.
        given = {
            "prefill": prefill,
            "decode": decode,
            "batch": batch,
            "layers": layers,
            "weights": weights,
            "activations": activations,
            "kv": kv,
            "output": output,
        }
        for key, value in given.items():
            if value is not None:
                raise InputError("is fixed in a workload that is loaded already", key=key, value=value)
        return run_workload(workload, load_accelerator(arch, changes), engine=engine, progress=progress)
    accelerator = load_accelerator(arch, changes)
    loaded = load_workload(
        workload,
        prefill=prefill,
        decode=decode,
        batch=batch,
        layers=layers,
        output=output,
        **chosen_formats(accelerator, weights=weights, activations=activations, kv=kv),
    )
    return run_workload(loaded, accelerator, engine=engine, progress=progress)


def chosen_formats(accelerator: Accelerator, **given: str | None) -> dict[str, str | None]:
    """Formats of operands: what is given, else what the accelerator is built for, else None."""
    return {
        side: getattr(accelerator.formats, side) if name is None else name for side, name in given.items()
    }


def gemm(
    m: int,
    k: int,
    n: int,
    *,
    arch: ArchLike,
    weights: str | None = None,
    activations: str | None = None,
    output: str = "fp16",
    batch: int = 1,
    engine: str = "fast",
    progress: Progress | None = None,
    **changes: Any,
) -> Report:
    """Simulate ``batch`` products A(m, k) @ W(n, k).T, INT8 unless formats are given or the accelerator has its own;
    the rest as `run`."""
    accelerator = load_accelerator(arch, changes)
    formats = chosen_formats(accelerator, weights=weights, activations=activations)
    chosen = {side: name for side, name in formats.items() if name is not None}
    loaded = gemm_workload(m, k, n, output=output, batch=batch, **chosen)
    return run_workload(loaded, accelerator, engine=engine, progress=progress)


def run_workload(
    workload: Workload, accelerator: Accelerator, *, engine: str = "fast", progress: Progress | None = None
) -> Report:
    """Simulate a loaded workload on a loaded accelerator. Operations of equal shape and formats are simulated once."""
    if engine not in ENGINES:
        raise InputError(
            "no engine of this name", key="engine", value=engine, allowed=nearest(engine, ENGINES)
        )
    technology = load_technology(accelerator.technology)
    known: dict[object, LayerRecord] = {}
    layers: list[LayerRecord] = []
    sqnr: list[float | None] = []
    for done, operation in enumerate(workload.operations):
        if progress is not None:
            progress(operation.name, done, len(workload.operations))
        if isinstance(operation, Gemm):
            key = _signature(operation, accelerator)
            if key not in known:
                known[key] = _simulate(workload, operation, accelerator, engine)
            layers.append(replace(known[key], name=operation.name))
            sqnr.append(_weight_sqnr_db(workload, operation))
        else:
            layers.append(simulate_vector(operation, accelerator))
            sqnr.append(None)
    meta = {
        "version": version(),
        "workload": workload.name,
        "arch": accelerator.name,
        "engine": engine,
        "phase": {
            "prefill": workload.phase.prefill,
            "decode": workload.phase.decode,
            "batch": workload.phase.batch,
            **({} if workload.phase.layers is None else {"layers": workload.phase.layers}),
        },
        "formats": dict(workload.formats),
        "weight_values": workload.weight_values,
        "seed": workload.seed,
        "config": {
            "arch": accelerator.model_dump(mode="json", exclude_none=True),
            "workload": dict(workload.config),
            "notes": list(workload.notes),
        },
    }
    columns: dict[str, list[Any]] = {}
    if any(layer.sampling for layer in layers):
        for column in ("weights", "activations", "cycles_standard_error"):
            name = column if column == "cycles_standard_error" else f"sampled_{column}"
            columns[name] = [getattr(layer.sampling, column, None) for layer in layers]
    if any(value is not None for value in sqnr):
        columns["weight_sqnr_db"] = sqnr
    if workload.activation_values != "synthetic":
        columns["activation_values"] = [
            operation.activation_values if isinstance(operation, Gemm) else None
            for operation in workload.operations
        ]
    return make_report(
        Record(engine, tuple(layers)),
        components(
            accelerator,
            [
                (get_format(gemm.weights.format), get_format(gemm.activations.format))
                for gemm in workload.operations
                if isinstance(gemm, Gemm)
            ],
        ),
        technology,
        clock_ghz=accelerator.clock_ghz,
        meta=meta,
        layer_columns=columns,
    )


def _simulate(workload: Workload, operation: Gemm, accelerator: Accelerator, engine: str) -> LayerRecord:
    plan = plan_gemm(operation, accelerator)
    timing = accelerator.element.data_timing(plan.weights, plan.activations)
    data = None if timing is None else DataRun(timing, OperandCodes(workload, operation, plan, accelerator))
    moved = plan.n * plan.k * plan.weights.code_bits + plan.m * plan.n * plan.output.code_bits
    least = max(compute_cycles(plan), plan.dram.bus_cycles(moved))
    if least > LONGEST:
        raise InputError(
            f"{operation.name} takes at least {least} cycles on {accelerator.name}; allowed: up to 2**54"
        )
    if engine == "fast":
        record = fast.simulate_gemm(plan, operation.name, operation.op, data)
    else:
        from simulator.engine import reference

        work = compute_cycles(plan) * plan.array.rows * plan.array.cols
        if work > REFERENCE_WORK:
            raise InputError(
                f"{operation.name} is {work} cycles of PEs, which the reference engine would step through one by one",
                key="engine",
                value=engine,
                allowed=f"up to {REFERENCE_WORK} (an hour or so); fast gives the same integers",
            )
        record = reference.simulate_gemm(plan, operation.name, operation.op, data=data)[0]
    return record


def _signature(operation: Gemm, accelerator: Accelerator) -> object:
    """What decides an operation's time and counts: everything but its names, unless the codes do too."""
    operands = (operation.weights, operation.activations, operation.output)
    formats = get_format(operation.weights.format), get_format(operation.activations.format)
    reason = accelerator.element.accepts(*formats)
    by_codes = reason is None and accelerator.element.data_timing(*formats) is not None
    return (
        operation.op,
        operation.m,
        operation.k,
        operation.n,
        operation.batch,
        operation.weight_reuse,
        operation.conv,
        tuple((tensor.format, tensor.static, tensor.group_span) for tensor in operands),
        (operation.weights.name, operation.activations.name) if by_codes else None,
    )


def _weight_sqnr_db(workload: Workload, operation: Gemm) -> float | None:
    """Signal to quantization noise of real weights, dB: 10 log10(sum w^2 / sum (w - q(w))^2); None for synthetic ones.

    Infinite where nothing is lost.
    """
    stored = operation.weights.values
    if not isinstance(stored, Stored):
        return None
    values = sample_values(workload, operation.weights.name, limit=SQNR_SAMPLE).values
    span = operation.weights.group_span or values.shape[-1]
    grouped = values.reshape(-1, span)
    try:
        restored = dequantize(quantize(grouped, get_format(operation.weights.format)))
    except InputError as error:
        raise InputError(error.problem, file=stored.file, key=stored.tensor, allowed=error.allowed) from None
    noise = float(np.square(np.subtract(grouped, restored, dtype=np.float64)).sum())
    signal = float(np.square(grouped, dtype=np.float64).sum())
    return 10 * math.log10(signal / noise) if noise and signal else math.inf
