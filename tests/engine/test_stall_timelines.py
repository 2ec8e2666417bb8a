"""Small runs worked out by hand as timelines: who waits for whom, cycle by cycle.

The rules are those of docs/concepts.md. Intervals exclude their end; a drawn character is one cycle.
docs/worked-example.md derives a further run, with a rescale unit that slows a weight-stationary stream.
"""

from __future__ import annotations

from typing import Any

import pytest
from machines import description

from simulator.arch import load_accelerator
from simulator.engine import fast, reference
from simulator.engine.record import LayerRecord, expand
from simulator.mapping import plan_gemm
from simulator.workload import gemm_workload

ENGINES = pytest.mark.parametrize("engine", ["fast", "reference"])


def simulate(
    engine: str, machine: dict[str, Any], shape: tuple[int, int, int], weights: str = "int8"
) -> LayerRecord:
    """A(m, k) @ W(n, k).T of ``shape`` (m, k, n) with INT8 activations of one scale and FP16 results."""
    workload = gemm_workload(*shape, weights=weights, activations="int8", output="fp16")
    plan = plan_gemm(workload.gemms[0], load_accelerator(machine))
    if engine == "fast":
        return fast.simulate_gemm(plan, "gemm", "gemm", trace=True)
    return reference.simulate_gemm(plan, "gemm", "gemm", trace=True)[0]


def check(
    record: LayerRecord,
    *,
    dma: list[tuple[int, int]],
    array: list[tuple[int, int]],
    stack: dict[str, int],
    cycles: int,
    compute_cycles: int,
) -> None:
    assert list(expand(record.intervals["dma"])) == dma
    assert list(expand(record.intervals["array"])) == array
    assert {cause: spent for cause, spent in record.cycle_stack.items() if spent} == stack
    assert (record.cycles, record.compute_cycles) == (cycles, compute_cycles)


@ENGINES
def test_slow_rescale_unit_holds_the_next_fold_off_the_column_bus(engine: str) -> None:
    """Outputs stationary, overlapped folds, a rescale unit that takes a result every two cycles: d = 2.

    4 x 2 PEs, (6, 8) x (2, 8), groups of 4: T = 4 steps a fold; rows 4 and 2, two groups each: four folds
    in a tile. DRAM: 64 bits a cycle, latency 5.

    W: 2 x 8 x 8 codes + 2 x 2 x 16 scales = 192 bits, 3 cycles; usable at 8.
    A: 6 x 8 x 8 + 16 = 400 bits, 7 cycles on the bus from 3; usable at 15: the tile starts.
    T' = I = 4, S_g = S_f + max(4, 2 r_f): held for 4 after a fold of four rows, not after two.

    cycle   0              15      23      31  35  39 42    48
    DMA     WWWAAAAAAA................................OOOOOO
    array   ...............1111----2222----33334444ttt......   1 to 4: streams, -: held, t: tail

    Held: at full speed a column is free again after r = 4 = T' cycles, so all of 4 + 4 is dequantization.
    Tail: (r - 1) d + c - 1 = 3 with r = c = 2; 2 of them at full speed, 1 for the rescale unit.
    O: 12 x 16 = 192 bits are 3 cycles on the bus, but the output stage takes 2 x 12 / 4 lanes = 6.
    """
    machine = description(
        array={"cols": 2, "rescale_per_cycle": 0.5}, mapping={"tile_m": 6, "tile_n": 2, "tile_k": 8}
    )
    record = simulate(engine, machine, (6, 8, 2), weights="int8_g4")
    check(
        record,
        dma=[(0, 3), (3, 10), (42, 48)],
        array=[(15, 42)],
        stack={
            "wait_activations": 15,
            "compute": 16,
            "dequantization": 4 + 4 + 1,
            "fill_drain": 2,
            "wait_writeback": 6,
        },
        cycles=48,
        compute_cycles=27,
    )
    assert record.dram_read_bytes == {"weights": 24, "activations": 50}
    assert record.dram_write_bytes == {"outputs": 24}


