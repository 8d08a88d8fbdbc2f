# SPDX-License-Identifier: Apache-2.0
"""The first screen of the page of the lemmas."""

from __future__ import annotations

from pathlib import Path

from harness.lemma.answer_page import render_answers
from harness.lemma.answers import load_answers, store_answers
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"
LOW_BODY = ("low", "body")


def test_the_first_screen_answers_by_name() -> None:
    head = "\n".join(render_answers(LEMMAS).splitlines()[:12])
    assert "| `save_shadow_kvm_regs_body_correct` | **true**, proved |" in head
    assert "| `restore_shadow_kvm_regs_body_correct` | **false** | **proved**, weakest |" in head
    assert "fault in the first page" in head


def test_the_strict_reading_and_the_changes_come_before_the_statements() -> None:
    head = render_answers(LEMMAS).partition("### How the statements are read")[0]
    assert "every* state that resets a vCPU" in head
    assert "4096 <= addr" in head
    assert "all 20 claims are proved without a hypothesis" in head


def test_a_reveal_is_marked() -> None:
    text = render_answers(LEMMAS)
    assert text.count("`revealed` (not in RData)") >= 2
    assert "`revealed` nothing" not in text


def test_statements_carry_their_hypotheses() -> None:
    text = render_answers(LEMMAS)
    assert "(Hinv: high_level_invariant d)" in text
    assert "(H1: ~ (not halt and ctxt.dirty != INVALID64 and 0 < core[0] < 4096))" in text


def test_an_open_reason_is_printed_whole(tmp_path: Path) -> None:
    rows = load_answers(LEMMAS, LOW_BODY)
    reason = "dirty registers other than x0 and x30 alone, and the mapping: by fuzzing only"
    odd = [type(a)(a.question, a.causes, (), (reason,), a.paths, a.checks) for a in rows]
    store_answers(tmp_path, LOW_BODY, odd)
    assert reason in render_answers(tmp_path)


def test_nothing_stored(tmp_path: Path) -> None:
    assert "Not stored yet" in render_answers(tmp_path)
