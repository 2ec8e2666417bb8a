"""An accelerator as validated configuration: the models behind the YAML of `arch_configs`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from simulator.array import DATAFLOWS, Array, Dataflow
from simulator.config import validate
from simulator.errors import InputError
from simulator.formats import Format, get_format
from simulator.hardware import DEFAULT_TECHNOLOGY
from simulator.pe import family_names, pe_model
from simulator.pe.elements import element_format, significand_bits
from simulator.pe.protocol import ProcessingElement, Side
from simulator.units import BITS_PER_BYTE, KIB, ceil_div, exact

Size = Annotated[int, Field(ge=1, le=1 << 16)]
Order = Literal["mnk", "mkn", "nmk", "nkm", "kmn", "knm"]


class Section(BaseModel):
    """Base of all sections: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ArraySection(Section):
    dataflow: Literal["os", "ws", "is", "broadcast"]
    """Output-, weight- or input-stationary systolic array, or an array of dot-product PEs with broadcast operands."""
    rows: Size
    cols: Size
    rows_hold: Literal["m", "n", "k"] | None = None
    """Dimension along the rows; default: m for os and broadcast, k for ws and is."""
    edge_folds: Literal["exact", "full"] = "exact"
    """exact: a partial fold takes the time of the rows and columns it uses. full: that of the whole array (SCALE-
    Sim)."""
    fold_overlap: bool = True
    """Doubled accumulators or stationary registers: a fold follows the last without waiting for its results."""
    os_drain: Literal["bus", "shift"] = "bus"
    """How results leave when outputs are stationary: over a bus per column, or shifted down the column."""
    rescale_per_cycle: Annotated[float, Field(ge=0, le=1)] = 1
    """Results a cycle that the rescale unit of one column takes (0: the array has none, and takes no grouped
    scales)."""
    rescale_scale_bits: Annotated[int, Field(ge=1, le=24)] = 11
    """Width of the widest significand of a group's scale that the rescale unit multiplies by (FP16: 11); integer scales
    count in full."""
    rescale_ranks: Annotated[int, Field(ge=0, le=10)] = 10
    """Ranks of registers through the rescale unit, for its clock; it takes a result a cycle whatever they are."""
    adder_ranks: Annotated[int, Field(ge=0, le=4)] = 4
    """The same through the adders of floating-point sums behind the columns; those of integers have none."""
    clock_gating: bool = False
    """True: a PE without work pays no clock energy."""

    @model_validator(mode="after")
    def _axes_fit(self) -> ArraySection:
        if 0 < self.rescale_per_cycle < 2**-16:
            raise InputError(
                "is slower than a rescale unit can be",
                key="rescale_per_cycle",
                value=self.rescale_per_cycle,
                allowed="0 (no rescale unit), or 2**-16 to 1",
            )
        if self.rows_hold not in (None, *self._choices):
            raise InputError(
                f"not a dimension that the rows of dataflow {self.dataflow} hold",
                key="rows_hold",
                value=self.rows_hold,
                allowed=" or ".join(self._choices),
            )
        if self.dataflow in ("ws", "is") and self.os_drain == "shift":
            raise InputError(
                f"needs stationary outputs, which dataflow {self.dataflow} has not",
                key="os_drain",
                value=self.os_drain,
                allowed="bus, or dataflow os or broadcast",
            )
        return self

    @property
    def _choices(self) -> tuple[str, ...]:
        return ("m", "n") if self.dataflow in ("os", "broadcast") else ("k",)

    @property
    def flow(self) -> Dataflow:
        flow = DATAFLOWS[self.dataflow]
        if self.rows_hold != "n":
            return flow
        return Dataflow(flow.name, flow.stationary, "n", "m", flow.skewed)

    @property
    def rescale_interval(self) -> int:
        """Cycles that the rescale unit of a column takes for one result (0: there is none)."""
        if not self.rescale_per_cycle:
            return 0
        rate = exact(self.rescale_per_cycle)
        return ceil_div(rate.denominator, rate.numerator)


