"""The arithmetic of PEs that read tables: a step's bit-planes at a time, on odd integers or plain ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.errors import InputError
from simulator.formats.bipolar import bit_planes
from simulator.pe.accumulator import Accumulator
from simulator.pe.arithmetic import (
    BinaryFloat,
    Integers,
    add_and_round,
    integers_of,
    reals_of,
    round_reals,
    wrap,
)
from simulator.pe.protocol import Scales
from simulator.pe.tables import Sums, half_table, keys, plain_table, quantized, read

Arithmetic = Literal["exact", "float", "int8"]
"""Of the tables: integers; floats; floats quantized to INT8."""


@dataclass(frozen=True)
class TableFunction:
    """Sums of products by look-up, a step's planes at a time."""

    planes: int
    inputs: int
    keys: str
    """odd: digits -1 and +1. int: bits, the top one negative. uint: bits."""
    arithmetic: Arithmetic
    table_float: BinaryFloat
    activation_exponent: int
    weight_exponent: int
    sums: Accumulator
    words: int = 1

    @property
    def exponent(self) -> int:
        """Weight of the partial sums' integers, as a power of two."""
        to = self.sums.float_format
        return to.low if to else self.activation_exponent + self.weight_exponent

    @property
    def dtype(self) -> np.dtype[np.int64] | np.dtype[np.object_]:
        return np.dtype(object if self.sums.float_format or self.sums.bits > 62 else np.int64)

    def step(
        self, state: Integers, activations: Integers, weights: Integers, scales: Scales | None = None
    ) -> Integers:
        """Accumulators (..., 1) after one step on operands (..., lanes)."""
        to = self.sums.float_format
        if self.arithmetic != "float":
            entries, factors = self.stored(activations)
            totals = self._over_planes(self._read(entries, weights))
            if to is None:
                return wrap(state + totals[..., None], self.sums.bits)
            addends = [reals_of(totals, self.activation_exponent + self.weight_exponent)]
            if factors is not None:
                addends = [np.ldexp(totals * factors.astype(np.float64), self.weight_exponent)]
        else:
            planes = self.float_planes(activations, weights)
            addends = [np.ldexp(plane, self.weight_exponent + i) for i, plane in enumerate(planes)]
        assert to is not None
        held = reals_of(state[..., 0], to.low)
        for addend in addends:
            held = add_and_round(held, addend, to)
        return integers_of(held, to.low)[..., None]

    def result(self, state: Integers) -> Integers:
        return state[..., 0]

    def add(self, partial: Integers, other: Integers) -> Integers:
        """Two partial sums, as the adder of the output buffer does it."""
        to = self.sums.float_format
        if to is None:
            return wrap(partial + other, self.sums.bits)
        return integers_of(add_and_round(reals_of(partial, to.low), reals_of(other, to.low), to), to.low)

    def float_planes(self, activations: Integers, weights: Integers) -> Sums:
        """(planes, ...) sums over the tables of floats of a step."""
        return self._read(self.stored(activations)[0], weights)

    def stored(self, activations: Integers) -> tuple[Sums, npt.NDArray[np.float32] | None]:
        """What the tables of a step hold, (..., tables, choices), and the scale of tables quantized to INT8, (...).

        Integers, or float64 values of `table_float`. Raises InputError: overflow.
        """
        if self.arithmetic == "exact":
            return self._table(activations.astype(np.int64)), None
        if self.arithmetic == "int8":
            return quantized(self._float_table(activations))
        try:
            return round_reals(self._float_table(activations).astype(np.float64), self.table_float), None
        except InputError as error:
            problem = f"a sum of activations overflows the {self.table_float.name} entries of tables"
            raise InputError(problem, allowed=error.allowed) from error

    def _float_table(self, activations: Integers) -> npt.NDArray[np.float32]:
        """Tables of floats as the FP32 adders give them. Raises InputError: overflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            entries = self._table(reals_of(activations, self.activation_exponent).astype(np.float32))
        if not np.isfinite(entries).all():
            raise InputError("a sum of activations overflows the FP32 adders that make tables")
        return entries

    def _table(self, activations: Sums) -> Sums:
        """Tables (..., tables, choices) of activations (..., lanes)."""
        apart = activations.reshape(*activations.shape[:-1], -1, self.inputs)
        return half_table(apart) if self.keys == "odd" else plain_table(apart)

    def _read(self, entries: Sums, weights: Integers) -> Sums:
        """(planes, ...) sums over the tables of entries (..., tables, choices), each with the sign of its key.

        Lanes that a short last step leaves empty hold 0, which reads as some key or other: their activations are 0.
        """
        if self.keys == "odd":
            signs, indices = keys(bit_planes(weights.astype(np.int64), self.planes), self.inputs)
            signed: Sums = (signs * read(entries, indices)).sum(axis=-1)
            return signed
        bits = np.stack([(weights.astype(np.int64) >> plane) & 1 for plane in range(self.planes)])
        digits = bits.reshape(*bits.shape[:-1], -1, self.inputs)
        sums: Sums = read(entries, digits @ (1 << np.arange(self.inputs, dtype=np.int64))).sum(axis=-1)
        if self.keys == "int":
            sums[-1] = -sums[-1]
        return sums

    def _over_planes(self, sums: Sums) -> npt.NDArray[np.int64]:
        """Plane sums (planes, ...) by their weights, added up."""
        return np.tensordot(1 << np.arange(self.planes, dtype=np.int64), sums, axes=1)
