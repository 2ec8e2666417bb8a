"""Gate-level energy and timing on netlists small enough to add up by hand."""

import itertools

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.rtl.cells import CellSet
from simulator.rtl.cycles import run_cycles
from simulator.rtl.gates import _arrays, simulate
from simulator.rtl.liberty import read_library
from simulator.rtl.network import Conditions, Network
from simulator.rtl.synthesis import Netlist
from simulator.rtl.timing import shortest_period_ps

CONDITIONS = Conditions(input_slew_ps=10.0, output_load_ff=2.0)
CLK = "clk"


def network(toy, cells, outputs, inputs=("d",)):
    """A netlist of (cell, {pin: net name}); net names are made numbers."""
    numbers = {CLK: 2}

    def net(name):
        return name if name in ("0", "1") else numbers.setdefault(name, len(numbers) + 2)

    placed = tuple(
        (f"u{i}", cell, {pin: net(name) for pin, name in pins.items()})
        for i, (cell, pins) in enumerate(cells)
    )
    ports = {CLK: (2,), **{name: (net(name),) for name in inputs}}
    return Network(Netlist(placed, ports, {name: (net(name),) for name in outputs}, ""), toy, CONDITIONS)


def flop(data, output):
    return "DFF", {"CK": CLK, "D": data, "Q": output}


def wave(*values):
    return np.array(values, np.uint8)[:, None]


