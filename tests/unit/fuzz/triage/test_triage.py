# SPDX-License-Identifier: Apache-2.0
"""Triage: the stored result of a finding, and findings that stay unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import story_of
from fuzz.targets.target_set import TargetSet
from fuzz.triage.triage import TriagePlan, triage
from harness.findings.checked import signature
from harness.findings.finding import Finding, Subject, Tries, finding_id
from harness.scenario.scenario import Scenario, Step, format_scenario
from tests.support.complaining import LARGE, WARNING, Complaining
from tests.support.fake_worker import DIVERGENCE, SCENARIO, SUBJECT, FakeExecutor, checked

KEY = signature(DIVERGENCE)


def targets_of(fake: FakeExecutor, subject: Subject = SUBJECT) -> TargetSet[FakeExecutor]:
    fake.subject = subject
    return TargetSet([fake])


def test_triage_keeps_the_simplest_with_its_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu = "cortex-a72"
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu=cpu))
    database = Database(default_url(tmp_path))
    store = Store(database, FINDINGS)
    large = Scenario("Large.", (("x0", 1),), (Step("hvc", (3,)), Step("wfi"), Step("reset")))
    for subject in (SUBJECT, replace(SUBJECT, target="another")):
        tries = Tries(1, 1)
        store.add(Finding("divergence", KEY, subject, (), 0, tries, tries, "2026"), large)
    fake = FakeExecutor([checked(DIVERGENCE)] * 1000)
    said: list[str] = []
    with targets_of(fake) as it:
        assert triage(database, it, TriagePlan(7), said.append) == 1
        assert triage(database, it, TriagePlan(7), said.append) == 0, "done before"
    assert said[0].startswith("1 of 1: ") and "3 steps -> 0" in said[0]
    assert said[1].startswith("1 finding in ")
    assert said[-1] == f"nothing to do on {SUBJECT.target}; there are findings of another"
    entry = store.entry(finding_id("divergence", KEY, SUBJECT))
    assert (
        entry.count == 1
        and entry.scenario == "shadowfuzz-scenario 1\nabout The least that shows restore.xN/HVC64/prep_hvc.\n"
    )
    assert (entry.finding.same_vm, entry.finding.fresh_vm) == (Tries(7, 7), Tries(7, 7))
    assert story_of(store, entry.finding.id).kept.fresh_qemu == Tries(1, 1)


def test_triage_begins_with_new_findings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    subject = replace(SUBJECT, target="kvm-nvhe")
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    kept, new = ("host", "spsr_el1", "RESET", ""), [("host", f"new{i}", "RESET", "") for i in range(8)]
    for key in (kept, *new):
        store.add(Finding("divergence", key, subject, (), 0, Tries(1, 1), Tries(1, 1), "2026"), SCENARIO)
    said: list[str] = []
    with targets_of(FakeExecutor([]), subject) as it:
        assert triage(Database(default_url(tmp_path)), it, TriagePlan(5), said.append) == 9
    assert [finding_id("divergence", kept, subject) in line for line in said[:9]] == [False] * 8 + [True]
    assert [line.split(":")[0] for line in said[:9]] == [f"{i} of 9" for i in range(1, 10)]


def test_findings_with_one_minimal_scenario_are_one_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    both = (DIVERGENCE, DIVERGENCE._replace(register="x4", event=DIVERGENCE.event + 1, exit_class="WFX"))
    for i, divergence in enumerate(both):
        steps = (Step("hvc", (i,)), Step("wfi"), *[Step("reset")] * (1 + 5 * i))
        found = Finding("divergence", signature(divergence), SUBJECT, (), 0, Tries(1, 1), Tries(1, 1), "2026")
        store.add(found, Scenario("Large.", (), steps), leader=found.id)
    fake = FakeExecutor([checked(*both)] * 1000)
    said: list[str] = []
    with targets_of(fake) as it:
        assert triage(Database(default_url(tmp_path)), it, TriagePlan(3), said.append) == 2
    assert "2 problems before, 1 problem now" in said[-1]
    assert "3 steps -> 0" in said[0] and "8 steps -> 0, 1 tries" in said[1], "it begins with the result of the first"


def test_a_finding_that_is_not_reproduced_stays_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    finding = Finding("divergence", KEY, SUBJECT, (), 0, Tries(1, 1), Tries(1, 1), "2026")
    store.add(finding, SCENARIO)
    said: list[str] = []
    with targets_of(FakeExecutor([])) as it:
        triage(Database(default_url(tmp_path)), it, TriagePlan(7), said.append)
    assert "was not reproduced" in said[0] and store.load(finding.id) == finding


def alarm_of(*steps: Step) -> tuple[Finding, Scenario]:
    never = Tries(0, 0)
    finding = Finding("alarm", WARNING.signature, SUBJECT, (), 0, never, never, "2026", WARNING.sentence)
    return finding, replace(LARGE, steps=(*steps, *LARGE.steps))


def test_triage_minimises_an_alarm_and_measures_its_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    database = Database(default_url(tmp_path))
    store = Store(database, FINDINGS)
    finding, scenario = alarm_of()
    store.add(finding, scenario, {"console.txt": "as it was", "fresh_qemu": "2 3"})
    said: list[str] = []
    with TargetSet([Complaining()]) as it:
        assert triage(database, it, TriagePlan(7), said.append) == 1
        assert triage(database, it, TriagePlan(7), said.append) == 0, "done before"
    assert "4 steps -> 1" in said[0]
    entry, texts = store.entry(finding.id), store.texts(finding.id)
    assert entry.scenario is not None and entry.scenario.endswith("smc 0x0\n")
    assert (texts["console.txt"], texts["fresh_qemu"]) == (WARNING.splat, "3 3")


def test_triage_reports_an_alarm_that_needs_earlier_scenarios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    database = Database(default_url(tmp_path))
    finding, scenario = alarm_of()
    Store(database, FINDINGS).add(finding, scenario, {"earlier-01.scn": format_scenario(scenario)})
    said: list[str] = []
    target = Complaining()
    with TargetSet([target]) as it:
        triage(database, it, TriagePlan(7), said.append)
    assert "needs scenarios that ran before it" in said[0] and target.boots == 0
