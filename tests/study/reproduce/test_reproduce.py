"""What holds for every reproduction: cited numbers, complete claims, notes that say what was computed."""

from __future__ import annotations

import json
from importlib import import_module

import pytest

from simulator.errors import InputError
from simulator.study.reproduce import paper_names, reproduce
from simulator.study.reproduce.claim import compare, verdict
from simulator.study.reproduce.figures import DATA, Figure, Figures, _key, parse_case, read_figures

KEYS = ["paper", "claim", "case", "published", "ours", "unit", "ratio", "note"]


@pytest.mark.parametrize("paper", paper_names())
def test_a_claim_has_every_key_and_a_sentence(paper: str) -> None:
    claims = [claim.to_json() for claim in reproduce(paper)]
    assert claims
    assert json.loads(json.dumps(claims, allow_nan=False)) == claims
    for claim in claims:
        assert list(claim) == KEYS
        assert claim["paper"] == paper
        assert (claim["published"] is None) or (claim["ours"] is None) or claim["ratio"] >= 0
        assert claim["published"] is not None or claim["ours"] is not None
        verdict_, colon, reason = claim["note"].partition(": ")
        assert verdict_
        assert colon
        assert len(reason) > 20


@pytest.mark.parametrize("paper", paper_names())
def test_every_published_figure_is_among_the_claims(paper: str) -> None:
    figures = read_figures(f"{paper.replace('-', '_')}_published")
    claims = {(claim.claim, tuple(sorted(claim.case.items()))) for claim in reproduce(paper)}
    missing = [row for row in figures if (row.name, tuple(sorted(row.case.items()))) not in claims]
    assert not missing


@pytest.mark.parametrize("paper", paper_names())
def test_no_claim_is_made_twice(paper: str) -> None:
    cases = [(claim.claim, tuple(sorted(claim.case.items()))) for claim in reproduce(paper)]
    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.csv")), ids=lambda path: path.stem)
def test_every_number_has_a_source(path) -> None:
    for row in read_figures(path.stem):
        assert row.source, row
        assert isinstance(row.value, int | float)
        assert row.last_digit > 0


def test_reading_is_the_same_twice() -> None:
    assert [claim.to_json() for claim in reproduce("mixpe")] == [
        claim.to_json() for claim in reproduce("mixpe")
    ]


def test_every_constant_of_a_published_model_is_used(monkeypatch) -> None:
    used: dict[str, set[object]] = {}

    class Recorded(dict):
        def __init__(self, name: str, rows: dict) -> None:
            super().__init__(rows)
            self._used = used.setdefault(name, set())

        def __getitem__(self, key: object) -> Figure:
            self._used.add(key)
            return super().__getitem__(key)

        def get(self, key: object, default: Figure | None = None) -> Figure | None:
            self._used.add(key)
            return super().get(key, default)

    constants = [path.stem for path in DATA.glob("*.csv") if not path.stem.endswith("_published")]
    for name in constants:
        figures = read_figures(name)
        monkeypatch.setattr(figures, "_index", Recorded(name, figures._index))
    for paper in paper_names():
        module = import_module(f"simulator.study.reproduce.{paper.replace('-', '_')}")
        for cached in vars(module).values():
            if hasattr(cached, "cache_clear") and cached is not read_figures:
                cached.cache_clear()
        reproduce(paper)
    for name in constants:
        figures = read_figures(name)
        unused = {row.name for row in figures if _key(row.name, row.case) not in used[name]}
        assert unused <= {"limit"}, name  # those are listed by name


def test_an_unknown_paper_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean bitmod"):
        reproduce("bitmodd")


def _figure(text: str) -> Figure:
    return Figure("speed", {}, text, "x", "nobody", "")


@pytest.mark.parametrize(
    ("text", "ours", "said"),
    [
        ("0.87", 0.8749, "Equal as printed"),
        ("0.87", 0.865, "Equal as printed"),
        ("0.87", 0.879, "Equal within one in the last printed digit"),
        ("0.87", 0.957, "Differs by +10.0%"),
        ("120", 120.4, "Equal as printed"),
        ("120", 121, "Equal within one in the last printed digit"),
        ("120", 60, "Differs by -50.0%"),
        ("1e3", 1499, "Equal as printed"),
        ("1e3", 1900, "Equal within one in the last printed digit"),
        ("0", 3, "Differs"),
        ("0.5", None, "Not computed"),
    ],
)
def test_the_verdict_counts_printed_digits(text: str, ours: float | None, said: str) -> None:
    assert verdict(_figure(text), ours) == said
    assert compare("x", _figure(text), ours, "because").note == f"{said}: because"


def test_two_figures_of_one_case_are_refused() -> None:
    with pytest.raises(ValueError, match="one name and case"):
        Figures((_figure("1"), _figure("2")))


def test_a_case_holds_numbers_where_they_are_numbers() -> None:
    assert parse_case("model=phi-2 bits=4 kappa=2.5") == {"model": "phi-2", "bits": 4, "kappa": 2.5}
