# SPDX-License-Identifier: Apache-2.0
"""Clusters: found, stored, merged; and every stored cluster on its stored state."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.lemma.case import case_of
from harness.lemma.clusters import cluster_of, find_clusters, goals_of, load, merge, store, verify
from harness.lemma.compare_levels import (
    MAIN_PAIRS,
    Difference,
    Question,
    compare_on_case,
)
from harness.lemma.generate import random_case
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"
STORED = [c for path in sorted(LEMMAS.glob("*-*.json")) for c in load(path)]
LOW_BODY = ("low", "body")


@pytest.mark.parametrize("cluster", STORED, ids=lambda c: f"{':'.join(c.question.pair)}-{c.question.function}")
def test_a_stored_cluster_still_shows(cluster: object) -> None:
    assert verify(cluster) is None  # type: ignore[arg-type]


def test_every_main_pair_is_stored() -> None:
    assert {c.question.pair for c in STORED} == set(MAIN_PAIRS)


def test_verify_says_what_changed(tmp_path: Path) -> None:
    cluster = next(c for c in STORED if c.left)
    row = cluster.to_json()
    row["left"][row["fields"][0]] = "something else"
    path = tmp_path / "low-body.json"
    path.write_text(json.dumps([row]))
    assert "left" in (verify(load(path)[0]) or "")
    path.write_text(json.dumps([cluster.to_json() | {"counterexample": {"vmid": 17}}]))
    assert verify(load(path)[0]) == "the two sides agree now"
    path.write_text(json.dumps([cluster.to_json() | {"counterexample": {"no such slot": 1}}]))
    with pytest.raises(InputError, match="no such slot"):
        load(path)


# ---- clusters


def finds(question: Question, seed: int, tries: int) -> list[tuple[Question, str, tuple[tuple[str, int], ...]]]:
    rng = random.Random(seed)
    found: dict[tuple[str, frozenset[str]], tuple[tuple[str, int], ...]] = {}
    for _ in range(tries):
        case = random_case(rng, question.function)
        difference = compare_on_case(question, case)[0]
        if isinstance(difference, Difference):
            for goal in difference.goals():
                found.setdefault((goal, difference.branches()), case_of(case))
    return [(question, goal, case) for (goal, _), case in found.items()]


@pytest.mark.parametrize("seed", (1, 2, 3))
@pytest.mark.parametrize("function", ("prep_abort", "sync_dirty_to_shadow"))
def test_random_search_finds_the_stored_clusters(function: str, seed: int) -> None:
    question = Question(LOW_BODY, function)
    stored = {c.key for c in STORED if c.question == question}
    assert {c.key for c in find_clusters(finds(question, seed, 4000))} == stored


def test_store_and_load(tmp_path: Path) -> None:
    mine = [c for c in STORED if c.question.pair == LOW_BODY]
    store(tmp_path, LOW_BODY, reversed(mine))
    assert sorted(load(tmp_path / "low-body.json"), key=str) == sorted(mine, key=str)


@pytest.mark.parametrize("pair", MAIN_PAIRS)
def test_merging_the_stored_clusters_changes_nothing(pair: tuple[str, str]) -> None:
    mine = tuple(c for c in STORED if c.question.pair == pair)
    assert merge(reversed(mine)) == mine


def test_merge_drops_what_another_one_on_fewer_branches_shows() -> None:
    question = Question(("spec", "low"), "restore_shadow_kvm_regs")
    skip = cluster_of(question, case_of({"ctxt.pc": 1 << 48, "ctxt.dirty": 1 << 32}))
    both = cluster_of(question, case_of({"ctxt.dirty": 3 << 32, "vbar": 1 << 48}))
    assert skip is not None
    assert both is not None
    assert goals_of(skip) == goals_of(both) == ("undefined is_addr pc at ",)
    assert merge((both, skip)) == merge((skip, both, both)) == (skip,)
    assert merge((both,)) == (both,)


def test_clusters_do_not_depend_on_the_number_of_processes() -> None:
    found = finds(Question(LOW_BODY, "prep_abort"), 1, 400)
    assert find_clusters(found, 2) == find_clusters(found) == find_clusters(reversed(found))
