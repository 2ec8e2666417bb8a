"""Rescale unit, vector lane, output adder and decoders in Amaranth's simulator against what the engine computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth")

from array_schedule import exits_of, expected_leavings, schedule
from hardware_runs import in_amaranth
from test_arrays_hardware import Case, codes_of, hardware, mapped, outputs_of

from simulator.arch import accelerator_names, components, load_accelerator
from simulator.array.rescale import Operand, finish
from simulator.engine import outputs
from simulator.engine.outputs import gemm_values
from simulator.errors import InputError
from simulator.formats import get_format
from simulator.pe.arithmetic import FP32
from simulator.pe.protocol import SCALE_EXPONENT
from simulator.rtl.cells import FullAdder
from simulator.rtl.units import default_units, unit_of_name
from simulator.rtl.units.decoder import DecoderUnit, scale_codes
from simulator.rtl.units.rescale import RescaleUnit, fp32_integers
from simulator.rtl.units.vector import OutputAdderUnit, VectorUnit

pytestmark = pytest.mark.rtl

INVERTING = FullAdder(sum_inverted=True, carry_inverted=True)
OURS = (RescaleUnit, VectorUnit, OutputAdderUnit, DecoderUnit)
KINDS = ("rescale", "vector", "output_adder")


def proved(unit, proof, cycles, *, fast=False):
    stream = unit.stream(proof, cycles, seed=3)
    expected = list(stream.expected())
    assert len(set(expected)) > 1
    assert in_amaranth(unit, stream.ports, INVERTING, fast=fast) == expected


@pytest.mark.parametrize(
    "name",
    [
        "rescale-int32-z8x8-s11-cut10",
        "rescale-fp32-s11-cut5",
        "vector-fp32-int32-cut8",
        "output_adder-int48",
        "output_adder-fp32-cut4",
        "output_adder-e8m13-cut1",
    ],
)
def test_hardware_equals_exact_arithmetic_with_one_rounding(name):
    unit = unit_of_name(name)
    proved(unit, "mixed" if isinstance(unit, VectorUnit) else "corners", 60)


@pytest.mark.parametrize("name", ["rescale-int16-z4x0-s4-cut10", "output_adder-fp32-cut4"])
def test_units_for_a_tight_clock_compute_the_same(name):
    proved(unit_of_name(name), "corners", 30, fast=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rescale-int24-z0x5-s11", "rescale-int32-s24-cut2", "vector-fp32-int48"])
def test_units_that_no_shipped_accelerator_has_equal_their_oracle(name):
    unit = unit_of_name(name)
    for fast in (False, True):
        proved(unit, unit.proofs[-1], 60, fast=fast)


def test_sums_of_scaled_groups_reach_subnormal_numbers():
    unit = unit_of_name("rescale-int16-s11-cut3")
    stream = unit.stream("corners", 120, seed=1)
    expected = np.array(list(stream.expected()), object)
    assert any(0 < abs(value) < 1 << 23 for value in expected)
    assert in_amaranth(unit, stream.ports) == list(expected)


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (
            "decode-two_level-uint4+int4+int8-int8-s8",
            ["decode uint4 zero scaled", "decode int8", "decode int4 zero"],
        ),
        (
            "decode-two_level-int4+uint4-int8-s8",
            ["decode int4 zero", "decode uint4", "decode uint4 zero scaled"],
        ),
        (
            "decode-shift_cast-fp6_e3m2+fp16-fp16",
            ["decode fp6_e3m2", "decode fp6_e3m2 scaled", "decode fp16"],
        ),
        ("decode-shift_cast-fp4_e2m1+fp8_e4m3-fp8_e4m3", ["decode fp4_e2m1 scaled", "decode fp8_e4m3"]),
        ("decode-figna-fp16-g3", ["decode fp16"]),
        ("decode-figna-bf16-g2", ["decode bf16"]),
        (
            "decode-dequantize-int4+int8+fp16-fp16-s11-cut3",
            ["decode int8 zero scaled", "decode int4", "decode fp16"],
        ),
        (
            "decode-dequantize-flint4+bitmod_fp3-fp16-s11",
            ["decode bitmod_fp3 scaled", "decode flint4 scaled"],
        ),
        ("decode-dequantize-fp4_e2m1-fp8_e4m3", ["decode fp4_e2m1"]),
    ],
)
def test_a_decoder_is_the_pes(name, events):
    unit = unit_of_name(name)
    assert set(events) <= set(unit.cases)
    for event in events:
        proved(unit, f"gaussian {event}", 40)
        proved(unit, f"corners {event}", 80)


def in_hardware(monkeypatch: pytest.MonkeyPatch, unit: RescaleUnit) -> list[int]:
    """Makes the engine's rescale arithmetic the unit's; returns the list of how many sums it took each time."""
    zeros: dict[str, Any] = {}
    taken: list[int] = []

    def keep(
        partial: Any, exponent: int, weights: Operand, activations: Operand, where: Any
    ) -> tuple[Any, int]:
        weight_batch, batch, m, n, low, high = where
        w_zero = weights.zero_points[weight_batch, n, weights.group_at(low)]
        a_zero = activations.zero_points[batch, m, activations.group_at(low)]
        w_sum = weights.integers[weight_batch, n, low:high].sum(axis=-1) - (high - low) * w_zero
        a_sum = activations.integers[batch, m, low:high].sum(axis=-1)
        zeros.update(weight_zero=w_zero[None, :], activation_sum=a_sum[:, None])
        zeros.update(activation_zero=a_zero[:, None], weight_sum=w_sum[None, :])
        return partial, exponent

    def rescale(before: Any, partial: Any, exponent: int, w_scale: Any, a_scale: Any) -> Any:
        assert exponent == 0
        shape = partial.shape
        reals = [
            np.ldexp(np.broadcast_to(s, shape).astype(float), SCALE_EXPONENT) for s in (w_scale, a_scale)
        ]
        old = np.ldexp(before.astype(float), FP32.low).astype(np.float32).view(np.uint32)
        codes = {"partial": partial, "addend": old}
        codes |= {name: np.broadcast_to(zeros[name], shape) for name in unit.widths if name in zeros}
        codes |= {
            name: scale_codes(real, unit.scale_bits)
            for name, real in zip(("weight_scale", "activation_scale"), reals, strict=True)
        }
        idle = unit.latency
        flat = {
            name: np.concatenate([code.reshape(-1).astype(np.int64), np.zeros(idle, np.int64)])
            for name, code in codes.items()
        }
        taken.append(partial.size)
        got = in_amaranth(unit, unit.stream_of(flat).ports)
        return np.array(got, object).reshape(shape)

    monkeypatch.setattr(outputs, "correct", keep)
    monkeypatch.setattr(outputs, "accumulate_scaled", rescale)
    return taken


@pytest.mark.parametrize(
    ("weights", "activations"),
    [("int4_g8", "int8"), ("int3_g8_asym", "int5_g16_asym")],
)
def test_an_array_with_the_rescale_unit_behind_it_computes_the_engines_results(
    weights, activations, monkeypatch
):
    """From the operands' ports to the FP32 sums everything is hardware."""
    case = Case("os", 3, 2, m=3, k=16, n=2, lanes=2, depth=2, weights=weights, activations=activations)
    plan, operands = mapped(case)
    wanted = gemm_values(plan, operands)
    timed, codes = schedule(plan), codes_of(case, plan, operands)
    exits = exits_of(plan, timed)
    found = hardware(plan, timed, codes, exits)
    assert found == expected_leavings(plan, timed, codes, exits)
    taken = in_hardware(monkeypatch, unit_of_name("rescale-int32-z8x8-s11-cut10"))
    np.testing.assert_array_equal(outputs_of(plan, operands, timed, found), wanted)
    assert sum(taken) == case.m * case.n * len(plan.edges)


