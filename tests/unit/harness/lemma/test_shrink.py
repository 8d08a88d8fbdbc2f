# SPDX-License-Identifier: Apache-2.0
"""Counterexamples are made least."""

from __future__ import annotations

import pytest

from harness.lemma.case import case_of
from harness.lemma.clusters import cluster_of, load
from harness.lemma.compare_levels import (
    Difference,
    Question,
    compare_on_case,
)
from harness.lemma.shrink import least_case, order
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"

STORED = [c for path in sorted(LEMMAS.glob("*-*.json")) for c in load(path)]

LOW_BODY = ("low", "body")


def test_counterexamples_are_least() -> None:
    for cluster in STORED:
        difference = compare_on_case(cluster.question, dict(cluster.case))[0]
        assert isinstance(difference, Difference)
        for name, _ in cluster.case:
            without = case_of({n: v for n, v in cluster.case if n != name})
            smaller = cluster_of(cluster.question, without)
            assert smaller is None or smaller.key != cluster.key


def test_least_is_deterministic_and_keeps_the_goal() -> None:
    question = Question(LOW_BODY, "prep_abort")
    start = case_of({"data.0": 31 << 16 | 1 << 21 | 5, "ctxt.hpfar_el2": 0x123456, "ctxt.x3": 7, "vcpuid": 3})
    goal = "ctxt.dirty at "
    small = least_case(question, start, goal)
    assert small == (("data.0", 31 << 16),)
    assert order(small) < order(start)
    with pytest.raises(ValueError, match="does not satisfy"):
        least_case(question, (), goal)
