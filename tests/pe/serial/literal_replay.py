"""The rules of the replayed simulators a second time, for small layers: one loop for each axis, Python integers only.

Written to share no step with `replay` or `simulator.pe.serial`, so that a mistake in an order or a shape shows.
"""

from __future__ import annotations

from typing import Any

Layer = Any
"""A `replay.Layer`: padded activations, weights, stride, bits of both."""


def joined(lists: list[list[int]]) -> list[int]:
    return [value for each in lists for value in each]


def booth_like(value: int) -> int:
    text = format(value, "018b") + "00"
    mask, inside = 0, False
    for start in range(18):
        window, position = text[start : start + 3], 17 - start
        if not inside and window == "111":
            mask, inside = mask | 2 << position, True
        elif (not inside and window[0] == "1") or (inside and window[0] == "0"):
            mask |= 1 << position
        elif inside and window == "100":
            mask, inside = mask | 1 << position, False
    return mask


def retire(masks: list[int], bits: int) -> int:
    """Cycles of one PE with a first shifter stage of so many bits."""
    queues = [[b for b in range(20) if mask >> b & 1] for mask in masks]
    cycles = 0
    while any(queues):
        low = min(queue[0] for queue in queues if queue)
        for queue in queues:
            if queue and queue[0] <= low + 2**bits - 1:
                queue.pop(0)
        cycles += 1
    return max(cycles, 1)


def width(values: list[int], signed: bool, trim: bool) -> int:
    high, low = 0, None
    for value in values:
        value = ~value if value < 0 else value
        for bit in range(20):
            if value >> bit & 1:
                high = max(high, bit)
                low = bit if low is None else min(low, bit)
    return high + 1 + signed - (low or 0 if trim else 0)


