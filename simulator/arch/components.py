"""What an accelerator is made of, in the words of `simulator.hardware.structure`: for area, leakage and energy."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.arch.accelerator import Accelerator, BufferSection
from simulator.errors import InputError
from simulator.formats import get_format
from simulator.hardware.structure import Component, Param, Part
from simulator.pe.arithmetic import FP32
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair, ProcessingElement, Side
from simulator.units import ceil_div

BUFFERS = ("weights", "activations", "outputs")
_FLOAT32 = {"exponent_bits": 8, "significand_bits": FP32.precision}


def components(accelerator: Accelerator, pairs: Iterable[Pair] = ()) -> list[Component]:
    """PEs and what stands beside them, skew registers, rescale unit, buffers, vector unit and DRAM; what is absent is
    left out. ``pairs``: formats of weights and activations whose events are wanted."""
    array = accelerator.array
    lines = {array.flow.row_operand: array.rows, array.flow.col_operand: array.cols}
    hardware = accelerator.element.hardware(
        weight_lines=lines["weights"],
        activation_lines=lines["activations"],
        stationary=array.flow.stationary,
        doubled=array.fold_overlap,
        pairs=sorted(set(pairs), key=lambda pair: (pair[0].name, pair[1].name)),
    )
    found = list(hardware)
    if array.flow.skewed and array.rows * array.cols > 1:
        found.append(_skew(accelerator))
    found.append(
        output_adder(
            array.cols,
            accelerator.element.partial_adder(),
            array.adder_ranks if accelerator.element.partial_adder().kind == "fp_adder" else 0,
        )
    )
    if array.rescale_per_cycle:
        pe = accelerator.element
        found.append(
            rescale_component(
                ceil_div(array.cols, array.rescale_interval),
                sums_of(pe.partial_adder()),
                _zero_bits(pe, "weights"),
                _zero_bits(pe, "activations"),
                array.rescale_scale_bits,
                array.rescale_ranks,
            )
        )
    found += [_buffer(name, getattr(accelerator.buffers, name)) for name in BUFFERS]
    found.append(
        vector_component(
            accelerator.vector.lanes, _integers_of(accelerator.element), accelerator.vector.ranks
        )
    )
    found.append(Component("dram", "dram", {"device": accelerator.dram.device}))
    return found


def _skew(accelerator: Accelerator) -> Component:
    """Triangles of registers that delay row i and column j of what enters, and column j of what leaves."""
    array, pe = accelerator.array, accelerator.element
    pairs = [(element_format(w), element_format(a)) for w in pe.weights for a in pe.activations]
    timings = [pe.timing(*pair) for pair in pairs if pe.accepts(*pair) is None]
    latency, lanes = max(timing.latency for timing in timings), max(timing.lanes for timing in timings)
    row_bits, col_bits = pe.word_bits(array.flow.row_operand), pe.word_bits(array.flow.col_operand)
    row_delay = latency if array.flow.preloads else 1
    rows, cols = array.rows * (array.rows - 1) // 2, array.cols * (array.cols - 1) // 2
    bits = lanes * (row_delay * rows * row_bits + cols * col_bits) + cols * pe.accumulator_bits
    return Component(
        "skew",
        "skew",
        {"bits": bits},
        1,
        (Part("registers", "register", {"bits": 1}, bits),),
        {"shift_bit": {("registers", "write"): 1}},
    )


def rescale_component(
    units: int,
    partial: str,
    weight_zero_bits: int,
    activation_zero_bits: int,
    scale_bits: int,
    ranks: int,
) -> Component:
    """Two scales are multiplied, the partial sum less zero points is multiplied by them and added to an FP32 sum.

    A unit takes a result a cycle; one that takes a column's only every i-th cycle serves i columns in turn.
    ``partial``: what PEs accumulate in; ``ranks``: of registers through the data path.
    """
    parts = (
        Part("scale_multiplier", "fp_multiplier", _FLOAT32, 2),
        Part("adder", "fp_adder", _FLOAT32),
        Part("registers", "register", {"bits": 3 * FP32.bits}),
    )
    events = {
        "rescale": {("scale_multiplier", "operate"): 1, ("adder", "operate"): 1, ("registers", "write"): 1},
        "scale_product": {("scale_multiplier", "operate"): 1},
    }
    if weight_zero_bits or activation_zero_bits:
        events["correct"] = {("scale_multiplier", "operate"): 1, ("adder", "operate"): 1}
    params: dict[str, Param] = {
        "accumulator": "fp32",
        "partial": partial,
        "scale_bits": scale_bits,
        "ranks": ranks,
        "weight_zero_bits": weight_zero_bits,
        "activation_zero_bits": activation_zero_bits,
    }
    return Component("rescale", "rescale", params, units, parts, events, dequantizes=True)


def output_adder(columns: int, adder: Part, ranks: int) -> Component:
    """What adds a result that leaves the array to the sum in the output buffer. ``ranks``: of registers through it."""
    params: dict[str, Param] = {"sums": sums_of(adder)}
    if ranks:
        params["ranks"] = ranks
    return Component(
        "output_adders", "output_adder", params, columns, (adder,), {"add": {(adder.name, "operate"): 1}}
    )


def sums_of(adder: Part) -> str:
    """What an adder of partial sums adds, as `simulator.pe.accumulator` names it: int32, fp32, e8m13."""
    if adder.kind == "int_adder":
        bits = int(adder.params["bits"])
        return f"int{bits}" if bits <= 64 else f"fixed{bits}"
    exponent, significand = adder.params["exponent_bits"], int(adder.params["significand_bits"])
    return "fp32" if (exponent, significand) == (8, FP32.precision) else f"e{exponent}m{significand - 1}"


def _zero_bits(pe: ProcessingElement, side: Side) -> int:
    """Width, signed, of the widest zero points that still come with what the PEs receive; 0: none do."""
    widest = 0
    for name in getattr(pe, side):
        for scales in ("_asym", "_channel_asym", "_token_asym", "_g128_asym"):
            try:
                received = pe.received(side, get_format(name + scales))
            except InputError:
                continue
            if received.has_zero_point:
                widest = max(widest, received.element.bits + (received.element.kind == "uint"))
    return widest


def _buffer(name: str, buffer: BufferSection) -> Component:
    params = {
        "bytes": buffer.bytes,
        "width_bits": buffer.width_bits,
        "banks": buffer.banks,
        "ports": buffer.ports,
    }
    return Component(f"{name}_buffer", "sram", params)


def _integers_of(pe: ProcessingElement) -> str:
    """Sums of the PEs, or of codes for zero points where those are floats, that the vector unit takes."""
    sums = sums_of(pe.partial_adder())
    return sums if sums.startswith("int") and pe.accumulator_bits > 32 else "int32"


def vector_component(lanes: int, sums: str, ranks: int) -> Component:
    """Lanes of an FP32 multiplier and adder with two operand registers and a result register.

    ``sums``: two's complement that they take beside FP32; ``ranks``: of registers through a lane. "scale" is one of the
    two multiplications of the output stage: of the row's scale by the column's, and of the sum by both.
    """
    parts = (
        Part("multiplier", "fp_multiplier", _FLOAT32),
        Part("adder", "fp_adder", _FLOAT32),
        Part("registers", "register", {"bits": 3 * FP32.bits}),
    )
    both = {("multiplier", "operate"): 1, ("adder", "operate"): 1, ("registers", "write"): 1}
    events = {
        "operate": both,
        "correct": both,
        "scale": {("multiplier", "operate"): 1, ("registers", "write"): 1},
    }
    params: dict[str, Param] = {"precision": "fp32", "sums": sums, "ranks": ranks}
    return Component("vector", "vector", params, lanes, parts, events)
