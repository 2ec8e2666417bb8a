"""Published figures beside ours: ``reproduce(paper)`` gives the claims of one paper.

A paper is one module here, with a function ``claims() -> list[Claim]``, and files of cited numbers in ``data/``:
``<module>_published.csv``, what the paper prints, and ``<module>_model.csv``, the constants of its model.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from simulator.errors import InputError, nearest
from simulator.study.reproduce.claim import Claim

__all__ = ["PAPERS", "Claim", "Paper", "paper_names", "reproduce"]


class Paper(NamedTuple):
    """A paper whose figures are reproduced."""

    name: str
    source: str
    shows: str


PAPERS = (
    Paper(
        "bitmod",
        "Chen et al., BitMoD, HPCA 2025",
        "cycles and energy of five accelerators on six language models",
    ),
    Paper("lut-tensor-core", "Mo et al., LUT Tensor Core, ISCA 2025", "density, cycles, cost of the table"),
    Paper("figlut", "Park et al., FIGLUT, HPCA 2025", "lookups a cycle, generator, throughput by width"),
    Paper("mixpe", "Zhang et al., MixPE, arXiv 2411.16158", "time of mixed-precision arrays"),
    Paper("bbs", "Chen et al., BBS, MICRO 2024", "storage, cycles and speedup of pruned bit-serial arrays"),
    Paper("qserve", "Lin et al., QServe, MLSys 2025", "protective range, storage, rooflines"),
    Paper("int-vs-fp", "Chen et al., INT v.s. FP, arXiv 2510.25602", "QSNR, crossovers, gate model"),
    Paper(
        "fp8-vs-int8", "van Baalen et al., FP8 versus INT8, arXiv 2303.17951", "gates of one MAC, by format"
    ),
)


def paper_names() -> list[str]:
    """Names for `reproduce`."""
    return [paper.name for paper in PAPERS]


def reproduce(paper: str) -> list[Claim]:
    """The claims of a paper, by its name in `PAPERS`. Raises InputError: no such paper."""
    if paper not in paper_names():
        raise InputError("no reproduction of this name", value=paper, allowed=nearest(paper, paper_names()))
    module = import_module(f"{__name__}.{paper.replace('-', '_')}")
    claims: list[Claim] = module.claims()
    return claims
