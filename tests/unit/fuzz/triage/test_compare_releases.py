# SPDX-License-Identifier: Apache-2.0
"""Scenarios on two targets: a difference of any run is listed once, with its number of runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fuzz.triage.compare_releases import compare_all
from harness.findings.checked import CheckResult
from harness.scenario.scenario import Scenario
from tests.support.fake_worker import DIVERGENCE, SCENARIO, checked

OTHER = DIVERGENCE._replace(register="x4")
LATER = DIVERGENCE._replace(event=9)
"""The same difference, after one more interrupt."""


def test_a_difference_of_any_run_counts_once() -> None:
    answers = [checked(DIVERGENCE), checked(), checked(LATER, OTHER)]
    asked: list[Scenario] = []

    def compare_traces(scenario: Scenario) -> CheckResult:
        asked.append(scenario)
        return answers[len(asked) - 1]

    targets: Any = SimpleNamespace(compare_traces=compare_traces)
    (compared,) = compare_all(targets, [("a.scn", SCENARIO)], repeat=3)
    assert (compared.name, asked) == ("a.scn", [SCENARIO] * 3)
    assert [judged.divergence.register for judged in compared.judged] == ["x3", "x4"]
    assert [compared.seen(judged) for judged in compared.judged] == [2, 1]
