"""Published figures of hardware, and what the units of a technology say of the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.arch import Accelerator, components, load_accelerator
from simulator.errors import InputError
from simulator.hardware import Component, PricedComponent, Technology, load_technology
from simulator.hardware.scaling import Scaling
from simulator.hardware.table import AREA, ENERGY
from simulator.pe.elements import element_format
from simulator.pe.protocol import Pair
from simulator.rtl.unit import Unit
from simulator.rtl.units import unit_of_name
from simulator.study.reproduce.figures import read_figures

Value = float | None


class Silicon:
    """One library: its technology, and the figures of units in it."""

    def __init__(self, technology: Technology) -> None:
        self.technology = technology

    def whole(self, component: Component) -> PricedComponent | None:
        """A component as it was synthesised; None where it was not."""
        try:
            priced = self.technology.price(component)
        except InputError:
            return None
        return priced if priced.quality == "synthesised" else None

    def unit(self, name: str) -> tuple[Unit, PricedComponent] | None:
        """A unit by its name; None where there is no such hardware, or the table has no row of it."""
        try:
            unit = unit_of_name(name)
        except InputError:
            return None
        found = (self.whole(component) for component in unit.components())
        priced = next((each for each in found if each is not None), None)
        return None if priced is None else (unit, priced)

    def area_um2(self, name: str) -> Value:
        """Of a lane, registers included."""
        found = self.unit(name)
        return None if found is None else found[1].area_um2 / found[0].lanes

    def gates_um2(self, name: str) -> Value:
        """Of a lane, without registers: what the note of the area row says."""
        found = self.unit(name)
        if found is None:
            return None
        source = next(used.constant.source for used in found[1].constants if used.constant.quantity == AREA)
        (rest,) = re.findall(r"rest ([0-9.e+]+) um2", source)
        return float(rest) / found[0].lanes

    def energy_pj(self, name: str) -> Value:
        """Of an operation of a part, or of a lane's step."""
        found = self.unit(name)
        return None if found is None else work_pj(found[1], found[0].lanes) / found[0].lanes

    def at_45nm(self, name: str, quantity: str) -> Value:
        """A part's figure scaled to 45 nm and 0.9 V by Stillmaker and Baas."""
        value = self.energy_pj(name) if quantity == ENERGY else self.area_um2(name)
        node, vdd = self.technology.node_nm, own_vdd(self.technology)
        if value is None or node is None or vdd is None:
            return None
        factor, _ = Scaling(node, 45, 0.9).factor(quantity, "hp", vdd)
        return value * factor


def own_vdd(technology: Technology) -> float | None:
    """Supply of the rows that were synthesised."""
    rows = technology.table.rows if technology.table is not None else ()
    return next((row.vdd for row in rows if row.quality == "synthesised"), None)


def work_pj(priced: PricedComponent, lanes: int) -> float:
    """A cycle with work: of a PE with ``mac`` and ``step`` both, of its first pair of formats; else the first event
    that does something."""
    steps = [event for event in priced.energy_pj if event.startswith("step")]
    macs = [event for event in priced.energy_pj if event.startswith("mac")]
    if steps and macs:
        return priced.energy_pj[steps[0]] + lanes * priced.energy_pj[macs[0]]
    return next(energy for event, energy in priced.energy_pj.items() if event not in ("idle", "clock"))


@dataclass(frozen=True)
class Claim:
    """A published figure and the same of ours."""

    what: str
    theirs: float
    ours: Callable[[Silicon], Value]
    why: str
    is_ratio: bool = True
    """Of two circuits, so that its side of one matters; else a magnitude."""
    at_most: bool = False
    """A saving: less than claimed supports it, too."""


def ratio(over: Callable[[Silicon, str], Value], one: str, other: str) -> Callable[[Silicon], Value]:
    """One unit over another."""

    def quotient(silicon: Silicon) -> Value:
        upper, lower = over(silicon, one), over(silicon, other)
        return None if upper is None or lower is None else upper / lower

    return quotient


def left(one: Sequence[str], other: Sequence[str]) -> Callable[[Silicon], Value]:
    """Energy of some units over that of those whose place they take."""

    def share(silicon: Silicon) -> Value:
        spent = [[silicon.energy_pj(name) for name in names] for names in (one, other)]
        if any(value is None for values in spent for value in values):
            return None
        new, old = (math.fsum(value for value in values if value is not None) for values in spent)
        return new / old

    return share


