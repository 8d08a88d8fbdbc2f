# SPDX-License-Identifier: Apache-2.0
"""Comparison of two releases: a campaign, and a difference that no row explains, from the run to the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, OTHER_TRACE, TRACE, Store
from fuzz.store.kept_findings import find_finding
from fuzz.targets.observation import signatures, texts_of
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from fuzz.triage.confirm import stages_of
from fuzz.triage.report_page import book_of
from fuzz.triage.triage import TriagePlan, triage
from harness.findings.finding import Finding, Tries, signature_text
from harness.findings.intended_changes import load_changes
from harness.report.html_report import page
from harness.scenario.scenario import load
from harness.vm.config import PROJECT

ONE, OTHER = "kvm-nvhe", "kvm-6.12-nvhe"
SCENARIO = PROJECT / "corpus" / "regressions" / "fetch_outside_slots.scn"
SIGNATURE = "against.entry.esr_el1/IABT_LOW"


def test_a_campaign_on_two_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fuzz", "--target", ONE, "--against", OTHER, "--seconds", "5", "--jobs", "1", "--seed", "1", "--json"]
    assert main([*command, "--out", str(tmp_path)]) == 1  # divergences of each of them from the model
    summary = json.loads(capsys.readouterr().out)
    assert summary["against"][0] == OTHER and summary["lost_vms"] == summary["internal_errors"] == 0
    assert summary["relations"]["against"] > 100 and summary["relations"]["save"] > 100
    assert summary["known_by_entry"]["csselr-in-memory"]
    shown = {word for finding in summary["findings"] for word in finding["replay"].split()}
    assert {ONE, OTHER} <= shown  # each finding is replayed on its target


def test_what_no_row_explains_is_a_finding_of_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = PROJECT / "corpus" / "known"
    rows = tuple(row for row in load_changes(known) if row.id != "injected-esr-not-sign-extended")
    monkeypatch.setattr("fuzz.targets.target_set.load_changes", lambda _: rows)
    scenario = load(SCENARIO)
    with open_targets(TargetOptions(ONE, "spec", against=OTHER), print) as targets:
        seen = targets.run_and_check(scenario)
        names = {signature_text(key): key for key in signatures(seen.checked)}
        key = names[SIGNATURE]
        assert set(texts_of(seen)) == {TRACE, OTHER_TRACE}
        (repeat, _, _) = stages_of(targets, scenario, (key,), 2, 0)[key]
        assert repeat.tries == Tries(2, 2)
        never = Tries(0, 0)
        finding = Finding("divergence", key, targets.subject, (), 1, never, never, "2026-01-01", other=targets.other)
        database = Database(default_url(tmp_path))
        Store(database, FINDINGS).add(finding, scenario, texts_of(seen))
        assert triage(database, targets, TriagePlan(2), print) == 1
    monkeypatch.setattr("fuzz.store.kept_findings.load_changes", lambda _: rows)
    story = find_finding(database, finding.id)
    assert (story.verdict.name, story.kept.finding.fresh_vm) == ("unexplained", Tries(2, 2))
    assert story.kept.scenario is not None and len(story.kept.scenario.steps) <= len(scenario.steps)
    assert story.title.endswith(f"0xffffffff86000010 on {ONE}, 0x86000010 on {OTHER}")
    text = page(book_of(database))
    assert f"{ONE} against {OTHER}" in text and f"Trace, step by step on {OTHER}" in text
