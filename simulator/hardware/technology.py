"""A technology: cost tables under one name, at one node, on top of other technologies or scaled from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from simulator.config import read_mapping, validate
from simulator.errors import InputError, nearest
from simulator.hardware.constant import Constant, curve, describe, exact, from_rows
from simulator.hardware.cost import PricedComponent, price
from simulator.hardware.kinds import check_params
from simulator.hardware.register_file import composed
from simulator.hardware.scaling import Scaling
from simulator.hardware.sram import memory_constant, register_file, with_defaults
from simulator.hardware.sram_scaling import scaled_by_references
from simulator.hardware.structure import Component, Param
from simulator.hardware.table import (
    AREA,
    ENERGY,
    LEAKAGE,
    LEAKAGE_DENSITY,
    TARGET,
    CostRow,
    CostTable,
    ParamKey,
    make_table,
    memory_condition,
    param_key,
    param_text,
    read_table,
)

_ROOM = Path(__file__).parent
DEFAULT_TECHNOLOGY = "asap7"


class Base(NamedTuple):
    """A technology below another, whose answers may be scaled."""

    technology: Technology
    scaling: Scaling | None


@dataclass(frozen=True)
class Technology:
    """Where constants come from: the own table first, then the bases in their order."""

    name: str
    description: str
    node_nm: float | None
    vdd: float | None
    table: CostTable | None = None
    bases: tuple[Base, ...] = ()
    _priced: dict[object, PricedComponent] = field(default_factory=dict, compare=False, repr=False)

    def price(self, component: Component, clock_ghz: float | None = None) -> PricedComponent:
        """Area, leakage and energy per event of one instance, built for a clock where there is a choice; InputError
        naming whatever has no row."""
        key = _identity(component), clock_ghz
        if key not in self._priced:
            self._priced[key] = price(component, self, clock_ghz)
        return self._priced[key]

    def targets(self, kind: str, params: Mapping[str, Param]) -> list[Param]:
        """Clocks, in GHz, that a unit with these parameters was built for besides the smallest area."""
        wanted = param_key(kind, params)
        own = self.table.select(kind, AREA) if self.table is not None else {}
        found = []
        for key in own:
            built = dict(key)
            target = built.pop(TARGET, None)
            if target is not None and tuple(sorted(built.items())) == wanted:
                found.append(target)
        below = (base.technology.targets(kind, params) for base in self.bases)
        return found or next(filter(None, below), [])

    def constant(self, kind: str, params: Mapping[str, Param], quantity: str, event: str = "") -> Constant:
        """One constant with its provenance. Raises InputError where no table gives it."""
        found = self.find(kind, params, quantity, event)
        if found is None:
            raise InputError(
                f"technology {self.name} has no {describe(kind, params, quantity, event)}",
                allowed=self._instead(kind, quantity, event),
            )
        return found

    def _instead(self, kind: str, quantity: str, event: str) -> str:
        """What a user may do about a constant that is missing."""
        rows = [row for row in self._rows() if row.kind == kind]
        own = f"technology: {{base: {self.name}, tables: [my_table.csv]}}"
        if not rows:
            known = nearest(kind, {row.kind for row in self._rows()})
            return f"a kind that is priced ({known}), or a cost table of your own ({own})"
        found = [row.params for row in rows if (row.quantity, row.event) == (quantity, event)]
        listed = "; ".join(filter(None, map(param_text, found[:12]))) + ("; ..." if len(found) > 12 else "")
        return (f"{listed}; or " if listed else "") + f"a cost table of your own ({own})"

    def find(self, kind: str, params: Mapping[str, Param], quantity: str, event: str = "") -> Constant | None:
        """One constant, or None: own exact row, own curve, then the bases. InputError: unusable parameters."""
        check_params(kind, params)
        found = self._find(kind, params, quantity, event)
        if kind == "register_file" and found is None:
            return composed(params, quantity, event, self.find)
        if kind == "sram" and found is not None and found.formula:
            return self._smaller(found, params, quantity, event)
        return found

    def _find(self, kind: str, params: Mapping[str, Param], quantity: str, event: str) -> Constant | None:
        if self.table is not None:
            own = _from_table(self.table, kind, params, quantity, event)
            if own is not None:
                return self._placed(own)
        for technology, scaling in self._below(kind):
            below = technology._find(kind, params, quantity, event)
            if below is not None:
                return below if scaling is None else self._scaled(below, technology, scaling)
        return None

    def _below(self, kind: str) -> tuple[Base, ...]:
        """The bases that may answer. Memories of one technology have one cell type: they come from one table."""
        if kind != "sram":
            return self.bases
        if self._has_macros():
            return ()
        compiled = tuple(base for base in self.bases if base.technology._macro_table() is not None)
        return compiled[:1] or self.bases

    def _has_macros(self) -> bool:
        return self.table is not None and bool(self.table.select("sram_macro", AREA))

    def _macro_table(self) -> CostTable | None:
        """Where memories come from: the first table with macros."""
        if self._has_macros():
            return self.table
        return next(filter(None, (base.technology._macro_table() for base in self.bases)), None)

    def _smaller(
        self, macro: Constant, params: Mapping[str, Param], quantity: str, event: str
    ) -> Constant | None:
        """``macro``, or, of a memory that is smaller than any macro, the register file if that is smaller still."""
        table = self._macro_table()
        file = None if table is None else register_file(table, params)
        if file is None:
            return macro
        memory = with_defaults(params)
        banks = int(memory["banks"])
        area, compiled = self.find("register_file", file, AREA), self._find("sram", params, AREA, "")
        if area is None or compiled is None or area.value * banks >= compiled.value:
            return macro
        found = self.find("register_file", file, quantity, event)
        if found is None:
            return None
        why = f"register files, smaller than macros of {compiled.value:.6g} um2; {found.formula}"
        own = replace(found, kind="sram", params=param_key("sram", memory), formula=why)
        count = 1 if quantity == ENERGY else banks
        return own if count == 1 else own.times(count, f"x {count} banks", own.quality)

    def _placed(self, constant: Constant) -> Constant:
        """A constant of another node, which ``accepted_nodes_nm`` let in, says that it was not scaled."""
        if constant.node_nm is None or constant.node_nm == self.node_nm:
            return constant
        how = f"{constant.node_nm:g} nm value used at {self.node_nm:g} nm without scaling"
        return replace(constant.times(1.0, how, "estimated"), node_nm=self.node_nm)

    def _scaled(self, constant: Constant, base: Technology, scaling: Scaling) -> Constant:
        if constant.node_nm is None:
            return constant
        target_vdd = scaling.target_vdd(constant.device)
        if constant.kind == "sram" and self.table is not None:
            scaled = scaled_by_references(constant, self.table, base._find, target_vdd)
            if scaled is not None:
                return scaled
        from_vdd = constant.vdd or base.vdd
        if from_vdd is None:
            raise InputError(
                f"neither the row nor technology {base.name} says its supply; it cannot be scaled",
                file=constant.origins[0],
                key="vdd",
            )
        if constant.kind == "wire":
            factor, how = scaling.wire_factor(from_vdd)
        else:
            factor, how = scaling.factor(constant.quantity, constant.device, from_vdd)
        quality = "estimated" if constant.quantity == LEAKAGE else "scaled"
        return replace(constant.times(factor, how, quality), node_nm=self.node_nm, vdd=target_vdd)

    def _rows(self) -> tuple[CostRow, ...]:
        own = self.table.rows if self.table is not None else ()
        return own + tuple(row for base in self.bases for row in base.technology._rows())


def _from_table(
    table: CostTable, kind: str, params: Mapping[str, Param], quantity: str, event: str
) -> Constant | None:
    found = exact(table, kind, params, quantity, event)
    if found is None and kind == "sram":
        found = memory_constant(table, params, quantity, event)
    if found is None:
        found = curve(table, kind, params, quantity, event)
    if found is None and quantity == LEAKAGE:
        found = _leakage_from_density(table, kind, params)
    return found


def _leakage_from_density(table: CostTable, kind: str, params: Mapping[str, Param]) -> Constant | None:
    row = table.select(kind, LEAKAGE_DENSITY).get(())
    if row is None:
        return None
    area = _from_table(table, kind, params, AREA, "")
    if area is None:
        return None
    value = row.value * area.value
    key: ParamKey = area.params
    how = f"{row.value:g} nW/um2 x {area.value:.6g} um2 = {value:.6g} nW"
    formula = how if not area.formula else f"area: {area.formula}; {how}"
    density = from_rows((row,), kind, key, value, formula, "estimated")
    return replace(
        density,
        quantity=LEAKAGE,
        source=f"{density.source}; area: {area.source}",
        origins=density.origins + area.origins,
    )


class _File(BaseModel):
    """A technology as users write it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: str = ""
    base: str | list[str] | None = None
    """Name or path of a technology, or of several, that answer what the own tables do not have, the first that can."""
    scale_to_nm: int | None = Field(default=None, gt=0)
    """Scale each base to this node (see ``scaling.py``; of memories ``sram_scaling.py``)."""
    vdd: float | None = Field(default=None, gt=0)
    """Supply in V: of the own rows that do not say, and the target of scaling."""
    node_nm: float | None = Field(default=None, gt=0)
    accepted_nodes_nm: list[float] = []
    """Nodes beside ``node_nm`` whose rows are let in unscaled."""
    tables: list[str] = []


