"""From a name, a file or two numbers to a `Workload`: the front door's functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simulator.config import read_mapping, validate
from simulator.errors import InputError, nearest
from simulator.formats import get_format
from simulator.shipped import find_config, shipped_names
from simulator.workload.builder import Builder, Formats, Sources
from simulator.workload.checkpoint import Found, check_names, check_tensors, find_stored
from simulator.workload.document import FormatsDocument, PhaseDocument, WorkloadDocument
from simulator.workload.families import FAMILIES, Family, Sizes
from simulator.workload.families.transformer import DEFAULT_TOKENS
from simulator.workload.huggingface import is_model, read_model
from simulator.workload.operations import MAX_DIMENSION, Gemm, Phase, Workload
from simulator.workload.rows import Network, add_row
from simulator.workload.sources import Synthetic

OPERANDS = ("weights", "activations", "kv")


def workload_names() -> list[str]:
    """Names of the shipped workloads."""
    return shipped_names("workloads")


def load_workload(
    name_or_path: str | Path,
    *,
    prefill: int | None = None,
    decode: int | None = None,
    batch: int | None = None,
    layers: int | None = None,
    weights: str | None = None,
    activations: str | None = None,
    kv: str | None = None,
    output: str | None = None,
) -> Workload:
    """A shipped workload by name, a workload file, or a Hugging Face model (config.json, or its folder).

    ``prefill`` or ``decode``, ``batch``, ``layers`` (only the first so many blocks) and the formats go before
    what the file says; a format that is given here also goes before the file's formats of single layers.
    Raises InputError.
    """
    if str(name_or_path) not in workload_names() and is_model(name_or_path):
        data, file = read_model(name_or_path), Path(name_or_path)
    else:
        file = find_config(str(name_or_path), "workloads")
        data = read_mapping(file)
    document = validate(WorkloadDocument, data, source=file)
    phase = _phase(document.phase, prefill, decode, batch, layers)
    given = {"weights": weights, "activations": activations, "kv": kv, "output": output}
    formats = _formats(document.formats, given, file)
    document = document.model_copy(update={"phase": phase, "formats": formats})
    return _build(document, file)


def gemm_workload(
    m: int,
    k: int,
    n: int,
    *,
    weights: str = "int8",
    activations: str = "int8",
    output: str = "fp16",
    batch: int = 1,
) -> Workload:
    """One product A(m, k) @ W(n, k).T, or ``batch`` independent ones with weights of their own; operands are given in
    their formats, so nothing has to be quantized first. Raises InputError."""
    row = {"op": "gemm", "name": "gemm", "m": m, "k": k, "n": n, "batch": batch}
    formats = {"weights": weights, "activations": activations, "output": output, "input": activations}
    for key, value in (("m", m), ("k", k), ("n", n), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DIMENSION:
            raise InputError("not a dimension", key=key, value=value, allowed=f"1 to {MAX_DIMENSION}")
    document = validate(WorkloadDocument, {"name": "gemm", "operations": [row], "formats": formats})
    document = document.model_copy(update={"formats": _formats(document.formats, {}, None)})
    return _build(document, None)


def _build(document: WorkloadDocument, file: Path | None) -> Workload:
    """The operations of a checked document. Raises InputError, which names ``file``."""
    try:
        if document.model is not None:
            return _build_family(document, document.model, file)
        return _build_rows(document, file)
    except InputError as error:
        raise error if error.file is not None or file is None else error.within(file) from None


def _build_family(document: WorkloadDocument, model: Mapping[str, Any], file: Path | None) -> Workload:
    name = model.get("family")
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(
            "no family of this name", key="model.family", value=name, allowed=nearest(str(name), FAMILIES)
        )
    family = FAMILIES[name]
    config = validate(
        family.config, {k: v for k, v in model.items() if k != "family"}, prefix="model", source=file
    )
    phase = _family_phase(family, config, document.phase)
    run = config if phase.layers is None else config.model_copy(update={"layers": phase.layers})
    stored = find_stored(document.values, file, family, run)
    b = _builder(document, stored.tensors)
    family.build(b, run, phase)
    notes: tuple[str, ...] = ()
    if phase.layers is None:
        b.finish()
    else:
        whole = _builder(document, {})
        family.build(whole, config, phase)
        whole.finish()
        notes = (
            f"only the first {run.layers} of {config.layers} layers run; all of them, with embedding and head, have "
            f"{whole.parameters} parameters",
        )
    resolved = {"family": name, **config.model_dump(exclude_none=True)}
    document = document.model_copy(
        update={
            "model": resolved,
            "phase": PhaseDocument(**asdict(phase)),
            "values": stored.values,
        }
    )
    return _finish(document, b, phase, stored, notes)


def _build_rows(document: WorkloadDocument, file: Path | None) -> Workload:
    for key in ("prefill", "decode", "layers"):
        if getattr(document.phase, key) is not None:
            problem = "a list of operations has no tokens and no blocks; only a batch can be chosen"
            raise InputError(problem, key=f"phase.{key}")
    stored = find_stored(document.values, file, None, None)
    b = _builder(document, stored.tensors)
    net = Network(b, document.phase.batch, file, document.input)
    for index, row in enumerate(document.operations or ()):
        add_row(net, row, index)
    b.finish()
    document = document.model_copy(update={"values": stored.values})
    return _finish(document, b, Phase(batch=document.phase.batch), stored)


def _builder(document: WorkloadDocument, stored: Mapping[str, Any]) -> Builder:
    formats, values = document.formats, document.values
    return Builder(
        Formats(formats.weights, formats.activations, formats.kv, formats.output, formats.input),
        layers={name: layer.model_dump(exclude_none=True) for name, layer in formats.layers.items()},
        sources=Sources(
            weights=Synthetic(values.weights.distribution, values.weights.seed),
            activations=Synthetic(values.activations.distribution, values.activations.seed),
            kv=Synthetic(values.kv.distribution, values.kv.seed),
            stored=stored,
        ),
        static_scales=formats.activation_scales == "static",
    )


def _finish(
    document: WorkloadDocument, b: Builder, phase: Phase, stored: Found, notes: tuple[str, ...] = ()
) -> Workload:
    read = {
        tensor.stream or tensor.name for op in b.operations if isinstance(op, Gemm) for tensor in op.inputs
    }
    notes = (*notes, *stored.notes, *check_names(stored, b.tensors, read))
    check_tensors(b.tensors)
    formats = document.formats
    qualities = {
        op.weights.values.quality for op in b.operations if isinstance(op, Gemm) and op.weights.static
    }
    return Workload(
        name=document.name,
        operations=tuple(b.operations),
        tensors=b.tensors,
        phase=phase,
        formats={operand: getattr(formats, operand) for operand in (*OPERANDS, "output")},
        parameters=b.parameters,
        weight_values="mixed" if len(qualities) > 1 else qualities.pop() if qualities else "synthetic",
        seed=document.values.weights.seed,
        source=document.source,
        notes=notes,
        config=document.model_dump(mode="json", exclude_none=True, by_alias=True),
    )


def _phase(
    own: PhaseDocument, prefill: int | None, decode: int | None, batch: int | None, layers: int | None
) -> PhaseDocument:
    """The file's phase, with what the caller chose in its place."""
    chosen = own.model_dump(exclude_none=True)
    if prefill is not None or decode is not None:
        chosen |= {"prefill": prefill, "decode": decode}
    for key, value in (("batch", batch), ("layers", layers)):
        if value is not None:
            chosen[key] = value
    return validate(PhaseDocument, chosen, prefix="phase")


