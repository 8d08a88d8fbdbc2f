# SPDX-License-Identifier: Apache-2.0
"""The causes where the deployed C takes part, and every stored cluster by its cause."""

from __future__ import annotations

import random

import pytest

from harness.lemma.case import case_of
from harness.lemma.causes_kernel import cause_of, causes_of
from harness.lemma.clusters import load
from harness.lemma.compare_levels import Difference, Question, compare_on_case
from harness.lemma.generate import random_case
from harness.model import FUNCTIONS
from tests.support.paths import CORPUS

STORED = [c for path in sorted((CORPUS / "lemmas").glob("*-*.json")) for c in load(path)]


def test_every_stored_cluster_has_a_cause() -> None:
    assert all(cause_of(c).text for c in STORED)


@pytest.mark.parametrize("left", ("spec", "low", "body"))
@pytest.mark.parametrize("function", tuple(f.name for f in FUNCTIONS))
def test_drawn_states_agree_outside(left: str, function: str) -> None:
    question, rng = Question((left, "kernel"), function), random.Random(5)
    causes = causes_of(question)
    for _ in range(500):
        case = dict(case_of(random_case(rng, function)))
        if isinstance(compare_on_case(question, case)[0], Difference):
            assert any(c.formula.of_case(case) for c in causes), case


def test_a_state_in_no_region_is_told() -> None:
    cluster = next(c for c in STORED if c.question.function == "prep_wfx")
    moved = type(cluster)(
        *(cluster.question, cluster.branch, cluster.right_branch, cluster.fork, cluster.undefined, cluster.fields),
        *(case_of({"halt": 1}), cluster.left, cluster.right),
    )
    with pytest.raises(LookupError, match="no cause"):
        cause_of(moved)