def technology_names() -> list[str]:
    """Names of the shipped technologies."""
    return sorted(path.stem for path in (_ROOM / "technologies").glob("*.yaml"))


def load_technology(
    what: str | Path | Mapping[str, Any] = DEFAULT_TECHNOLOGY, *, folder: Path | None = None
) -> Technology:
    """A technology from what a user writes; paths are relative to ``folder``. Raises InputError.

    - a shipped name: ``published_45nm``
    - a name and a node: ``published_45nm@7nm``, scaled at the node's nominal supply
    - a path: a cost table (``.csv``) or a technology file (``.yaml``)
    - a mapping, as in a technology file: ``{"base": "published_45nm", "scale_to_nm": 7, "vdd": 0.7}``
    """
    return _load(what, folder or Path(), ())


def _load(what: str | Path | Mapping[str, Any], folder: Path, above: tuple[Path, ...]) -> Technology:
    """``above``: the files whose base this is, outermost first."""
    if isinstance(what, Mapping):
        return _build(what, None, folder, above)
    text = str(what)
    if "\0" in text:
        raise InputError("not a usable name", key="technology", value=text)
    if text in technology_names():
        return _shipped(text)
    path = Path(text)
    if path.suffix in (".csv", ".yaml", ".yml"):
        return _load_file(folder / path, above)
    name, at, node = text.rpartition("@")
    if at:
        digits = node.removesuffix("nm")
        if not (digits.isascii() and digits.isdigit()) or digits == node:
            raise InputError("not a node to scale to", key="technology", value=text, allowed=f"{name}@7nm")
        return _load({"base": name, "scale_to_nm": int(digits)}, folder, above)
    raise InputError(
        "no technology of this name",
        key="technology",
        value=text,
        allowed=f"a .csv or .yaml file, or {nearest(text, technology_names())}",
    )


