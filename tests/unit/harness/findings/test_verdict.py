# SPDX-License-Identifier: Apache-2.0
"""Verdicts: the rate's interval, the rules, and which levels agree with KVM on a recorded trace."""

from __future__ import annotations

import json

import pytest

from fuzz.targets.observation import signatures
from harness.arch.cpu_models import cpu_model
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import Tries
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
from harness.relations.basis import API, CONVENTION
from harness.scenario.scenario import load
from harness.trace.tracefile import trace_from_json
from tests.support.paths import CORPUS, GOLDEN


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
        ("convention", "a convention of Linux", Evidence("host", SURE, ALL_AGAINST, AGAINST, (), CONVENTION)),
        ("kvm", "all levels", Evidence("host", SURE, ALL_AGAINST, AGAINST, (), API)),
        (
            "flaky",
            "never came back",
            Evidence("host", (Stage("repeat", Tries(0, 3)),), ALL_AGAINST, AGAINST, (), CONVENTION),
        ),
        ("kvm", "world switch", Evidence("switch", SURE, (), AGAINST)),
        ("kvm", "all levels", Evidence("restore", SURE, ALL_AGAINST, AGAINST)),
        ("kvm", "no level predicts", Evidence("host", SURE, stands(TAKES, TAKES, TAKES, TAKES), AGAINST)),
        ("kvm", "no level predicts", Evidence("host", SURE, stands(SILENT, SILENT, AGAINST, AGAINST), AGAINST)),
        ("unexplained", "agrees with KVM", Evidence("host", SURE, stands(AGAINST, AGAINST, AGAINST, WITH), AGAINST)),
        ("model", "deployed", Evidence("restore", SURE, stands(AGAINST, WITH, WITH, WITH), CONTENT)),
        ("unexplained", "does not: the model", Evidence("restore", SURE, ALL_AGAINST, CONTENT)),
        ("unexplained", "no rule of the project", Evidence("restore", SURE, ALL_AGAINST, SILENT)),
        ("unexplained", "does not agree", Evidence("restore", SURE, stands(AGAINST, WITH, WITH, AGAINST), CONTENT)),
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
        # A rate that may be chance, a run that was not made, and another CPU model prove nothing.
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
    catalogue = Catalogue.load(CORPUS / "known", "spec")
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
