# SPDX-License-Identifier: Apache-2.0
"""The parts of a SARIF log that code scanning reads: descriptions, help, a line, a stable fingerprint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fuzz.store.kept_findings import stories
from harness.report.finding_data import Story
from harness.report.sarif import FINGERPRINT, fingerprint, sarif
from harness.scenario.scenario import format_scenario, format_step
from tests.support.kept import filled


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, ...]:
    return stories(filled(tmp_path_factory.mktemp("campaign")))


def test_rules_are_described(told: tuple[Story, ...]) -> None:
    log: Any = sarif(told, "1")
    (run,) = log["runs"]
    for rule in run["tool"]["driver"]["rules"]:
        assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"]
        assert "shadowfuzz replay" in rule["help"]["text"] or "crash" in rule["help"]["text"]
        assert "<script" not in rule["help"]["markdown"]


def test_a_result_is_at_the_line_of_its_step(told: tuple[Story, ...]) -> None:
    log: Any = sarif(told, "1")
    for story, result in zip(told, log["runs"][0]["results"], strict=True):
        (location,) = result["locations"]
        line = location["physicalLocation"]["region"]["startLine"]
        scenario, differences = story.kept.scenario, story.kept.finding.divergences
        if scenario is None or not differences or differences[0].step >= len(scenario.steps):
            assert line == 1
        else:
            shown = format_scenario(scenario).splitlines()[line - 1]
            assert shown == format_step(scenario.steps[differences[0].step])
        assert location["physicalLocation"]["artifactLocation"]["uri"].split("/")[1] == story.id


def test_a_fingerprint_stays_with_another_build_of_the_kernel(told: tuple[Story, ...]) -> None:
    prints = {fingerprint(story.kept.finding) for story in told if story.kept.confirmed}
    assert len(prints) == len([story for story in told if story.kept.confirmed])
    one = told[0].kept.finding
    rebuilt = replace(one, subject=replace(one.subject, kernel_sha256="cd" * 32, kernel_release="6.1.0-99"))
    assert rebuilt.id != one.id and fingerprint(rebuilt) == fingerprint(one)
    elsewhere = replace(one, subject=replace(one.subject, target="kvm-vhe"))
    assert fingerprint(elsewhere) != fingerprint(one)
    log: Any = sarif(told, "1")
    assert log["runs"][0]["results"][0]["partialFingerprints"][FINGERPRINT] == fingerprint(one)


def test_rows_that_cannot_be_read_are_notifications() -> None:
    log: Any = sarif((), "1", ("findings x: no JSON\x1b",))
    (invocation,) = log["runs"][0]["invocations"]
    assert [note["message"]["text"] for note in invocation["toolExecutionNotifications"]] == [
        "findings x: no JSON\\x1b"
    ]
