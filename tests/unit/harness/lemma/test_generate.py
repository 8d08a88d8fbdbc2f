# SPDX-License-Identifier: Apache-2.0
"""Generated cases: every slot, and mostly states on which something happens."""

from __future__ import annotations

import random

import pytest

from harness.lemma.case import SLOTS
from harness.lemma.compare_levels import (
    MAIN_PAIRS,
    VACUOUS,
    Difference,
    Question,
    compare_on_case,
    questions,
)
from harness.lemma.generate import PROFILES, SHARES, SLOTS_OF, generator_rows, random_case
from harness.model import FUNCTIONS
from harness.model.constants import CTXT_FIELDS
from harness.model.state import BLANK, HOST_FIELDS


def test_every_slot_is_generated_somewhere() -> None:
    seen = {name for slots in SLOTS_OF.values() for name in slots}
    seen |= {name for profiles in PROFILES.values() for profile in profiles for name in profile}
    never = set(SLOTS) - seen
    assert {name.partition(".")[0] for name in never} <= {"host", "core", "data", "walk", "curid"}
    assert set(SLOTS_OF) == set(PROFILES) == {f.name for f in FUNCTIONS}
    assert set(BLANK) == set(CTXT_FIELDS)
    assert {"esr_el2", "sp_el0"} <= set(HOST_FIELDS)


@pytest.mark.parametrize("pair", MAIN_PAIRS)
def test_most_inputs_are_defined_on_the_left(pair: tuple[str, str]) -> None:
    rng, vacuous, total = random.Random(5), 0, 0
    for question in questions((pair,)):
        for _ in range(150):
            total += 1
            vacuous += compare_on_case(question, random_case(rng, question.function))[0] == VACUOUS
    assert vacuous / total < 0.25


@pytest.mark.parametrize("function", ("post_handle_shadow_s2pt_fault", "restore_shadow_kvm_regs"))
def test_mapping_states_are_frequent(function: str) -> None:
    """Owner by free space by conflict, each in the thousands of any run of a minute."""
    rng, total = random.Random(7), 4000
    seen: dict[str, int] = {}
    for _ in range(total):
        difference = compare_on_case(Question(("spec", "kernel"), function), random_case(rng, function))[0]
        for label in difference.branch() if isinstance(difference, Difference) else ():
            seen[label] = seen.get(label, 0) + 1
    labels: tuple[str, ...] = ("assign_pfn_to_vm.host_owns", "assign_pfn_to_vm.vm_owns", "insert.conflict")
    labels += ("not assign_pfn_to_vm.vm_owns", "not assign_pfn_to_vm.unshared", "insert.room", "not insert.room")
    assert {label: seen.get(label, 0) for label in labels if seen.get(label, 0) < total // 200} == {}


def test_rows_and_shares_cover_every_function() -> None:
    assert set(SHARES) == {f.name for f in FUNCTIONS}
    for f in FUNCTIONS:
        assert all(set(case) <= set(SLOTS) and min(case.values(), default=0) >= 0 for case in generator_rows(f.name))
    assert sum(1 for _ in generator_rows("post_handle_shadow_s2pt_fault")) > 70
