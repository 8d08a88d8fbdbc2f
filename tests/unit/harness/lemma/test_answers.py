# SPDX-License-Identifier: Apache-2.0
"""The stored answers: of today's causes, and every counterexample still is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.lemma.answers import ANSWER_PAIRS, Answer, answer, load_answers, store_answers
from harness.lemma.causes_kernel import causes_of
from harness.lemma.clusters import cluster_of
from harness.lemma.compare_levels import EQUAL, Difference, Question, compare_on_case
from harness.lemma.formula import Formula
from harness.lemma.repair import AGREES
from harness.model import FUNCTIONS
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"
STORED = [a for pair in ANSWER_PAIRS for a in load_answers(LEMMAS, pair)]


def name(found: Answer) -> str:
    return f"{':'.join(found.question.pair)}-{found.question.function}-{found.question.logs}"


def test_every_question_is_answered() -> None:
    asked = {Question(pair, f.name) for pair in ANSWER_PAIRS for f in FUNCTIONS}
    assert asked <= {a.question for a in STORED}
    assert Question(("low", "body"), "restore_shadow_kvm_regs", logs=False) in {a.question for a in STORED}


def test_the_two_lemmas() -> None:
    save, restore = (
        next(a for a in STORED if a.question == Question(("low", "body"), f"{f}_shadow_kvm_regs"))
        for f in ("save", "restore")
    )
    assert (save.proved, save.causes) == (True, ())
    assert restore.proved
    assert [c.case for c in restore.causes][:1] == [(("core.0", 1),)]


@pytest.mark.parametrize("found", STORED, ids=name)
def test_a_stored_answer_is_of_today_s_causes(found: Answer) -> None:
    assert [(c.name, c.region) for c in found.causes] == [(c.name, c.region) for c in causes_of(found.question)]
    assert not found.outside
    for shown in found.causes:
        case = dict(shown.case)
        cluster = cluster_of(found.question, shown.case)
        assert cluster is not None
        assert (cluster.undefined, cluster.left, cluster.right) == (shown.undefined, shown.left, shown.right)
        assert isinstance(compare_on_case(found.question, case)[0], Difference)
        assert Formula(shown.region).of_case(case)
        if shown.verdict == AGREES:
            assert compare_on_case(found.question, dict(shown.state))[0] == EQUAL


def test_an_answer_is_made_and_kept(tmp_path: Path) -> None:
    question = Question(("spec", "low"), "reset_gp_regs")
    found = answer(question)
    assert (found.proved, [c.name for c in found.causes]) == (True, ["no VM"])
    assert found.causes[0].case == (("vmid", 0),)
    store_answers(tmp_path, question.pair, (found,))
    store_answers(tmp_path, question.pair, (answer(Question(("spec", "low"), "prep_wfx")),))
    kept = load_answers(tmp_path, question.pair)
    assert [a.question.function for a in kept] == ["prep_wfx", "reset_gp_regs"]
    assert kept[1] == found
