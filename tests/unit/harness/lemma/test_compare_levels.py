# SPDX-License-Identifier: Apache-2.0
"""Comparing two levels of the model: what counts as a difference, and what claims nothing."""

from __future__ import annotations

import random

from harness.lemma.compare_levels import (
    EQUAL,
    PAIRS,
    VACUOUS,
    Difference,
    Question,
    compare_on_case,
    field_class,
    fork,
    questions,
)
from harness.lemma.generate import random_case
from harness.model import FUNCTIONS

LOW_BODY = ("low", "body")


def test_questions_cover_every_pair_and_function() -> None:
    assert len(PAIRS) == 12
    assert len(questions(PAIRS)) == 12 * len(FUNCTIONS)
    assert [q.layer for q in questions((LOW_BODY,), "VCPUOps")] == ["VCPUOps"] * 2
    assert questions((LOW_BODY,), "VCPUOps", "prep_wfx") == ()


def test_left_undefined_claims_nothing() -> None:
    assert compare_on_case(Question(LOW_BODY, "prep_wfx"), {"vmid": 17})[0] == VACUOUS


def test_right_undefined_is_a_counterexample() -> None:
    difference = compare_on_case(
        Question(("spec", "low"), "restore_shadow_kvm_regs"), {"ctxt.dirty": 1 << 32, "ctxt.pc": 1 << 48}
    )[0]
    assert isinstance(difference, Difference)
    assert (difference.fields, difference.undefined) == ((), "is_addr pc")


def test_logs_are_a_switch() -> None:
    case = {"ctxt.dirty": (1 << 64) - 1}
    difference = compare_on_case(Question(LOW_BODY, "restore_shadow_kvm_regs"), case)[0]
    assert isinstance(difference, Difference)
    assert difference.fields == ("log.info",)
    assert compare_on_case(Question(LOW_BODY, "restore_shadow_kvm_regs", logs=False), case)[0] == EQUAL


def test_oracle_positions_and_revealed_count() -> None:
    difference = compare_on_case(Question(("spec", "low"), "prep_abort"), {"data.0": 64})[0]
    assert isinstance(difference, Difference)
    assert set(difference.fields) == {"data_log", "revealed"}


def test_a_level_agrees_with_itself() -> None:
    rng = random.Random(3)
    for question in questions(tuple((level, level) for level in ("spec", "low", "body", "kernel"))):
        for _ in range(60):
            verdict = compare_on_case(question, random_case(rng, question.function))[0]
            assert verdict in (EQUAL, VACUOUS)


def test_fork() -> None:
    left, right = (("a", True), ("b", True), ("b", False)), (("b", True), ("c", True), ("b", True))
    assert fork(left, right) == "b"
    assert fork(left, left) == ""


def test_field_classes() -> None:
    assert field_class("ctxt.x7") == field_class("ctxt.x30") == "ctxt.x"
    assert field_class("ctxt.sctlr_el1") == "ctxt.el1"
    assert (field_class("ctxt.pc"), field_class("data_log")) == ("ctxt.pc", "data_log")
    assert field_class("ctxt[16].pc") == "other context"
