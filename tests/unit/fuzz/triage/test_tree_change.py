# SPDX-License-Identifier: Apache-2.0
"""Differences between a kernel and its base on fake machines: they must occur twice; losses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.targets.target_set import TargetSet
from fuzz.triage.tree_change import KernelChange, ScenarioChange, SignatureGroup, compare_scenario, summarise
from harness.errors import VmLost
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import signature_text
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.alarms import Alarm
from tests.support.fake_worker import DIVERGENCE, OTHER, SCENARIO, SUBJECT, Answer, FakeExecutor, checked

BASE = replace(SUBJECT, target="base")
ONE, TWO = (signature_text(signature(d)) for d in (DIVERGENCE, OTHER))
PANIC = "[ 1.0] nVHE hyp panic at: [<ffff800080dcf168>] f+0x30/0x30!\n"


def shown(kernel: FakeExecutor, base: FakeExecutor, *compared: CheckResult) -> ScenarioChange:
    answers = list(compared)

    def compare(_scenario: Scenario, _one: Trace, _other: Trace) -> CheckResult:
        return answers.pop(0) if answers else checked()

    with TargetSet([kernel, replace(base, subject=BASE)], compare) as targets:
        return compare_scenario(targets, "s", SCENARIO)


def machine(*answers: Answer, fallen: FakeExecutor | None = None) -> FakeExecutor:
    return FakeExecutor(list(answers), fallen=fallen)


def test_problems_of_one_kernel_only() -> None:
    assert shown(machine(), machine()) == ScenarioChange("s")
    bad = checked(DIVERGENCE)
    assert shown(machine(bad, bad), machine()).new == {ONE}
    assert shown(machine(), machine(bad, bad)).fixed == {ONE}
    both = shown(machine(bad), machine(bad))
    assert (both.differs, both.same) == (False, {ONE})


def test_a_difference_that_is_not_reproduced_is_ignored() -> None:
    kernel = machine(checked(DIVERGENCE), checked())
    assert not shown(kernel, machine()).differs
    assert kernel.fresh == [True, True]
    assert not shown(machine(), machine(), checked(OTHER), checked()).differs
    assert shown(machine(), machine(), checked(OTHER), checked(OTHER)).changed == {TWO}


def test_a_third_run_decides_where_two_differ_in_something_else() -> None:
    """An interrupt gave the problem another signature once, which left only what the traces differ in."""
    one, other, traces = checked(DIVERGENCE), checked(OTHER), [checked(OTHER)] * 3
    kernel = machine(one, other, one)
    assert shown(kernel, machine(), *traces) == ScenarioChange("s", new=frozenset({ONE}), changed=frozenset({TWO}))
    assert kernel.fresh == [True] * 3
    kernel = machine(one, one)
    assert shown(kernel, machine(), *traces).new == {ONE} and kernel.fresh == [True] * 2


def test_an_early_end_and_an_alarm_are_problems() -> None:
    stuck = checked(status="stuck")
    assert shown(machine(stuck, stuck), machine()).new == {"ends: stuck"}
    kernel = machine()
    kernel.complaints = [(Alarm("warn", "f", "WARNING: a.c:1", ""),)] * 2
    assert shown(kernel, machine()).new == {"warn.f"}


def test_a_runaway_is_run_again_at_once() -> None:
    assert not shown(machine(checked(status="runaway"), checked()), machine()).differs
    always = [checked(status="runaway")] * 8
    assert shown(machine(*always), machine()).new == {"ends: runaway"}


def test_a_machine_that_is_lost() -> None:
    lost = [VmLost("fake", "the kernel panicked", PANIC)]
    kernel = machine(*lost, *lost, fallen=machine(*lost, *lost))
    found = shown(kernel, machine(fallen=machine()))
    assert found.new == {"el2-panic/exception class 0x0"} or {text.partition("/")[0] for text in found.new} == {
        "el2-panic"
    }
    kept = shown(machine(*lost, fallen=machine(*lost)), machine(fallen=machine(*lost)))
    assert (kept.differs, len(kept.same)) == (False, 1), "the base is lost in the same way"
    with pytest.raises(VmLost):
        shown(machine(*lost, fallen=machine(*lost)), machine(fallen=machine(VmLost("fake", "QEMU ended"))))


def test_the_sum() -> None:
    found = summarise(
        [
            ScenarioChange("a", new=frozenset({"x"}), changed=frozenset({"c"})),
            ScenarioChange("b", new=frozenset({"x", "y"}), fixed=frozenset({"hidden"})),
            ScenarioChange("c", fixed=frozenset({"z"}), intended=frozenset({"i"})),
            ScenarioChange("d", changed=frozenset({"c"}), intended=frozenset({"i"})),
            ScenarioChange("e", same=frozenset({"s"})),
        ]
    )
    assert found.new == (SignatureGroup("x", ("a", "b")), SignatureGroup("y", ("b",)))
    assert found.fixed == (SignatureGroup("z", ("c",)),)
    assert found.changed == (SignatureGroup("c", ("d",)),), "not if a problem explains it"
    assert (found.same, found.intended) == ((SignatureGroup("s", ("e",)),), {"i": 2})
    assert found.text == "2 new problems, 1 fixed, 1 other change"
    assert summarise([ScenarioChange("a", same=frozenset({"s"}))]).text == "no change"
    assert KernelChange((), (SignatureGroup("z", ("c",)),), (), (), {}).text == "1 fixed"