@cache
def _shipped(name: str) -> Technology:
    return _load_file(_ROOM / "technologies" / f"{name}.yaml", ())


def _load_file(path: Path, above: tuple[Path, ...]) -> Technology:
    if path.suffix == ".csv":
        rows = read_table(path)
        nodes = sorted({row.node_nm for row in rows if row.node_nm is not None})
        if len(nodes) > 1:
            raise InputError(
                "the rows are of several nodes",
                file=path,
                key="node_nm",
                value=nodes,
                allowed="one node; or a technology file (.yaml) with node_nm and accepted_nodes_nm",
            )
        voltages = {row.vdd for row in rows if row.vdd is not None}
        vdd = voltages.pop() if len(voltages) == 1 else None
        return Technology(
            name=path.stem,
            description=_description(rows, ()),
            node_nm=nodes[0] if nodes else None,
            vdd=vdd,
            table=make_table(rows),
        )
    here = path.resolve()
    if here in above:
        raise InputError("is its own base", file=path, key="base")
    folder = _ROOM / "tables" if path.parent == _ROOM / "technologies" else path.parent
    return _build(read_mapping(path), path, folder, (*above, here))


def _build(
    content: Mapping[str, Any], file: Path | None, folder: Path, above: tuple[Path, ...]
) -> Technology:
    written = validate(_File, content, source=file, prefix="" if file else "technology")
    try:
        return _compose(written, file.stem if file else None, folder, above)
    except InputError as error:
        raise (error.within(file) if file is not None and error.file is None else error) from None