def test_the_output_stages_two_visits_round_once():
    """Scale times scale, then the sum times it: what `finish` computes, for scales of FP16."""
    unit = unit_of_name("vector-fp32-int32")
    rng = np.random.default_rng(6)
    sums = rng.integers(-(1 << 31), 1 << 31, 40)
    halves = [np.abs(rng.normal(0, 0.01, 40)).astype(np.float16).astype(np.float32) for _ in range(2)]
    words = [half.view(np.uint32).astype(np.int64) for half in halves]
    exact = [np.array([int(float(h) * 2.0**60) << 89 for h in half], object) for half in halves]
    none = np.zeros(40, np.int64)
    products = unit.expected({"a": words[0], "b": words[1], "c": none, "sum": none, "integer": none})
    scale = np.array([float(value) * 2.0**-149 for _, value in products]).astype(np.float32)
    results = unit.expected(
        {"a": sums, "b": scale.view(np.uint32).astype(np.int64), "c": none, "sum": none + 1, "integer": none}
    )
    stage = finish(sums.astype(object), 0, exact[0], exact[1], 1 << -2 * SCALE_EXPONENT)
    assert [value for _, value in results] == fp32_integers(stage.view(np.uint32).tolist()).tolist()


def test_figna_lanes_and_their_tree_align_a_group():
    """Four lanes joined by three nodes: hardware finds the largest exponent itself."""
    from amaranth.hdl import ClockDomain, Module
    from amaranth.sim import Simulator

    from simulator.formats import quantize
    from simulator.rtl.staged_add import Ranks
    from simulator.rtl.units.decoder_hardware import FignaModule

    unit = unit_of_name("decode-figna-fp16-g3")
    pe = unit.pe.model_copy(update={"align_group": 4})
    rng = np.random.default_rng(8)
    values = rng.normal(size=(30, 4)) * np.ldexp(1.0, rng.integers(-18, 12, (30, 4)))
    tensor = quantize(values.astype(np.float32), get_format("fp16"))
    m = Module()
    m.domains.sync = ClockDomain("sync", reset_less=True)
    ranks = Ranks(m, ())
    lanes = [FignaModule(unit, FullAdder()) for _ in range(4)]
    for lane in lanes:
        # Its circuit becomes part of this one; Amaranth would warn that the module itself is never elaborated.
        lane._MustUse__silence = True
        value = ranks.register(lane.inputs["value"], "value")
        m.d.comb += lane.out.eq(ranks.register(lane.decoded(m, ranks, value), "result"))
    low, high, top = lanes[:3]
    m.d.comb += [low.inputs["left"].eq(lanes[0].exponent), low.inputs["right"].eq(lanes[1].exponent)]
    m.d.comb += [high.inputs["left"].eq(lanes[2].exponent), high.inputs["right"].eq(lanes[3].exponent)]
    m.d.comb += [top.inputs["left"].eq(low.larger), top.inputs["right"].eq(high.larger)]
    m.d.comb += [lane.inputs["largest"].eq(top.larger) for lane in lanes]
    seen: list[list[int]] = []

    async def bench(context: Any) -> None:
        for row in tensor.codes.tolist():
            for lane, code in zip(lanes, row, strict=True):
                context.set(lane.inputs["value"], code)
            seen.append([context.get(lane.out) for lane in lanes])
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    aligned = [[-(code - (1 << 14)) if code >> 14 else code for code in row] for row in seen[2:]]
    assert aligned == pe.decode_tensor(tensor).codes[:-2].tolist()


