# SPDX-License-Identifier: Apache-2.0
"""The repaired statements: proved outside their hypotheses, and any changed bound changes the verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.lemma.causes_kernel import causes_of
from harness.lemma.changes import Edit, changed_code
from harness.lemma.compare_levels import Question
from harness.lemma.repair import AGREES, EXACT, OPEN, Repair, Scope, repair
from harness.lemma.symbolic_starts import Start

ONE = Scope((Start(),))
ABORT = Question(("low", "body"), "prep_abort")
RESTORE = Question(("low", "body"), "restore_shadow_kvm_regs")


def holds(found: Repair) -> bool:
    return found.proved and all(region.verdict == EXACT for region in found.regions)


def test_a_statement_without_causes_is_proved() -> None:
    found = repair(Question(("low", "body"), "prep_hvc"), ())
    assert (found.proved, found.regions) == (True, [])
    assert found.paths > 20


def test_without_its_hypothesis_the_statement_is_refuted() -> None:
    found = repair(ABORT, (), ONE, measure=False)
    assert not found.proved
    assert {goal.partition(" at ")[0] for goal in found.outside} == {"ctxt.dirty", "data_log"}


@pytest.mark.parametrize("question", (ABORT, Question(("spec", "low"), "prep_abort")))
def test_the_hypotheses_are_enough_and_the_weakest(question: Question) -> None:
    assert holds(repair(question, causes_of(question), ONE))


@pytest.mark.parametrize(
    ("old", "new"),
    (("0x400000", "0x400001"), ("0x400000", "0x3FFFFF"), ("& 31 == 31", "& 15 == 15"), ("& 192", "& 64")),
)
def test_a_changed_bound_of_a_hypothesis_changes_the_verdict(old: str, new: str) -> None:
    causes = [replace(c, region=c.region.replace(old, new)) for c in causes_of(ABORT)]
    assert not holds(repair(ABORT, causes, ONE))


@pytest.mark.parametrize(
    ("function", "old", "new"),
    (
        ("prep_abort", "& 31", "& 15"),
        ("prep_abort", "< MAX_MMIO_ADDR", "< MAX_MMIO_ADDR // 2"),
        ("restore_shadow_kvm_regs", "addr >= 4096", "addr >= 8192"),
        ("restore_shadow_kvm_regs", "addr >= 4096", "addr >= 2048"),
        ("restore_shadow_kvm_regs", "inc_exe == 0", "inc_exe <= 1"),
    ),
)
def test_a_changed_bound_of_the_code_changes_the_verdict(function: str, old: str, new: str) -> None:
    # the issue's own trials: a mask of 31 that becomes 15, a bound of 4096 that becomes 8192
    question = Question(("low", "body"), function, logs=False)
    code = changed_code((Edit("body", function, old, new, ""),))
    # the region of the first page, for the rest of the function is equal and takes long
    causes = causes_of(question)
    assert not holds(repair(question, causes, Scope((Start(),), code)))


def test_a_region_that_is_too_large_shows_a_state_that_agrees() -> None:
    wider = [replace(c, region="not halt") for c in causes_of(ABORT)[:1]]
    (region,) = repair(ABORT, wider, ONE).regions
    assert region.verdict == AGREES


def test_a_region_is_not_called_exact_where_no_start_looked() -> None:
    # several marked registers have equal values on the host: the sides agree, and no start has two of them
    question = Question(("spec", "kernel"), "sync_dirty_to_shadow")
    several = [c for c in causes_of(question) if c.name == "several registers"]
    (region,) = repair(question, several, Scope((Start(dirty_bit=0),))).regions
    assert (region.verdict, dict(region.state).get("ctxt.dirty", 0).bit_count() >= 2) == (AGREES, True)
    nowhere = [replace(several[0], region="not halt and ctxt.dirty == 3 and host.x0 == 1 and host.x1 == 2")]
    (region,) = repair(question, nowhere, Scope((Start(dirty_bit=0),))).regions
    assert (region.verdict, region.reason) == (OPEN, "no symbolic start has a state in it")


def test_what_no_start_covers_is_open() -> None:
    found = repair(Question(("body", "kernel"), "sync_dirty_to_shadow"), (), Scope(()))
    assert found.open == ["two or more of x0..x30 marked at once; no start"]
    assert repair(Question(("body", "kernel"), "sync_dirty_to_shadow"), (), Scope((Start(dirty_bit=0),))).proved
    excluded = causes_of(Question(("spec", "kernel"), "sync_dirty_to_shadow"))
    assert repair(Question(("spec", "kernel"), "sync_dirty_to_shadow"), excluded, Scope(()), measure=False).open == []


def test_what_a_mapping_does_is_not_said_to_differ() -> None:
    question = Question(("spec", "kernel"), "post_handle_shadow_s2pt_fault")
    found = repair(question, causes_of(question), ONE)
    assert found.proved
    assert EXACT not in {r.verdict for r in found.regions}