def test_a_toggling_inverter_pays_charge_and_internal_energy(toy):
    """d toggles every cycle: q rises and falls, and so does y = !q, which drives a flop of 2 fF."""
    made = network(toy, [flop("d", "q"), ("INV", {"A": "q", "Y": "y"}), flop("y", "z")], ["z"])
    cycles = 20
    result, _ = simulate(made, {"d": wave(*[1, 0] * (cycles // 2))}, skip=4)
    charge = 2.0 * 1.0**2 / 2  # of 2 fF at 1 V
    assert result.combinational_glitch_free_fj == pytest.approx(charge + (2 + 1) / 2)
    assert result.combinational_timed_fj == pytest.approx(result.combinational_glitch_free_fj)
    # A cycle: d, q (inverter's pin) and z (output load) change by 2 fF each; both flops' outputs cost 10 or 8 inside.
    assert result.register_fj == pytest.approx(3 * charge + 2 * 9)
    # Both flops are about to change at every edge: 0 at the rising one, and D differs from Q again at the falling one.
    assert result.clock_fj == pytest.approx(2 * (2 * 0.5 + 5))


@pytest.mark.parametrize(("b", "fj"), [(1, (4 + 3) / 2), (0, (5 + 6) / 2 + (2 + 1) / 2 + 2.0 * 1.0**2 / 2)])
def test_an_input_costs_what_the_library_says_in_its_state(toy_file, tmp_path, b, fj):
    """a toggles every cycle; its own energy depends on b, and with b = 1 no output moves."""
    pin = "cell_leakage_power : 0.2;\n    pin (A) { direction : input; capacitance : 0.002; "
    power = 'internal_power () {{ when : "{}"; rise_power (e) {{ values ({}); }} fall_power (e) {{ values ({}); }} }} '
    held = power.format("B", *(f'"{x}, {x}", "{x}, {x}"' for x in (0.004, 0.003)))
    free = power.format("!B", *(f'"{x}, {x}", "{x}, {x}"' for x in (0.005, 0.006)))
    text = toy_file.read_text()
    assert text.count(f"cell (NOR2) {{\n    area : 2;\n    {pin}") == 1
    head, tail = text.split("cell (NOR2)")
    changed = tmp_path / "changed.lib"
    changed.write_text(f"{head}cell (NOR2){tail.replace(pin, pin + held + free, 1)}")
    cells = CellSet(read_library([changed]))
    made = network(cells, [("NOR2", {"A": "a", "B": "b", "Y": "y"}), flop("y", "z")], ["z"], ["a", "b"])
    ports = {"a": wave(*[1, 0] * 10), "b": wave(*[b] * 20)}
    result, _ = simulate(made, ports, skip=4)
    assert result.combinational_glitch_free_fj == pytest.approx(fj)
    assert result.combinational_timed_fj == pytest.approx(fj)


def test_idle_flops_pay_for_the_clock_alone(toy):
    made = network(toy, [flop("d", "q")], ["q"])
    result, _ = simulate(made, {"d": wave(*[0] * 10)}, skip=1)
    assert (result.combinational_glitch_free_fj, result.register_fj) == (0.0, 0.0)
    assert result.clock_fj == pytest.approx(2 * 0.5 + 3 + 3)


def test_inputs_that_arrive_apart_make_a_glitch(toy):
    """y = q ^ delayed(q) never changes in the end, but follows q until the delayed copy arrives."""
    cells = [flop("d", "q")]
    names = ["q", *(f"n{i}" for i in range(6))]
    cells += [("BUF", {"A": a, "Y": b}) for a, b in itertools.pairwise(names)]
    cells += [("XOR2", {"A": "q", "B": names[-1], "Y": "y"}), flop("y", "z")]
    made = network(toy, cells, ["z"])
    result, _ = simulate(made, {"d": wave(*[1, 0] * 10)}, skip=4)
    # Two more edges of a net of 2 fF, with 2 and 1 fJ inside.
    assert result.combinational_timed_fj - result.combinational_glitch_free_fj == pytest.approx(2 * 1.0 + 3)


def test_a_pulse_shorter_than_the_gate_is_swallowed(toy):
    """One inverter's delay apart, an XOR gate with a longer delay of its own shows nothing."""
    cells = [flop("d", "q"), ("INV", {"A": "q", "Y": "n"}), ("XOR2", {"A": "q", "B": "n", "Y": "y"})]
    cells += [flop("y", "z"), *[("BUF", {"A": "y", "Y": f"b{i}"}) for i in range(12)]]
    made = network(toy, cells, ["z"])
    result, _ = simulate(made, {"d": wave(*[1, 0] * 10)}, skip=4)
    assert result.combinational_timed_fj == pytest.approx(result.combinational_glitch_free_fj)


def test_constants_and_outputs(toy):
    cells = [
        flop("d", "q"),
        ("TIE1", {"Y": "one"}),
        ("NAND2", {"A": "q", "B": "one", "Y": "y"}),
        flop("y", "z"),
    ]
    made = network(toy, cells, ["z", "y"])
    _, outputs = simulate(made, {"d": wave(1, 1, 0, 1, 0, 0)}, skip=0)
    # d is taken at the next edge; y = !q at once, z one edge later.
    assert outputs["y"][:, 0].tolist() == [1, 0, 0, 1, 0, 1]
    assert outputs["z"][:, 0].tolist() == [1, 1, 0, 0, 1, 0]


def test_period_is_clock_to_output_gates_and_setup(toy):
    """Two inverters, each loaded with 2 fF: slews stay 10 ps, so all delays are those of the first table point."""
    cells = [flop("d", "q"), ("INV", {"A": "q", "Y": "a"}), ("INV", {"A": "a", "Y": "b"}), flop("b", "z")]
    made = network(toy, cells, ["z"])
    # q falls (42), a rises (10), b falls (8), falling setup 25; or q rises (40), a falls (8), b rises (10), setup 20.
    assert shortest_period_ps(made) == pytest.approx(42 + 10 + 8 + 25)


def test_slews_slow_later_gates_down(toy):
    """The first inverter drives 10 fF: 30 ps to rise, and its 50 ps slew costs the next one 8 ps more."""
    cells = [flop("d", "q"), ("INV", {"A": "q", "Y": "a"}), ("INV", {"A": "a", "Y": "b"}), flop("b", "z")]
    cells += [("INV", {"A": "a", "Y": f"x{i}"}) for i in range(4)]
    made = network(toy, cells, ["z"])
    assert shortest_period_ps(made) == pytest.approx(42 + 30 + 16 + 25)


def test_a_combinational_loop_is_refused(toy):
    with pytest.raises(InputError, match="combinational loop"):
        network(toy, [("INV", {"A": "a", "Y": "b"}), ("INV", {"A": "b", "Y": "a"})], ["b"])


@pytest.mark.parametrize("timed", [False, True])
def test_kernel_equals_plain_python(toy, timed):
    rng = np.random.default_rng(0)
    nets = ["q0", "q1", "q2", "q3"]
    cells = [flop(f"d{i}", f"q{i}") for i in range(4)]
    for index in range(25):
        a, b = rng.choice(nets, 2)
        cell = ["NAND2", "NOR2", "XOR2"][index % 3]
        cells.append((cell, {"A": str(a), "B": str(b), "Y": f"n{index}"}))
        nets.append(f"n{index}")
    made = network(toy, [*cells, flop(nets[-1], "z")], ["z"], [f"d{i}" for i in range(4)])
    arrays = _arrays(made)
    fields = [getattr(arrays, name) for name in type(arrays).__dataclass_fields__]
    stimulus = rng.integers(0, 2, (40, 4)).astype(np.uint8)
    input_nets = np.array([net for nets in made.inputs.values() for net in nets], np.int64)
    output_nets = np.array([net for nets in made.outputs.values() for net in nets], np.int64)
    arguments = (timed, 3, stimulus, input_nets, output_nets, made.net_count, *fields)
    compiled, plain = run_cycles(*arguments), run_cycles.plain(*arguments)
    np.testing.assert_allclose(compiled[0], plain[0])
    np.testing.assert_array_equal(compiled[1], plain[1])
