# SPDX-License-Identifier: Apache-2.0
"""The register loop, round by round: proved for any number of marked registers, and refuted where a round differs."""

from __future__ import annotations

import pytest

from harness.lemma.changes import Edit, changed_code
from harness.lemma.compare_levels import Question
from harness.lemma.register_loop import open_rounds
from harness.lemma.symbolic_starts import Start
from harness.model import CODE

SYNC = "sync_dirty_to_shadow"
DEPLOYED = Question(("body", "kernel"), SYNC)


def test_the_code_and_the_deployed_code_agree_for_any_number_of_registers() -> None:
    why, paths = open_rounds(DEPLOYED, (), [Start()], CODE)
    assert (why, paths > 31) == ("", True)


def test_no_start_proves_nothing() -> None:
    assert open_rounds(DEPLOYED, (), [], CODE) == ("no start", 0)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    (
        ("range(31)", "range(30)", "round of x30: ctxt.x"),
        ("vcpuid, i, reg)", "vcpuid, i & 7, reg)", "round of x8: ctxt."),
        ("if d.decide(", "if i > 2 and d.decide(", "round of x0: "),
        ("get_int_gpr(d, vmid, vcpuid, i))", "get_int_gpr(d, vmid, vcpuid, i) + 1)", "round of x0: ctxt.x0"),
    ),
)
def test_a_changed_round_is_refuted(old: str, new: str, where: str) -> None:
    code = changed_code((Edit("body", SYNC, old, new, ""),))
    assert open_rounds(DEPLOYED, (), [Start()], code)[0].startswith(where)


def test_the_layered_form_does_not_keep_the_invariant() -> None:
    # each of its rounds starts again from the state of before the loop
    why, _ = open_rounds(Question(("low", "body"), SYNC), (), [Start()], CODE)
    assert why.startswith("round of x")
