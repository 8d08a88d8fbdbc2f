# SPDX-License-Identifier: Apache-2.0
"""The proposed changes: made in the model's text, they make the claims true."""

from __future__ import annotations

import pytest

from harness.lemma.changes import CHANGED_PAIRS, EDITS, Edit, changed_code, load_changed, prove_changed
from harness.lemma.compare_levels import Question
from harness.lemma.repair import Scope
from harness.lemma.symbolic_starts import Start
from harness.model import FUNCTIONS
from tests.support.paths import CORPUS

SYNC = "sync_dirty_to_shadow"
SMALL = ("prep_abort", "reset_sys_regs", "reset_gp_regs", "update_exception_gp_regs", "post_handle_shadow_s2pt_fault")


@pytest.mark.parametrize("pair", CHANGED_PAIRS)
@pytest.mark.parametrize("function", SMALL)
def test_with_the_changes_the_helper_s_claim_is_true(pair: tuple[str, str], function: str) -> None:
    starts = (Start(), Start(0, 0, 0), Start(halt=True))
    assert prove_changed(Question(pair, function), Scope(starts, changed_code())).proved


@pytest.mark.parametrize("pair", CHANGED_PAIRS)
def test_with_the_changes_any_number_of_registers_is_taken(pair: tuple[str, str]) -> None:
    assert prove_changed(Question(pair, SYNC), Scope((Start(dirty_bit=0),), changed_code())).proved


def test_each_change_is_needed() -> None:
    # without one of them, one of the claims of its function, or of restore that calls it, is false again
    code = changed_code([e for e in EDITS if e.text != "1UL << Rd"])
    assert not prove_changed(Question(("low", "body"), "prep_abort"), Scope((Start(),), code)).proved


def test_an_edit_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs 0 times"):
        changed_code((Edit("low", "prep_wfx", "no such text", "", ""),))


def test_what_is_stored() -> None:
    rows = load_changed(CORPUS / "lemmas")
    assert [(r["pair"], r["function"]) for r in rows] == [
        (":".join(p), f.name) for p in CHANGED_PAIRS for f in FUNCTIONS
    ]
    assert all(r["proved"] for r in rows)
    assert all(r["starts"] >= 4 and not r["outside"] for r in rows)