def _compose(written: _File, name: str | None, folder: Path, above: tuple[Path, ...]) -> Technology:
    names = [written.base] if isinstance(written.base, str) else written.base or []
    if not written.tables and not names:
        raise InputError("a technology needs tables or a base", key="tables", allowed="tables, base, or both")
    bases = tuple(_base(_load(each, folder, above), written) for each in names)
    rows = tuple(row for table in written.tables for row in read_table(folder / table))
    below = _node_below(bases)
    if written.node_nm is not None and below is not None and written.node_nm != below:
        raise InputError(
            "differs from the node of the base", key="node_nm", value=written.node_nm, allowed=f"{below:g}"
        )
    node = below or written.node_nm or _only_node(rows)
    scaled = bool(bases) and written.scale_to_nm is not None
    if written.scale_to_nm is not None and not bases:
        raise InputError("needs a base with a node", key="scale_to_nm", value=written.scale_to_nm)
    if written.vdd is not None and not scaled and not written.tables:
        raise InputError("a supply is for scaling or for own tables", key="vdd", value=written.vdd)
    allowed = {node, *written.accepted_nodes_nm}
    for row in rows:
        if row.node_nm is not None and row.node_nm not in allowed:
            raise InputError(
                f"row of another node than the technology's ({_nm(node)})",
                file=row.origin,
                key="node_nm",
                value=row.node_nm,
                allowed="list it under accepted_nodes_nm to use it unscaled",
            )
    vdd = written.vdd
    if bases and (vdd is None or bases[0].scaling is not None):
        first = bases[0]
        vdd = first.technology.vdd if first.scaling is None else first.scaling.target_vdd("hp")
    return Technology(
        name=name or _name(written, bases),
        description=written.description or _description(rows, bases),
        node_nm=node,
        vdd=vdd,
        table=make_table(rows) if rows else None,
        bases=bases,
    )


def _base(technology: Technology, written: _File) -> Base:
    if written.scale_to_nm is None:
        return Base(technology, None)
    if technology.node_nm is None:
        raise InputError("needs a base with a node", key="scale_to_nm", value=written.scale_to_nm)
    if any(base.scaling is not None for base in technology.bases):
        raise InputError("the base is scaled already", key="base", value=technology.name)
    return Base(technology, Scaling(technology.node_nm, written.scale_to_nm, written.vdd))


def _node_below(bases: tuple[Base, ...]) -> float | None:
    """The node of the bases after scaling; None without one."""
    nodes = {base.scaling.to_nm if base.scaling is not None else base.technology.node_nm for base in bases}
    nodes.discard(None)
    if len(nodes) > 1:
        listed = ", ".join(_nm(node) for node in sorted(node for node in nodes if node is not None))
        raise InputError(
            "the bases are of several nodes", key="base", value=listed, allowed="one, or scale_to_nm"
        )
    return nodes.pop() if nodes else None


def _only_node(rows: tuple[CostRow, ...]) -> float | None:
    """The node of all rows that have one; None where they differ."""
    nodes = {row.node_nm for row in rows if row.node_nm is not None}
    return nodes.pop() if len(nodes) == 1 else None


def _name(written: _File, bases: tuple[Base, ...]) -> str:
    name = "+".join(base.technology.name for base in bases)
    if written.scale_to_nm is not None:
        name += f"@{written.scale_to_nm}nm"
        if written.vdd is not None:
            name += f",{written.vdd:g}V"
    return "+".join([*filter(None, [name]), *(Path(table).stem for table in written.tables)])


def _description(rows: tuple[CostRow, ...], bases: tuple[Base, ...]) -> str:
    """What reports say of a technology that does not describe itself: nodes, memory cells, sources, bases."""
    said = []
    if rows:
        nodes = sorted({row.node_nm for row in rows if row.node_nm is not None})
        cells = dict.fromkeys(memory_condition(row) for row in rows if row.kind == "sram_macro")
        files = dict.fromkeys(row.origin.rpartition(":")[0] for row in rows)
        at = f" ({', '.join(map(_nm, nodes))})" if nodes else ""
        said.append(f"Rows of {', '.join(files)}{at}" + "".join(f"; SRAM {cell}" for cell in cells) + ".")
    for technology, scaling in bases:
        if scaling is None:
            said.append(technology.description)
        else:
            how = f"{_nm(scaling.from_nm)} to {_nm(scaling.to_nm)} after Stillmaker & Baas 2017"
            said.append(f"Scaled from {how}, DRAM excepted: {technology.description}")
    return " ".join(said)


def _nm(node: float | None) -> str:
    return "none" if node is None else f"{node:g} nm"


def _identity(component: Component) -> object:
    """A hashable value that two components share exactly when they cost the same."""
    return (
        component.name,
        component.kind,
        component.count,
        component.copies,
        tuple(sorted(component.params.items())),
        tuple((p.name, p.kind, tuple(sorted(p.params.items())), p.count) for p in component.parts),
        tuple((event, tuple(sorted(parts.items()))) for event, parts in component.events.items()),
    )
