# SPDX-License-Identifier: Apache-2.0
"""Minimisation of scenarios that run away, and of alarms."""

from __future__ import annotations

import pytest

from fuzz.targets.target_set import TargetSet
from fuzz.triage.minimise import minimise_on
from harness.errors import InputError
from harness.findings.checked import signature
from harness.findings.finding import Subject
from harness.scenario.scenario import Scenario, Step
from tests.support.complaining import LARGE, WARNING, Complaining
from tests.support.fake_worker import DIVERGENCE, SUBJECT, FakeExecutor, checked

KEY = signature(DIVERGENCE)


def targets_of(fake: FakeExecutor, subject: Subject = SUBJECT) -> TargetSet[FakeExecutor]:
    fake.subject = subject
    return TargetSet([fake])


def test_a_runaway_scenario_is_minimised_to_a_runaway(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario exits without end; a scenario that ends is not accepted as a simpler one."""
    large = Scenario("Large.", (), (Step("hvc", (3,)), Step("wfi")))
    for status, steps in (("runaway", 0), ("ok", 2)):
        fake = FakeExecutor([checked(DIVERGENCE, status=status)] * 3 + [checked(DIVERGENCE, status="runaway")] * 100)
        with targets_of(fake) as it:
            assert len(minimise_on(it, large, KEY).scenario.steps) == steps


def test_an_alarm_that_occurs_once_per_boot_is_minimised() -> None:
    target = Complaining()
    with TargetSet([target]) as it:
        least = minimise_on(it, LARGE, WARNING.signature)
    assert [step.kind for step in least.scenario.steps] == ["smc"] and least.confirmed
    assert least.scenario.about == "The least that shows warn.handle_smc."


def test_a_scenario_without_the_alarm_is_not_minimised() -> None:
    with TargetSet([Complaining()]) as it, pytest.raises(InputError, match=r"not show .* in every run"):
        minimise_on(it, LARGE, ("warn", "another"))