OPERATIONS = {
    "8-bit integer add": "part-int_adder-8",
    "32-bit integer add": "part-int_adder-32",
    "8-bit integer multiply": "part-int_multiplier-8x8",
    "32-bit integer multiply": "part-int_multiplier-32x32",
    "FP16 add": "part-fp_adder-e5m10",
    "FP32 add": "part-fp_adder-e8m23",
    "FP16 multiply": "part-fp_multiplier-e5m10",
    "FP32 multiply": "part-fp_multiplier-e8m23",
}
_WHY = {
    (
        "int_adder",
        ENERGY,
    ): "theirs tells neither clock nor operands; ours is the smallest adder, operands Gaussian",
    (
        "int_multiplier",
        ENERGY,
    ): "theirs tells neither clock nor operands; ours is the smallest, glitches counted",
    ("fp_adder", ENERGY): "ours is built for area and not pipelined: glitches are most of its energy",
    ("fp_multiplier", ENERGY): "ours is built for area, takes subnormal numbers too, glitches counted",
    ("int_adder", AREA): "theirs is built for a clock that is not told, ours for area",
    (
        "int_multiplier",
        AREA,
    ): "theirs is built for a clock that is not told, ours for area, of full-adder cells",
    (
        "fp_adder",
        AREA,
    ): "theirs is built for a clock that is not told, which takes a second path; ours has one",
    (
        "fp_multiplier",
        AREA,
    ): "theirs is built for a clock that is not told, ours for area, subnormal numbers included",
}


def _why(name: str, quantity: str) -> str:
    return _WHY[name.split("-")[1], quantity]


def horowitz(quantity: str) -> list[Claim]:
    """Each operation at 45 nm, by the rows of the technology that cites it."""
    published, unit = load_technology("published_45nm"), "pJ" if quantity == ENERGY else "um2"
    claims = []
    for what, name in OPERATIONS.items():
        part = unit_of_name(name).components()[0]
        event = "operate" if quantity == ENERGY else ""
        theirs = published.constant(part.kind, part.params, quantity, event).value

        def ours(silicon: Silicon, name: str = name) -> Value:
            return silicon.at_45nm(name, quantity)

        claims.append(Claim(f"{what}, {unit}", theirs, ours, _why(name, quantity), is_ratio=False))
    return claims


def relative_to_an_adder(quantity: str) -> list[Claim]:
    """The same over the 32-bit adder, at each library's own node and supply."""
    adder = OPERATIONS["32-bit integer add"]
    measured = Silicon.energy_pj if quantity == ENERGY else Silicon.area_um2
    by_name = dict(zip(OPERATIONS.values(), horowitz(quantity), strict=True))
    return [
        Claim(
            f"{what}, {'energy' if quantity == ENERGY else 'area'}",
            by_name[name].theirs / by_name[adder].theirs,
            ratio(measured, name, adder),
            _why(name, quantity),
        )
        for what, name in OPERATIONS.items()
        if name != adder
    ]


def seven_nm() -> list[Claim]:
    """Google's update of the table to 7 nm, beside ASAP7 without any scaling."""
    claims = []
    for figure in read_figures("fidelity_published").named("energy"):
        name = str(figure.case["operation"])

        def ours(silicon: Silicon, name: str = name) -> Value:
            return silicon.energy_pj(name) if silicon.technology.node_nm == 7 else None

        claims.append(Claim(f"`{name}`, pJ", figure.value, ours, _why(name, ENERGY), is_ratio=False))
    return claims


def fp8_versus_int8() -> list[Claim]:
    """van Baalen et al.: gates of one multiply-accumulate unit."""
    published = read_figures("fp8_vs_int8_published")
    cheapest = published.value("gates_over_int8", format="e4m3", accumulator="cheapest")
    fp32 = published.value("gates_over_int8", format="e4m3", accumulator="fp32")
    other = "theirs counts two-input gates of circuits that were not at hand, ours is synthesised area"
    both = f"{other}; registers, which both units have, bring the ratio down"
    fixed, wide, integer = "mac-fp8_e4m3-fixed42", "mac-fp8_e4m3-fp32", "mac-int8-int32"
    return [
        Claim(
            "FP8 E4M3, cheapest accumulator, gates", cheapest, ratio(Silicon.gates_um2, fixed, integer), other
        ),
        Claim("the same with registers", cheapest, ratio(Silicon.area_um2, fixed, integer), both),
        Claim("FP8 E4M3, FP32 accumulator, gates", fp32, ratio(Silicon.gates_um2, wide, integer), other),
        Claim("the same with registers", fp32, ratio(Silicon.area_um2, wide, integer), both),
        Claim(
            "the same, energy of a step",
            fp32,
            ratio(Silicon.energy_pj, wide, integer),
            "theirs takes gates for energy; an unpipelined floating-point loop glitches",
        ),
    ]


