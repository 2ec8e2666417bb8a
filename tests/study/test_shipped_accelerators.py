"""Every shipped accelerator runs a language model and a real BERT, in the formats it is built for."""

from __future__ import annotations

from typing import Any

import pytest

import simulator as sim
from simulator.arch import accelerator_names, load_accelerator
from simulator.formats import get_format

PHASES: tuple[dict[str, Any], ...] = ({"prefill": 256}, {"decode": 256})


def check(report: Any) -> None:
    assert report.cycles == sum(layer.record.cycles for layer in report.layer_reports)
    for layer in report.layer_reports:
        assert sum(layer.record.cycle_stack.values()) == layer.record.cycles
        assert layer.record.compute_cycles <= layer.record.cycles or layer.record.op == "vector"
    assert report.energy_pj > 0
    assert report.area_um2 > 0


@pytest.mark.parametrize("arch", accelerator_names())
@pytest.mark.parametrize("phase", PHASES, ids=["prefill", "decode"])
def test_two_layers_of_llama_run(arch: str, phase: dict[str, Any]) -> None:
    check(sim.run("llama-2-7b", arch, layers=2, **phase))


def by_codes(arch: str) -> bool:
    """Each layer's own weights decide its time."""
    accelerator = load_accelerator(arch)
    pair = accelerator.formats.weights or "int8", accelerator.formats.activations or "int8"
    return accelerator.element.data_timing(*map(get_format, pair)) is not None


@pytest.mark.slow
@pytest.mark.parametrize("arch", accelerator_names())
def test_all_of_llama_runs(arch: str) -> None:
    """Prefill and a decode step; where codes decide, minutes each and the same weights, so prefill alone."""
    for phase in PHASES[: 1 if by_codes(arch) else 2]:
        check(sim.run("llama-2-7b", arch, **phase))


@pytest.mark.parametrize("arch", accelerator_names())
def test_one_layer_of_minilm_runs_on_its_real_weights(arch: str) -> None:
    check(sim.run("minilm-l6", arch, layers=1))


@pytest.mark.slow
@pytest.mark.parametrize("arch", accelerator_names())
def test_minilm_runs_on_its_real_weights(arch: str) -> None:
    check(sim.run("minilm-l6", arch))
