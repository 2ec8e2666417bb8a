"""The tables of docs/rtl.md that say what is synthesised and what it comes to.

`PYTHONPATH=. python tests/docs/hardware_table.py` writes them anew from the shipped accelerators and tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from simulator.arch import Accelerator, accelerator_names, components, load_accelerator
from simulator.errors import InputError
from simulator.hardware import load_technology
from simulator.hardware.cost import PricedComponent
from simulator.hardware.table import AREA, ENERGY
from simulator.pe.base import pair_name
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair
from simulator.rtl.units import serial_operands, unit_of_name

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rtl.md"
BLOCK = re.compile(r"(?<=<!-- table: )(\w+)( -->\n)(.*?)(?=<!-- end -->)", flags=re.DOTALL)
TECHNOLOGIES = ("asap7", "sg13g2")
MEMORY = ("sram", "dram")
"""Kinds of components that no cell library has."""
CLOCK_GHZ = 1.0
"""Of ASAP7's units that were built for a clock."""
BESIDE_THE_ARRAY = {
    "rescale-int32-z8x8-s11-cut10": ("rescale", "scale_product", "correct"),
    "vector-fp32-int32-cut8": ("operate", "scale", "correct"),
    "output_adder-fp32-cut4": ("add",),
    "output_adder-int32": ("add",),
    "decode-two_level-uint4+int4+int8-int8-s8": ("decode uint4 zero scaled",),
    "decode-shift_cast-fp6_e3m2+fp16-fp16": ("decode fp6_e3m2",),
    "decode-figna-fp16-g3": ("decode fp16",),
    "decode-dequantize-int4+int8+fp16-fp16-s11-cut3": ("decode int4 scaled",),
}
"""Unit -> the events that are shown."""
BITMOD = (
    "mac-fp16-fp32-cut1",
    "bitmod-l4-guard3-fp32",
    "bitmod-l4-guard3-fp32-stages4",
    "bitmod_dequantizer-scale8-fp32",
    "bitmod_encoder-l4",
    "bitmod_group_adder-scale8-tile8-fp32-cut4-double",
)
_STRIPES = "stripes8-int8xint8+int7+int6+int5+int4+int3+int2+uint8-int32-double"
_PRAGMATIC = "pragmatic8-int8xint8+uint8-weights-b5-int32-double"
_BITVERT = (
    "bitvert16-int8+bbs_avg2+bbs_avg3+bbs_avg4+bbs_zp2+bbs_zp3+bbs_zp4xint8+uint8-sub8-int32-cut2-double"
)
SERIAL = [
    (_STRIPES, "int8 x int8"),
    (_PRAGMATIC, "int8 x int8"),
    (_BITVERT, "int8 x int8"),
    (_BITVERT, "bbs_avg2 x int8"),
    (_BITVERT, "bbs_zp4 x int8"),
]
PARALLEL = "mac-int8-int32-double"
_MX = "dot32-fp8_e4m3+fp8_e5m2+fp6_e3m2+fp6_e2m3+fp4_e2m1+int8+int6+int4-al22-e8m0-fp32-cut4-double"
OPERANDS = (
    "mac-int8-int32",
    "mac-int4-int32",
    "mac-fp8_e4m3-fixed42",
    "mac-fp8_e4m3-fp32-cut1",
    "mac-fp16-fp32-cut1",
    "dot32-int8-e8m0-fp32-cut2",
    "dot32-fp8_e4m3-al22-e8m0-fp32-cut3",
    "dot32-fp4_e2m1-fix-e8m0-fp32-cut3",
    f"{_MX} int8 x int8",
    f"{_MX} fp8_e4m3 x fp8_e4m3",
    f"{_MX} fp4_e2m1 x fp4_e2m1",
    "dot16-fp4_e2m1-fix-fp8_e4m3-fp32-cut2",
    "dot16-int4-fp8_e4m3-fp32-cut2",
    "mixpe-int4xint8-int32-double",
    "bitmod-l4-guard3-fp32",
    "lut-int2xint8-l4-mu4-int32",
)
"""Unit and, of several, a pair of formats; else the first."""
KINDS = {"uniform": "uniform ones", "MiniLM": "those of MiniLM"}
"""Head of a column -> what notes call such operands."""
HEAD = ["accelerator", "synthesised", "sum of synthesised parts", *(f"{name}, GHz" for name in TECHNOLOGIES)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the head."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def synthesised() -> str:
    """A row an accelerator; the highest clock is that of its slowest synthesised unit."""
    rows = [HEAD]
    for name in accelerator_names():
        machine = load_accelerator(name)
        whole, parts = sorted_out(machine, TECHNOLOGIES[0])
        clocks = [highest_clock(machine, technology) for technology in TECHNOLOGIES]
        rows.append([f"`{name}`", ", ".join(whole), ", ".join(parts), *clocks])
    return markdown(rows)


def beside_the_array() -> str:
    """Area, period and energies of units in ASAP7, as they are priced at `CLOCK_GHZ`."""
    rows = [["unit", "area", "period", "event"]]
    for name, events in BESIDE_THE_ARRAY.items():
        priced = _priced(name, CLOCK_GHZ)
        energies = ", ".join(f"`{event}` {priced.energy_pj[event]:.3g} pJ" for event in events)
        rows.append([f"`{name}`", _area(priced), f"{priced.delay_ps:.0f} ps", energies])
    return markdown(rows)


def bitmod() -> str:
    """Units of BitMoD beside an FP16 MAC: area of the smallest, period of the smallest and as built for `CLOCK_GHZ`."""
    rows = [["unit", "area", "period", f"period, built for {CLOCK_GHZ:g} GHz"]]
    for name in BITMOD:
        small, built = _priced(name, None), _priced(name, 1e9)
        rows.append([f"`{name}`", _area(small), f"{small.delay_ps:.0f} ps", f"{built.delay_ps:.0f} ps"])
    return markdown(rows)


def serial() -> str:
    """Area for a product a cycle, and energy of a product, over those of a bit-parallel MAC, on the Gaussian codes of
    the units' streams; smallest units of ASAP7."""
    mac = _priced(PARALLEL, None)
    product_pj = sum(energy for event, energy in mac.energy_pj.items() if event.startswith(("mac", "step")))
    rows = [["PE", "formats", "period", "area", "energy"]]
    for name, pair in SERIAL:
        pe = unit_of_name(name).pe
        priced = _priced(name, None)
        formats = next(each for each in unit_of_name(name).pairs if pair_name(each) == pair)
        stream = serial_operands.pe_cycles(pe, formats, "gaussian", 1536, 0)
        steps, terms = stream.loads.mean(), stream.terms.mean()
        cycle_pj = priced.energy_pj[f"cycle {pair}"] + priced.energy_pj[f"step {pair}"] * steps
        cycle_pj += priced.energy_pj.get(f"term {pair}", 0.0) * terms
        products = pe.lanes * steps
        over = priced.area_um2 / products / mac.area_um2, cycle_pj / products / product_pj
        rows.append([pe.family, pair, f"{priced.delay_ps:.0f} ps", *(f"{ratio:.2f}" for ratio in over)])
    return markdown(rows)


def on_operands() -> str:
    """Energy of a step on Gaussian operands, and on others in parts of it; smallest units."""
    heads = (f"{library}: {head}" for library in TECHNOLOGIES for head in ("Gaussian", *KINDS))
    rows = [["unit", *heads]]
    for name in OPERANDS:
        unit, _, pair = name.partition(" ")
        row = [f"`{unit}`{pair and f', {pair}'}"]
        for technology in TECHNOLOGIES:
            found = energies_of_a_step(technology, unit, pair)
            row.append(f"{found['Gaussian']:.3g} pJ")
            row += [f"{found[kind] / found['Gaussian']:.2f}" if kind in found else "" for kind in KINDS]
        rows.append(row)
    return markdown(rows)


def energies_of_a_step(technology: str, name: str, pair: str = "") -> dict[str, float]:
    """pJ of a step of all lanes, by kind of operands."""
    unit = unit_of_name(name)
    priced = load_technology(technology).price(unit.components()[0], None)
    said = {
        used.constant.event: used.constant for used in priced.constants if used.constant.quantity == ENERGY
    }
    pair = next(event for event in said if event.startswith(f"step {pair}")).removeprefix("step ")
    events = {f"mac {pair}": unit.lanes, f"step {pair}": 1}
    totals: dict[str, float] = {}
    for event, times in events.items():
        if event not in said:
            continue
        figures = {"Gaussian": said[event].value}
        for kind, words in KINDS.items():
            other = re.search(rf"{words}: ([\d.e+]+) fJ", said[event].source)
            figures |= {kind: float(other[1]) / 1000} if other else {}
        totals = {kind: totals.get(kind, 0.0) + times * value for kind, value in figures.items()}
    return totals


def _priced(name: str, clock_ghz: float | None) -> PricedComponent:
    return load_technology(TECHNOLOGIES[0]).price(unit_of_name(name).components()[0], clock_ghz)


def _area(priced: PricedComponent) -> str:
    """With the registers, which the row tells."""
    (area,) = (used.constant for used in priced.constants if used.constant.quantity == AREA)
    registers = re.search(r"registers ([\d.]+) um2", area.source)
    assert registers is not None
    return f"{area.value:.4g} um2, registers {float(registers[1]):.3g}"


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (beside_the_array, synthesised, on_operands, serial, bitmod)
}