def _family_phase(family: Family[Any], config: Sizes, phase: PhaseDocument) -> Phase:
    """The phase with its default, checked against what the family can run."""
    if phase.decode is not None and "decode" not in family.phases:
        raise InputError(f"{family.name} does not decode", key="phase.decode", value=phase.decode)
    longest = family.longest(config)
    prefill = phase.prefill
    if prefill is None and phase.decode is None:
        prefill = DEFAULT_TOKENS if longest is None else min(DEFAULT_TOKENS, longest)
    tokens = phase.decode if prefill is None else prefill
    if longest is not None and tokens is not None and tokens > longest:
        key = "phase.decode" if prefill is None else "phase.prefill"
        raise InputError("more tokens than positions", key=key, value=tokens, allowed=f"up to {longest}")
    if phase.layers is not None and phase.layers > config.layers:
        allowed = f"up to {config.layers}"
        raise InputError(
            "more layers than the network has", key="phase.layers", value=phase.layers, allowed=allowed
        )
    return Phase(prefill, phase.decode, phase.batch, phase.layers)


def _formats(own: FormatsDocument, given: Mapping[str, str | None], file: Path | None) -> FormatsDocument:
    """Canonical names, with what the caller chose in place of the file's."""
    update: dict[str, Any] = {}
    for operand in (*OPERANDS, "output"):
        chosen = given.get(operand)
        name, source = (getattr(own, operand), file) if chosen is None else (chosen, None)
        update[operand] = _canonical(name, f"formats.{operand}", source)
    if own.input is not None:
        update["input"] = _canonical(own.input, "formats.input", file)
    layers = {}
    for pattern, layer in own.layers.items():
        kept = {
            operand: _canonical(name, f"formats.layers.{pattern}.{operand}", file)
            for operand, name in layer.model_dump(exclude_none=True).items()
            if given.get(operand) is None
        }
        if kept:
            layers[pattern] = type(layer)(**kept)
    return own.model_copy(update={**update, "layers": layers})


def _canonical(name: str, key: str, file: Path | None) -> str:
    try:
        return get_format(name).name
    except InputError as error:
        raise InputError(
            error.problem, file=file, key=key, value=error.value, allowed=error.allowed
        ) from None