class BufferSection(Section):
    """An SRAM buffer. Its banks are split over `buffering` halves: the array uses one while DMA uses the other."""

    kib: Annotated[float, Field(gt=0, le=1 << 20)]
    """Capacity of all banks, KiB of 1024 bytes."""
    banks: Annotated[int, Field(ge=1, le=1024)] = 2
    width_bits: Annotated[int, Field(ge=8, le=1 << 16)] = 256
    """Bits that one bank reads or writes in a cycle."""
    ports: Literal["1rw", "1r1w"] = "1rw"
    """1rw: a bank reads or writes in a cycle. 1r1w: both."""
    buffering: Annotated[int, Field(ge=1, le=2)] = 2
    """2: the next tile is loaded while this one is used. 1: one tile, the whole capacity."""

    @model_validator(mode="after")
    def _halves_have_banks(self) -> BufferSection:
        if self.banks % self.buffering:
            raise InputError(
                f"cannot be split over the {self.buffering} halves of buffering",
                key="banks",
                value=self.banks,
                allowed=f"a multiple of {self.buffering}",
            )
        if (exact(self.kib) * KIB / self.banks).denominator != 1:
            raise InputError(
                f"is not a whole number of bytes in each of {self.banks} banks",
                key="kib",
                value=self.kib,
                allowed=f"a multiple of {self.banks / KIB} KiB",
            )
        return self

    @property
    def bytes(self) -> int:
        return int(exact(self.kib) * KIB)

    @property
    def tile_bits(self) -> int:
        """Bits of the largest tile that fits."""
        return self.bytes * BITS_PER_BYTE // self.buffering

    @property
    def port_bits(self) -> int:
        """Bits that the banks of one half move in a cycle."""
        return self.banks // self.buffering * self.width_bits


class BuffersSection(Section):
    weights: BufferSection
    activations: BufferSection
    outputs: BufferSection


class DramSection(Section):
    """DRAM as a fixed latency and a bandwidth, shared by reads and writes; transfers are served in program order."""

    bandwidth_gb_per_s: Annotated[float, Field(ge=1e-3, le=1e6)]
    """Sustained, 1e9 bytes a second."""
    latency_ns: Annotated[float, Field(ge=0, le=1e6)] = 0
    """From the end of a read's time on the bus until its data can be used; other transfers go on meanwhile."""
    device: str = "ddr3"
    """Which DRAM the energy is that of: a row of the cost table."""


class VectorSection(Section):
    lanes: Size
    """Elements a cycle, each pass."""
    ranks: Annotated[int, Field(ge=0, le=8)] = 8
    """Ranks of registers through a lane, for its clock; it takes an element a cycle whatever they are."""


class MappingSection(Section):
    """How GEMMs are tiled; what is left out is searched for."""

    tile_m: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    tile_n: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    tile_k: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    order: Order | None = None
    """Loops over tiles, outermost first: nmk keeps outputs in the buffer until their K is complete."""


class FormatsSection(Section):
    """Number formats that the machine is built for: taken where the user names none, before the workload's own."""

    weights: str | None = None
    activations: str | None = None
    kv: str | None = None
    """Keys and values."""

    @field_validator("weights", "activations", "kv")
    @classmethod
    def _canonical(cls, name: str | None) -> str | None:
        return None if name is None else get_format(name).name


