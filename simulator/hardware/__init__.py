"""What hardware is made of and what it costs.

``structure``      components, parts, events: the words in which designs describe themselves
``kinds``          the circuits that tables may price, and how they grow with width
``table``          cost tables: one cited constant a row
``constant``       a number with its provenance, by an exact row or by a curve
``sram``           a memory, composed of compiled macros
``cacti``          these macros, compiled by CACTI
``register_file``  a memory of flops, where that is smaller
``scaling``        from one node to another (Stillmaker & Baas 2017)
``sram_scaling``   memories from one node to another, by macros laid out there
``technology``     tables under one name; ``load_technology(name, path or mapping)``
``cost``           what a component costs: a characterised unit, else the sum of its parts
"""

from simulator.hardware.constant import Constant
from simulator.hardware.cost import PricedComponent, Used
from simulator.hardware.structure import Component, Part
from simulator.hardware.table import QUALITIES, CostRow
from simulator.hardware.technology import (
    DEFAULT_TECHNOLOGY,
    Technology,
    load_technology,
    technology_names,
)

__all__ = [
    "DEFAULT_TECHNOLOGY",
    "QUALITIES",
    "Component",
    "Constant",
    "CostRow",
    "Part",
    "PricedComponent",
    "Technology",
    "Used",
    "load_technology",
    "technology_names",
]