def pieces(value: int, count: int, size: int, kind: str) -> list[int]:
    value = abs(value) if kind == "magnitude" else value % (1 << 16)
    found = [(value // 2 ** (size * i)) % 2**size for i in range(count)]
    return [p - 2**size if kind == "signed" and p >= 2 ** (size - 1) else p for p in found]


def conv_steps(layer: Layer, lanes: int) -> tuple[list[Any], list[Any]]:
    """(windows, filters), each a list of steps, each a list of ``lanes`` integers."""
    act, wgt = layer.activations[0].tolist(), layer.weights.tolist()
    kx, ky = len(wgt[0][0]), len(wgt[0][0][0])
    out_x = (len(act[0]) - kx) // layer.stride + 1
    out_y = (len(act[0][0]) - ky) // layer.stride + 1
    windows, filters = [], []
    for w in range(out_x * out_y):
        x0, y0 = w % out_x * layer.stride, w // out_y * layer.stride
        windows.append(
            [
                [act[c][x0 + x][y0 + y] if c < len(act) else 0 for c in range(block, block + lanes)]
                for y in range(ky)
                for x in range(kx)
                for block in range(0, len(act), lanes)
            ]
        )
    for kernel in wgt:
        filters.append(
            [
                [kernel[c][x][y] if c < len(act) else 0 for c in range(block, block + lanes)]
                for y in range(ky)
                for x in range(kx)
                for block in range(0, len(act), lanes)
            ]
        )
    return windows, filters


def linear_steps(layer: Layer, lanes: int) -> tuple[list[Any], list[Any]]:
    def cut(row: list[int]) -> list[list[int]]:
        row = row + [0] * (-len(row) % lanes)
        return [row[i : i + lanes] for i in range(0, len(row), lanes)]

    return [cut(layer.activations[0].tolist())], [cut(row) for row in layer.weights.tolist()]


def tactical_rows(filters: list[Any], offsets: list[tuple[int, int]], ahead: int, channels: int) -> list[Any]:
    """Executed rows of one tile: (row, for each filter its lanes' (step, lane) of activations, None if moved away)."""
    steps, lanes = len(filters[0]), len(filters[0][0])
    blocks = -(-channels // lanes)

    def origin(t: int, lane: int) -> tuple[int, int]:
        return (t, lane) if t % blocks * lanes + lane < channels else (0, 0)

    slots = [
        [[(f[t][lane], *origin(t, lane)) for lane in range(lanes)] for t in range(steps)] for f in filters
    ]

    def rows() -> Any:
        skipped = 0
        for t in range(steps):
            if skipped < ahead and all(slot[0] == 0 for f in slots for slot in f[t]):
                skipped += 1
                continue
            skipped = 0
            yield t

    for t in rows():
        for f in slots:
            while True:
                most: list[tuple[int, int]] = []
                place = 0
                for lane in range(lanes):
                    if f[t][lane][0] == 0:
                        found = [(t + a, (lane + d) % lanes) for a, d in offsets if t + a < steps]
                        found = [(i, j) for i, j in found if f[i][j][0] != 0]
                        if len(found) > len(most):
                            most, place = found, lane
                if not most:
                    break
                i, j = most[0]
                f[t][place], f[i][j] = f[i][j], f[t][place]
    return [(t, [[slot[1:] if slot[1] >= t else None for slot in f[t]] for f in slots]) for t in rows()]


def tactical(layer: Layer, p: dict[str, Any], offsets: list[tuple[int, int]]) -> int:
    """Bit-Tactical over DaDianNao, ShapeShifter or BitPragmatic; ``p`` as in `dnnsim`, and "ahead"."""
    size = p["pe_width"]
    a_blocks, w_blocks = -(-layer.activation_bits // size), -(-layer.weight_bits // size)
    columns, rows = p["columns"] // a_blocks, p["rows"] // w_blocks
    signed = bool((layer.activations < 0).any())
    linear = layer.weights.ndim == 2
    windows, filters = (linear_steps if linear else conv_steps)(layer, p["lanes"])
    tiles = [
        tactical_rows(filters[i : i + rows], offsets, p["ahead"], layer.weights.shape[1])
        for i in range(0, len(filters), rows)
    ]
    sets = [tiles[i : i + p["tiles"]] for i in range(0, len(tiles), p["tiles"])]
    kind = "magnitude" if p["arch"] == "BitPragmatic" else "signed" if signed else "unsigned"
    empty = 1 + (p["trim"] and signed)

    def times(vectors: list[Any], row: Any, column: int | None) -> list[int]:
        """Of each piece of each window, or group of these."""
        found, pending = [], []
        for vector in vectors:
            for b in range(a_blocks):
                taken = []
                for slots in row[1]:
                    lanes = []
                    for slot in slots:
                        if slot is not None:
                            there = column is None or slot[0] % columns == column
                            value = vector[slot[0]][slot[1]] if there else 0
                            lanes.append(pieces(value, a_blocks, size, kind)[b])
                    taken.append(lanes)
                if p["arch"] == "BitPragmatic":
                    masks = [[booth_like(m) if p["booth"] else m for m in lanes] for lanes in taken]
                    found.append(max(retire(lanes, p["stage"]) for lanes in masks))
                    continue
                pending += [joined(taken)]
                if len(pending) == p["group"]:
                    found.append(width(joined(pending), signed, p["trim"]) if joined(pending) else empty)
                    pending = []
        if p["arch"] == "ShapeShifter":
            found.append(width(joined(pending), signed, p["trim"]) if joined(pending) else empty)
            found = found[: -(-columns * a_blocks // p["group"])] if not linear else found
        return found

    if p["arch"] == "DaDianNao":
        windows_sets = 1 if linear else -(-len(windows) // columns)
        return windows_sets * sum(max(len(tile) for tile in group) for group in sets)
    total, own, ring, index, ready = 0, [0] * 99, [0] * p["registers"], 0, 0
    ends, now, count = [0] * columns, 0, 0
    for i in range(0, len(windows), columns):
        for group in sets:
            for step in range(max(len(tile) for tile in group)):
                slowest = [0] * 99
                for tile in group:
                    if step < len(tile):
                        column = count % columns if linear else None
                        for c, cycles in enumerate(times(windows[i : i + columns], tile[step], column)):
                            slowest[c] = max(slowest[c], cycles)
                total += max(slowest)
                now = max(now, ends[count % columns])
                ends[count % columns] = now + max(slowest)
                now, count = now + 1, count + 1
                if p["registers"]:
                    for c in range(len(own)):
                        own[c] = max(ready, own[c]) + slowest[c]
                    ready = ring[index]
                    ring[index] = max(own)
                    index = (index + 1) % p["registers"]
    if linear:
        return max(ends)
    return max(own) if p["registers"] else total


def dnnsim(layer: Layer, p: dict[str, Any]) -> int:
    """``p``: arch, lanes, columns, rows, tiles, pe_width, stage, registers, booth, group, serial, trim, dynamic."""
    arch, size = p["arch"], p["pe_width"]
    a_blocks, w_blocks = -(-layer.activation_bits // size), -(-layer.weight_bits // size)
    columns, rows = p["columns"] // a_blocks, p["rows"] // w_blocks
    a_signed, w_signed = bool((layer.activations < 0).any()), bool((layer.weights < 0).any())
    linear = layer.weights.ndim == 2
    windows, filters = (linear_steps if linear else conv_steps)(layer, p["lanes"])
    steps = len(filters[0])
    zeros = [[0] * p["lanes"]] * steps

    def cut(vectors: list[Any], t: int, blocks: int, kind: str) -> list[list[int]]:
        """Lanes of the pieces of all vectors in step t."""
        return [
            [pieces(lane, blocks, size, kind)[b] for lane in vector[t]]
            for vector in vectors
            for b in range(blocks)
        ]

    def grouped(lanes: list[list[int]], signed: bool) -> list[int]:
        g = p["group"]
        return [width(joined(lanes[i : i + g]), signed, p["trim"]) for i in range(0, len(lanes), g)]

    def times(set_windows: list[Any], set_filters: list[Any], t: int) -> list[int]:
        """Cycles of each column (or group) in step t."""
        if arch == "DaDianNao":
            return [1]
        if arch == "Stripes":
            return [min(layer.activation_bits, size)]
        if arch == "BitPragmatic":
            masks = cut(set_windows, t, a_blocks, "magnitude")
            return [
                retire([booth_like(m) if p["booth"] else m for m in lanes], p["stage"]) for lanes in masks
            ]
        if arch == "ShapeShifter":
            kind = "signed" if a_signed else "unsigned"
            lanes = cut(set_windows, t, a_blocks, kind)
            found = grouped(lanes, a_signed)
            if len(lanes) % p["group"] == 0:
                found.append(1 + (p["trim"] and a_signed))
            return found[: -(-columns * a_blocks // p["group"])]
        if arch == "Laconic":
            worst = 1
            for a in cut(set_windows, t, a_blocks, "magnitude"):
                for w in cut(set_filters, t, w_blocks, "magnitude"):
                    for x, y in zip(a, w, strict=True):
                        x, y = (booth_like(x), booth_like(y)) if p["booth"] else (x, y)
                        worst = max(worst, x.bit_count() * y.bit_count())
            return [worst]
        a = grouped(cut(set_windows, t, a_blocks, "signed" if a_signed else "unsigned"), a_signed)
        if linear and a_blocks % p["group"]:
            a = a[:-1]  # of one window the last, short group is not kept
        w = [layer.weight_bits]
        if p["dynamic"]:
            w = []
            for i in range(0, len(set_filters), rows):
                lanes = cut(set_filters[i : i + rows], t, w_blocks, "signed" if w_signed else "unsigned")
                w += grouped(lanes, w_signed)
        return [max([-(-i // p["serial"]) * j for i in a for j in w], default=0)]

    per_set = rows * p["tiles"]
    filter_sets = [filters[i : i + per_set] for i in range(0, len(filters), per_set)]
    if linear:
        ends, now, count = [0] * columns, 0, 0
        for s, set_filters in enumerate(filter_sets):
            for t in range(steps):
                found = windows if (s * steps + t) % columns == t % columns else [zeros]
                column = count % columns
                now = max(now, ends[column])
                ends[column] = now + max(times(found, set_filters, t))
                now, count = now + 1, count + 1
        return count if arch == "DaDianNao" else max(ends)
    registers = p["registers"]
    total, own, ring, index, ready = 0, [0] * 99, [0] * registers, 0, 0
    for i in range(0, len(windows), columns):
        for set_filters in filter_sets:
            for t in range(steps):
                cycles = times(windows[i : i + columns], set_filters, t)
                total += max(cycles)
                if registers:
                    for c in range(len(own)):
                        own[c] = max(ready, own[c]) + (cycles[c] if c < len(cycles) else 0)
                    ready = ring[index]
                    ring[index] = max(own)
                    index = (index + 1) % registers
    return max(own) if registers else total


def bitsim(layer: Layer, p: dict[str, Any]) -> int:
    """``p``: arch, group, rows, columns, tokens."""
    wgt, group = layer.weights.tolist(), p["group"]
    if layer.weights.ndim == 2:
        strips = [[row] for row in wgt]
        repeats = -(-p["tokens"] // p["columns"])
    else:
        channels, kx, ky = layer.weights.shape[1:]
        out_x = (layer.activations.shape[2] - kx) // layer.stride + 1
        out_y = (layer.activations.shape[3] - ky) // layer.stride + 1
        repeats = out_x * -(-out_y // p["columns"])
        if kx * ky > channels:
            strips = [[joined(kernel[c]) for c in range(channels)] for kernel in wgt]
        else:
            strips = [
                [[kernel[c][x][y] for c in range(channels)] for x in range(kx) for y in range(ky)]
                for kernel in wgt
            ]
    groups = [[strip[i : i + group] for strip in row for i in range(0, len(strip), group)] for row in strips]

    def code(w: int) -> int:
        return min(abs(w), 127) + (128 if w < 0 else 0)

    def cycles(weights: list[int]) -> int:
        ones = [sum(w % 256 >> b & 1 for w in weights) for b in range(8)]
        if p["arch"] == "Stripes":
            return 8
        if p["arch"] == "Pragmatic":
            return max(code(w).bit_count() for w in weights)
        if p["arch"] == "Bitlet":
            return max(ones)
        if p["arch"] == "BitWave":
            return sum(any(code(w) >> b & 1 for w in weights) for b in range(8)) - 1
        return max(1, sum(-(-2 * count // group) for count in ones))

    total = 0
    for i in range(0, len(groups), p["rows"]):
        for t in range(len(groups[0])):
            total += max(cycles(row[t]) for row in groups[i : i + p["rows"]])
    return total * repeats
