# SPDX-License-Identifier: Apache-2.0
"""How often minimisation ends at the same case."""

from __future__ import annotations

from harness.lemma.compare_levels import Question
from harness.lemma.stability import Stability, measure


def test_a_share_of_nothing_is_all() -> None:
    assert Stability(0, 0, 0, ()).share == 1.0
    assert Stability(1, 3, 4, ("x",)).share == 0.75


def test_starts_of_a_question_are_counted() -> None:
    question = Question(("spec", "kernel"), "prep_hvc")
    found = measure((question,), starts=3, tries=100, seed=1)
    assert found == measure((question,), starts=3, tries=100, seed=1)
    assert found.goals > 0 and found.goals <= found.same <= found.total <= 3 * found.goals
    assert bool(found.strays) == (found.same < found.total)
    assert measure((Question(("spec", "spec"), "prep_hvc"),), starts=3, tries=20, seed=1) == Stability(0, 0, 0, ())
