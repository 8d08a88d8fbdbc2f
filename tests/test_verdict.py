# SPDX-License-Identifier: Apache-2.0
"""Verdicts: the rate's interval, the rules, and who sides with KVM on a recorded trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import story_of
from fuzz.targets.observation import signatures
from fuzz.targets.runner import MAX_LOSSES
from fuzz.targets.target_set import TargetSet
from fuzz.triage.confirm import stages_of
from fuzz.triage.minimise import minimise_on
from fuzz.triage.triage import triage
from harness.arch.cpu_models import cpu_model
from harness.errors import VmLost
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import Finding, Subject, Tries, finding_id
from harness.findings.known_divergences import Catalogue
from harness.findings.verdict import (
    AGAINST,
    CONTENT,
    SIDES,
    SILENT,
    STAGES,
    TAKES,
    WITH,
    EmulatorResult,
    Evidence,
    LevelPosition,
    Stage,
    classify,
    evidence,
    first_of,
    verdict_lines,
    wilson,
)
from harness.scenario.scenario import Scenario, Step, load
from harness.trace.tracefile import trace_from_json
from tests.test_worker import DIVERGENCE, SCENARIO, SUBJECT, FakeExecutor, checked

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


@pytest.mark.parametrize(
    ("hits", "runs", "low", "high"),
    [
        # Wilson 1927, as tabulated by every statistics package.
        (0, 0, 0.0, 1.0),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),
        (190, 200, 0.9104, 0.9726),
    ],
)
def test_wilson(hits: int, runs: int, low: float, high: float) -> None:
    assert wilson(Tries(hits, runs)) == pytest.approx((low, high), abs=1e-4)


SURE = tuple(Stage(name, Tries(10, 10)) for name in STAGES)
LEVELS = ("spec", "low", "body", "kernel")


def stands(*each: str) -> tuple[LevelPosition, ...]:
    return tuple(LevelPosition(level, stand, "") for level, stand in zip(LEVELS, each, strict=True))


ALL_AGAINST = stands(*[AGAINST] * 4)


@pytest.mark.parametrize(
    ("verdict", "why", "found"),
    [
        (
            "flaky",
            "never came back",
            Evidence("host", (*SURE[:2], Stage("fresh_qemu", Tries(0, 3))), ALL_AGAINST, True),
        ),
        ("flaky", "less than half", Evidence("host", (Stage("repeat", Tries(1, 20)),), ALL_AGAINST, AGAINST)),
        ("unexplained", "not confirmed", Evidence("host", (), ALL_AGAINST, AGAINST)),
        ("unexplained", "not confirmed", Evidence("host", (Stage("repeat", Tries(0, 0)),), ALL_AGAINST, AGAINST)),
        ("kvm", "world switch", Evidence("switch", SURE, (), AGAINST)),
        ("kvm", "all levels", Evidence("restore", SURE, ALL_AGAINST, AGAINST)),
        ("kvm", "no level takes", Evidence("host", SURE, stands(TAKES, TAKES, TAKES, TAKES), AGAINST)),
        ("kvm", "no level takes", Evidence("host", SURE, stands(SILENT, SILENT, AGAINST, AGAINST), AGAINST)),
        ("unexplained", "agrees with KVM", Evidence("host", SURE, stands(AGAINST, AGAINST, AGAINST, WITH), AGAINST)),
        ("model", "deployed", Evidence("restore", SURE, stands(AGAINST, WITH, WITH, WITH), CONTENT)),
        ("unexplained", "does not: the model", Evidence("restore", SURE, ALL_AGAINST, CONTENT)),
        ("unexplained", "no rule of ours", Evidence("restore", SURE, ALL_AGAINST, SILENT)),
        ("unexplained", "does not side", Evidence("restore", SURE, stands(AGAINST, WITH, WITH, AGAINST), CONTENT)),
    ],
)
def test_rules(verdict: str, why: str, found: Evidence) -> None:
    result = classify(found)
    assert result.name == verdict and why in result.why
    text = verdict_lines(result, found)
    assert text[-1] == "not measured: other versions of QEMU and other -cpu models (verdict emulator)"
    assert len(text) == 3 + len(found.stages) + len(found.sides)


ALL, NONE = Tries(10, 10), Tries(0, 10)


@pytest.mark.parametrize(
    ("verdict", "why", "places"),
    [
        ("emulator", "another version of QEMU", (EmulatorResult("cortex-a57", ALL), EmulatorResult("qemu-10.0", NONE))),
        ("emulator", "another version of QEMU", (EmulatorResult("qemu-10.0", NONE, changed=10),)),
        ("emulator", "another -cpu", (EmulatorResult("cortex-a57", NONE), EmulatorResult("qemu-10.0", ALL))),
        ("kvm", "all levels", (EmulatorResult("cortex-a57", ALL), EmulatorResult("qemu-10.0", ALL))),
        # What cannot be told from chance, what did not run, and a CPU that differs by what it is, say nothing.
        ("kvm", "all levels", (EmulatorResult("qemu-10.0", Tries(0, 1)), EmulatorResult("max", Tries(6, 10)))),
        ("kvm", "all levels", (EmulatorResult("qemu-10.0", Tries(0, 0), why="lost"),)),
        ("kvm", "all levels", (EmulatorResult("cortex-a53", NONE, unlike="40 address bits, not 44"),)),
    ],
)
def test_the_verdict_emulator_is_measured(verdict: str, why: str, places: tuple[EmulatorResult, ...]) -> None:
    found = Evidence("restore", SURE, ALL_AGAINST, AGAINST, places)
    result = classify(found)
    assert result.name == verdict and why in result.why
    lines = verdict_lines(result, found)
    assert all(any(line.startswith(f"on {place.name} ") for line in lines) for place in places)
    measured = {place.is_qemu for place in places if place.same.runs}
    assert any("other versions of QEMU" in line for line in lines) == (True not in measured)
    assert any("other -cpu models" in line for line in lines) == (False not in measured)


def test_a_flaky_divergence_is_not_the_emulators() -> None:
    found = Evidence(
        "host", (Stage("repeat", Tries(1, 20)),), ALL_AGAINST, AGAINST, (EmulatorResult("qemu-10.0", NONE),)
    )
    assert classify(found).name == "flaky"


def test_a_failure_now_and_then_is_not_flaky() -> None:
    mostly = tuple(Stage(name, Tries(8, 10)) for name in STAGES)
    assert classify(Evidence("host", mostly, ALL_AGAINST, AGAINST)).name == "kvm"


def test_evidence_of_a_recorded_trace() -> None:
    trace = trace_from_json(json.loads((GOLDEN / "mixture.trace.json").read_text()))
    scenario = load(GOLDEN / "mixture.scn")
    catalogue = Catalogue.load(ROOT / "corpus" / "known", "spec")
    result = check(scenario, trace, "spec", cpu_model("cortex-a72"), catalogue)
    assert result.unexplained
    for key in signatures(result):
        divergence = first_of(result, key)
        assert divergence is not None and signature(divergence) == key
        found = evidence(trace, result, divergence, SURE)
        assert [side.level for side in found.sides] == ([] if key[0] == "switch" else list(LEVELS))
        assert all(side.stand in SIDES for side in found.sides)
        if key[0] in ("save", "restore"):
            assert "spec" in found.levels(AGAINST)
        if key[0] in ("host", "switch"):
            assert found.architecture == AGAINST
        assert classify(found).name in ("kvm", "model", "unexplained")
    assert first_of(result, ("restore", "no such", "", "")) is None


# ---- a set of one fake target -----------------------------------------------------------------------------------

KEY = signature(DIVERGENCE)


def targets_of(fake: FakeExecutor, subject: Subject = SUBJECT) -> TargetSet[FakeExecutor]:
    fake.subject = subject
    return TargetSet([fake])


def test_stages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([checked(DIVERGENCE)] * 3 + [checked()] + [checked(DIVERGENCE)] * 4 + [checked()] * 2)
    with targets_of(fake) as it:
        stages = stages_of(it, SCENARIO, (KEY,), runs=4, boots=2)
    assert [(s.name, s.tries) for s in stages[KEY]] == [
        ("repeat", Tries(3, 4)),
        ("fresh_vm", Tries(4, 4)),
        ("fresh_qemu", Tries(0, 2)),
    ]
    assert fake.fresh == [False] * 4 + [True] * 6
    assert fake.boots == it.boots == 3


def test_a_lost_machine_shows_nothing_and_is_booted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([VmLost("fake", "gone"), checked(DIVERGENCE)])
    with targets_of(fake) as it:
        assert not it.reproduces(SCENARIO, KEY)
        assert it.reproduces(SCENARIO, KEY)
        assert fake.boots == 2
        fake.answers += [VmLost("fake", "gone")] * MAX_LOSSES
        for _ in range(MAX_LOSSES - 1):
            assert not it.reproduces(SCENARIO, KEY)
        with pytest.raises(VmLost):
            it.reproduces(SCENARIO, KEY)


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
        assert triage(database, it, 7, said.append) == 1
        assert triage(database, it, 7, said.append) == 0, "done before"
    (line,) = said
    assert "3 steps -> 0" in line
    entry = store.entry(finding_id("divergence", KEY, SUBJECT))
    assert (
        entry.count == 1
        and entry.scenario == "shadowfuzz-scenario 1\nabout The least that shows restore.xN/HVC64/prep_hvc.\n"
    )
    assert (entry.finding.same_vm, entry.finding.fresh_vm) == (Tries(7, 7), Tries(7, 7))
    assert story_of(store, entry.finding.id).kept.fresh_qemu == Tries(1, 1)


def test_triage_begins_with_what_is_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    subject = replace(SUBJECT, target="kvm-nvhe")
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    kept, new = ("host", "spsr_el1", "RESET", ""), [("host", f"new{i}", "RESET", "") for i in range(8)]
    for key in (kept, *new):
        store.add(Finding("divergence", key, subject, (), 0, Tries(1, 1), Tries(1, 1), "2026"), SCENARIO)
    said: list[str] = []
    with targets_of(FakeExecutor([]), subject) as it:
        assert triage(Database(default_url(tmp_path)), it, 5, said.append) == 9
    assert [finding_id("divergence", kept, subject) in line for line in said] == [False] * 8 + [True]


def test_triage_leaves_what_does_not_come_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fuzz.store.kept_findings.load_config", lambda name: SimpleNamespace(cpu="cortex-a72"))
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    finding = Finding("divergence", KEY, SUBJECT, (), 0, Tries(1, 1), Tries(1, 1), "2026")
    store.add(finding, SCENARIO)
    said: list[str] = []
    with targets_of(FakeExecutor([])) as it:
        triage(Database(default_url(tmp_path)), it, 7, said.append)
    assert "did not come back" in said[0] and store.load(finding.id) == finding


def test_a_run_that_did_not_end_well_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([checked(DIVERGENCE, status="hang")])
    with targets_of(fake) as it:
        assert not it.reproduces(SCENARIO, KEY)


def test_what_runs_away_is_minimised_to_what_does_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort that never comes is a guest that exits for ever; from one that ends, no way leads there."""
    large = Scenario("Large.", (), (Step("hvc", (3,)), Step("wfi")))
    for status, steps in (("runaway", 0), ("ok", 2)):
        fake = FakeExecutor([checked(DIVERGENCE, status=status)] * 3 + [checked(DIVERGENCE, status="runaway")] * 100)
        with targets_of(fake) as it:
            assert len(minimise_on(it, large, KEY).scenario.steps) == steps
