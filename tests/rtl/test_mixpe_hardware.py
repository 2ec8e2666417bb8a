"""MixPE in Amaranth's simulator and in gates: against the PE's function, both engines, and the MAC of its widths."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hardware_runs import ADDERS, INVERTING, in_amaranth

from simulator.arch import load_accelerator
from simulator.array.rescale import operand
from simulator.engine import fast, reference
from simulator.engine.reference import Operands
from simulator.errors import InputError
from simulator.formats import quantize
from simulator.hardware import load_technology
from simulator.hardware.table import table_text
from simulator.mapping import plan_gemm
from simulator.rtl.characterise import Characteriser, Settings
from simulator.rtl.unit import Stream, port_bits
from simulator.rtl.units import unit_of_name
from simulator.rtl.units.mixpe import DEFAULT
from simulator.workload import gemm_workload

pytestmark = pytest.mark.rtl

NAMES = [
    *DEFAULT.split(),
    "mixpe-uint4xint8-int24",
    "mixpe-int4xint16-int32",
    "mixpe-int3xbf16-fp32",
    "mixpe-int4xfp16-fp16",
]


@pytest.mark.parametrize(
    ("name", "fast"), [(name, False) for name in NAMES] + [("mixpe-int4xfp16-fp32-double", True)]
)
def test_hardware_equals_the_function(name, fast):
    unit = unit_of_name(name)
    for proof in unit.proofs:
        if (proof, unit.activations) == ("corners", "bf16"):
            continue  # its largest values overflow any accumulator
        stream = unit.stream(proof, 70 if unit.activation.is_integer else 24, seed=3)
        assert in_amaranth(unit, stream.ports, ADDERS[NAMES.index(name) % 3], fast) == list(stream.expected())


def test_products_of_every_int4_weight_are_exact():
    unit = unit_of_name("mixpe-int4xint8-int32")
    w, a = (codes.ravel() for codes in np.meshgrid(np.arange(-8, 8), np.arange(-128, 128, 3)))
    ports = {"a": port_bits(a, 8), "w": port_bits(w, 4), "first": port_bits(np.ones(len(a), np.int64), 1)}
    stream = Stream(ports, list)
    assert in_amaranth(unit, stream.ports, INVERTING) == (w * a)[: -unit.latency].tolist()


@pytest.mark.parametrize(
    ("weights", "activations", "accumulator"), [("int4", "int8", "int32"), ("int4", "fp16", "fp32")]
)
def test_a_pe_gives_the_sums_and_takes_the_cycles_of_both_engines(weights, activations, accumulator):
    """An array of one PE; scales of the tensors alone, so that its sum is the engines' result."""
    accelerator = load_accelerator(
        {
            "name": "one",
            "clock_ghz": 0.5,
            "array": {"dataflow": "os", "rows": 1, "cols": 1},
            "pe": {
                "family": "mixpe",
                "weights": weights,
                "activations": activations,
                "accumulator": accumulator,
            },
            "buffers": {
                "weights": {"kib": 8, "banks": 2, "width_bits": 128},
                "activations": {"kib": 8, "banks": 2, "width_bits": 256},
                "outputs": {"kib": 1, "banks": 2, "width_bits": 128, "ports": "1r1w"},
            },
            "vector": {"lanes": 4},
            "dram": {"bandwidth_gb_per_s": 8.0, "latency_ns": 5},
        }
    )
    k = 40
    random = np.random.default_rng(5)
    w = quantize(random.normal(size=(1, k)).astype(np.float32), f"{weights}_channel")
    a = quantize(random.normal(size=(1, k)).astype(np.float32), activations)
    unit = unit_of_name(f"mixpe-{weights}x{activations}-{accumulator}")
    ports = {
        "a": port_bits(np.append(a.codes[0].astype(np.int64), [0, 0]), unit.activation.bits),
        "w": port_bits(np.append(w.codes[0].astype(np.int64), [0, 0]), unit.weight.bits),
        "first": port_bits((np.arange(k + 2) == 0).astype(np.int64), 1),
    }
    sums = in_amaranth(unit, ports)

    workload = gemm_workload(1, k, 1, weights=f"{weights}_channel", activations=activations)
    plan = plan_gemm(workload.gemms[0], accelerator)
    function = accelerator.element.function(w.format, a.format)
    operands = Operands(operand(w, 1, 1), operand(a, 1, 1), function)
    record, results = reference.simulate_gemm(plan, "gemm", "gemm", operands)
    scale = np.prod([np.float64(side.scales.ravel()[0]) for side in (w, a) if side.scales is not None])
    exponent = function.exponent
    assert np.float32(np.ldexp(float(sums[k - 1]), exponent) * scale) == results[0, 0, 0]
    # The last operands are in the registers in cycle k - 1, and the sum is complete at its end.
    assert record.compute_cycles == k == fast.simulate_gemm(plan, "gemm", "gemm").compute_cycles


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mixpe", "not the name of a unit"),
        ("mixpe-int4xint8-fp32", "two's complement"),
        ("mixpe-int4xfp16-fixed64", "two's complement"),
        ("mixpe-int12xint8-int32", "at most 8 bits"),
        ("mixpe-int4xflint4-int32", "shifts integers and floats"),
        ("mixpe-int4xint8-int32-doubled", "not the name of a unit"),
    ],
)
def test_names_of_no_unit_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        unit_of_name(name)


def test_names_say_everything():
    for name in NAMES:
        assert unit_of_name(name).name == name


@pytest.fixture(scope="module")
def worker(toy_file):
    return Characteriser(Settings((str(toy_file),)))


def test_its_integer_product_is_a_multiplier_of_the_same_widths(worker, tmp_path):
    """Rows of shifted activations are the partial products of a MAC: the same gates, to a hundredth."""
    from simulator.rtl.units import unit_of_name as any_unit

    unit = unit_of_name("mixpe-int4xint8-int32-double")
    figures = worker.figures(unit)
    mac = worker.figures(any_unit("mac-int4xint8-int32-double"))
    assert figures.area_um2 == pytest.approx(mac.area_um2, rel=0.01)
    assert figures.flops == 4 + 8 + 1 + 2 * 32
    assert figures.energy["zero"].total_fj < figures.energy["gaussian"].total_fj

    table = tmp_path / "units.csv"
    table.write_text(table_text(worker.rows(unit, figures)))
    (component,) = unit.components()
    assert load_technology(table).price(component).quality == "synthesised"


@pytest.mark.slow
def test_area_grows_with_the_weight(worker):
    areas = [worker.figures(unit_of_name(f"mixpe-int{bits}xfp16-fp32")).area_um2 for bits in (2, 4, 8)]
    assert areas == sorted(set(areas))