INT_VERSUS_FP = {
    "mxint8": "dot32-int8-e8m0-fp32-cut2",
    "mxfp8_e4m3": "dot32-fp8_e4m3-al22-e8m0-fp32-cut3",
    "nvfp4": "dot16-fp4_e2m1-fix-fp8_e4m3-fp32-cut2",
    "nvint4": "dot16-int4-fp8_e4m3-fp32-cut2",
}


def int_versus_fp() -> list[Claim]:
    """Chen et al.: a lane of a dot product unit, over MXFP8's."""
    claims = []
    for figure in read_figures("int_vs_fp_published"):
        if figure.name not in ("area_ratio", "energy_ratio") or figure.case["format"] not in INT_VERSUS_FP:
            continue
        one, other = (INT_VERSUS_FP[str(figure.case[side])] for side in ("format", "over"))
        names = f"{str(figure.case['format']).upper()} over {str(figure.case['over']).upper()}"
        if figure.name == "area_ratio":
            why = "theirs sums cells of a FinFET process, without registers and rounding; ours without registers"
            claims.append(Claim(f"{names}, gates", figure.value, ratio(Silicon.gates_um2, one, other), why))
            why = "ours with registers of operands and cuts, which narrow as the formats do, and the accumulator's"
            claims.append(
                Claim(f"{names}, with registers", figure.value, ratio(Silicon.area_um2, one, other), why)
            )
        else:
            why = "theirs has one toggle rate for all cells; ours is simulated, with glitches, registers and clock"
            claims.append(Claim(f"{names}, energy", figure.value, ratio(Silicon.energy_pj, one, other), why))
    return claims


def lmul() -> list[Claim]:
    """Luo and Sun: energy over that of what L-Mul replaces, by Horowitz's operations and by synthesised units."""
    figures = read_figures("fidelity_published")
    alone, dot = (
        round(1 - figures.value("energy_saved", method="l-mul", operation=operation), 6)
        for operation in ("element-wise", "dot-product")
    )
    add, adder, multiplier = "part-int_adder-32", "part-fp_adder-e8m23", "part-fp_multiplier-e8m23"
    claims = [
        Claim(
            "element-wise, as the paper counts: 32-bit integer add over FP32 multiply",
            alone,
            left([add], [multiplier]),
            "the paper divides Horowitz's figures, which give 0.027",
            at_most=True,
        )
    ]
    layouts = {"fp32": "e8m23", "fp16": "e5m10", "bf16": "e8m7", "fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2"}
    for name, layout in layouts.items():
        why = (
            "beside the adder: the constant, zeros, underflow; and a narrower format's multiplier is cheaper"
        )
        found = left([f"lmul-{name}"], [f"part-fp_multiplier-{layout}"])
        claims.append(Claim(f"element-wise, {name.upper()}", alone, found, why, at_most=True))
    claims.append(
        Claim(
            "dot product, as the paper counts: with an FP32 add each",
            dot,
            left([add, adder], [multiplier, adder]),
            "Horowitz's FP32 add is a quarter of his multiply, ours with its glitches more",
            at_most=True,
        )
    )
    for name in ("fp16", "bf16", "fp8_e4m3"):
        why = "the accumulator's addition, registers and clock stay"
        found = left([f"lmul-{name}-fp32"], [f"mac-{name}-fp32"])
        claims.append(Claim(f"MAC with an FP32 accumulator, {name.upper()}", dot, found, why, at_most=True))
    claims.append(
        Claim(
            "dot product of 32 in four stages, FP8 E4M3",
            dot,
            left(["lmul32-fp8_e4m3-al22-fp32-cut3"], ["dot32-fp8_e4m3-al22-fp32-cut3"]),
            "aligning and adding, which stay, take most of it: a 4 x 4 multiplier is small",
            at_most=True,
        )
    )
    return claims


def _machine(arch: str, name: str) -> Component:
    """A component of a shipped accelerator, in its own formats."""
    machine = load_accelerator(arch)
    return next(component for component in components(machine, first_pair(machine)) if component.name == name)


