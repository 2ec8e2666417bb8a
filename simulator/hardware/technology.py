"""A technology: cost tables under one name, at one node, on top of another technology or scaled from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from simulator.config import read_mapping, validate
from simulator.errors import InputError, nearest
from simulator.hardware.constant import Constant, curve, describe, exact, from_rows
from simulator.hardware.cost import PricedComponent, price
from simulator.hardware.kinds import check_params
from simulator.hardware.scaling import Scaling
from simulator.hardware.sram import memory_constant
from simulator.hardware.structure import Component, Param
from simulator.hardware.table import (
    AREA,
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
DEFAULT_TECHNOLOGY = "published_45nm"


@dataclass(frozen=True)
class Technology:
    """Where constants come from: the own table first, then the base, whose answer may be scaled."""

    name: str
    description: str
    node_nm: float | None
    vdd: float | None
    table: CostTable | None = None
    base: Technology | None = None
    scaling: Scaling | None = None
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
        return found or (self.base.targets(kind, params) if self.base is not None else [])

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
        """One constant, or None: own exact row, own curve, then the base. InputError: unusable parameters."""
        check_params(kind, params)
        if self.table is not None:
            own = _from_table(self.table, kind, params, quantity, event)
            if own is not None:
                return self._placed(own)
            if kind == "sram" and any(row.kind == "sram_macro" for row in self.table.rows):
                # Own macros replace the base's altogether: memories of one technology have one cell type.
                return None
        if self.base is None:
            return None
        below = self.base.find(kind, params, quantity, event)
        return (
            below if below is None or self.scaling is None else self._scaled(below, self.base, self.scaling)
        )

    def _placed(self, constant: Constant) -> Constant:
        """A constant of another node, which ``accepted_nodes_nm`` let in, says that it was not scaled."""
        if constant.node_nm is None or constant.node_nm == self.node_nm:
            return constant
        how = f"{constant.node_nm:g} nm value used at {self.node_nm:g} nm without scaling"
        return replace(constant.times(1.0, how, "estimated"), node_nm=self.node_nm)

    def _scaled(self, constant: Constant, base: Technology, scaling: Scaling) -> Constant:
        if constant.node_nm is None:
            return constant
        from_vdd = constant.vdd or base.vdd
        if from_vdd is None:
            raise InputError(
                f"neither the row nor technology {base.name} says its supply; it cannot be scaled",
                file=constant.origins[0],
                key="vdd",
            )
        factor, how = scaling.factor(constant.quantity, constant.device, from_vdd)
        quality = "estimated" if constant.quantity == LEAKAGE else "scaled"
        scaled = constant.times(factor, how, quality)
        return replace(scaled, node_nm=self.node_nm, vdd=scaling.target_vdd(constant.device))

    def _rows(self) -> tuple[CostRow, ...]:
        own = self.table.rows if self.table is not None else ()
        return own + (self.base._rows() if self.base is not None else ())


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
    base: str | None = None
    """Name or path of a technology that answers what the own tables do not have."""
    scale_to_nm: int | None = Field(default=None, gt=0)
    """Scale the base to this node (see ``scaling.py``)."""
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
            description=_description(rows, None, None),
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
    if not written.tables and written.base is None:
        raise InputError("a technology needs tables or a base", key="tables", allowed="tables, base, or both")
    base = None if written.base is None else _load(written.base, folder, above)
    scaling = None
    if written.scale_to_nm is not None:
        if base is None or base.node_nm is None:
            raise InputError("needs a base with a node", key="scale_to_nm", value=written.scale_to_nm)
        if base.scaling is not None:
            raise InputError("the base is scaled already", key="base", value=base.name)
        scaling = Scaling(base.node_nm, written.scale_to_nm, written.vdd)
    rows = tuple(row for table in written.tables for row in read_table(folder / table))
    below = scaling.to_nm if scaling is not None else base.node_nm if base is not None else None
    if written.node_nm is not None and below is not None and written.node_nm != below:
        raise InputError(
            "differs from the node of the base", key="node_nm", value=written.node_nm, allowed=f"{below:g}"
        )
    node = below or written.node_nm or _only_node(rows)
    if written.vdd is not None and scaling is None and not written.tables:
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
    if scaling is not None:
        vdd = scaling.target_vdd("hp")
    elif vdd is None and base is not None:
        vdd = base.vdd
    return Technology(
        name=name or _name(written, base),
        description=written.description or _description(rows, base, scaling),
        node_nm=node,
        vdd=vdd,
        table=make_table(rows) if rows else None,
        base=base,
        scaling=scaling,
    )


def _only_node(rows: tuple[CostRow, ...]) -> float | None:
    """The node of all rows that have one; None where they differ."""
    nodes = {row.node_nm for row in rows if row.node_nm is not None}
    return nodes.pop() if len(nodes) == 1 else None


def _name(written: _File, base: Technology | None) -> str:
    name = base.name if base is not None else ""
    if written.scale_to_nm is not None:
        name += f"@{written.scale_to_nm}nm"
        if written.vdd is not None:
            name += f",{written.vdd:g}V"
    return "+".join([*filter(None, [name]), *(Path(table).stem for table in written.tables)])


def _description(rows: tuple[CostRow, ...], base: Technology | None, scaling: Scaling | None) -> str:
    """What reports say of a technology that does not describe itself: nodes, memory cells, sources, base."""
    said = []
    if rows:
        nodes = sorted({row.node_nm for row in rows if row.node_nm is not None})
        cells = dict.fromkeys(memory_condition(row) for row in rows if row.kind == "sram_macro")
        files = dict.fromkeys(row.origin.rpartition(":")[0] for row in rows)
        at = f" ({', '.join(map(_nm, nodes))})" if nodes else ""
        said.append(f"Rows of {', '.join(files)}{at}" + "".join(f"; SRAM {cell}" for cell in cells) + ".")
    if base is not None and scaling is not None:
        how = f"{_nm(scaling.from_nm)} to {_nm(scaling.to_nm)} after Stillmaker & Baas 2017"
        said.append(f"Scaled from {how}, DRAM excepted: {base.description}")
    elif base is not None:
        said.append(base.description)
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
