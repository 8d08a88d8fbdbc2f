# SPDX-License-Identifier: Apache-2.0
"""Minimise and confirm the findings of a campaign, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.store.database import Database
from fuzz.store.findings import CONSOLE, FINDINGS, FRESH_QEMU, Store
from fuzz.store.kept_findings import stories_of
from fuzz.targets.observation import Observation, clusters_of, leaders_of, texts_of
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import Side, TargetSet, open_targets
from fuzz.triage.confirm import ALARM_BOOTS, stages_of
from fuzz.triage.kept_on_emulators import on_emulators
from fuzz.triage.minimise import LEAST, minimise_on
from harness.errors import InputError
from harness.findings.checked import signature
from harness.findings.finding import MAX_DIVERGENCES, Finding, Tries, difference, finding_id, is_member, signature_text
from harness.report.finding_data import Kept, Story
from harness.vm.crash import EARLIER


@dataclass(frozen=True, slots=True)
class TriagePlan:
    """``runs`` in one VM, and in fresh ones; ``only_new``: leave what an erratum explains as it is."""

    runs: int
    only_new: bool = False


def triage(database: Database, targets: TargetSet[Side], plan: TriagePlan, say: Callable[[str], None]) -> int:
    """Minimise and confirm what was found on the targets, new ones first; return how many findings were done.

    Each is kept before the next one begins.  TargetError: the machine was lost too often.
    """
    store = Store(database, FINDINGS)
    waiting = [story for story in stories_of(store) if _waits(story, targets, plan)]
    for number, story in enumerate(sorted(waiting, key=lambda story: bool(story.like)), 1):
        one = _alarm if story.kept.finding.kind == "alarm" else _one
        say(f"{number} of {len(waiting)}: {story.id}: {one(store, story.kept, targets, plan.runs)}")
    return len(waiting)


def _waits(story: Story, targets: TargetSet[Side], plan: TriagePlan) -> bool:
    """Whether a finding is to be done: it is of these targets, and was not done since it has its scenario."""
    kept = story.kept
    if kept.finding.kind not in ("divergence", "alarm") or (plan.only_new and story.like):
        return False
    here = (kept.finding.subject, kept.finding.other) == (targets.subject, targets.other)
    return here and kept.scenario is not None and not _is_done(kept)


def _is_done(kept: Kept) -> bool:
    """Whether a finding was triaged before; of an alarm the campaign itself has measured the rate."""
    if kept.finding.kind == "alarm":
        return kept.scenario is not None and kept.scenario.about.startswith(LEAST)
    return kept.fresh_qemu is not None


def _alarm(store: Store, kept: Kept, targets: TargetSet[Side], runs: int) -> str:
    """Minimise an alarm and measure its rate, each run in a machine that was just booted."""
    wanted = kept.finding.signature
    assert kept.scenario is not None
    if any(name.startswith(EARLIER) for name in kept.texts):
        return f"{signature_text(wanted)} wants scenarios that ran before it; left as it is"
    try:
        least = minimise_on(targets, kept.scenario, wanted)
    except InputError:
        return f"{signature_text(wanted)} did not come back; left as it is"
    targets.stop()
    found = targets.run_and_check(least.scenario)
    alarm = next((alarm for alarm in found.alarms if alarm.signature == wanted), None)
    if alarm is None:
        return f"{signature_text(wanted)} did not come back when all was done; left as it is"
    (stage,) = stages_of(targets, least.scenario, (wanted,), 0, min(runs, ALARM_BOOTS))[wanted]
    texts = {CONSOLE: alarm.splat, FRESH_QEMU: f"{stage.tries.hits} {stage.tries.runs}"}
    store.revise(replace(kept.finding, detail=alarm.sentence), least.scenario, texts)
    before, after = len(kept.scenario.steps), len(least.scenario.steps)
    return f"{signature_text(wanted)}: {before} steps -> {after}, {least.tries} tries"


def triage_campaign(
    database: Database, out: Path, options: TargetOptions, plan: TriagePlan, say: Callable[[str], None]
) -> int:
    """Minimise and confirm all that a campaign found on targets, try it on other emulators, write its directories.

    Return how many findings were done.  InputError, SetupError: a name or the set-up is wrong.  TargetError: the
    machine was lost too often.
    """
    with open_targets(options, say) as targets:
        done = triage(database, targets, plan, say)
    on_emulators(options, say)(database, targets)
    Store(database, FINDINGS).export(out / FINDINGS)
    return done


def _one(store: Store, kept: Kept, targets: TargetSet[Side], runs: int) -> str:
    wanted = kept.finding.signature
    assert kept.scenario is not None
    try:
        least = minimise_on(targets, kept.scenario, wanted)
    except InputError:
        return f"{signature_text(wanted)} did not come back; left as it is"
    found = targets.run_and_check(least.scenario)
    members = [divergence for divergence in found.checked.unexplained if is_member(signature(divergence), wanted)]
    if not members:
        return f"{signature_text(wanted)} did not come back when all was done; left as it is"
    repeat, fresh, _ = stages_of(targets, least.scenario, (wanted,), runs, 0)[wanted]
    finding = replace(
        kept.finding,
        divergences=tuple(difference(divergence) for divergence in members[:MAX_DIVERGENCES]),
        divergence_count=len(members),
        same_vm=repeat.tries,
        fresh_vm=fresh.tries,
    )
    qemu = Tries(int(least.confirmed), 1)
    texts = {**texts_of(found), FRESH_QEMU: f"{qemu.hits} {qemu.runs}"}
    store.revise(finding, least.scenario, texts, _leader(found, kept.finding))
    before, after = len(kept.scenario.steps), len(least.scenario.steps)
    return f"{signature_text(wanted)}: {before} steps -> {after}, {least.tries} tries"


def _leader(found: Observation, finding: Finding) -> str:
    """Return the id of the cluster that a run which shows a finding shows first; empty if an erratum explains it."""
    key = found.subject, found.other, finding.signature
    leader = leaders_of(clusters_of((found,))).get(key)
    return "" if leader is None else finding_id("divergence", leader[2], *leader[:2])
