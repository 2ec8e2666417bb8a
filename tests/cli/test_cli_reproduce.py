"""`simulator reproduce`: papers, claims, JSON, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cli_runs import refused, simulator

from simulator.study.reproduce import PAPERS, paper_names


def test_alone_it_lists_the_papers_with_their_sources() -> None:
    ended = simulator("reproduce")
    assert (ended.code, ended.err) == (0, "")
    for paper in PAPERS:
        assert paper.name in ended.out
        assert paper.source in ended.out


@pytest.mark.parametrize("paper", paper_names())
def test_json_is_a_list_of_claims_and_nothing_else(paper: str) -> None:
    ended = simulator("reproduce", paper, "--json")
    assert (ended.code, ended.err) == (0, "")
    claims = json.loads(ended.out)
    assert claims
    for claim in claims:
        assert list(claim) == ["paper", "claim", "case", "published", "ours", "unit", "ratio", "note"]
        if claim["published"] and claim["ours"] is not None:
            assert claim["ratio"] == claim["ours"] / claim["published"]
        else:
            assert claim["ratio"] is None


def test_text_shows_every_claim_with_its_note() -> None:
    claims = json.loads(simulator("reproduce", "mixpe", "--json").out)
    ended = simulator("reproduce", "mixpe")
    assert (ended.code, ended.err) == (0, "")
    table, _, notes = ended.out.partition("\n\n")
    assert len([line for line in table.splitlines() if line.startswith("normalized_time")]) == len(claims)
    assert all(claim["note"] in notes for claim in claims)
    assert "0.0970" in table or "0.0969947" in table


def test_bitmod_answers_within_seconds() -> None:
    command = [sys.executable, "-m", "simulator", "reproduce", "bitmod", "--json"]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=True)
    cycles = {
        tuple(row["case"].values()): row for row in json.loads(ended.stdout) if row["claim"] == "cycles"
    }
    assert len(cycles) == 60
    row = cycles["llama-2-7b", "decode", "bitmod-lossy"]
    assert row["ours"] == row["published"] == 79493200


def test_what_is_not_there_is_refused_with_the_nearest() -> None:
    assert "did you mean bitmod" in refused("reproduce", "bitmood")
    assert "int-vs-fp" in refused("reproduce", "int_vs_fp")
    assert "bitmod, lut-tensor-core" in refused("reproduce", "--json")
