# SPDX-License-Identifier: Apache-2.0
"""The table of causes, on states that the generator draws: nothing differs outside, nothing agrees inside."""

from __future__ import annotations

import random

import pytest

from harness.lemma.case import case_of
from harness.lemma.causes import PARTS, PROOF_CAUSES
from harness.lemma.causes_kernel import KERNEL_CAUSES, causes_of
from harness.lemma.compare_levels import EQUAL, Difference, Question, compare_on_case
from harness.lemma.generate import random_case
from harness.model import FUNCTIONS


@pytest.mark.parametrize("pair", (("low", "body"), ("spec", "low")))
@pytest.mark.parametrize("function", tuple(f.name for f in FUNCTIONS))
def test_drawn_states_agree_outside_and_differ_inside(pair: tuple[str, str], function: str) -> None:
    question, rng = Question(pair, function), random.Random(7)
    causes = causes_of(question)
    for _ in range(600):
        case = dict(case_of(random_case(rng, function)))
        where = [c.name for c in causes if c.formula.of_case(case)]
        verdict = compare_on_case(question, case)[0]
        assert not (isinstance(verdict, Difference) and not where), case
        assert not (verdict == EQUAL and where), (where, case)


def test_the_rows() -> None:
    for cause in (*PROOF_CAUSES, *KERNEL_CAUSES):
        assert cause.part in PARTS
        assert cause.text.endswith(".")
        assert cause.change.endswith(".")
        assert cause.functions
    logs = Question(("low", "body"), "restore_shadow_kvm_regs")
    assert {c.name for c in causes_of(logs)} - {c.name for c in causes_of(Question(*_plain(logs), logs=False))} == {
        "round of is_inc_exe"
    }


def _plain(question: Question) -> tuple[tuple[str, str], str]:
    return question.pair, question.function