class Accelerator(Section):
    """A whole accelerator. Everything has a sound default except what makes the machine that machine."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    source: str = ""
    """Paper, section or product that it models."""
    clock_ghz: Annotated[float, Field(ge=1e-3, le=100)]
    technology: str | dict[str, Any] = DEFAULT_TECHNOLOGY
    """A cost table by name or path (`simulator.hardware`)."""
    array: ArraySection
    pe: Any
    """Parameters of the PE family named by `family`."""
    formats: FormatsSection = FormatsSection()
    buffers: BuffersSection
    vector: VectorSection
    dram: DramSection
    mapping: MappingSection = MappingSection()

    @field_validator("pe", mode="before")
    @classmethod
    def _of_family(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            problem = "must hold a PE's parameters" + (" (found nothing)" if value is None else "")
            raise InputError(problem, value=value, allowed="family, weights, ...")
        if "family" not in value:
            raise InputError("this key is missing", key="family", allowed=", ".join(family_names()))
        return validate(pe_model(value["family"]), value)

    @model_validator(mode="after")
    def _pe_fits_array(self) -> Accelerator:
        """Raises InputError where the PE does not work in this array, or takes no pair of its own formats."""
        pe, array = self.element, self.array
        reason = pe.fits(array.dataflow)
        pairs = [(element_format(w), element_format(a)) for w in pe.weights for a in pe.activations]
        refusals = {pair: pe.accepts(*pair) for pair in pairs}
        taken = [pair for pair, refusal in refusals.items() if refusal is None]
        if not taken:
            raise InputError(
                "takes no pair of the formats it lists: " + next(filter(None, refusals.values())), key="pe"
            )
        reason = reason or next(filter(None, (self._misplaced(*pair) for pair in taken)), None)
        if reason is not None:
            flows = [name for name in DATAFLOWS if pe.fits(name) is None]
            if any(pe.data_timing(*pair) is not None for pair in taken):
                flows = ["broadcast"]
            raise InputError(reason, key="array.dataflow", value=array.dataflow, allowed=" or ".join(flows))
        return self

    def _misplaced(self, weights: Format, activations: Format) -> str | None:
        """None, or why the PE cannot work on this pair in an array of this dataflow."""
        pe, array = self.element, self.array
        if array.flow.preloads and pe.scales_inside(weights, activations):
            return f"{pe.family} applies group scales inside, so that outputs must stay in place, not {array.dataflow}"
        if array.dataflow != "broadcast" and pe.data_timing(weights, activations) is not None:
            return f"the time of {pe.family} depends on the codes, so that its PEs step together: dataflow broadcast"
        return None

    @property
    def element(self) -> ProcessingElement:
        pe: ProcessingElement = self.pe
        return pe

    @cached_property
    def dram_bits_per_cycle(self) -> tuple[int, int]:
        """Bits a core cycle as an exact ratio (numerator, denominator)."""
        ratio = exact(self.dram.bandwidth_gb_per_s) * BITS_PER_BYTE / exact(self.clock_ghz)
        return ratio.numerator, ratio.denominator

    @cached_property
    def dram_latency_cycles(self) -> int:
        cycles = exact(self.dram.latency_ns) * exact(self.clock_ghz)
        return ceil_div(cycles.numerator, cycles.denominator)

    def refusal(self, weights: Format, activations: Format) -> str | None:
        """None, or why the PEs in this array, or the rescale unit, do not take this pair."""
        pe = self.element
        reason = pe.accepts(weights, activations) or self._misplaced(weights, activations)
        if reason or pe.scales_inside(weights, activations):
            return reason
        sides: tuple[tuple[Side, Format], ...] = (("weights", weights), ("activations", activations))
        grouped = [(own, to) for side, own in sides if (to := pe.received(side, own)).group_size]
        if self.array.rescale_per_cycle:
            return next(filter(None, (self._unscalable(own) for own, _ in grouped)), None)
        if not grouped:
            return None
        _, received = grouped[0]
        return (
            f"{received.name} has a scale for every {received.group_size} values of K, and the array has "
            "no rescale unit (array.rescale_per_cycle: 0); use tensor or channel scales, or an array that has one"
        )

    def _unscalable(self, grouped: Format) -> str | None:
        """None, or why the rescale unit cannot multiply by the scales of a format as it is in memory."""
        scale, most = grouped.scale_element, self.array.rescale_scale_bits
        if scale is None or significand_bits(scale) <= most:
            return None
        return (
            f"the rescale unit multiplies by significands of at most {most} bits (array.rescale_scale_bits), and the "
            f"scales of {grouped.name} ({scale.name}) have {significand_bits(scale)}"
        )

    def check_formats(self, weights: Format, activations: Format, *, where: str) -> None:
        """Raises InputError where a pair is refused; ``where`` names the operation. It names accelerators that take
        it."""
        reason = self.refusal(weights, activations)
        if reason:
            from simulator.arch.pairs import accelerators_taking

            others = ", ".join(accelerators_taking(weights, activations))
            raise InputError(
                f"{where}: {self.name} does not take {weights.name} x {activations.name}: {reason}",
                allowed=f"a pair that it takes; this one is taken by {others or 'no shipped accelerator'}",
            )

    def array_for(self, weights: Format, activations: Format) -> Array:
        """The array with the time that its PEs take at these formats."""
        timing = self.element.timing(weights, activations)
        return Array(
            dataflow=self.array.flow,
            rows=self.array.rows,
            cols=self.array.cols,
            full_edge_folds=self.array.edge_folds == "full",
            fold_overlap=self.array.fold_overlap,
            shift_drain=self.array.os_drain == "shift",
            lanes=timing.lanes,
            latency=timing.latency,
            initiation_interval=timing.initiation_interval,
            serial=timing.serial,
            scales_inside=self.element.scales_inside(weights, activations),
            group_cycles=timing.group_cycles,
        )