@ENGINES
def test_single_buffered_weights_expose_every_load_and_its_latency(engine: str) -> None:
    """Weights stationary on 4 x 4 PEs, one weight tile in the buffer: a load waits for the last tile's end.

    (4, 4) x (12, 4), tile_n 4: three tiles of one fold. DRAM: 16 bits a cycle, latency 5.

    W0: 4 x 4 x 8 + 16 (tensor scale) = 144 bits, 9 cycles; W1, W2: 128 bits, 8. A likewise 144: 9.
    O: 16 x 16 = 256: 16.
    Fold: preload 4 + stream 4 + tail p r + c - 2 = 6: 14 cycles.

    tile  weights usable   starts  ends   then on the bus
    0     9 + 5 = 14       23 (A)  37     W1 37 to 45, O0 45 to 61
    1     45 + 5 = 50      50      64     W2 64 to 72, O1 72 to 88
    2     72 + 5 = 77      77      91     O2 91 to 107

    Between tiles the array waits for weights for 8 + 5 = 13 cycles, twice. Untiled: 4 + 3 x 4 + 6 = 22.
    """
    machine = description(
        array={"dataflow": "ws", "cols": 4},
        buffers={"weights": {"kib": 0.125, "banks": 1, "width_bits": 32, "buffering": 1}},
        dram={"bandwidth_gb_per_s": 2.0},
        mapping={"tile_n": 4},
    )
    record = simulate(engine, machine, (4, 4, 12))
    check(
        record,
        dma=[(0, 9), (9, 18), (37, 45), (45, 61), (64, 72), (72, 88), (91, 107)],
        array=[(23, 37), (50, 64), (77, 91)],
        stack={
            "wait_activations": 23,
            "wait_weights": 13 + 13,
            "compute": 3 * 4,
            "fill_drain": 3 * (4 + 6),
            "wait_writeback": 16,
        },
        cycles=107,
        compute_cycles=22,
    )
    assert record.dram_read_bytes == {"weights": 50, "activations": 18}
    assert record.dram_write_bytes == {"outputs": 96}


@ENGINES
def test_k_outermost_spills_and_restores_partial_sums(engine: str) -> None:
    """Outputs stationary on 4 x 3 PEs, (4, 8) x (9, 8), loops k, m, n, tile_k 4, tile_n 3: six tiles.

    DRAM: 16 bits a cycle, latency 5. Tile: one fold, T = 4, 4 + (r - 1) + (c - 1) = 9 cycles.
    W: 3 x 4 x 8 = 96 bits, 6 cycles (W0 with the tensor scale 112: 7). A: 4 x 4 x 8 = 128: 8 (A0: 144: 9).
    S (spill) and P (its return): 4 x 3 x 32 = 384 bits, 24 cycles. O: 4 x 3 x 16 = 192 bits, 12.
    Two tiles of each operand fit: A0 and A1 stay, output slots alternate. Tiles 0, 1, 2 are output tiles
    0, 1, 2 over the first half of K, tiles 3, 4, 5 the same over the second.

    release  transfers: bus (usable)
    start    W0 0 to 7 (12), A0 7 to 16 (21), W1 16 to 22 (27), A1 22 to 30 (35)
    tile 0   W2 30 to 36 (41), S0 36 to 60
    tile 1   W3 60 to 66 (71), S1 66 to 90, P0 90 to 114 (119)
    tile 2   W4 114 to 120 (125), S2 120 to 144, P1 144 to 168 (173)
    tile 3   W5 168 to 174 (179), O0 174 to 186, P2 186 to 210 (215)
    tile 4   O1 210 to 222
    tile 5   O2 224 to 236

    tile  waits for          starts  ends
    0     A0                 21      30
    1     W1                 27      36   while tile 0 drains: the fold before has streamed since 25
    2     slot 0, that is S0 60      69
    3     P0                 119     128
    4     P1                 173     182
    5     P2                 215     224

    Tile 0 shows 2 of its 5 cycles of drain (25 to 27), the others 5. All other waits are for the output
    buffer: 24 + 50 + 45 + 33 and 12 at the end. Untiled: three folds of T = 8, 8 apart, and a tail of 5.
    """
    machine = description(
        dram={"bandwidth_gb_per_s": 2.0}, mapping={"tile_m": 4, "tile_n": 3, "tile_k": 4, "order": "kmn"}
    )
    record = simulate(engine, machine, (4, 8, 9))
    loads = [(0, 7), (7, 16), (16, 22), (22, 30)]
    after_tile = [
        [(30, 36), (36, 60)],
        [(60, 66), (66, 90), (90, 114)],
        [(114, 120), (120, 144), (144, 168)],
        [(168, 174), (174, 186), (186, 210)],
        [(210, 222)],
        [(224, 236)],
    ]
    check(
        record,
        dma=loads + [transfer for transfers in after_tile for transfer in transfers],
        array=[(21, 30), (27, 36), (60, 69), (119, 128), (173, 182), (215, 224)],
        stack={
            "wait_activations": 21,
            "compute": 6 * 4,
            "fill_drain": 2 + 5 * 5,
            "wait_writeback": 24 + 50 + 45 + 33 + 12,
        },
        cycles=236,
        compute_cycles=29,
    )
    assert record.dram_read_bytes == {"weights": 74, "activations": 34, "partial_sums": 3 * 48}
    assert record.dram_write_bytes == {"outputs": 72, "partial_sums": 3 * 48}
    assert record.counts["output_adders", "add"] == 36