def first_pair(machine: Accelerator) -> list[Pair]:
    """The first formats of weights and activations that its PE takes."""
    pe = machine.element
    found = ((element_format(w), element_format(a)) for w in pe.weights for a in pe.activations)
    return [pair for pair in found if pe.accepts(*pair) is None][:1]


def _of_machine(arch: str, names: Sequence[str]) -> Callable[[Silicon], Value]:
    """Area of some components of a machine, of a PE."""

    def area(silicon: Silicon) -> Value:
        total = 0.0
        for name in names:
            component = _machine(arch, name)
            priced = silicon.whole(component)
            if priced is None:
                return None
            total += priced.area_um2 * component.count
        return total / _machine(arch, "pe").count

    return area


def _over(upper: Callable[[Silicon], Value], lower: Callable[[Silicon], Value]) -> Callable[[Silicon], Value]:
    def quotient(silicon: Silicon) -> Value:
        one, other = upper(silicon), lower(silicon)
        return None if one is None or other is None else one / other

    return quotient


def designs() -> list[Claim]:
    """PEs of papers beside the MAC that they replace."""
    figures, bitmod = read_figures("fidelity_published"), read_figures("bitmod_model")
    lut, mixpe = read_figures("lut_tensor_core_published"), read_figures("mixpe_model")

    def mac(name: str) -> Callable[[Silicon], Value]:
        return lambda silicon: silicon.area_um2(name)

    def pe_energy(silicon: Silicon) -> Value:
        """Of a cycle, in steps of the first format."""
        machine = load_accelerator("bitmod")
        pair = first_pair(machine)[0]
        priced, fp16 = silicon.whole(_machine("bitmod", "pe")), silicon.energy_pj("mac-fp16-fp32-cut1")
        if priced is None or fp16 is None:
            return None
        cycles = machine.element.timing(*pair).initiation_interval
        return work_pj(priced, 1) / cycles / fp16

    area = figures.value("pe_area_um2", design="bitmod") / figures.value("pe_area_um2", design="fp16")
    energy = bitmod.value("pe_energy_pj", design="bitmod-lossy") / bitmod.value("pe_energy_pj", design="fp16")
    density = lut.value("dot4_density_tflops_per_mm2", unit="mac-w_fp16-a_fp16") / lut.value(
        "dot4_density_tflops_per_mm2", unit="lut-w_int1-a_fp16"
    )

    def pes(design: str) -> int:
        """Products a cycle of one of MixPE's arrays, at the width of its layers."""
        rows, cols, widest, narrowest, bits = (
            mixpe.whole(name, design=design)
            for name in ("rows", "cols", "widest_bits", "narrowest_bits", "layer_bits")
        )
        each = widest // max(bits, narrowest)
        return rows * cols * each * each

    lanes = int(_machine("lut_tensor_core_fp16", "pe").params["lanes"])
    unknown = "the FP16 PE's adder and accumulator are not told; ours rounds once, to FP32"
    lut_why = "theirs is a dot product of 4 alone; ours with its share of tables and keys, scale multiplier, FP32 sum"
    mixpe_why = "implied by arrays that the paper compares as equal in area; ours is one PE over one PE"
    return [
        Claim(
            "BitMoD: PE over FP16 PE, area",
            area,
            _over(_of_machine("bitmod", ["pe"]), mac("mac-fp16-fp32-cut1")),
            unknown,
            at_most=True,
        ),
        Claim("BitMoD: PE over FP16 PE, energy of a cycle", energy, pe_energy, unknown, at_most=True),
        Claim(
            "LUT Tensor Core: area of a product a cycle, INT1 x FP16 over FP16 x FP16",
            density,
            _over(
                _of_machine("lut_tensor_core_fp16", ["pe", "table", "keys"]),
                lambda silicon: _scaled(mac("mac-fp16-fp32")(silicon), lanes),
            ),
            lut_why,
            at_most=True,
        ),
        Claim(
            "MixPE: W4A8 PE over INT8 PE, area",
            pes("int8") / pes("mixpe-w4a8"),
            _over(_of_machine("mixpe_w4a8", ["pe"]), mac("mac-int8-int32-double")),
            mixpe_why,
            at_most=True,
        ),
        Claim(
            "MixPE: W4A16 PE over FP16 PE, area",
            pes("fp16") / pes("mixpe-w4a16"),
            _over(_of_machine("mixpe_w4a16", ["pe"]), mac("mac-fp16-fp32-double")),
            mixpe_why,
            at_most=True,
        ),
    ]


def _scaled(value: Value, factor: float) -> Value:
    return None if value is None else value * factor
