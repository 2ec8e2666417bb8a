"""Families of networks that ``model: {family: NAME}`` can name. A new one is a module and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.workload.families import bert, llama, opt, phi
from simulator.workload.families.family import Family, Sizes

FAMILIES: Mapping[str, Family[Any]] = {
    family.name: family for family in (bert.FAMILY, llama.FAMILY, opt.FAMILY, phi.FAMILY)
}

__all__ = ["FAMILIES", "Family", "Sizes"]