@ENGINES
def test_slow_steps_keep_their_pes_busy_between_them(engine: str) -> None:
    """Outputs stationary on 4 x 3 PEs that start a step every third cycle: ii = 3. (2, 4) x (3, 4), one fold.

    DRAM: 64 bits a cycle, latency 5. W: 3 x 4 x 8 + 16 = 112 bits, 2 cycles; usable at 7.
    A: 2 x 4 x 8 + 16 = 80 bits, 2 cycles on the bus from 2; usable at 9: the tile starts.
    s = ii, so T' = I = 3 x 3 + 1 = 10; tail (r - 1) + (c - 1) = 3: ends at 22.
    O: 6 x 16 = 96 bits are 2 cycles on the bus, but the output stage takes 2 x 6 / 4 lanes = 3.

    r c T = 2 x 3 x 4 = 24 steps of 3 cycles: of 12 PEs x 25 cycles 300 - 72 = 228 are idle.
    """
    machine = description(pe={"initiation_interval": 3}, mapping={"tile_m": 2, "tile_n": 3, "tile_k": 4})
    record = simulate(engine, machine, (2, 4, 3))
    check(
        record,
        dma=[(0, 2), (2, 4), (22, 25)],
        array=[(9, 22)],
        stack={"wait_activations": 9, "compute": 10, "fill_drain": 3, "wait_writeback": 3},
        cycles=25,
        compute_cycles=13,
    )
    steps = next(count for (_, event), count in record.counts.items() if event.startswith("step"))
    assert (steps, record.counts["pe", "idle"]) == (24, 228)


@ENGINES
@pytest.mark.parametrize("fold_overlap", [True, False])
def test_last_step_keeps_a_slow_port_as_long_as_any_other(engine: str, fold_overlap: bool) -> None:
    """Broadcast on 4 x 3 PEs, (1, 4) x (6, 4): two folds of one row and T = 4 steps, r = 1, c = 3.

    The array's half of the weight buffer gives 8 bits a cycle, a step takes 3 x 8: s = 3, I = 3 x 3 + 1 = 10,
    T' = 10 + (3 - 1) = 12. The results leave after 10 cycles, but the fold is over when its stream is, at 12:
    there the next begins, with overlap and without. The port never idles: 2 x 4 x 3 reads in 24 cycles.

    DRAM: 64 bits a cycle, latency 5.
    W: 6 x 4 x 8 + 16 = 208 bits, 26 cycles at the buffer's 8 bits; usable at 31.
    A: 4 x 8 + 16 = 48 bits, one cycle from 26; usable at 32: the tile starts.
    O: 6 x 16 = 96 bits are 2 cycles on the bus, but the output stage takes 2 x 6 / 4 lanes = 3.

    cycle   0                         26    32          44          56 59
    DMA     WWWWWWWWWWWWWWWWWWWWWWWWWWA.............................OOO
    array   ................................1ww1ww1ww1ww2ww2ww2ww2ww...   1, 2: steps, w: waits for weights
    """
    machine = description(
        array={"dataflow": "broadcast", "fold_overlap": fold_overlap},
        buffers={"weights": {"kib": 1, "banks": 2, "width_bits": 8}},
        mapping={"tile_m": 1, "tile_n": 6, "tile_k": 4},
    )
    record = simulate(engine, machine, (1, 4, 6))
    check(
        record,
        dma=[(0, 26), (26, 27), (56, 59)],
        array=[(32, 56)],
        stack={"wait_activations": 32, "compute": 2 * 4, "wait_weights": 2 * 4 * 2, "wait_writeback": 3},
        cycles=59,
        compute_cycles=8,
    )
    # DRAM alone: 208, 48 and 96 bits at 64. DMA's ports alone: 208 at 8, 48 at 64, 6 sums of 32 bits at 128: above 24.
    assert record.resource_cycles == {
        "compute": 8,
        "dram": 4 + 1 + 2,
        "sram": 26 + 1 + 2,
        "fill": 0,
        "vector": 3,
    }
