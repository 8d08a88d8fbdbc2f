# SPDX-License-Identifier: Apache-2.0
"""The symbolic run: it proves what is equal, and finds by itself what is not."""

from __future__ import annotations

import pytest

from harness.lemma.clusters import load
from harness.lemma.compare_levels import Question
from harness.lemma.prove import prove
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"


def clusters(question: Question) -> tuple[object, ...]:
    path = LEMMAS / f"{question.pair[0]}-{question.pair[1]}.json"
    return tuple(c for c in load(path) if c.question == question)


@pytest.mark.parametrize("function", ("prep_wfx", "prep_hvc", "update_exception_gp_regs", "reset_gp_regs"))
def test_proved_helpers(function: str) -> None:
    # those whose code lemma the proof has; post_handle_shadow_s2pt_fault is one of them too
    proof = prove(Question(("low", "body"), function), ())
    assert (proof.new, proof.open) == ({}, [])
    assert proof.verdict().startswith("proved equal")


def test_an_unknown_counterexample_is_found() -> None:
    question = Question(("low", "body"), "sync_dirty_to_shadow")
    proof = prove(question, ())
    assert {c.key for c in proof.new.values()} <= {c.key for c in clusters(question)}  # type: ignore[attr-defined]
    assert proof.new
    assert proof.verdict().startswith("refuted by")


@pytest.mark.parametrize("pair", (("low", "body"), ("spec", "low")))
@pytest.mark.parametrize("function", ("sync_dirty_to_shadow", "update_exception_gp_regs", "reset_gp_regs"))
def test_nothing_outside_the_stored_clusters(pair: tuple[str, str], function: str) -> None:
    question = Question(pair, function)
    proof = prove(question, clusters(question))  # type: ignore[arg-type]
    assert (list(proof.new), proof.open) == ([], [])


def test_a_gap_is_named() -> None:
    proof = prove(Question(("spec", "kernel"), "post_handle_shadow_s2pt_fault"), ())
    assert proof.open
    assert "open:" in proof.verdict()