def sorted_out(machine: Accelerator, technology: str) -> tuple[list[str], list[str]]:
    """Names of components that are priced whole, and of those that are sums of parts."""
    prices = load_technology(technology)
    whole, parts = [], []
    for component in components(machine, pairs_of(machine)):
        if component.kind not in MEMORY:
            quality = prices.price(component, machine.clock_ghz).area_quality
            (whole if quality == "synthesised" else parts).append(component.name)
    return whole, parts


def highest_clock(machine: Accelerator, technology: str) -> str:
    """GHz of the slowest unit, each as built for the fastest clock that the table has; nothing where none is known."""
    prices = load_technology(technology)
    delays = []
    for component in components(machine, pairs_of(machine)):
        if component.kind not in MEMORY:
            delay = prices.price(component, 1e9).delay_ps
            delays += [delay] if delay is not None else []
    return f"{1000 / max(delays):.2f}" if delays else ""


def pairs_of(machine: Accelerator) -> list[Pair]:
    """Every pair of its elements that the PE takes."""
    pe = machine.element
    pairs = [(element_format(w), element_format(a)) for w in pe.weights for a in pe.activations]
    return [pair for pair in pairs if pe.accepts(*pair) is None]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if [found[0] for found in BLOCK.findall(text)] != list(TABLES):
        raise InputError("must have these blocks, in this order", file=PAGE, allowed=", ".join(TABLES))
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + found[2] + TABLES[found[1]](), text), encoding="utf-8")


if __name__ == "__main__":
    main()
