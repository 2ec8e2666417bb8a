"""What an accelerator is made of, in the words of `simulator.hardware.structure`: for area, leakage and energy."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.arch.accelerator import Accelerator, BufferSection
from simulator.hardware.structure import Component, Part
from simulator.pe.arithmetic import FP32
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair
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
        Component(
            "output_adders",
            "output_adder",
            {"accumulator_bits": accelerator.element.accumulator_bits},
            array.cols,
            (accelerator.element.partial_adder(),),
            {"add": {("accumulate", "operate"): 1}},
        )
    )
    if array.rescale_per_cycle:
        found.append(_rescale(ceil_div(array.cols, array.rescale_interval)))
    found += [_buffer(name, getattr(accelerator.buffers, name)) for name in BUFFERS]
    found.append(_vector(accelerator.vector.lanes))
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


def _rescale(units: int) -> Component:
    """Two scales are multiplied, the partial sum is multiplied by them and added to an FP32 sum.

    A unit takes a result a cycle; one that takes a column's only every i-th cycle serves i columns in turn.
    """
    parts = (
        Part("scale_multiplier", "fp_multiplier", _FLOAT32, 2),
        Part("adder", "fp_adder", _FLOAT32),
        Part("registers", "register", {"bits": 3 * FP32.bits}),
    )
    events = {
        "rescale": {("scale_multiplier", "operate"): 1, ("adder", "operate"): 1, ("registers", "write"): 1},
        "scale_product": {("scale_multiplier", "operate"): 1},
        "correct": {("scale_multiplier", "operate"): 1, ("adder", "operate"): 1},
    }
    return Component("rescale", "rescale", {"accumulator": "fp32"}, units, parts, events, dequantizes=True)


def _buffer(name: str, buffer: BufferSection) -> Component:
    params = {
        "bytes": buffer.bytes,
        "width_bits": buffer.width_bits,
        "banks": buffer.banks,
        "ports": buffer.ports,
    }
    return Component(f"{name}_buffer", "sram", params)


def _vector(lanes: int) -> Component:
    """Lanes of an FP32 multiplier and adder with two operand registers and a result register.

    "scale" is one of the two multiplications of the output stage: by the row's scale, by the column's.
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
    return Component("vector", "vector", {"precision": "fp32"}, lanes, parts, events)
