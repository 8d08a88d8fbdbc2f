# SPDX-License-Identifier: Apache-2.0
"""Measure the reproduction rate of a divergence, compare every level of the model, and return a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fuzz.targets.emulators import emulators_here
from fuzz.targets.observation import Observation, is_alarm, signatures_shown
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import Side, TargetSet, open_targets
from fuzz.triage.minimise import choose_signature
from fuzz.triage.other_emulators import EmulatorQuery, EmulatorSweep, emulator_names, measure_on_emulators, queries_of
from harness.findings.finding import Signature, Tries, is_member, signature_text
from harness.findings.verdict import (
    STAGES,
    EmulatorResult,
    Evidence,
    Stage,
    Verdict,
    alarm_evidence,
    alarm_verdict,
    classify,
    evidence,
    first_of,
    rate_text,
    together,
)
from harness.scenario.scenario import Scenario, load

ALARM_BOOTS = 3
"""Minimum number of fresh machines for the rate of an alarm, which no other stage measures."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The evidence and the verdict for one signature of a scenario."""

    signature: Signature
    evidence: Evidence
    verdict: Verdict


def as_json(found: Confirmation) -> dict[str, object]:
    """Return plain data for :mod:`json`."""
    return {
        "signature": signature_text(found.signature),
        "verdict": asdict(found.verdict),
        "rate": rate_text(together(found.evidence.stages)),
        "evidence": asdict(found.evidence),
    }


def stages_of(
    targets: TargetSet[Side], scenario: Scenario, wanted: tuple[Signature, ...], runs: int, boots: int
) -> dict[Signature, tuple[Stage, ...]]:
    """Run a scenario in every stage and count, by signature, how often it was reproduced.

    It is run ``runs`` times in one KVM VM and in fresh ones, and in ``boots`` fresh QEMUs.  Alarms are counted in fresh
    QEMUs only, at least ALARM_BOOTS, because a kernel may report one only once per boot.  TargetError: the machine was
    lost.
    """
    counts = {key: dict.fromkeys(STAGES, 0) for key in wanted}
    if any(map(is_alarm, wanted)):
        boots = max(boots, ALARM_BOOTS)
    times = dict(zip(STAGES, (runs, runs, boots), strict=True))
    stages = STAGES if any(not is_alarm(key) for key in wanted) else STAGES[-1:] if wanted else ()
    for stage in stages:
        for _ in range(times[stage]):
            if stage == "fresh_qemu":
                targets.stop()
            found = targets.run_and_check(scenario, fresh_vm=stage != "repeat")
            shown = signatures_shown(found)
            for key in wanted:
                counts[key][stage] += any(is_member(each, key) for each in shown)
    return {
        key: tuple(Stage(s, Tries(hits[s], times[s])) for s in (STAGES[-1:] if is_alarm(key) else STAGES))
        for key, hits in counts.items()
    }


@dataclass(frozen=True, slots=True)
class ConfirmPlan:
    """What to measure: runs in one KVM VM and in fresh ones, fresh QEMUs, and whether to run other emulators."""

    runs: int
    boots: int
    emulators: bool


def confirm(
    options: TargetOptions, file: Path, wanted: str | None, plan: ConfirmPlan, say: Callable[[str], None]
) -> tuple[Confirmation, ...]:
    """Classify the divergences and alarms that a file's scenario shows, or the one whose signature is ``wanted``.

    InputError, SetupError: a file, a name or the set-up is wrong, or the scenario shows none.  TargetError: the machine
    was lost.
    """
    scenario = load(file)
    with open_targets(options, say) as targets:
        first = targets.run_and_check(scenario)
        keys = signatures_shown(first)
        kept = choose_signature(keys, wanted, str(file))
        keys = keys if wanted is None else (kept,)
        counts = stages_of(targets, scenario, keys, plan.runs, plan.boots)
        # A difference between two targets would need other emulators for both.
        use_emulators = plan.emulators and options.against is None
        divergences = tuple(key for key in keys if not is_alarm(key))
        queries = queries_of(targets, scenario, divergences) if use_emulators and divergences else ()
    abroad: Mapping[Signature, tuple[EmulatorResult, ...]] = {}
    if queries:  # the target's machine has ended, so its core is free
        sweep = EmulatorSweep(targets.sides[0].config, replace(options, hyp_copy=targets.has_hyp_copy))
        abroad = _on_emulators(sweep, queries, say)
    return tuple(_confirmed(key, first, counts[key], abroad.get(key, ())) for key in keys)


def _on_emulators(
    sweep: EmulatorSweep, queries: Sequence[EmulatorQuery], say: Callable[[str], None]
) -> Mapping[Signature, tuple[EmulatorResult, ...]]:
    here = emulators_here()
    say(f"trying {', '.join(emulator_names(sweep.config, here))}")
    if len(here) == 1:
        say(f"{here[0].name} is the only QEMU here; `shadowfuzz setup --emulators` gets others")
    return dict(zip((each.signature for each in queries), measure_on_emulators(sweep, queries, here, say), strict=True))


def _confirmed(
    key: Signature, first: Observation, stages: tuple[Stage, ...], abroad: tuple[EmulatorResult, ...]
) -> Confirmation:
    if is_alarm(key):
        return Confirmation(key, alarm_evidence(stages), alarm_verdict(stages))
    divergence = first_of(first.checked, key)
    assert divergence is not None
    known = evidence(first.trace, first.checked, divergence, stages, abroad)
    return Confirmation(key, known, classify(known))
