# SPDX-License-Identifier: Apache-2.0
"""What scenarios reached of KVM, from made-up edges: functions, handlers, decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.coverage.kvm_code import Covered, decision_text, decisions, functions, handlers, matrix
from harness.coverage.kvm_handlers import NOT_SAID, handler_of
from harness.vm.kernels.kvm_functions import EL1, EL2, Function, KvmText

HVC, SMC, WATCH = 0x1000, 0x1040, 0x1080
TEXT = KvmText(
    (
        Function("handle_hvc", EL1, HVC, SMC),
        Function("handle_smc", EL1, SMC, WATCH),
        Function("kvm_handle_guest_debug", EL1, WATCH, 0x10C0),
        Function("kvm_hyp_handle_sysreg", EL1, 0x10C0, 0x1100),
        Function("__kvm_nvhe_kvm_hyp_handle_sysreg", EL2, 0x2000, 0x2040),
    )
)
SIZES = {HVC: 8, HVC + 4: 8, HVC + 0x38: 16, SMC: 4}
ONE = Covered("one", frozenset({(0, HVC), (HVC, HVC + 4)}), frozenset({("hvc", True)}), frozenset({1}))
TWO = Covered(
    "two", frozenset({(0, HVC), (HVC, HVC + 0x38), (0, SMC + 4)}), frozenset({("hvc", False)}), frozenset({2})
)


def test_instructions_are_counted_once_and_in_their_function() -> None:
    rows = {row.function.name: row for row in functions(TEXT, (ONE, TWO), SIZES)}
    hvc = rows["handle_hvc"]
    # HVC and HVC+4 overlap by an instruction; what HVC+0x38 has after the function's end is not counted.
    assert (hvc.blocks, hvc.instructions, hvc.of, hvc.scenarios) == (3, 5, 16, 2)
    assert (rows["handle_smc"].blocks, rows["handle_smc"].instructions, rows["handle_smc"].scenarios) == (1, 1, 1)
    assert rows["kvm_handle_guest_debug"].blocks == 0


def test_a_handler_is_entered_at_its_first_instruction() -> None:
    rows = {row.function: row for row in handlers(TEXT, (ONE, TWO), vhe=False)}
    assert rows["handle_hvc"].scenarios == 2
    assert rows["handle_hvc"].why is None
    smc = rows["handle_smc"]  # executed in the middle only
    assert smc.scenarios == 0
    assert smc.why is not None
    assert smc.why.todo
    assert smc.why.why == NOT_SAID
    debug = rows["kvm_handle_guest_debug"].why
    assert debug is not None
    assert debug.todo
    assert debug.why == NOT_SAID


def test_a_handler_that_only_forged_exits_enter_keeps_its_reason() -> None:
    forging = replace(ONE, edges=frozenset({(0, WATCH), (0, HVC)}), forged=True)
    rows = {row.function: row for row in handlers(TEXT, (forging, ONE), vhe=False)}
    debug, hvc = rows["kvm_handle_guest_debug"], rows["handle_hvc"]
    assert (debug.scenarios, debug.forged, debug.why is None) == (1, 1, False)
    assert (hvc.scenarios, hvc.forged, hvc.why) == (2, 1, None)


@pytest.mark.parametrize(
    ("vhe", "name"), [(False, "__kvm_nvhe_kvm_hyp_handle_sysreg"), (True, "kvm_hyp_handle_sysreg")]
)
def test_of_two_copies_only_the_one_that_runs_is_asked_for(vhe: bool, name: str) -> None:
    names = {row.function for row in handlers(TEXT, (), vhe=vhe)}
    assert {each for each in names if "hyp" in each} == {name}


def test_decisions_never_taken_have_a_reason() -> None:
    rows = decisions({("prep_hvc.halt", True), ("hvc", True), ("new", False)}, (ONE, TWO))
    found = {decision_text(row.decision): row for row in rows}
    assert found["hvc=yes"].scenarios == found["hvc=no"].scenarios == 1
    halted, new = found["prep_hvc.halt=yes"].why, found["new=no"].why
    assert halted is not None
    assert not halted.todo
    assert new is not None
    assert new.todo


def test_the_matrix_counts_scenarios() -> None:
    assert matrix(TEXT, (ONE, TWO)) == {
        HVC: {("hvc", True): 1, ("hvc", False): 1},
        SMC: {("hvc", False): 1},
    }


@pytest.mark.parametrize(
    ("exit_class", "function"),
    [
        ("DABT_LOW", "kvm_handle_guest_abort"),
        ("forged:HVC64", "handle_hvc"),
        ("WFX", "kvm_handle_wfx"),
        ("RESET", "kvm_reset_vcpu"),
        ("IRQ", ""),
    ],
)
def test_which_function_of_kvm_handles_an_exit(exit_class: str, function: str) -> None:
    handled = handler_of(exit_class)
    assert ("" if handled is None else handled.function) == function