def test_every_shipped_component_of_these_kinds_is_a_default_unit():
    """All but the rescale units of floating-point sums with zero points, which have no hardware description."""
    built: dict[Any, set[str]] = {}
    for unit in default_units():
        if isinstance(unit, OURS):
            for component in unit.components():
                built.setdefault((component.kind, *sorted(component.params.items())), set()).update(
                    component.events
                )
    missing = set()
    for name in accelerator_names():
        machine = load_accelerator(name)
        weights, activations = machine.formats.weights, machine.formats.activations
        pairs = [(get_format(weights), get_format(activations))] if weights and activations else []
        for component in components(machine, pairs):
            if component.kind in KINDS or component.kind.endswith("_decoder"):
                key = (component.kind, *sorted(component.params.items()))
                if not set(component.events) <= built.get(key, set()):
                    missing.add(name)
    assert missing == {"figlut", "t_mac", "lut_tensor_core_fp16", "mixpe_w4a16"}


@pytest.mark.parametrize(
    "unit", [u for u in default_units() if isinstance(u, OURS)], ids=lambda unit: unit.name
)
def test_what_a_unit_measures_prices_every_event(unit):
    from simulator.rtl.unit import Energy

    energy = {stimulus: Energy(1.0, 2.0 + place, 1.0, 1.0) for place, stimulus in enumerate(unit.stimuli)}
    for component in unit.components():
        for event in component.events:
            femtojoule, how = unit.event_energy(event, energy)
            assert femtojoule > 0, event
            assert how
    assert {"name", "family", "lanes", "pipeline_cuts", "registers_counted"} <= set(unit.specification())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rescale-int32", "not the name of a unit"),
        ("rescale-int32-s11-cut109", "not the name of a unit"),
        ("rescale-fp32-z8x8-s11", "no hardware description of these zero points"),
        ("rescale-fp16-s11", "sums that no rescale unit takes"),
        ("rescale-int32-s99", "bits of a scale's significand"),
        ("vector-fp32-fp32", "sums of a lane"),
        ("output_adder-int32-cut2", "ranks of an output adder"),
        ("output_adder-int7", "no such unit"),
        ("decode-nothing-int4-int8", "no such decoder"),
        ("decode-two_level-fp4_e2m1-int8-s8", "decoder takes integers"),
    ],
)
def test_names_of_no_unit_of_these_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


def test_scales_wider_than_the_rescale_unit_are_refused():
    machine = load_accelerator("systolic_os_8x8")
    pair = get_format("int8_g32_si12"), get_format("int8")
    assert "array.rescale_scale_bits" in (machine.refusal(get_format("int8_g32_su12"), pair[1]) or "")
    wide = load_accelerator("systolic_os_8x8", {"array.rescale_scale_bits": 12})
    assert wide.refusal(*pair) is None
